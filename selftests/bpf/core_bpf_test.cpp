// SPDX-License-Identifier: GPL-2.0-only
// The main process's flows and the kernel's, matched by the ids of their lives: what workers say is
// made up here, the kernel's tables are real.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "../unit/policy_catalog.hpp"
#include "daemon/core.hpp"
#include "dataplane/pins.hpp"
#include "program_run.hpp"
#include "util/clock.hpp"

namespace l7mark::test {
namespace {

using testing::ElementsAre;
using Json = nlohmann::ordered_json;

constexpr std::uint8_t kSyn = 0x02, kSynAck = 0x12, kAck = 0x10, kFin = 0x11;

class Lives : public testing::Test {
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
    auto policy = parse_policy(R"({"version": 1, "interfaces": [{"name": "lan0"}], "classes": [
      {"name": "zoom", "match": {"applications": ["Zoom"]}, "mark": "0x10/0xff"}]})",
                               "test", test_catalog());
    ASSERT_TRUE(policy.ok()) << policy.error().message();
    Core::Events events;
    events.wants_events = [] { return true; };
    events.publish_event = [this](std::string_view line) {
      const Json event = Json::parse(line);
      events_.push_back(event["type"].get<std::string>() + " " +
                        event["flow_id"].get<std::string>() + " " +
                        event.value("reason", std::string()));
    };
    core_ = std::make_unique<Core>(plane_->maps, std::make_shared<const Policy>(std::move(*policy)),
                                   RecordNames{test_catalog()}, JiffiesClock(), events);
    ASSERT_TRUE(core_->start().ok());
    ASSERT_TRUE(core_->set_sampling(true).ok());
  }
  void TearDown() override { core_.reset(); }
  static void TearDownTestSuite() { plane_.reset(); }

  static FlowKey key() { return flow_key(ends_, L7M_PROTO_TCP); }

  // The life that the packet belongs to.
  static std::uint64_t send(std::uint8_t flags, std::size_t payload = 0) {
    return send(ends_, flags, payload);
  }
  static std::uint64_t send(const Endpoints& ends, std::uint8_t flags, std::size_t payload = 0) {
    const Bytes packet = ethernet(tcp(ends, flags, 1, 1, Bytes(payload, 0x41)));
    EXPECT_EQ(run_tc(plane_->tc("l7mark_ingress"), packet).code, 0);
    if (const auto verdict = plane_->maps.verdict(key())) return verdict->flow_id;
    const auto candidate = plane_->maps.candidate(key());
    EXPECT_TRUE(candidate);
    return candidate ? candidate->flow_id : 0;
  }

  static Answer answer_of(std::uint64_t id, FlowState state, std::uint16_t application = kZoom) {
    Answer answer;
    answer.key = key();
    answer.id = id;
    answer.state = state;
    answer.initiator = static_cast<std::uint8_t>(sender_of(ends_));
    answer.count.packets[answer.initiator] = 3;
    answer.last_ns = answer.first_ns = 1;
    answer.facts.client = answer.key.address(answer.initiator);
    answer.facts.server = answer.key.address(1 - answer.initiator);
    answer.facts.client_port = answer.key.port(answer.initiator);
    answer.facts.server_port = answer.key.port(1 - answer.initiator);
    answer.facts.protocol = L7M_PROTO_TCP;
    answer.facts.application = application;
    answer.facts.confidence = Confidence::dpi;
    answer.name = "Zoom";
    return answer;
  }
  void say(const Message& message) {
    core_->on_messages({&message, 1});
    core_->commit();
  }
  void say(std::uint64_t id, FlowState state, std::uint16_t application = kZoom) {
    say(answer_of(id, state, application));
  }
  // By the port only.
  static Answer guess(std::uint64_t id, std::uint64_t packets, std::uint32_t sampled,
                      std::uint16_t application = kZoom) {
    Answer answer = answer_of(id, FlowState::guessed, application);
    answer.facts.confidence = application == 0 ? Confidence::none : Confidence::port;
    answer.count.packets[answer.initiator] = packets;
    answer.sampled_packets = sampled;
    answer.last_ns = now_ns();
    return answer;
  }
  // What the kernel told of a second look, as a worker passes it on. False if it told of none.
  bool pass_on() {
    for (const Record& record : plane_->records()) {
      if (record.head.type != L7M_RECORD_REOPEN) continue;
      Reopened reopened;
      reopened.key.raw = record.head.key;
      reopened.id = record.head.flow_id;
      reopened.count = record.head.count;
      reopened.again = (record.head.candidate_flags & L7M_FLOW_AGAIN) != 0;
      say(reopened);
      return reopened.again;
    }
    return false;
  }

  void sweep() {
    Json status;
    core_->status(status);
    live_ = status["flows"]["live"].get<std::size_t>();
  }

  [[nodiscard]] static std::string event(const char* type, std::uint64_t id,
                                         const char* reason = "") {
    return std::string(type) + " " + std::to_string(id) + " " + reason;
  }

  static inline const Endpoints ends_{"192.0.2.1", "198.51.100.20", 40000, 443};
  static inline std::unique_ptr<Plane> plane_;
  std::unique_ptr<Core> core_;
  std::vector<std::string> events_;
  std::size_t live_ = 0;
};

TEST_F(Lives, AnAnswerDecidesItsOwnLife) {
  const std::uint64_t id = send(kSyn);
  say(id, FlowState::provisional);
  EXPECT_NE(plane_->maps.candidate(key())->action, 0U);
  say(id, FlowState::final);
  ASSERT_TRUE(plane_->maps.verdict(key()));
  EXPECT_EQ(plane_->maps.verdict(key())->flow_id, id);
  EXPECT_FALSE(plane_->maps.candidate(key()));
  sweep();
  EXPECT_EQ(live_, 1U);
  EXPECT_THAT(events_, ElementsAre(event("flow", id), event("update", id)));
}

// E9: nothing of it reaches the next life of the five-tuple.
TEST_F(Lives, AnAnswerOfALifeThatIsOverIsIgnored) {
  const std::uint64_t id = send(kSyn);
  say(id, FlowState::provisional, 0);
  say(id + 1, FlowState::final);
  EXPECT_FALSE(plane_->maps.verdict(key()));
  EXPECT_EQ(plane_->maps.candidate(key())->action, 0U + L7M_STATE_PROVISIONAL);
  EXPECT_THAT(events_, ElementsAre(event("flow", id)));
}

TEST_F(Lives, AnAnswerForNoLifeAtAllLeavesNothing) {
  say(99, FlowState::final);
  EXPECT_FALSE(plane_->maps.verdict(key()));
  EXPECT_THAT(events_, ElementsAre(event("flow", 99), event("end", 99, "evicted")));
  sweep();
  EXPECT_EQ(live_, 0U);
}

// E10: the record that told of the new life was lost.
TEST_F(Lives, TheNextLifeEndsTheOneBefore) {
  const std::uint64_t before = send(kSyn);
  send(ends_.reversed(), kSynAck);
  say(before, FlowState::final);
  send(kFin);
  send(ends_.reversed(), kFin);
  const std::uint64_t next = send(kSyn);
  EXPECT_NE(next, before);
  say(next, FlowState::final);
  EXPECT_EQ(plane_->maps.verdict(key())->flow_id, next);
  EXPECT_THAT(events_, ElementsAre(event("flow", before), event("end", before, "lost"),
                                   event("flow", next)));
}

TEST_F(Lives, AFlowWithoutAVerdictIsLost) {
  const std::uint64_t id = send(kSyn);
  say(id, FlowState::final);
  plane_->maps.remove_verdict(key());
  sweep();
  EXPECT_EQ(live_, 0U);
  EXPECT_THAT(events_, ElementsAre(event("flow", id), event("end", id, "lost")));
}

TEST_F(Lives, AnEvictedCandidateEndsItsFlow) {
  const std::uint64_t id = send(kSyn);
  say(id, FlowState::provisional);
  sweep();
  EXPECT_EQ(live_, 1U);
  plane_->clear_candidates();
  const std::uint64_t next = send(kAck);
  EXPECT_NE(next, id);
  sweep();
  EXPECT_EQ(live_, 0U);
  EXPECT_THAT(events_, ElementsAre(event("flow", id), event("end", id, "evicted")));
}

// --- the second look -------------------------------------------------------------------------

TEST_F(Lives, FlowsWithoutAnAnswerOfTheirOwnAreLookedAtAgain) {
  struct Case {
    std::uint64_t packets;
    std::uint32_t sampled;
    unsigned next_look;
  };
  Endpoints ends = ends_;
  for (const auto& [packets, sampled, next_look] :
       {Case{1, 1, 1}, Case{15, 7, 1}, Case{15, 8, 1}, Case{3, 8, 13}, Case{16, 1, 16},
        Case{20, 8, 12}, Case{1000, 8, 24}, Case{1023, 8, 1}, Case{1024, 8, 0},
        Case{1ULL << 40, 8, 0}}) {
    SCOPED_TRACE(packets);
    send(kSyn);
    say(guess(send(kAck), packets, sampled));
    ASSERT_TRUE(plane_->maps.verdict(key()));
    EXPECT_EQ(plane_->maps.verdict(key())->next_look, next_look);
    plane_->maps.remove_verdict(key());
    sweep();
  }
  const std::uint64_t id = send(kSyn);
  say(id, FlowState::final);
  EXPECT_EQ(plane_->maps.verdict(key())->next_look, 0);
}

// H9: a handshake that pauses is read on.
TEST_F(Lives, AFlowThatPausedIsTheSameAfterwards) {
  const std::uint64_t id = send(kSyn);
  send(ends_.reversed(), kSynAck);
  say(guess(id, 1, 1, 0));
  ASSERT_TRUE(plane_->maps.verdict(key()));
  plane_->records();
  EXPECT_EQ(send(kAck, 30), id);
  ASSERT_TRUE(plane_->maps.candidate(key()));
  ASSERT_TRUE(pass_on());
  sweep();
  EXPECT_EQ(live_, 1U);
  say(id, FlowState::final);
  ASSERT_TRUE(plane_->maps.verdict(key()));
  EXPECT_EQ(plane_->maps.verdict(key())->flow_id, id);
  EXPECT_NE(plane_->maps.verdict(key())->action, L7M_STATE_FINAL);
  EXPECT_EQ(plane_->maps.verdict(key())->flags & L7M_FLOW_AGAIN, 0);
  sweep();
  EXPECT_THAT(events_, ElementsAre(event("flow", id), event("update", id)));
  const auto record = core_->records()();
  ASSERT_TRUE(record);
  EXPECT_EQ((*record)["packets"], 3) << record->dump();
}

TEST_F(Lives, ASecondLookThatFindsNothingChangesNothing) {
  const std::uint64_t id = send(kSyn);
  send(kAck);
  say(guess(id, 2, 1));
  const l7m_verdict before = *plane_->maps.verdict(key());
  EXPECT_NE(before.action, L7M_STATE_GUESSED);
  plane_->records();
  for (int i = 0; i < 2; ++i) {
    send(kAck, 30);
    ASSERT_TRUE(pass_on());
    EXPECT_EQ(plane_->maps.candidate(key())->action, before.action);
    Answer nothing = guess(id, 1, 1, 0);
    nothing.flags = L7M_FLOW_AGAIN;
    say(nothing);
    ASSERT_TRUE(plane_->maps.verdict(key()));
    EXPECT_EQ(plane_->maps.verdict(key())->action, before.action);
    EXPECT_EQ(plane_->maps.verdict(key())->application, kZoom);
    EXPECT_EQ(plane_->maps.verdict(key())->next_look, 1);
  }
  EXPECT_THAT(events_, ElementsAre(event("flow", id)));
}

// In the midst of a conversation nDPI takes random bytes for protocols now and then.
TEST_F(Lives, ASecondLookAtAFlowThatHasSpokenNeedsMoreThanAName) {
  for (const auto& [told, sampled, counts] :
       {std::tuple{"", 3U, false}, {"", 1U, true}, {"zoom.us", 3U, true}}) {
    SCOPED_TRACE(std::string(told) + " " + std::to_string(sampled));
    const std::uint64_t id = send(kSyn);
    send(kAck);
    say(guess(id, 2, sampled, 0));
    ASSERT_TRUE(plane_->maps.verdict(key()));
    plane_->records();
    send(kAck, 30);
    ASSERT_TRUE(pass_on());
    Answer named = answer_of(id, FlowState::final, kZoom);
    named.facts.hostname = told;
    named.flags = L7M_FLOW_AGAIN;
    say(named);
    ASSERT_TRUE(plane_->maps.verdict(key()));
    EXPECT_EQ(plane_->maps.verdict(key())->application, counts ? kZoom : 0);
    EXPECT_EQ(plane_->maps.verdict(key())->state, counts ? L7M_STATE_FINAL : L7M_STATE_GUESSED);
    plane_->maps.remove_verdict(key());
    sweep();
  }
  Json status;
  core_->status(status);
  EXPECT_EQ(status["flows"]["doubted"], 1);
}

TEST_F(Lives, ANewLifeKeepsItsClassWithoutAnAnswer) {
  const std::uint64_t before = send(kSyn);
  send(ends_.reversed(), kSynAck);
  say(before, FlowState::final);
  const std::uint32_t action = plane_->maps.verdict(key())->action;
  send(kFin);
  send(ends_.reversed(), kFin);
  const std::uint64_t next = send(kSyn);
  ASSERT_NE(next, before);
  EXPECT_FALSE(pass_on());
  send(kAck);
  Answer nothing = guess(next, 2, 1, 0);
  nothing.flags = L7M_FLOW_KEPT;
  say(nothing);
  EXPECT_EQ(plane_->maps.verdict(key())->action / L7M_STATES, action / L7M_STATES);
  EXPECT_EQ(plane_->maps.verdict(key())->state, L7M_STATE_GUESSED);
}

TEST_F(Lives, AForgedEndIsARisk) {
  const std::uint64_t id = send(kSyn);
  say(id, FlowState::final);
  Bytes forged = ethernet(tcp(ends_, kFin, 1, 1));
  forged[14 + 8] = 1;
  EXPECT_EQ(run_tc(plane_->tc("l7mark_ingress"), forged).code, 0);
  core_->tick();
  const auto record = core_->records()();
  ASSERT_TRUE(record);
  EXPECT_EQ((*record)["risks"].size(), 1U) << record->dump();
}

// What the next daemon finds it goes on counting.
TEST(LivesOverRestarts, IdsGoOn) {
  std::string why;
  const auto features = usable_features(why);
  if (!features) GTEST_SKIP() << why;
  const PinPaths pins{"lives-test-" + std::to_string(getpid())};
  DataplaneOptions options;
  options.flows = options.candidates = 64;
  options.services = options.hints = 64;
  options.ring_bytes = 65536;
  const Endpoints ends{"192.0.2.1", "198.51.100.20", 40000, 443};
  std::uint64_t last = 0;
  for (int run = 0; run < 3; ++run) {
    auto plane = Dataplane::open(pins, options, *features);
    ASSERT_TRUE(plane.ok()) << plane.error().message();
    EXPECT_EQ(plane->adopted(), run != 0);
    l7m_settings settings{};
    settings.packets = settings.rings = 1;
    ASSERT_TRUE(plane->write_settings(settings).ok());
    Endpoints mine = ends;
    mine.sport += static_cast<std::uint16_t>(run);
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    ASSERT_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
    EXPECT_EQ(run_tc(plane->program_fd("l7mark_ingress"), ethernet(tcp(mine, kSyn, 1, 1))).code, 0);
    const auto candidate = plane->candidate(flow_key(mine, L7M_PROTO_TCP));
    ASSERT_TRUE(candidate);
    EXPECT_EQ(candidate->flow_id, last + 1);
    last = candidate->flow_id;
  }
  EXPECT_TRUE(remove_pins(pins).ok());
}

}  // namespace
}  // namespace l7mark::test
