// SPDX-License-Identifier: GPL-2.0-only
// The main process's flows and the kernel's, matched by the ids of their lives: what workers say is
// made up here, the kernel's tables are real.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "../unit/policy_catalog.hpp"
#include "daemon/core.hpp"
#include "dataplane/pins.hpp"
#include "program_run.hpp"

namespace l7mark::test {
namespace {

using testing::ElementsAre;
using Json = nlohmann::ordered_json;

constexpr std::uint8_t kSyn = 0x02, kAck = 0x10, kFin = 0x11;

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
  static std::uint64_t send(std::uint8_t flags) {
    EXPECT_EQ(run_tc(plane_->tc("l7mark_ingress"), ethernet(tcp(ends_, flags, 1, 1))).code, 0);
    if (const auto verdict = plane_->maps.verdict(key())) return verdict->flow_id;
    const auto candidate = plane_->maps.candidate(key());
    EXPECT_TRUE(candidate);
    return candidate ? candidate->flow_id : 0;
  }

  void say(std::uint64_t id, FlowState state, std::uint16_t application = kZoom) {
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
    const Message message = answer;
    core_->on_messages({&message, 1});
    core_->commit();
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
  say(before, FlowState::final);
  send(kFin);
  EXPECT_EQ(run_tc(plane_->tc("l7mark_ingress"), ethernet(tcp(ends_.reversed(), kFin, 1, 1))).code,
            0);
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
