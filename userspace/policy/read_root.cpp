// SPDX-License-Identifier: GPL-2.0-only
// The settings of a policy that are not classes.
#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <filesystem>

#include "policy/reader.hpp"
#include "util/text.hpp"

namespace l7mark {

void read_protocols_file(PolicyReader& reader, const JsonNode& node, Policy& out) {
  const std::string wanted = reader.text(node);
  const auto path = std::filesystem::path(out.file).parent_path() / wanted;
  if (wanted.empty() || wanted.find('\0') != std::string::npos || access(path.c_str(), R_OK) != 0)
    reader.fail(node, fmt::format("cannot read \"{}\"", path.string()));
  out.protocols_file = path.string();
}

namespace {

constexpr std::uint32_t kMaxEntries = 64U << 20;  // of a map: several GiB of kernel memory
constexpr std::uint32_t kMaxSeconds = 7 * 86400;

template <std::uint32_t Min, std::uint32_t Max, class T, std::uint32_t T::*Member>
void read_u32(PolicyReader& reader, const JsonNode& node, T& out) {
  out.*Member = static_cast<std::uint32_t>(reader.number(node, Min, Max));
}

constexpr std::pair<std::string_view, AttachMode> kModes[] = {
    {"auto", AttachMode::automatic},
    {"native", AttachMode::native},
    {"generic", AttachMode::generic},
    {"tc", AttachMode::tc},
};

void read_interface_name(PolicyReader& reader, const JsonNode& node, InterfaceConfig& out) {
  out.name = reader.text(node);
  if (out.name.empty() || out.name.size() >= IFNAMSIZ ||
      out.name.find_first_of("/: \t\r\n") != std::string::npos)
    reader.fail(node, fmt::format("\"{}\" can't be the name of an interface", out.name));
  for (const auto& other : reader.policy().interfaces)
    if (other.name == out.name)
      reader.fail(node, fmt::format("interface \"{}\" is there already", out.name));
}

constexpr Field<InterfaceConfig> kInterfaceFields[] = {
    {"name", read_interface_name, true},
    {"mode", [](PolicyReader& r, const JsonNode& n,
                InterfaceConfig& i) { i.mode = r.one_of<AttachMode>(n, "mode", kModes); }},
    {"conntrack_zone",
     [](PolicyReader& r, const JsonNode& n, InterfaceConfig& i) {
       i.conntrack_zone = static_cast<std::uint16_t>(r.number(n, 0, UINT16_MAX));
     }},
};

constexpr Field<SamplingOverride> kOverrideFields[] = {
    {"applications",
     [](PolicyReader& r, const JsonNode& n, SamplingOverride& o) {
       o.applications = r.applications(n);
     },
     true},
    {"packets",
     [](PolicyReader& r, const JsonNode& n, SamplingOverride& o) {
       o.packets = static_cast<std::uint8_t>(r.number(n, 1, L7M_MAX_PACKETS));
     },
     true},
    {"whole",
     [](PolicyReader& r, const JsonNode& n, SamplingOverride& o) {
       o.whole = static_cast<std::uint8_t>(r.number(n, 0, o.packets));
     }},
};

void read_overrides(PolicyReader& reader, const JsonNode& node, SamplingConfig& out) {
  for (const JsonNode* element : reader.elements(node)) {
    SamplingOverride one;
    reader.object<SamplingOverride>(*element, kOverrideFields, one);
    out.overrides.push_back(std::move(one));
  }
}

constexpr Field<SamplingConfig> kSamplingFields[] = {
    {"packets",
     [](PolicyReader& r, const JsonNode& n, SamplingConfig& s) {
       s.packets = static_cast<std::uint8_t>(r.number(n, 1, L7M_MAX_PACKETS));
       s.whole = std::min(s.whole, s.packets);
     }},
    {"whole",
     [](PolicyReader& r, const JsonNode& n, SamplingConfig& s) {
       s.whole = static_cast<std::uint8_t>(r.number(n, 0, s.packets));
     }},
    {"whole_plain",
     [](PolicyReader& r, const JsonNode& n, SamplingConfig& s) {
       s.whole_plain = static_cast<std::uint8_t>(r.number(n, 0, 255));
     }},
    {"snaplen", read_u32<64, L7M_MAX_SNAPLEN, SamplingConfig, &SamplingConfig::snaplen>},
    {"whole_snaplen",
     read_u32<64, L7M_MAX_SNAPLEN, SamplingConfig, &SamplingConfig::whole_snaplen>},
    {"handshake", read_u32<0, L7M_MAX_FLIGHT, SamplingConfig, &SamplingConfig::handshake>},
    {"handshake_budget", read_u32<0, 1U << 30, SamplingConfig, &SamplingConfig::handshake_budget>},
    {"source_budget", read_u32<0, 1U << 30, SamplingConfig, &SamplingConfig::source_budget>},
    {"outside_budget", read_u32<0, 1U << 30, SamplingConfig, &SamplingConfig::outside_budget>},
    {"idle_timeout", read_u32<1, 3600, SamplingConfig, &SamplingConfig::idle_timeout>},
    {"look_again", read_u32<0, 32768, SamplingConfig, &SamplingConfig::look_again>},
    {"overrides", read_overrides},
};

void read_sampling(PolicyReader& reader, const JsonNode& node, Policy& out) {
  reader.object<SamplingConfig>(node, kSamplingFields, out.sampling);
  if (out.sampling.snaplen > out.sampling.whole_snaplen)
    reader.fail(node, fmt::format("\"snaplen\" is above \"whole_snaplen\", {}",
                                  out.sampling.whole_snaplen));
}

constexpr Field<Limits> kLimitsFields[] = {
    {"flows", read_u32<64, kMaxEntries, Limits, &Limits::flows>},
    {"unprotected", read_u32<1, 100, Limits, &Limits::unprotected>},
    {"candidates", read_u32<64, kMaxEntries, Limits, &Limits::candidates>},
    {"services", read_u32<64, kMaxEntries, Limits, &Limits::services>},
    {"hints", read_u32<64, kMaxEntries, Limits, &Limits::hints>},
    {"ring_bytes",
     [](PolicyReader& r, const JsonNode& n, Limits& l) {
       l.ring_bytes = static_cast<std::uint32_t>(r.number(n, 64U << 10, 1U << 30));
       if (!std::has_single_bit(l.ring_bytes))
         r.fail(n, fmt::format("must be a power of two: {} or {}", std::bit_floor(l.ring_bytes),
                               std::bit_ceil(l.ring_bytes)));
     }},
};

constexpr Field<Timeouts> kTimeoutFields[] = {
    {"tcp", read_u32<1, kMaxSeconds, Timeouts, &Timeouts::tcp>},
    {"udp", read_u32<1, kMaxSeconds, Timeouts, &Timeouts::udp>},
    {"other", read_u32<1, kMaxSeconds, Timeouts, &Timeouts::other>},
    {"closed", read_u32<1, 3600, Timeouts, &Timeouts::closed>},
    {"unanswered", read_u32<1, kMaxSeconds, Timeouts, &Timeouts::unanswered>},
};

constexpr Field<FirstPacket> kFirstPacketFields[] = {
    {"services",
     [](PolicyReader& r, const JsonNode& n, FirstPacket& f) { f.services = r.boolean(n); }},
    {"hints", [](PolicyReader& r, const JsonNode& n, FirstPacket& f) { f.hints = r.boolean(n); }},
    {"private_hints",
     [](PolicyReader& r, const JsonNode& n, FirstPacket& f) {
       for (const JsonNode* element : r.elements(n)) f.private_hints.push_back(r.prefix(*element));
     }},
    {"timeout", read_u32<1, kMaxSeconds, FirstPacket, &FirstPacket::timeout>},
    {"recheck", read_u32<0, kMaxSeconds, FirstPacket, &FirstPacket::recheck>},
};

constexpr Field<LogConfig> kLogFields[] = {
    {"rate", read_u32<0, 1'000'000, LogConfig, &LogConfig::rate>},
};

void read_decapsulate(PolicyReader& reader, const JsonNode& node, Policy& out) {
  using Member = bool Decapsulation::*;
  static constexpr std::pair<std::string_view, Member> kTunnels[] = {
      {"gre", &Decapsulation::gre},
      {"ipip", &Decapsulation::ipip},
      {"gtpu", &Decapsulation::gtpu},
      {"vxlan", &Decapsulation::vxlan},
  };
  if (node.kind != JsonNode::Kind::list) reader.fail(node, "must be a list in brackets");
  for (const JsonNode* element : node.children)
    out.decapsulate.*reader.one_of<Member>(*element, "tunnel", kTunnels) = true;
}

constexpr std::pair<std::string_view, VlanUse> kVlanUses[] = {
    {"key", VlanUse::key},
    {"ignore", VlanUse::ignore},
};

template <int State>
void read_state_mark(PolicyReader& reader, const JsonNode& node, StateMarks& out) {
  out.values[State] = reader.u32(node);
  if ((out.values[State] & ~out.mask) != 0)
    reader.fail(
        node, fmt::format("0x{:x} has bits outside the mask 0x{:x}", out.values[State], out.mask));
}

constexpr Field<StateMarks> kStateMarksFields[] = {
    {"mask",
     [](PolicyReader& r, const JsonNode& n, StateMarks& s) {
       s.mask = r.u32(n);
       if (s.mask == 0) r.fail(n, "a mask of 0 changes nothing");
     },
     true},
    {"undecided", read_state_mark<L7M_STATE_UNDECIDED>},
    {"provisional", read_state_mark<L7M_STATE_PROVISIONAL>},
    {"guessed", read_state_mark<L7M_STATE_GUESSED>},
    {"final", read_state_mark<L7M_STATE_FINAL>},
    {"conntrack_mask",
     [](PolicyReader& r, const JsonNode& n, StateMarks& s) {
       s.conntrack_mask = r.u32(n);
       if ((s.conntrack_mask & ~s.mask) != 0)
         r.fail(n,
                fmt::format("0x{:x} has bits outside the mask 0x{:x}", s.conntrack_mask, s.mask));
     }},
};

constexpr Field<OwnApplication> kOwnApplicationFields[] = {
    {"name",
     [](PolicyReader& r, const JsonNode& n, OwnApplication& a) {
       a.name = r.text(n);
       if (a.name.empty() || a.name.size() > 63) r.fail(n, "must have 1 to 63 characters");
       if (r.catalog().application(a.name))
         r.fail(n, fmt::format("nDPI has an application \"{}\" already", a.name));
       for (const auto& other : r.policy().applications)
         if (equal_ignoring_case(other.name, a.name))
           r.fail(n, fmt::format("application \"{}\" is there already", a.name));
     },
     true},
    {"hosts",
     [](PolicyReader& r, const JsonNode& n, OwnApplication& a) {
       for (const JsonNode* element : r.elements(n)) a.hosts.push_back(r.host_pattern(*element));
     }},
    {"addresses",
     [](PolicyReader& r, const JsonNode& n, OwnApplication& a) {
       for (const JsonNode* element : r.elements(n)) a.addresses.push_back(r.prefix(*element));
     }},
    {"ports",
     [](PolicyReader& r, const JsonNode& n, OwnApplication& a) {
       for (const JsonNode* element : r.elements(n)) a.ports.push_back(r.port_range(*element));
     }},
};

constexpr std::size_t kMaxOwnApplications = 4000;  // 0xf000 and up, in 16 bits

void read_own_applications(PolicyReader& reader, const JsonNode& node, Policy& out) {
  if (node.children.size() > kMaxOwnApplications)
    reader.fail(node, fmt::format("more than {} applications", kMaxOwnApplications));
  for (const JsonNode* element : reader.elements(node)) {
    if (reader.error()) return;
    OwnApplication one;
    one.id = static_cast<std::uint16_t>(kFirstOwnApplication + out.applications.size());
    reader.object<OwnApplication>(*element, kOwnApplicationFields, one);
    if (one.hosts.empty() && one.addresses.empty() && one.ports.empty())
      reader.fail(*element, "needs \"hosts\", \"addresses\" or \"ports\"");
    out.applications.push_back(std::move(one));
  }
}

// What others refer to comes first: fields are read in this order, not in the file's.
constexpr Field<Policy> kRootFields[] = {
    {"$schema", [](PolicyReader& r, const JsonNode& n, Policy& /*policy*/) { (void)r.text(n); }},
    {"version",
     [](PolicyReader& r, const JsonNode& n, Policy& /*policy*/) {
       if (n.kind != JsonNode::Kind::integer || n.negative || n.number != 1)
         r.fail(n, "must be 1, the only version of the format that this l7mark reads");
     },
     true},
    {"interfaces",
     [](PolicyReader& r, const JsonNode& n, Policy& p) {
       for (const JsonNode* element : r.elements(n)) {
         InterfaceConfig one;
         r.object<InterfaceConfig>(*element, kInterfaceFields, one);
         p.interfaces.push_back(std::move(one));
       }
     }},
    {"protocols_file", read_protocols_file},
    {"applications", read_own_applications},
    {"sampling", read_sampling},
    {"workers", read_u32<1, L7M_MAX_RINGS, Policy, &Policy::workers>},
    {"limits", [](PolicyReader& r, const JsonNode& n,
                  Policy& p) { r.object<Limits>(n, kLimitsFields, p.limits); }},
    {"timeouts", [](PolicyReader& r, const JsonNode& n,
                    Policy& p) { r.object<Timeouts>(n, kTimeoutFields, p.timeouts); }},
    {"inside",
     [](PolicyReader& r, const JsonNode& n, Policy& p) {
       p.inside.clear();
       for (const JsonNode* element : r.elements(n)) p.inside.push_back(r.prefix(*element));
     }},
    {"first_packet",
     [](PolicyReader& r, const JsonNode& n, Policy& p) {
       r.object<FirstPacket>(n, kFirstPacketFields, p.first_packet);
     }},
    {"log", [](PolicyReader& r, const JsonNode& n,
               Policy& p) { r.object<LogConfig>(n, kLogFields, p.log); }},
    {"decapsulate", read_decapsulate},
    {"vlan", [](PolicyReader& r, const JsonNode& n,
                Policy& p) { p.vlan = r.one_of<VlanUse>(n, "use of VLANs", kVlanUses); }},
    {"state_marks", [](PolicyReader& r, const JsonNode& n,
                       Policy& p) { r.object<StateMarks>(n, kStateMarksFields, p.state_marks); }},
    {"exemptions",
     [](PolicyReader& r, const JsonNode& n, Policy& p) {
       for (const JsonNode* element : r.elements(n)) {
         Match match = read_match(r, *element);
         if (match.matches_all()) r.fail(*element, "an empty exemption exempts every flow");
         p.exemptions.push_back(std::move(match));
       }
     }},
    {"classes", [](PolicyReader& r, const JsonNode& n, Policy& /*policy*/) { read_classes(r, n); }},
};

}  // namespace

void read_root(PolicyReader& reader, const JsonNode& node) {
  reader.object<Policy>(node, kRootFields, reader.policy());
}

void add_root_keys(std::vector<KeyTable>& out) {
  out.push_back(key_table<Policy>("policy", kRootFields));
  out.push_back(key_table<InterfaceConfig>("interface", kInterfaceFields));
  out.push_back(key_table<SamplingConfig>("sampling", kSamplingFields));
  out.push_back(key_table<SamplingOverride>("sampling_override", kOverrideFields));
  out.push_back(key_table<Limits>("limits", kLimitsFields));
  out.push_back(key_table<Timeouts>("timeouts", kTimeoutFields));
  out.push_back(key_table<FirstPacket>("first_packet", kFirstPacketFields));
  out.push_back(key_table<LogConfig>("log", kLogFields));
  out.push_back(key_table<StateMarks>("state_marks", kStateMarksFields));
  out.push_back(key_table<OwnApplication>("application", kOwnApplicationFields));
}

}  // namespace l7mark
