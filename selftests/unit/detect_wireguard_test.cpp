// SPDX-License-Identifier: GPL-2.0-only
// The detector of WireGuard with recordings of real tunnels, the same behind junk and with other
// types as obfuscating variants send them, and with near misses.
#include <gtest/gtest.h>

#include <utility>

#include "detector_packets.hpp"

namespace l7mark::test {
namespace {

std::size_t spoken(const std::vector<Shown>& packets) {
  return spoken_at(packets, false, Detector::wireguard);
}

// As AmneziaWG changes it: junk before each kind of message, and other types.
std::vector<Shown> obfuscated(std::size_t initiation, std::size_t response, std::size_t data,
                              bool types) {
  std::vector<Shown> packets = packets_of(kWireguard443);
  for (std::size_t i = 0; i < packets.size(); ++i) {
    Shown& packet = packets[i];
    if (types) packet.payload[1] = packet.payload[2] = 0x5a;
    const std::size_t junk = i == 0 ? initiation : i == 1 ? response : data;
    packet.wire_length += junk;
    packet.payload.insert(packet.payload.begin(), junk, 0xc3);
  }
  return packets;
}

// A datagram of random bytes: the same in every run.
Shown junk(bool from_client, std::size_t length, std::uint32_t seed) {
  Shown out{from_client, 0, length, {}};
  for (std::size_t i = 0; i < std::min<std::size_t>(length, 86); ++i) {
    seed = seed * 1664525U + 1013904223U;
    out.payload.push_back(static_cast<std::uint8_t>(seed >> 24));
  }
  return out;
}

TEST(DetectWireguard, IsNamedAtTheResponse) {
  EXPECT_EQ(spoken(packets_of(kWireguard443)), 2U);
  EXPECT_EQ(spoken(packets_of(kWireguard51820)), 2U);
}

TEST(DetectWireguard, TheServersSideMayBegin) {
  std::vector<Shown> packets = packets_of(kWireguard443);
  for (Shown& packet : packets) packet.from_client = !packet.from_client;
  EXPECT_EQ(spoken(packets), 2U);
}

TEST(DetectWireguard, NeedsTheEchoFromTheOtherSide) {
  std::vector<Shown> packets = packets_of(kWireguard443);
  for (Shown& packet : packets) packet.from_client = true;
  EXPECT_EQ(spoken(packets), 0U);
  for (std::size_t i = 8; i < 12; ++i) {
    packets = packets_of(kWireguard443);
    packets[1].payload[i] ^= 1;
    EXPECT_EQ(spoken(packets), 0U) << i;
  }
}

TEST(DetectWireguard, NeedsTheLengths) {
  for (const std::size_t which : {0U, 1U}) {
    std::vector<Shown> packets = packets_of(kWireguard443);
    --packets[which].wire_length;
    EXPECT_EQ(spoken(packets), 0U) << which;
    packets = obfuscated(0, 0, 0, true);
    ++packets[which].wire_length;
    EXPECT_EQ(spoken(packets), 0U) << which;
  }
}

TEST(DetectWireguard, PaddingMayFollow) {
  std::vector<Shown> packets = packets_of(kWireguard443);
  packets[0].wire_length += 56;
  packets[1].wire_length += 8;
  EXPECT_EQ(spoken(packets), 2U);
  packets[0].payload[0] = 2;
  EXPECT_EQ(spoken(packets), 0U);
}

TEST(DetectWireguard, BehindJunkWithItsOwnTypes) {
  EXPECT_EQ(spoken(obfuscated(15, 0, 0, false)), 2U);
  EXPECT_EQ(spoken(obfuscated(60, 33, 7, false)), 2U);
}

TEST(DetectWireguard, WithOtherTypesTheFirstDataTells) {
  EXPECT_EQ(spoken(obfuscated(0, 0, 0, true)), 3U);
  EXPECT_EQ(spoken(obfuscated(15, 68, 0, true)), 3U);
  EXPECT_EQ(spoken(obfuscated(60, 33, 16, true)), 3U);
  EXPECT_EQ(spoken(obfuscated(0, 0, 63, true)), 3U);
  EXPECT_EQ(spoken(obfuscated(0, 0, 64, true)), 0U);  // the search ends
}

TEST(DetectWireguard, OtherTypesNeedDataWithTheResponsesIndex) {
  std::vector<Shown> packets = obfuscated(15, 68, 3, true);
  packets.resize(3);
  ASSERT_EQ(spoken(packets), 3U);
  packets[2].payload[3 + 4] ^= 1;
  EXPECT_EQ(spoken(packets), 0U) << "another index";
  packets = obfuscated(15, 68, 3, true);
  packets.resize(3);
  packets[2].payload[3 + 12] = 1;
  EXPECT_EQ(spoken(packets), 0U) << "a counter of a long session";
  packets = obfuscated(15, 68, 3, true);
  packets.resize(3);
  packets[2].wire_length += 5;
  EXPECT_EQ(spoken(packets), 0U) << "a length that is not padded";
}

TEST(DetectWireguard, JunkDatagramsMayGoFirst) {
  std::vector<Shown> packets = obfuscated(15, 68, 0, true);
  for (std::uint32_t i = 0; i < 4; ++i)
    packets.insert(packets.begin(), junk(true, 60 + 200 * i, 7 + i));
  EXPECT_EQ(spoken(packets), 7U);
}

TEST(DetectWireguard, IndexesThatAreNotRandomAreNoEcho) {
  for (const auto filler : {std::uint8_t{0x00}, std::uint8_t{0x20}}) {
    std::vector<Shown> packets = obfuscated(0, 0, 0, true);
    for (Shown& packet : packets) std::fill_n(packet.payload.begin() + 4, 4, filler);
    std::fill_n(packets[1].payload.begin() + 8, 4, filler);
    EXPECT_EQ(spoken(packets), 0U);
  }
}

TEST(DetectWireguard, ARepeatedInitiationIsAnsweredOnce) {
  std::vector<Shown> packets = packets_of(kWireguard443);
  Shown first = packets[0];
  first.payload[4] ^= 0xff;
  packets.insert(packets.begin(), first);
  EXPECT_EQ(spoken(packets), 3U);
  std::swap(packets[0], packets[1]);
  EXPECT_EQ(spoken(packets), 3U);
}

TEST(DetectWireguard, IsNotOverTcp) {
  EXPECT_EQ(spoken_at(packets_of(kWireguard443), true, Detector::wireguard), 0U);
}

TEST(DetectWireguard, CutPacketsAreNotReadBeyondTheirEnd) {
  for (std::size_t left = 0; left < 40; ++left) {
    std::vector<Shown> packets = obfuscated(9, 3, 5, true);
    for (Shown& packet : packets) packet.payload.resize(std::min(packet.payload.size(), left));
    const std::size_t at = spoken(packets);
    if (left < 17) {
      EXPECT_EQ(at, 0U) << left;
    }
  }
}

}  // namespace
}  // namespace l7mark::test
