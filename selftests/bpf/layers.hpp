// SPDX-License-Identifier: GPL-2.0-only
// Headers to put around the packets of ../unit/packets.hpp: each function takes what comes inside.
#pragma once

#include <initializer_list>
#include <utility>

#include "../unit/packets.hpp"

namespace l7mark::test {

inline Bytes macs() {
  return {0x02, 0, 0, 0, 0, 0x02, 0x02, 0, 0, 0, 0, 0x01};
}

inline Bytes frame(unsigned type, const Bytes& inside) {
  Bytes out = macs();
  put16(out, type);
  put(out, inside);
  return out;
}

inline unsigned ether_type(const Bytes& packet) {
  return packet[0] >> 4 == 6 ? 0x86dd : 0x0800;
}

// Pairs of protocol identifier and VLAN.
inline Bytes tagged(std::initializer_list<std::pair<unsigned, unsigned>> tags,
                    const Bytes& packet) {
  Bytes out = macs();
  for (const auto& [identifier, vlan] : tags) {
    put16(out, identifier);
    put16(out, vlan);
  }
  put16(out, ether_type(packet));
  put(out, packet);
  return out;
}

// RFC 1042.
inline Bytes snap(const Bytes& packet) {
  Bytes inside{0xaa, 0xaa, 0x03, 0, 0, 0};
  put16(inside, ether_type(packet));
  put(inside, packet);
  return frame(static_cast<unsigned>(inside.size()), inside);
}

inline Bytes pppoe(const Bytes& packet) {
  Bytes inside{0x11, 0, 0, 1};
  put16(inside, static_cast<unsigned>(packet.size() + 2));
  put16(inside, packet[0] >> 4 == 6 ? 0x0057 : 0x0021);
  put(inside, packet);
  return frame(0x8864, inside);
}

inline Bytes mpls(unsigned labels, const Bytes& packet) {
  Bytes inside;
  for (unsigned i = 1; i <= labels; ++i)
    put32(inside, (16 + i) << 12 | (i == labels ? 0x100U : 0U) | 64);
  put(inside, packet);
  return frame(0x8847, inside);
}

// A packet of IPv4 with `words` words of options.
inline Bytes with_options(Bytes packet, unsigned words) {
  packet.insert(packet.begin() + 20, words * 4, 0x01);
  packet[0] = static_cast<std::uint8_t>(0x45 + words);
  const unsigned length = packet[2] * 256U + packet[3] + words * 4;
  packet[2] = static_cast<std::uint8_t>(length >> 8);
  packet[3] = static_cast<std::uint8_t>(length);
  return packet;
}

// IPv4 fragment; `offset` in bytes.
inline Bytes fragment4(Bytes packet, unsigned id, unsigned offset, bool more) {
  packet[4] = static_cast<std::uint8_t>(id >> 8);
  packet[5] = static_cast<std::uint8_t>(id);
  const unsigned field = (more ? 0x2000U : 0U) | offset / 8;
  packet[6] = static_cast<std::uint8_t>(field >> 8);
  packet[7] = static_cast<std::uint8_t>(field);
  return packet;
}

struct Extension {
  std::uint8_t protocol;
  Bytes bytes;  // the first one is overwritten with what follows
};

inline Extension hop_by_hop() {
  return {0, {0, 0, 1, 4, 0, 0, 0, 0}};
}
inline Extension destination_options(std::uint8_t more = 0) {
  Bytes bytes((more + 1U) * 8, 0);
  bytes[1] = more;
  bytes[2] = 1;
  return {60, bytes};
}
inline Extension routing() {
  Bytes bytes(24, 0);
  bytes[1] = 2;
  bytes[2] = 4;
  return {43, bytes};
}
// RFC 4302: length in words, less two.
inline Extension authentication() {
  Bytes bytes(24, 0x77);
  bytes[1] = 4;
  return {51, bytes};
}
inline Extension fragment6(std::uint32_t id, unsigned offset, bool more) {
  Bytes bytes{0, 0};
  put16(bytes, offset | (more ? 1U : 0U));
  put32(bytes, id);
  return {44, bytes};
}

// Puts extension headers into a packet of IPv6.
inline Bytes extended(const Bytes& packet, const std::vector<Extension>& extensions) {
  Bytes chain;
  for (std::size_t i = 0; i < extensions.size(); ++i) {
    const std::size_t at = chain.size();
    put(chain, extensions[i].bytes);
    chain[at] = i + 1 < extensions.size() ? extensions[i + 1].protocol : packet[6];
  }
  Bytes out = packet;
  if (!extensions.empty()) out[6] = extensions[0].protocol;
  const unsigned length = static_cast<unsigned>(packet.size() - 40 + chain.size());
  out[4] = static_cast<std::uint8_t>(length >> 8);
  out[5] = static_cast<std::uint8_t>(length);
  out.insert(out.begin() + 40, chain.begin(), chain.end());
  return out;
}

// Tunnels: whole IP packets around `packet`.
inline Bytes tunnelled(const Endpoints& outer, const Bytes& packet) {
  return ip(outer, packet[0] >> 4 == 6 ? L7M_PROTO_IPV6 : L7M_PROTO_IPIP, packet);
}
// RFC 2784; flags 0x2000 for a key, 0x1000 for a sequence number, 0x8000 for a checksum.
inline Bytes gre(const Endpoints& outer, unsigned flags, const Bytes& packet) {
  Bytes inside;
  put16(inside, flags);
  put16(inside, ether_type(packet));
  for (const unsigned flag : {0x8000U, 0x2000U, 0x1000U})
    if (flags & flag) put32(inside, 7);
  put(inside, packet);
  return ip(outer, L7M_PROTO_GRE, inside);
}
inline Bytes gre_ethernet(const Endpoints& outer, unsigned flags, const Bytes& frame) {
  Bytes inside;
  put16(inside, flags);
  put16(inside, 0x6558);
  if (flags & 0x2000U) put32(inside, 7);
  put(inside, frame);
  return ip(outer, L7M_PROTO_GRE, inside);
}
// `extensions`: the headers behind the first, each with the type of the next as its last byte; the
// first is of type 0x85.
inline Bytes gtpu(Endpoints outer, bool sequence, const Bytes& packet,
                  const Bytes& extensions = {}) {
  outer.dport = 2152;
  const bool numbered = sequence || !extensions.empty();
  Bytes inside{static_cast<std::uint8_t>(extensions.empty() ? (sequence ? 0x32 : 0x30) : 0x34),
               0xff};
  put16(inside, static_cast<unsigned>(packet.size() + extensions.size() + (numbered ? 4 : 0)));
  put32(inside, 0x1234);
  if (numbered) put32(inside, extensions.empty() ? 0x00010000 : 0x00000085);
  put(inside, extensions);
  put(inside, packet);
  return udp(outer, inside);
}
inline Bytes vxlan(Endpoints outer, const Bytes& packet) {
  outer.dport = 4789;
  Bytes inside{0x08, 0, 0, 0, 0, 0, 7, 0};
  put(inside, ethernet(packet));
  return udp(outer, inside);
}

// A transport that is nothing but its two ports and `more` bytes.
inline Bytes ported(const Endpoints& ends, std::uint8_t protocol, std::size_t more) {
  Bytes transport;
  put16(transport, ends.sport);
  put16(transport, ends.dport);
  transport.resize(transport.size() + more, 0x42);
  return ip(ends, protocol, transport);
}

}  // namespace l7mark::test
