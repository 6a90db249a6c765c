// SPDX-License-Identifier: GPL-2.0-only
// Packets and sample records for tests of what looks into them. Addresses are of the ranges for
// documentation unless a test says otherwise.
#pragma once

#include <l7mark/parse.h>
#include <l7mark/types.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "util/address.hpp"

namespace l7mark::test {

using Bytes = std::vector<std::uint8_t>;

inline void put16(Bytes& out, unsigned value) {
  out.push_back(static_cast<std::uint8_t>(value >> 8));
  out.push_back(static_cast<std::uint8_t>(value));
}
inline void put32(Bytes& out, std::uint32_t value) {
  put16(out, value >> 16);
  put16(out, value & 0xffff);
}
inline void put(Bytes& out, std::string_view text) {
  out.insert(out.end(), text.begin(), text.end());
}
inline void put(Bytes& out, const Bytes& more) {
  out.insert(out.end(), more.begin(), more.end());
}

struct Endpoints {
  std::string source = "192.0.2.10";
  std::string destination = "198.51.100.20";
  std::uint16_t sport = 40000;
  std::uint16_t dport = 443;

  [[nodiscard]] Endpoints reversed() const { return {destination, source, dport, sport}; }
};

// An IP packet of either version, by the way the source is written.
inline Bytes ip(const Endpoints& ends, std::uint8_t protocol, const Bytes& transport) {
  const Address from = *Address::parse(ends.source);
  const Address to = *Address::parse(ends.destination);
  Bytes out;
  if (ends.source.find(':') == std::string::npos) {
    put16(out, 0x4500);
    put16(out, static_cast<unsigned>(20 + transport.size()));
    put32(out, 0);
    put16(out, 0x4000 | protocol);
    out[8] = 64;
    put16(out, 0);
    out.insert(out.end(), from.bytes.begin() + 12, from.bytes.end());
    out.insert(out.end(), to.bytes.begin() + 12, to.bytes.end());
  } else {
    put32(out, 0x60000000);
    put16(out, static_cast<unsigned>(transport.size()));
    put16(out, static_cast<unsigned>(protocol << 8 | 64));
    out.insert(out.end(), from.bytes.begin(), from.bytes.end());
    out.insert(out.end(), to.bytes.begin(), to.bytes.end());
  }
  put(out, transport);
  return out;
}

inline Bytes udp(const Endpoints& ends, const Bytes& payload) {
  Bytes transport;
  put16(transport, ends.sport);
  put16(transport, ends.dport);
  put16(transport, static_cast<unsigned>(8 + payload.size()));
  put16(transport, 0);
  put(transport, payload);
  return ip(ends, L7M_PROTO_UDP, transport);
}

inline Bytes tcp(const Endpoints& ends, std::uint8_t flags, std::uint32_t seq, std::uint32_t ack,
                 const Bytes& payload = {}) {
  Bytes transport;
  put16(transport, ends.sport);
  put16(transport, ends.dport);
  put32(transport, seq);
  put32(transport, ack);
  put16(transport, 0x5000U | flags);
  put16(transport, 65535);
  put32(transport, 0);
  put(transport, payload);
  return ip(ends, L7M_PROTO_TCP, transport);
}

inline Bytes ethernet(const Bytes& packet) {
  Bytes out{0x02, 0, 0, 0, 0, 0x02, 0x02, 0, 0, 0, 0, 0x01};
  put16(out, packet[0] >> 4 == 6 ? 0x86dd : 0x0800);
  put(out, packet);
  return out;
}

inline Bytes from_hex(std::string_view digits) {
  const auto nibble = [](char c) {
    return static_cast<unsigned>(c <= '9' ? c - '0' : c - 'a' + 10);
  };
  Bytes out;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2)
    out.push_back(static_cast<std::uint8_t>(nibble(digits[i]) << 4 | nibble(digits[i + 1])));
  return out;
}

inline Bytes text(std::string_view payload) {
  return {payload.begin(), payload.end()};
}

// RFC 8446, 4.1.2 in a record of TLS 1.0, as browsers send it.
inline Bytes client_hello(std::string_view server_name) {
  Bytes name;
  put16(name, static_cast<unsigned>(server_name.size() + 3));
  name.push_back(0);
  put16(name, static_cast<unsigned>(server_name.size()));
  put(name, server_name);
  Bytes extensions;
  put16(extensions, 0);
  put16(extensions, static_cast<unsigned>(name.size()));
  put(extensions, name);
  put32(extensions, 0x00100005);  // ALPN: h2
  put(extensions, Bytes{0x00, 0x03, 0x02, 'h', '2'});
  Bytes hello;
  put16(hello, 0x0303);
  hello.insert(hello.end(), 32, 0x5a);
  hello.push_back(0);
  put(hello, Bytes{0x00, 0x06, 0x13, 0x01, 0xc0, 0x2f, 0xc0, 0x30, 0x01, 0x00});
  put16(hello, static_cast<unsigned>(extensions.size()));
  put(hello, extensions);
  Bytes out{0x16, 0x03, 0x01};
  put16(out, static_cast<unsigned>(hello.size() + 4));
  out.push_back(0x01);
  out.push_back(0);
  put16(out, static_cast<unsigned>(hello.size()));
  put(out, hello);
  return out;
}

inline Bytes dns_name(std::string_view name) {
  Bytes out;
  while (!name.empty()) {
    const auto dot = name.find('.');
    const std::string_view label = name.substr(0, dot);
    out.push_back(static_cast<std::uint8_t>(label.size()));
    put(out, label);
    name = dot == std::string_view::npos ? std::string_view() : name.substr(dot + 1);
  }
  out.push_back(0);
  return out;
}

inline Bytes dns_query(std::uint16_t id, std::string_view name, std::uint16_t type) {
  Bytes out;
  put16(out, id);
  put16(out, 0x0100);
  put16(out, 1);
  put16(out, 0);
  put32(out, 0);
  put(out, dns_name(name));
  put16(out, type);
  put16(out, 1);
  return out;
}

// One record, its name a pointer to the question's.
struct DnsRecord {
  std::uint16_t type;
  std::uint32_t ttl;
  Bytes data;
  Bytes owner{0xc0, 0x0c};
};

inline Bytes dns_response(std::uint16_t id, std::string_view name, std::uint16_t type,
                          const std::vector<DnsRecord>& records) {
  Bytes out = dns_query(id, name, type);
  out[2] = 0x81;
  out[3] = 0x80;
  out[6] = static_cast<std::uint8_t>(records.size() >> 8);
  out[7] = static_cast<std::uint8_t>(records.size());
  for (const DnsRecord& record : records) {
    put(out, record.owner);
    put16(out, record.type);
    put16(out, 1);
    put32(out, record.ttl);
    put16(out, static_cast<unsigned>(record.data.size()));
    put(out, record.data);
  }
  return out;
}

// What the kernel would send of an IP packet behind an Ethernet header. Fields that a test is about
// are changed in `head` before bytes() is called.
struct Sample {
  Bytes frame;
  l7m_sample head{};  // last: it ends in an array without a size

  explicit Sample(const Bytes& packet, std::uint64_t time_ns = 1, std::uint64_t id = 1,
                  std::size_t snaplen = 4096)
      : frame(ethernet(packet)) {
    l7m_packet parsed{};
    const std::uint8_t* start = frame.data();
    l7m_cursor cursor{start, start + frame.size(), 0, nullptr, 0};
    const int result = l7m_parse(&cursor, &parsed, 0, static_cast<std::uint32_t>(frame.size()), 0);
    if (result != L7M_PARSE_OK) return;
    l7m_map_ipv4(&parsed);
    head.type = L7M_RECORD_SAMPLE;
    head.time_ns = time_ns;
    head.direction = static_cast<std::uint8_t>(l7m_make_key(&parsed, &head.key));
    head.initiator = head.direction;
    head.flow_id = id;
    head.wire_length = static_cast<std::uint32_t>(frame.size());
    head.l3_offset = parsed.l3_offset;
    head.l3_length = parsed.l3_length;
    head.l4_payload = static_cast<std::uint16_t>(parsed.payload);
    head.l2 = 1;
    head.sequence = parsed.sequence;
    if (frame.size() > snaplen) frame.resize(snaplen);
    head.captured = static_cast<std::uint32_t>(frame.size());
    head.wanted = static_cast<std::uint16_t>(frame.size());
  }

  [[nodiscard]] std::vector<std::byte> bytes() const {
    std::vector<std::byte> out(sizeof(head) + frame.size());
    std::memcpy(out.data(), &head, sizeof(head));
    if (!frame.empty()) std::memcpy(out.data() + sizeof(head), frame.data(), frame.size());
    return out;
  }

  // All of a long packet, in as many records as the kernel makes of it.
  static std::vector<Sample> in_parts(const Bytes& packet, std::uint64_t time_ns = 1,
                                      std::uint64_t id = 1) {
    const Sample whole(packet, time_ns, id, 65535);
    std::vector<Sample> out;
    for (std::size_t at = 0; at < whole.frame.size(); at += L7M_MAX_SNAPLEN) {
      Sample part = whole;
      const auto from = whole.frame.begin() + static_cast<std::ptrdiff_t>(at);
      const std::size_t size = std::min<std::size_t>(L7M_MAX_SNAPLEN, whole.frame.size() - at);
      part.frame.assign(from, from + static_cast<std::ptrdiff_t>(size));
      part.head.offset = static_cast<std::uint16_t>(at);
      part.head.captured = static_cast<std::uint32_t>(size);
      out.push_back(std::move(part));
    }
    return out;
  }
};

}  // namespace l7mark::test
