// SPDX-License-Identifier: GPL-2.0-only
// Marks and labels on conntrack entries by ctnetlink, so that `CONNMARK --restore-mark` and
// `ct label` work in both directions and behind NAT.
#pragma once

#include <bitset>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "publish/netlink.hpp"
#include "publish/outcome.hpp"

namespace l7mark {

// Who sends to whom, as seen on the inside. Ports in host byte order, 0 where there are none.
struct ConntrackTuple {
  struct Icmp {
    std::uint16_t id = 0;
    std::uint8_t type = 0;
    std::uint8_t code = 0;
  };
  Address source;
  Address destination;
  std::uint16_t source_port = 0;
  std::uint16_t destination_port = 0;
  std::uint8_t protocol = 0;  // IPPROTO_*
  // Of ICMP and ICMPv6: one entry exactly. Without it, every entry between the two addresses.
  std::optional<Icmp> icmp;
  std::uint16_t zone = 0;  // of both directions
};

// An entry, as the kernel tells of it.
struct ConntrackEntry {
  ConntrackTuple original;
  ConntrackTuple reply;
};

inline constexpr std::size_t kConntrackLabels = 128;
using ConntrackLabels = std::bitset<kConntrackLabels>;

// What to write. Only bits inside the masks change.
struct ConntrackChange {
  std::uint32_t mark = 0;
  std::uint32_t mark_mask = 0;  // 0: leave the mark alone
  ConntrackLabels labels;
  ConntrackLabels labels_mask;  // none: leave the labels alone
};

struct ConntrackRequest {
  ConntrackTuple tuple;
  ConntrackChange change;
};

struct ConntrackOutcome {
  std::size_t written = 0;
  std::size_t resyncs = 0;
  std::vector<std::size_t> missing;  // no such entry, in either direction
  std::vector<WriteFailure> failures;
  std::optional<Error> error;  // of the first failure
};

class Conntrack {
 public:
  static Result<Conntrack> open();

  // Finds each flow's entry by its tuple, then, for what is not found, by the reversed one: a
  // connection from outside to a host behind DNAT is known by its reply only. Batched. A label on
  // an entry that was made when no rule used labels fails with ENOSPC, which the Error explains;
  // the mark of the same request is set all the same.
  ConntrackOutcome write(std::span<const ConntrackRequest> requests);

  [[nodiscard]] NetlinkSocket& socket() { return socket_; }

 private:
  explicit Conntrack(NetlinkSocket socket) : socket_(std::move(socket)) {}
  void write_pass(std::span<const ConntrackRequest> requests, std::vector<std::size_t> pending,
                  bool reversed, ConntrackOutcome& outcome, std::vector<std::size_t>& absent);
  Result<std::vector<ConntrackTuple>> find_icmp(const ConntrackTuple& tuple);

  NetlinkSocket socket_;
};

// Tells of entries that the kernel destroys, whoever had it do so. An entry that was made while
// nobody listened goes without a word, from Linux 5.19 on (net.netfilter.nf_conntrack_events=2).
class ConntrackEvents {
 public:
  static Result<ConntrackEvents> open();

  // Becomes readable with events.
  [[nodiscard]] int fd() const { return socket_.fd(); }
  // Reads what has come, so much at most that the caller is soon back. `lost` becomes true if the
  // kernel dropped events because nobody read them in time.
  Status read(const std::function<void(const ConntrackEntry&)>& destroyed, bool& lost);

  [[nodiscard]] NetlinkSocket& socket() { return socket_; }

 private:
  explicit ConntrackEvents(NetlinkSocket socket) : socket_(std::move(socket)) {}

  NetlinkSocket socket_;
};

}  // namespace l7mark
