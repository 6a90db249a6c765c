// SPDX-License-Identifier: GPL-2.0-only
// Service memory from answer to first packet: the answers are made up here, the kernel's tables and
// programs are real.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "../unit/policy_catalog.hpp"
#include "daemon/core.hpp"
#include "program_run.hpp"
#include "util/clock.hpp"

namespace l7mark::test {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint8_t kSyn = 0x02, kSynAck = 0x12;
constexpr auto kShot = static_cast<std::uint32_t>(TC_ACT_SHOT);

const char* const kClasses =
    R"({ "name": "bad", "match": { "hostnames": ["*.bad.test"] }, "drop": true },
    { "name": "films", "match": { "hostnames": ["*.films.test"] }, "mark": "0x20/0xf0" },
    { "name": "vpn", "match": { "applications": ["OpenVPN"] }, "drop": true })";

// What a worker says of a flow.
struct Says {
  std::string hostname = {};
  Confidence confidence = Confidence::dpi;
  std::uint16_t application = kTls;
  bool both_ways = true;
};

class Services : public testing::Test {
 protected:
  void SetUp() override {
    DataplaneOptions options;
    options.flows = options.candidates = 1024;
    options.services = options.hints = 64;
    options.ring_bytes = 65536;
    std::string why;
    if (!plane_) plane_ = Plane::make(options, why);
    if (!plane_) GTEST_SKIP() << why;
    plane_->reset();
    Core::Events events;
    events.wants_events = [] { return true; };
    events.publish_event = [this](std::string_view line) { events_.push_back(Json::parse(line)); };
    core_ = std::make_unique<Core>(plane_->maps, policy_of(kClasses, head()),
                                   RecordNames{test_catalog()}, JiffiesClock(), events);
    ASSERT_TRUE(core_->start().ok());
    ASSERT_TRUE(core_->set_sampling(true).ok());
  }
  void TearDown() override { core_.reset(); }
  static void TearDownTestSuite() { plane_.reset(); }

  // The client is one of ours: its flows are not of those that are begun from outside.
  std::string head() const { return R"("inside": ["192.0.2.0/24"],)" + more(); }
  virtual std::string more() const { return R"("limits": { "services": 64 },)"; }

  // A flow's first packet, as the kernel met it.
  struct Met {
    Endpoints ends;
    std::uint64_t id = 0;
    std::uint32_t action = 0;
    std::uint16_t flags = 0;
    std::uint32_t mark = 0;
    bool dropped = false;
  };
  Met begin(std::uint16_t server_port = 443, std::uint8_t protocol = L7M_PROTO_TCP) {
    Met met;
    met.ends = {"192.0.2.1", "198.51.100.20", ++port_, server_port};
    const Bytes packet = ethernet(protocol == L7M_PROTO_TCP ? tcp(met.ends, kSyn, 1, 1)
                                                            : udp(met.ends, Bytes(40, 0x41)));
    const RunResult run = run_tc(plane_->tc("l7mark_ingress"), packet);
    met.dropped = run.answer == kShot;
    met.mark = run.skb.mark;
    const auto candidate = plane_->maps.candidate(flow_key(met.ends, protocol));
    EXPECT_TRUE(candidate);
    if (!candidate) return met;
    met.id = candidate->flow_id;
    met.action = candidate->action;
    met.flags = candidate->flags;
    return met;
  }
  [[nodiscard]] bool drops(const Met& met) const {
    return run_tc(plane_->tc("l7mark_ingress"), ethernet(tcp(met.ends, kSyn, 1, 1))).answer ==
           kShot;
  }

  void say(const Met& met, FlowState state, const Says& says,
           std::uint8_t protocol = L7M_PROTO_TCP) {
    const Endpoints back = met.ends.reversed();
    if (says.both_ways && !met.dropped)
      run_tc(plane_->tc("l7mark_egress"),
             ethernet(protocol == L7M_PROTO_TCP ? tcp(back, kSynAck, 1, 1)
                                                : udp(back, Bytes(40, 0x41))));
    Answer answer;
    answer.key = flow_key(met.ends, protocol);
    answer.id = met.id;
    answer.state = state;
    answer.flags = met.flags;
    answer.initiator = static_cast<std::uint8_t>(sender_of(met.ends));
    answer.count.packets[answer.initiator] = 3;
    answer.count.packets[1 - answer.initiator] = says.both_ways ? 2 : 0;
    answer.first_ns = answer.last_ns = now_ns();
    answer.facts.client = answer.key.address(answer.initiator);
    answer.facts.server = answer.key.address(1 - answer.initiator);
    answer.facts.client_port = answer.key.port(answer.initiator);
    answer.facts.server_port = answer.key.port(1 - answer.initiator);
    answer.facts.protocol = protocol;
    answer.facts.application = answer.facts.master = says.application;
    answer.facts.confidence = says.confidence;
    answer.facts.hostname = says.hostname;
    answer.name = says.application == 0 ? "Unknown" : "TLS";
    const Message message = answer;
    core_->on_messages({&message, 1});
    core_->commit();
  }
  void say_own(const Met& met, const std::string& hostname) {
    say(met, FlowState::final, {.hostname = hostname});
  }
  // Nothing was found.
  void say_unknown(const Met& met) {
    say(met, FlowState::guessed, {{}, Confidence::none, 0, false});
  }

  Json status() {
    Json out;
    core_->status(out);
    return out;
  }
  [[nodiscard]] Json promises(const char* source) { return status()["first_packet"][source]; }

  static inline std::unique_ptr<Plane> plane_;
  std::unique_ptr<Core> core_;
  std::vector<Json> events_;
  std::uint16_t port_ = 40000;
};

TEST_F(Services, AnOwnAnswerTeaches) {
  EXPECT_FALSE(begin().dropped);
  const Met first = begin();
  EXPECT_FALSE(first.dropped);
  say_own(first, "www.bad.test");
  EXPECT_TRUE(drops(first));
  EXPECT_TRUE(begin().dropped);
  EXPECT_FALSE(begin(444).dropped) << "another port is another service";
}

// E7: anybody can send one packet in another's name.
TEST_F(Services, OneWayTeachesNothing) {
  const Met first = begin();
  say(first, FlowState::final, {.hostname = "www.bad.test", .both_ways = false});
  EXPECT_TRUE(drops(first)) << "the flow itself is what it says";
  EXPECT_FALSE(begin().dropped);
  // Its other side speaks later: the next sweep sees that.
  run_tc(plane_->tc("l7mark_egress"), ethernet(tcp(first.ends.reversed(), kSynAck, 1, 1)));
  status();
  core_->commit();
  EXPECT_TRUE(begin().dropped);
}

TEST_F(Services, AGuessTeachesAndDropsNothing) {
  for (const Confidence guess : {Confidence::port, Confidence::address, Confidence::cache}) {
    const Met met = begin();
    say(met, FlowState::guessed, {.confidence = guess, .application = kOpenVpn});
    EXPECT_FALSE(drops(met));
    EXPECT_FALSE(begin().dropped);
    EXPECT_EQ(events_.back()["class"], "vpn");
    EXPECT_EQ(events_.back()["source"], "guess");
  }
  say(begin(), FlowState::final, {.application = kOpenVpn});
  EXPECT_TRUE(begin().dropped);
}

// E4: one look-up of a matched name would block or re-route all of the client's DNS.
TEST_F(Services, DnsIsNoService) {
  for (const std::uint16_t port : std::initializer_list<std::uint16_t>{53, 853, 5353}) {
    for (const std::uint8_t protocol : {L7M_PROTO_TCP, L7M_PROTO_UDP}) {
      say(begin(port, protocol), FlowState::final, {.hostname = "www.bad.test"}, protocol);
      EXPECT_FALSE(begin(port, protocol).dropped) << port;
    }
  }
  say(begin(8053), FlowState::final, {.hostname = "www.bad.test", .application = kDns});
  EXPECT_FALSE(begin(8053).dropped);
  EXPECT_EQ(status()["services"]["known"], 0);
}

// E1: the second connection to a blocked server says nothing, for its SYN is dropped.
TEST_F(Services, SilenceUndoesNothing) {
  say_own(begin(), "www.bad.test");
  for (int i = 0; i < 3; ++i) {
    const Met met = begin();
    EXPECT_TRUE(met.dropped);
    say_unknown(met);
    EXPECT_TRUE(drops(met)) << "its verdict is the promise's";
    EXPECT_EQ(plane_->maps.verdict(flow_key(met.ends, L7M_PROTO_TCP))->state, L7M_STATE_GUESSED);
    EXPECT_EQ(events_.back()["class"], "bad");
    EXPECT_EQ(events_.back()["source"], "service");
    EXPECT_EQ(events_.back()["blocked"], true);
  }
  EXPECT_EQ(promises("service")["absent"], 3);
  EXPECT_EQ(status()["blocked"], Json::parse(R"({ "bad": { "answer": 1, "service": 3 } })"));
}

// A guess is no answer either, and a first one may still change.
TEST_F(Services, OnlyTheLastOwnAnswerOverrules) {
  say_own(begin(), "www.films.test");
  const Met met = begin();
  EXPECT_EQ(met.mark, 0x20U);
  say(met, FlowState::provisional, {});
  EXPECT_EQ(plane_->maps.candidate(flow_key(met.ends, L7M_PROTO_TCP))->action / L7M_STATES,
            met.action / L7M_STATES);
  say_own(met, "www.films.test");
  const Met guessed = begin();
  say(guessed, FlowState::guessed, {.confidence = Confidence::port});
  EXPECT_EQ(events_.back()["class"], "films");
  EXPECT_EQ(promises("service")["absent"], 1);
  say_own(guessed, "www.other.test");
  EXPECT_EQ(events_.back()["class"], "");
  EXPECT_EQ(promises("service")["corrected"], 1);
  EXPECT_EQ(promises("service")["absent"], 0) << "it has an answer after all";
}

// E5: an edit overwrites the candidate's action before the last answer comes.
TEST_F(Services, WhatWasPromisedIsComparedWithTheAnswer) {
  say_own(begin(), "www.films.test");
  const Met same = begin();
  say(same, FlowState::provisional, {.hostname = "www.films.test"});
  say_own(same, "www.films.test");
  EXPECT_EQ(promises("service")["confirmed"], 1);
  const Met other = begin();
  EXPECT_EQ(other.mark, 0x20U);
  say(other, FlowState::provisional, {.hostname = "www.plain.test"});
  say_own(other, "www.plain.test");
  EXPECT_EQ(promises("service")["confirmed"], 1);
  EXPECT_EQ(promises("service")["corrected"], 1);

  // Its flows had two classes: it promises nothing, and is named.
  EXPECT_EQ(begin().mark, 0U);
  const Json services = status()["services"];
  EXPECT_EQ(services["mixed"], 1);
  EXPECT_EQ(services["promising"], 0);
  ASSERT_EQ(services["mixed_first"].size(), 1U);
  EXPECT_EQ(services["mixed_first"][0]["server"], "198.51.100.20");
  EXPECT_EQ(services["mixed_first"][0]["port"], 443);
  say_own(begin(), "www.films.test");
  EXPECT_EQ(begin().mark, 0U) << "it stays mixed for its time";
}

// Of another name at the same address something is known before the blocked one is met.
TEST_F(Services, AnAddressOfTwoNamesIsNotBlocked) {
  say_own(begin(), "www.plain.test");
  const Met bad = begin();
  say_own(bad, "www.bad.test");
  EXPECT_TRUE(drops(bad));
  EXPECT_FALSE(begin().dropped);
}

TEST_F(Services, TheTableIsBounded) {
  for (std::uint16_t port = 1000; port < 1200; ++port) say_own(begin(port), "www.films.test");
  EXPECT_EQ(status()["services"]["known"], 64);
  EXPECT_EQ(begin(1000).mark, 0U);
  EXPECT_EQ(begin(1199).mark, 0x20U);
}

TEST_F(Services, AReloadMatchesThemAnew) {
  say_own(begin(), "www.films.test");
  say_own(begin(444), "www.bad.test");
  const std::string films =
      R"({ "name": "first", "match": { "server_ports": [9] }, "mark": "0x10/0xf0" },
         { "name": "films", "match": { "hostnames": ["*.films.test"] }, "mark": "0x30/0xf0" })";
  ASSERT_TRUE(core_->reload(policy_of(films, head()), RecordNames{test_catalog()}).ok());
  core_->commit();
  EXPECT_EQ(begin().mark, 0x30U);
  const Met met = begin(444);
  EXPECT_FALSE(met.dropped) << "its class is gone";
  EXPECT_EQ(met.flags, 0);
}

// D1: the run before had other numbers.
TEST_F(Services, PromisesOfARunBeforeAreGone) {
  say_own(begin(), "www.films.test");
  EXPECT_EQ(begin().mark, 0x20U);
  core_.reset();
  Core::Events events;
  events.wants_events = [] { return false; };
  core_ = std::make_unique<Core>(plane_->maps, policy_of(kClasses, head()),
                                 RecordNames{test_catalog()}, JiffiesClock(), events);
  ASSERT_TRUE(core_->start().ok());
  EXPECT_EQ(begin().mark, 0U);
}

// E3: only a flow that passes can tell that a blocked service has become another.
class Rechecked : public Services {
 protected:
  std::string more() const override { return R"("first_packet": { "recheck": 1 },)"; }
  // The promise, as if its time to look again had come.
  void let_time_pass() {
    ASSERT_TRUE(plane_->maps
                    .rewrite_promises([](l7m_promise promise) {
                      EXPECT_NE(promise.next_pass, 0U);
                      promise.next_pass = 1;
                      return std::optional(promise);
                    })
                    .ok());
  }
};

TEST_F(Rechecked, OneFlowPassesUntilItsOwnAnswer) {
  say_own(begin(), "www.bad.test");
  EXPECT_TRUE(begin().dropped);
  let_time_pass();
  const Met probe = begin();
  EXPECT_FALSE(probe.dropped);
  EXPECT_EQ(probe.flags, L7M_FLOW_SERVICE | L7M_FLOW_PROBE);
  EXPECT_TRUE(begin().dropped) << "only one";
  say(probe, FlowState::provisional, {});
  EXPECT_FALSE(drops(probe));
  say_own(probe, "www.bad.test");
  EXPECT_TRUE(drops(probe));
  EXPECT_TRUE(begin().dropped);
  EXPECT_EQ(promises("service")["confirmed"], 1);

  let_time_pass();
  const Met corrects = begin();
  EXPECT_FALSE(corrects.dropped);
  say_own(corrects, "www.plain.test");
  EXPECT_FALSE(drops(corrects));
  EXPECT_FALSE(begin().dropped) << "it has become another";
  EXPECT_EQ(promises("service")["corrected"], 1);
}

TEST_F(Rechecked, OneThatSaysNothingIsDroppedAgain) {
  say_own(begin(), "www.bad.test");
  let_time_pass();
  const Met probe = begin();
  EXPECT_FALSE(probe.dropped);
  say_unknown(probe);
  EXPECT_TRUE(drops(probe));
  EXPECT_EQ(events_.back()["source"], "service");
  EXPECT_TRUE(begin().dropped);
}

}  // namespace
}  // namespace l7mark::test
