// SPDX-License-Identifier: GPL-2.0-only
// Stacks of headers, one packet each, and what the parser is to find in it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "layers.hpp"

namespace l7mark::test {

inline const Endpoints k4{"192.0.2.10", "198.51.100.20", 40000, 443};
inline const Endpoints k6{"2001:db8::10", "2001:db8:1::20", 40000, 443};
// IPv4's addresses as IPv6 writes them; no packet has them.
inline const Endpoints kMapped{"::ffff:192.0.2.10", "::ffff:198.51.100.20", 40000, 443};
inline const Endpoints kMappedTo{"2001:db8::10", "::ffff:198.51.100.20", 40000, 443};
inline const Endpoints kOuter4{"203.0.113.1", "203.0.113.2", 0, 0};
inline const Endpoints kOuter6{"2001:db8:f::1", "2001:db8:f::2", 0, 0};
inline constexpr std::uint32_t kAllTunnels =
    L7M_PARSE_IPIP | L7M_PARSE_GRE | L7M_PARSE_GTPU | L7M_PARSE_VXLAN;

inline Endpoints no_ports(Endpoints ends) {
  ends.sport = ends.dport = 0;
  return ends;
}

inline Endpoints to_port(Endpoints ends, std::uint16_t port) {
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

inline Bytes tcp4(std::size_t payload = 10) {
  return tcp(k4, 0x18, 1, 1, Bytes(payload, 0x41));
}
inline Bytes tcp6(std::size_t payload = 10) {
  return tcp(k6, 0x18, 1, 1, Bytes(payload, 0x41));
}
inline Bytes udp4() {
  return udp(k4, Bytes(10, 0x41));
}
inline Bytes udp6() {
  return udp(k6, Bytes(10, 0x41));
}

// The first bytes of what is behind a packet's IP header.
inline Bytes start_of(const Bytes& packet, std::size_t length) {
  const auto at = packet.begin() + (packet[0] >> 4 == 6 ? 40 : 20);
  return {at, at + static_cast<std::ptrdiff_t>(length)};
}

inline std::vector<Case> link_cases() {
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

inline std::vector<Case> network_cases() {
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

inline std::vector<Case> transport_cases() {
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
inline std::vector<Case> opened_cases() {
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
inline std::vector<Case> closed_cases() {
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
inline std::vector<Case> no_tunnel_cases() {
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

}  // namespace l7mark::test
