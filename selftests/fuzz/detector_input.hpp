// SPDX-License-Identifier: GPL-2.0-only
// A fuzzer's bytes as the packets of one flow. Each packet is a byte of flags, a byte of the
// payload's length, two of what was not copied, two of the distance to the next sequence number
// (from -128; 0x80 is none), and its payload.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "detectors/detector.hpp"

namespace l7mark::fuzz {

inline constexpr std::size_t kMaxPackets = 64;

// Calls `look` with each packet; ends when that is true, as a classifier would.
template <class Look>
bool show_packets(std::span<const std::uint8_t> input, bool tcp, Look&& look) {
  std::uint32_t sequence[2] = {0xffffff00, 0};
  for (std::size_t i = 0; i < kMaxPackets && input.size() >= 6; ++i) {
    const bool from_client = (input[0] & 1) != 0;
    const std::size_t length =
        std::min<std::size_t>(input[1] * ((input[0] & 2) != 0 ? 6U : 1U), input.size() - 6);
    const std::size_t not_copied = read_be16(input, 2);
    std::uint32_t& next = sequence[from_client ? 0 : 1];
    next += read_be16(input, 4) - 0x80U;
    DetectorPacket packet;
    packet.from_client = from_client;
    packet.tcp = tcp;
    packet.payload = input.subspan(6, length);
    packet.wire_length = length + not_copied;
    packet.sequence = next;
    next += static_cast<std::uint32_t>(packet.wire_length);
    if (look(packet)) return true;
    input = input.subspan(6 + length);
  }
  return false;
}

}  // namespace l7mark::fuzz
