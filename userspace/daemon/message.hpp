// SPDX-License-Identifier: GPL-2.0-only
// What a worker tells the main process, as bytes on a SOCK_SEQPACKET pair. The worker parses
// hostile packets, so the reader trusts nothing: every length is checked, and nothing is taken from
// a message that does not fit, or from what is behind it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "flow.hpp"

namespace l7mark {

// Names found in a DNS answer, with the application that nDPI's list of hosts gives.
struct DnsHint {
  DnsAnswer answer;
  std::uint16_t application = 0;
};

// A closed flow's five-tuple was begun anew: the kernel has dropped its verdict.
struct Reopened {
  FlowKey key;
  std::uint64_t id = 0;  // of the life whose verdict is gone
  l7m_counters count{};  // what its verdict had counted
  bool again = false;    // it is not over: it is a candidate again
};

// The worker has its engine and its ring, and has dropped its privileges.
struct Ready {
  std::string ndpi_version;
};

using Message = std::variant<Answer, DnsHint, Reopened, Ready>;

// Collects messages for one send.
class MessageWriter {
 public:
  void add(const Answer& answer);
  void add(const DnsHint& hint);
  void add(const Reopened& reopened);
  void add(const Ready& ready);
  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
  [[nodiscard]] bool empty() const { return bytes_.empty(); }
  void clear() { bytes_.clear(); }

 private:
  std::vector<std::byte> bytes_;
};

// Most bytes in one send; a single message is never longer.
inline constexpr std::size_t kMessageBatch = 64 * 1024;

// Read so many at a time: their look-ups are prefetched together.
inline constexpr std::size_t kMessagesAtOnce = 16;

// The messages of one send, in order. Does not own the bytes.
class MessageReader {
 public:
  explicit MessageReader(std::span<const std::byte> bytes) : left_(bytes) {}

  // The next ones, into the memory of others that are done with. How many; fewer than there is room
  // for at the end, and before a malformed one.
  [[nodiscard]] std::size_t read(std::span<Message> out);
  [[nodiscard]] bool malformed() const { return malformed_; }

 private:
  bool read_one(Message& out);

  std::span<const std::byte> left_;
  bool malformed_ = false;
};

}  // namespace l7mark
