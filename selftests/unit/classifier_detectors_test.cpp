// SPDX-License-Identifier: GPL-2.0-only
// The detectors within a classifier: whose answer counts, and when.
#include <gtest/gtest.h>

#include "detector_packets.hpp"
#include "dpi/classifier.hpp"
#include "packets.hpp"

namespace l7mark {
namespace {

using namespace test;

class ClassifierDetectorsTest : public testing::Test, public ClassifierSink {
 protected:
  ClassifierDetectorsTest() : engine_(std::move(*Engine::make())), classifier_(engine_, *this) {}

  void on_answer(Answer&& answer) override { answers_.push_back(std::move(answer)); }
  void on_dns(DnsAnswer&& /*answer*/) override {}

  void take(const Bytes& packet, bool from_client = true, std::uint16_t flags = 0,
            std::uint8_t candidate_flags = 0) {
    Sample sample(packet, ++time_ns_);
    if (!from_client) sample.head.initiator = 1 - sample.head.direction;
    sample.head.flags = flags;
    sample.head.candidate_flags = candidate_flags;
    classifier_.take(sample.bytes());
  }
  // A recorded packet, what was not recorded of it being zero.
  void take(const Shown& packet, bool is_tcp, std::uint16_t flags = 0) {
    Bytes payload = packet.payload;
    payload.resize(packet.wire_length, 0);
    const Endpoints ends = packet.from_client ? ends_ : ends_.reversed();
    take(is_tcp ? tcp(ends, L7M_TCP_ACK, packet.sequence, 1, payload) : udp(ends, payload),
         packet.from_client, flags);
  }
  void take_all(const Recording& recording, bool is_tcp) {
    if (is_tcp) take(tcp(ends_, L7M_TCP_SYN, packets_of(recording)[0].sequence - 1, 0));
    for (const Shown& packet : packets_of(recording)) take(packet, is_tcp);
  }
  // A connection of one client's payload, reset by the server.
  void connect(const Bytes& payload, bool with_syn = true) {
    if (with_syn) take(tcp(ends_, L7M_TCP_SYN, 100, 0));
    const std::uint8_t midstream = with_syn ? 0 : L7M_FLOW_MIDSTREAM;
    take(tcp(ends_, L7M_TCP_ACK, 101, 501, payload), true, 0, midstream);
    take(tcp(ends_.reversed(), L7M_TCP_RST, 501, 201), false, L7M_SAMPLE_RST,
         static_cast<std::uint8_t>(midstream | L7M_FLOW_RST));
  }
  [[nodiscard]] bool is_fully_encrypted() const {
    return !answers_.empty() &&
           (answers_.back().facts.risks >> Engine::fully_encrypted_risk() & 1) != 0;
  }

  Engine engine_;
  Classifier classifier_;
  std::vector<Answer> answers_;
  Endpoints ends_{"192.0.2.10", "198.51.100.20", 40000, 7107};
  std::uint64_t time_ns_ = 0;
};

// Four bits of eight in every byte, and none printable.
Bytes random_bytes() {
  Bytes out;
  for (int i = 0; i < 100; ++i) put(out, Bytes{0xf0, 0x0f, 0xc3, 0x99});
  return out;
}

TEST_F(ClassifierDetectorsTest, ADetectorsAnswerIsTheLastWord) {
  for (const bool is_tcp : {false, true}) {
    answers_.clear();
    take_all(is_tcp ? kOpenvpnTcpTlsCrypt : kOpenvpnUdpTlsCrypt, is_tcp);
    ASSERT_EQ(answers_.size(), 1U);
    const Answer& answer = answers_[0];
    EXPECT_EQ(answer.name, "OpenVPN");
    EXPECT_EQ(answer.state, FlowState::final);
    EXPECT_EQ(answer.facts.detector, Detector::openvpn);
    EXPECT_EQ(engine_.application_name(answer.facts.application), "OpenVPN");
    EXPECT_EQ(engine_.category_name(answer.facts.category), "VPN");
    EXPECT_EQ(answer.sampled_packets, is_tcp ? 3U : 2U);
  }
}

TEST_F(ClassifierDetectorsTest, ItComesBeforeAGuessByPort) {
  ends_.dport = 443;
  const std::vector<Shown> packets = packets_of(kOpenvpnUdpTlsCrypt);
  take(packets[0], false);
  take(packets[1], false, L7M_SAMPLE_LAST);
  ASSERT_EQ(answers_.size(), 1U);
  EXPECT_EQ(answers_[0].name, "OpenVPN");
  EXPECT_EQ(answers_[0].state, FlowState::final);
}

// nDPI 4.2 names whatever is on this port, and calls it DPI.
TEST_F(ClassifierDetectorsTest, APortThatNdpiTakesForContentHidesNothing) {
  ends_.dport = 5001;
  take_all(kOpenvpnUdpPlain, false);
  ASSERT_FALSE(answers_.empty());
  EXPECT_EQ(answers_.back().name, "OpenVPN");
  EXPECT_EQ(answers_.back().facts.detector, Detector::openvpn);
  answers_.clear();
  ends_.sport = 40001;
  take(udp(ends_, Bytes(50, 0x01)), true, L7M_SAMPLE_LAST);
  ASSERT_FALSE(answers_.empty());
  EXPECT_EQ(answers_.back().state, FlowState::guessed);
  EXPECT_EQ(answers_.back().facts.confidence, Confidence::port);
}

TEST_F(ClassifierDetectorsTest, WhatNdpiNamesIsNdpis) {
  connect(client_hello("www.example.org"));
  ASSERT_FALSE(answers_.empty());
  EXPECT_EQ(answers_.back().facts.detector, Detector::none);
  EXPECT_FALSE(is_fully_encrypted());
}

TEST_F(ClassifierDetectorsTest, FullyEncryptedIsARiskOfItsOwn) {
  connect(random_bytes());
  ASSERT_EQ(answers_.size(), 1U);
  EXPECT_TRUE(is_fully_encrypted());
  EXPECT_GT(answers_[0].facts.risk_score, 0U);
  EXPECT_EQ(answers_[0].facts.detector, Detector::none);
  Catalog catalog;
  engine_.fill(catalog);
  const auto number = catalog.risk("fully encrypted flow");
  ASSERT_TRUE(number);
  EXPECT_EQ(*number, Engine::fully_encrypted_risk());
  EXPECT_EQ(catalog.risk_severity(*number), RiskSeverity::medium);
}

TEST_F(ClassifierDetectorsTest, FullyEncryptedNeedsTheConnectionsBeginning) {
  connect(random_bytes(), false);
  ASSERT_EQ(answers_.size(), 1U);
  EXPECT_FALSE(is_fully_encrypted());
}

TEST_F(ClassifierDetectorsTest, TextIsNotFullyEncrypted) {
  connect(Bytes(100, 'x'));
  ASSERT_EQ(answers_.size(), 1U);
  EXPECT_FALSE(is_fully_encrypted());
}

}  // namespace
}  // namespace l7mark
