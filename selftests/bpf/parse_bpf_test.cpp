// SPDX-License-Identifier: GPL-2.0-only
// What the programs in the kernel make of every stack of headers: each case goes through TC and XDP
// as a flow's first packet, and the record of it is compared field by field with what is expected.
#include <gmock/gmock.h>

#include <array>
#include <map>

#include "layers.hpp"
#include "program_run.hpp"

namespace l7mark::test {
namespace {

const Endpoints k4{"192.0.2.10", "198.51.100.20", 40000, 443};
const Endpoints k6{"2001:db8::10", "2001:db8:1::20", 40000, 443};
// IPv4's addresses as IPv6 writes them; no packet has them.
const Endpoints kMapped{"::ffff:192.0.2.10", "::ffff:198.51.100.20", 40000, 443};
const Endpoints kMappedTo{"2001:db8::10", "::ffff:198.51.100.20", 40000, 443};
const Endpoints kOuter4{"203.0.113.1", "203.0.113.2", 0, 0};
const Endpoints kOuter6{"2001:db8:f::1", "2001:db8:f::2", 0, 0};
constexpr std::uint32_t kXdpPass = XDP_PASS;
constexpr auto kTcUnspec = static_cast<std::uint32_t>(TC_ACT_UNSPEC);
constexpr std::uint32_t kAllTunnels =
    L7M_PARSE_IPIP | L7M_PARSE_GRE | L7M_PARSE_GTPU | L7M_PARSE_VXLAN;

Endpoints no_ports(Endpoints ends) {
  ends.sport = ends.dport = 0;
  return ends;
}

Endpoints to_port(Endpoints ends, std::uint16_t port) {
  ends.dport = port;
  return ends;
}

enum class Outcome { flow, not_ip, malformed, untracked };

struct Case {
  std::string name;
  Bytes frame;
  Endpoints ends;
  std::uint8_t protocol = L7M_PROTO_TCP;
  unsigned l3_offset = 14;
  unsigned payload = 0;
  unsigned vlan = 0;
  Outcome outcome = Outcome::flow;
  unsigned inner_vlan = 0;
};

Bytes tcp4(std::size_t payload = 10) {
  return tcp(k4, 0x18, 1, 1, Bytes(payload, 0x41));
}
Bytes tcp6(std::size_t payload = 10) {
  return tcp(k6, 0x18, 1, 1, Bytes(payload, 0x41));
}
Bytes udp4() {
  return udp(k4, Bytes(10, 0x41));
}
Bytes udp6() {
  return udp(k6, Bytes(10, 0x41));
}

// The first bytes of what is behind a packet's IP header.
Bytes start_of(const Bytes& packet, std::size_t length) {
  const auto at = packet.begin() + (packet[0] >> 4 == 6 ? 40 : 20);
  return {at, at + static_cast<std::ptrdiff_t>(length)};
}

std::vector<Case> link_cases() {
  return {
      {"ethernet", ethernet(tcp4()), k4, 6, 14, 10},
      {"ethernet6", ethernet(tcp6()), k6, 6, 14, 10},
      {"snap", snap(tcp4()), k4, 6, 22, 10},
      {"snap6", snap(tcp6()), k6, 6, 22, 10},
      {"vlan", tagged({{0x8100, 7}}, tcp4()), k4, 6, 18, 10, 7},
      {"vlan_priority_bits", tagged({{0x8100, 0xe007}}, tcp4()), k4, 6, 18, 10, 7},
      {"vlan6", tagged({{0x8100, 7}}, tcp6()), k6, 6, 18, 10, 7},
      {"qinq", tagged({{0x88a8, 100}, {0x8100, 7}}, tcp4()), k4, 6, 22, 10, 100, Outcome::flow, 7},
      {"qinq6", tagged({{0x88a8, 100}, {0x8100, 7}}, udp6()), k6, 17, 22, 10, 100, Outcome::flow,
       7},
      {"qinq_old", tagged({{0x9100, 100}, {0x8100, 7}}, tcp4()), k4, 6, 22, 10, 100, Outcome::flow,
       7},
      {"highest_ids", tagged({{0x88a8, 0xffff}, {0x8100, 0xfffe}}, tcp4()), k4, 6, 22, 10, 4095,
       Outcome::flow, 4094},
      // A tag without an id is there for its priority.
      {"priority_tag", tagged({{0x8100, 0xa000}}, tcp4()), k4, 6, 18, 10, 0},
      {"priority_tag_outside", tagged({{0x8100, 0xa000}, {0x8100, 7}}, udp4()), k4, 17, 22, 10, 7},
      {"priority_tag_inside", tagged({{0x8100, 7}, {0x8100, 0xa000}}, udp4()), k4, 17, 22, 10, 7},
      {"three_tags", tagged({{0x88a8, 1}, {0x8100, 2}, {0x8100, 3}}, tcp4()), k4, 6, 26, 10, 1,
       Outcome::flow, 2},
      {"four_tags", tagged({{0x88a8, 1}, {0x8100, 2}, {0x8100, 3}, {0x8100, 4}}, tcp4()), k4, 6, 0,
       0, 0, Outcome::not_ip},
      {"pppoe", pppoe(tcp4()), k4, 6, 22, 10},
      {"pppoe6", pppoe(tcp6()), k6, 6, 22, 10},
      {"mpls", mpls(1, tcp4()), k4, 6, 18, 10},
      {"mpls3", mpls(3, udp4()), k4, 17, 26, 10},
      {"mpls6", mpls(2, tcp6()), k6, 6, 22, 10},
      {"arp", frame(0x0806, Bytes(28, 0)), k4, 0, 0, 0, 0, Outcome::not_ip},
      {"lldp", frame(0x88cc, Bytes(40, 1)), k4, 0, 0, 0, 0, Outcome::not_ip},
      {"spanning_tree", frame(38, Bytes(46, 0x42)), k4, 0, 0, 0, 0, Outcome::not_ip},
  };
}

std::vector<Case> network_cases() {
  Bytes padded = ethernet(tcp(k4, 0x10, 1, 1));
  padded.resize(60, 0);
  const Endpoints same{"192.0.2.10", "192.0.2.10", 443, 40000};
  const Endpoints reply = k4.reversed();
  return {
      {"udp", ethernet(udp4()), k4, 17, 14, 10},
      {"udp6", ethernet(udp6()), k6, 17, 14, 10},
      {"reply", ethernet(tcp(reply, 0x18, 1, 1, Bytes(5, 1))), reply, 6, 14, 5},
      {"to_itself", ethernet(tcp(same, 0x18, 1, 1, Bytes(5, 1))), same, 6, 14, 5},
      {"padding_is_no_payload", padded, k4, 6, 14, 0},
      {"options", ethernet(with_options(tcp4(), 1)), k4, 6, 14, 10},
      {"options_all", ethernet(with_options(udp4(), 10)), k4, 17, 14, 10},
      {"hop_by_hop", ethernet(extended(tcp6(), {hop_by_hop()})), k6, 6, 14, 10},
      {"routing", ethernet(extended(tcp6(), {routing()})), k6, 6, 14, 10},
      {"destination", ethernet(extended(udp6(), {destination_options(2)})), k6, 17, 14, 10},
      {"authentication", ethernet(extended(tcp6(), {authentication()})), k6, 6, 14, 10},
      {"atomic_fragment", ethernet(extended(tcp6(), {fragment6(9, 0, false)})), k6, 6, 14, 10},
      {"first_fragment6", ethernet(extended(tcp6(), {fragment6(9, 0, true)})), k6, 6, 14, 10},
      {"first_fragment", ethernet(fragment4(tcp4(), 9, 0, true)), k4, 6, 14, 10},
      {"chain",
       ethernet(
           extended(tcp6(), {hop_by_hop(), destination_options(), routing(), fragment6(9, 0, false),
                             authentication(), destination_options(1)})),
       k6, 6, 14, 10},
      {"chain_of_nine", ethernet(extended(tcp6(), std::vector<Extension>(9, routing()))), k6, 6, 14,
       10},
      {"chain_of_sixteen",
       ethernet(extended(tcp6(), std::vector<Extension>(16, destination_options()))), k6, 6, 14,
       10},
      {"chain_too_long",
       ethernet(extended(tcp6(), std::vector<Extension>(17, destination_options()))), k6, 6, 0, 0,
       0, Outcome::untracked},
      {"chain_too_many_bytes", ethernet(extended(tcp6(), {destination_options(255)})), k6, 6, 0, 0,
       0, Outcome::untracked},
      {"mobility", ethernet(extended(tcp6(), {{135, Bytes(8, 0)}})), k6, 6, 14, 10},
      {"host_identity", ethernet(extended(udp6(), {{139, Bytes(8, 0)}})), k6, 17, 14, 10},
      {"shim6", ethernet(extended(udp6(), {{140, Bytes(8, 0)}})), k6, 17, 14, 10},
      // What other numbers have in their place among the bits that tell an extension header.
      {"no_extension_64", ethernet(ip(no_ports(k6), 64, Bytes(8, 0))), no_ports(k6), 64, 14, 8},
      {"no_extension_124", ethernet(ip(no_ports(k6), 124, Bytes(8, 0))), no_ports(k6), 124, 14, 8},
      {"no_extension_128", ethernet(ip(no_ports(k6), 128, Bytes(8, 0))), no_ports(k6), 128, 14, 8},
      {"no_extension_203", ethernet(ip(no_ports(k6), 203, Bytes(8, 0))), no_ports(k6), 203, 14, 8},
      {"no_extension_7", ethernet(ip(no_ports(k6), 7, Bytes(8, 0))), no_ports(k6), 7, 14, 8},
      // A datagram's second fragment may begin behind 8 bytes: the first one has the ports.
      {"first_fragment_8", ethernet(fragment4(ip(k4, 6, start_of(tcp4(), 8)), 9, 0, true)), k4, 6,
       14, 0},
      {"first_fragment_16", ethernet(fragment4(ip(k4, 6, start_of(tcp4(), 16)), 9, 0, true)), k4, 6,
       14, 0},
      {"first_fragment6_8",
       ethernet(extended(ip(k6, 6, start_of(tcp6(), 8)), {fragment6(9, 0, true)})), k6, 6, 14, 0},
      {"eight_bytes_of_tcp", ethernet(ip(k4, 6, start_of(tcp4(), 8))), k4, 6, 0, 0, 0,
       Outcome::malformed},
      {"first_fragment_4", ethernet(fragment4(ip(k4, 6, start_of(tcp4(), 4)), 9, 0, true)), k4, 6,
       0, 0, 0, Outcome::untracked},
      {"ports_in_second_fragment",
       ethernet(extended(ip(k6, 6, {}), {fragment6(9, 0, true), destination_options()})), k6, 6, 0,
       0, 0, Outcome::untracked},
      {"options_in_second_fragment", ethernet([] {
         Bytes packet = extended(ip(k6, 6, {}), {fragment6(9, 0, true), destination_options(3)});
         packet.resize(packet.size() - 16);
         packet[5] = static_cast<std::uint8_t>(packet[5] - 16);
         return packet;
       }()),
       k6, 6, 0, 0, 0, Outcome::untracked},
      {"no_header_in_first_fragment", ethernet([] {
         Bytes packet = extended(ip(k6, 6, {}), {fragment6(9, 0, true), destination_options()});
         packet.resize(packet.size() - 8);
         packet[5] = static_cast<std::uint8_t>(packet[5] - 8);
         return packet;
       }()),
       k6, 6, 0, 0, 0, Outcome::untracked},
      {"no_next_header", ethernet(ip(no_ports(k6), 59, {})), no_ports(k6), 59, 14, 0},
      {"wrong_version", ethernet([] {
         Bytes packet = tcp4();
         packet[0] = 0x55;
         return packet;
       }()),
       k4, 6, 0, 0, 0, Outcome::malformed},
      {"header_of_four_words", ethernet([] {
         Bytes packet = tcp4();
         packet[0] = 0x44;
         return packet;
       }()),
       k4, 6, 0, 0, 0, Outcome::malformed},
      {"length_less_than_header", ethernet([] {
         Bytes packet = tcp4();
         packet[2] = 0;
         packet[3] = 19;
         return packet;
       }()),
       k4, 6, 0, 0, 0, Outcome::malformed},
      {"length_less_than_transport", ethernet([] {
         Bytes packet = tcp4();
         packet[2] = 0;
         packet[3] = 39;
         return packet;
       }()),
       k4, 6, 0, 0, 0, Outcome::malformed},
      {"length_beyond_frame", ethernet([] {
         Bytes packet = tcp4();
         packet[3]++;
         return packet;
       }()),
       k4, 6, 0, 0, 0, Outcome::malformed},
      {"length_beyond_frame6", ethernet([] {
         Bytes packet = tcp6();
         packet[5]++;
         return packet;
       }()),
       k6, 6, 0, 0, 0, Outcome::malformed},
      {"length_less_than_transport6", ethernet([] {
         Bytes packet = udp6();
         packet[5] = 7;
         return packet;
       }()),
       k6, 17, 0, 0, 0, Outcome::malformed},
      {"mapped", ethernet(tcp(kMapped, 0x02, 1, 1)), kMapped, 6, 0, 0, 0, Outcome::malformed},
      {"mapped_to", ethernet(udp(kMappedTo, Bytes(10, 0x41))), kMappedTo, 17, 0, 0, 0,
       Outcome::malformed},
      {"mapped_from", ethernet(udp(kMappedTo.reversed(), Bytes(10, 0x41))), kMappedTo, 17, 0, 0, 0,
       Outcome::malformed},
      {"mapped_extended",
       ethernet(extended(tcp(kMapped, 0x18, 1, 1, Bytes(10, 0x41)), {routing()})), kMapped, 6, 0, 0,
       0, Outcome::malformed},
      {"jumbogram", ethernet([] {
         Bytes packet = tcp6();
         packet[4] = packet[5] = 0;
         return packet;
       }()),
       k6, 6, 14, 10},
  };
}

std::vector<Case> transport_cases() {
  const Endpoints bare4 = no_ports(k4), bare6 = no_ports(k6);
  Bytes options = tcp(k4, 0x18, 1, 1, Bytes(22, 1));
  options[20 + 12] = 0x80;
  Bytes wild = tcp(k4, 0x18, 1, 1, Bytes(2, 1));
  wild[20 + 12] = 0xf0;
  return {
      {"tcp_options", ethernet(options), k4, 6, 14, 10},
      {"tcp_header_beyond_packet", ethernet(wild), k4, 6, 14, 0},
      {"icmp", ethernet(ip(bare4, 1, Bytes(16, 8))), bare4, 1, 14, 16},
      {"icmpv6", ethernet(ip(bare6, 58, Bytes(16, 128))), bare6, 58, 14, 16},
      {"sctp", ethernet(ported(k4, 132, 20)), k4, 132, 14, 24},
      {"sctp6", ethernet(ported(k6, 132, 20)), k6, 132, 14, 24},
      {"udp_lite", ethernet(ported(k4, 136, 4)), k4, 136, 14, 8},
      {"dccp", ethernet(ported(k6, 33, 12)), k6, 33, 14, 16},
      {"esp", ethernet(ip(bare4, 50, Bytes(24, 3))), bare4, 50, 14, 24},
      {"esp6", ethernet(ip(bare6, 50, Bytes(24, 3))), bare6, 50, 14, 24},
      {"igmp", ethernet(ip(bare4, 2, Bytes(8, 3))), bare4, 2, 14, 8},
      {"unknown", ethernet(ip(bare4, 253, Bytes(8, 3))), bare4, 253, 14, 8},
      {"empty", ethernet(ip(bare4, 253, {})), bare4, 253, 14, 0},
  };
}

// With tunnels opened: the inner flow.
std::vector<Case> opened_cases() {
  return {
      {"ipip", ethernet(tunnelled(kOuter4, tcp4())), k4, 6, 34, 10},
      {"6in4", ethernet(tunnelled(kOuter4, tcp6())), k6, 6, 34, 10},
      {"4in6", ethernet(tunnelled(kOuter6, udp4())), k4, 17, 54, 10},
      {"6in6", ethernet(tunnelled(kOuter6, udp6())), k6, 17, 54, 10},
      {"ipip_vlan", tagged({{0x8100, 9}}, tunnelled(kOuter4, tcp4())), k4, 6, 38, 10, 9},
      {"tunnel_in_tunnel", ethernet(tunnelled(kOuter4, tunnelled(kOuter6, tcp4()))), k4, 6, 74, 10},
      {"gre", ethernet(gre(kOuter4, 0, tcp4())), k4, 6, 38, 10},
      {"gre_key_sequence", ethernet(gre(kOuter4, 0x3000, tcp6())), k6, 6, 46, 10},
      {"gre_all", ethernet(gre(kOuter6, 0xb000, udp4())), k4, 17, 70, 10},
      {"gtpu", ethernet(gtpu(kOuter4, false, tcp4())), k4, 6, 50, 10},
      {"gtpu_sequence", ethernet(gtpu(kOuter4, true, tcp6())), k6, 6, 54, 10},
      {"gtpu6", ethernet(gtpu(kOuter6, false, udp4())), k4, 17, 70, 10},
      {"gtpu_session", ethernet(gtpu(kOuter4, false, tcp4(), {1, 0x10, 5, 0})), k4, 6, 58, 10},
      {"gtpu_two", ethernet(gtpu(kOuter6, false, udp6(), {2, 0, 0, 0, 0, 0, 0, 0x85, 1, 0, 5, 0})),
       k6, 17, 86, 10},
      {"gre_ethernet", ethernet(gre_ethernet(kOuter4, 0x2000, ethernet(tcp4()))), k4, 6, 56, 10},
      {"gre_ethernet6", ethernet(gre_ethernet(kOuter6, 0, ethernet(udp6()))), k6, 17, 72, 10},
      {"vxlan", ethernet(vxlan(kOuter4, tcp4())), k4, 6, 64, 10},
      {"vxlan6", ethernet(vxlan(kOuter6, udp6())), k6, 17, 84, 10},
      {"6in4_mapped", ethernet(tunnelled(kOuter4, tcp(kMapped, 0x18, 1, 1))), kMapped, 6, 0, 0, 0,
       Outcome::malformed},
  };
}

// The same frames with tunnels left closed: the outer flow.
std::vector<Case> closed_cases() {
  return {
      {"ipip", ethernet(tunnelled(kOuter4, tcp4())), kOuter4, 4, 14, 50},
      {"6in4", ethernet(tunnelled(kOuter4, tcp6())), kOuter4, 41, 14, 70},
      {"4in6", ethernet(tunnelled(kOuter6, udp4())), kOuter6, 4, 14, 38},
      {"gre", ethernet(gre(kOuter4, 0, tcp4())), kOuter4, 47, 14, 54},
      {"gtpu", ethernet(gtpu(kOuter4, false, tcp4())), to_port(kOuter4, 2152), 17, 14, 58},
      {"vxlan", ethernet(vxlan(kOuter6, udp6())), to_port(kOuter6, 4789), 17, 14, 80},
  };
}

// What looks like a tunnel and is none, with tunnels opened: the outer flow.
std::vector<Case> no_tunnel_cases() {
  const auto damaged = [](Bytes packet, std::size_t at, std::uint8_t value) {
    packet[at] = value;
    return ethernet(packet);
  };
  return {
      {"gre_version_1", damaged(gre(kOuter4, 0, tcp4()), 21, 1), kOuter4, 47, 14, 54},
      {"gre_other", damaged(gre(kOuter4, 0, tcp4()), 22, 0x65), kOuter4, 47, 14, 54},
      {"gtpu_echo", damaged(gtpu(kOuter4, false, tcp4()), 29, 1), to_port(kOuter4, 2152), 17, 14,
       58},
      {"gre_ethernet_arp",
       ethernet(gre_ethernet(kOuter4, 0,
                             [] {
                               Bytes frame = ethernet(tcp4());
                               frame[13] = 6;
                               return frame;
                             }())),
       kOuter4, 47, 14, 68},
      {"gtpu_three",
       ethernet(gtpu(kOuter4, false, tcp4(), {1, 0, 5, 0x85, 1, 0, 5, 0x85, 1, 0, 5, 0})),
       to_port(kOuter4, 2152), 17, 14, 74},
      {"gtpu_no_length", ethernet(gtpu(kOuter4, false, tcp4(), {0, 0x10, 5, 0})),
       to_port(kOuter4, 2152), 17, 14, 66},
      {"vxlan_without_identifier", damaged(vxlan(kOuter4, tcp4()), 28, 0), to_port(kOuter4, 4789),
       17, 14, 72},
      {"dns_to_2152", ethernet(udp(to_port(k4, 2152), Bytes(4, 1))), to_port(k4, 2152), 17, 14, 4},
  };
}

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
