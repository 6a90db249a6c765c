// SPDX-License-Identifier: GPL-2.0-only
#include "dpi/classifier.hpp"

#include <gtest/gtest.h>

#include "classifier_fixture.hpp"
#include "dpi/own_risks.hpp"

namespace l7mark {
namespace {

using namespace test;

Bytes syn(const Endpoints& ends) {
  return tcp(ends, L7M_TCP_SYN, 100, 0);
}
Bytes hello(const Endpoints& ends, std::string_view name = "us04web.zoom.us") {
  return tcp(ends, L7M_TCP_ACK, 101, 501, client_hello(name));
}

TEST_F(ClassifierTest, FirstAnswerIsProvisionalAndTheLastIsFinal) {
  EXPECT_TRUE(take(Sample(syn(ends_), kSecond)));
  EXPECT_TRUE(answers_.empty());
  EXPECT_TRUE(take(Sample(hello(ends_), 2 * kSecond)));
  ASSERT_EQ(answers_.size(), 1U);
  EXPECT_EQ(answers_[0].facts.client_mac[5], 0x01);
  EXPECT_EQ(answers_[0].state, FlowState::provisional);
  EXPECT_EQ(answers_[0].name, "TLS.Zoom");
  Sample last(tcp(ends_.reversed(), L7M_TCP_ACK, 501, 300, Bytes(100, 0)), 3 * kSecond);
  last.head.initiator = 1 - last.head.direction;
  last.head.flags = L7M_SAMPLE_LAST;
  EXPECT_TRUE(take(last));
  ASSERT_EQ(answers_.size(), 2U);
  const Answer& answer = answers_[1];
  EXPECT_EQ(answer.state, FlowState::final);
  EXPECT_EQ(answer.name, "TLS.Zoom");
  EXPECT_EQ(answer.sampled_packets, 3U);
  EXPECT_EQ(answer.first_ns, kSecond);
  EXPECT_EQ(answer.last_ns, 3 * kSecond);
  EXPECT_EQ(answer.facts.client.to_string(), ends_.source);
  EXPECT_EQ(answer.facts.server_port, 443);
  // What is still on its way is of no use.
  EXPECT_TRUE(take(Sample(hello(ends_), 4 * kSecond)));
  EXPECT_EQ(answers_.size(), 2U);
}

TEST_F(ClassifierTest, CutPacketsAreTakenAtTheirLength) {
  Endpoints ends = ends_;
  ends.dport = 80;
  std::string request = "GET / HTTP/1.1\r\nHost: example.org\r\nX-Long: ";
  request += std::string(1000, 'x') + "\r\n\r\n";
  take(Sample(syn(ends)));
  Sample cut(tcp(ends, L7M_TCP_ACK, 101, 501, text(request)), 2, 1, 128);
  ASSERT_EQ(cut.head.captured, 128U);
  take(cut);
  classifier_->finish();
  ASSERT_FALSE(answers_.empty());
  EXPECT_EQ(answers_.back().name, "HTTP");
  EXPECT_EQ(answers_.back().facts.hostname, "example.org");
}

// nDPI 4.2 reads a response's headers only behind an ACK of the server's, which is not copied. That
// it was there is told by the server's packets: SYN-ACK, ACK, response.
TEST_F(ClassifierTest, TheAckBetweenRequestAndResponseIsMadeUp) {
  for (const std::string& source : {std::string("192.0.2.10"), std::string("2001:db8::10")}) {
    for (const std::uint64_t from_server : {3U, 2U}) {
      restart({});
      answers_.clear();
      Endpoints ends = ends_;
      ends.source = source;
      if (source != ends_.source) ends.destination = "2001:db8::20";
      ends.dport = 80;
      take(Sample(syn(ends)));
      Sample request(
          tcp(ends, L7M_TCP_ACK, 101, 501,
              text("GET /a HTTP/1.1\r\nHost: example.org\r\nUser-Agent: test/1.0\r\n\r\n")));
      request.head.initiator = request.head.direction;
      take(request);
      Sample response(
          tcp(ends.reversed(), L7M_TCP_ACK, 501, 170,
              text("HTTP/1.1 200 OK\r\nServer: test\r\nContent-Type: application/octet-stream\r\n"
                   "Content-Length: 2\r\n\r\nok")));
      response.head.initiator = request.head.direction;
      response.head.count.packets[response.head.direction] = from_server;
      response.head.count.packets[request.head.direction] = 3;
      take(response);
      classifier_->finish();
      ASSERT_FALSE(answers_.empty());
      std::string names;
      for (const RiskName& risk : engine_.risks())
        if ((answers_.back().facts.risks >> risk.id & 1) != 0) names += risk.name + ";";
      const bool read = names.find("Binary Application Transfer") != std::string::npos;
      if (from_server == 3) {
        EXPECT_TRUE(read) << source << ": " << names;
      } else if (Engine::version().rfind("4.2", 0) == 0) {
        EXPECT_FALSE(read) << source << ": an ACK that was not there";
      }
    }
  }
}

TEST_F(ClassifierTest, WhatWasCutIsZeroWhateverCameBefore) {
  // Nothing of this longer packet may show through in the next.
  take(Sample(udp({"192.0.2.1", "192.0.2.2", 1000, 1001}, Bytes(1400, 'A'))));
  Endpoints ends = ends_;
  ends.dport = 80;
  std::string request = "GET / HTTP/1.1\r\nHost: exam";
  take(Sample(syn(ends)));
  Sample cut(tcp(ends, L7M_TCP_ACK, 101, 501, text(request + std::string(1000, 'x'))), 2, 1,
             54 + request.size());
  take(cut);
  classifier_->finish();
  EXPECT_EQ(answers_.back().name, "HTTP");
  EXPECT_EQ(answers_.back().facts.hostname.find("aaaa"), std::string::npos);
  EXPECT_EQ(answers_.back().facts.details.http_url.find("AAAA"), std::string::npos);
}

TEST_F(ClassifierTest, AFloodOfSynsNeitherGrowsNorPushesOutOthers) {
  ClassifierOptions options;
  options.max_waiting = 100;
  restart(options);
  take(Sample(syn(ends_)));
  take(Sample(hello(ends_)));
  for (unsigned i = 0; i < 5000; ++i) {
    Endpoints flood{"203.0.113." + std::to_string(i % 250), "198.51.100.9",
                    static_cast<std::uint16_t>(1024 + i), 80};
    take(Sample(syn(flood)));
  }
  EXPECT_LE(classifier_->flows(), 101U);
  EXPECT_EQ(classifier_->stats().waiting_dropped, 4900U);
  ASSERT_EQ(answers_.size(), 1U);
  classifier_->finish();
  const auto zoom = std::count_if(answers_.begin(), answers_.end(), [](const Answer& answer) {
    return answer.name == "TLS.Zoom" && answer.state == FlowState::final;
  });
  EXPECT_EQ(zoom, 1);
}

TEST_F(ClassifierTest, WhenFullTheOldestGetsItsAnswer) {
  ClassifierOptions options;
  options.max_flows = 2;
  restart(options);
  for (std::uint16_t i = 0; i < 3; ++i) {
    Endpoints ends = ends_;
    ends.sport = static_cast<std::uint16_t>(50000 + i);
    take(Sample(hello(ends)));
  }
  EXPECT_EQ(classifier_->stats().evicted, 1U);
  ASSERT_EQ(answers_.size(), 4U);  // three provisional, one final
  const auto final = std::find_if(answers_.begin(), answers_.end(), [](const Answer& answer) {
    return answer.state == FlowState::final;
  });
  ASSERT_NE(final, answers_.end());
  EXPECT_EQ(final->facts.client_port, 50000);
}

TEST_F(ClassifierTest, AnotherIdIsAnotherLife) {
  take(Sample(hello(ends_), 1, 1));
  take(Sample(hello(ends_, "www.facebook.com"), 2, 2));
  ASSERT_EQ(answers_.size(), 3U);
  EXPECT_EQ(answers_[1].state, FlowState::final);
  EXPECT_EQ(answers_[1].id, 1U);
  EXPECT_EQ(answers_[1].name, "TLS.Zoom");
  EXPECT_EQ(answers_[2].id, 2U);
  EXPECT_EQ(answers_[2].name, "TLS.Facebook");
}

TEST_F(ClassifierTest, AReopenedFlowIsForgotten) {
  take(Sample(hello(ends_)));
  Sample reopen(syn(ends_), 2, 9);
  reopen.head.type = L7M_RECORD_REOPEN;
  reopen.head.captured = 0;
  reopen.frame.clear();
  EXPECT_TRUE(take(reopen));
  EXPECT_EQ(classifier_->flows(), 1U) << "another life";
  reopen.head.flow_id = 1;
  EXPECT_TRUE(take(reopen));
  EXPECT_EQ(answers_.back().state, FlowState::final);
  EXPECT_EQ(classifier_->flows(), 0U);
}

// A sample of a flow that had a verdict: the first one of a look, or a later one.
Sample looked(const Bytes& packet, std::uint64_t time_ns, bool first) {
  Sample out(packet, time_ns);
  out.head.candidate_flags = L7M_FLOW_AGAIN;
  if (first) out.head.flags = L7M_SAMPLE_FIRST;
  return out;
}

// H9: the client says nothing until the worker has given its flow up.
TEST_F(ClassifierTest, AHandshakeThatPausedIsReadOn) {
  take(Sample(syn(ends_)));
  classifier_->idle(11 * kSecond);
  ASSERT_EQ(answers_.size(), 1U);
  EXPECT_EQ(answers_[0].state, FlowState::guessed);
  take(Sample(hello(ends_), 12 * kSecond));
  EXPECT_EQ(answers_.size(), 1U) << "what was under way of the first look is too late";
  take(looked(hello(ends_), 13 * kSecond, true));
  ASSERT_GT(answers_.size(), 1U);
  EXPECT_EQ(answers_.back().name, "TLS.Zoom");
  EXPECT_EQ(answers_.back().id, answers_[0].id);
  EXPECT_EQ(answers_.back().flags & L7M_FLOW_AGAIN, L7M_FLOW_AGAIN);
  EXPECT_TRUE(answers_.back().facts.own_answer());
}

TEST_F(ClassifierTest, EachLookHasOneAnswer) {
  const Bytes packet = tcp(ends_, L7M_TCP_ACK, 1, 1, Bytes(60, 0x80));
  for (unsigned look = 1; look <= 3; ++look) {
    take(looked(packet, look * 20 * kSecond, true));
    EXPECT_EQ(classifier_->flows(), 1U);
    classifier_->idle((look * 20 + 11) * kSecond);
    EXPECT_EQ(classifier_->flows(), 0U);
    take(looked(packet, (look * 20 + 12) * kSecond, false));
    EXPECT_EQ(classifier_->flows(), 0U);
    ASSERT_EQ(answers_.size(), look);
    EXPECT_EQ(answers_.back().facts.risks >> kFirstOwnRisk, 0U)
        << "nothing is told of a flow's begin by its middle";
  }
}

TEST_F(ClassifierTest, AForgedEndIsARisk) {
  Sample sample(hello(ends_));
  sample.head.candidate_flags = L7M_FLOW_FORGED;
  take(sample);
  classifier_->finish();
  EXPECT_NE(answers_.back().facts.risks & 1ULL << kForgedClosing.bit, 0U);
  EXPECT_GE(answers_.back().facts.risk_score, Engine::score_of(kForgedClosing.severity));
}

Sample notice(const Endpoints& ends, std::uint8_t flags) {
  Sample out(tcp(ends, L7M_TCP_ACK, 1, 1));
  out.head.type = L7M_RECORD_NOTICE;
  out.head.candidate_flags = flags;
  out.head.captured = 0;
  out.frame.clear();
  return out;
}

TEST_F(ClassifierTest, BothFinsOrOneResetEndAFlow) {
  take(Sample(hello(ends_)));
  take(notice(ends_, L7M_FLOW_FIN0));
  EXPECT_EQ(answers_.size(), 1U);
  take(notice(ends_, L7M_FLOW_FIN0 | L7M_FLOW_FIN1));
  ASSERT_EQ(answers_.size(), 2U);
  EXPECT_TRUE(answers_[1].closed);
  EXPECT_EQ(answers_[1].state, FlowState::final);

  Endpoints other = ends_;
  other.sport = 50000;
  take(Sample(hello(other)));
  take(notice(other, L7M_FLOW_RST));
  EXPECT_EQ(answers_.size(), 4U);
}

TEST_F(ClassifierTest, ARefusedConnectionWaitsForTheNext) {
  take(Sample(syn(ends_)));
  take(notice(ends_, L7M_FLOW_RST));
  EXPECT_TRUE(answers_.empty());
  Sample again(hello(ends_), 2);
  take(again);
  EXPECT_EQ(answers_.back().name, "TLS.Zoom");
}

TEST_F(ClassifierTest, QuietFlowsAreGivenUp) {
  take(Sample(syn(ends_), kSecond));
  Endpoints other = ends_;
  other.sport = 50000;
  take(Sample(hello(other), 8 * kSecond));
  classifier_->idle(10 * kSecond);
  EXPECT_EQ(answers_.size(), 1U);
  classifier_->idle(11 * kSecond);
  ASSERT_EQ(answers_.size(), 2U);
  EXPECT_EQ(answers_[1].state, FlowState::guessed);
  EXPECT_EQ(answers_[1].name, "TLS");
  classifier_->idle(18 * kSecond);
  ASSERT_EQ(answers_.size(), 3U);
  EXPECT_EQ(answers_[2].state, FlowState::final);
  EXPECT_EQ(classifier_->flows(), 0U);
}

// "Unknown" is no answer, and so not a final one.
TEST_F(ClassifierTest, UnknownIsNotFinal) {
  Endpoints ends = ends_;
  ends.dport = 4443;  // nDPI has no guess for it
  take(Sample(syn(ends), kSecond));
  classifier_->finish();
  ASSERT_EQ(answers_.size(), 1U);
  EXPECT_EQ(answers_[0].name, "Unknown");
  EXPECT_EQ(answers_[0].state, FlowState::guessed);
  EXPECT_EQ(answers_[0].facts.confidence, Confidence::none);
}

// Who gave the first packet its class.
TEST_F(ClassifierTest, AnAnswerTellsTheFlowsFlags) {
  Sample sample(hello(ends_), kSecond);
  sample.head.candidate_flags |= L7M_FLOW_SERVICE | L7M_FLOW_PROBE;
  take(sample);
  classifier_->finish();
  ASSERT_FALSE(answers_.empty());
  for (const Answer& answer : answers_) EXPECT_EQ(answer.flags, sample.head.candidate_flags);
}

TEST_F(ClassifierTest, AnAbandonedFlowGetsNoAnswer) {
  const Sample sample(syn(ends_));
  take(sample);
  classifier_->abandon(key_of(sample), sample.head.flow_id + 1);
  EXPECT_EQ(classifier_->flows(), 1U) << "another life of the five-tuple";
  classifier_->abandon(key_of(sample), sample.head.flow_id);
  classifier_->finish();
  EXPECT_TRUE(answers_.empty());
}

TEST_F(ClassifierTest, BothResponsesOfAResolverAreSeen) {
  Endpoints ends = ends_;
  ends.dport = 53;
  const Endpoints back = ends.reversed();
  const auto from_server = [&](const Bytes& message) {
    Sample sample(udp(back, message));
    sample.head.initiator = 1 - sample.head.direction;
    return sample;
  };
  take(Sample(udp(ends, dns_query(1, "www.zoom.us", 1))));
  take(Sample(udp(ends, dns_query(2, "www.zoom.us", 28))));
  take(from_server(dns_response(1, "www.zoom.us", 1, {{1, 60, {203, 0, 113, 1}}})));
  ASSERT_FALSE(answers_.empty());
  EXPECT_EQ(answers_.back().state, FlowState::provisional);
  const Address six = *Address::parse("2001:db8::5");
  take(from_server(
      dns_response(2, "www.zoom.us", 28, {{28, 60, {six.bytes.begin(), six.bytes.end()}}})));
  EXPECT_EQ(answers_.back().state, FlowState::final);
  EXPECT_EQ(answers_.back().name, "DNS.Zoom");
  ASSERT_EQ(dns_.size(), 2U);
  EXPECT_EQ(dns_[0].name, "www.zoom.us");
  EXPECT_EQ(dns_[0].client.to_string(), ends.source);
  EXPECT_EQ(dns_[1].addresses.at(0).to_string(), "2001:db8::5");
}

TEST_F(ClassifierTest, TheSecondQueryMayFollowTheFirstResponse) {
  Endpoints ends = ends_;
  ends.dport = 53;
  const Endpoints back = ends.reversed();
  const auto from_server = [&](const Bytes& message, std::uint64_t time) {
    Sample sample(udp(back, message), time);
    sample.head.initiator = 1 - sample.head.direction;
    return sample;
  };
  const Address six = *Address::parse("2001:db8::5");
  take(Sample(udp(ends, dns_query(1, "www.zoom.us", 1)), kSecond));
  take(from_server(dns_response(1, "www.zoom.us", 1, {{1, 60, {203, 0, 113, 1}}}), kSecond));
  classifier_->idle(kSecond + kSecond / 4);
  ASSERT_FALSE(answers_.empty());
  EXPECT_EQ(answers_.back().state, FlowState::provisional);
  take(Sample(udp(ends, dns_query(2, "www.zoom.us", 28)), kSecond + kSecond / 4));
  // A slow response is waited for as any other is.
  classifier_->idle(2 * kSecond);
  EXPECT_EQ(answers_.back().state, FlowState::provisional);
  take(from_server(
      dns_response(2, "www.zoom.us", 28, {{28, 60, {six.bytes.begin(), six.bytes.end()}}}),
      2 * kSecond));
  EXPECT_EQ(answers_.back().state, FlowState::final);
  ASSERT_EQ(dns_.size(), 2U);
  EXPECT_EQ(dns_[1].addresses.at(0).to_string(), "2001:db8::5");
}

TEST_F(ClassifierTest, ALoneQuerySettlesSoon) {
  Endpoints ends = ends_;
  ends.dport = 53;
  Sample response(
      udp(ends.reversed(), dns_response(1, "www.zoom.us", 1, {{1, 60, {203, 0, 113, 1}}})),
      kSecond);
  response.head.initiator = 1 - response.head.direction;
  take(Sample(udp(ends, dns_query(1, "www.zoom.us", 1)), kSecond));
  take(response);
  classifier_->idle(kSecond + kSecond / 2);
  ASSERT_FALSE(answers_.empty());
  EXPECT_EQ(answers_.back().state, FlowState::final);
  EXPECT_EQ(answers_.back().name, "DNS.Zoom");
}

// A client's socket to a resolver.
struct Resolver {
  Endpoints ends;
  explicit Resolver(const Endpoints& from) : ends(from) { ends.dport = 53; }
  [[nodiscard]] Sample query(std::uint16_t id, std::string_view name, std::uint16_t type = 1,
                             std::uint64_t time = kSecond) const {
    return Sample(udp(ends, dns_query(id, name, type)), time);
  }
  [[nodiscard]] Sample response(std::uint16_t id, std::string_view name, std::uint16_t type = 1,
                                std::uint64_t time = kSecond) const {
    Sample sample(udp(ends.reversed(), dns_response(id, name, type, {{1, 60, {203, 0, 113, 1}}})),
                  time);
    sample.head.initiator = 1 - sample.head.direction;
    return sample;
  }
};

TEST_F(ClassifierTest, ADnsAnswerThatNobodyAskedForIsNotBelieved) {
  ClassifierOptions options;
  options.max_followed = 2;
  restart(options);
  const Resolver resolver(ends_);
  // A stranger's: no query, then one with another id, another name, another type.
  take(resolver.response(1, "www.zoom.us"));
  EXPECT_TRUE(dns_.empty());
  take(resolver.query(2, "www.zoom.us"));
  take(resolver.response(3, "www.zoom.us"));
  take(resolver.response(2, "us04web.zoom.us"));
  take(resolver.response(2, "www.zoom.us", 28));
  EXPECT_TRUE(dns_.empty());
  // What was asked is believed, once.
  take(resolver.response(2, "www.Zoom.us"));
  take(resolver.response(2, "www.zoom.us"));
  EXPECT_EQ(dns_.size(), 1U);
  EXPECT_EQ(classifier_->stats().dns_answers, 1U);
  EXPECT_EQ(classifier_->stats().dns_unasked, 5U);
}

TEST_F(ClassifierTest, ADnsAnswerComesFromTheServerThatWasAsked) {
  ClassifierOptions options;
  options.max_followed = 2;
  restart(options);
  // Both ports are 53: who asked is told by the queries only.
  Resolver resolver(ends_);
  resolver.ends.sport = 53;
  take(resolver.query(1, "www.zoom.us"));
  take(Sample(udp(resolver.ends, dns_response(1, "www.zoom.us", 1, {{1, 60, {203, 0, 113, 1}}}))));
  EXPECT_TRUE(dns_.empty());
  take(resolver.response(1, "www.zoom.us"));
  EXPECT_EQ(dns_.size(), 1U);
}

TEST_F(ClassifierTest, ALongLivedResolverSocketIsReadOn) {
  ClassifierOptions options;
  options.max_followed = 2;
  options.idle_ns = 3 * kSecond;
  restart(options);
  const Resolver resolver(ends_);
  constexpr std::uint64_t kRounds = 300;
  for (std::uint64_t i = 0; i < kRounds; ++i) {
    const auto id = static_cast<std::uint16_t>(i);
    take(resolver.query(id, "www.zoom.us", 1, (1 + 10 * i) * kSecond));
    Sample response = resolver.response(id, "www.zoom.us", 1, (1 + 10 * i) * kSecond);
    if (i == 3) response.head.flags |= L7M_SAMPLE_LAST;
    take(response);
    classifier_->idle((9 + 10 * i) * kSecond);
  }
  EXPECT_EQ(dns_.size(), kRounds);
  // It has its answer once, and at once.
  ASSERT_EQ(classifier_->stats().answers, 1U);
  EXPECT_EQ(answers_.back().state, FlowState::final);
  EXPECT_EQ(answers_.back().name, "DNS.Zoom");
  EXPECT_TRUE(answers_.back().followed);
  EXPECT_EQ(classifier_->flows(), 1U);
  classifier_->idle((40 + 10 * kRounds) * kSecond);
  EXPECT_EQ(classifier_->flows(), 0U);
}

TEST_F(ClassifierTest, AQueryWithoutAResponseIsFollowedToo) {
  ClassifierOptions options;
  options.max_followed = 2;
  options.idle_ns = 3 * kSecond;
  restart(options);
  const Resolver resolver(ends_);
  take(resolver.query(1, "www.zoom.us"));
  classifier_->idle(9 * kSecond);
  ASSERT_FALSE(answers_.empty());
  EXPECT_TRUE(answers_.back().followed);
  take(resolver.query(2, "www.zoom.us", 1, 10 * kSecond));
  take(resolver.response(2, "www.zoom.us", 1, 10 * kSecond));
  EXPECT_EQ(dns_.size(), 1U);
}

TEST_F(ClassifierTest, FollowedFlowsAreBounded) {
  ClassifierOptions options;
  options.max_followed = 2;
  restart(options);
  Resolver resolver(ends_);
  for (std::uint16_t i = 0; i < 10; ++i) {
    resolver.ends.sport = static_cast<std::uint16_t>(1000 + i);
    take(resolver.query(i, "www.zoom.us"));
    take(resolver.response(i, "www.zoom.us"));
    EXPECT_LE(classifier_->flows(), 2U);
  }
  EXPECT_EQ(dns_.size(), 10U);
  EXPECT_EQ(classifier_->stats().answers, 10U);
  // One that made way is met anew, and is answered as before.
  resolver.ends.sport = 1000;
  take(resolver.query(77, "www.zoom.us"));
  take(resolver.response(77, "www.zoom.us"));
  EXPECT_EQ(dns_.size(), 11U);
  EXPECT_EQ(answers_.back().name, "DNS.Zoom");
}

TEST_F(ClassifierTest, ANewLifeOfAFollowedFlowHasItsOwnQuestions) {
  ClassifierOptions options;
  options.max_followed = 2;
  restart(options);
  const Resolver resolver(ends_);
  take(resolver.query(1, "www.zoom.us"));
  take(resolver.response(1, "www.zoom.us"));
  take(resolver.query(2, "www.zoom.us"));
  Sample response = resolver.response(2, "www.zoom.us");
  response.head.flow_id = 4711;
  take(response);
  EXPECT_EQ(dns_.size(), 1U) << "the question was another life's";
  EXPECT_EQ(classifier_->flows(), 1U);
}

TEST_F(ClassifierTest, WhatOnlyHasTheResolversPortIsNotFollowed) {
  ClassifierOptions options;
  options.max_followed = 2;
  restart(options);
  const Resolver resolver(ends_);
  for (int i = 0; i < 9; ++i) {
    Sample sample(udp(resolver.ends, Bytes(60, static_cast<std::uint8_t>(i + 1))));
    if (i == 8) sample.head.flags |= L7M_SAMPLE_LAST;
    take(sample);
  }
  ASSERT_FALSE(answers_.empty());
  EXPECT_FALSE(answers_.back().followed);
  EXPECT_EQ(classifier_->flows(), 0U);
}

TEST_F(ClassifierTest, ASynAckFirstTellsWhoTheServerIs) {
  Sample sample(tcp(ends_, L7M_TCP_SYN | L7M_TCP_ACK, 1, 1));
  sample.head.candidate_flags = L7M_FLOW_ANSWER;
  take(sample);
  classifier_->finish();
  ASSERT_EQ(answers_.size(), 1U);
  EXPECT_EQ(answers_[0].facts.server.to_string(), ends_.source);
  EXPECT_EQ(answers_[0].facts.server_port, ends_.sport);
}

// The first packet seen is the server's: the facts say so, and the hardware address is the
// client's.
TEST_F(ClassifierTest, AnAnswerFirstTellsWhoTheServerIs) {
  ClassifierOptions options;
  options.inside = {*Prefix::parse(ends_.source + std::string("/32"))};
  restart(options);
  Sample from_server(tcp(ends_.reversed(), L7M_TCP_ACK, 1, 1, Bytes(50, 0xee)));
  from_server.head.candidate_flags = L7M_FLOW_MIDSTREAM;
  take(from_server);
  take(Sample(udp(ends_.reversed(), Bytes(50, 0xee))));
  classifier_->finish();
  ASSERT_EQ(answers_.size(), 2U);
  for (const Answer& answer : answers_) {
    EXPECT_EQ(answer.key.address(answer.initiator).to_string(), ends_.destination);
    EXPECT_EQ(answer.facts.client.to_string(), ends_.source);
    EXPECT_EQ(answer.facts.client_port, ends_.sport);
    EXPECT_EQ(answer.facts.server_port, 443);
    EXPECT_EQ(answer.facts.client_mac[5], 0x02) << "of the receiver";
  }
}

TEST_F(ClassifierTest, MidstreamIsMarked) {
  Sample sample(tcp(ends_, L7M_TCP_ACK, 1, 1, Bytes(50, 0xee)));
  sample.head.candidate_flags = L7M_FLOW_MIDSTREAM;
  take(sample);
  classifier_->finish();
  ASSERT_FALSE(answers_.empty());
  EXPECT_TRUE(answers_.back().facts.midstream);
}

TEST_F(ClassifierTest, RecordsThatContradictThemselvesAreRefused) {
  const auto refused = [&](auto change) {
    Sample sample(hello(ends_));
    change(sample);
    const auto before = classifier_->stats().malformed;
    EXPECT_FALSE(take(sample));
    EXPECT_EQ(classifier_->stats().malformed, before + 1);
  };
  refused([](Sample& s) { s.head.captured += 1; });
  refused([](Sample& s) { s.head.captured = 0xffffffff; });
  refused([](Sample& s) { s.head.direction = 2; });
  refused([](Sample& s) { s.head.initiator = 7; });
  refused([](Sample& s) { s.head.l3_offset = static_cast<__u16>(s.head.captured); });
  refused([](Sample& s) { s.head.l3_offset = 0xffff; });
  refused([](Sample& s) { s.head.l3_length = 0; });
  refused([](Sample& s) { s.head.type = 99; });
  EXPECT_FALSE(classifier_->take({}));
  const auto bytes = Sample(hello(ends_)).bytes();
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    const std::vector<std::byte> cut(bytes.begin(),
                                     bytes.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_FALSE(classifier_->take(cut));
  }
  EXPECT_TRUE(answers_.empty());
}

TEST_F(ClassifierTest, ALengthLeftToTheHardwareIsFilledIn) {
  // IPv4 total length 0: segmentation offload made the packet longer than 65535 or has yet to cut
  // it.
  Bytes packet = hello(ends_);
  packet[2] = packet[3] = 0;
  Sample sample(packet);
  sample.head.l3_length = static_cast<__u32>(packet.size());
  take(sample);
  ASSERT_FALSE(answers_.empty());
  EXPECT_EQ(answers_[0].name, "TLS.Zoom");
}

// nDPI 4.2 reads through a null pointer where a packet in the midst of TLS is no TCP to it: here of
// a record that contradicts itself, which the kernel does not write.
TEST_F(ClassifierTest, ATransportThatIsNotTheFlowsIsNotGiven) {
  take(Sample(syn(ends_)));
  take(Sample(hello(ends_)));
  const Bytes rest(100, 0x17);
  Sample sample(tcp(ends_, L7M_TCP_ACK, 300, 501, rest));
  sample.frame[14 + 9] = L7M_PROTO_ICMP;
  EXPECT_TRUE(take(sample));
  classifier_->finish();
  ASSERT_FALSE(answers_.empty());
  EXPECT_EQ(answers_.back().name, "TLS.Zoom");
}

// It does not walk all the extension headers that the kernel does.
TEST_F(ClassifierTest, ExtensionHeadersThatNdpiDoesNotKnow) {
  const Endpoints ends{"2001:db8::10", "2001:db8:1::20", 40000, 443};
  for (const std::uint8_t header : {L7M_PROTO_AH, L7M_PROTO_HIP, L7M_PROTO_SHIM6}) {
    restart({});
    answers_.clear();
    take(Sample(syn(ends)));
    take(Sample(hello(ends)));
    Bytes packet = tcp(ends, L7M_TCP_ACK, 300, 501, Bytes(100, 0x17));
    packet[6] = header;
    packet[5] = static_cast<std::uint8_t>(packet[5] + 16);
    Bytes extension(16, 0);
    extension[0] = L7M_PROTO_TCP;
    extension[1] = header == L7M_PROTO_AH ? 2 : 1;
    packet.insert(packet.begin() + 40, extension.begin(), extension.end());
    const Sample sample(packet);
    ASSERT_EQ(sample.head.key.protocol, L7M_PROTO_TCP);
    ASSERT_EQ(sample.head.l4_payload, 100);
    EXPECT_TRUE(take(sample));
    classifier_->finish();
    ASSERT_FALSE(answers_.empty());
    EXPECT_EQ(answers_.back().name, "TLS.Zoom");
  }
}

}  // namespace
}  // namespace l7mark
