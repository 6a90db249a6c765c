// SPDX-License-Identifier: GPL-2.0-only
// The acknowledgement that stands between a question and its answer, made up where it was not
// copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace l7mark {

// Room for the headers of one: IPv4 with options, or IPv6, and TCP.
inline constexpr std::size_t kBareAckRoom = 80;

// Writes the ACK without payload that the sender of `packet`, a TCP segment from its IP header on,
// may have sent just before it: the same addresses, ports and numbers, TCP without options. Returns
// its length, or 0 if `packet` is not such a segment. Checksums are left at 0: the packet goes to
// nDPI, which does not look at them, and never to a wire.
[[nodiscard]] std::size_t make_bare_ack(std::span<const std::uint8_t> packet,
                                        std::span<std::uint8_t, kBareAckRoom> out);

}  // namespace l7mark
