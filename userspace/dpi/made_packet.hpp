// SPDX-License-Identifier: GPL-2.0-only
// Packets that no host has sent in this form, for nDPI: it looks at 32 packets of a flow at most,
// and reads a hello of QUIC or DTLS only from one of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace l7mark {

// Longest IP packet, and most bytes of headers that are kept of one.
inline constexpr std::size_t kMaxPacketBytes = 65535;
inline constexpr std::size_t kMaxHeaderBytes = 256;

// Everything of a TCP or UDP packet up to its payload, from the IP header on: IPv4 or IPv6 with
// options and extension headers as they were. Empty if it is longer than kMaxHeaderBytes.
[[nodiscard]] std::vector<std::uint8_t> headers_of(std::span<const std::uint8_t> packet,
                                                   std::size_t payload_offset);

// `headers` with another payload: the lengths in the IP header, and of UDP in its own, are made
// right, checksums are left. `protocol` is IPPROTO_TCP or IPPROTO_UDP; `sequence`, in host order,
// is written for TCP only, and left as it was behind IPv6 extension headers. At most
// kMaxPacketBytes long; empty if these are no headers.
[[nodiscard]] std::vector<std::uint8_t> packet_with(std::span<const std::uint8_t> headers,
                                                    std::uint8_t protocol, std::uint32_t sequence,
                                                    std::span<const std::uint8_t> payload);

}  // namespace l7mark
