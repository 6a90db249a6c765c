// SPDX-License-Identifier: GPL-2.0-only
// The table of candidates: places taken, given back and taken over, and the steps by which flows
// leave it and the table of verdicts.
#include <gmock/gmock.h>
#include <l7mark/candidates.h>
#include <sched.h>

#include <atomic>
#include <cstring>
#include <map>
#include <set>
#include <thread>

#include "layers.hpp"
#include "program_run.hpp"

namespace l7mark::test {
namespace {

constexpr std::uint8_t kSyn = 0x02, kAck = 0x10, kFin = 0x11;

// Flow number `n` of one server.
Endpoints ends_of(unsigned n, bool v6 = false) {
  if (v6) return {"2001:db8::" + std::to_string(n + 1), "2001:db8:1::20", 40000, 443};
  return {"192.0.2." + std::to_string(n % 250 + 1), "198.51.100.20",
          static_cast<std::uint16_t>(40000 + n / 250), 443};
}

FlowKey key_of(const Endpoints& ends) {
  return flow_key(ends, L7M_PROTO_TCP);
}

Bytes segment(const Endpoints& ends, std::uint8_t flags, std::size_t payload = 0) {
  return ethernet(tcp(ends, flags, 1, 1, Bytes(payload, 0x41)));
}

class Candidates : public testing::Test {
 protected:
  // `candidates` of 8 is one set; `flows` is of each family. What was loaded for another case is
  // used again: an emulated machine takes long to verify programs.
  void make(std::uint32_t candidates, std::uint32_t flows = 1024) {
    auto& loaded = planes_[{candidates, flows}];
    if (!loaded) {
      DataplaneOptions options;
      options.candidates = candidates;
      options.flows = flows;
      options.services = options.hints = 64;
      options.ring_bytes = 65536;
      std::string why;
      loaded = Plane::make(options, why);
      if (!loaded) GTEST_SKIP() << why;
    }
    plane_ = loaded.get();
    plane_->reset();
  }
  static void TearDownTestSuite() { planes_.clear(); }

  void ingress(const Bytes& packet) const {
    EXPECT_EQ(run_tc(plane_->tc("l7mark_ingress"), packet).code, 0);
    plane_->records();
  }
  [[nodiscard]] bool known(const Endpoints& ends) const {
    return plane_->maps.candidate(key_of(ends)).has_value();
  }

  // Packets from both endpoints.
  void answered(const Endpoints& ends) const {
    ingress(segment(ends, kSyn));
    ingress(segment(ends.reversed(), kSyn | kAck));
  }
  // Candidates that made way while they had packets both ways, or one way only.
  [[nodiscard]] std::uint64_t evicted(bool two_way) const {
    return plane_->count(two_way ? L7M_COUNT_CANDIDATE_EVICTED_TWO_WAY
                                 : L7M_COUNT_CANDIDATE_EVICTED_ONE_WAY);
  }
  [[nodiscard]] std::uint64_t evicted() const { return evicted(false) + evicted(true); }

  // Of the flow that is sampled; 0 if none is.
  [[nodiscard]] std::uint64_t life(const Endpoints& ends) const {
    const auto candidate = plane_->maps.candidate(key_of(ends));
    return candidate ? candidate->flow_id : 0;
  }

  l7m_settlement settle(const Endpoints& ends, l7m_settle_step what, std::uint64_t flow_id,
                        const l7m_verdict& verdict = {}) const {
    l7m_settlement step{};
    step.key = key_of(ends).raw;
    step.flow_id = flow_id;
    step.step = static_cast<std::uint8_t>(what);
    step.verdict = verdict;
    EXPECT_TRUE(plane_->maps.settle({&step, 1}).ok());
    return step;
  }

  static inline std::map<std::pair<std::uint32_t, std::uint32_t>, std::unique_ptr<Plane>> planes_;
  Plane* plane_ = nullptr;
};

// The first come makes way first, whatever its family, and is a flow like any other if it comes
// again.
TEST_F(Candidates, FullSetTakesTurns) {
  ASSERT_NO_FATAL_FAILURE(make(L7M_WAYS));
  if (IsSkipped()) return;
  for (unsigned n = 0; n < L7M_WAYS; ++n) ingress(segment(ends_of(n, n % 2 == 1), kSyn));
  EXPECT_EQ(plane_->candidates(), L7M_WAYS);
  EXPECT_EQ(evicted(), 0U);
  for (unsigned n = L7M_WAYS; n < L7M_WAYS * 2; ++n) {
    ingress(segment(ends_of(n), kSyn));
    EXPECT_TRUE(known(ends_of(n)));
    EXPECT_EQ(plane_->candidates(), L7M_WAYS);
    EXPECT_EQ(evicted(), n - L7M_WAYS + 1);
  }
  for (unsigned n = 0; n < L7M_WAYS; ++n) EXPECT_FALSE(known(ends_of(n, n % 2 == 1))) << n;
  ingress(segment(ends_of(0), kSyn));
  EXPECT_TRUE(known(ends_of(0)));
  EXPECT_EQ(plane_->count(L7M_COUNT_NEW_FLOW), L7M_WAYS * 2 + 1);
}

// A flood of SYNs takes the places of its like only: what both endpoints have sent packets of
// stays, with its life.
TEST_F(Candidates, OneWayFlowsMakeWayFirst) {
  ASSERT_NO_FATAL_FAILURE(make(L7M_WAYS));
  if (IsSkipped()) return;
  constexpr unsigned kTwoWay = 5, kFlood = 100;
  std::map<unsigned, std::uint64_t> lives;
  for (unsigned n = 0; n < L7M_WAYS; ++n) {
    const bool two_way = n != 0 && n != 3 && n != 4;  // in the midst of the others
    if (two_way)
      answered(ends_of(n, n % 2 == 1));
    else
      ingress(segment(ends_of(n), kSyn));
    if (two_way) lives[n] = life(ends_of(n, n % 2 == 1));
  }
  ASSERT_EQ(lives.size(), kTwoWay);
  for (unsigned n = 1000; n < 1000 + kFlood; ++n) {
    ingress(segment(ends_of(n), kSyn));
    ingress(segment(ends_of(n), kAck, 20));  // more of the same side changes nothing
    for (unsigned back = 0; back < L7M_WAYS - kTwoWay && n - back >= 1000; ++back)
      EXPECT_TRUE(known(ends_of(n - back))) << "those that came last are there: they take turns";
    if (n >= 1000 + L7M_WAYS - kTwoWay) {
      EXPECT_FALSE(known(ends_of(n - (L7M_WAYS - kTwoWay))));
    }
  }
  for (const auto& [n, id] : lives) EXPECT_EQ(life(ends_of(n, n % 2 == 1)), id) << n;
  EXPECT_EQ(evicted(false), kFlood);
  EXPECT_EQ(evicted(true), 0U);
}

// Where all have packets both ways they take turns likewise, and are counted apart.
TEST_F(Candidates, TwoWayFlowsMakeWayWhereThereAreNoOthers) {
  ASSERT_NO_FATAL_FAILURE(make(L7M_WAYS));
  if (IsSkipped()) return;
  for (unsigned n = 0; n < L7M_WAYS; ++n) answered(ends_of(n));
  for (unsigned n = L7M_WAYS; n < L7M_WAYS * 2; ++n) {
    answered(ends_of(n));
    EXPECT_TRUE(known(ends_of(n)));
    EXPECT_EQ(plane_->candidates(), L7M_WAYS);
  }
  for (unsigned n = 0; n < L7M_WAYS; ++n) EXPECT_FALSE(known(ends_of(n))) << n;
  EXPECT_EQ(evicted(true), L7M_WAYS);
  EXPECT_EQ(evicted(false), 0U);
}

// The next flow in a place is not taken for the one that was there.
TEST_F(Candidates, PlacesForgetThatFlowsWereTwoWay) {
  ASSERT_NO_FATAL_FAILURE(make(L7M_WAYS));
  if (IsSkipped()) return;
  for (unsigned n = 0; n < L7M_WAYS; ++n) answered(ends_of(n));
  EXPECT_EQ(settle(ends_of(2), L7M_SETTLE_TAKE, life(ends_of(2))).result, L7M_SETTLE_TOOK);
  ingress(segment(ends_of(20), kSyn));
  ingress(segment(ends_of(21), kSyn));
  EXPECT_FALSE(known(ends_of(20)));
  EXPECT_TRUE(known(ends_of(21)));
  EXPECT_EQ(evicted(false), 1U);
  EXPECT_EQ(evicted(true), 0U);
}

// Two-way flows that nobody ended do not keep the others out for ever.
TEST_F(Candidates, TwoWayLeftOversMakeWay) {
  ASSERT_NO_FATAL_FAILURE(make(L7M_WAYS));
  if (IsSkipped()) return;
  for (unsigned n = 0; n < L7M_WAYS - 1; ++n) {
    answered(ends_of(n));
    auto candidate = plane_->maps.candidate(key_of(ends_of(n)));
    ASSERT_TRUE(candidate);
    candidate->last_seen -= 120'001;
    ASSERT_TRUE(plane_->maps.put_candidate(key_of(ends_of(n)), *candidate).ok());
  }
  for (unsigned n = 100; n < 100 + L7M_WAYS * 2; ++n) ingress(segment(ends_of(n), kSyn));
  for (unsigned n = 0; n < L7M_WAYS - 1; ++n) EXPECT_FALSE(known(ends_of(n))) << n;
  EXPECT_EQ(evicted(true), 0U) << "no loss";
}

// What is left over of an old flow is no loss.
TEST_F(Candidates, LeftOversAreTakenOverUncounted) {
  ASSERT_NO_FATAL_FAILURE(make(L7M_WAYS));
  if (IsSkipped()) return;
  for (unsigned n = 0; n < L7M_WAYS; ++n) {
    ingress(segment(ends_of(n), kSyn));
    auto candidate = plane_->maps.candidate(key_of(ends_of(n)));
    ASSERT_TRUE(candidate);
    candidate->last_seen -= 120'001;
    ASSERT_TRUE(plane_->maps.put_candidate(key_of(ends_of(n)), *candidate).ok());
  }
  ingress(segment(ends_of(L7M_WAYS), kSyn));
  EXPECT_TRUE(known(ends_of(L7M_WAYS)));
  EXPECT_EQ(evicted(), 0U);
}

TEST_F(Candidates, PlacesGivenBackAreFree) {
  ASSERT_NO_FATAL_FAILURE(make(L7M_WAYS));
  if (IsSkipped()) return;
  for (unsigned n = 0; n < 100; ++n) {
    const Endpoints ends = ends_of(n, n % 3 == 0);
    ingress(segment(ends, kSyn));
    ingress(segment(ends, kAck, 10));
    const std::uint64_t id = life(ends);
    EXPECT_EQ(settle(ends, L7M_SETTLE_TAKE, id + 1).result, L7M_SETTLE_STALE) << "another life";
    const l7m_settlement step = settle(ends, L7M_SETTLE_TAKE, id);
    EXPECT_EQ(step.result, L7M_SETTLE_TOOK);
    EXPECT_EQ(step.candidate.flow_id, id);
    EXPECT_EQ(step.candidate.count.packets[sender_of(ends)], 2U);
    EXPECT_EQ(step.candidate.sampled, 1);
    EXPECT_EQ(settle(ends, L7M_SETTLE_TAKE, id).result, 0) << "it is gone";
  }
  EXPECT_EQ(plane_->candidates(), 0U);
  EXPECT_EQ(evicted(), 0U);
}

// Over many sets: every flow is found again.
TEST_F(Candidates, ManyFlowsFindTheirPlaces) {
  ASSERT_NO_FATAL_FAILURE(make(8192));
  if (IsSkipped()) return;
  for (unsigned n = 0; n < 1024; ++n) ingress(segment(ends_of(n), kSyn));
  EXPECT_EQ(evicted(), 0U) << "an eighth full";
  for (unsigned n = 0; n < 1024; ++n) {
    ingress(segment(ends_of(n), kAck, 1));
    const auto candidate = plane_->maps.candidate(key_of(ends_of(n)));
    ASSERT_TRUE(candidate);
    EXPECT_EQ(candidate->count.packets[sender_of(ends_of(n))], 2U);
  }
  EXPECT_EQ(plane_->count(L7M_COUNT_NEW_FLOW), 1024U);
}

TEST_F(Candidates, DecidingMovesAFlow) {
  ASSERT_NO_FATAL_FAILURE(make(8192));
  if (IsSkipped()) return;
  for (const bool v6 : {false, true}) {
    const Endpoints ends = ends_of(1, v6);
    ingress(segment(ends, kSyn));
    plane_->set([](l7m_settings& settings) { settings.flags |= L7M_SET_PAUSED; });
    ingress(segment(ends, kFin));  // no sample tells of it
    plane_->set([](l7m_settings& settings) { settings.flags = 0; });
    const std::uint64_t id = life(ends);
    l7m_verdict answer{};
    answer.action = 8;
    answer.flags = L7M_FLOW_HINT;
    const l7m_settlement step = settle(ends, L7M_SETTLE_DECIDE, id, answer);
    EXPECT_EQ(step.result, L7M_SETTLE_WROTE | L7M_SETTLE_TOOK);
    EXPECT_EQ(step.candidate.count.packets[sender_of(ends)], 2U);
    EXPECT_FALSE(known(ends));
    auto verdict = plane_->maps.verdict(key_of(ends));
    ASSERT_TRUE(verdict);
    EXPECT_EQ(verdict->flow_id, id);
    EXPECT_EQ(verdict->action, 8U);
    EXPECT_EQ(verdict->flags,
              L7M_FLOW_HINT | (sender_of(ends) == 0 ? L7M_FLOW_FIN0 : L7M_FLOW_FIN1));
    EXPECT_EQ(verdict->count.packets[0] + verdict->count.packets[1], 0U);
    // Again: what it decides is new, what packets wrote stays.
    ingress(segment(ends, kAck, 9));
    answer.action = 12;
    answer.flags = 0;
    EXPECT_EQ(settle(ends, L7M_SETTLE_DECIDE, id, answer).result, L7M_SETTLE_WROTE);
    verdict = plane_->maps.verdict(key_of(ends));
    ASSERT_TRUE(verdict);
    EXPECT_EQ(verdict->flow_id, id);
    EXPECT_EQ(verdict->action, 12U);
    EXPECT_NE(verdict->flags & L7M_FLOW_HINT, 0);
    EXPECT_EQ(verdict->count.packets[sender_of(ends)], 1U);
  }
}

// The answer of a life that is over changes nothing, whatever is there now.
TEST_F(Candidates, DecidingAnotherLifeDoesNothing) {
  ASSERT_NO_FATAL_FAILURE(make(8192));
  if (IsSkipped()) return;
  for (const bool v6 : {false, true}) {
    const Endpoints ends = ends_of(1, v6);
    EXPECT_EQ(settle(ends, L7M_SETTLE_DECIDE, 77).result, L7M_SETTLE_STALE) << "nothing is there";
    EXPECT_FALSE(plane_->maps.verdict(key_of(ends)));
    ingress(segment(ends, kSyn));
    const std::uint64_t id = life(ends);
    EXPECT_EQ(settle(ends, L7M_SETTLE_DECIDE, id + 1).result, L7M_SETTLE_STALE) << "a candidate";
    EXPECT_FALSE(plane_->maps.verdict(key_of(ends)));
    EXPECT_EQ(life(ends), id);
    EXPECT_EQ(settle(ends, L7M_SETTLE_DECIDE, id).result, L7M_SETTLE_WROTE | L7M_SETTLE_TOOK);
    l7m_verdict answer{};
    answer.action = 8;
    EXPECT_EQ(settle(ends, L7M_SETTLE_DECIDE, id + 1, answer).result, L7M_SETTLE_STALE)
        << "a verdict";
    EXPECT_EQ(plane_->maps.verdict(key_of(ends))->flow_id, id);
    EXPECT_EQ(plane_->maps.verdict(key_of(ends))->action, 0U);
  }
}

TEST_F(Candidates, FullTableLeavesTheCandidate) {
  ASSERT_NO_FATAL_FAILURE(make(8192, 4));
  if (IsSkipped()) return;
  for (const bool v6 : {false, true}) {
    unsigned written = 0, full = 0;
    for (unsigned n = 0; n < 16; ++n) {
      const Endpoints ends = ends_of(n, v6);
      ingress(segment(ends, kSyn));
      const l7m_settlement step = settle(ends, L7M_SETTLE_DECIDE, life(ends));
      EXPECT_EQ(known(ends), step.result == 0);
      ++(step.result != 0 ? written : full);
    }
    EXPECT_GE(written, 4U);
    EXPECT_GE(full, 1U);
  }
}

TEST_F(Candidates, AnswerDoesNotReplaceTheVerdictByHand) {
  ASSERT_NO_FATAL_FAILURE(make(8192));
  if (IsSkipped()) return;
  for (const bool v6 : {false, true}) {
    const Endpoints ends = ends_of(1, v6);
    ingress(segment(ends, kSyn));
    const std::uint64_t id = life(ends);
    VerdictEntry by_hand{key_of(ends), {}};
    by_hand.verdict.action = 8;
    ASSERT_TRUE(plane_->maps.put_verdicts({&by_hand, 1}).ok());
    EXPECT_EQ(settle(ends, L7M_SETTLE_DECIDE, id).result, L7M_SETTLE_MANUAL | L7M_SETTLE_TOOK);
    EXPECT_FALSE(known(ends));
    ASSERT_TRUE(plane_->maps.verdict(key_of(ends)));
    EXPECT_EQ(plane_->maps.verdict(key_of(ends))->flow_id, 0U);
    EXPECT_EQ(plane_->maps.verdict(key_of(ends))->action, 8U);
    EXPECT_EQ(settle(ends, L7M_SETTLE_REMOVE, id).result, L7M_SETTLE_STALE) << "another's";
    EXPECT_EQ(settle(ends, L7M_SETTLE_END, 0, by_hand.verdict).result, L7M_SETTLE_TOOK);
    EXPECT_FALSE(plane_->maps.verdict(key_of(ends)));
  }
}

// Of the life that is meant, and only as long as it is as it was read.
TEST_F(Candidates, EndTakesTheVerdictThatWasRead) {
  ASSERT_NO_FATAL_FAILURE(make(8192));
  if (IsSkipped()) return;
  for (const bool v6 : {false, true}) {
    const Endpoints ends = ends_of(1, v6);
    plane_->decide(key_of(ends), 8);
    const l7m_verdict read = *plane_->maps.verdict(key_of(ends));
    EXPECT_EQ(settle(ends, L7M_SETTLE_END, 2, read).result, L7M_SETTLE_STALE);
    ingress(segment(ends, kAck, 9));
    const l7m_settlement busy = settle(ends, L7M_SETTLE_END, 1, read);
    EXPECT_EQ(busy.result, L7M_SETTLE_BUSY);
    EXPECT_EQ(busy.verdict.count.packets[sender_of(ends)], 1U) << "it tells what there is now";
    ASSERT_TRUE(plane_->maps.verdict(key_of(ends)));
    const l7m_settlement step = settle(ends, L7M_SETTLE_END, 1, busy.verdict);
    EXPECT_EQ(step.result, L7M_SETTLE_TOOK);
    EXPECT_EQ(step.verdict.count.packets[sender_of(ends)], 1U);
    EXPECT_FALSE(plane_->maps.verdict(key_of(ends)));
    EXPECT_EQ(settle(ends, L7M_SETTLE_END, 1, read).result, 0);
    // Whatever it has counted.
    plane_->decide(key_of(ends), 8);
    ingress(segment(ends, kAck, 9));
    EXPECT_EQ(settle(ends, L7M_SETTLE_REMOVE, 2).result, L7M_SETTLE_STALE);
    EXPECT_EQ(settle(ends, L7M_SETTLE_REMOVE, 1).result, L7M_SETTLE_TOOK);
    EXPECT_FALSE(plane_->maps.verdict(key_of(ends)));
  }
}

// A flow of one packet that goes on just now is not let go.
TEST_F(Candidates, TakesTheQuietOneThatWasRead) {
  ASSERT_NO_FATAL_FAILURE(make(8192));
  if (IsSkipped()) return;
  for (const bool v6 : {false, true}) {
    const Endpoints ends = ends_of(1, v6);
    ingress(segment(ends, kSyn));
    l7m_settlement step{};
    step.key = key_of(ends).raw;
    step.flow_id = life(ends);
    step.step = L7M_SETTLE_TAKE_QUIET;
    step.candidate.count = plane_->maps.candidate(key_of(ends))->count;
    ingress(segment(ends, kAck));
    ASSERT_TRUE(plane_->maps.settle({&step, 1}).ok());
    EXPECT_EQ(step.result, L7M_SETTLE_BUSY);
    EXPECT_EQ(step.candidate.count.packets[sender_of(ends)], 2U) << "it tells what there is now";
    EXPECT_EQ(life(ends), step.flow_id);
    ASSERT_TRUE(plane_->maps.settle({&step, 1}).ok());
    EXPECT_EQ(step.result, L7M_SETTLE_TOOK);
    EXPECT_FALSE(known(ends));
    EXPECT_EQ(settle(ends, L7M_SETTLE_TAKE_QUIET, step.flow_id).result, 0) << "it is gone";
  }
}

// More steps than a run takes, of all kinds.
TEST_F(Candidates, StepsByTheHundred) {
  ASSERT_NO_FATAL_FAILURE(make(8192));
  if (IsSkipped()) return;
  std::vector<l7m_settlement> steps(L7M_SETTLE_BATCH * 10 + 3);
  for (unsigned n = 0; n < steps.size(); ++n) {
    ingress(segment(ends_of(n), kSyn));
    steps[n].key = key_of(ends_of(n)).raw;
    steps[n].step = n % 2 == 0 ? L7M_SETTLE_DECIDE : L7M_SETTLE_TAKE;
    steps[n].flow_id = life(ends_of(n));
  }
  ASSERT_TRUE(plane_->maps.settle(steps).ok());
  for (unsigned n = 0; n < steps.size(); ++n) {
    EXPECT_EQ(steps[n].result, n % 2 == 0 ? L7M_SETTLE_WROTE | L7M_SETTLE_TOOK : L7M_SETTLE_TOOK);
    EXPECT_EQ(plane_->maps.verdict(key_of(ends_of(n))).has_value(), n % 2 == 0);
  }
  EXPECT_EQ(plane_->candidates(), 0U);
}

// Both directions of a flow may be seen first at once, on two CPUs: one of them begins it, and the
// other counts into what it finds.
TEST_F(Candidates, TwoCpusBeginOneFlow) {
  constexpr unsigned kRounds = 20'000;
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "needs two CPUs";
  ASSERT_NO_FATAL_FAILURE(make(65536));
  if (IsSkipped()) return;
  const int program = plane_->tc("l7mark_ingress");
  std::atomic<unsigned> begun[2] = {0, 0};
  const auto send = [&](unsigned cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    ASSERT_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
    for (unsigned n = 0; n < kRounds; ++n) {
      const Endpoints ends = ends_of(n);
      const Bytes packet = segment(cpu == 0 ? ends : ends.reversed(), kAck);
      begun[cpu] = n + 1;
      while (begun[1 - cpu] <= n) std::this_thread::yield();
      run_tc(program, packet);
    }
  };
  std::thread first(send, 0U), second(send, 1U);
  first.join();
  second.join();
  EXPECT_EQ(plane_->count(L7M_COUNT_NEW_FLOW), kRounds);
  std::size_t flows = 0, lost = 0;
  std::set<std::uint64_t> ids;
  ASSERT_TRUE(plane_->maps
                  .for_each_candidate([&](const FlowKey&, const l7m_candidate& candidate) {
                    ++flows;
                    ids.insert(candidate.flow_id);
                    lost += candidate.count.packets[0] != 1 || candidate.count.packets[1] != 1;
                  })
                  .ok());
  EXPECT_EQ(ids.size(), flows);
  EXPECT_EQ(flows, kRounds - evicted());
  EXPECT_EQ(lost, 0U) << "packets";
}

// Settings are written anew at every reload: candidates must be found where they were put.
TEST_F(Candidates, SecretsStay) {
  ASSERT_NO_FATAL_FAILURE(make(8192));
  if (IsSkipped()) return;
  for (unsigned n = 0; n < 100; ++n) ingress(segment(ends_of(n), kSyn));
  const auto before = plane_->maps.read_settings();
  ASSERT_TRUE(before.ok());
  const l7m_secrets none{};
  EXPECT_NE(std::memcmp(&before->secrets, &none, sizeof(none)), 0);
  plane_->set([](l7m_settings& settings) { settings.secrets.candidate[0] = 1; });
  const auto after = plane_->maps.read_settings();
  EXPECT_EQ(std::memcmp(&before->secrets, &after->secrets, sizeof(none)), 0);
  for (unsigned n = 0; n < 100; ++n) ingress(segment(ends_of(n), kAck, 1));
  EXPECT_EQ(plane_->count(L7M_COUNT_NEW_FLOW), 100U);
}

// CPUs that take places of one set, and give them back, at once: no flow has two, and no place has
// two flows.
TEST_F(Candidates, SetsBearContention) {
  ASSERT_NO_FATAL_FAILURE(make(L7M_WAYS));
  if (IsSkipped()) return;
  std::atomic<bool> stop = false;
  const int program = plane_->tc("l7mark_ingress");
  const auto begin = [&] {
    for (unsigned n = 0; !stop; ++n) run_tc(program, segment(ends_of(n % 12), kSyn));
  };
  std::thread first(begin), second(begin);
  std::size_t taken = 0, twice = 0, misplaced = 0;
  for (int round = 0; round < 3000; ++round) {
    const Endpoints ends = ends_of(static_cast<unsigned>(round) % 12);
    if ((settle(ends, L7M_SETTLE_TAKE, life(ends)).result & L7M_SETTLE_TOOK) != 0) ++taken;
    const __u32 zero = 0;
    l7m_candidate_set set{};
    ASSERT_EQ(bpf_map_lookup_elem_flags(plane_->maps.map_fd("candidates"), &zero, &set, BPF_F_LOCK),
              0);
    std::map<std::string, int> seen;
    for (unsigned i = 0; i < L7M_WAYS; ++i) {
      if (set.tag[i] == 0) continue;
      if ((set.tag[i] & L7M_TAG_PLACE) != i) ++misplaced;
      const auto* key = reinterpret_cast<const char*>(&set.place[i].key);
      if (seen[std::string(key, sizeof(l7m_key))]++ > 0) ++twice;
    }
  }
  stop = true;
  first.join();
  second.join();
  EXPECT_GT(taken, 0U);
  EXPECT_EQ(twice, 0U);
  EXPECT_EQ(misplaced, 0U);
}

}  // namespace
}  // namespace l7mark::test
