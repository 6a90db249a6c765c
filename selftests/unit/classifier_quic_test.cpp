// SPDX-License-Identifier: GPL-2.0-only
// QUIC as a classifier is given it: hellos over several datagrams, and the server's answer.
#include <gtest/gtest.h>

#include "classifier_fixture.hpp"
#include "conversations.hpp"
#include "quic_packets.hpp"

namespace l7mark {
namespace {

using namespace test;

constexpr std::string_view kZoom = "us04web.zoom.us";

class QuicTest : public ClassifierTest {
 protected:
  void client(const Bytes& datagram, std::uint64_t time = kSecond, std::uint16_t flags = 0) {
    Sample sample(udp(ends_, datagram), time);
    sample.head.flags = flags;
    take(sample);
  }
  void server(const Bytes& datagram, std::uint64_t time = kSecond) {
    take(Sample(udp(ends_.reversed(), datagram), time));
  }
  Bytes answer_of(const QuicClient& client, std::uint16_t cipher) {
    return quic_seal(
        quic_initial_keys(quic_protection(client.version), client.dcid, QuicSide::server),
        {client.version, client.scid, from_hex("f067a5502a4262b5"), {}, 0, 1},
        crypto_frame(0, server_hello(0x0304, cipher)));
  }
  void expect_zoom(const Answer& answer, const Bytes& hello) {
    EXPECT_EQ(answer.name, "QUIC.Zoom");
    EXPECT_EQ(answer.facts.hostname, kZoom);
    EXPECT_EQ(answer.facts.details.alpn, "h3");
    EXPECT_EQ(answer.facts.details.ja4_client, ja4_of_message(hello, HelloTransport::quic));
    EXPECT_EQ(answer.facts.details.tls_version, 0x0304);
  }
};

TEST_F(QuicTest, OverDatagramsInAnyOrder) {
  for (const std::uint32_t version : {kQuicVersion1, kQuicVersion2, kQuicDraft29}) {
    for (const std::size_t count : {1U, 2U, 3U, 4U}) {
      for (const Order order : {Order::forward, Order::backward, Order::shuffled}) {
        SCOPED_TRACE(std::to_string(version) + ' ' + std::to_string(count));
        restart({});
        answers_.clear();
        QuicClient sender;
        sender.version = version;
        const Bytes hello = quic_client_hello(kZoom, count == 1 ? 900 : 3000);
        for (const Bytes& datagram : in_order(sender.initials(hello, count), order)) {
          EXPECT_TRUE(answers_.empty());
          client(datagram);
          if (answers_.empty()) server(sender.other(2, 60));
        }
        // Told at once, and the last word when the server has chosen.
        ASSERT_EQ(answers_.size(), 1U);
        EXPECT_EQ(answers_[0].state, FlowState::provisional);
        expect_zoom(answers_[0], hello);
        EXPECT_EQ(answers_[0].facts.details.tls_cipher_id, 0);
        server(answer_of(sender, 0x1302));
        ASSERT_EQ(answers_.size(), 2U);
        EXPECT_EQ(answers_[1].state, FlowState::final);
        expect_zoom(answers_[1], hello);
        EXPECT_EQ(answers_[1].facts.details.tls_cipher_id, 0x1302);
        EXPECT_EQ(classifier_->flows(), 0U);
      }
    }
  }
}

TEST_F(QuicTest, AfterARetry) {
  for (const std::size_t count : {1U, 2U}) {
    restart({});
    answers_.clear();
    QuicClient sender;
    const Bytes hello = quic_client_hello(kZoom, count == 1 ? 900 : 2000);
    client(sender.initials(hello, count)[0]);
    Bytes retry{0xf0};
    put32(retry, sender.version);
    put(retry, Bytes{3, 0xc1, 0xc2, 0xc3, 8, 1, 2, 3, 4, 5, 6, 7, 8});
    put(retry, Bytes(40, 0x11));
    server(retry);
    sender.dcid = {1, 2, 3, 4, 5, 6, 7, 8};
    sender.token = text("a token");
    for (const Bytes& datagram : sender.initials(hello, count)) client(datagram);
    server(answer_of(sender, 0x1303));
    ASSERT_FALSE(answers_.empty());
    EXPECT_EQ(answers_.back().state, FlowState::final);
    expect_zoom(answers_.back(), hello);
    EXPECT_EQ(answers_.back().facts.details.tls_cipher_id, 0x1303);
  }
}

TEST_F(QuicTest, TheServerIsWaitedForHalfASecond) {
  QuicClient sender;
  const Bytes hello = quic_client_hello(kZoom, 2000);
  for (const Bytes& datagram : sender.initials(hello, 2)) client(datagram, 5 * kSecond);
  ASSERT_EQ(answers_.size(), 1U);
  EXPECT_EQ(answers_[0].state, FlowState::provisional);
  classifier_->idle(5 * kSecond + kSecond / 2 - 1);
  EXPECT_EQ(answers_.size(), 1U);
  classifier_->idle(5 * kSecond + kSecond / 2);
  ASSERT_EQ(answers_.size(), 2U);
  EXPECT_EQ(answers_[1].state, FlowState::final);
  expect_zoom(answers_[1], hello);
  EXPECT_EQ(answers_[1].facts.details.tls_cipher_id, 0);
}

TEST_F(QuicTest, NothingIsWaitedForAfterTheLastSample) {
  QuicClient sender;
  const Bytes hello = quic_client_hello(kZoom, 900);
  client(sender.initials(hello, 1)[0], kSecond, L7M_SAMPLE_LAST);
  ASSERT_EQ(answers_.size(), 1U);
  EXPECT_EQ(answers_[0].state, FlowState::final);
  expect_zoom(answers_[0], hello);
}

TEST_F(QuicTest, OneThatNeverBecomesWholeIsQuicAllTheSame) {
  QuicClient sender;
  client(sender.initials(quic_client_hello(kZoom, 3000), 3)[0]);
  EXPECT_TRUE(answers_.empty());
  classifier_->idle(11 * kSecond);
  ASSERT_EQ(answers_.size(), 1U);
  EXPECT_EQ(answers_[0].name, "QUIC");
}

TEST_F(QuicTest, TooManyOfThemPushOutTheOldest) {
  ClassifierOptions options;
  options.max_reading = 2;
  restart(options);
  QuicClient sender;
  const Bytes first = sender.initials(quic_client_hello(kZoom, 3000), 3)[0];
  for (std::uint16_t i = 0; i < 10; ++i) {
    Endpoints ends = ends_;
    ends.sport = static_cast<std::uint16_t>(50000 + i);
    take(Sample(udp(ends, first)));
    ASSERT_LE(classifier_->flows(), 2U);
  }
  EXPECT_EQ(classifier_->stats().evicted, 8U);
  ASSERT_EQ(answers_.size(), 8U);
  EXPECT_EQ(answers_[0].facts.client_port, 50000);
}

}  // namespace
}  // namespace l7mark
