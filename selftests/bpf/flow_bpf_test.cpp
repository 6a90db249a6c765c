// SPDX-License-Identifier: GPL-2.0-only
// What the programs in the kernel do with flows: verdicts, candidates, samples, promises, edits.
// Packet in, answer and map state out.
#include <gmock/gmock.h>

#include <ctime>

#include "layers.hpp"
#include "program_run.hpp"

namespace l7mark::test {
namespace {

const Endpoints k4{"192.0.2.10", "198.51.100.20", 40000, 443};
const Endpoints k6{"2001:db8::10", "2001:db8:1::20", 40000, 443};
constexpr std::uint8_t kSyn = 0x02, kSynAck = 0x12, kAck = 0x10, kFin = 0x11, kRst = 0x04;
constexpr auto kUnspec = static_cast<std::uint32_t>(TC_ACT_UNSPEC);
constexpr auto kShot = static_cast<std::uint32_t>(TC_ACT_SHOT);
constexpr std::uint32_t kAction = 4;

Bytes segment(const Endpoints& ends, std::uint8_t flags, std::size_t payload = 0) {
  return ethernet(tcp(ends, flags, 1, 1, Bytes(payload, 0x41)));
}

FlowKey key_of(const Endpoints& ends) {
  return flow_key(ends, L7M_PROTO_TCP);
}

// An l7m_action, of which a case names what it is about.
struct Does {
  std::uint32_t mark = 0;
  std::uint32_t mark_mask = 0;
  std::uint32_t priority = 0;
  std::uint32_t classid = 0;
  std::uint8_t dscp = 0;
  std::uint8_t flags = 0;
  operator l7m_action() const {  // NOLINT: implicit
    l7m_action out{};
    out.mark = mark;
    out.mark_mask = mark_mask;
    out.priority = priority;
    out.classid = classid;
    out.dscp = dscp;
    out.flags = flags;
    return out;
  }
};

class Flow : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    DataplaneOptions options;
    options.flows = options.candidates = options.services = options.hints = 1024;
    options.ring_bytes = 65536;
    options.rings = 2;
    plane_ = Plane::make(options, why_);
  }
  static void TearDownTestSuite() { plane_.reset(); }

  void SetUp() override {
    if (!plane_) GTEST_SKIP() << why_;
    plane_->reset();
    plane_->set([](l7m_settings& settings) { settings.rings = 1; });
    plane_->act(0, l7m_action{});
    plane_->act(kAction, l7m_action{});
  }

  RunResult ingress(const Bytes& packet, const Skb& skb = {}) {
    return ran(run_tc(plane_->tc("l7mark_ingress"), packet, skb));
  }
  RunResult egress(const Bytes& packet, const Skb& skb = {}) {
    return ran(run_tc(plane_->tc("l7mark_egress"), packet, skb));
  }
  RunResult xdp(const Bytes& packet) {
    return ran(run_xdp(plane_->xdp("l7mark_xdp_only"), packet));
  }

  static std::uint32_t jiffies() {
    const auto clock = plane_->maps.clock();
    return clock ? static_cast<std::uint32_t>(clock->jiffies) : 0;
  }

  static RunResult ran(RunResult result) {
    EXPECT_EQ(result.code, 0);
    return result;
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

  static inline std::unique_ptr<Plane> plane_;
  static inline std::string why_;
};

// --- verdicts --------------------------------------------------------------------------------

TEST_F(Flow, HitCountsPerDirectionAndSamplesNothing) {
  for (const Endpoints& ends : {k4, k6}) {
    plane_->decide(key_of(ends), 0);
    const Bytes there = segment(ends, kAck, 100), back = segment(ends.reversed(), kAck, 7);
    const std::uint32_t before = jiffies();
    EXPECT_EQ(ingress(there).answer, kUnspec);
    EXPECT_EQ(egress(back).answer, kUnspec);
    EXPECT_EQ(xdp(there).answer, static_cast<std::uint32_t>(XDP_PASS));
    const l7m_verdict v = verdict(ends);
    const unsigned sender = sender_of(ends);
    EXPECT_EQ(v.count.packets[sender], 2U);
    EXPECT_EQ(v.count.packets[1 - sender], 1U);
    EXPECT_EQ(v.count.bytes[sender], 2 * there.size());
    EXPECT_EQ(v.count.bytes[1 - sender], back.size());
    EXPECT_LE(v.last_seen - before, jiffies() - before);
    EXPECT_FALSE(plane_->maps.candidate(key_of(ends)));
  }
  EXPECT_TRUE(plane_->records().empty());
  EXPECT_EQ(plane_->count(L7M_COUNT_NEW_FLOW), 0U);
}

// Same flow with and without what the hot path leaves to the slow one.
TEST_F(Flow, BothPathsCountAlike) {
  const Bytes plain4 = tcp(k4, kAck, 1, 1, Bytes(50, 1)),
              plain6 = tcp(k6, kAck, 1, 1, Bytes(50, 1));
  const std::vector<Bytes> slow4 = {ethernet(with_options(plain4, 2)),
                                    tagged({{0x88a8, 2}, {0x8100, 1}}, plain4), pppoe(plain4)};
  const std::vector<Bytes> slow6 = {ethernet(extended(plain6, {hop_by_hop()})), snap(plain6)};
  plane_->act(kAction, Does{.mark = 0x85, .mark_mask = 0xff, .flags = L7M_ACT_MARK});
  const auto check = [&](const Endpoints& ends, const Bytes& fast, const std::vector<Bytes>& slow) {
    for (const bool at_xdp : {false, true}) {
      plane_->decide(key_of(ends), kAction);
      std::uint64_t bytes = fast.size();
      at_xdp ? xdp(fast) : ingress(fast);
      for (const Bytes& packet : slow) {
        const RunResult run = at_xdp ? xdp(packet) : ingress(packet);
        if (!at_xdp) {
          EXPECT_EQ(run.skb.mark, 0x85U);
        }
        bytes += packet.size();
      }
      const l7m_verdict v = verdict(ends);
      EXPECT_EQ(v.count.packets[sender_of(ends)], 1 + slow.size());
      EXPECT_EQ(v.count.bytes[sender_of(ends)], bytes);
      EXPECT_EQ(v.count.packets[1 - sender_of(ends)], 0U);
    }
  };
  check(k4, ethernet(plain4), slow4);
  check(k6, ethernet(plain6), slow6);
  EXPECT_EQ(plane_->count(L7M_COUNT_NEW_FLOW), 0U);
}

// IPv6 with IPv4's addresses, as any host can make it: neither marked as IPv4's flow nor counted in
// it.
TEST_F(Flow, MappedAddressesAreNotThoseOfIpv4) {
  const Endpoints mapped{"::ffff:192.0.2.10", "::ffff:198.51.100.20", 40000, 443};
  plane_->act(kAction, Does{.mark = 0x85, .mark_mask = 0xff, .flags = L7M_ACT_MARK});
  plane_->decide(key_of(k4), kAction);
  ASSERT_EQ(ingress(segment(k4, kAck, 10)).skb.mark, 0x85U);
  const Bytes extension = ethernet(extended(tcp(mapped, kAck, 1, 1, Bytes(10, 1)), {hop_by_hop()}));
  unsigned sent = 0;
  for (const Bytes& packet : {segment(mapped, kAck, 10), segment(mapped.reversed(), kAck, 10),
                              segment(mapped, kSyn), segment(mapped, kRst), extension}) {
    EXPECT_EQ(ingress(packet).skb.mark, 0U);
    EXPECT_EQ(egress(packet).skb.mark, 0U);
    EXPECT_EQ(xdp(packet).answer, static_cast<std::uint32_t>(XDP_PASS));
    EXPECT_EQ(plane_->count(L7M_COUNT_MALFORMED), sent += 3);
  }
  const l7m_verdict v = verdict(k4);
  EXPECT_EQ(v.count.packets[0] + v.count.packets[1], 1U);
  EXPECT_EQ(v.flags & L7M_FLOW_CLOSING, 0);
  EXPECT_EQ(plane_->candidates(), 0U);
  EXPECT_TRUE(plane_->records().empty());
}

// A GRO packet counts as the segments it holds, each with its headers.
TEST_F(Flow, CountsSegments) {
  plane_->decide(key_of(k4), 0);
  const Bytes big = segment(k4, kAck, 3000);
  ingress(big, {.segments = 3});
  l7m_verdict v = verdict(k4);
  EXPECT_EQ(v.count.packets[sender_of(k4)], 3U);
  EXPECT_EQ(v.count.bytes[sender_of(k4)], big.size() + std::size_t{2 * 54});
  // On its way out the kernel has worked that out already.
  plane_->decide(key_of(k4), 0);
  egress(big, {.segments = 3, .wire_length = static_cast<std::uint32_t>(big.size()) + 108});
  v = verdict(k4);
  EXPECT_EQ(v.count.packets[sender_of(k4)], 3U);
  EXPECT_EQ(v.count.bytes[sender_of(k4)], big.size() + 108);
  // The slow path, by options in the header.
  plane_->decide(key_of(k4), 0);
  const Bytes options = ethernet(with_options(tcp(k4, kAck, 1, 1, Bytes(3000, 1)), 1));
  ingress(options, {.segments = 3});
  v = verdict(k4);
  EXPECT_EQ(v.count.packets[sender_of(k4)], 3U);
  EXPECT_EQ(v.count.bytes[sender_of(k4)], options.size() + std::size_t{2 * 58});
}

TEST_F(Flow, MarkWithinItsMaskOnly) {
  plane_->decide(key_of(k4), kAction);
  plane_->act(kAction, Does{.mark = 0x80, .mark_mask = 0xf0, .flags = L7M_ACT_MARK});
  const RunResult run = ingress(segment(k4, kAck, 1), {.mark = 0x12345678});
  EXPECT_EQ(run.answer, kUnspec);
  EXPECT_EQ(run.skb.mark, 0x12345688U);
  // No class: the mark of others stays.
  plane_->decide(key_of(k4), 0);
  EXPECT_EQ(ingress(segment(k4, kAck, 1), {.mark = 0x12345678}).skb.mark, 0x12345678U);
}

TEST_F(Flow, Drop) {
  plane_->act(kAction, Does{.flags = L7M_ACT_DROP});
  plane_->decide(key_of(k4), kAction);
  EXPECT_EQ(ingress(segment(k4, kAck, 1)).answer, kShot);
  EXPECT_EQ(egress(segment(k4, kFin, 1)).answer, kShot);
  EXPECT_EQ(xdp(segment(k4, kAck, 1)).answer, static_cast<std::uint32_t>(XDP_DROP));
  EXPECT_EQ(run_xdp(plane_->xdp("l7mark_xdp"), segment(k4, kAck, 1)).answer,
            static_cast<std::uint32_t>(XDP_DROP));
  EXPECT_EQ(plane_->count(L7M_COUNT_DROPPED), 4U);
  EXPECT_EQ(verdict(k4).count.packets[sender_of(k4)], 4U);
}

TEST_F(Flow, PriorityAndClass) {
  plane_->decide(key_of(k4), kAction);
  plane_->act(kAction, Does{.priority = 6, .flags = L7M_ACT_PRIORITY});
  EXPECT_EQ(ingress(segment(k4, kAck, 1), {.priority = 1}).skb.priority, 6U);
  // A classful qdisc reads its class from the priority.
  plane_->act(kAction, Does{.classid = 0x10010, .flags = L7M_ACT_CLASSID});
  EXPECT_EQ(ingress(segment(k4, kAck, 1), {.priority = 1}).skb.priority, 0x10010U);
  plane_->act(kAction,
              Does{.priority = 6, .classid = 0x10010, .flags = L7M_ACT_PRIORITY | L7M_ACT_CLASSID});
  EXPECT_EQ(ingress(segment(k4, kAck, 1)).skb.priority, 6U);
}

TEST_F(Flow, ClassifierForQdisc) {
  plane_->act(kAction, Does{.classid = 0x10010, .flags = L7M_ACT_CLASSID});
  plane_->decide(key_of(k4), kAction);
  const int program = plane_->tc("l7mark_classid");
  EXPECT_EQ(ran(run_tc(program, segment(k4, kAck, 1))).answer,
            static_cast<std::uint32_t>(TC_ACT_OK));
  EXPECT_EQ(ran(run_tc(program, segment(k6, kAck, 1))).answer, kUnspec);
  // Behind NAT the mark leads to the class.
  plane_->set([](l7m_settings& settings) { settings.mark_mask = 0xff; });
  ASSERT_TRUE(
      plane_->maps.set_marks(std::vector<std::pair<std::uint32_t, std::uint32_t>>{{0x85, kAction}})
          .ok());
  EXPECT_EQ(ran(run_tc(program, segment(k6, kAck, 1), {.mark = 0x7785})).answer,
            static_cast<std::uint32_t>(TC_ACT_OK));
  EXPECT_EQ(ran(run_tc(program, segment(k6, kAck, 1), {.mark = 0x7786})).answer, kUnspec);
  // It counts and samples nothing: an attached program has done so.
  EXPECT_EQ(verdict(k4).count.packets[sender_of(k4)], 0U);
  EXPECT_EQ(plane_->candidates(), 0U);
}

unsigned checksum(const Bytes& packet, std::size_t at) {
  unsigned sum = 0;
  for (std::size_t i = 0; i < 20; i += 2) sum += packet[at + i] * 256U + packet[at + i + 1];
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

TEST_F(Flow, DscpKeepsEcnAndTheChecksum) {
  plane_->act(kAction, Does{.dscp = 46, .flags = L7M_ACT_DSCP});
  plane_->decide(key_of(k4), kAction);
  plane_->decide(key_of(k6), kAction);
  for (unsigned ecn = 0; ecn < 4; ++ecn) {
    Bytes packet = tcp(k4, kAck, 1, 1, Bytes(3, 1));
    packet[1] = static_cast<std::uint8_t>(0x28 | ecn);
    const unsigned sum = ~checksum(packet, 0);
    packet[10] = static_cast<std::uint8_t>(sum >> 8);
    packet[11] = static_cast<std::uint8_t>(sum);
    for (const unsigned tag : {0U, 1U}) {
      const Bytes in = tag ? tagged({{0x8100, 7}}, packet) : ethernet(packet);
      const std::size_t at = tag ? 18 : 14;
      Bytes expected = in;
      expected[at + 1] = static_cast<std::uint8_t>(46U << 2 | ecn);
      const RunResult run = ingress(in);
      EXPECT_EQ(checksum(run.packet, at), 0xffffU);
      expected[at + 10] = run.packet[at + 10];
      expected[at + 11] = run.packet[at + 11];
      EXPECT_EQ(run.packet, expected);
    }
    Bytes six = segment(k6, kAck, 3);
    six[14] = static_cast<std::uint8_t>(0x60 | 0x2);  // traffic class 0x28, flow label 0x12345
    six[15] = static_cast<std::uint8_t>((8U | ecn) << 4 | 0x1);
    six[16] = 0x23;
    six[17] = 0x45;
    Bytes expected = six;
    const unsigned octet = 46U << 2 | ecn;
    expected[14] = static_cast<std::uint8_t>(0x60 | octet >> 4);
    expected[15] = static_cast<std::uint8_t>((octet & 15) << 4 | 0x1);
    EXPECT_EQ(ingress(six).packet, expected);
  }
  EXPECT_EQ(plane_->count(L7M_COUNT_DSCP_FAILED), 0U);
}

// Whatever is in front of the IP header, and whichever program finds the class.
TEST_F(Flow, DscpIsWrittenBehindEveryLinkLayer) {
  plane_->act(kAction, Does{.dscp = 46, .flags = L7M_ACT_DSCP});
  plane_->decide(key_of(k4), kAction);
  plane_->decide(key_of(k6), kAction);
  for (const Endpoints& ends : {k4, k6}) {
    const bool six = ends.source.find(':') != std::string::npos;
    const Bytes packet = tcp(ends, kAck, 1, 1, Bytes(3, 1));
    const std::vector<std::pair<std::size_t, Bytes>> frames = {
        {14, ethernet(packet)},
        {18, tagged({{0x8100, 7}}, packet)},
        {22, tagged({{0x88a8, 7}, {0x8100, 8}}, packet)},
        {22, snap(packet)},
        {22, pppoe(packet)},
        {22, mpls(2, packet)},
        {14, ethernet(six ? extended(packet, {routing()}) : with_options(packet, 2))},
    };
    for (const char* program : {"l7mark_ingress", "l7mark_egress", "l7mark_after_xdp"}) {
      for (const auto& [at, in] : frames) {
        SCOPED_TRACE(std::string(program) + ", header at " + std::to_string(at));
        Bytes expected = in;
        const RunResult run = ran(run_tc(plane_->tc(program), in));
        if (six) {
          expected[at] = 0x6b;
          expected[at + 1] = 0x80;
        } else {
          expected[at + 1] = 0xb8;
          expected[at + 10] = run.packet[at + 10];
          expected[at + 11] = run.packet[at + 11];
          EXPECT_NE(run.packet[at + 11], in[at + 11]);
        }
        EXPECT_EQ(run.packet, expected);
      }
    }
  }
  for (const char* program : {"l7mark_ingress_l3", "l7mark_egress_l3"}) {
    const Bytes in = tcp(k6, kAck, 1, 1, Bytes(3, 1));
    EXPECT_EQ(ran(run_tc(plane_->tc(program), in)).packet[1], 0x80U);
    EXPECT_EQ(ran(run_tc(plane_->tc(program), extended(in, {routing()}))).packet[1], 0x80U);
  }
  EXPECT_EQ(plane_->count(L7M_COUNT_DSCP_FAILED), 0U);
}

// The sum of a packet's bytes, which many network cards give, is right after a write.
TEST_F(Flow, DscpKeepsTheSumOfThePacket) {
  plane_->act(kAction, Does{.dscp = 46, .flags = L7M_ACT_DSCP});
  plane_->decide(key_of(k4), kAction);
  plane_->decide(key_of(k6), kAction);
  for (const Bytes& in : {segment(k4, kAck, 20), segment(k6, kAck, 20)}) {
    const RunResult run = run_tc(plane_->tc("l7mark_ingress"), in, {}, kWithSum);
    if (run.code == EINVAL) GTEST_SKIP() << "a run takes no packet with its sum before 6.16";
    EXPECT_EQ(run.code, 0) << strerror(run.code);
    EXPECT_NE(run.packet, in);
  }
}

// --- the end of a flow, and its next life ----------------------------------------------------

TEST_F(Flow, FinAndResetLeaveFlags) {
  for (const bool at_xdp : {false, true}) {
    const auto send = [&](const Bytes& packet) { at_xdp ? xdp(packet) : ingress(packet); };
    plane_->decide(key_of(k4), 0);
    const unsigned sender = sender_of(k4);
    send(segment(k4, kFin));
    EXPECT_EQ(verdict(k4).flags, sender ? L7M_FLOW_FIN1 : L7M_FLOW_FIN0);
    send(segment(k4.reversed(), kFin));
    EXPECT_EQ(verdict(k4).flags, L7M_FLOW_FIN0 | L7M_FLOW_FIN1);
    send(segment(k4.reversed(), kRst));
    EXPECT_EQ(verdict(k4).flags, L7M_FLOW_CLOSING);
    EXPECT_EQ(verdict(k4).count.packets[0] + verdict(k4).count.packets[1], 3U);
  }
  EXPECT_TRUE(plane_->records().empty());
}

TEST_F(Flow, SynOnAClosedFlowBeginsItAnew) {
  for (const Endpoints& ends : {k4, k6}) {
    plane_->decide(key_of(ends), kAction);
    ingress(segment(ends, kAck, 10));
    ingress(segment(ends, kSyn));
    ASSERT_TRUE(plane_->maps.verdict(key_of(ends))) << "an open flow's SYN is one of its packets";
    ingress(segment(ends, kFin));
    ingress(segment(ends.reversed(), kFin));
    EXPECT_TRUE(plane_->records().empty());
    const std::uint64_t bytes = verdict(ends).count.bytes[sender_of(ends)];
    ingress(segment(ends, kSyn));
    EXPECT_FALSE(plane_->maps.verdict(key_of(ends)));
    const auto records = plane_->records();
    ASSERT_EQ(records.size(), 2U);
    EXPECT_EQ(records[0].head.type, L7M_RECORD_REOPEN);
    EXPECT_EQ(records[0].head.captured, 0U);
    EXPECT_EQ(records[0].head.count.packets[sender_of(ends)], 3U);
    EXPECT_EQ(records[0].head.count.bytes[sender_of(ends)], bytes);
    EXPECT_EQ(records[0].head.flow_id, 1U) << "that of the life that is over";
    const FlowKey key = key_of(ends);
    EXPECT_EQ(std::memcmp(&records[0].head.key, &key.raw, sizeof(l7m_key)), 0);
    EXPECT_EQ(records[1].head.type, L7M_RECORD_SAMPLE);
    EXPECT_EQ(records[1].head.flags, L7M_SAMPLE_FIRST);
    EXPECT_EQ(records[1].head.flow_id, candidate(ends).flow_id);
    EXPECT_EQ(candidate(ends).count.packets[sender_of(ends)], 1U);
  }
  EXPECT_EQ(plane_->count(L7M_COUNT_REOPENED), 2U);
}

TEST_F(Flow, CandidateTellsOfItsEnd) {
  ingress(segment(k4, kSyn));
  plane_->records();
  // Half closed: the other side may go on.
  ingress(segment(k4, kFin));
  EXPECT_TRUE(plane_->records().empty());
  ingress(segment(k4.reversed(), kFin));
  auto records = plane_->records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].head.type, L7M_RECORD_NOTICE);
  EXPECT_EQ(records[0].head.flags, L7M_SAMPLE_FIN);
  EXPECT_EQ(records[0].head.captured, 0U);
  EXPECT_EQ(records[0].head.candidate_flags, L7M_FLOW_FIN0 | L7M_FLOW_FIN1);
  // The same again, a retransmission, says nothing new.
  ingress(segment(k4, kFin));
  EXPECT_TRUE(plane_->records().empty());
  EXPECT_EQ(candidate(k4).count.packets[0] + candidate(k4).count.packets[1], 4U);
  // A reset is enough by itself.
  ingress(segment(k6, kSyn));
  plane_->records();
  ingress(segment(k6.reversed(), kRst));
  records = plane_->records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].head.flags, L7M_SAMPLE_RST);
  EXPECT_EQ(plane_->count(L7M_COUNT_NOTICES), 2U);
}

TEST_F(Flow, FirstPacketTellsWhoBegan) {
  ingress(segment(k4, kSyn));
  EXPECT_EQ(candidate(k4).initiator, sender_of(k4));
  EXPECT_EQ(candidate(k4).flags, 0);
  ingress(segment(k6.reversed(), kSynAck));
  EXPECT_EQ(candidate(k6).initiator, 1 - sender_of(k6));
  EXPECT_EQ(candidate(k6).flags, L7M_FLOW_ANSWER);
  Endpoints other = k4;
  other.sport = 40001;
  ingress(segment(other, kAck, 1));
  EXPECT_EQ(candidate(other).flags, L7M_FLOW_MIDSTREAM);
}

// --- samples ---------------------------------------------------------------------------------

TEST_F(Flow, AFlowWithoutALimitIsSampledOn) {
  Endpoints ends = k4;
  ends.dport = 53;
  const FlowKey key = flow_key(ends, L7M_PROTO_UDP);
  ingress(ethernet(udp(ends, Bytes(600, 1))));
  std::vector<l7m_edit> edits(1);
  edits[0].key = key.raw;
  edits[0].flow_id = plane_->maps.candidate(key)->flow_id;
  edits[0].what = L7M_EDIT_PACKETS;
  edits[0].flow_id = plane_->maps.candidate(key)->flow_id;
  edits[0].packets = L7M_NO_LIMIT;
  ASSERT_TRUE(plane_->maps.edit(edits).ok());
  plane_->records();
  const Bytes packet = ethernet(udp(ends, Bytes(600, 2)));
  for (unsigned i = 0; i < 300; ++i) {
    ingress(packet);
    const auto records = plane_->records();
    ASSERT_EQ(records.size(), 1U) << i;
    EXPECT_EQ(records[0].head.flags, 0U) << "none is the last";
    EXPECT_EQ(records[0].data.size(), packet.size()) << "DNS is copied whole";
  }
  EXPECT_EQ(plane_->maps.candidate(key)->sampled, L7M_MAX_PACKETS);
}

TEST_F(Flow, TimesTheHandshake) {
  const FlowKey key = flow_key(k4, L7M_PROTO_TCP);
  ingress(segment(k4, kSyn));
  EXPECT_NE(plane_->maps.candidate(key)->stamp_us, 0U);
  egress(segment(k4.reversed(), kSyn | kAck));
  ingress(segment(k4, kAck));
  const auto candidate = plane_->maps.candidate(key);
  ASSERT_TRUE(candidate);
  EXPECT_NE(candidate->rtt_server_us, 0U);
  EXPECT_NE(candidate->rtt_client_us, 0U);
  EXPECT_LT(candidate->rtt_server_us, 60'000'000U);
  EXPECT_LT(candidate->rtt_client_us, 60'000'000U);
}

TEST_F(Flow, SamplesThePayloadPacketsAskedFor) {
  plane_->set([](l7m_settings& settings) {
    settings.packets = 3;
    settings.whole = 2;
    settings.snaplen = 100;
    settings.whole_snaplen = 300;
  });
  Endpoints ends = k4;
  for (const bool at_xdp : {false, true}) {
    const auto send = [&](const Bytes& packet) {
      at_xdp ? xdp(packet) : ingress(packet);
      return plane_->records();
    };
    auto records = send(segment(ends, kSyn));
    ASSERT_EQ(records.size(), 1U) << "the first packet, though it has no payload";
    EXPECT_EQ(records[0].head.flags, L7M_SAMPLE_FIRST);
    EXPECT_EQ(records[0].head.sampled, 0);
    EXPECT_EQ(send(segment(ends.reversed(), kSynAck)).size(), 0U) << "no payload";
    const Bytes big = segment(ends, kAck, 400);
    for (const unsigned n : {1U, 2U, 3U}) {
      records = send(big);
      ASSERT_EQ(records.size(), 1U);
      const std::size_t length = n == 3 ? 100 : 300;
      EXPECT_EQ(records[0].data, Bytes(big.begin(), big.begin() + static_cast<long>(length)));
      EXPECT_EQ(records[0].head.wire_length, big.size());
      EXPECT_EQ(records[0].head.l4_payload, 400);
      EXPECT_EQ(records[0].head.sampled, n);
      EXPECT_EQ(records[0].head.flags, n == 3 ? L7M_SAMPLE_LAST : 0);
      EXPECT_EQ(records[0].head.count.packets[sender_of(ends)], 1 + n);
      EXPECT_EQ(records[0].head.count.packets[1 - sender_of(ends)], 1U);
    }
    EXPECT_EQ(send(big).size(), 0U) << "exhausted";
    EXPECT_EQ(candidate(ends).sampled, 3);
    EXPECT_EQ(candidate(ends).count.packets[sender_of(ends)], 5U);
    ends.sport++;
  }
  EXPECT_EQ(plane_->count(L7M_COUNT_SAMPLED_PACKETS), 8U);
  EXPECT_EQ(plane_->count(L7M_COUNT_SAMPLED_BYTES), 2 * (54 + 300 + 300 + 100U));
}

// Where the first payload begins no handshake, less is wanted whole.
TEST_F(Flow, CutsSoonerWhereNoHandshakeBegan) {
  plane_->set([](l7m_settings& settings) {
    settings.whole = 3;
    settings.whole_plain = 1;
    settings.snaplen = 100;
  });
  const auto lengths = [&](const Endpoints& ends, std::uint8_t first) {
    std::vector<std::size_t> out;
    for (unsigned i = 0; i < 4; ++i) {
      Bytes payload(500, 0x41);
      if (i == 0) payload[0] = first;
      ingress(ethernet(tcp(ends, kAck, 1, 1, payload)));
      for (const Record& record : plane_->records()) out.push_back(record.data.size());
    }
    return out;
  };
  EXPECT_THAT(lengths(k4, 0x16), testing::ElementsAre(554, 554, 554, 100));
  Endpoints other = k4;
  other.sport = 40001;
  EXPECT_THAT(lengths(other, 'G'), testing::ElementsAre(554, 100, 100, 100));
}

// A DNS answer is read whole, whichever of its flow's packets it is.
TEST_F(Flow, DnsIsNotCut) {
  plane_->set([](l7m_settings& settings) {
    settings.whole = settings.whole_plain = 1;
    settings.snaplen = 100;
  });
  const auto last_length = [&](const Endpoints& ends) {
    std::vector<Record> records;
    for (unsigned i = 0; i < 3; ++i) {
      ingress(ethernet(udp(ends, Bytes(30, 1))));
      ingress(ethernet(udp(ends.reversed(), Bytes(400, 1))));
      records = plane_->records();
    }
    return records.empty() ? 0 : records.back().data.size();
  };
  Endpoints resolver = k4;
  resolver.dport = 53;
  EXPECT_EQ(last_length(resolver), 442U);
  resolver.dport = 54;
  EXPECT_EQ(last_length(resolver), 100U);
}

// XDP and TC say the same of the same packets, but for clocks and chance.
TEST_F(Flow, XdpSamplesAsTcDoes) {
  const std::vector<Bytes> packets = {
      segment(k4, kSyn),
      segment(k4.reversed(), kSynAck),
      ethernet(tcp(k4, kAck, 1, 1, client_hello("www.example.org"))),
      segment(k4.reversed(), kAck, 1400),
      segment(k6, kSyn),
      ethernet(with_options(tcp(k4, kAck, 1, 1, Bytes(600, 2)), 3)),
      tagged({{0x8100, 7}}, udp(k6, Bytes(200, 3))),
      ethernet(extended(udp(k6, Bytes(1200, 0xc0)), {hop_by_hop()})),
      segment(k4, kFin),
      segment(k4.reversed(), kFin),
  };
  std::vector<Record> seen[2];
  std::vector<l7m_candidate_counters> counts[2];
  for (const unsigned at_xdp : {0U, 1U}) {
    plane_->reset();
    plane_->set([](l7m_settings& settings) { settings.rings = 1; });
    for (const Bytes& packet : packets) at_xdp ? xdp(packet) : ingress(packet);
    seen[at_xdp] = plane_->records();
    for (const auto& key : {key_of(k4), key_of(k6), flow_key(k6, L7M_PROTO_UDP)}) {
      const auto c = plane_->maps.candidate(key);
      ASSERT_TRUE(c);
      counts[at_xdp].push_back(c->count);
    }
  }
  ASSERT_EQ(seen[0].size(), 8U);
  ASSERT_EQ(seen[1].size(), seen[0].size());
  for (std::size_t i = 0; i < seen[0].size(); ++i) {
    for (auto* records : {&seen[0], &seen[1]}) {
      (*records)[i].head.time_ns = 0;
      (*records)[i].head.flow_id = 0;
      (*records)[i].head.ifindex = 0;
    }
    EXPECT_EQ(std::memcmp(&seen[0][i].head, &seen[1][i].head, sizeof(l7m_sample)), 0) << i;
    EXPECT_EQ(seen[0][i].data, seen[1][i].data) << i;
  }
  for (std::size_t i = 0; i < counts[0].size(); ++i)
    EXPECT_EQ(std::memcmp(&counts[0][i], &counts[1][i], sizeof(counts[0][i])), 0) << i;
}

TEST_F(Flow, FullRingIsCountedAndTriedAgain) {
  plane_->set([](l7m_settings& s) { s.packets = s.whole = s.whole_plain = 255; });
  const Bytes packet = segment(k4, kAck, 1400);
  unsigned sent = 0;
  while (plane_->count(L7M_COUNT_RING_FULL) == 0 && sent < 200) {
    ingress(packet);
    ++sent;
  }
  ASSERT_LT(sent, 200U);
  EXPECT_EQ(candidate(k4).sampled, sent - 1) << "what was not taken is not counted as taken";
  // A new flow meets the full ring with its first packet.
  ingress(segment(k6, kAck, 1400));
  EXPECT_EQ(plane_->count(L7M_COUNT_RING_FULL), 2U);
  EXPECT_EQ(candidate(k6).first_sent, 0);
  EXPECT_EQ(candidate(k6).sampled, 0);
  EXPECT_EQ(plane_->records().size(), sent - 1);
  ingress(segment(k6, kAck, 1400));
  const auto records = plane_->records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].head.flags, L7M_SAMPLE_FIRST);
  EXPECT_EQ(records[0].head.count.packets[sender_of(k6)], 2U);
  EXPECT_EQ(candidate(k6).sampled, 1);
  EXPECT_EQ(candidate(k4).count.packets[sender_of(k4)], sent) << "packets are counted anyway";
}

TEST_F(Flow, PausedSamplesNothing) {
  plane_->set([](l7m_settings& settings) { settings.flags = L7M_SET_PAUSED; });
  ingress(segment(k4, kAck, 10));
  ingress(segment(k4, kAck, 10));
  EXPECT_TRUE(plane_->records().empty());
  EXPECT_EQ(plane_->count(L7M_COUNT_PAUSED), 2U);
  EXPECT_EQ(candidate(k4).sampled, 0);
  plane_->set([](l7m_settings& settings) { settings.flags = 0; });
  ingress(segment(k4, kAck, 10));
  const auto records = plane_->records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].head.flags, L7M_SAMPLE_FIRST);
}

// One id for each life, from its first packet: the CPU's number and a count.
TEST_F(Flow, EachLifeHasAnIdOfItsOwn) {
  std::set<std::uint64_t> ids;
  for (unsigned n = 0; n < 100; ++n) {
    Endpoints ends = n % 2 == 0 ? k4 : k6;
    ends.sport = static_cast<std::uint16_t>(2000 + n / 4);  // each comes twice
    if (n % 3 == 0)
      xdp(segment(ends, kSyn));
    else
      ingress(segment(ends, kSyn));
    const std::uint64_t id = candidate(ends).flow_id;
    EXPECT_TRUE(ids.insert(id).second) << id;
    EXPECT_NE(id, 0U);
    EXPECT_LT(id >> L7M_LIFE_CPU_SHIFT, std::thread::hardware_concurrency() + 1024U);
    for (const Record& record : plane_->records()) EXPECT_EQ(record.head.flow_id, id);
    plane_->clear_candidates();
  }
}

// A left-over candidate is another flow's; one that another CPU has just touched is not.
TEST_F(Flow, OldCandidatesAreLeftOver) {
  ingress(segment(k4, kSyn));
  const std::uint64_t id = candidate(k4).flow_id;
  l7m_candidate c = candidate(k4);
  c.last_seen = jiffies() + 50;  // by a CPU whose clock tick came first
  ASSERT_TRUE(plane_->maps.put_candidate(key_of(k4), c).ok());
  ingress(segment(k4, kAck, 10));
  EXPECT_EQ(candidate(k4).flow_id, id);
  EXPECT_EQ(candidate(k4).count.packets[sender_of(k4)], 2U);
  c.last_seen = jiffies() - 120'001;
  ASSERT_TRUE(plane_->maps.put_candidate(key_of(k4), c).ok());
  ingress(segment(k4, kAck, 10));
  EXPECT_NE(candidate(k4).flow_id, id);
  EXPECT_EQ(candidate(k4).count.packets[sender_of(k4)], 1U);
}

// All flows of a client go to one ring, whichever direction is seen first.
TEST_F(Flow, RingFollowsTheClient) {
  plane_->set([](l7m_settings& settings) { settings.rings = 2; });
  const auto inside = *Prefix::parse("192.0.2.0/24");
  const std::pair<Address, unsigned> prefix{inside.address, inside.length128()};
  ASSERT_TRUE(plane_->maps.set_inside({&prefix, 1}).ok());
  std::size_t chosen[2] = {0, 0};
  for (unsigned client = 1; client < 40; ++client) {
    std::size_t rings[2] = {0, 0};
    const auto send = [&](const Bytes& packet) {
      ingress(packet);
      for (const std::size_t ring : {0U, 1U}) rings[ring] += plane_->records(ring).size();
    };
    Endpoints ends{"192.0.2." + std::to_string(client), "198.51.100.20", 40000, 443};
    send(segment(ends, kSyn));
    ends.sport++;
    ends.destination = "198.51.100.21";
    send(segment(ends.reversed(), kSynAck));
    ends.sport++;
    send(segment(ends.reversed(), kAck, 1));
    ends.sport++;
    send(segment(ends, kAck, 1));
    ends.sport++;
    // A server inside: the client is still the endpoint inside.
    send(segment(ends, kSynAck));
    EXPECT_TRUE(rings[0] == 0 || rings[1] == 0) << client;
    ++chosen[rings[0] == 0 ? 1 : 0];
  }
  EXPECT_GT(chosen[0], 5U);
  EXPECT_GT(chosen[1], 5U);
}

TEST_F(Flow, UnknownRingIsCounted) {
  ingress(segment(k4, kSyn));
  plane_->records();
  l7m_candidate c = candidate(k4);
  c.ring = L7M_MAX_RINGS - 1;
  ASSERT_TRUE(plane_->maps.put_candidate(key_of(k4), c).ok());
  EXPECT_EQ(ingress(segment(k4, kAck, 10)).answer, kUnspec);
  EXPECT_EQ(plane_->count(L7M_COUNT_RING_MISSING), 1U);
}

// --- promises: marks on the first packet -----------------------------------------------------

class Promise : public Flow {
 protected:
  void SetUp() override {
    Flow::SetUp();
    if (!plane_) return;
    plane_->set([](l7m_settings& s) { s.flags = L7M_SET_SERVICES | L7M_SET_HINTS; });
    plane_->act(kAction, Does{.mark = 0x85, .mark_mask = 0xff, .flags = L7M_ACT_MARK});
  }

  static l7m_promise promise(int seconds) {
    const auto clock = plane_->maps.clock();
    l7m_promise out{};
    out.expires = clock->jiffies + static_cast<std::uint64_t>(seconds * 100);
    out.action = kAction;
    return out;
  }

  static void put_service(const Endpoints& ends, const l7m_promise& promise) {
    l7m_service_key key{};
    const Address server = *Address::parse(ends.destination);
    const Address client = *Address::parse(ends.source);
    std::memcpy(key.server, server.bytes.data(), 16);
    std::memcpy(key.client, client.bytes.data(), 16);
    key.port = __builtin_bswap16(ends.dport);
    key.protocol = L7M_PROTO_TCP;
    ASSERT_TRUE(plane_->maps.put_service(key, promise).ok());
  }
  static void put_hint(const std::string& server, const l7m_promise& promise,
                       const std::string& client = "::") {
    l7m_hint_key key{};
    const Address address = *Address::parse(server);
    const Address asked = *Address::parse(client);
    std::memcpy(key.server, address.bytes.data(), 16);
    std::memcpy(key.client, asked.bytes.data(), 16);
    ASSERT_TRUE(plane_->maps.put_hint(key, promise).ok());
  }
};

TEST_F(Promise, ServiceMarksTheFirstPacket) {
  for (const Endpoints& ends : {k4, k6}) {
    put_service(ends, promise(60));
    EXPECT_EQ(ingress(segment(ends, kSyn)).skb.mark, 0x85U);
    EXPECT_EQ(candidate(ends).state, L7M_STATE_PROVISIONAL);
    EXPECT_EQ(candidate(ends).flags, L7M_FLOW_SERVICE);
    EXPECT_EQ(egress(segment(ends.reversed(), kSynAck)).skb.mark, 0x85U);
    const auto records = plane_->records();
    ASSERT_EQ(records.size(), 1U);
    EXPECT_EQ(candidate(ends).action, kAction);
    EXPECT_EQ(records[0].head.candidate_flags, L7M_FLOW_SERVICE);
  }
  EXPECT_EQ(plane_->count(L7M_COUNT_BY_SERVICE), 2U);
  Endpoints other = k4;
  other.dport = 444;
  EXPECT_EQ(ingress(segment(other, kSyn)).skb.mark, 0U);
}

TEST_F(Promise, SeenFromTheServerOnlyWhereTheClientIsNotPlain) {
  put_service(k4, promise(60));
  // A SYN from the server's port to the client's is a flow the other way.
  EXPECT_EQ(ingress(segment(k4.reversed(), kSyn)).skb.mark, 0U);
  plane_->clear_candidates();
  EXPECT_EQ(ingress(segment(k4.reversed(), kSynAck)).skb.mark, 0x85U);
}

// Once a service and `recheck` jiffies.
TEST_F(Promise, OneFlowPassesADropNowAndThen) {
  plane_->act(kAction, Does{.flags = L7M_ACT_DROP});
  plane_->set([](l7m_settings& s) { s.recheck = 1'000'000; });
  l7m_promise blocked = promise(60);
  auto next = [port = k4.sport]() mutable {
    Endpoints ends = k4;
    ends.sport = ++port;
    return ends;
  };
  put_service(k4, blocked);  // without `next_pass` none does
  EXPECT_EQ(ingress(segment(next(), kSyn)).answer, kShot);
  blocked.next_pass = blocked.expires;
  put_service(k4, blocked);
  EXPECT_EQ(ingress(segment(next(), kSyn)).answer, kShot) << "not yet";
  blocked.next_pass = 1;
  put_service(k4, blocked);
  EXPECT_EQ(ingress(segment(next(), kAck, 10)).answer, kShot) << "no whole flow";
  const Endpoints probe = next();
  EXPECT_EQ(ingress(segment(probe, kSyn)).answer, kUnspec);
  EXPECT_EQ(candidate(probe).flags, L7M_FLOW_SERVICE | L7M_FLOW_PROBE);
  EXPECT_EQ(candidate(probe).state, L7M_STATE_UNDECIDED);
  EXPECT_EQ(ingress(segment(probe, kAck, 10)).answer, kUnspec);
  EXPECT_EQ(ingress(segment(next(), kSyn)).answer, kShot) << "one is enough";
  EXPECT_EQ(plane_->count(L7M_COUNT_PROBED), 1U);
  plane_->set([](l7m_settings& s) { s.recheck = 0; });
  put_service(k4, blocked);
  EXPECT_EQ(ingress(segment(next(), kSyn)).answer, kShot) << "turned off";
}

TEST_F(Promise, HintMarksTheFirstPacket) {
  put_hint(k4.destination, promise(60));
  put_hint(k6.destination, promise(60));
  for (const Endpoints& ends : {k4, k6}) {
    EXPECT_EQ(ingress(segment(ends, kSyn)).skb.mark, 0x85U);
    EXPECT_EQ(candidate(ends).flags, L7M_FLOW_HINT);
  }
  EXPECT_EQ(plane_->count(L7M_COUNT_BY_HINT), 2U);
}

TEST_F(Promise, HintsByClientAreThatClientsOnly) {
  plane_->set([](l7m_settings& settings) { settings.flags |= L7M_SET_CLIENT_HINTS; });
  for (const Endpoints& ends : {k4, k6}) {
    Endpoints other = ends;
    other.source = ends.source + "9";
    put_hint(ends.destination, promise(60), ends.source);
    EXPECT_EQ(ingress(segment(ends, kSyn)).skb.mark, 0x85U);
    EXPECT_EQ(ingress(segment(other, kSyn)).skb.mark, 0U);
    // One for every client is none.
    put_hint(other.destination, promise(60));
    other.sport++;
    EXPECT_EQ(ingress(segment(other, kSyn)).skb.mark, 0U);
    // Where nobody knows who the server is.
    Endpoints late = ends;
    late.sport++;
    EXPECT_EQ(ingress(segment(late.reversed(), kAck)).skb.mark, 0x85U);
  }
}

TEST_F(Promise, ExpiredOrSwitchedOffSaysNothing) {
  l7m_promise old = promise(0);
  put_service(k4, old);
  put_hint(k4.destination, old);
  EXPECT_EQ(ingress(segment(k4, kSyn)).skb.mark, 0U);
  EXPECT_EQ(candidate(k4).state, L7M_STATE_UNDECIDED);
  plane_->set([](l7m_settings& settings) { settings.flags = 0; });
  put_service(k6, promise(60));
  put_hint(k6.destination, promise(60));
  EXPECT_EQ(ingress(segment(k6, kSyn)).skb.mark, 0U);
  EXPECT_EQ(plane_->count(L7M_COUNT_BY_SERVICE) + plane_->count(L7M_COUNT_BY_HINT), 0U);
}

// --- fragments -------------------------------------------------------------------------------

TEST_F(Flow, LaterFragmentsFollowTheFirst) {
  plane_->act(kAction, Does{.mark = 0x85, .mark_mask = 0xff, .flags = L7M_ACT_MARK});
  plane_->decide(flow_key(k4, L7M_PROTO_UDP), kAction);
  plane_->decide(flow_key(k6, L7M_PROTO_UDP), kAction);
  Bytes later4 = ip(k4, L7M_PROTO_UDP, Bytes(40, 7));
  later4 = fragment4(later4, 9, 64, false);
  const Bytes later6 = extended(ip(k6, L7M_PROTO_UDP, Bytes(40, 7)), {fragment6(9, 64, false)});
  // Before the first: passed and counted.
  EXPECT_EQ(ingress(ethernet(later4)).skb.mark, 0U);
  EXPECT_EQ(ingress(ethernet(later6)).skb.mark, 0U);
  EXPECT_EQ(plane_->count(L7M_COUNT_FRAGMENT_UNKNOWN), 2U);
  EXPECT_EQ(plane_->candidates(), 0U);
  EXPECT_EQ(ingress(ethernet(fragment4(udp(k4, Bytes(56, 1)), 9, 0, true))).skb.mark, 0x85U);
  EXPECT_EQ(ingress(ethernet(extended(udp(k6, Bytes(56, 1)), {fragment6(9, 0, true)}))).skb.mark,
            0x85U);
  EXPECT_EQ(ingress(ethernet(later4)).skb.mark, 0x85U);
  EXPECT_EQ(ingress(ethernet(later6)).skb.mark, 0x85U);
  EXPECT_EQ(plane_->count(L7M_COUNT_FRAGMENT_FOLLOWED), 2U);
  EXPECT_EQ(plane_->maps.verdict(flow_key(k4, L7M_PROTO_UDP))->count.packets[sender_of(k4)], 2U);
  // Another datagram's is not this one's.
  EXPECT_EQ(ingress(ethernet(fragment4(later4, 10, 64, false))).skb.mark, 0U);
}

// The transport is found in the first fragment only: the others begin with what is behind it.
TEST_F(Flow, LaterFragmentsBehindDestinationOptionsFollowTheFirst) {
  plane_->act(kAction, Does{.mark = 0x85, .mark_mask = 0xff, .flags = L7M_ACT_MARK});
  plane_->decide(flow_key(k6, L7M_PROTO_UDP), kAction);
  const Bytes first =
      extended(udp(k6, Bytes(48, 1)), {fragment6(9, 0, true), destination_options()});
  const Bytes later = extended(ip(k6, 60, Bytes(40, 7)), {fragment6(9, 64, false)});
  EXPECT_EQ(ingress(ethernet(first)).skb.mark, 0x85U);
  EXPECT_EQ(ingress(ethernet(later)).skb.mark, 0x85U);
  EXPECT_EQ(plane_->count(L7M_COUNT_FRAGMENT_FOLLOWED), 1U);
  EXPECT_EQ(plane_->maps.verdict(flow_key(k6, L7M_PROTO_UDP))->count.packets[sender_of(k6)], 2U);
  // IPv4 tells datagrams of two protocols apart (RFC 791), and IPv6 does not (RFC 8200, 4.5).
  plane_->decide(flow_key(k4, L7M_PROTO_UDP), kAction);
  EXPECT_EQ(ingress(ethernet(fragment4(udp(k4, Bytes(56, 1)), 9, 0, true))).skb.mark, 0x85U);
  EXPECT_EQ(ingress(ethernet(fragment4(ip(k4, 6, Bytes(40, 7)), 9, 64, false))).skb.mark, 0U);
}

TEST_F(Flow, TinyFirstFragmentsOfADroppedFlowAreDropped) {
  plane_->act(kAction, Does{.flags = L7M_ACT_DROP});
  plane_->decide(key_of(k4), kAction);
  plane_->decide(key_of(k6), kAction);
  const Bytes four = tcp(k4, kAck, 1, 1, Bytes(20, 1)), six = tcp(k6, kAck, 1, 1, Bytes(20, 1));
  for (const std::size_t length : {8U, 16U}) {
    const auto part = [&](const Bytes& packet, std::size_t header) {
      const auto at = packet.begin() + static_cast<std::ptrdiff_t>(header);
      return Bytes(at, at + static_cast<std::ptrdiff_t>(length));
    };
    const Bytes first4 = ethernet(fragment4(ip(k4, 6, part(four, 20)), 9, 0, true));
    const Bytes first6 = ethernet(extended(ip(k6, 6, part(six, 40)), {fragment6(9, 0, true)}));
    for (const Bytes& first : {first4, first6}) {
      EXPECT_EQ(ingress(first).answer, kShot);
      EXPECT_EQ(xdp(first).answer, static_cast<std::uint32_t>(XDP_DROP));
    }
  }
  // And those behind them.
  const Bytes later = ethernet(fragment4(ip(k4, 6, Bytes(32, 1)), 9, 8, false));
  EXPECT_EQ(ingress(later).answer, kShot);
  EXPECT_EQ(xdp(later).answer, static_cast<std::uint32_t>(XDP_DROP));
}

// More extension headers than are followed, and ports that come in a later fragment: no flow is
// found, so they pass where nothing is dropped, and where something is they can't get around it.
TEST_F(Flow, HiddenPortsPassOnlyWhereNoClassDrops) {
  const Bytes packet = tcp(k6, kAck, 1, 1, Bytes(20, 1));
  const std::vector<Bytes> hidden = {
      ethernet(extended(packet, std::vector<Extension>(17, destination_options()))),
      ethernet(extended(packet, {destination_options(255)})),
      ethernet(extended(ip(k6, 6, {}), {fragment6(9, 0, true), destination_options()})),
  };
  const auto pass = static_cast<std::uint32_t>(XDP_PASS);
  const auto drop = static_cast<std::uint32_t>(XDP_DROP);
  for (const Bytes& in : hidden) {
    EXPECT_EQ(ingress(in).answer, kUnspec);
    EXPECT_EQ(egress(in).answer, kUnspec);
    EXPECT_EQ(xdp(in).answer, pass);
    EXPECT_EQ(ran(run_xdp(plane_->xdp("l7mark_xdp"), in)).answer, pass);
  }
  EXPECT_EQ(plane_->count(L7M_COUNT_UNTRACKED), 4 * hidden.size());
  EXPECT_EQ(plane_->count(L7M_COUNT_DROPPED), 0U);
  plane_->set([](l7m_settings& settings) { settings.flags |= L7M_SET_DROPS; });
  for (const Bytes& in : hidden) {
    EXPECT_EQ(ingress(in).answer, kShot);
    EXPECT_EQ(egress(in).answer, kShot);
    EXPECT_EQ(xdp(in).answer, drop);
    EXPECT_EQ(ran(run_xdp(plane_->xdp("l7mark_xdp"), in)).answer, drop);
  }
  EXPECT_EQ(plane_->count(L7M_COUNT_UNTRACKED), 8 * hidden.size());
  EXPECT_EQ(plane_->count(L7M_COUNT_DROPPED), 4 * hidden.size());
  // What is only wrong passes as before: no receiver takes it.
  Bytes wrong = ethernet(tcp(k4, kAck, 1, 1));
  wrong[14] = 0x44;
  EXPECT_EQ(ingress(wrong).answer, kUnspec);
}

TEST_F(Flow, LaterFragmentsAreNoSamples) {
  ingress(ethernet(fragment4(udp(k4, Bytes(56, 1)), 9, 0, true)));
  EXPECT_EQ(plane_->records().size(), 1U);
  ingress(ethernet(fragment4(ip(k4, L7M_PROTO_UDP, Bytes(40, 7)), 9, 64, false)));
  EXPECT_TRUE(plane_->records().empty());
  EXPECT_EQ(plane_->maps.candidate(flow_key(k4, L7M_PROTO_UDP))->count.packets[sender_of(k4)], 2U);
}

// --- from userspace --------------------------------------------------------------------------

TEST_F(Flow, EditsAreForOneLife) {
  VerdictEntry by_hand{key_of(k4), {}};
  ASSERT_TRUE(plane_->maps.put_verdicts({&by_hand, 1}).ok());
  l7m_candidate beside{};
  beside.flow_id = 7;
  ASSERT_TRUE(plane_->maps.put_candidate(key_of(k4), beside).ok());
  plane_->decide(key_of(k6), 0);
  Endpoints sampled = k4;
  sampled.sport = 40009;
  ingress(segment(sampled, kSyn));
  std::vector<l7m_edit> edits(6);
  for (l7m_edit& edit : edits) {
    edit.key = key_of(k4).raw;
    edit.what = L7M_EDIT_ACTION;
    edit.action = kAction;
  }
  edits[0].flow_id = 7;
  edits[1].action = kAction + 1;  // by hand
  edits[2].flow_id = 8;
  edits[3].key = key_of(k6).raw;  // by hand, and there is none
  edits[4].key = key_of(k6).raw;
  edits[4].flow_id = 2;
  edits[5].key = key_of(sampled).raw;
  edits[5].flow_id = candidate(sampled).flow_id + 1;
  ASSERT_TRUE(plane_->maps.edit(edits).ok());
  EXPECT_EQ(edits[0].result, L7M_EDIT_CANDIDATE);
  EXPECT_EQ(edits[1].result, L7M_EDIT_VERDICT);
  for (const unsigned n : {2U, 3U, 4U, 5U}) EXPECT_EQ(edits[n].result, L7M_EDIT_STALE) << n;
  EXPECT_EQ(candidate(k4).action, kAction);
  EXPECT_EQ(verdict(k4).action, kAction + 1);
  EXPECT_EQ(verdict(k6).action, 0U);
  EXPECT_EQ(candidate(sampled).action, 0U);
}

TEST_F(Flow, EditsInPlace) {
  plane_->decide(key_of(k4), 0);
  ingress(segment(k4, kAck, 10));
  ingress(segment(k6, kSyn));
  std::vector<l7m_edit> edits(60);  // more than a run takes
  for (l7m_edit& edit : edits) {
    edit.key = key_of(k4).raw;
    edit.flow_id = 1;
  }
  l7m_edit& v = edits[0];
  v.what = L7M_EDIT_ACTION | L7M_EDIT_STATE | L7M_EDIT_APPLICATION;
  v.action = kAction;
  v.state = L7M_STATE_GUESSED;
  v.application = 189;
  v.master = 91;
  l7m_edit& c = edits[1];
  c.key = key_of(k6).raw;
  c.flow_id = candidate(k6).flow_id;
  c.what = L7M_EDIT_ACTION | L7M_EDIT_STATE | L7M_EDIT_PACKETS | L7M_EDIT_WHOLE;
  c.action = kAction + 1;
  c.state = L7M_STATE_PROVISIONAL;
  c.packets = 20;
  c.whole = 10;
  l7m_edit& missing = edits[59];
  missing.key = flow_key(k4, L7M_PROTO_UDP).raw;
  missing.what = L7M_EDIT_ACTION;
  missing.result = L7M_EDIT_VERDICT;
  ASSERT_TRUE(plane_->maps.edit(edits).ok());
  EXPECT_EQ(v.result, L7M_EDIT_VERDICT);
  EXPECT_EQ(c.result, L7M_EDIT_CANDIDATE);
  EXPECT_EQ(missing.result, L7M_EDIT_NONE);
  EXPECT_EQ(verdict(k4).action, kAction);
  EXPECT_EQ(verdict(k4).state, L7M_STATE_GUESSED);
  EXPECT_EQ(verdict(k4).application, 189);
  EXPECT_EQ(verdict(k4).master, 91);
  EXPECT_EQ(verdict(k4).count.packets[sender_of(k4)], 1U) << "counts are left alone";
  EXPECT_EQ(candidate(k6).action, kAction + 1);
  EXPECT_EQ(candidate(k6).state, L7M_STATE_PROVISIONAL);
  EXPECT_EQ(candidate(k6).packets, 20);
  EXPECT_EQ(candidate(k6).whole, 10);
  EXPECT_EQ(candidate(k6).count.packets[sender_of(k6)], 1U);
  // What is not asked for stays.
  std::vector<l7m_edit> one(1);
  one[0].key = key_of(k4).raw;
  one[0].flow_id = 1;
  one[0].what = L7M_EDIT_STATE;
  one[0].state = L7M_STATE_FINAL;
  one.emplace_back();
  one[1].key = key_of(k6).raw;
  one[1].flow_id = candidate(k6).flow_id;
  one[1].what = L7M_EDIT_PACKETS;
  one[1].packets = 30;
  ASSERT_TRUE(plane_->maps.edit(one).ok());
  EXPECT_EQ(verdict(k4).action, kAction);
  EXPECT_EQ(verdict(k4).application, 189);
  EXPECT_EQ(candidate(k6).packets, 30);
  EXPECT_EQ(candidate(k6).whole, 10);
  EXPECT_EQ(verdict(k4).state, L7M_STATE_FINAL);
}

// Both clocks are those that entries and records are stamped with.
TEST_F(Flow, ClockTellsJiffiesAndMonotonicTime) {
  const auto monotonic = [] {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(now.tv_nsec);
  };
  const std::uint64_t before = monotonic();
  const auto first = plane_->maps.clock();
  ingress(segment(k4, kSyn));
  const auto second = plane_->maps.clock();
  const std::uint64_t after = monotonic();
  ASSERT_TRUE(first.ok() && second.ok());
  const auto records = plane_->records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_LE(before, first->time_ns);
  EXPECT_LE(first->time_ns, records[0].head.time_ns);
  EXPECT_LE(records[0].head.time_ns, second->time_ns);
  EXPECT_LE(second->time_ns, after);
  EXPECT_GT(first->jiffies, 0U);
  EXPECT_LE(first->jiffies, second->jiffies);
  EXPECT_LE(candidate(k4).last_seen - static_cast<std::uint32_t>(first->jiffies),
            static_cast<std::uint32_t>(second->jiffies - first->jiffies));
  // No room for the answer.
  const RunResult run = run_tc(plane_->tc("l7mark_clock"), Bytes(sizeof(l7m_clock) - 1, 0x55));
  if (run.code == EINVAL) return;  // some kernels want more of a packet
  EXPECT_EQ(run.answer, kShot);
  EXPECT_EQ(run.packet, Bytes(sizeof(l7m_clock) - 1, 0x55));
}

TEST_F(Flow, FullTableRefusesAndKeepsTheCandidate) {
  std::vector<VerdictEntry> entries(1100);
  for (std::size_t i = 0; i < entries.size(); ++i)
    entries[i].key = key_of({"192.0.2.1", "198.51.100.20", static_cast<std::uint16_t>(i + 1), 443});
  const auto full = plane_->maps.put_verdicts(entries);
  ASSERT_TRUE(full.ok());
  EXPECT_EQ(full->size(), 1100U - 1024U);
}

// --- XDP and TC together ---------------------------------------------------------------------

TEST_F(Flow, XdpHandsItsAnswerToTc) {
  plane_->act(kAction, Does{.mark = 0x85, .mark_mask = 0xff, .flags = L7M_ACT_MARK});
  plane_->decide(key_of(k4), kAction);
  const Bytes packet = tagged({{0x8100, 7}}, tcp(k4, kAck, 1, 1, Bytes(20, 1)));
  const RunResult run = ran(run_xdp(plane_->xdp("l7mark_xdp"), packet));
  EXPECT_EQ(run.answer, static_cast<std::uint32_t>(XDP_PASS));
  if (plane_->count(L7M_COUNT_META_FAILED) != 0) GTEST_SKIP() << "no metadata in a run here";
  if (run.packet.size() == packet.size()) GTEST_SKIP() << "a run shows no metadata here";
  ASSERT_EQ(run.packet.size(), packet.size() + sizeof(l7m_meta));
  l7m_meta meta{};
  std::memcpy(&meta, run.packet.data(), sizeof(meta));
  EXPECT_EQ(meta.magic, static_cast<std::uint32_t>(L7M_META_MAGIC));
  EXPECT_EQ(meta.action, kAction);
  EXPECT_EQ(Bytes(run.packet.begin() + sizeof(meta), run.packet.end()), packet);
}

// Without metadata TC looks the flow up itself, and counts and samples nothing a second time.
TEST_F(Flow, BehindXdpTcLooksUpAndCountsNothing) {
  plane_->act(kAction, Does{.mark = 0x85, .mark_mask = 0xff, .flags = L7M_ACT_MARK});
  plane_->decide(key_of(k4), kAction, L7M_FLOW_FIN0);
  const int behind = plane_->tc("l7mark_after_xdp");
  for (const Bytes& packet : {segment(k4, kAck, 20), segment(k4, kFin), segment(k4, kSyn),
                              ethernet(with_options(tcp(k4, kAck, 1, 1, Bytes(20, 1)), 1))})
    EXPECT_EQ(ran(run_tc(behind, packet)).skb.mark, 0x85U);
  EXPECT_EQ(verdict(k4).count.packets[0] + verdict(k4).count.packets[1], 0U);
  EXPECT_EQ(verdict(k4).flags, L7M_FLOW_FIN0);
  // A candidate's provisional mark too.
  xdp(segment(k6, kSyn));
  l7m_candidate c = candidate(k6);
  c.action = kAction;
  ASSERT_TRUE(plane_->maps.put_candidate(key_of(k6), c).ok());
  plane_->records();
  EXPECT_EQ(ran(run_tc(behind, segment(k6, kAck, 20))).skb.mark, 0x85U);
  EXPECT_TRUE(plane_->records().empty());
  EXPECT_EQ(candidate(k6).count.packets[sender_of(k6)], 1U);
  // Neither flow nor IP.
  EXPECT_EQ(ran(run_tc(behind, ethernet(udp(k4, Bytes(4, 1))))).skb.mark, 0U);
  ran(run_tc(behind, frame(0x0806, Bytes(28, 0))));
  EXPECT_EQ(plane_->count(L7M_COUNT_NOT_IP), 0U);
  EXPECT_EQ(plane_->candidates(), 1U);
}

}  // namespace
}  // namespace l7mark::test
