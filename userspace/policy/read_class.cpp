// SPDX-License-Identifier: GPL-2.0-only
// The "classes" of a policy with their actions.
#include <algorithm>

#include "policy/header_rules.hpp"
#include "policy/reader.hpp"
#include "policy/values.hpp"
#include "util/text.hpp"

namespace l7mark {

namespace {

constexpr std::size_t kLongestSetName = 31;        // IPSET_MAXNAMELEN less its NUL
constexpr std::size_t kLongestNftName = 255;       // NFT_NAME_MAXLEN less its NUL
constexpr std::uint32_t kMaxSetTimeout = 2147483;  // IPSET_MAX_TIMEOUT, seconds
constexpr std::string_view kSuffix6 = "6";

constexpr std::pair<std::string_view, std::string_view> kSetTypes[] = {
    {"hash:ip,port,ip", "hash:ip,port,ip"},
    {"hash:ip,port", "hash:ip,port"},
    {"hash:ip", "hash:ip"},
    {"hash:net", "hash:net"},
};
constexpr std::pair<std::string_view, std::string_view> kNftFamilies[] = {
    {"inet", "inet"},
    {"ip", "ip"},
    {"ip6", "ip6"},
};

// Characters that ipset, nft and iptables take without quoting.
bool is_plain_name(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  });
}

std::string read_name(PolicyReader& reader, const JsonNode& node, std::size_t longest) {
  std::string name = reader.text(node);
  if (!is_plain_name(name))
    reader.fail(node,
                fmt::format("\"{}\" is no name: use letters, digits, '-', '_' and '.'", name));
  if (name.size() > longest)
    reader.fail(node, fmt::format("name is longer than {} characters", longest));
  return name;
}

// A set's name leaves room for the suffix of its IPv6 sibling.
std::string read_set_name(PolicyReader& reader, const JsonNode& node, std::size_t longest) {
  std::string name = read_name(reader, node, longest);
  if (name.size() + kSuffix6.size() > longest)
    reader.fail(node, fmt::format("name is longer than {} characters: its IPv6 sibling has \"{}\" "
                                  "behind it",
                                  longest - kSuffix6.size(), kSuffix6));
  return name;
}

std::uint32_t read_set_timeout(PolicyReader& reader, const JsonNode& node) {
  return static_cast<std::uint32_t>(reader.number(node, 0, kMaxSetTimeout));
}

std::uint32_t read_set_size(PolicyReader& reader, const JsonNode& node) {
  return static_cast<std::uint32_t>(reader.number(node, 1, UINT32_MAX));
}

constexpr Field<IpsetAction> kIpsetFields[] = {
    {"name",
     [](PolicyReader& r, const JsonNode& n, IpsetAction& s) {
       s.name = read_set_name(r, n, kLongestSetName);
     },
     true},
    {"type", [](PolicyReader& r, const JsonNode& n,
                IpsetAction& s) { s.type = r.one_of<std::string_view>(n, "set type", kSetTypes); }},
    {"timeout", [](PolicyReader& r, const JsonNode& n,
                   IpsetAction& s) { s.timeout = read_set_timeout(r, n); }},
    {"maxelem",
     [](PolicyReader& r, const JsonNode& n, IpsetAction& s) { s.maxelem = read_set_size(r, n); }},
    {"hashsize",
     [](PolicyReader& r, const JsonNode& n, IpsetAction& s) { s.hashsize = read_set_size(r, n); }},
    {"counters",
     [](PolicyReader& r, const JsonNode& n, IpsetAction& s) { s.counters = r.boolean(n); }},
    {"comment",
     [](PolicyReader& r, const JsonNode& n, IpsetAction& s) { s.comment = r.boolean(n); }},
    {"skbinfo",
     [](PolicyReader& r, const JsonNode& n, IpsetAction& s) { s.skbinfo = r.boolean(n); }},
    {"delete_on_end",
     [](PolicyReader& r, const JsonNode& n, IpsetAction& s) { s.delete_on_end = r.boolean(n); }},
};

constexpr Field<NftsetAction> kNftsetFields[] = {
    {"family",
     [](PolicyReader& r, const JsonNode& n, NftsetAction& s) {
       s.family = r.one_of<std::string_view>(n, "family", kNftFamilies);
     }},
    {"table", [](PolicyReader& r, const JsonNode& n,
                 NftsetAction& s) { s.table = read_name(r, n, kLongestNftName); }},
    {"name",
     [](PolicyReader& r, const JsonNode& n, NftsetAction& s) {
       s.name = read_set_name(r, n, kLongestNftName);
     },
     true},
    {"timeout", [](PolicyReader& r, const JsonNode& n,
                   NftsetAction& s) { s.timeout = read_set_timeout(r, n); }},
    {"size",
     [](PolicyReader& r, const JsonNode& n, NftsetAction& s) { s.size = read_set_size(r, n); }},
    {"create_table",
     [](PolicyReader& r, const JsonNode& n, NftsetAction& s) { s.create_table = r.boolean(n); }},
    {"delete_on_end",
     [](PolicyReader& r, const JsonNode& n, NftsetAction& s) { s.delete_on_end = r.boolean(n); }},
};

// Two classes may fill one set, but only if they agree on what it is; and a set must not be what
// another one's IPv6 sibling is.
template <class Spec>
void check_set(PolicyReader& reader, const JsonNode& node, const Spec& spec,
               std::optional<Spec> Actions::*member) {
  for (const auto& other : reader.policy().classes) {
    const auto& set = other.actions.*member;
    if (!set) continue;
    if constexpr (std::is_same_v<Spec, NftsetAction>)
      if (set->family != spec.family || set->table != spec.table) continue;
    if (set->name == spec.name && *set != spec)
      reader.fail(node, fmt::format("set \"{}\" is defined otherwise in class \"{}\"", spec.name,
                                    other.name));
    for (const auto& [a, b] : {std::pair(set->name, spec.name), std::pair(spec.name, set->name)})
      if (a == b + std::string(kSuffix6))
        reader.fail(node,
                    fmt::format("set \"{}\" would also be the IPv6 sibling of set \"{}\"", a, b));
  }
}

void read_ipset(PolicyReader& reader, const JsonNode& node, PolicyClass& out) {
  IpsetAction spec;
  reader.object<IpsetAction>(node, kIpsetFields, spec);
  check_set(reader, node, spec, &Actions::ipset);
  out.actions.ipset = std::move(spec);
}

void read_nftset(PolicyReader& reader, const JsonNode& node, PolicyClass& out) {
  NftsetAction spec;
  reader.object<NftsetAction>(node, kNftsetFields, spec);
  check_set(reader, node, spec, &Actions::nftset);
  out.actions.nftset = std::move(spec);
}

void check_state_bits(PolicyReader& reader, const JsonNode& node, const MaskedValue& mark,
                      std::uint32_t state_mask) {
  if ((mark.mask & state_mask) == 0) return;
  const std::uint32_t rest = mark.mask & ~state_mask;
  const std::string remedy =
      rest == 0 ? "use other bits"
                : fmt::format("leave them out, as in \"0x{:x}/0x{:x}\"", mark.value & rest, rest);
  reader.fail(node, fmt::format("mask 0x{:x} has bits of \"state_marks\", 0x{:x}: {}", mark.mask,
                                state_mask, remedy));
}

constexpr Field<ConntrackAction> kConntrackFields[] = {
    {"mark",
     [](PolicyReader& r, const JsonNode& n, ConntrackAction& c) {
       c.mark = r.masked(n);
       check_state_bits(r, n, *c.mark, r.policy().state_marks.conntrack_mask);
     }},
    {"label",
     [](PolicyReader& r, const JsonNode& n, ConntrackAction& c) {
       if (n.kind == JsonNode::Kind::integer) {
         c.labels.set(r.number(n, 0, c.labels.size() - 1));
         return;
       }
       for (const JsonNode* element : r.elements(n))
         c.labels.set(r.number(*element, 0, c.labels.size() - 1));
     }},
};

void read_conntrack(PolicyReader& reader, const JsonNode& node, PolicyClass& out) {
  ConntrackAction spec;
  reader.object<ConntrackAction>(node, kConntrackFields, spec);
  if (!spec.mark && spec.labels.none()) reader.fail(node, "needs \"mark\" or \"label\"");
  out.actions.conntrack = spec;
}

void read_dscp(PolicyReader& reader, const JsonNode& node, PolicyClass& out) {
  if (node.kind == JsonNode::Kind::integer) {
    out.actions.dscp = static_cast<std::uint8_t>(reader.number(node, 0, 63));
    return;
  }
  const std::string wanted = reader.text(node);
  out.actions.dscp = parse_dscp_name(wanted);
  if (!out.actions.dscp)
    reader.fail(node,
                fmt::format("unknown DSCP \"{}\"{}: must be a number from 0 to 63 or a name as "
                            "in EF, CS1, AF41, VA, LE",
                            wanted, did_you_mean(wanted, dscp_names())));
}

std::uint32_t read_tc_class(PolicyReader& reader, const JsonNode& node) {
  const auto handle = parse_tc_class(reader.text(node));
  if (!handle)
    reader.fail(node, "must be a tc class as in \"1:10\", both parts hexadecimal as tc has them");
  return handle.value_or(0);
}

void read_schedules(PolicyReader& reader, const JsonNode& node, PolicyClass& out) {
  if (node.kind != JsonNode::Kind::list) {
    out.schedules.push_back(read_schedule(reader, node));
    return;
  }
  for (const JsonNode* element : reader.elements(node))
    out.schedules.push_back(read_schedule(reader, *element));
}

void read_except(PolicyReader& reader, const JsonNode& node, PolicyClass& out) {
  const auto add = [&](const JsonNode& one) {
    Match match = read_match(reader, one);
    if (match.matches_all()) reader.fail(one, "an empty exemption exempts every flow");
    out.except.push_back(std::move(match));
  };
  if (node.kind != JsonNode::Kind::list) {
    add(node);
    return;
  }
  for (const JsonNode* element : reader.elements(node)) add(*element);
}

constexpr Field<PolicyClass> kClassFields[] = {
    {"name",
     [](PolicyReader& r, const JsonNode& n, PolicyClass& c) {
       c.name = read_name(r, n, 63);
       for (const auto& other : r.policy().classes)
         if (equal_ignoring_case(other.name, c.name))
           r.fail(n, fmt::format("class \"{}\" is there already", other.name));
     },
     true},
    {"match",
     [](PolicyReader& r, const JsonNode& n, PolicyClass& c) { c.match = read_match(r, n); }},
    {"except", read_except},
    {"schedule", read_schedules},
    {"continue",
     [](PolicyReader& r, const JsonNode& n, PolicyClass& c) { c.proceed = r.boolean(n); }},
    {"mark",
     [](PolicyReader& r, const JsonNode& n, PolicyClass& c) {
       c.actions.mark = r.masked(n);
       check_state_bits(r, n, *c.actions.mark, r.policy().state_marks.mask);
     }},
    {"dscp", read_dscp},
    {"priority",
     [](PolicyReader& r, const JsonNode& n, PolicyClass& c) {
       const bool handle =
           n.kind == JsonNode::Kind::string && n.text.find(':') != std::string::npos;
       c.actions.priority = handle ? read_tc_class(r, n) : r.u32(n);
     }},
    {"tc_class", [](PolicyReader& r, const JsonNode& n,
                    PolicyClass& c) { c.actions.tc_class = read_tc_class(r, n); }},
    {"drop",
     [](PolicyReader& r, const JsonNode& n, PolicyClass& c) { c.actions.drop = r.boolean(n); }},
    {"allow",
     [](PolicyReader& r, const JsonNode& n, PolicyClass& c) {
       c.actions.allow = r.boolean(n);
       if (c.actions.allow && c.actions.drop) r.fail(n, "a class can't both drop and allow");
     }},
    {"log",
     [](PolicyReader& r, const JsonNode& n, PolicyClass& c) { c.actions.log = r.boolean(n); }},
    {"ipset", read_ipset},
    {"nftset", read_nftset},
    {"conntrack", read_conntrack},
};

// Takes every flow that comes to it, at any time.
bool takes_all(const PolicyClass& c) {
  return !c.proceed && c.except.empty() && c.schedules.empty() && c.match.matches_all();
}

// Applications of a class that takes all of their flows, whatever else holds; empty if it doesn't.
std::vector<std::uint16_t> takes_applications(const PolicyClass& c) {
  Match rest = c.match;
  rest.applications.clear();
  if (c.proceed || !c.except.empty() || !c.schedules.empty() || !rest.matches_all()) return {};
  return c.match.applications;
}

void warn_of_unreachable(PolicyReader& reader, const JsonNode& node) {
  const auto& classes = reader.policy().classes;
  const PolicyClass* last = nullptr;
  std::vector<std::pair<std::uint16_t, const PolicyClass*>> taken;
  for (std::size_t i = 0; i < classes.size(); ++i) {
    const auto& current = classes[i];
    if (last != nullptr) {
      reader.warn(*node.children[i],
                  fmt::format("class \"{}\" is never reached: class \"{}\" before it "
                              "takes every flow",
                              current.name, last->name));
      continue;
    }
    const auto& wanted = current.match.applications;
    const PolicyClass* taker = nullptr;
    const bool all_taken = std::all_of(wanted.begin(), wanted.end(), [&](std::uint16_t id) {
      const auto found = std::find_if(taken.begin(), taken.end(),
                                      [id](const auto& entry) { return entry.first == id; });
      if (found == taken.end()) return false;
      taker = found->second;
      return true;
    });
    if (all_taken && taker != nullptr)
      reader.warn(*node.children[i],
                  fmt::format("class \"{}\" is never reached: class \"{}\" before it "
                              "takes its applications",
                              current.name, taker->name));
    for (const std::uint16_t id : takes_applications(current))
      if (id != kAbsentApplication) taken.emplace_back(id, &current);
    if (takes_all(current)) last = &current;
  }
}

// Classes that would act on a flow's first packet but for the room that this takes. With all
// schedules on there are the most of them.
void warn_of_left_out(PolicyReader& reader, const JsonNode& node) {
  const auto& classes = reader.policy().classes;
  const HeaderRules rules(reader.policy(), std::vector<bool>(classes.size(), true));
  for (const auto& [index, reason] : rules.left_out())
    reader.warn(*node.children[index],
                fmt::format("class \"{}\" does not act on a flow's first packet: {}",
                            classes[index].name, reason));
}

}  // namespace

void read_classes(PolicyReader& reader, const JsonNode& node) {
  if (node.kind != JsonNode::Kind::list) reader.fail(node, "must be a list in brackets");
  if (node.children.size() > kMaxClasses)
    reader.fail(node, fmt::format("more than {} classes", kMaxClasses));
  for (const JsonNode* element : node.children) {
    if (reader.error()) return;
    PolicyClass out;
    reader.object<PolicyClass>(*element, kClassFields, out);
    const Actions& actions = out.actions;
    if (actions.drop && (actions.mark || actions.dscp || actions.priority || actions.tc_class))
      reader.warn(*element,
                  fmt::format("class \"{}\" drops its packets, so nobody sees their mark, "
                              "DSCP, priority or tc class",
                              out.name));
    reader.policy().classes.push_back(std::move(out));
  }
  if (reader.error()) return;
  warn_of_unreachable(reader, node);
  warn_of_left_out(reader, node);
}

void add_class_keys(std::vector<KeyTable>& out) {
  out.push_back(key_table<PolicyClass>("class", kClassFields));
  out.push_back(key_table<IpsetAction>("ipset", kIpsetFields));
  out.push_back(key_table<NftsetAction>("nftset", kNftsetFields));
  out.push_back(key_table<ConntrackAction>("conntrack", kConntrackFields));
}

}  // namespace l7mark
