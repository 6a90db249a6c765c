// SPDX-License-Identifier: GPL-2.0-only
// Who begins flows pays for what is copied of them (bpf/budget.h): by source, and all of outside
// together. Above a budget nothing is copied, and all else goes on. Packet in, records out.
#include <gmock/gmock.h>
#include <l7mark/budgets.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../unit/policy_catalog.hpp"
#include "daemon/core.hpp"
#include "layers.hpp"
#include "program_run.hpp"
#include "util/clock.hpp"

namespace l7mark::test {
namespace {

const Endpoints k4{"192.0.2.10", "198.51.100.20", 40000, 443};
const Endpoints k6{"2001:db8::10", "2001:db8:1::20", 40000, 443};
constexpr std::uint8_t kSyn = 0x02;
constexpr std::uint32_t kEndless = 0xffffffff;  // jiffies: all of a test is in one second
constexpr std::uint32_t kBudget = 20000, kMark = 4;
constexpr std::size_t kPayload = 500;

Endpoints from_port(Endpoints ends, unsigned port) {
  ends.sport = static_cast<std::uint16_t>(port);
  return ends;
}

class Budget : public testing::TestWithParam<bool> {
 protected:
  void make(std::uint32_t candidates = 4096, bool replay = false) {
    auto& loaded = planes_[{candidates, replay}];
    if (!loaded) {
      DataplaneOptions options;
      options.candidates = candidates;
      options.flows = options.services = options.hints = 1024;
      options.ring_bytes = 1U << 20;
      options.replay = replay;
      std::string why;
      loaded = Plane::make(options, why);
      if (!loaded) GTEST_SKIP() << why;
    }
    plane_ = loaded.get();
    plane_->reset();
    plane_->clear_budgets();
    plane_->clear("sources");
    limit(kBudget, 0);
  }
  void SetUp() override { make(); }
  static void TearDownTestSuite() { planes_.clear(); }

  void limit(std::uint32_t source, std::uint32_t outside, std::uint32_t hz = kEndless) const {
    plane_->set([&](l7m_settings& settings) {
      settings.source_budget = source;
      settings.outside_budget = outside;
      settings.hz = hz;
    });
  }
  void inside(const char* address, unsigned length) const {
    const std::pair prefix{*Address::parse(address), length};
    ASSERT_TRUE(plane_->maps.set_inside({&prefix, 1}).ok());
  }

  [[nodiscard]] RunResult run(const Bytes& packet) const {
    const RunResult result = GetParam() ? run_xdp(plane_->xdp("l7mark_xdp"), packet)
                                        : run_tc(plane_->tc("l7mark_ingress"), packet);
    EXPECT_EQ(result.code, 0);
    return result;
  }
  // What the packet's copy takes of a budget; 0 if there is none.
  [[nodiscard]] std::size_t cost(const Bytes& packet) const {
    (void)run(packet);
    std::size_t bytes = 0;
    for (const Record& record : plane_->records()) bytes += record.data.size() + sizeof(l7m_sample);
    return bytes;
  }
  [[nodiscard]] std::size_t datagram(const Endpoints& ends) const {
    return cost(ethernet(udp(ends, Bytes(kPayload, 0x41))));
  }
  // One datagram each of so many flows.
  [[nodiscard]] std::size_t datagrams(const Endpoints& ends, unsigned first, unsigned count) const {
    std::size_t bytes = 0;
    for (unsigned i = 0; i < count; ++i) bytes += datagram(from_port(ends, first + i));
    return bytes;
  }
  [[nodiscard]] std::optional<l7m_source> named(const char* address) const {
    l7m_source_key key{};
    l7m_source out{};
    std::memcpy(key.addr, Address::parse(address)->bytes.data(), sizeof(key.addr));
    if (bpf_map_lookup_elem(plane_->maps.map_fd("sources"), &key, &out) != 0) return std::nullopt;
    return out;
  }

  static inline std::map<std::pair<std::uint32_t, bool>, std::unique_ptr<Plane>> planes_;
  Plane* plane_ = nullptr;
};

TEST_P(Budget, ASourceIsSampledWithinItsOwn) {
  const std::size_t each = datagram(k4);
  ASSERT_EQ(each, sizeof(l7m_sample) + 14 + 28 + kPayload);
  const unsigned all = kBudget / static_cast<unsigned>(each);
  EXPECT_EQ(datagrams(k4, 20000, 100) + each, all * each);
  EXPECT_EQ(plane_->count(L7M_COUNT_SOURCE_REFUSED), 101 - all);
  EXPECT_EQ(plane_->count(L7M_COUNT_OUTSIDE_REFUSED), 0U);
  EXPECT_EQ(plane_->candidates(), 101U) << "there is room";
  // Nobody else pays, next to it or far away.
  for (const char* other : {"192.0.2.11", "192.0.3.10", "10.0.0.1"}) {
    Endpoints ends = k4;
    ends.source = other;
    EXPECT_EQ(datagrams(ends, 20000, 20), 20 * each) << other;
  }
  EXPECT_EQ(datagrams(k6, 20000, 20), 20 * (each + 20));
}

// Of a host with IPv6 nobody could count the addresses.
TEST_P(Budget, IPv6IsCountedByItsSlash64) {
  const std::size_t each = datagram(k6);
  std::size_t bytes = each;
  for (unsigned i = 1; i <= 100; ++i) {
    Endpoints ends = k6;
    ends.source = "2001:db8::" + std::to_string(i) + ":1";
    bytes += datagram(ends);
  }
  EXPECT_EQ(bytes, kBudget / each * each);
  Endpoints other = k6;
  other.source = "2001:db8:0:1::10";
  EXPECT_EQ(datagrams(other, 20000, 20), 20 * each);
}

// What was refused is not lost: the flow's next packet tries again, in the next second.
TEST_P(Budget, EverySecondHasItsOwn) {
  const std::size_t spent = datagrams(k4, 20000, 100);
  EXPECT_EQ(datagram(from_port(k4, 20099)), 0U);
  const auto clock = plane_->maps.clock();
  ASSERT_TRUE(clock.ok());
  limit(kBudget, 0, static_cast<std::uint32_t>(clock->jiffies) / 2);  // another, as long
  const auto before = plane_->maps.candidate(flow_key(from_port(k4, 20099), L7M_PROTO_UDP));
  ASSERT_TRUE(before);
  EXPECT_EQ(before->first_sent, 0);
  EXPECT_GT(datagram(from_port(k4, 20099)), 0U);
  const auto after = plane_->maps.candidate(flow_key(from_port(k4, 20099), L7M_PROTO_UDP));
  ASSERT_TRUE(after);
  EXPECT_EQ(after->flow_id, before->flow_id);
  EXPECT_EQ(after->first_sent, 1);
  EXPECT_LE(datagrams(k4, 21000, 100), spent);
}

// A server's answers are paid for by those who asked, or its clients would share a budget.
TEST_P(Budget, TheAnswerIsPaidForByWhoAsked) {
  std::size_t answers = 0;
  for (unsigned i = 1; i <= 200; ++i) {
    Endpoints ends = k4;
    ends.source = "192.0.2." + std::to_string(i);
    EXPECT_GT(datagram(ends), 0U);
    answers += datagram(ends.reversed());
  }
  EXPECT_GT(answers, 5 * kBudget);
  EXPECT_EQ(plane_->count(L7M_COUNT_SOURCE_REFUSED), 0U);
  std::size_t bytes = 0;
  for (unsigned port = 30000; port < 30060; ++port) {
    Endpoints ends = from_port(k4, port);
    ends.source = "10.0.0.1";
    bytes += datagram(ends) + datagram(ends.reversed());
  }
  EXPECT_LE(bytes, kBudget) << "both directions";
  EXPECT_GT(bytes, kBudget - 2000U);
}

// Forged addresses are of no use: all that begin flows from outside have one budget.
TEST_P(Budget, OutsideIsSharedByAll) {
  inside("198.51.100.0", 120);
  limit(kBudget, 2 * kBudget);
  std::size_t bytes = 0;
  for (unsigned i = 0; i < 500; ++i) {
    Endpoints ends = k4;
    ends.source = "203.0." + std::to_string(i / 250) + "." + std::to_string(i % 250);
    bytes += datagram(ends);
  }
  EXPECT_LE(bytes, 2 * kBudget);
  EXPECT_GT(bytes, 2 * kBudget - 1000U);
  EXPECT_GT(plane_->count(L7M_COUNT_OUTSIDE_REFUSED), 400U);
  EXPECT_EQ(plane_->count(L7M_COUNT_SOURCE_REFUSED), 0U);
  // IPv6 has no other.
  EXPECT_EQ(datagram(k6), 0U);
  // Flows begun inside have their answers looked at, wherever those come from.
  const Endpoints ours{"198.51.100.20", "203.0.0.1", 40000, 443};
  EXPECT_GT(datagram(ours), 0U);
  EXPECT_GT(datagram(ours.reversed()), 0U);
  const auto total = named("::");
  ASSERT_TRUE(total);
  EXPECT_EQ(total->packets, plane_->count(L7M_COUNT_OUTSIDE_REFUSED));
  EXPECT_FALSE(named("203.0.0.1")) << "they would push each other out";
}

// Of outside, one source has no more than its own.
TEST_P(Budget, OneSourceDoesNotSpendAllOfOutside) {
  inside("198.51.100.0", 120);
  limit(kBudget, 2 * kBudget);
  const std::size_t each = datagram(k4);
  EXPECT_LE(datagrams(k4, 20000, 200), kBudget);
  EXPECT_EQ(plane_->count(L7M_COUNT_OUTSIDE_REFUSED), 0U);
  Endpoints other = k4;
  other.source = "203.0.113.9";
  EXPECT_EQ(datagrams(other, 20000, 20), 20 * each);
}

// A verdict's class and a promised one are given as ever; the flow is just not copied.
TEST_P(Budget, WhatIsKnownActsAsEver) {
  plane_->act(kMark, l7m_action{.mark = 0x85,
                                .mark_mask = 0xff,
                                .priority = 0,
                                .classid = 0,
                                .dscp = 0,
                                .flags = L7M_ACT_DROP,
                                .class_id = 1,
                                .reserved = 0});
  plane_->set([](l7m_settings& settings) { settings.flags = L7M_SET_SERVICES; });
  const auto clock = plane_->maps.clock();
  ASSERT_TRUE(clock.ok());
  l7m_service_key key{};
  std::memcpy(key.server, Address::parse("198.51.100.99")->bytes.data(), 16);
  std::memcpy(key.client, Address::parse(k4.source)->bytes.data(), 16);
  key.port = __builtin_bswap16(443);
  key.protocol = L7M_PROTO_UDP;
  l7m_promise promise{};
  promise.expires = clock->jiffies + 100000;
  promise.action = kMark;
  ASSERT_TRUE(plane_->maps.put_service(key, promise).ok());
  plane_->decide(flow_key(k4, L7M_PROTO_UDP), kMark);
  (void)datagrams(k4, 20000, 100);
  const std::uint32_t dropped = GetParam() ? XDP_DROP : TC_ACT_SHOT;
  EXPECT_EQ(run(ethernet(udp(k4, Bytes(kPayload, 1)))).answer, dropped);
  Endpoints promised = k4;
  promised.destination = "198.51.100.99";
  EXPECT_EQ(run(ethernet(udp(promised, Bytes(kPayload, 1)))).answer, dropped);
  EXPECT_TRUE(plane_->records().empty());
}

// Random tuples of a source above its budget take nobody's place, and are classified by what is
// promised of them.
TEST_P(Budget, NobodyMakesWayForAFlowAboveIt) {
  ASSERT_NO_FATAL_FAILURE(make(L7M_WAYS));
  if (IsSkipped()) return;
  Endpoints honest = k4;
  honest.source = "192.0.2.77";
  const std::size_t spent = datagrams(k4, 20000, 100);
  EXPECT_LE(spent, kBudget);
  plane_->clear_candidates();
  (void)datagrams(honest, 50000, L7M_WAYS - 1);
  (void)datagram(from_port(k4, 30000));  // takes the last free place
  EXPECT_EQ(plane_->candidates(), L7M_WAYS);
  const std::uint64_t evicted = plane_->count(L7M_COUNT_CANDIDATE_EVICTED_ONE_WAY);
  const std::uint64_t refused = plane_->count(L7M_COUNT_CANDIDATE_REFUSED);
  EXPECT_EQ(datagrams(k4, 31000, 200), 0U);
  EXPECT_EQ(plane_->count(L7M_COUNT_CANDIDATE_REFUSED), refused + 200);
  EXPECT_EQ(plane_->count(L7M_COUNT_CANDIDATE_EVICTED_ONE_WAY), evicted);
  for (unsigned i = 0; i < L7M_WAYS - 1; ++i)
    EXPECT_TRUE(plane_->maps.candidate(flow_key(from_port(honest, 50000 + i), L7M_PROTO_UDP)));
  // Others' flows go on to take places.
  (void)datagrams(honest, 51000, L7M_WAYS);
  EXPECT_TRUE(plane_->maps.candidate(flow_key(from_port(honest, 51007), L7M_PROTO_UDP)));
}

TEST_P(Budget, SourcesAboveItAreNamed) {
  (void)datagrams(k4, 20000, 100);
  const auto four = named("192.0.2.10");
  ASSERT_TRUE(four);
  EXPECT_EQ(four->packets, plane_->count(L7M_COUNT_SOURCE_REFUSED));
  EXPECT_EQ(four->bytes, four->packets * (sizeof(l7m_sample) + 14 + 28 + kPayload));
  EXPECT_EQ(four->since, four->last);
  EXPECT_FALSE(named("192.0.2.11"));
  (void)datagrams(k6, 20000, 100);
  EXPECT_TRUE(named("2001:db8::")) << "its /64";
  EXPECT_FALSE(named("2001:db8::10"));
}

// A new line after a minute without a refusal.
TEST_P(Budget, ALineEnds) {
  (void)datagrams(k4, 20000, 100);
  l7m_source_key key{};
  std::memcpy(key.addr, Address::parse(k4.source)->bytes.data(), sizeof(key.addr));
  l7m_source old = *named("192.0.2.10");
  old.last -= L7M_SOURCE_FORGOTTEN + 1;
  ASSERT_EQ(bpf_map_update_elem(plane_->maps.map_fd("sources"), &key, &old, BPF_ANY), 0);
  EXPECT_EQ(datagram(from_port(k4, 21000)), 0U);
  EXPECT_EQ(named("192.0.2.10")->packets, 1U);
  EXPECT_EQ(datagram(from_port(k4, 21001)), 0U);
  EXPECT_EQ(named("192.0.2.10")->packets, 2U);
}

TEST_P(Budget, NoneIsNoLimit) {
  limit(0, 0);
  const std::size_t each = datagram(k4);
  EXPECT_EQ(datagrams(k4, 20000, 200), 200 * each);
  EXPECT_EQ(plane_->count(L7M_COUNT_SOURCE_REFUSED), 0U);
}

// Time does not pass there as it did in the capture.
TEST_P(Budget, ReplaysHaveNone) {
  if (GetParam()) return;
  ASSERT_NO_FATAL_FAILURE(make(4096, true));
  if (IsSkipped()) return;
  limit(kBudget, kBudget);
  unsigned copied = 0;
  for (unsigned port = 20000; port < 20200; ++port) {
    const Bytes packet = ethernet(udp(from_port(k4, port), Bytes(kPayload, 0x41)));
    Skb in;
    in.wire_length = static_cast<std::uint32_t>(packet.size());
    EXPECT_EQ(run_tc(plane_->tc("l7mark_ingress"), packet, in).code, 0);
    copied += static_cast<unsigned>(plane_->records().size());
  }
  EXPECT_EQ(copied, 200U);
}

// Many sources that have used up what they have are in nobody's way.
TEST_P(Budget, SourcesHaveEachTheirOwn) {
  limit(700, 0);
  for (unsigned i = 0; i < 600; ++i) {
    Endpoints ends = k4;
    ends.source = "10.0." + std::to_string(i / 256) + "." + std::to_string(i % 256);
    EXPECT_GT(datagram(ends), 0U) << i;
    if (i % 2 == 0) {
      EXPECT_EQ(datagram(from_port(ends, 40001)), 0U) << i;
    }
  }
}

// More than a set has places: forged sources neither make one forget what another has spent, nor
// cost an honest one more than they spend themselves.
TEST_P(Budget, ForgedSourcesAreOfNoUse) {
  const auto settings = plane_->maps.read_settings();
  ASSERT_TRUE(settings.ok());
  const auto set_of = [&](const std::string& address) {
    l7m_source_key key{};
    std::memcpy(key.addr, Address::parse(address)->bytes.data(), sizeof(key.addr));
    return l7m_budget_set_of(l7m_source_hash(&key, &settings->secrets));
  };
  std::vector<std::string> forged;
  for (std::uint32_t i = 0; forged.size() < 12 && i < 1U << 22; ++i) {
    const std::string address = "10." + std::to_string(i >> 16) + "." +
                                std::to_string(i >> 8 & 255) + "." + std::to_string(i & 255);
    if (set_of(address) == set_of(k4.source)) forged.push_back(address);
  }
  ASSERT_EQ(forged.size(), 12U);
  const std::size_t spent = datagrams(k4, 20000, 100);
  EXPECT_GT(spent, kBudget - 1000U);
  for (const std::string& source : forged) {
    Endpoints ends = k4;
    ends.source = source;
    EXPECT_GT(datagram(ends), 0U) << source;
    EXPECT_EQ(datagram(k4), 0U) << "after " << source;
  }
  Endpoints honest = k4;
  honest.source = forged.front();  // its place is another's by now
  EXPECT_GT(datagrams(honest, 20000, 100), kBudget - 12 * 700U);
}

// From the policy to the kernel, and back to `l7mark status`.
TEST_P(Budget, StatusNamesThem) {
  auto policy = parse_policy(
      R"({"version": 1, "interfaces": [{"name": "lan0"}], "inside": ["10.0.0.0/8", "2001:db8::/64"],
          "sampling": {"source_budget": 20000, "outside_budget": 10000}})",
      "test", test_catalog());
  ASSERT_TRUE(policy.ok()) << policy.error().message();
  Core::Events events;
  events.wants_events = [] { return false; };
  Core core(plane_->maps, std::make_shared<const Policy>(std::move(*policy)),
            RecordNames{test_catalog()}, JiffiesClock(), events);
  ASSERT_TRUE(core.start().ok());
  ASSERT_TRUE(core.set_sampling(true).ok());
  const auto told = [&] {
    nlohmann::ordered_json status;
    core.status(status);
    return status["budgets"];
  };
  EXPECT_EQ(told().dump(),
            R"({"source_budget":20000,"outside_budget":10000,"above":0,"named":[]})");
  const std::uint64_t begin = clock_ns(CLOCK_REALTIME) / 1'000'000'000;
  Endpoints ours = k4;
  ours.source = "10.1.2.3";
  (void)datagrams(ours, 20000, 200);
  (void)datagrams(k6, 20000, 100);
  (void)datagrams(k4, 20000, 100);
  const auto after = told();
  EXPECT_EQ(after["above"], 2);
  ASSERT_EQ(after["named"].size(), 2U);
  EXPECT_EQ(after["named"][0]["source"], "10.1.2.3") << "most bytes first";
  EXPECT_EQ(after["named"][1]["source"], "2001:db8::/64");
  for (const auto& one : {after["named"][0], after["named"][1], after["outside"]}) {
    EXPECT_EQ(one["bytes"].get<std::size_t>() % one["packets"].get<std::size_t>(), 0U);
    EXPECT_GE(one["since"].get<std::uint64_t>() + 1, begin);
    EXPECT_GE(one["last"].get<std::uint64_t>(), one["since"].get<std::uint64_t>());
    EXPECT_LE(one["last"].get<std::uint64_t>(), clock_ns(CLOCK_REALTIME) / 1'000'000'000 + 1);
  }
  // An old line is no news.
  l7m_source_key key{};
  std::memcpy(key.addr, Address::parse("10.1.2.3")->bytes.data(), sizeof(key.addr));
  l7m_source old = *named("10.1.2.3");
  old.last -= L7M_SOURCE_FORGOTTEN + 10;
  ASSERT_EQ(bpf_map_update_elem(plane_->maps.map_fd("sources"), &key, &old, BPF_ANY), 0);
  EXPECT_EQ(told()["above"], 1);
}

INSTANTIATE_TEST_SUITE_P(Hooks, Budget, testing::Bool(),
                         [](const testing::TestParamInfo<bool>& hook) {
                           return hook.param ? "xdp" : "tc";
                         });

}  // namespace
}  // namespace l7mark::test
