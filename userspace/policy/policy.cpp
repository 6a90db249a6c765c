// SPDX-License-Identifier: GPL-2.0-only
#include "policy/policy.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "policy/json_document.hpp"
#include "policy/reader.hpp"
#include "util/fd.hpp"
#include "util/text.hpp"

namespace l7mark {

namespace {

constexpr std::size_t kMaxFileBytes = 64 << 20;

Result<std::string> read_file(const std::string& path) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return error_from_errno("read policy", path);
  std::string text;
  std::array<char, 65536> chunk;
  for (;;) {
    const ssize_t got = read(fd.get(), chunk.data(), chunk.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return error_from_errno("read policy", path);
    if (got == 0) return text;
    text.append(chunk.data(), static_cast<std::size_t>(got));
    if (text.size() > kMaxFileBytes)
      return Error{"read policy", path, 0, "larger than 64 MiB: not a policy file?"};
  }
}

// Who has clients behind a gateway and says nothing has them at these addresses.
std::vector<Prefix> default_inside() {
  std::vector<Prefix> out;
  for (const char* text :
       {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fe80::/10"})
    if (const auto prefix = Prefix::parse(text)) out.push_back(*prefix);
  return out;
}

}  // namespace

const SamplingOverride* SamplingConfig::override_for(std::uint16_t application) const {
  for (const auto& one : overrides)
    if (std::find(one.applications.begin(), one.applications.end(), application) !=
        one.applications.end())
      return &one;
  return nullptr;
}

bool Match::matches_all() const {
  return applications.empty() && masters.empty() && categories.empty() && risks == 0 &&
         !risk_score && hostnames.empty() && servers.empty() && server_ports.empty() &&
         clients.empty() && client_macs.empty() && interfaces.empty() && ip_version == 0 &&
         transports.empty() && tls_versions == 0 && tls_ciphers.empty() && alpn.empty() &&
         ja4.empty() && !ech && confidences == 0 && states == 0 && !midstream && any.empty() &&
         all.empty() && none.empty();
}

Result<std::size_t> Policy::find_class(std::string_view name) const {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < classes.size(); ++i) {
    if (equal_ignoring_case(classes[i].name, name)) return i;
    names.push_back(classes[i].name);
  }
  return Error{"find class", std::string(name), 0,
               "the policy has none of that name" + did_you_mean(name, names)};
}

std::uint32_t Policy::class_mark_bits() const {
  std::uint32_t bits = 0;
  for (const auto& c : classes)
    if (c.actions.mark) bits |= c.actions.mark->mask;
  return bits;
}

MarkBits Policy::touched_mark_bits() const {
  MarkBits bits{state_marks.mask | class_mark_bits(), state_marks.conntrack_mask};
  for (const auto& c : classes) {
    if (c.actions.conntrack && c.actions.conntrack->mark)
      bits.conntrack |= c.actions.conntrack->mark->mask;
  }
  return bits;
}

bool Policy::depends_on_client() const {
  const auto depends = [](const Match& match, const auto& self) -> bool {
    if (!match.clients.empty() || !match.client_macs.empty() || !match.interfaces.empty())
      return true;
    const auto any = [&](const std::vector<Match>& matches) {
      return std::any_of(matches.begin(), matches.end(),
                         [&](const Match& each) { return self(each, self); });
    };
    return any(match.any) || any(match.all) || any(match.none);
  };
  const auto any = [&](const std::vector<Match>& matches) {
    return std::any_of(matches.begin(), matches.end(),
                       [&](const Match& each) { return depends(each, depends); });
  };
  return any(exemptions) || std::any_of(classes.begin(), classes.end(), [&](const auto& c) {
           return depends(c.match, depends) || any(c.except);
         });
}

l7m_settings Policy::settings() const {
  l7m_settings out{};
  out.packets = sampling.packets;
  out.whole = sampling.whole;
  out.whole_plain = sampling.whole_plain;
  out.snaplen = sampling.snaplen;
  out.whole_snaplen = sampling.whole_snaplen;
  out.flight = sampling.handshake;
  out.flight_budget = sampling.handshake_budget;
  out.source_budget = sampling.source_budget;
  out.outside_budget = sampling.outside_budget;
  out.rings = workers;
  if (first_packet.services) out.flags |= L7M_SET_SERVICES;
  if (first_packet.hints) out.flags |= L7M_SET_HINTS;
  if (std::any_of(classes.begin(), classes.end(),
                  [](const PolicyClass& c) { return c.actions.drop; }))
    out.flags |= L7M_SET_DROPS;
  if (depends_on_client()) out.flags |= L7M_SET_CLIENT_HINTS;
  out.mark_mask = class_mark_bits();
  return out;
}

Result<Policy> parse_policy(std::string_view text, const std::string& file, const Catalog& catalog,
                            UnknownApplications unknown) {
  const auto document = JsonDocument::parse(text, file);
  if (!document) return document.error();
  Policy policy;
  policy.file = file;
  policy.inside = default_inside();
  PolicyReader reader(*document, catalog, policy, unknown);
  read_root(reader, document->root());
  if (reader.error()) return *reader.error();
  return policy;
}

Result<Policy> load_policy(const std::string& path, const Catalog& catalog,
                           UnknownApplications unknown) {
  const auto text = read_file(path);
  if (!text) return text.error();
  return parse_policy(*text, path, catalog, unknown);
}

Result<std::string> load_protocols_file_setting(const std::string& path) {
  const auto text = read_file(path);
  if (!text) return text.error();
  const auto document = JsonDocument::parse(*text, path);
  if (!document) return document.error();
  const JsonNode* node = document->root().find("protocols_file");
  if (node == nullptr) return std::string();
  const Catalog no_names;
  Policy policy;
  policy.file = path;
  PolicyReader reader(*document, no_names, policy, UnknownApplications::warn);
  read_protocols_file(reader, *node, policy);
  if (reader.error()) return *reader.error();
  return policy.protocols_file;
}

std::vector<KeyTable> policy_key_tables() {
  std::vector<KeyTable> out;
  add_root_keys(out);
  add_class_keys(out);
  add_match_keys(out);
  add_schedule_keys(out);
  return out;
}

}  // namespace l7mark
