// SPDX-License-Identifier: GPL-2.0-only
// A netlink socket over libmnl. The netfilter subsystems work off a request within sendto(), so
// that every acknowledgement is queued when it returns: nothing here ever waits.
#pragma once

#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "util/result.hpp"

struct mnl_socket;

namespace l7mark {

// Room for messages under construction. libmnl writes without a bounds check: a caller reserves
// what a message may take at most.
class NetlinkBatch {
 public:
  explicit NetlinkBatch(std::size_t capacity) : bytes_(capacity) {}
  // Where the next message begins; valid until clear(). At least room() bytes may be written.
  [[nodiscard]] void* tail() { return bytes_.data() + used_; }
  [[nodiscard]] std::size_t room() const { return bytes_.size() - used_; }
  // The message at tail() is complete.
  void commit(const nlmsghdr* message);
  void clear() { used_ = 0; }
  [[nodiscard]] bool empty() const { return used_ == 0; }
  [[nodiscard]] std::span<const std::byte> bytes() const { return {bytes_.data(), used_}; }

 private:
  std::vector<std::byte> bytes_;
  std::size_t used_ = 0;
};

struct NetlinkReply {
  const nlmsghdr* message = nullptr;  // valid during the handler's call only
  bool ack = false;                   // NLMSG_ERROR, 0 included
  int error = 0;                      // positive: an errno, or from 4096 on the subsystem's own
  std::string text;                   // extended acknowledgement (NLMSGERR_ATTR_MSG), often empty
};
using NetlinkHandler = std::function<void(const NetlinkReply&)>;

class NetlinkSocket {
 public:
  // `bus` is NETLINK_NETFILTER or another of linux/netlink.h. Works in the network namespace that
  // the calling thread is in now, for good.
  static Result<NetlinkSocket> open(int bus);

  [[nodiscard]] int fd() const;
  // Reserves `count` sequence numbers and returns the first; never 0.
  [[nodiscard]] std::uint32_t reserve_sequence(std::uint32_t count = 1);
  // Bytes; what the kernel doubles. Mainly for tests of overruns.
  Status set_receive_buffer(int bytes);

  // From now on the group's messages come to this socket: use one of its own for that.
  Status join(int group);
  // Reads at most `datagrams` that have come unasked. For `lost` see exchange().
  Status receive(const NetlinkHandler& handler, bool& lost, std::size_t datagrams);

  // One datagram of one or more messages, then all replies. `lost` becomes true if the kernel
  // dropped replies (ENOBUFS): what has no acknowledgement must be taken as unknown.
  Status exchange(std::span<const std::byte> messages, const NetlinkHandler& handler, bool& lost);
  // A request that is answered by one acknowledgement, or by messages and one. An error of the
  // kernel becomes reply.error of what is returned, not an Error.
  Result<NetlinkReply> request(std::span<const std::byte> message, const NetlinkHandler& handler);

 private:
  struct Closer {
    void operator()(mnl_socket* socket) const;
  };
  explicit NetlinkSocket(mnl_socket* socket);

  std::unique_ptr<mnl_socket, Closer> socket_;
  std::vector<std::byte> buffer_;
  std::uint32_t sequence_ = 0;
};

}  // namespace l7mark
