// SPDX-License-Identifier: GPL-2.0-only
// What the programs in the kernel make of every stack of headers: each case goes through TC and XDP
// as a flow's first packet, and the record of it is compared field by field with what is expected.
#include <gmock/gmock.h>

#include <array>
#include <map>

#include "program_run.hpp"
#include "stacks.hpp"

namespace l7mark::test {
namespace {

constexpr std::uint32_t kXdpPass = XDP_PASS;
constexpr auto kTcUnspec = static_cast<std::uint32_t>(TC_ACT_UNSPEC);

class ParseStacks : public testing::Test {
 protected:
  static std::unique_ptr<Plane>& plane(std::uint32_t options) { return planes_[options]; }
  static void TearDownTestSuite() { planes_.clear(); }

  Plane* open(std::uint32_t options) {
    auto& out = plane(options);
    if (!out) {
      DataplaneOptions how;
      how.flows = how.candidates = how.services = how.hints = 1024;
      how.parse = options;
      out = Plane::make(how, why_);
    }
    if (out) out->reset();
    return out.get();
  }

  std::string why_;

 private:
  static inline std::map<std::uint32_t, std::unique_ptr<Plane>> planes_;
};

void check(Plane& plane, const Case& c, bool xdp, bool keyed) {
  SCOPED_TRACE(c.name + (xdp ? " at XDP" : " at TC"));
  plane.reset();
  const RunResult run = xdp ? run_xdp(plane.xdp("l7mark_xdp_only"), c.frame)
                            : run_tc(plane.tc("l7mark_ingress"), c.frame);
  ASSERT_EQ(run.code, 0);
  EXPECT_EQ(run.answer, xdp ? kXdpPass : kTcUnspec);
  EXPECT_EQ(run.packet, c.frame);
  EXPECT_EQ(plane.count(L7M_COUNT_NOT_IP), c.outcome == Outcome::not_ip ? 1U : 0U);
  EXPECT_EQ(plane.count(L7M_COUNT_MALFORMED), c.outcome == Outcome::malformed ? 1U : 0U);
  EXPECT_EQ(plane.count(L7M_COUNT_UNTRACKED), c.outcome == Outcome::untracked ? 1U : 0U);
  const auto records = plane.records();
  if (c.outcome != Outcome::flow) {
    EXPECT_EQ(plane.candidates(), 0U);
    EXPECT_EQ(records.size(), 0U);
    return;
  }
  const FlowKey key =
      keyed ? flow_key(c.ends, c.protocol, c.vlan, c.inner_vlan) : flow_key(c.ends, c.protocol);
  const auto candidate = plane.maps.candidate(key);
  ASSERT_TRUE(candidate);
  EXPECT_EQ(plane.candidates(), 1U);
  const unsigned sender = sender_of(c.ends);
  EXPECT_EQ(candidate->count.packets[sender], 1U);
  EXPECT_EQ(candidate->count.packets[1 - sender], 0U);
  EXPECT_EQ(candidate->count.bytes[sender], c.frame.size());
  EXPECT_EQ(candidate->count.bytes[1 - sender], 0U);
  ASSERT_EQ(records.size(), 1U);
  const l7m_sample& s = records[0].head;
  EXPECT_EQ(s.type, L7M_RECORD_SAMPLE);
  EXPECT_EQ(s.flags, L7M_SAMPLE_FIRST);
  EXPECT_EQ(std::memcmp(&s.key, &key.raw, sizeof(s.key)), 0);
  EXPECT_EQ(s.direction, sender);
  EXPECT_EQ(s.initiator, sender);
  EXPECT_EQ(s.flow_id, candidate->flow_id);
  EXPECT_EQ(s.wire_length, c.frame.size());
  EXPECT_EQ(s.l3_offset, c.l3_offset);
  EXPECT_EQ(s.l4_payload, c.payload);
  EXPECT_EQ(s.vlan, c.vlan);
  EXPECT_EQ(s.l2, 1);
  EXPECT_EQ(records[0].data, c.frame);
}

void check_all(Plane& plane, const std::vector<Case>& cases, bool keyed = false) {
  for (const Case& c : cases)
    for (const bool xdp : {false, true}) check(plane, c, xdp, keyed);
}

TEST_F(ParseStacks, LinkLayers) {
  Plane* const plane = open(0);
  if (plane == nullptr) GTEST_SKIP() << why_;
  check_all(*plane, link_cases());
}

// VLANs apart: tenants may have the same addresses.
TEST_F(ParseStacks, VlansInTheKey) {
  Plane* const plane = open(L7M_PARSE_VLAN_KEY);
  if (plane == nullptr) GTEST_SKIP() << why_;
  check_all(*plane, link_cases(), true);
  Plane* const tunnels = open(L7M_PARSE_VLAN_KEY | kAllTunnels);
  if (tunnels == nullptr) GTEST_SKIP() << why_;
  check_all(*tunnels, opened_cases(), true);
  // The hot path, and fragments.
  const FlowKey seventh = flow_key(k4, 17, 7), none = flow_key(k4, 17);
  for (const bool xdp : {false, true}) {
    plane->reset();
    plane->decide(seventh, 0);
    plane->decide(none, 0);
    const auto run = [&](const Bytes& in) {
      EXPECT_EQ((xdp ? run_xdp(plane->xdp("l7mark_xdp_only"), in)
                     : run_tc(plane->tc("l7mark_ingress"), in))
                    .code,
                0);
    };
    const auto packets = [&](const FlowKey& key) {
      return plane->maps.verdict(key)->count.packets[sender_of(k4)];
    };
    run(tagged({{0x8100, 0x2007}}, udp4()));
    EXPECT_EQ(packets(seventh), 1U);
    EXPECT_EQ(packets(none), 0U);
    run(ethernet(udp4()));
    run(tagged({{0x8100, 0x2000}}, udp4()));
    EXPECT_EQ(packets(seventh), 1U);
    EXPECT_EQ(packets(none), 2U);
    // Neither flow's: a candidate.
    run(tagged({{0x8100, 8}}, udp4()));
    EXPECT_EQ(packets(seventh) + packets(none), 3U);
    EXPECT_TRUE(plane->maps.candidate(flow_key(k4, 17, 8)));
    run(tagged({{0x8100, 7}}, fragment4(udp4(), 9, 0, true)));
    run(tagged({{0x8100, 7}}, fragment4(ip(k4, 17, Bytes(8, 1)), 9, 16, false)));
    run(tagged({{0x8100, 8}}, fragment4(ip(k4, 17, Bytes(8, 1)), 9, 16, false)));
    EXPECT_EQ(packets(seventh), 3U);
    EXPECT_EQ(plane->count(L7M_COUNT_FRAGMENT_FOLLOWED), 1U);
    EXPECT_EQ(plane->count(L7M_COUNT_FRAGMENT_UNKNOWN), 1U);
  }
}

// A qdisc's filter is asked behind the routing, where the packet may have got a VLAN.
TEST_F(ParseStacks, ClassidFallsBackToNoVlan) {
  Plane* const plane = open(L7M_PARSE_VLAN_KEY);
  if (plane == nullptr) GTEST_SKIP() << why_;
  constexpr std::uint32_t kAction = 4;
  l7m_action action{};
  action.flags = L7M_ACT_CLASSID;
  action.classid = 0x10010;
  plane->act(kAction, action);
  const auto answer = [&](const Bytes& in) {
    return run_tc(plane->tc("l7mark_classid"), in).answer;
  };
  const auto classified = static_cast<std::uint32_t>(TC_ACT_OK);
  plane->decide(flow_key(k4, 17), kAction);
  EXPECT_EQ(answer(ethernet(udp4())), classified);
  EXPECT_EQ(answer(tagged({{0x8100, 7}}, udp4())), classified);
  // The VLAN's own flow goes before.
  plane->decide(flow_key(k4, 17, 7), 0);
  EXPECT_EQ(answer(tagged({{0x8100, 7}}, udp4())), kTcUnspec);
  // Not the other way round, and not for what marks: it is another tenant's.
  plane->decide(flow_key(k6, 17, 7), kAction);
  EXPECT_EQ(answer(ethernet(udp6())), kTcUnspec);
  action.flags = L7M_ACT_MARK;
  action.mark = action.mark_mask = 1;
  plane->act(kAction, action);
  EXPECT_EQ(run_tc(plane->tc("l7mark_after_xdp"), tagged({{0x8100, 8}}, udp4())).skb.mark, 0U);
  EXPECT_EQ(run_tc(plane->tc("l7mark_after_xdp"), tagged({{0x8100, 7}}, udp6())).skb.mark, 1U);
  plane->act(kAction, l7m_action{});
}

TEST_F(ParseStacks, NetworkLayers) {
  Plane* const plane = open(0);
  if (plane == nullptr) GTEST_SKIP() << why_;
  check_all(*plane, network_cases());
}

TEST_F(ParseStacks, Transports) {
  Plane* const plane = open(0);
  if (plane == nullptr) GTEST_SKIP() << why_;
  check_all(*plane, transport_cases());
}

TEST_F(ParseStacks, TunnelsClosed) {
  Plane* const plane = open(0);
  if (plane == nullptr) GTEST_SKIP() << why_;
  check_all(*plane, closed_cases());
}

TEST_F(ParseStacks, TunnelsOpened) {
  Plane* const plane = open(kAllTunnels);
  if (plane == nullptr) GTEST_SKIP() << why_;
  check_all(*plane, opened_cases());
  check_all(*plane, no_tunnel_cases());
  // What is no tunnel is parsed alike, whatever the options.
  check_all(*plane, network_cases());
}

// Routers on the way act on the outer header, and a checksum of the tunnel's may cover the inner
// one (RFC 2983, 3: traffic is conditioned by what is seen at that point).
TEST_F(ParseStacks, DscpInATunnelIsTheOuterHeaders) {
  Plane* const plane = open(kAllTunnels);
  if (plane == nullptr) GTEST_SKIP() << why_;
  constexpr std::uint32_t kAction = 4;
  l7m_action dscp{};
  dscp.flags = L7M_ACT_DSCP;
  dscp.dscp = 46;
  plane->act(kAction, dscp);
  for (const Case& c : opened_cases()) {
    if (c.outcome != Outcome::flow) continue;
    SCOPED_TRACE(c.name);
    plane->decide(flow_key(c.ends, c.protocol), kAction);
    const std::size_t at = c.vlan != 0 ? 18 : 14;
    Bytes expected = c.frame;
    const RunResult run = run_tc(plane->tc("l7mark_ingress"), c.frame);
    ASSERT_EQ(run.code, 0);
    if (expected[at] >> 4 == 6) {
      expected[at] = 0x6b;
      expected[at + 1] = 0x80;
    } else {
      expected[at + 1] = 0xb8;
      expected[at + 10] = run.packet[at + 10];
      expected[at + 11] = run.packet[at + 11];
    }
    EXPECT_EQ(run.packet, expected);
  }
  EXPECT_EQ(plane->count(L7M_COUNT_DSCP_FAILED), 0U);
  plane->act(kAction, l7m_action{});
}

// Interfaces without a link-layer header.
TEST_F(ParseStacks, BareIp) {
  Plane* const plane = open(0);
  if (plane == nullptr) GTEST_SKIP() << why_;
  struct {
    Bytes packet;
    Endpoints ends;
    std::uint8_t protocol;
  } const cases[] = {{tcp4(), k4, 6},
                     {udp6(), k6, 17},
                     {with_options(tcp4(), 3), k4, 6},
                     {extended(tcp6(), {hop_by_hop()}), k6, 6}};
  for (const auto& c : cases) {
    plane->reset();
    const RunResult run = run_tc(plane->tc("l7mark_ingress_l3"), c.packet);
    ASSERT_EQ(run.code, 0);
    ASSERT_TRUE(plane->maps.candidate(flow_key(c.ends, c.protocol)));
    const auto records = plane->records();
    ASSERT_EQ(records.size(), 1U);
    EXPECT_EQ(records[0].head.l2, 0);
    EXPECT_EQ(records[0].head.l3_offset, 0);
    EXPECT_EQ(records[0].data, c.packet);
  }
  plane->reset();
  ASSERT_EQ(run_tc(plane->tc("l7mark_ingress_l3"), Bytes(40, 0x20)).code, 0);
  EXPECT_EQ(plane->count(L7M_COUNT_NOT_IP), 1U);
}

// Cut short at every byte, from the least that a run takes: counted, passed, never a flow.
TEST_F(ParseStacks, CutAtEveryByte) {
  Plane* const plane = open(kAllTunnels);
  if (plane == nullptr) GTEST_SKIP() << why_;
  std::vector<Case> cases;
  for (const auto& more : {link_cases(), network_cases(), transport_cases(), opened_cases()})
    for (const Case& c : more)
      if (c.outcome == Outcome::flow && c.name != "padding_is_no_payload" && c.name != "jumbogram")
        cases.push_back(c);
  for (const Case& c : cases) {
    for (const bool xdp : {false, true}) {
      SCOPED_TRACE(c.name + (xdp ? " at XDP" : " at TC"));
      plane->reset();
      std::uint64_t runs = 0;
      for (std::size_t length = 14; length < c.frame.size(); ++length) {
        const Bytes cut(c.frame.begin(), c.frame.begin() + static_cast<std::ptrdiff_t>(length));
        const RunResult run = xdp ? run_xdp(plane->xdp("l7mark_xdp_only"), cut)
                                  : run_tc(plane->tc("l7mark_ingress"), cut);
        if (run.code == EINVAL && length < 14 + 40) continue;  // some kernels want a whole header
        ASSERT_EQ(run.code, 0) << length;
        ASSERT_EQ(run.answer, xdp ? kXdpPass : kTcUnspec);
        ++runs;
      }
      if (xdp) {
        EXPECT_EQ(runs, c.frame.size() - 14);
      }
      EXPECT_EQ(plane->count(L7M_COUNT_NOT_IP) + plane->count(L7M_COUNT_MALFORMED), runs);
      EXPECT_EQ(plane->count(L7M_COUNT_NEW_FLOW), 0U);
    }
  }
}

// The hot path parses by itself: whatever byte of an established flow's packet is changed, it
// counts the packet for the flow if and only if the whole parser finds that flow in it.
TEST_F(ParseStacks, HotPathAgreesOnEveryChange) {
  Plane* const plane = open(kAllTunnels);
  if (plane == nullptr) GTEST_SKIP() << why_;
  const std::vector<std::pair<Bytes, FlowKey>> flows = {
      {ethernet(tcp4(2)), flow_key(k4, 6)},
      {ethernet(udp4()), flow_key(k4, 17)},
      {ethernet(tcp6(2)), flow_key(k6, 6)},
      {tagged({{0x8100, 7}}, udp6()), flow_key(k6, 17)},
  };
  constexpr std::array<std::uint8_t, 9> kFlips{0x01, 0x02, 0x04, 0x08, 0x10,
                                               0x20, 0x40, 0x80, 0xff};
  for (const auto& [frame, key] : flows) {
    for (const bool xdp : {false, true}) {
      plane->reset();
      for (std::size_t at = 12; at < frame.size(); ++at) {
        for (const std::uint8_t flip : kFlips) {
          Bytes changed = frame;
          changed[at] ^= flip;
          l7m_packet packet{};
          l7m_cursor cursor{changed.data(), changed.data() + changed.size(), 0, nullptr, 0};
          FlowKey found;
          plane->decide(key, 0);  // anew: a change may close the flow, or begin it again
          if (l7m_parse(&cursor, &packet, 0, static_cast<std::uint32_t>(changed.size()),
                        kAllTunnels) == L7M_PARSE_OK &&
              packet.fragment != L7M_FRAGMENT_LATER) {
            l7m_map_ipv4(&packet);
            l7m_make_key(&packet, &found.raw);
          }
          const RunResult run = xdp ? run_xdp(plane->xdp("l7mark_xdp_only"), changed)
                                    : run_tc(plane->tc("l7mark_ingress"), changed);
          ASSERT_EQ(run.code, 0);
          const auto verdict = plane->maps.verdict(key);
          ASSERT_TRUE(verdict);
          ASSERT_EQ(verdict->count.packets[0] + verdict->count.packets[1], found == key ? 1U : 0U)
              << "byte " << at << " changed by " << static_cast<unsigned>(flip)
              << (xdp ? " at XDP" : " at TC");
          if (packet.fragment == L7M_FRAGMENT_FIRST) plane->clear("fragments");
        }
      }
      plane->records();
    }
  }
}

}  // namespace
}  // namespace l7mark::test
