// SPDX-License-Identifier: GPL-2.0-only
// Hellos of TLS and DTLS as a classifier is given them: in any pieces, in several records, and
// never whole.
#include <gtest/gtest.h>

#include <algorithm>

#include "classifier_fixture.hpp"
#include "conversations.hpp"
#include "dpi/own_risks.hpp"
#include "recorded_hellos.hpp"

namespace l7mark {
namespace {

using namespace test;

constexpr std::string_view kZoom = "us04web.zoom.us";
const Bytes kMessage = made_client_hello(full_spec(kZoom));
const Bytes kHello = records(kMessage);

bool conflicts(const Answer& answer) {
  return (answer.facts.risks >> kConflictingSegments.bit & 1) != 0;
}

class HelloTest : public ClassifierTest {
 protected:
  void syn(const TcpTalk& talk, std::uint64_t time = kSecond) {
    Sample sample(talk.syn(), time);
    sample.head.flags = L7M_SAMPLE_FIRST;
    take(sample);
  }
  void client(const TcpTalk& talk, std::size_t offset, const Bytes& payload,
              std::uint64_t time = kSecond) {
    take(Sample(talk.client(offset, payload), time, 1, 65535));
  }
  void server(const TcpTalk& talk, std::size_t offset, const Bytes& payload,
              std::uint64_t time = kSecond, std::uint16_t flags = 0) {
    Sample sample(talk.server(offset, payload), time);
    sample.head.flags = flags;
    take(sample);
  }
  // The flow that was told last, when nothing more comes.
  const Answer& finished() {
    classifier_->finish();
    EXPECT_FALSE(answers_.empty());
    if (answers_.empty()) answers_.emplace_back();
    return answers_.back();
  }
  void expect_zoom(const Answer& answer, const Bytes& message = kMessage) {
    EXPECT_EQ(answer.name, "TLS.Zoom");
    EXPECT_EQ(answer.facts.hostname, kZoom);
    EXPECT_EQ(answer.facts.details.ja4_client, ja4_of_message(message));
    EXPECT_EQ(answer.facts.details.alpn, "h2,http/1.1");
    EXPECT_TRUE(answer.facts.details.ech);
    EXPECT_FALSE(conflicts(answer));
  }
};

TcpTalk talk_over(bool v6) {
  TcpTalk talk;
  if (v6) talk.ends = {"2001:db8::10", "2001:db8:1::20", 40000, 443};
  talk.client_first = 0xffffff00;  // the numbers wrap
  return talk;
}

TEST_F(HelloTest, SegmentsOfAnySizeInAnyOrder) {
  for (const bool v6 : {false, true}) {
    const TcpTalk talk = talk_over(v6);
    for (const std::size_t pieces :
         {std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{40}, kHello.size()}) {
      for (const Order order : {Order::forward, Order::backward, Order::shuffled}) {
        SCOPED_TRACE(std::to_string(pieces) + (v6 ? " v6 " : " v4 ") +
                     std::to_string(static_cast<int>(order)));
        restart({});
        answers_.clear();
        syn(talk);
        for (const Piece& piece : in_order(cut(kHello, pieces), order))
          client(talk, piece.offset, piece.bytes);
        ASSERT_EQ(answers_.size(), 1U) << "the provisional one";
        expect_zoom(answers_[0]);
        EXPECT_EQ(answers_[0].facts.midstream, false);
        expect_zoom(finished());
        EXPECT_EQ(answers_.back().sampled_packets, pieces + 1);
      }
    }
  }
}

TEST_F(HelloTest, WithoutASyn) {
  for (const bool v6 : {false, true}) {
    const TcpTalk talk = talk_over(v6);
    for (const std::size_t pieces : {1U, 2U, 3U, 40U}) {
      restart({});
      auto parts = cut(kHello, pieces);
      // The first stays the first: there is no telling where the stream begins but by it.
      std::reverse(parts.begin() + 1, parts.end());
      for (const Piece& piece : parts) {
        Sample sample(talk.client(piece.offset, piece.bytes));
        sample.head.candidate_flags = L7M_FLOW_MIDSTREAM;
        if (piece.offset == 0) sample.head.flags = L7M_SAMPLE_FIRST;
        take(sample);
      }
      expect_zoom(finished());
    }
  }
}

TEST_F(HelloTest, OverSeveralRecords) {
  const TcpTalk talk;
  for (const std::size_t most : {1000U, 300U, 50U, 3U}) {
    const Bytes stream = records(kMessage, most);
    for (const std::size_t pieces : {1U, 2U, 7U}) {
      SCOPED_TRACE(std::to_string(most) + ' ' + std::to_string(pieces));
      restart({});
      syn(talk);
      for (const Piece& piece : in_order(cut(stream, pieces), Order::backward))
        client(talk, piece.offset, piece.bytes);
      server(talk, 0, records(server_hello(0x0304, 0x1302)));
      expect_zoom(finished());
      EXPECT_EQ(answers_.back().facts.details.tls_version, 0x0304);
    }
  }
}

TEST_F(HelloTest, AnotherProtocolInTheWrongOrder) {
  TcpTalk talk;
  talk.ends.dport = 80;
  const Bytes request = text(
      "GET /some/where HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: test\r\nAccept: "
      "*/*\r\n\r\n");
  for (const std::size_t at : {1U, 20U, 60U}) {
    restart({});
    syn(talk);
    client(talk, at, part_of(request, at, request.size()));
    client(talk, 0, part_of(request, 0, at));
    const Answer& answer = finished();
    EXPECT_EQ(answer.name, "HTTP");
    EXPECT_EQ(answer.facts.hostname, "www.example.com");
    EXPECT_TRUE(answer.facts.details.ja4_client.empty());
  }
}

// A part of a hello that has the name.
constexpr std::size_t kPart = 400;

TEST_F(HelloTest, OneThatNeverBecomesWholeIsNamedAllTheSame) {
  const TcpTalk talk;
  const auto expect_part = [](const Answer& answer) {
    EXPECT_EQ(answer.name, "TLS.Zoom");
    EXPECT_EQ(answer.facts.hostname, kZoom);
    EXPECT_TRUE(answer.facts.details.ja4_client.empty()) << "of a part it would be another's";
  };
  const auto begin = [&] {
    restart({});
    answers_.clear();
    syn(talk);
    client(talk, 0, part_of(kHello, 0, kPart));
    EXPECT_TRUE(answers_.empty());
  };
  {
    SCOPED_TRACE("idle");
    begin();
    classifier_->idle(10 * kSecond);
    EXPECT_TRUE(answers_.empty());
    classifier_->idle(11 * kSecond);
    ASSERT_EQ(answers_.size(), 1U);
    EXPECT_EQ(answers_[0].state, FlowState::final);
    expect_part(answers_[0]);
  }
  {
    SCOPED_TRACE("closed");
    begin();
    Sample notice(talk.client(kPart, {}));
    notice.head.type = L7M_RECORD_NOTICE;
    notice.head.candidate_flags = L7M_FLOW_RST;
    notice.head.captured = notice.head.wanted = 0;
    notice.frame.clear();
    take(notice);
    ASSERT_EQ(answers_.size(), 1U);
    expect_part(answers_[0]);
    EXPECT_TRUE(answers_[0].closed);
  }
  {
    SCOPED_TRACE("closed by a packet with payload");
    begin();
    Sample fin(talk.client(kPart, part_of(kHello, kPart, kPart + 10)));
    fin.head.candidate_flags = L7M_FLOW_FIN0 | L7M_FLOW_FIN1;
    take(fin);
    ASSERT_EQ(answers_.size(), 1U);
    expect_part(answers_[0]);
  }
  {
    SCOPED_TRACE("the last sample");
    begin();
    Sample last(talk.client(kPart + 20, part_of(kHello, kPart + 20, kPart + 30)));
    last.head.flags = L7M_SAMPLE_LAST;
    take(last);
    ASSERT_EQ(answers_.size(), 1U);
    expect_part(answers_[0]);
  }
  {
    SCOPED_TRACE("answered");
    begin();
    server(talk, 0, records(server_hello(0x0303, 0xc02f)));
    expect_part(finished());
    EXPECT_EQ(answers_.back().sampled_packets, 3U);
  }
  {
    SCOPED_TRACE("the end of input");
    begin();
    expect_part(finished());
  }
}

TEST_F(HelloTest, TooManyOfThemPushOutTheOldest) {
  ClassifierOptions options;
  options.max_reading = 3;
  restart(options);
  const auto talk_of = [](std::uint16_t i) {
    TcpTalk talk;
    talk.ends.sport = static_cast<std::uint16_t>(50000 + i);
    return talk;
  };
  for (std::uint16_t i = 0; i < 50; ++i) {
    syn(talk_of(i));
    client(talk_of(i), 0, part_of(kHello, 0, kPart));
    if (i == 4) client(talk_of(2), kPart, part_of(kHello, kPart, kPart + 1));  // not the oldest now
    if (i == 5) {
      EXPECT_EQ(answers_.back().facts.client_port, 50003);
    }
    ASSERT_LE(classifier_->flows(), 3U);
  }
  EXPECT_EQ(classifier_->stats().evicted, 47U);
  ASSERT_EQ(answers_.size(), 47U);
  for (const Answer& answer : answers_) {
    EXPECT_EQ(answer.state, FlowState::final);
    EXPECT_EQ(answer.name, "TLS.Zoom");
  }
  // One that is whole is not among them.
  syn(talk_of(100));
  client(talk_of(100), 0, kHello);
  EXPECT_EQ(classifier_->flows(), 4U);
  EXPECT_EQ(classifier_->stats().evicted, 47U);
}

// Packets of which a part is missing wait in the same place.
TEST_F(HelloTest, SoDoPacketsInParts) {
  ClassifierOptions options;
  options.max_reading = 3;
  restart(options);
  const Bytes hello = hello_record(kZoom, 15000);
  for (std::uint16_t i = 0; i < 20; ++i) {
    TcpTalk talk;
    talk.ends.sport = static_cast<std::uint16_t>(50000 + i);
    take(Sample::in_parts(talk.client(0, hello))[0]);
    ASSERT_LE(classifier_->flows(), 3U);
  }
  EXPECT_EQ(answers_.size(), 17U);
  EXPECT_EQ(answers_.back().name, "TLS.Zoom");
}

TEST_F(HelloTest, DifferentCopiesAreARisk) {
  const TcpTalk talk;
  const auto parts = cut(kHello, 3);
  for (const bool forged : {false, true}) {
    restart({});
    syn(talk);
    client(talk, parts[1].offset, parts[1].bytes);
    Bytes again = parts[1].bytes;
    if (forged) again.back() ^= 1;
    client(talk, parts[1].offset, again);
    client(talk, 0, parts[0].bytes);
    client(talk, parts[2].offset, parts[2].bytes);
    const Answer& answer = finished();
    EXPECT_EQ(answer.name, "TLS.Zoom");
    EXPECT_EQ(conflicts(answer), forged);
    EXPECT_EQ(answer.facts.hostname, kZoom);
  }
}

TEST_F(HelloTest, TheServersChoiceOverridesWhatWasOffered) {
  HelloSpec spec;
  spec.ciphers = {0xc02f, 0xc013};
  spec.extensions = {server_name(kZoom), {10, {0, 2, 0, 29}}, {11, {1, 0}}};
  const Bytes offered = records(made_client_hello(spec));
  const Bytes chosen = records(server_hello(0x0302, 0xc013));
  const TcpTalk talk;
  for (const std::size_t pieces : {std::size_t{1}, std::size_t{2}, std::size_t{5}, chosen.size()}) {
    SCOPED_TRACE(pieces);
    restart({});
    syn(talk);
    client(talk, 0, offered);
    for (const Piece& piece : cut(chosen, pieces)) server(talk, piece.offset, piece.bytes);
    const Answer& answer = finished();
    EXPECT_EQ(answer.name, "TLS.Zoom");
    EXPECT_EQ(answer.facts.details.tls_version, 0x0302);
    EXPECT_EQ(answer.facts.details.tls_cipher_id, 0xc013);
    EXPECT_EQ(answer.facts.details.tls_cipher, Engine::cipher_name(0xc013));
  }
}

TEST_F(HelloTest, HelloRetryRequest) {
  const Bytes from_client = from_hex(kRetryClient), from_server = from_hex(kRetryServer);
  const std::size_t hello = 5 + (std::size_t{from_client[3]} << 8 | from_client[4]);
  const std::size_t request = 5 + (std::size_t{from_server[3]} << 8 | from_server[4]);
  const TcpTalk talk;
  syn(talk);
  client(talk, 100, part_of(from_client, 100, hello));
  client(talk, 0, part_of(from_client, 0, 100));
  server(talk, 0, part_of(from_server, 0, request));
  client(talk, hello, part_of(from_client, hello, from_client.size()));
  server(talk, request, part_of(from_server, request, from_server.size()));
  const Answer& answer = finished();
  EXPECT_EQ(answer.name, "TLS");
  EXPECT_EQ(answer.facts.hostname, "retry.example");
  EXPECT_EQ(answer.facts.details.tls_version, 0x0304);
  EXPECT_EQ(answer.facts.details.tls_cipher_id, 0x1302);
  EXPECT_EQ(answer.facts.details.ja4_client, ja4_of_message(part_of(from_client, 5, hello)));
}

TEST_F(HelloTest, OnePacketInSeveralRecords) {
  const Bytes message = made_client_hello(full_spec(kZoom, 14800));
  const Bytes hello = records(message);
  for (const bool v6 : {false, true}) {
    const TcpTalk talk = talk_over(v6);
    restart({});
    answers_.clear();
    syn(talk);
    TcpTalk other = talk;
    std::uint16_t next = 50000;
    const auto parts = Sample::in_parts(talk.client(0, hello));
    ASSERT_EQ(parts.size(), 4U);
    for (const Sample& part : parts) {
      EXPECT_TRUE(answers_.empty());
      take(part);
      // Records of other CPUs come between, and of other packets in parts.
      if (&part == &parts.back()) break;
      other.ends.sport = next++;
      take(Sample::in_parts(other.client(0, hello))[0]);
      take(Sample::in_parts(other.client(0, hello))[1]);
    }
    ASSERT_EQ(answers_.size(), 1U);
    expect_zoom(answers_[0], message);
    EXPECT_EQ(answers_[0].facts.client_port, talk.ends.sport);
    EXPECT_EQ(answers_[0].sampled_packets, 2U);
    EXPECT_EQ(answers_[0].sampled_bytes, 14U + (v6 ? 60 : 40) + talk.client(0, hello).size() + 14);
  }
}

TEST_F(HelloTest, WithALaterPartMissing) {
  const Bytes hello = records(made_client_hello(full_spec(kZoom, 14800)));
  const TcpTalk talk;
  const auto parts = Sample::in_parts(talk.client(0, hello));
  for (const std::size_t missing : {1U, 2U, 3U}) {
    SCOPED_TRACE(missing);
    restart({});
    answers_.clear();
    syn(talk);
    for (std::size_t i = 0; i < parts.size(); ++i)
      if (i != missing) take(parts[i]);
    EXPECT_TRUE(answers_.empty());
    if (missing == 1) {
      // The next packet shows that there will be no more of it.
      server(talk, 0, records(server_hello(0x0303, 0xc02f)));
      ASSERT_FALSE(answers_.empty());
    } else if (missing == 2) {
      Sample notice(talk.client(0, {}));
      notice.head.type = L7M_RECORD_NOTICE;
      notice.head.candidate_flags = L7M_FLOW_RST;
      notice.head.captured = notice.head.wanted = 0;
      notice.frame.clear();
      take(notice);
      ASSERT_EQ(answers_.size(), 1U);
    } else {
      classifier_->idle(11 * kSecond);
      ASSERT_EQ(answers_.size(), 1U);
    }
    EXPECT_EQ(answers_.back().name, "TLS.Zoom");
    EXPECT_EQ(answers_.back().facts.hostname, kZoom);
  }
}

// Two CPUs may have packets of one flow at a time.
TEST_F(HelloTest, APartOfAnotherPacketIsNotTakenForTheNext) {
  HelloSpec spec = full_spec(kZoom, 14800);
  std::rotate(spec.extensions.begin(), spec.extensions.end() - 1, spec.extensions.end());
  const Bytes message = made_client_hello(spec);  // all but the padding is in its last part
  const TcpTalk talk;
  const auto parts = Sample::in_parts(talk.client(0, records(message)));
  const auto strays = Sample::in_parts(talk.client(20000, Bytes(15000, 0x77)));
  syn(talk);
  for (const Sample& part : parts) {
    take(part);
    if (&part == &parts[1]) take(strays[1]);
  }
  expect_zoom(finished(), message);
}

TEST_F(HelloTest, WithTheFirstPartMissing) {
  const Bytes hello = records(made_client_hello(full_spec(kZoom, 14800)));
  const TcpTalk talk;
  syn(talk);
  const auto parts = Sample::in_parts(talk.client(0, hello));
  for (std::size_t i = 1; i < parts.size(); ++i) EXPECT_TRUE(take(parts[i]));
  EXPECT_TRUE(answers_.empty());
  // It is sent again, now as small segments, of which the last is longer than what is missing.
  client(talk, 0, part_of(hello, 0, 1400));
  client(talk, 1400, part_of(hello, 1400, 2800));
  for (std::size_t at = 2800; at < hello.size(); at += 1400)
    client(talk, at, part_of(hello, at, at + 1400));
  expect_zoom(finished(), part_of(hello, 5, hello.size()));
}

TEST_F(HelloTest, ANewPacketAfterACutOne) {
  const Bytes hello = records(made_client_hello(full_spec(kZoom, 14800)));
  const TcpTalk talk;
  const auto parts = Sample::in_parts(talk.client(0, hello));
  syn(talk);
  take(parts[0]);
  take(parts[1]);
  // The client says it again.
  for (const Sample& part : parts) take(part);
  const Answer& answer = finished();
  EXPECT_EQ(answer.name, "TLS.Zoom");
  EXPECT_EQ(answer.facts.hostname, kZoom);
  EXPECT_FALSE(conflicts(answer));
}

TEST_F(HelloTest, DtlsInFragments) {
  HelloSpec spec = full_spec(kZoom, 300);
  spec.dtls = true;
  spec.version = 0xfefd;
  const Bytes message = made_client_hello(spec);
  const std::size_t body = message.size() - 4;
  for (const bool after_stun : {false, true}) {
    for (const Order order : {Order::forward, Order::backward, Order::shuffled}) {
      restart({});
      answers_.clear();
      const Endpoints ends{"192.0.2.10", "198.51.100.20", 40000, 40001};
      if (after_stun) take(Sample(udp(ends, from_hex("000100002112a442000102030405060708090a0b"))));
      std::vector<Bytes> fragments;
      for (std::size_t at = 0; at < body; at += 150)
        fragments.push_back(dtls_fragment(message, 0, at, std::min<std::size_t>(150, body - at)));
      for (const Bytes& fragment : in_order(fragments, order)) take(Sample(udp(ends, fragment)));
      const Answer& answer = finished();
      if (!after_stun) {
        // Not all versions of nDPI name an application by the host here, but they tell the host.
        EXPECT_TRUE(answer.name.starts_with("DTLS")) << answer.name;
        EXPECT_FALSE(answer.facts.details.ja3_client.empty() &&
                     answer.facts.details.ja4_client.empty());
      }
      EXPECT_EQ(answer.facts.hostname, kZoom);
      EXPECT_EQ(answer.facts.details.ja4_client, ja4_of_message(message, HelloTransport::dtls));
    }
  }
}

}  // namespace
}  // namespace l7mark
