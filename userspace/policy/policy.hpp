// SPDX-License-Identifier: GPL-2.0-only
// A policy as read from its file: what to attach to, how much to sample, and the classes with what
// they match and what they do. Everything in it has been checked. The format is described by
// packaging/l7mark-policy.schema.json.
#pragma once

#include <l7mark/types.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policy/catalog.hpp"
#include "util/address.hpp"
#include "util/result.hpp"

namespace l7mark {

// Numbers of a policy's own applications begin here, above all of nDPI's.
inline constexpr std::uint16_t kFirstOwnApplication = 0xf000;
// Stands in a match for names that the classifier lacks. No flow and no own application has it, so
// that a match of such names alone matches nothing.
inline constexpr std::uint16_t kAbsentApplication = 0xffff;
// Two generations of so many single classes fit the kernel's table of actions.
inline constexpr std::size_t kMaxClasses = 2000;

// auto takes native XDP where a hardware driver runs it, else TC.
enum class AttachMode : std::uint8_t { automatic, native, generic, tc };

struct InterfaceConfig {
  std::string name;
  AttachMode mode = AttachMode::automatic;
  std::uint16_t conntrack_zone = 0;  // in which conntrack tracks the interface's flows
};

// Raises or lowers the sample of flows whose first answer is one of `applications`.
struct SamplingOverride {
  std::vector<std::uint16_t> applications;
  std::uint8_t packets = 0;
  std::optional<std::uint8_t> whole;  // nothing: as the flow has it already
};

struct SamplingConfig {
  std::uint8_t packets = 8;      // payload packets copied of a flow
  std::uint8_t whole = 4;        // of them, how many up to whole_snaplen
  std::uint8_t whole_plain = 4;  // the same of flows that begin with no TLS or QUIC handshake
  std::uint32_t snaplen = 128;
  std::uint32_t whole_snaplen = L7M_MAX_SNAPLEN;
  // Bytes of each side's first flight of TLS, DTLS or QUIC, whatever its packets: a post-quantum
  // ClientHello is 1.7 to 1.9 kB, and no TLS record is longer than this.
  std::uint32_t handshake = L7M_MAX_FLIGHT;
  // Bytes a second that one source's flights may have copied beyond what the numbers above allow:
  // the second segments of some 2,000 hellos of today's browsers.
  std::uint32_t handshake_budget = 1U << 20;
  // Bytes a second that the flows of one source may have copied, 0: no limit. A browser's page is
  // some hundred flows of 8 kB; this is five such pages, and half of a worker's ring.
  std::uint32_t source_budget = 4U << 20;
  // The same of all flows begun from outside together: four sources, and two rings.
  std::uint32_t outside_budget = 16U << 20;
  std::uint32_t idle_timeout = 3;  // seconds without a packet after which a flow is given up
  // A flow without an answer of its own is sampled again at its packets 16, 32, 64, … up to this
  // one, and after a pause in its first ones; 0: never.
  std::uint32_t look_again = 1024;
  std::vector<SamplingOverride> overrides;

  // How many packets a flow may have whole that is sampled anew, from what its candidate has: that
  // tells how the flow began.
  [[nodiscard]] std::uint8_t whole_of(std::uint8_t candidate) const {
    return candidate <= whole_plain ? std::min(whole, whole_plain) : whole;
  }

  // The override that holds for an application, or nullptr.
  [[nodiscard]] const SamplingOverride* override_for(std::uint16_t application) const;
};

// Map sizes, entries; ring_bytes is a power of two. Unprotected are flows without an answer of
// their own, and those that only one endpoint sends packets of.
struct Limits {
  std::uint32_t flows = L7M_DEFAULT_FLOWS;
  std::uint32_t unprotected = 50;  // percent of them
  std::uint32_t candidates = L7M_DEFAULT_CANDIDATES;
  std::uint32_t services = L7M_DEFAULT_SERVICES;
  std::uint32_t hints = L7M_DEFAULT_HINTS;
  std::uint32_t ring_bytes = L7M_DEFAULT_RING_BYTES;
};

// Seconds without a packet after which a flow's verdict is forgotten.
struct Timeouts {
  std::uint32_t tcp = 7440;  // RFC 5382, REQ-5
  std::uint32_t udp = 300;   // RFC 4787, REQ-5
  std::uint32_t other = 600;
  std::uint32_t closed = 10;      // after FIN or RST
  std::uint32_t unanswered = 60;  // one endpoint's packets only, and no answer of its own
};

struct FirstPacket {
  bool services = true;
  bool hints = true;
  std::uint32_t timeout = 600;  // seconds that a service is remembered after its last answer
  std::uint32_t recheck = 600;  // seconds between two flows that pass a service's drop; 0: none
  std::vector<Prefix> private_hints;  // private addresses that DNS answers may name all the same
};

// Lines of flows whose class says `log`.
struct LogConfig {
  std::uint32_t rate = 50;  // a second at most
};

// Of VLAN ids in a flow's key: tenants in VLANs of their own may have the same addresses.
enum class VlanUse : std::uint8_t { key, ignore };

struct Decapsulation {
  bool gre = false;
  bool ipip = false;
  bool gtpu = false;
  bool vxlan = false;
};

// value has no bit outside mask.
struct MaskedValue {
  std::uint32_t value = 0;
  std::uint32_t mask = 0;
  friend bool operator==(const MaskedValue&, const MaskedValue&) = default;
};

// Bits of skb->mark that tell a flow's state; mask 0 where the policy has none.
struct StateMarks {
  std::uint32_t mask = 0;
  std::array<std::uint32_t, L7M_STATES> values{};  // by l7m_state, within mask
  std::uint32_t conntrack_mask = 0;  // of mask: bits written to the conntrack mark as well
};

// "example.org" (exact), or "*.example.org": every name below it, but not itself.
struct HostPattern {
  std::string name;  // lower case, without "*."
  bool suffix = false;
};

struct PortRange {
  std::uint16_t first = 0;
  std::uint16_t last = 0;
};

using MacAddress = std::array<std::uint8_t, 6>;

// (hosts or addresses) and ports; what is empty does not count.
struct OwnApplication {
  std::string name;
  std::uint16_t id = 0;  // kFirstOwnApplication and up
  std::vector<HostPattern> hosts;
  std::vector<Prefix> addresses;  // of the server
  std::vector<PortRange> ports;   // of the server
};

struct ScoreRange {
  std::uint32_t min = 0;
  std::uint32_t max = UINT32_MAX;
};

// All that is set must hold; of a list, any. Without anything set it matches every flow.
struct Match {
  std::vector<std::uint16_t> applications;  // nDPI's and own
  std::vector<std::uint16_t> masters;
  std::vector<std::uint16_t> categories;
  std::uint64_t risks = 0;  // bits; any of them
  std::optional<ScoreRange> risk_score;
  std::vector<HostPattern> hostnames;
  std::vector<Prefix> servers;
  std::vector<PortRange> server_ports;
  std::vector<Prefix> clients;
  std::vector<MacAddress> client_macs;
  std::vector<std::string> interfaces;
  std::uint8_t ip_version = 0;             // 4, 6, or 0 for both
  std::vector<std::uint8_t> transports;    // IPPROTO_*
  std::uint8_t tls_versions = 0;           // bits by TlsVersion
  std::vector<std::uint16_t> tls_ciphers;  // IANA numbers
  std::vector<std::string> alpn;           // patterns of offered protocols, lower case
  std::vector<std::string> ja4;            // patterns, lower case
  std::optional<bool> ech;
  std::uint8_t confidences = 0;  // bits by Confidence
  std::uint8_t states = 0;       // bits by FlowState
  std::optional<bool> midstream;
  std::vector<Match> any;
  std::vector<Match> all;
  std::vector<Match> none;  // "not": none of them

  [[nodiscard]] bool matches_all() const;
};

// Order of the bits in Match::tls_versions. DTLS 1.0 counts as TLS 1.1, which it was made from (RFC
// 4347), DTLS 1.2 and 1.3 as their namesakes.
enum class TlsVersion : std::uint8_t { ssl2, ssl3, tls10, tls11, tls12, tls13 };

// In local time (the C library's: TZ or /etc/localtime) unless utc_offset is given.
struct Schedule {
  std::uint8_t days = 0x7f;                // bit 0 is Sunday, as in struct tm
  std::uint16_t from = 0;                  // minutes since midnight
  std::uint16_t to = 24 * 60;              // exclusive; below `from` it is the next day's
  std::optional<std::int16_t> utc_offset;  // minutes east of UTC
};

struct IpsetAction {
  std::string name;  // IPv4's; IPv6's has "6" behind it
  std::string type = "hash:ip,port,ip";
  std::uint32_t timeout = 600;  // seconds, 0 for none
  std::uint32_t maxelem = 65536;
  std::uint32_t hashsize = 0;  // 0: by maxelem, see ipset_hashsize()
  bool counters = false;
  bool comment = false;
  bool skbinfo = false;
  bool delete_on_end = false;  // take a flow's element out when the flow ends
  friend bool operator==(const IpsetAction&, const IpsetAction&) = default;
};

struct NftsetAction {
  std::string family = "inet";  // inet, ip or ip6
  std::string table = "l7mark";
  std::string name;             // IPv4's; IPv6's has "6" behind it
  std::uint32_t timeout = 600;  // seconds, 0 for none
  std::uint32_t size = 65536;
  bool create_table = true;
  bool delete_on_end = false;
  friend bool operator==(const NftsetAction&, const NftsetAction&) = default;
};

struct ConntrackAction {
  std::optional<MaskedValue> mark;
  std::bitset<128> labels;
};

struct Actions {
  std::optional<MaskedValue> mark;
  std::optional<std::uint8_t> dscp;
  std::optional<std::uint32_t> priority;
  std::optional<std::uint32_t> tc_class;  // major << 16 | minor
  bool drop = false;
  bool allow = false;  // a class further down can't drop it any more
  bool log = false;
  std::optional<IpsetAction> ipset;
  std::optional<NftsetAction> nftset;
  std::optional<ConntrackAction> conntrack;
};

struct PolicyClass {
  std::string name;
  Match match;
  std::vector<Match> except;        // not if any of them matches
  std::vector<Schedule> schedules;  // within any of them; empty for always
  bool proceed = false;             // "continue": look at the classes behind it as well
  Actions actions;
};

struct MarkBits {
  std::uint32_t packet = 0;     // of skb->mark
  std::uint32_t conntrack = 0;  // of the conntrack mark
};

struct Policy {
  std::string file;
  std::vector<InterfaceConfig> interfaces;
  SamplingConfig sampling;
  std::uint32_t workers = 1;
  Limits limits;
  Timeouts timeouts;
  std::vector<Prefix> inside;  // RFC 1918, RFC 6598, RFC 4193 and link-local if not given
  FirstPacket first_packet;
  LogConfig log;
  Decapsulation decapsulate;
  VlanUse vlan = VlanUse::key;
  StateMarks state_marks;
  std::string protocols_file;  // absolute, or relative to the working directory; empty for none
  std::vector<OwnApplication> applications;
  std::vector<Match> exemptions;  // flows that get no class
  std::vector<PolicyClass> classes;
  std::vector<std::string> warnings;  // one line each, with file, line and column

  // The error names the nearest class names.
  [[nodiscard]] Result<std::size_t> find_class(std::string_view name) const;
  // Bits of skb->mark that any class sets, those of its state not among them.
  [[nodiscard]] std::uint32_t class_mark_bits() const;
  // All bits that any flow of this policy may have changed.
  [[nodiscard]] MarkBits touched_mark_bits() const;
  // One flow may have another class than the same of another client: by its address, its MAC
  // address, or the interface.
  [[nodiscard]] bool depends_on_client() const;
  [[nodiscard]] l7m_settings settings() const;
};

// A policy for another version of nDPI may name an application that this classifier does not know:
// `warn` goes on without it.
enum class UnknownApplications : std::uint8_t { warn, fail };

// `file` is for messages and for the directory that protocols_file is relative to. Errors name
// file, line, column and the JSON path: "classes[2].match.applications[0]".
[[nodiscard]] Result<Policy> parse_policy(std::string_view text, const std::string& file,
                                          const Catalog& catalog,
                                          UnknownApplications unknown = UnknownApplications::warn);
[[nodiscard]] Result<Policy> load_policy(const std::string& path, const Catalog& catalog,
                                         UnknownApplications unknown = UnknownApplications::warn);

// "protocols_file" alone, empty if there is none: the classifier must have read that file before
// its catalog, which load_policy needs, is complete.
[[nodiscard]] Result<std::string> load_protocols_file_setting(const std::string& path);

// The parser's keys by the object that holds them ("policy", "class", "match", …), for the test
// that compares them with the JSON Schema.
struct KeyTable {
  std::string object;
  std::vector<std::string> keys;
  std::vector<std::string> required;  // of them
};
[[nodiscard]] std::vector<KeyTable> policy_key_tables();

}  // namespace l7mark
