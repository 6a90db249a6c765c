// SPDX-License-Identifier: GPL-2.0-only
// Tables of the main process and of the kernel under floods: what has its own answer and packets
// both ways keeps its verdict. What workers say is made up here, the kernel's tables are real.
#include <gmock/gmock.h>

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "../unit/policy_catalog.hpp"
#include "daemon/core.hpp"
#include "program_run.hpp"
#include "util/clock.hpp"

namespace l7mark::test {
namespace {

using Json = nlohmann::ordered_json;

constexpr unsigned kFlows = 128, kShare = 64, kCandidates = 1024;
constexpr std::uint16_t kUnknown = 0;

class Worthy : public testing::Test {
 protected:
  void SetUp() override {
    DataplaneOptions options;
    options.flows = kFlows;
    options.candidates = kCandidates;
    options.services = options.hints = 64;
    options.ring_bytes = 65536;
    std::string why;
    if (!plane_) plane_ = Plane::make(options, why);
    if (!plane_) GTEST_SKIP() << why;
    plane_->reset();
    Core::Events events;
    events.wants_events = [] { return true; };
    events.publish_event = [this](std::string_view line) {
      const Json event = Json::parse(line);
      if (event["type"] == "end") ++ends_[event.value("reason", std::string())];
    };
    core_ = std::make_unique<Core>(plane_->maps, policy(1024), RecordNames{test_catalog()},
                                   JiffiesClock(), events);
    ASSERT_TRUE(core_->start().ok());
    ASSERT_TRUE(core_->set_sampling(true).ok());
  }
  // `unanswered` in seconds: 600 is longer than any test takes.
  static std::shared_ptr<const Policy> policy(unsigned look_again, unsigned unanswered = 600) {
    return policy_of(
        R"({"name": "zoom", "match": {"applications": ["Zoom"]}, "mark": "0x10/0xff"})",
        R"("interfaces": [{"name": "lan0"}],
           "limits": {"flows": 128, "unprotected": 50, "candidates": 1024},
           "first_packet": {"services": false},
           "timeouts": {"unanswered": )" +
            std::to_string(unanswered) + R"(}, "sampling": {"look_again": )" +
            std::to_string(look_again) + "},");
  }
  void TearDown() override { core_.reset(); }
  static void TearDownTestSuite() { plane_.reset(); }

  // Flow number `n` is of UDP: a datagram is all it takes.
  static Endpoints ends_of(unsigned n, bool v6 = false) {
    const auto port = static_cast<std::uint16_t>(10000 + n % 50000);
    if (v6) return {"2001:db8::1", "2001:db8:1::20", port, 443};
    return {"192.0.2." + std::to_string(1 + n / 50000), "198.51.100.20", port, 443};
  }
  static FlowKey key_of(const Endpoints& ends) { return flow_key(ends, L7M_PROTO_UDP); }

  static void send(const Endpoints& ends) {
    EXPECT_EQ(run_tc(plane_->tc("l7mark_ingress"), ethernet(udp(ends, Bytes(20, 0x41)))).code, 0);
    plane_->records();
  }
  static std::uint64_t life(const Endpoints& ends) {
    const auto candidate = plane_->maps.candidate(key_of(ends));
    return candidate ? candidate->flow_id : 0;
  }
  static bool decided(const Endpoints& ends) { return bool(plane_->maps.verdict(key_of(ends))); }

  // By a worker that has seen so many packets of either endpoint.
  void say(const Endpoints& ends, std::uint16_t application, unsigned sent, unsigned received,
           FlowState state = FlowState::final) {
    Answer answer;
    answer.key = key_of(ends);
    answer.id = life(ends);
    ASSERT_NE(answer.id, 0U);
    answer.initiator = static_cast<std::uint8_t>(sender_of(ends));
    const int other = 1 - answer.initiator;
    answer.state =
        application == kUnknown && state == FlowState::final ? FlowState::guessed : state;
    answer.count.packets[answer.initiator] = sent;
    answer.count.packets[other] = received;
    answer.first_ns = answer.last_ns = now_ns();
    answer.facts.client = answer.key.address(answer.initiator);
    answer.facts.server = answer.key.address(other);
    answer.facts.client_port = answer.key.port(answer.initiator);
    answer.facts.server_port = answer.key.port(other);
    answer.facts.protocol = L7M_PROTO_UDP;
    answer.facts.application = application;
    answer.facts.confidence = application == kUnknown ? Confidence::none : Confidence::dpi;
    answer.name = application == kUnknown ? "Unknown" : "Zoom";
    const Message message = answer;
    core_->on_messages({&message, 1});
    core_->commit();
  }
  void honest(const Endpoints& ends) {
    send(ends);
    send(ends.reversed());
    say(ends, kZoom, 1, 1);
  }
  void one_way(const Endpoints& ends, std::uint16_t application = kUnknown) {
    send(ends);
    send(ends);
    say(ends, application, 2, 0);
  }
  void two_way(const Endpoints& ends) {
    send(ends);
    send(ends.reversed());
    say(ends, kUnknown, 1, 1);
  }

  // After a sweep.
  std::uint64_t figure(const char* name) {
    Json status;
    core_->status(status);
    return status["flows"][name].get<std::uint64_t>();
  }

  static inline std::unique_ptr<Plane> plane_;
  std::unique_ptr<Core> core_;
  std::map<std::string, unsigned> ends_;
};

// E8: 875 packets a second filled a table of 262,144.
TEST_F(Worthy, FlowsOfOnePacketGetNoVerdict) {
  for (const bool v6 : {false, true}) {
    for (unsigned n = 0; n < 60; ++n) {
      send(ends_of(n, v6));
      say(ends_of(n, v6), n % 2 == 0 ? kZoom : kUnknown, 1, 0);
      EXPECT_FALSE(decided(ends_of(n, v6))) << n;
    }
    const auto candidate = plane_->maps.candidate(key_of(ends_of(0, v6)));
    ASSERT_TRUE(candidate);
    EXPECT_GE(candidate->action, 0U + L7M_STATES) << "its class acts all the same";
    EXPECT_EQ(candidate->state, L7M_STATE_FINAL);
    EXPECT_EQ(candidate->packets, candidate->sampled) << "it is sampled no further";
  }
  EXPECT_EQ(figure("protected") + figure("unprotected"), 0U);
  EXPECT_EQ(figure("waiting"), 120U);
}

TEST_F(Worthy, ItsSecondPacketGivesAFlowItsVerdict) {
  const Endpoints soon = ends_of(1), late = ends_of(2), later = ends_of(3);
  for (const Endpoints& ends : {soon, late, later}) send(ends);
  send(soon.reversed());
  for (const Endpoints& ends : {soon, late, later}) say(ends, kZoom, 1, 0);
  EXPECT_TRUE(decided(soon)) << "it had come when the answer did";
  EXPECT_FALSE(decided(late));
  send(late.reversed());
  core_->tick();
  EXPECT_TRUE(decided(late));
  core_->tick();
  EXPECT_FALSE(decided(later));
  send(later.reversed());
  EXPECT_EQ(figure("waiting"), 1U);
  core_->commit();
  EXPECT_TRUE(decided(later));
  EXPECT_EQ(figure("protected"), 3U);
  EXPECT_EQ(plane_->maps.verdict(key_of(later))->state, L7M_STATE_FINAL);
}

TEST_F(Worthy, AFloodLeavesProtectedFlowsTheirVerdicts) {
  for (const bool v6 : {false, true}) {
    for (unsigned n = 0; n < 20; ++n) honest(ends_of(n, v6));
    for (unsigned n = 1000; n < 1000 + kFlows * 4; ++n) {
      one_way(ends_of(n, v6), n % 3 == 0 ? kZoom : kUnknown);  // an answer is no worth by itself
      EXPECT_TRUE(decided(ends_of(n, v6))) << "the newest have theirs";
    }
    for (unsigned n = 0; n < 20; ++n) EXPECT_TRUE(decided(ends_of(n, v6))) << n;
    EXPECT_FALSE(decided(ends_of(1000, v6))) << "the oldest has made way";
  }
  EXPECT_EQ(figure("protected"), 40U);
  EXPECT_EQ(figure("unprotected"), kShare * 2U) << "of each family";
  EXPECT_EQ(figure("evicted_verdicts"), (kFlows * 4U - kShare) * 2U);
  EXPECT_EQ(ends_["evicted"], (kFlows * 4U - kShare) * 2U);
  EXPECT_EQ(figure("table_full"), 0U);
  // More protected ones come than there is room beside the flood: it makes way for them too.
  for (unsigned n = 20; n < kFlows; ++n) {
    honest(ends_of(n));
    EXPECT_TRUE(decided(ends_of(n))) << n;
  }
  EXPECT_EQ(figure("protected"), kFlows + 20U);
  EXPECT_EQ(figure("unprotected"), kShare);
  for (unsigned n = 0; n < kFlows; ++n) {
    const auto verdict = plane_->maps.verdict(key_of(ends_of(n)));
    ASSERT_TRUE(verdict) << n;
    EXPECT_GE(verdict->action, 0U + L7M_STATES) << n;
  }
}

// Protected flows make way for nobody: what finds no room has its class among the candidates, and
// its verdict as soon as there is room.
TEST_F(Worthy, WhereAllAreProtectedTheNextOneWaits) {
  for (unsigned n = 0; n < kFlows; ++n) honest(ends_of(n));
  const Endpoints next = ends_of(500), unknown = ends_of(501);
  honest(next);
  two_way(unknown);
  EXPECT_FALSE(decided(next));
  EXPECT_FALSE(decided(unknown));
  ASSERT_TRUE(plane_->maps.candidate(key_of(next)));
  EXPECT_GE(plane_->maps.candidate(key_of(next))->action, 0U + L7M_STATES);
  EXPECT_GE(figure("table_full"), 1U);
  EXPECT_GE(figure("share_full"), 1U);
  for (unsigned n = 0; n < kFlows; ++n) EXPECT_TRUE(decided(ends_of(n))) << n;
  plane_->maps.remove_verdict(key_of(ends_of(3)));
  figure("live");  // the sweep misses it
  figure("live");  // and the next one looks again at those that wait
  core_->commit();
  EXPECT_TRUE(decided(next));
  EXPECT_FALSE(decided(unknown));
}

// A table that is fuller than the main process knows: verdicts were written by hand.
TEST_F(Worthy, VerdictsByHandTakeRoomFromUnprotectedOnes) {
  for (unsigned n = 0; n < kShare; ++n) one_way(ends_of(n));
  std::vector<VerdictEntry> by_hand;
  for (unsigned n = 5000; n < 5000 + kFlows - kShare; ++n) {
    by_hand.emplace_back().key = key_of(ends_of(n));
  }
  ASSERT_TRUE(plane_->maps.put_verdicts(by_hand)->empty());
  for (unsigned n = 100; n < 120; ++n) {
    honest(ends_of(n));
    EXPECT_TRUE(decided(ends_of(n))) << n;
  }
  EXPECT_EQ(figure("protected"), 20U);
  EXPECT_EQ(figure("unprotected"), kShare - 20U);
  EXPECT_EQ(figure("table_full"), 0U);
}

// Among the unprotected: one-way flows first, then those that were quiet for longest.
TEST_F(Worthy, OneWayFlowsMakeWayFirst) {
  for (unsigned n = 0; n < kShare / 2; ++n) two_way(ends_of(n));
  for (unsigned n = 1000; n < 1000 + kFlows * 2; ++n) one_way(ends_of(n));
  for (unsigned n = 0; n < kShare / 2; ++n) EXPECT_TRUE(decided(ends_of(n))) << n;
  for (unsigned n = 2000; n < 2000 + kShare; ++n) two_way(ends_of(n));
  for (unsigned n = 0; n < kShare / 2; ++n) EXPECT_FALSE(decided(ends_of(n))) << n;
  EXPECT_EQ(figure("unprotected"), kShare);
}

// What goes on sending stays; a flow that is answered by the other side is not taken for one-way.
TEST_F(Worthy, FlowsThatSendStayLongest) {
  // Such a look takes a flow's verdict away until it is answered.
  ASSERT_TRUE(core_->reload(policy(0), RecordNames{test_catalog()}).ok());
  for (unsigned n = 0; n < kShare; ++n) one_way(ends_of(n));
  std::this_thread::sleep_for(std::chrono::milliseconds(1300));
  send(ends_of(0));
  send(ends_of(1).reversed());
  figure("live");
  for (unsigned n = 1000; n < 1000 + kShare - 2; ++n) one_way(ends_of(n));
  EXPECT_TRUE(decided(ends_of(0)));
  EXPECT_TRUE(decided(ends_of(1)));
  EXPECT_FALSE(decided(ends_of(2)));
  for (unsigned n = 2000; n < 2000 + kShare; ++n) one_way(ends_of(n));
  EXPECT_FALSE(decided(ends_of(0)));
  EXPECT_TRUE(decided(ends_of(1)));
}

// Its place is free meanwhile, and nobody makes way when it comes back.
TEST_F(Worthy, AFlowThatIsLookedAtAgainHasItsPlaceAgain) {
  for (unsigned n = 0; n < kShare; ++n) one_way(ends_of(n));
  send(ends_of(0));
  EXPECT_FALSE(decided(ends_of(0)));
  ASSERT_TRUE(plane_->maps.candidate(key_of(ends_of(0))));
  EXPECT_EQ(figure("unprotected"), kShare - 1U);
  EXPECT_EQ(figure("waiting"), 1U);
  say(ends_of(0), kUnknown, 3, 0);
  for (unsigned n = 0; n < kShare; ++n) EXPECT_TRUE(decided(ends_of(n))) << n;
  EXPECT_EQ(figure("unprotected"), kShare);
  EXPECT_EQ(figure("waiting"), 0U);
  EXPECT_EQ(figure("evicted_verdicts"), 0U);
}

// Its old answer is no reason to decide it before the new one comes: a slow flow sends for longer
// than a sweep takes to come round.
TEST_F(Worthy, ASweepEndsNoSecondLook) {
  one_way(ends_of(1));
  for (unsigned packet = 3; packet < 8; ++packet) {
    send(ends_of(1));
    figure("live");
    core_->commit();
    EXPECT_FALSE(decided(ends_of(1))) << packet;
  }
  ASSERT_TRUE(plane_->maps.candidate(key_of(ends_of(1))));
  EXPECT_EQ(plane_->maps.candidate(key_of(ends_of(1)))->sampled, 5);
  say(ends_of(1), kUnknown, 7, 0);
  EXPECT_TRUE(decided(ends_of(1)));
  // An answer that got lost: none is to come any more once the look has all its packets...
  send(ends_of(1));
  figure("live");
  for (unsigned packet = 0; packet < 32; ++packet) send(ends_of(1));
  figure("live");
  core_->commit();
  EXPECT_TRUE(decided(ends_of(1)));
  // ...or if a worker has got nothing of it: its source is above its budget.
  const Endpoints unread = ends_of(2);
  one_way(unread);
  plane_->set([](l7m_settings& settings) { settings.source_budget = 1; });
  send(unread);
  EXPECT_FALSE(decided(unread));
  ASSERT_TRUE(plane_->maps.candidate(key_of(unread)));
  EXPECT_EQ(plane_->maps.candidate(key_of(unread))->sampled, 0);
  figure("live");
  figure("live");
  core_->commit();
  EXPECT_TRUE(decided(unread));
}

// A flow that turns out to be protected is counted as such from then on.
TEST_F(Worthy, FlowsRiseInWorth) {
  send(ends_of(1));
  send(ends_of(1));
  say(ends_of(1), kZoom, 2, 0);
  EXPECT_EQ(figure("unprotected"), 1U);
  send(ends_of(1).reversed());
  EXPECT_EQ(figure("protected"), 1U);
  EXPECT_EQ(figure("unprotected"), 0U);
  for (unsigned n = 1000; n < 1000 + kFlows; ++n) one_way(ends_of(n));
  EXPECT_TRUE(decided(ends_of(1)));
}

TEST_F(Worthy, UnansweredFlowsEndSoon) {
  ASSERT_TRUE(core_->reload(policy(1024, 3), RecordNames{test_catalog()}).ok());
  one_way(ends_of(1));
  one_way(ends_of(2), kZoom);
  two_way(ends_of(3));
  figure("live");
  EXPECT_TRUE(decided(ends_of(1)));
  std::this_thread::sleep_for(std::chrono::milliseconds(3600));
  figure("live");
  EXPECT_FALSE(decided(ends_of(1)));
  EXPECT_TRUE(decided(ends_of(2))) << "asymmetric routes: its own packets have answered";
  EXPECT_TRUE(decided(ends_of(3)));
  EXPECT_EQ(ends_["idle"], 1U);
}

// The main process knows no more flows without a verdict than the kernel can hold.
TEST_F(Worthy, AnswersByTheThousandStayWithinTheBound) {
  const Endpoints mine = ends_of(1);
  send(mine);
  send(mine.reversed());
  say(mine, kZoom, 1, 1, FlowState::provisional);
  for (unsigned n = 1000; n < 1000 + kCandidates * 4; ++n) {
    send(ends_of(n));
    say(ends_of(n), kUnknown, 1, 0, FlowState::provisional);
  }
  ASSERT_NE(life(mine), 0U) << "two-way candidates stay";
  const std::uint64_t evicted = ends_["evicted"];
  EXPECT_GE(evicted, kCandidates * 3U);
  say(mine, kZoom, 1, 1);
  EXPECT_TRUE(decided(mine));
  EXPECT_LE(figure("live"), kCandidates + 1U);
  EXPECT_GT(figure("evicted_candidates"), 0U);
}

}  // namespace
}  // namespace l7mark::test
