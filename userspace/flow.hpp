// SPDX-License-Identifier: GPL-2.0-only
// What the parts of the library tell each other about a flow: dpi writes it, policy reads it,
// publish and daemon act on it.
#pragma once

#include <l7mark/types.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "util/address.hpp"
#include "util/keyed_hash.hpp"

namespace l7mark {

enum class FlowState : std::uint8_t {
  undecided = L7M_STATE_UNDECIDED,
  provisional = L7M_STATE_PROVISIONAL,
  guessed = L7M_STATE_GUESSED,
  final = L7M_STATE_FINAL,
};

[[nodiscard]] constexpr std::string_view to_string(FlowState state) {
  switch (state) {
    case FlowState::undecided:
      return "undecided";
    case FlowState::provisional:
      return "provisional";
    case FlowState::guessed:
      return "guessed";
    case FlowState::final:
      return "final";
  }
  return "undecided";
}

// How sure a flow's own answer is, in the order of growing trust; `none` where it has no answer.
enum class Confidence : std::uint8_t {
  none,
  port,      // guessed by the port
  address,   // guessed by the server's address
  cache,     // another flow of the same hosts was this
  dpi,       // by what its packets say
  detector,  // by a detector of l7mark's own
};
inline constexpr std::uint8_t kConfidences = 6;

[[nodiscard]] constexpr std::string_view to_string(Confidence confidence) {
  switch (confidence) {
    case Confidence::none:
      return "none";
    case Confidence::port:
      return "port";
    case Confidence::address:
      return "address";
    case Confidence::cache:
      return "cache";
    case Confidence::dpi:
      return "dpi";
    case Confidence::detector:
      return "detector";
  }
  return "none";
}

// An answer of the flow's own packets. All others are guesses, and `none` is no answer at all.
[[nodiscard]] constexpr bool is_own(Confidence confidence) {
  return confidence == Confidence::dpi || confidence == Confidence::detector;
}

// The source of what a flow is taken for; `none` while there is none.
enum class Source : std::uint8_t {
  none,
  answer,   // what was found in the flow's own packets
  guess,    // its port, its address, or another flow of its hosts
  headers,  // a class that needs nothing but headers
  service,  // service memory: earlier flows of the client to the same service
  dns,      // a DNS answer that named the server
  manual,   // whoever wrote the verdict into the kernel's map by hand
};
inline constexpr std::size_t kSources = 7;

[[nodiscard]] constexpr std::string_view to_string(Source source) {
  switch (source) {
    case Source::none:
      return "none";
    case Source::answer:
      return "answer";
    case Source::guess:
      return "guess";
    case Source::headers:
      return "headers";
    case Source::service:
      return "service";
    case Source::dns:
      return "dns";
    case Source::manual:
      return "manual";
  }
  return "none";
}

// The detector that named the application where nDPI had no name for it; see userspace/detectors.
enum class Detector : std::uint8_t { none, openvpn, wireguard };
inline constexpr std::uint8_t kDetectors = 3;

// Empty for none.
[[nodiscard]] constexpr std::string_view to_string(Detector detector) {
  switch (detector) {
    case Detector::openvpn:
      return "openvpn";
    case Detector::wireguard:
      return "wireguard";
    case Detector::none:
      break;
  }
  return {};
}

// Equality and hash over all bytes: keys are zeroed in full wherever they are made.
struct FlowKey {
  l7m_key raw{};
  friend bool operator==(const FlowKey& a, const FlowKey& b) {
    return std::memcmp(&a.raw, &b.raw, sizeof(a.raw)) == 0;
  }
  [[nodiscard]] Address address(int endpoint) const {
    Address out;
    std::memcpy(out.bytes.data(), raw.addr[endpoint], out.bytes.size());
    return out;
  }
  // Host byte order.
  [[nodiscard]] std::uint16_t port(int endpoint) const {
    return __builtin_bswap16(raw.port[endpoint]);
  }
  // Ids of the outer and the inner VLAN tag; 0 for none, and where keys have none.
  [[nodiscard]] std::uint16_t vlan() const {
    return static_cast<std::uint16_t>(raw.vlan[0] << 4 | raw.vlan[1] >> 4);
  }
  [[nodiscard]] std::uint16_t inner_vlan() const {
    return static_cast<std::uint16_t>((raw.vlan[1] & 0x0f) << 8 | raw.vlan[2]);
  }
};

// Metadata that few flows have and few readers need; empty where nDPI found none.
struct FlowDetails {
  std::string alpn;         // TLS: ALPN of the client, "h2,http/1.1"
  std::string ja3_client;   // hex MD5
  std::string ja3_server;   // hex MD5
  std::string ja4_client;   // of the ClientHello
  std::string tls_cipher;   // name of the suite that the server chose
  std::string tls_subject;  // certificate's subject
  std::string tls_issuer;
  std::string user_agent;           // HTTP
  std::string http_url;             // host and path
  std::string dns_query;            // name asked for
  std::string bittorrent_hash;      // hex
  std::string address_owner;        // application that the server's address belongs to
  std::uint16_t tls_version = 0;    // 0x0303 is TLS 1.2 (RFC 8446, 4.2.1)
  std::uint16_t tls_cipher_id = 0;  // IANA number
  std::int64_t tls_not_before = 0;  // seconds since 1970, 0 if not seen
  std::int64_t tls_not_after = 0;
  bool ech = false;  // the ClientHello has the extension encrypted_client_hello

  // Only a ClientHello that was read whole has a JA4: without one, `ech` says nothing.
  [[nodiscard]] bool client_hello_seen() const { return ech || !ja4_client.empty(); }
};

// What is known of a flow for matching. Ports in host byte order, 0 where there are none.
struct FlowFacts {
  Address client;  // who opened the flow, as far as is known
  Address server;
  std::uint16_t client_port = 0;
  std::uint16_t server_port = 0;
  std::uint8_t protocol = 0;  // IPPROTO_*
  bool midstream = false;     // under way before we saw it

  std::uint16_t application = 0;  // nDPI's numbers; 0 for unknown
  std::uint16_t master = 0;       // equals application where there is but one
  std::uint16_t category = 0;
  Confidence confidence = Confidence::none;
  std::uint64_t risks = 0;  // bit per ndpi_risk_enum, and those of dpi/own_risks.hpp
  std::uint32_t risk_score = 0;
  Detector detector = Detector::none;
  std::string hostname;  // SNI, HTTP host, DNS query name, …; lower case
  FlowDetails details;

  std::uint32_t ifindex = 0;
  std::uint16_t vlan = 0;                           // 0 for none
  std::uint8_t client_mac[6] = {0, 0, 0, 0, 0, 0};  // all 0 if not known

  [[nodiscard]] bool answered() const { return application != 0 || master != 0; }
  [[nodiscard]] bool own_answer() const { return answered() && is_own(confidence); }
};

// An answer of a classifier about one flow.
struct Answer {
  FlowKey key;
  std::uint64_t id = 0;  // l7m_candidate.flow_id: the life that it is about
  std::uint8_t initiator = 0;
  FlowState state = FlowState::undecided;
  bool closed = false;      // FIN or RST was seen
  bool followed = false;    // the last word, but DNS: its samples are read on for the names in them
  std::uint16_t flags = 0;  // L7M_FLOW_*, as of the last sample
  FlowFacts facts;
  std::uint32_t sampled_packets = 0;  // copied so far
  std::uint64_t sampled_bytes = 0;
  l7m_counters count{};        // as of the last sample
  std::uint64_t first_ns = 0;  // CLOCK_MONOTONIC, or capture time in classify
  std::uint64_t last_ns = 0;
  std::string name;  // as ndpiReader prints it: "TLS.Zoom", "DNS"
};

[[nodiscard]] inline l7m_counters wide(const l7m_candidate_counters& count) {
  return {{count.packets[0], count.packets[1]}, {count.bytes[0], count.bytes[1]}};
}

// What of a flow's counters a candidate has; it is let go long before they are too long for that.
[[nodiscard]] inline l7m_candidate_counters narrow(const l7m_counters& count) {
  return {
      {count.bytes[0], count.bytes[1]},
      {static_cast<std::uint32_t>(count.packets[0]), static_cast<std::uint32_t>(count.packets[1])}};
}

// Names resolved by a DNS answer that passed by.
struct DnsAnswer {
  Address client;                            // who had asked
  std::array<std::uint8_t, 6> client_mac{};  // all 0 if not known
  std::uint32_t ifindex = 0;
  std::string name;
  std::vector<Address> addresses;
  std::uint32_t ttl = 0;  // seconds, the least of the records'
};

}  // namespace l7mark

template <>
struct std::hash<l7mark::FlowKey> {
  // Not noexcept: the standard tables then keep the hashes instead of reckoning them anew.
  std::size_t operator()(const l7mark::FlowKey& key) const {
    return l7mark::keyed_hash_of(key.raw);
  }
};
