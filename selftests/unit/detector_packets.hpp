// SPDX-License-Identifier: GPL-2.0-only
// Shows recordings, whole or changed, to the detectors.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "detector_captures.hpp"
#include "detectors/detectors.hpp"

namespace l7mark::test {

// A packet that a test may change.
struct Shown {
  bool from_client = false;
  std::uint32_t sequence = 0;
  std::size_t wire_length = 0;
  std::vector<std::uint8_t> payload;
};

inline std::vector<std::uint8_t> bytes_of(std::string_view hex) {
  std::vector<std::uint8_t> out;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    std::uint8_t byte = 0;
    std::from_chars(hex.data() + i, hex.data() + i + 2, byte, 16);
    out.push_back(byte);
  }
  return out;
}

inline std::vector<Shown> packets_of(const Recording& recording) {
  std::vector<Shown> out;
  for (const RecordedPacket& packet : recording)
    out.push_back({packet.from_client, packet.sequence, packet.wire_length, bytes_of(packet.hex)});
  return out;
}

// The number, from 1, of the packet at which a detector speaks; 0 for never.
inline std::size_t spoken_at(const std::vector<Shown>& packets, bool tcp, Detector expected) {
  DetectorState state;
  for (std::size_t i = 0; i < packets.size(); ++i) {
    const Shown& p = packets[i];
    const auto match = look(state, {p.from_client, tcp, p.payload, p.wire_length, p.sequence});
    if (!match) continue;
    EXPECT_EQ(match->detector, expected);
    return i + 1;
  }
  return 0;
}

}  // namespace l7mark::test
