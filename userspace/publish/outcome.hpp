// SPDX-License-Identifier: GPL-2.0-only
// What is written into the kernel's sets, and what came of it: common to ipset and nftables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "util/address.hpp"
#include "util/result.hpp"

namespace l7mark {

// An element of a set: (server, protocol:port, client). A set type that has fewer fields ignores
// the rest. Both addresses are of one family.
struct SetEntry {
  Address server;
  Address client;
  std::uint16_t port = 0;     // the server's, host byte order; 0 for protocols without any
  std::uint8_t protocol = 0;  // IPPROTO_*
  std::uint32_t timeout = 0;  // seconds; 0: never expires (and so in a set without timeouts)
};

// Why a write failed, as far as a caller can act on it.
enum class WriteTrouble : std::uint8_t {
  none,
  gone,        // set or table was destroyed: ensure it again and write all live entries again
  full,        // no room: try again when entries have expired
  wrong_type,  // a set of that name takes other elements: tell the user, once
  lost,        // netlink dropped acknowledgements (ENOBUFS), repeats included: try again later
  element,     // the kernel refused this element; the others were written
  denied,      // CAP_NET_ADMIN is missing
  other,
};
[[nodiscard]] std::string_view to_string(WriteTrouble trouble);

struct WriteFailure {
  std::size_t index = 0;  // into the entries of the call
  WriteTrouble trouble = WriteTrouble::none;
};

struct WriteOutcome {
  std::size_t written = 0;
  std::size_t skipped = 0;  // entries that this set cannot hold: other family, ICMP where ports are
  std::size_t resyncs = 0;  // how often acknowledgements were lost and the write was repeated
  std::vector<WriteFailure> failures;  // all that were not written, those not tried included
  std::optional<Error> error;          // of the first failure

  [[nodiscard]] bool ok() const { return failures.empty(); }
  // The failure that concerns the whole set rather than an element, if there is one.
  [[nodiscard]] WriteTrouble trouble() const;
  void fail(std::size_t index, WriteTrouble trouble, Error cause);
};

// What ensure() did.
enum class Ensured : std::uint8_t { created, adopted };

}  // namespace l7mark
