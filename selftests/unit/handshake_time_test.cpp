// SPDX-License-Identifier: GPL-2.0-only
// include/l7mark/handshake_time.h: what a handshake's packets tell of round-trip times.
#include <gtest/gtest.h>
#include <l7mark/handshake_time.h>
#include <netinet/in.h>

#include <cstdint>

namespace l7mark {
namespace {

constexpr std::uint8_t kSyn = L7M_TCP_SYN;
constexpr std::uint8_t kAck = L7M_TCP_ACK;
constexpr std::uint8_t kSynAck = L7M_TCP_SYN | L7M_TCP_ACK;

// A candidate as the kernel has it: begun by endpoint 0 unless said otherwise.
class HandshakeTime : public testing::Test {
 protected:
  void tcp(std::uint32_t sender, std::uint8_t flags, std::uint32_t now_us) {
    l7m_packet packet{};
    packet.protocol = IPPROTO_TCP;
    packet.tcp_flags = flags;
    pass(packet, sender, now_us);
  }
  void udp(std::uint32_t sender, std::uint32_t now_us) {
    l7m_packet packet{};
    packet.protocol = IPPROTO_UDP;
    packet.payload = 100;
    pass(packet, sender, now_us);
  }
  l7m_candidate candidate_{};

 private:
  void pass(const l7m_packet& packet, std::uint32_t sender, std::uint32_t now_us) {
    ++candidate_.count.packets[sender];
    if (l7m_times_handshake(&candidate_, &packet, sender) != 0)
      l7m_time_handshake(&candidate_, &packet, sender, now_us);
  }
};

TEST_F(HandshakeTime, BothSidesOfTcp) {
  tcp(0, kSyn, 1000);
  EXPECT_EQ(candidate_.rtt_server_us, 0U);
  tcp(1, kSynAck, 31000);
  tcp(0, kAck, 31500);
  tcp(0, kAck, 99000);
  EXPECT_EQ(candidate_.rtt_server_us, 30000U);
  EXPECT_EQ(candidate_.rtt_client_us, 500U) << "the first ACK counts, later ones are of data";
}

TEST_F(HandshakeTime, TheClockWraps) {
  tcp(0, kSyn, 0xfffffff0U);
  tcp(1, kSynAck, 0x10U);
  EXPECT_EQ(candidate_.rtt_server_us, 0x20U);
}

TEST_F(HandshakeTime, NoTimeIsNotZero) {
  tcp(0, kSyn, 7);
  tcp(1, kSynAck, 7);
  EXPECT_EQ(candidate_.rtt_server_us, 1U) << "0 stands for not known";
}

TEST_F(HandshakeTime, ARepeatedSynLeavesTheClientsTime) {
  tcp(0, kSyn, 1000);
  tcp(0, kSyn, 1001000);
  tcp(1, kSynAck, 1031000);
  tcp(0, kAck, 1031500);
  EXPECT_EQ(candidate_.rtt_server_us, L7M_RTT_VOID);
  EXPECT_EQ(candidate_.rtt_client_us, 500U);
}

TEST_F(HandshakeTime, ARepeatedSynAckLeavesTheServersTime) {
  tcp(0, kSyn, 1000);
  tcp(1, kSynAck, 31000);
  tcp(1, kSynAck, 1031000);
  tcp(0, kAck, 1031500);
  EXPECT_EQ(candidate_.rtt_server_us, 30000U);
  EXPECT_EQ(candidate_.rtt_client_us, L7M_RTT_VOID);
}

TEST_F(HandshakeTime, ASynThatCameAgainAfterItsAnswerChangesNothing) {
  tcp(0, kSyn, 1000);
  tcp(1, kSynAck, 31000);
  tcp(0, kSyn, 31100);
  tcp(0, kAck, 31500);
  EXPECT_EQ(candidate_.rtt_server_us, 30000U);
  EXPECT_EQ(candidate_.rtt_client_us, 500U);
}

TEST_F(HandshakeTime, TheSynWasNotSeen) {
  candidate_.flags = L7M_FLOW_ANSWER;  // endpoint 0 is the server
  tcp(0, kSynAck, 1000);
  tcp(1, kAck, 1700);
  EXPECT_EQ(candidate_.rtt_server_us, L7M_RTT_VOID);
  EXPECT_EQ(candidate_.rtt_client_us, 700U);
}

TEST_F(HandshakeTime, MidstreamHasNone) {
  candidate_.flags = L7M_FLOW_MIDSTREAM;
  tcp(0, kAck, 1000);
  tcp(1, kAck, 2000);
  EXPECT_EQ(candidate_.rtt_server_us, 0U);
  EXPECT_EQ(candidate_.rtt_client_us, 0U);
}

TEST_F(HandshakeTime, UdpFromTheFirstDatagramToTheFirstAnswer) {
  udp(0, 1000);
  udp(0, 1050);  // a hello in two datagrams
  udp(1, 21000);
  udp(1, 50000);
  EXPECT_EQ(candidate_.rtt_server_us, 20000U);
  EXPECT_EQ(candidate_.rtt_client_us, 0U);
}

TEST_F(HandshakeTime, UdpAskedAgain) {
  udp(0, 1000);
  udp(0, 1000 + L7M_REPEATED_US + 1);
  udp(1, 2000000);
  EXPECT_EQ(candidate_.rtt_server_us, L7M_RTT_VOID);
}

TEST_F(HandshakeTime, ASecondLookAtUdpTellsNothing) {
  candidate_.flags = L7M_FLOW_AGAIN;
  udp(0, 1000);
  udp(1, 2000);
  EXPECT_EQ(candidate_.rtt_server_us, 0U);
}

}  // namespace
}  // namespace l7mark
