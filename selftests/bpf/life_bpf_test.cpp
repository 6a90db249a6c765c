// SPDX-License-Identifier: GPL-2.0-only
// What begins and ends a flow that has a verdict, and what has it looked at again. Whoever sends in
// another's name may do neither.
#include <gmock/gmock.h>

#include <vector>

#include "layers.hpp"
#include "program_run.hpp"

namespace l7mark::test {
namespace {

const Endpoints k4{"192.0.2.10", "198.51.100.20", 40000, 443};
const Endpoints k6{"2001:db8::10", "2001:db8:1::20", 40000, 443};
constexpr std::uint8_t kSyn = 0x02, kSynAck = 0x12, kAck = 0x10, kFin = 0x11, kRst = 0x04;
constexpr std::uint32_t kAction = 4;  // of a class, in state "undecided"
constexpr std::uint32_t kKept = kAction | L7M_STATE_PROVISIONAL;
constexpr std::uint16_t kBothFins = L7M_FLOW_FIN0 | L7M_FLOW_FIN1;

FlowKey key_of(const Endpoints& ends) {
  return flow_key(ends, L7M_PROTO_TCP);
}

Bytes segment(const Endpoints& ends, std::uint8_t flags, std::size_t payload = 0) {
  return ethernet(tcp(ends, flags, 1, 1, Bytes(payload, 0x41)));
}

// A frame of ethernet() with so many hops left.
Bytes with_hops(Bytes frame, unsigned hops) {
  frame[frame[12] == 0x86 ? 14 + 7 : 14 + 8] = static_cast<std::uint8_t>(hops);
  return frame;
}

class Life : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    DataplaneOptions options;
    options.flows = options.candidates = options.services = options.hints = 1024;
    options.ring_bytes = 65536;
    plane_ = Plane::make(options, why_);
  }
  static void TearDownTestSuite() { plane_.reset(); }

  void SetUp() override {
    if (!plane_) GTEST_SKIP() << why_;
    plane_->reset();
    plane_->act(0, l7m_action{});
    for (std::uint32_t state = 0; state < L7M_STATES; ++state) {
      l7m_action mark{};
      mark.mark = 0x80 | state;
      mark.mark_mask = 0xff;
      mark.flags = L7M_ACT_MARK;
      plane_->act(kAction | state, mark);
    }
  }

  static RunResult ran(RunResult run) {
    EXPECT_EQ(run.code, 0) << strerror(run.code);
    return run;
  }
  static RunResult ingress(const Bytes& packet, const Skb& skb = {}) {
    return ran(run_tc(plane_->tc("l7mark_ingress"), packet, skb));
  }
  static RunResult egress(const Bytes& packet) {
    return ran(run_tc(plane_->tc("l7mark_egress"), packet));
  }
  static RunResult xdp(const Bytes& packet) {
    return ran(run_xdp(plane_->xdp("l7mark_xdp_only"), packet));
  }

  static l7m_verdict verdict(const Endpoints& ends) {
    const auto found = plane_->maps.verdict(key_of(ends));
    EXPECT_TRUE(found);
    return found.value_or(l7m_verdict{});
  }
  static l7m_candidate candidate(const Endpoints& ends) {
    const auto found = plane_->maps.candidate(key_of(ends));
    EXPECT_TRUE(found);
    return found.value_or(l7m_candidate{});
  }
  static bool is_closing(const Endpoints& ends) {
    const l7m_verdict v = verdict(ends);
    return l7m_is_closing(&v) != 0;
  }

  // As Plane::decide() does, to be looked at again at a packet's number.
  static void decide(const FlowKey& key, std::uint16_t next_look) {
    VerdictEntry entry;
    entry.key = key;
    entry.verdict.action = kAction | L7M_STATE_GUESSED;
    entry.verdict.state = L7M_STATE_GUESSED;
    entry.verdict.flow_id = 77;
    entry.verdict.next_look = next_look;
    entry.verdict.initiator = 1;
    entry.verdict.flags = L7M_FLOW_ANSWER;
    entry.verdict.hop_limit[0] = entry.verdict.hop_limit[1] = 64;
    entry.verdict.sides = static_cast<std::uint8_t>(l7m_side_of(kRunIndex, 0) * 0x11);
    plane_->decide(entry);
  }

  static inline std::unique_ptr<Plane> plane_;
  static inline std::string why_;
};

// --- FIN and RST -----------------------------------------------------------------------------

TEST_F(Life, EndsWithAnyOtherHopLimitChangeNothing) {
  for (const bool at_xdp : {false, true}) {
    for (const Endpoints& ends : {k4, k6}) {
      for (const std::uint8_t flags : {kRst, kFin}) {
        plane_->reset();
        plane_->decide(key_of(ends), kAction);
        for (unsigned hops = 0; hops < 256; ++hops) {
          if (hops == 64) continue;
          const Bytes packet = with_hops(segment(ends, flags), hops);
          at_xdp ? xdp(packet) : ingress(packet);
          at_xdp ? xdp(with_hops(segment(ends.reversed(), flags), hops))
                 : ingress(with_hops(segment(ends.reversed(), flags), hops));
        }
        const l7m_verdict v = verdict(ends);
        EXPECT_EQ(v.flags, L7M_FLOW_FORGED);
        EXPECT_EQ(v.action, kAction);
        EXPECT_FALSE(l7m_is_closing(&v));
        EXPECT_EQ(plane_->count(L7M_COUNT_FORGED), 510U);
        EXPECT_TRUE(plane_->records().empty());
      }
    }
  }
}

TEST_F(Life, EndsFromElsewhereChangeNothing) {
  plane_->decide(key_of(k4), kAction);
  egress(segment(k4, kRst));
  EXPECT_EQ(verdict(k4).flags, L7M_FLOW_FORGED) << "the other direction";
  VerdictEntry entry{key_of(k6), verdict(k4)};
  entry.verdict.flags = 0;
  entry.verdict.sides = static_cast<std::uint8_t>(l7m_side_of(kRunIndex + 1, 0) * 0x11);
  plane_->decide(entry);
  ingress(segment(k6, kRst));
  ingress(segment(k6.reversed(), kFin));
  EXPECT_EQ(verdict(k6).flags, L7M_FLOW_FORGED) << "another interface";
  entry.verdict.sides = 0;
  plane_->decide(entry);
  ingress(segment(k6, kRst));
  EXPECT_EQ(verdict(k6).flags, L7M_FLOW_FORGED) << "of an endpoint that was never seen";
  EXPECT_EQ(plane_->count(L7M_COUNT_FORGED), 4U);
}

// A reset may be a good guess: what the flow goes on to say takes it back.
TEST_F(Life, AnyPacketAfterAResetRestoresTheFlow) {
  for (const Endpoints& ends : {k4, k6}) {
    plane_->decide(key_of(ends), kAction);
    for (int i = 0; i < 5; ++i) ingress(segment(ends, kAck, 10), {.segments = 3});
    ingress(segment(ends.reversed(), kRst));
    EXPECT_TRUE(is_closing(ends));
    ingress(segment(ends, kAck));
    EXPECT_FALSE(is_closing(ends));
    // The reset is forgotten: half closed is open.
    ingress(segment(ends, kFin));
    EXPECT_FALSE(is_closing(ends));
    EXPECT_EQ(verdict(ends).flags, sender_of(ends) ? L7M_FLOW_FIN1 : L7M_FLOW_FIN0);
    ingress(segment(ends.reversed(), kFin));
    EXPECT_TRUE(is_closing(ends));
  }
  EXPECT_EQ(plane_->count(L7M_COUNT_FORGED), 0U);
}

TEST_F(Life, TheLastAcksAreNoMore) {
  plane_->decide(key_of(k4), kAction);
  ingress(segment(k4, kFin));
  ingress(segment(k4.reversed(), kFin));
  for (unsigned i = 0; i < L7M_LAST_ACKS; ++i) {
    ingress(segment(i % 2 ? k4 : k4.reversed(), kAck));
    EXPECT_TRUE(is_closing(k4));
  }
  ingress(segment(k4, kAck));
  EXPECT_FALSE(is_closing(k4));
}

TEST_F(Life, ACandidateKnowsWhereItsEndpointsAre) {
  ingress(with_hops(segment(k4, kSyn), 63));
  egress(with_hops(segment(k4.reversed(), kSynAck), 200));
  plane_->records();
  const unsigned sender = sender_of(k4);
  const std::uint32_t in = l7m_side_of(kRunIndex, 0), out = l7m_side_of(kRunIndex, 1);
  EXPECT_EQ(candidate(k4).hop_limit[sender], 63);
  EXPECT_EQ(candidate(k4).hop_limit[1 - sender], 200);
  EXPECT_EQ(candidate(k4).sides, in << sender * 4 | out << (1 - sender) * 4);
  // Neither a notice nor a flag but one.
  ingress(with_hops(segment(k4, kRst), 62));
  ingress(with_hops(segment(k4.reversed(), kRst), 200));
  egress(with_hops(segment(k4, kFin), 63));
  EXPECT_EQ(candidate(k4).flags, L7M_FLOW_FORGED);
  EXPECT_TRUE(plane_->records().empty());
  EXPECT_EQ(plane_->count(L7M_COUNT_FORGED), 3U);
  EXPECT_EQ(plane_->count(L7M_COUNT_NOTICES), 0U);

  std::vector<l7m_settlement> steps(1);
  const FlowKey key = key_of(k4);
  steps[0].key = key.raw;
  steps[0].flow_id = candidate(k4).flow_id;
  steps[0].step = L7M_SETTLE_DECIDE;
  const l7m_candidate before = candidate(k4);
  ASSERT_TRUE(plane_->maps.settle(steps).ok());
  const l7m_verdict v = verdict(k4);
  EXPECT_EQ(v.sides, before.sides);
  EXPECT_EQ(v.hop_limit[sender], 63);
  EXPECT_EQ(v.hop_limit[1 - sender], 200);
  egress(with_hops(segment(k4.reversed(), kRst), 200));
  EXPECT_TRUE(is_closing(k4));
}

TEST_F(Life, ACandidateGoesOnAfterAReset) {
  ingress(segment(k4, kSyn));
  ingress(segment(k4.reversed(), kRst));
  EXPECT_EQ(candidate(k4).flags, L7M_FLOW_RST);
  ingress(segment(k4.reversed(), kRst));
  EXPECT_EQ(candidate(k4).flags, L7M_FLOW_RST);
  EXPECT_EQ(plane_->count(L7M_COUNT_NOTICES), 1U);
  ingress(segment(k4, kAck));
  EXPECT_EQ(candidate(k4).flags, 0);
  // After both FINs come ACKs; data says that they were not the last.
  ingress(segment(k4, kFin));
  ingress(segment(k4.reversed(), kFin));
  ingress(segment(k4, kAck));
  EXPECT_EQ(candidate(k4).flags, kBothFins);
  ingress(segment(k4, kAck, 5));
  EXPECT_EQ(candidate(k4).flags, 0);
}

// --- SYN -------------------------------------------------------------------------------------

TEST_F(Life, AForgedSynKeepsVerdictAndClass) {
  for (const bool reset_before : {false, true}) {
    plane_->reset();
    plane_->decide(key_of(k4), kAction);
    for (unsigned hops = 0; hops < 256; ++hops) {
      if (hops == 64) continue;
      if (reset_before) ingress(with_hops(segment(k4, kRst), hops));
      EXPECT_EQ(ingress(with_hops(segment(k4, kSyn), hops)).skb.mark, 0x80U);
    }
    EXPECT_EQ(ingress(segment(k4, kAck, 10)).skb.mark, 0x80U);
    EXPECT_EQ(verdict(k4).flow_id, 1U);
    EXPECT_EQ(verdict(k4).next_look, 0U);
    EXPECT_EQ(plane_->candidates(), 0U);
    EXPECT_TRUE(plane_->records().empty());
    EXPECT_EQ(plane_->count(L7M_COUNT_FORGED), reset_before ? 510U : 255U);
  }
}

// The client may have begun anew after a death that nobody saw: then the server takes its SYN.
TEST_F(Life, ASynOnAnOpenFlowHasToBeAnswered) {
  for (const Endpoints& ends : {k4, k6}) {
    plane_->reset();
    plane_->decide(key_of(ends), kAction | L7M_STATE_FINAL);
    constexpr std::uint32_t kFinal = 0x80U | L7M_STATE_FINAL;
    EXPECT_EQ(ingress(segment(ends.reversed(), kSynAck)).skb.mark, kFinal) << "to no SYN";
    EXPECT_EQ(ingress(segment(ends, kSyn)).skb.mark, kFinal);
    EXPECT_EQ(ingress(segment(ends, kSynAck)).skb.mark, kFinal) << "by the same endpoint";
    EXPECT_EQ(ingress(segment(ends.reversed(), kAck)).skb.mark, kFinal) << "a challenge";
    EXPECT_EQ(ingress(segment(ends, kAck, 10)).skb.mark, kFinal);
    EXPECT_EQ(plane_->count(L7M_COUNT_FORGED), 0U);
    EXPECT_EQ(egress(segment(ends.reversed(), kSynAck)).skb.mark, kFinal) << "from elsewhere";
    EXPECT_EQ(ingress(with_hops(segment(ends.reversed(), kSynAck), 63)).skb.mark, kFinal);
    EXPECT_EQ(plane_->count(L7M_COUNT_FORGED), 2U);
    EXPECT_EQ(verdict(ends).flow_id, 1U);
    EXPECT_TRUE(plane_->records().empty());
    EXPECT_EQ(ingress(segment(ends.reversed(), kSynAck)).skb.mark, 0x80U | L7M_STATE_PROVISIONAL);
    EXPECT_FALSE(plane_->maps.verdict(key_of(ends)));
    const l7m_candidate c = candidate(ends);
    EXPECT_NE(c.flow_id, 1U);
    EXPECT_EQ(c.action, kKept);
    EXPECT_EQ(c.flags, L7M_FLOW_KEPT | L7M_FLOW_ANSWER);
    EXPECT_EQ(plane_->count(L7M_COUNT_REOPENED), 1U);
  }
}

TEST_F(Life, ANewLifeKeepsTheClassOfTheLast) {
  for (const bool at_xdp : {false, true}) {
    for (const Endpoints& ends : {k4, k6}) {
      plane_->reset();
      plane_->decide(key_of(ends), kAction | L7M_STATE_FINAL);
      ingress(segment(ends, kRst));
      if (at_xdp)
        xdp(segment(ends, kSyn));
      else
        EXPECT_EQ(ingress(segment(ends, kSyn)).skb.mark, 0x80U | L7M_STATE_PROVISIONAL);
      EXPECT_FALSE(plane_->maps.verdict(key_of(ends)));
      const l7m_candidate c = candidate(ends);
      EXPECT_NE(c.flow_id, 1U);
      EXPECT_EQ(c.action, kKept);
      EXPECT_EQ(c.state, L7M_STATE_PROVISIONAL);
      EXPECT_EQ(c.flags, L7M_FLOW_KEPT);
      const auto records = plane_->records();
      ASSERT_EQ(records.size(), 2U);
      EXPECT_EQ(records[0].head.type, L7M_RECORD_REOPEN);
      EXPECT_EQ(records[0].head.flow_id, 1U);
      EXPECT_EQ(records[1].head.flow_id, c.flow_id);
      EXPECT_EQ(plane_->count(L7M_COUNT_REOPENED), 1U);
    }
  }
  // The scratch entry keeps nothing of it for the next flow.
  Endpoints other = k4;
  other.sport = 40001;
  ingress(segment(other, kSyn));
  EXPECT_EQ(candidate(other).action, 0U);
  EXPECT_EQ(candidate(other).flags, 0);
}

TEST_F(Life, AVerdictByHandHasOneLife) {
  plane_->decide(key_of(k4), kAction);
  VerdictEntry entry{key_of(k4), verdict(k4)};
  entry.verdict.flow_id = 0;
  plane_->decide(entry);
  ingress(segment(k4, kRst));
  EXPECT_EQ(ingress(segment(k4, kSyn)).skb.mark, 0x80U);
  EXPECT_EQ(ingress(segment(k4, kAck, 10)).skb.mark, 0x80U);
  EXPECT_EQ(verdict(k4).flow_id, 0U);
  EXPECT_TRUE(plane_->records().empty());
}

// --- the second look -------------------------------------------------------------------------

TEST_F(Life, IsLookedAtAgainExactlyAtThePacketOfThatNumber) {
  for (const bool at_xdp : {false, true}) {
    for (const Endpoints& ends : {k4, k6}) {
      for (const bool options : {false, true}) {
        for (const unsigned number : {1U, 16U, 32U, 64U, 1024U}) {
          SCOPED_TRACE(number);
          plane_->reset();
          decide(key_of(ends), static_cast<std::uint16_t>(number));
          const Bytes plain = tcp(ends, kAck, 1, 1, Bytes(10, 0x41));
          const Bytes other = segment(ends.reversed(), kAck, 10);
          Bytes packet = ethernet(plain);
          if (options)
            packet = ethernet(ends.source == k4.source ? with_options(plain, 1)
                                                       : extended(plain, {hop_by_hop()}));
          const auto send = [&](const Bytes& what) { at_xdp ? xdp(what) : ingress(what); };
          for (unsigned i = 1; i < number; ++i) {
            send(packet);
            if (i % 2) send(other);
          }
          ASSERT_TRUE(plane_->maps.verdict(key_of(ends)));
          ASSERT_TRUE(plane_->records().empty());
          send(packet);
          EXPECT_FALSE(plane_->maps.verdict(key_of(ends)));
          const l7m_candidate c = candidate(ends);
          EXPECT_EQ(c.flow_id, 77U);
          EXPECT_EQ(c.action, kAction | L7M_STATE_GUESSED);
          EXPECT_EQ(c.state, L7M_STATE_GUESSED);
          EXPECT_EQ(c.flags, L7M_FLOW_AGAIN | L7M_FLOW_ANSWER);
          EXPECT_EQ(c.initiator, 1);
          EXPECT_EQ(c.packets, 8);
          EXPECT_EQ(c.sampled, 1);
          EXPECT_EQ(c.hop_limit[0], 64);
          EXPECT_EQ(c.count.packets[sender_of(ends)], 1U);
          const auto records = plane_->records();
          ASSERT_EQ(records.size(), 2U);
          EXPECT_EQ(records[0].head.type, L7M_RECORD_REOPEN);
          EXPECT_EQ(records[0].head.flow_id, 77U);
          EXPECT_EQ(records[0].head.candidate_flags, L7M_FLOW_AGAIN | L7M_FLOW_ANSWER);
          EXPECT_EQ(records[0].head.count.packets[sender_of(ends)], number - 1);
          EXPECT_EQ(records[0].head.count.packets[1 - sender_of(ends)], number / 2);
          EXPECT_EQ(records[1].head.type, L7M_RECORD_SAMPLE);
          EXPECT_EQ(records[1].head.flags, L7M_SAMPLE_FIRST);
          EXPECT_EQ(records[1].head.flow_id, 77U);
          EXPECT_EQ(records[1].data.size(), packet.size());
          EXPECT_EQ(plane_->count(L7M_COUNT_LOOKED_AGAIN), 1U);
          EXPECT_EQ(plane_->count(L7M_COUNT_NEW_FLOW), 0U);
        }
      }
    }
  }
}

TEST_F(Life, AGroPacketMaySkipTheNumber) {
  decide(key_of(k4), 16);
  ingress(segment(k4, kAck, 3000), {.segments = 14});
  ingress(segment(k4, kAck, 3000), {.segments = 5});
  EXPECT_EQ(verdict(k4).count.packets[sender_of(k4)], 19U);
  ingress(segment(k4, kAck, 3000), {.segments = 2});
  EXPECT_FALSE(plane_->maps.verdict(key_of(k4)));
  EXPECT_EQ(candidate(k4).count.packets[sender_of(k4)], 2U);
}

TEST_F(Life, IsNeverLookedAtAgainWithoutANumber) {
  decide(key_of(k4), 0);
  for (unsigned i = 0; i < 10; ++i) ingress(segment(k4, kAck, 10), {.segments = 60000});
  EXPECT_EQ(verdict(k4).count.packets[sender_of(k4)], 600000U);
  EXPECT_TRUE(plane_->records().empty());
}

TEST_F(Life, ABareAckIsNotLookedAt) {
  decide(key_of(k4), 1);
  for (unsigned i = 0; i < 3; ++i)
    EXPECT_EQ(ingress(segment(k4, kAck)).skb.mark, 0x80U | L7M_STATE_GUESSED);
  EXPECT_EQ(verdict(k4).count.packets[sender_of(k4)], 3U);
  EXPECT_TRUE(plane_->records().empty());
  ingress(segment(k4, kAck, 1));
  EXPECT_FALSE(plane_->maps.verdict(key_of(k4)));
}

TEST_F(Life, UdpIsLookedAtAgain) {
  const FlowKey key = flow_key(k4, L7M_PROTO_UDP);
  decide(key, 2);
  const Bytes packet = ethernet(udp(k4, Bytes(20, 1)));
  ingress(packet);
  EXPECT_TRUE(plane_->maps.verdict(key));
  EXPECT_EQ(ingress(packet).skb.mark, 0x80U | L7M_STATE_GUESSED);
  EXPECT_FALSE(plane_->maps.verdict(key));
  EXPECT_EQ(plane_->maps.candidate(key)->flow_id, 77U);
}

// Userspace would go by a verdict that is gone.
TEST_F(Life, IsNotLookedAtWhereNobodyWouldHearOfIt) {
  plane_->set([](l7m_settings& settings) { settings.flags |= L7M_SET_PAUSED; });
  decide(key_of(k4), 1);
  ingress(segment(k4, kAck, 10));
  EXPECT_EQ(verdict(k4).count.packets[sender_of(k4)], 1U);
  plane_->set([](l7m_settings& settings) {
    settings.flags = 0;
    settings.packets = settings.whole = settings.whole_plain = 254;
  });
  for (unsigned i = 0; i < 200 && plane_->count(L7M_COUNT_RING_FULL) == 0; ++i)
    ingress(segment(k6, kAck, 1400));
  ASSERT_EQ(plane_->count(L7M_COUNT_RING_FULL), 1U);
  // What tells of a look is small, and may find room where that did not.
  Endpoints other = k4;
  do {
    ++other.sport;
    decide(key_of(other), 1);
    EXPECT_EQ(ingress(segment(other, kAck, 10)).skb.mark, 0x80U | L7M_STATE_GUESSED);
  } while (!plane_->maps.verdict(key_of(other)) && other.sport < 41000);
  EXPECT_EQ(verdict(other).count.packets[sender_of(other)], 1U);
  EXPECT_FALSE(plane_->maps.candidate(key_of(other)));
  plane_->records();
  ingress(segment(other, kAck, 10));
  EXPECT_FALSE(plane_->maps.verdict(key_of(other)));
}

}  // namespace
}  // namespace l7mark::test
