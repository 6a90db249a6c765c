// SPDX-License-Identifier: GPL-2.0-only
// The "match" objects of a policy.
#include <algorithm>

#include "flow.hpp"
#include "policy/reader.hpp"
#include "policy/tls_ciphers.hpp"
#include "policy/values.hpp"
#include "util/text.hpp"

namespace l7mark {

namespace {

// Where this nDPI has none of the names, the key must still be there: without it the match would be
// one of every flow.
std::vector<std::uint16_t> or_absent(std::vector<std::uint16_t> ids) {
  if (ids.empty()) ids.push_back(kAbsentApplication);
  return ids;
}

void read_applications(PolicyReader& reader, const JsonNode& node, Match& match) {
  match.applications = or_absent(reader.applications(node));
}

void read_masters(PolicyReader& reader, const JsonNode& node, Match& match) {
  match.masters = or_absent(reader.masters(node));
}

void read_categories(PolicyReader& reader, const JsonNode& node, Match& match) {
  for (const JsonNode* element : reader.elements(node)) {
    const std::string wanted = reader.text(*element);
    const auto id = reader.catalog().category(wanted);
    if (!id)
      reader.fail(*element, fmt::format("unknown category \"{}\"{}", wanted,
                                        did_you_mean(wanted, reader.catalog().category_names())));
    match.categories.push_back(id.value_or(0));
  }
}

// By number too: nDPI rewords its risks from version to version but never renumbers them.
void read_risks(PolicyReader& reader, const JsonNode& node, Match& match) {
  for (const JsonNode* element : reader.elements(node)) {
    std::optional<std::uint16_t> id;
    if (element->kind == JsonNode::Kind::integer) {
      id = static_cast<std::uint16_t>(reader.number(*element, 1, 63));
      if (reader.catalog().risk_name(*id).empty())
        reader.fail(*element, fmt::format("no risk has number {}", *id));
    } else {
      const std::string wanted = reader.text(*element);
      id = reader.catalog().risk(wanted);
      if (!id)
        reader.fail(*element, fmt::format("unknown risk \"{}\"{}", wanted,
                                          did_you_mean(wanted, reader.catalog().risk_names())));
    }
    match.risks |= std::uint64_t{1} << id.value_or(0);
  }
}

constexpr Field<ScoreRange> kScoreFields[] = {
    {"min", [](PolicyReader& r, const JsonNode& n,
               ScoreRange& s) { s.min = static_cast<std::uint32_t>(r.number(n, 0, UINT32_MAX)); }},
    {"max", [](PolicyReader& r, const JsonNode& n,
               ScoreRange& s) { s.max = static_cast<std::uint32_t>(r.number(n, 0, UINT32_MAX)); }},
};

void read_risk_score(PolicyReader& reader, const JsonNode& node, Match& match) {
  ScoreRange range;
  reader.object<ScoreRange>(node, kScoreFields, range);
  if (node.children.empty()) reader.fail(node, "needs \"min\" or \"max\"");
  if (range.min > range.max) reader.fail(node, "\"min\" is above \"max\"");
  match.risk_score = range;
}

void read_client_macs(PolicyReader& reader, const JsonNode& node, Match& match) {
  for (const JsonNode* element : reader.elements(node)) {
    const std::string wanted = reader.text(*element);
    const auto mac = parse_mac(wanted);
    if (!mac)
      reader.fail(*element,
                  fmt::format("\"{}\" is no MAC address, as in \"00:53:00:12:34:56\"", wanted));
    match.client_macs.push_back(mac.value_or(MacAddress{}));
  }
}

// A name that we don't attach to would never match.
void read_interfaces(PolicyReader& reader, const JsonNode& node, Match& match) {
  for (const JsonNode* element : reader.elements(node)) {
    const std::string wanted = reader.text(*element);
    std::vector<std::string> names;
    for (const auto& interface : reader.policy().interfaces) names.push_back(interface.name);
    if (!names.empty() && std::find(names.begin(), names.end(), wanted) == names.end())
      reader.fail(*element, fmt::format("interface \"{}\" is not in the policy's \"interfaces\"{}",
                                        wanted, did_you_mean(wanted, names)));
    match.interfaces.push_back(wanted);
  }
}

void read_ip_version(PolicyReader& reader, const JsonNode& node, Match& match) {
  if (node.kind == JsonNode::Kind::integer && !node.negative &&
      (node.number == 4 || node.number == 6))
    match.ip_version = static_cast<std::uint8_t>(node.number);
  else
    reader.fail(node, "must be 4 or 6");
}

void read_transports(PolicyReader& reader, const JsonNode& node, Match& match) {
  for (const JsonNode* element : reader.elements(node)) {
    if (element->kind == JsonNode::Kind::integer) {
      match.transports.push_back(static_cast<std::uint8_t>(reader.number(*element, 0, 255)));
      continue;
    }
    const std::string wanted = reader.text(*element);
    const auto protocol = parse_protocol(wanted);
    if (!protocol)
      reader.fail(*element, fmt::format("unknown transport \"{}\": must be as in \"tcp\", \"udp\", "
                                        "\"icmp\", \"sctp\", or a number up to 255",
                                        wanted));
    match.transports.push_back(protocol.value_or(0));
  }
}

std::uint8_t read_tls_version_name(PolicyReader& reader, const JsonNode& node) {
  const std::string wanted = reader.text(node);
  std::string names;
  for (const auto& [name, version] : tls_version_names()) {
    if (equal_ignoring_case(wanted, name)) return static_cast<std::uint8_t>(version);
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  reader.fail(node, fmt::format("unknown TLS version \"{}\": must be one of {}", wanted, names));
  return 0;
}

struct TlsRange {
  std::uint8_t min = static_cast<std::uint8_t>(TlsVersion::ssl2);
  std::uint8_t max = static_cast<std::uint8_t>(TlsVersion::tls13);
};

constexpr Field<TlsRange> kTlsVersionFields[] = {
    {"min",
     [](PolicyReader& r, const JsonNode& n, TlsRange& t) { t.min = read_tls_version_name(r, n); }},
    {"max",
     [](PolicyReader& r, const JsonNode& n, TlsRange& t) { t.max = read_tls_version_name(r, n); }},
};

void read_tls_version(PolicyReader& reader, const JsonNode& node, Match& match) {
  const auto add = [&match](unsigned version) {
    match.tls_versions = static_cast<std::uint8_t>(match.tls_versions | 1U << version);
  };
  if (node.kind == JsonNode::Kind::list) {
    for (const JsonNode* element : reader.elements(node))
      add(read_tls_version_name(reader, *element));
    return;
  }
  TlsRange range;
  reader.object<TlsRange>(node, kTlsVersionFields, range);
  if (node.children.empty()) reader.fail(node, "needs \"min\" or \"max\"");
  if (range.min > range.max) reader.fail(node, "\"min\" is above \"max\"");
  for (unsigned version = range.min; version <= range.max; ++version) add(version);
}

void read_tls_ciphers(PolicyReader& reader, const JsonNode& node, Match& match) {
  for (const JsonNode* element : reader.elements(node)) {
    const std::string wanted = reader.text(*element);
    const auto found = find_tls_ciphers(wanted);
    if (found.empty() && !reader.error())
      reader.fail(*element, fmt::format("no TLS cipher suite is called \"{}\"{}", wanted,
                                        did_you_mean(wanted, tls_cipher_names())));
    match.tls_ciphers.insert(match.tls_ciphers.end(), found.begin(), found.end());
  }
  std::sort(match.tls_ciphers.begin(), match.tls_ciphers.end());
}

// As in "h2" or "http/*". A record lists the offered protocols with commas between them.
void read_alpn(PolicyReader& reader, const JsonNode& node, Match& match) {
  for (const JsonNode* element : reader.elements(node)) {
    std::string wanted = to_lower(reader.text(*element));
    if (wanted.empty() || wanted.find(',') != std::string::npos)
      reader.fail(*element,
                  fmt::format("\"{}\" is no protocol of ALPN, as in \"h2\" or \"http/*\"", wanted));
    match.alpn.push_back(std::move(wanted));
  }
}

// A fingerprint of another kind or length would never match.
void read_ja4(PolicyReader& reader, const JsonNode& node, Match& match) {
  for (const JsonNode* element : reader.elements(node)) {
    std::string wanted = to_lower(reader.text(*element));
    if (!is_ja4_pattern(wanted))
      reader.fail(*element, fmt::format("\"{}\" is no JA4 fingerprint, as in "
                                        "\"t13d1516h2_8daaf6152771_b186095e22b6\" or "
                                        "\"t13d*_8daaf6152771_*\"",
                                        wanted));
    match.ja4.push_back(std::move(wanted));
  }
}

constexpr std::pair<std::string_view, Confidence> kConfidenceNames[] = {
    {to_string(Confidence::dpi), Confidence::dpi},
    {to_string(Confidence::detector), Confidence::detector},
    {to_string(Confidence::cache), Confidence::cache},
    {to_string(Confidence::port), Confidence::port},
    {to_string(Confidence::address), Confidence::address},
};

void read_confidence(PolicyReader& reader, const JsonNode& node, Match& match) {
  for (const JsonNode* element : reader.elements(node)) {
    const auto one = reader.one_of<Confidence>(*element, "confidence", kConfidenceNames);
    match.confidences =
        static_cast<std::uint8_t>(match.confidences | 1U << static_cast<unsigned>(one));
  }
}

constexpr std::pair<std::string_view, std::uint8_t> kStates[] = {
    {"undecided", L7M_STATE_UNDECIDED},
    {"provisional", L7M_STATE_PROVISIONAL},
    {"guessed", L7M_STATE_GUESSED},
    {"final", L7M_STATE_FINAL},
};

void read_states(PolicyReader& reader, const JsonNode& node, Match& match) {
  for (const JsonNode* element : reader.elements(node)) {
    const unsigned state = reader.one_of<std::uint8_t>(*element, "state", kStates);
    match.states = static_cast<std::uint8_t>(match.states | 1U << state);
  }
}

void read_prefixes(PolicyReader& reader, const JsonNode& node, std::vector<Prefix>& out) {
  for (const JsonNode* element : reader.elements(node)) out.push_back(reader.prefix(*element));
}

void read_matches(PolicyReader& reader, const JsonNode& node, std::vector<Match>& out) {
  for (const JsonNode* element : reader.elements(node)) out.push_back(read_match(reader, *element));
}

constexpr Field<Match> kMatchFields[] = {
    {"applications", read_applications},
    {"masters", read_masters},
    {"categories", read_categories},
    {"risks", read_risks},
    {"risk_score", read_risk_score},
    {"hostnames",
     [](PolicyReader& r, const JsonNode& n, Match& m) {
       for (const JsonNode* element : r.elements(n))
         m.hostnames.push_back(r.host_pattern(*element));
     }},
    {"servers",
     [](PolicyReader& r, const JsonNode& n, Match& m) { read_prefixes(r, n, m.servers); }},
    {"server_ports",
     [](PolicyReader& r, const JsonNode& n, Match& m) {
       for (const JsonNode* element : r.elements(n))
         m.server_ports.push_back(r.port_range(*element));
     }},
    {"clients",
     [](PolicyReader& r, const JsonNode& n, Match& m) { read_prefixes(r, n, m.clients); }},
    {"client_macs", read_client_macs},
    {"interfaces", read_interfaces},
    {"ip_version", read_ip_version},
    {"transports", read_transports},
    {"tls_version", read_tls_version},
    {"tls_ciphers", read_tls_ciphers},
    {"alpn", read_alpn},
    {"ja4", read_ja4},
    {"ech", [](PolicyReader& r, const JsonNode& n, Match& m) { m.ech = r.boolean(n); }},
    {"confidence", read_confidence},
    {"states", read_states},
    {"midstream", [](PolicyReader& r, const JsonNode& n, Match& m) { m.midstream = r.boolean(n); }},
    {"any", [](PolicyReader& r, const JsonNode& n, Match& m) { read_matches(r, n, m.any); }},
    {"all", [](PolicyReader& r, const JsonNode& n, Match& m) { read_matches(r, n, m.all); }},
    {"not",
     [](PolicyReader& r, const JsonNode& n, Match& m) {
       Match inner = read_match(r, n);
       if (inner.matches_all()) r.fail(n, "an empty \"not\" matches nothing");
       m.none.push_back(std::move(inner));
     }},
};

}  // namespace

Match read_match(PolicyReader& reader, const JsonNode& node) {
  Match match;
  reader.object<Match>(node, kMatchFields, match);
  return match;
}

void add_match_keys(std::vector<KeyTable>& out) {
  out.push_back(key_table<Match>("match", kMatchFields));
  out.push_back(key_table<ScoreRange>("risk_score", kScoreFields));
  out.push_back(key_table<TlsRange>("tls_version", kTlsVersionFields));
}

}  // namespace l7mark
