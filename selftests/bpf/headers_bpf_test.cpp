// SPDX-License-Identifier: GPL-2.0-only
// Classes that need nothing but headers, from the policy to a flow's first packet: the daemon's
// core and the kernel's tables and programs are real, the packets and answers are made up.
#include <gmock/gmock.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <random>

#include "../unit/policy_catalog.hpp"
#include "daemon/core.hpp"
#include "dpi/client.hpp"
#include "program_run.hpp"
#include "util/clock.hpp"

namespace l7mark::test {
namespace {

using Json = nlohmann::ordered_json;
using testing::IsEmpty;
using testing::SizeIs;

constexpr std::uint8_t kSyn = 0x02, kSynAck = 0x12, kAck = 0x10;
constexpr auto kShot = static_cast<std::uint32_t>(TC_ACT_SHOT);
// Test runs of TC and XDP are met at the namespace's loopback interface.
constexpr std::uint32_t kLoopback = 1;

class Headers : public testing::Test {
 protected:
  void SetUp() override {
    DataplaneOptions options;
    options.flows = options.candidates = 8192;
    options.services = options.hints = 64;
    options.ring_bytes = 65536;
    std::string why;
    if (!plane_) plane_ = Plane::make(options, why);
    if (!plane_) GTEST_SKIP() << why;
    plane_->reset();
  }
  void TearDown() override { core_.reset(); }
  static void TearDownTestSuite() { plane_.reset(); }

  void start(std::shared_ptr<const Policy> policy) {
    Core::Events events;
    events.wants_events = [] { return true; };
    events.publish_event = [this](std::string_view line) { events_.push_back(Json::parse(line)); };
    core_ = std::make_unique<Core>(plane_->maps, policy, RecordNames{test_catalog()},
                                   JiffiesClock(), events);
    core_->set_interfaces({{"lan0", kLoopback}});
    ASSERT_TRUE(core_->start().ok());
    ASSERT_TRUE(core_->set_sampling(true).ok());
  }
  void start(const std::string& classes, const std::string& more = "") {
    start(policy_of(classes, more));
  }

  Endpoints to_port(std::uint16_t port) { return {"192.168.1.20", "198.51.100.20", ++port_, port}; }
  RunResult syn(const Endpoints& ends) {
    return run_tc(plane_->tc("l7mark_ingress"), ethernet(tcp(ends, kSyn, 1, 1)));
  }
  // The mark that a flow's SYN is given.
  std::uint32_t mark(const Endpoints& ends) { return syn(ends).skb.mark; }
  std::uint32_t mark_to(std::uint16_t port) { return mark(to_port(port)); }
  bool drops(const Endpoints& ends) { return syn(ends).answer == kShot; }
  [[nodiscard]] l7m_candidate candidate(const Endpoints& ends,
                                        std::uint8_t protocol = L7M_PROTO_TCP) const {
    const auto found = plane_->maps.candidate(flow_key(ends, protocol));
    EXPECT_TRUE(found);
    return found.value_or(l7m_candidate{});
  }

  // What a worker says of a TCP flow that the kernel has just met.
  void say(const Endpoints& ends, FlowState state, std::uint16_t application) {
    const l7m_candidate met = candidate(ends);
    Answer answer;
    answer.key = flow_key(ends, L7M_PROTO_TCP);
    answer.id = met.flow_id;
    answer.state = state;
    answer.flags = met.flags;
    answer.initiator = met.initiator;
    answer.count.packets[0] = answer.count.packets[1] = 3;
    answer.first_ns = answer.last_ns = now_ns();
    answer.facts.client = *Address::parse(ends.source);
    answer.facts.server = *Address::parse(ends.destination);
    answer.facts.client_port = ends.sport;
    answer.facts.server_port = ends.dport;
    answer.facts.protocol = L7M_PROTO_TCP;
    answer.facts.application = answer.facts.master = application;
    answer.facts.confidence = application == 0 ? Confidence::none : Confidence::dpi;
    answer.facts.ifindex = kLoopback;
    answer.name = application == 0 ? "Unknown" : "Zoom";
    const Message message = answer;
    core_->on_messages({&message, 1});
    core_->commit();
  }

  static inline std::unique_ptr<Plane> plane_;
  std::unique_ptr<Core> core_;
  std::vector<Json> events_;
  std::uint16_t port_ = 40000;
};

const char* const kMail =
    R"({ "name": "mail", "match": { "server_ports": [25] }, "mark": "0x20/0xf0" })";
const char* const kNoMail =
    R"({ "name": "mail", "match": { "server_ports": [25] }, "drop": true })";
const char* const kZoomUdp =
    R"({ "name": "zoom", "match": { "applications": ["Zoom"], "transports": ["udp"] } },)";

TEST_F(Headers, SynOfAPortClassIsMarked) {
  start(kMail);
  const Endpoints mail = to_port(25);
  EXPECT_EQ(mark(mail), 0x20U);
  EXPECT_EQ(candidate(mail).state, L7M_STATE_PROVISIONAL);
  EXPECT_EQ(candidate(mail).flags, L7M_FLOW_HEADERS);
  EXPECT_EQ(plane_->count(L7M_COUNT_BY_HEADERS), 1U);
  const Endpoints web = to_port(443);
  EXPECT_EQ(mark(web), 0U);
  EXPECT_EQ(candidate(web).state, L7M_STATE_UNDECIDED);
  EXPECT_EQ(candidate(web).flags, 0);
  EXPECT_EQ(plane_->count(L7M_COUNT_BY_HEADERS), 1U);
  for (const Record& record : plane_->records())
    EXPECT_EQ(record.head.flags, L7M_SAMPLE_FIRST) << "the class has nothing that userspace does";
}

TEST_F(Headers, SynOfAPortClassIsDropped) {
  start(kNoMail);
  EXPECT_TRUE(drops(to_port(25)));
  EXPECT_FALSE(drops(to_port(26)));
  EXPECT_EQ(run_xdp(plane_->xdp("l7mark_xdp"), ethernet(tcp(to_port(25), kSyn, 1, 1))).answer,
            static_cast<std::uint32_t>(XDP_DROP));
  EXPECT_EQ(run_xdp(plane_->xdp("l7mark_xdp"), ethernet(tcp(to_port(26), kSyn, 1, 1))).answer,
            static_cast<std::uint32_t>(XDP_PASS));
}

TEST_F(Headers, NothingIsDroppedThatAnEarlierClassMayTake) {
  start(std::string(kZoomUdp) + kNoMail);
  EXPECT_TRUE(drops(to_port(25))) << "the class of Zoom takes UDP only";
  const Endpoints ends = to_port(25);
  EXPECT_NE(run_tc(plane_->tc("l7mark_ingress"), ethernet(udp(ends, Bytes(40, 0x41)))).answer,
            kShot);
  EXPECT_EQ(candidate(ends, L7M_PROTO_UDP).flags, 0);
}

// A mark is no harm if it changes with the answer.
TEST_F(Headers, ItIsMarkedThough) {
  start(R"({ "name": "zoom", "match": { "applications": ["Zoom"] }, "mark": "0x10/0xf0" },)" +
        std::string(kMail));
  const Endpoints ends = to_port(25);
  EXPECT_EQ(mark(ends), 0x20U);
  say(ends, FlowState::final, kZoom);
  EXPECT_EQ(mark(ends), 0x10U);
  EXPECT_EQ(events_.back()["class"], "zoom");
  EXPECT_EQ(events_.back()["source"], "answer");
  EXPECT_EQ(events_.back()["marked_first_by"], "headers");
}

TEST_F(Headers, AFlowWithoutAnAnswerKeepsItsClass) {
  start(kMail);
  const Endpoints ends = to_port(25);
  EXPECT_EQ(mark(ends), 0x20U);
  say(ends, FlowState::guessed, 0);
  EXPECT_EQ(mark(ends), 0x20U);
  EXPECT_EQ(events_.back()["class"], "mail");
  EXPECT_EQ(events_.back()["source"], "headers");
}

TEST_F(Headers, ExemptFlowsGetNothing) {
  start(kNoMail, R"("exemptions": [{ "servers": ["198.51.100.20/32"] }],)");
  EXPECT_FALSE(drops(to_port(25)));
  EXPECT_TRUE(drops({"192.168.1.20", "198.51.100.21", 40001, 25}));
}

TEST_F(Headers, ServicesComeBeforeAClassThatMayGiveWay) {
  const std::string classes =
      R"({ "name": "zoom", "match": { "applications": ["Zoom"] }, "mark": "0x10/0xf0" },)";
  start(classes + kMail);
  const Endpoints first = to_port(25);
  syn(first);
  run_tc(plane_->tc("l7mark_egress"), ethernet(tcp(first.reversed(), kSynAck, 1, 1)));
  say(first, FlowState::final, kZoom);
  EXPECT_EQ(mark_to(25), 0x10U) << "by the service";
  EXPECT_EQ(plane_->count(L7M_COUNT_BY_SERVICE), 1U);
  EXPECT_EQ(plane_->count(L7M_COUNT_BY_HEADERS), 1U);
}

TEST_F(Headers, InterfaceAndFamilyAndTransport) {
  start(
      R"({ "name": "a", "match": { "interfaces": ["lan0"], "ip_version": 6 }, "mark": "0x10/0xf0" },
           { "name": "b", "match": { "transports": ["udp"] }, "mark": "0x20/0xf0" },
           { "name": "c", "match": { "interfaces": ["wan0"] }, "mark": "0x30/0xf0" })",
      R"("interfaces": [{ "name": "lan0" }, { "name": "wan0" }],)");
  EXPECT_EQ(mark({"2001:db8::1", "2001:db8::2", 40001, 443}), 0x10U);
  EXPECT_EQ(mark_to(443), 0U);
  EXPECT_EQ(
      run_tc(plane_->tc("l7mark_ingress"), ethernet(udp(to_port(443), Bytes(40, 0x41)))).skb.mark,
      0x20U);
  // It comes and goes.
  core_->set_interfaces({{"wan0", kLoopback}});
  EXPECT_EQ(mark({"2001:db8::1", "2001:db8::2", 40002, 443}), 0x30U);
  EXPECT_EQ(mark_to(443), 0x30U);
}

TEST_F(Headers, ThousandsOfPrefixes) {
  Policy policy = *policy_of(kMail);
  policy.classes[0].match = {};
  for (int i = 0; i < 20000; ++i) {
    policy.classes[0].match.servers.push_back(
        *Prefix::parse(std::to_string(20 + i / 10000) + "." + std::to_string(i / 100 % 100) + "." +
                       std::to_string(i % 100) + (i % 2 == 0 ? ".0/24" : ".128/25")));
    policy.classes[0].match.servers.push_back(
        Prefix{*Address::parse("2001:db8:" + std::to_string(i % 9999) + "::"), 48});
  }
  const auto begin = std::chrono::steady_clock::now();
  start(std::make_shared<const Policy>(policy));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  RecordProperty("start_ms", static_cast<int>(took.count() * 1000));
  EXPECT_LT(took.count(), 20.0);
  EXPECT_EQ(mark({"192.168.1.20", "20.7.8.200", 40001, 443}), 0x20U);
  EXPECT_EQ(mark({"192.168.1.20", "21.7.9.200", 40002, 443}), 0x20U);
  EXPECT_EQ(mark({"192.168.1.20", "21.7.9.100", 40003, 443}), 0U);
  EXPECT_EQ(mark({"192.168.1.20", "22.7.8.200", 40004, 443}), 0U);
  EXPECT_EQ(mark({"2001:db8:ffff::1", "2001:db8:1234::1", 40005, 443}), 0x20U);
  EXPECT_EQ(mark({"2001:db8:1234::1", "2001:db8:ffff::1", 40006, 443}), 0U);
}

// Each reload writes the generation that the one before did not.
TEST_F(Headers, ReloadChangesAllAtOnce) {
  const auto policy = [](int port, const char* mark) {
    return policy_of(R"({ "name": "mail", "match": { "server_ports": [)" + std::to_string(port) +
                     R"(] }, "mark": ")" + mark + R"(/0xf0" })");
  };
  start(policy(25, "0x10"));
  EXPECT_EQ(mark_to(25), 0x10U);
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(core_->reload(policy(26, "0x20"), RecordNames{test_catalog()}).ok());
    EXPECT_EQ(mark_to(25), 0U);
    EXPECT_EQ(mark_to(26), 0x20U);
    ASSERT_TRUE(core_->reload(policy(25, "0x30"), RecordNames{test_catalog()}).ok());
    EXPECT_EQ(mark_to(25), 0x30U);
    EXPECT_EQ(mark_to(26), 0U);
  }
  ASSERT_TRUE(core_->reload(policy_of(""), RecordNames{test_catalog()}).ok());
  EXPECT_EQ(mark_to(25), 0U);
}

TEST_F(Headers, AFlowThatIsKnownFollowsAReload) {
  start(kMail);
  const Endpoints ends = to_port(25);
  EXPECT_EQ(mark(ends), 0x20U);
  say(ends, FlowState::provisional, 0);
  EXPECT_EQ(events_.back()["class"], "mail");
  EXPECT_EQ(events_.back()["source"], "headers");
  const auto policy =
      policy_of(R"({ "name": "post", "match": { "server_ports": [25] }, "mark": "0x30/0xf0" })");
  ASSERT_TRUE(core_->reload(policy, RecordNames{test_catalog()}).ok());
  EXPECT_EQ(mark(ends), 0x30U);
}

// The connection whose SYN was dropped tries again, and nobody has told of it.
TEST_F(Headers, AFlowThatIsNotKnownFollowsAReload) {
  start(kNoMail);
  const Endpoints ends = to_port(25);
  EXPECT_TRUE(drops(ends));
  const auto policy =
      policy_of(R"({ "name": "post", "match": { "server_ports": [25, 26] }, "drop": true })");
  ASSERT_TRUE(core_->reload(policy, RecordNames{test_catalog()}).ok());
  EXPECT_TRUE(drops(ends));
  ASSERT_TRUE(core_->reload(policy_of(""), RecordNames{test_catalog()}).ok());
  EXPECT_FALSE(drops(ends));
}

TEST_F(Headers, UserspaceIsToldAtOnceWhereItHasSomethingToDo) {
  start(R"({ "name": "mail", "match": { "server_ports": [25] }, "log": true })");
  const Endpoints ends = to_port(25);
  syn(ends);
  const auto first = plane_->records();
  ASSERT_THAT(first, SizeIs(1));
  EXPECT_EQ(first[0].head.type, L7M_RECORD_SAMPLE);
  EXPECT_EQ(first[0].head.flags, L7M_SAMPLE_BEGUN | L7M_SAMPLE_FIRST);
  EXPECT_EQ(first[0].head.candidate_flags, L7M_FLOW_HEADERS);
  EXPECT_EQ(first[0].head.flow_id, candidate(ends).flow_id);
  syn(ends);
  EXPECT_THAT(plane_->records(), IsEmpty()) << "once";
  run_tc(plane_->tc("l7mark_ingress"), ethernet(udp(to_port(25), Bytes(40, 0x41))));
  const auto datagram = plane_->records();
  ASSERT_THAT(datagram, SizeIs(1));
  EXPECT_EQ(datagram[0].head.type, L7M_RECORD_SAMPLE);
  EXPECT_EQ(datagram[0].head.flags, L7M_SAMPLE_BEGUN | L7M_SAMPLE_FIRST);
}

// Every rule and table at once, as userspace has them.
TEST_F(Headers, TheKernelFindsWhatUserspaceFinds) {
  const auto policy = policy_of(
      R"({ "name": "a", "match": { "clients": ["10.0.0.0/8", "2001:db8::/48"],
                                   "not": { "clients": ["10.0.1.0/24"] } }, "mark": "0x10/0xf0" },
         { "name": "b", "match": { "applications": ["Zoom"], "server_ports": ["400-500"] } },
         { "name": "c", "match": { "servers": ["10.0.0.0/16", "2001:db8:1::/48"] },
           "except": [{ "server_ports": [443, "5000-50000"] }], "drop": true },
         { "name": "d", "match": { "any": [{ "transports": ["udp"] }, { "ip_version": 6 }] },
           "mark": "0x40/0xf0" })",
      R"("inside": ["10.0.0.0/8"], "exemptions": [{ "server_ports": [7], "ip_version": 4 }],)");
  start(policy);
  HeaderRules rules(*policy, std::vector<bool>(policy->classes.size(), true));
  rules.set_interfaces({});
  std::mt19937 random(7);
  const auto pick = [&random](const auto& from) { return from[random() % from.size()]; };
  const std::vector<std::string> v4{"10.0.0.1", "10.0.1.1", "10.1.0.1", "192.0.2.1", "9.9.9.9"};
  const std::vector<std::string> v6{"2001:db8::1", "2001:db8:1::1", "2001:db8:2::1", "::1"};
  const std::vector<std::uint16_t> ports{7, 25, 399, 400, 443, 500, 1024, 5000, 33000, 60000};
  std::size_t dropped = 0, exempt = 0;
  for (int i = 0; i < 3000; ++i) {
    const bool six = random() % 3 == 0;
    const Endpoints ends{pick(six ? v6 : v4), pick(six ? v6 : v4), pick(ports), pick(ports)};
    if (ends.source == ends.destination) continue;
    const bool is_udp = random() % 2 == 0;
    const std::uint8_t protocol = is_udp ? L7M_PROTO_UDP : L7M_PROTO_TCP;
    const std::uint8_t flags = pick(std::vector<std::uint8_t>{kSyn, kSynAck, kAck});
    plane_->clear_candidates();
    const auto run = run_tc(plane_->tc("l7mark_ingress"),
                            ethernet(is_udp ? udp(ends, Bytes(40, 0x41)) : tcp(ends, flags, 1, 1)));
    const FlowKey key = flow_key(ends, protocol);
    const l7m_candidate met = candidate(ends, protocol);
    const int client = client_of(key, met.initiator, met.flags, policy->inside);
    const auto found = rules.find(
        {key.address(client), key.address(1 - client), key.port(1 - client), protocol, kLoopback});
    std::string expected =
        found && !found->classes.empty() ? policy->classes[found->classes.front()].name : "";
    exempt += found && found->classes.empty() ? 1 : 0;
    if (expected == "c" && !found->certain) expected.clear();
    dropped += run.answer == kShot ? 1 : 0;
    const auto action = plane_->maps.action(met.action);
    ASSERT_TRUE(action);
    const std::string got =
        action->class_id == 0 ? "" : policy->classes[action->class_id - 1U].name;
    ASSERT_EQ(got, expected) << ends.source << " " << ends.sport << " " << ends.destination << " "
                             << ends.dport << (is_udp ? " udp " : " tcp ") << int{flags};
    ASSERT_EQ((met.flags & L7M_FLOW_HEADERS) != 0, !expected.empty());
  }
  EXPECT_GT(dropped, 20U);
  EXPECT_GT(exempt, 20U);
}

}  // namespace
}  // namespace l7mark::test
