// SPDX-License-Identifier: GPL-2.0-only
#include "dpi/bare_ack.hpp"

#include <gtest/gtest.h>

#include <array>

#include "packets.hpp"

namespace l7mark {
namespace {

using namespace test;

Bytes bare_ack_of(const Bytes& packet) {
  std::array<std::uint8_t, kBareAckRoom> out{};
  const std::size_t length = make_bare_ack(packet, out);
  return {out.begin(), out.begin() + static_cast<std::ptrdiff_t>(length)};
}

TEST(BareAckTest, IsTheSegmentsHeadersWithoutPayload) {
  for (const Endpoints& ends : {Endpoints{}, Endpoints{"2001:db8::1", "2001:db8::2", 80, 40000}}) {
    const Bytes segment = tcp(ends, L7M_TCP_ACK | 0x08, 0x01020304, 0x05060708, text("HTTP/1.1"));
    Bytes expected = tcp(ends, L7M_TCP_ACK, 0x01020304, 0x05060708);
    if (expected[0] >> 4 == 4) expected[6] = 0;  // the bit that forbids fragments
    EXPECT_EQ(bare_ack_of(segment), expected) << ends.source;
  }
}

TEST(BareAckTest, OptionsAreLeftOut) {
  Bytes segment = tcp({}, L7M_TCP_ACK, 1, 2, text("abcdefghijkl"));
  segment[32] = 0x80;  // the first twelve bytes of payload become options
  const Bytes ack = bare_ack_of(segment);
  ASSERT_EQ(ack.size(), 40U);
  EXPECT_EQ(ack[32], 0x50);
  EXPECT_EQ(ack[3], 40);
}

TEST(BareAckTest, OptionsOfIpv4Stay) {
  Bytes segment = tcp({}, L7M_TCP_ACK, 1, 2);
  segment[0] = 0x4f;
  segment.insert(segment.begin() + 20, 40, 0x01);
  const Bytes ack = bare_ack_of(segment);
  ASSERT_EQ(ack.size(), 80U);
  EXPECT_EQ(ack[3], 80);
  EXPECT_EQ(ack[72], 0x50);
}

TEST(BareAckTest, NothingElseHasOne) {
  const Bytes segment = tcp({}, L7M_TCP_ACK, 1, 2, text("x"));
  for (std::size_t size = 0; size < 40; ++size)
    EXPECT_TRUE(
        bare_ack_of(Bytes(segment.begin(), segment.begin() + static_cast<long>(size))).empty())
        << size;
  EXPECT_TRUE(bare_ack_of(udp({}, Bytes(40, 'x'))).empty());
  Bytes later = segment;
  later[7] = 1;
  EXPECT_TRUE(bare_ack_of(later).empty()) << "a later fragment";
  Bytes shorter = segment;
  shorter[0] = 0x44;
  EXPECT_TRUE(bare_ack_of(shorter).empty()) << "a header of four words";
  Bytes extended = tcp({"2001:db8::1", "2001:db8::2"}, L7M_TCP_ACK, 1, 2, text("x"));
  extended[6] = 0;
  EXPECT_TRUE(bare_ack_of(extended).empty()) << "hop-by-hop options";
}

}  // namespace
}  // namespace l7mark
