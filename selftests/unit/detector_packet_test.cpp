// SPDX-License-Identifier: GPL-2.0-only
// Where the detectors' payload begins in a packet, whatever headers precede it.
#include "dpi/detector_packet.hpp"

#include <gtest/gtest.h>
#include <netinet/in.h>

#include <vector>

#include "packets.hpp"

namespace l7mark::test {
namespace {

using Payload = std::vector<std::uint8_t>;

Payload payload_of(const DetectorPacket& packet) {
  return {packet.payload.begin(), packet.payload.end()};
}

Bytes ipv6(std::uint8_t next, const Bytes& rest) {
  Bytes out(40, 0);
  out[0] = 0x60;
  out[5] = static_cast<std::uint8_t>(rest.size());
  out[6] = next;
  put(out, rest);
  return out;
}

Bytes udp_header() {
  return {0x12, 0x34, 0x56, 0x78, 0, 11, 0, 0};
}

TEST(DetectorPacket, UdpOverIpv4WithOptions) {
  Bytes packet(24, 0);
  packet[0] = 0x46;
  put(packet, udp_header());
  put(packet, text("abc"));
  const auto found = detector_packet(packet, IPPROTO_UDP, 3);
  ASSERT_TRUE(found);
  EXPECT_EQ(payload_of(*found), text("abc"));
  EXPECT_EQ(found->wire_length, 3U);
  EXPECT_FALSE(found->tcp);
}

TEST(DetectorPacket, TcpWithOptionsAndSequence) {
  Bytes packet(20, 0);
  packet[0] = 0x45;
  Bytes tcp(32, 0);
  tcp[4] = 0x81;
  tcp[7] = 0x02;
  tcp[12] = 0x80;
  put(packet, tcp);
  put(packet, text("abcdef"));
  const auto found = detector_packet(packet, IPPROTO_TCP, 4);
  ASSERT_TRUE(found);
  EXPECT_TRUE(found->tcp);
  EXPECT_EQ(found->sequence, 0x81000002U);
  EXPECT_EQ(payload_of(*found), text("abcd"));  // a frame's padding is left out
}

TEST(DetectorPacket, Ipv6ExtensionHeaders) {
  Bytes rest{IPPROTO_DSTOPTS, 1};
  rest.resize(16, 0xee);
  put(rest, Bytes{IPPROTO_UDP, 0, 0, 0, 0, 0, 0, 0});
  put(rest, udp_header());
  put(rest, text("xyz"));
  const Bytes packet = ipv6(IPPROTO_HOPOPTS, rest);  // the result looks into it
  const auto found = detector_packet(packet, IPPROTO_UDP, 3);
  ASSERT_TRUE(found);
  EXPECT_EQ(payload_of(*found), text("xyz"));
}

TEST(DetectorPacket, HeadersThatDoNotEnd) {
  Bytes rest;
  for (int i = 0; i < 20; ++i) put(rest, Bytes{IPPROTO_HOPOPTS, 0, 0, 0, 0, 0, 0, 0});
  EXPECT_FALSE(detector_packet(ipv6(IPPROTO_HOPOPTS, rest), IPPROTO_UDP, 3));
  EXPECT_FALSE(detector_packet(ipv6(IPPROTO_HOPOPTS, Bytes{IPPROTO_UDP, 255}), IPPROTO_UDP, 3));
}

TEST(DetectorPacket, NothingToShow) {
  Bytes packet(20, 0);
  packet[0] = 0x45;
  put(packet, udp_header());
  EXPECT_FALSE(detector_packet(packet, IPPROTO_UDP, 3)) << "not copied";
  put(packet, text("abc"));
  EXPECT_FALSE(detector_packet(packet, IPPROTO_UDP, 0)) << "no payload";
  EXPECT_FALSE(detector_packet(packet, IPPROTO_ICMP, 3)) << "another transport";
  EXPECT_FALSE(detector_packet({}, IPPROTO_UDP, 3));
  for (std::size_t size = 1; size < packet.size() - 3; ++size)
    EXPECT_FALSE(detector_packet(std::span(packet).first(size), IPPROTO_UDP, 3)) << size;
}

}  // namespace
}  // namespace l7mark::test
