// SPDX-License-Identifier: GPL-2.0-only
#include "metadata.hpp"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "flow_key.hpp"
#include "util/address.hpp"
#include "util/text.hpp"

namespace l7mark {
namespace {

constexpr auto npos = std::string_view::npos;

// ndpiReader writes ';' between protocols, for the sake of its CSV.
std::string alpn_of(std::string text) {
  std::replace(text.begin(), text.end(), ',', ';');
  return text;
}

// The value of a "[Name: value]". Of what a packet may have put in earlier brackets the first is
// taken that begins with the name, as ndpiReader prints host, ALPN, JA3 and cipher once.
std::optional<std::string> field(std::string_view line, std::string_view name) {
  const std::string begin = "[" + std::string(name) + ": ";
  const auto at = line.find(begin);
  if (at == npos) return std::nullopt;
  const auto from = at + begin.size();
  const auto end = line.find(']', from);
  if (end == npos || end == from) return std::nullopt;
  std::string value(line.substr(from, end - from));
  if (const auto remark = value.find('('); remark != std::string::npos && name == "JA3C")
    value.resize(remark);  // "(WEAK)"
  return value;
}

// "[Risk: ** One **** Another **]", behind whatever the packets had to say.
std::set<std::string> risks_of(std::string_view line) {
  std::set<std::string> out;
  const auto at = line.rfind("[Risk: ** ");
  if (at == npos) return out;
  std::string_view rest = line.substr(at + 7);
  while (rest.substr(0, 3) == "** ") {
    const auto end = rest.find(" **", 3);
    if (end == npos) break;
    out.emplace(rest.substr(3, end - 3));
    rest.remove_prefix(end + 3);
  }
  return out;
}

struct End {
  std::string address;
  unsigned port = 0;
};

// "192.0.2.1:80" or "[2001:db8::1]:80".
std::optional<End> end_of(std::string_view text) {
  const auto colon = text.rfind(':');
  if (colon == npos || colon + 1 == text.size()) return std::nullopt;
  End out;
  for (const char c : text.substr(colon + 1)) {
    if (c < '0' || c > '9' || out.port > 65535) return std::nullopt;
    out.port = out.port * 10 + static_cast<unsigned>(c - '0');
  }
  std::string_view address = text.substr(0, colon);
  if (address.size() > 2 && address.front() == '[' && address.back() == ']')
    address = address.substr(1, address.size() - 2);
  out.address = plain_address(std::string(address));
  return out;
}

// A line of a flow: tab, number, tab, protocol, end, arrow, end, fields.
std::optional<std::string> key_of(std::string_view line) {
  if (line.empty() || line.front() != '\t') return std::nullopt;
  const auto tab = line.find('\t', 1);
  if (tab == npos) return std::nullopt;
  std::vector<std::string_view> words;
  std::string_view rest = line.substr(tab + 1);
  while (words.size() < 4) {
    const auto space = rest.find(' ');
    if (space == npos) return std::nullopt;
    words.push_back(rest.substr(0, space));
    rest.remove_prefix(space + 1);
  }
  if (words[2] != "->" && words[2] != "<->") return std::nullopt;
  const auto protocol = parse_protocol(to_lower(words[0]));
  const auto from = end_of(words[1]);
  const auto to = end_of(words[3]);
  if (!protocol || !from || !to) return std::nullopt;
  return flow_key(*protocol, from->address, from->port, to->address, to->port);
}

double percent(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 100.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

std::string joined(const std::set<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
  return out.empty() ? "none" : out;
}

}  // namespace

Metadata metadata_of(const nlohmann::json& record) {
  Metadata out;
  const auto put = [&out](const char* kind, std::string text) {
    if (!text.empty()) out.texts[kind] = std::move(text);
  };
  put("host name", record.value("hostname", ""));
  if (const auto tls = record.find("tls"); tls != record.end()) {
    put("JA3", tls->value("ja3", ""));
    put("ALPN", alpn_of(tls->value("alpn", "")));
    put("cipher", tls->value("cipher", ""));
  }
  for (const auto& risk : record.at("risks")) out.risks.insert(risk.get<std::string>());
  return out;
}

std::map<std::string, Metadata> read_reader(std::string_view text) {
  std::map<std::string, Metadata> out;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const auto key = key_of(line);
    if (!key) continue;
    Metadata flow;
    // For SSH it prints the name of the client's software at that place.
    const bool ssh = line.find("/SSH]") != npos;
    if (const auto host = field(line, "Hostname/SNI"); host && !ssh)
      flow.texts["host name"] = to_lower(*host);
    if (const auto ja3 = field(line, "JA3C")) flow.texts["JA3"] = *ja3;
    if (const auto alpn = field(line, "ALPN")) flow.texts["ALPN"] = alpn_of(*alpn);
    if (const auto cipher = field(line, "Cipher")) flow.texts["cipher"] = *cipher;
    flow.risks = risks_of(line);
    out.emplace(*key, std::move(flow));
  }
  return out;
}

void compare_metadata(const std::string& flow, const Metadata& reader, const Metadata& mine,
                      MetadataSummary& out, std::vector<std::string>& lines) {
  for (const char* kind : {"host name", "JA3", "ALPN", "cipher"}) {
    const auto wanted = reader.texts.find(kind);
    const auto got = mine.texts.find(kind);
    MetadataTally& tally = out.kinds[kind];
    if (wanted == reader.texts.end()) {
      tally.more += got == mine.texts.end() ? 0U : 1U;
      continue;
    }
    ++tally.flows;
    if (got != mine.texts.end() && got->second == wanted->second) {
      ++tally.equal;
      continue;
    }
    ++(got == mine.texts.end() ? tally.lacking : tally.other);
    lines.push_back(flow + ": " + kind + ": ndpiReader " + wanted->second + ", l7mark " +
                    (got == mine.texts.end() ? "none" : got->second));
  }
  // Risks of l7mark's own, and those of a hello that ndpiReader did not read, are more and no
  // difference.
  std::set<std::string> risks = mine.risks;
  const auto own = [&reader](const std::string& name) {
    return (name == "Fully encrypted flow" || name == "Conflicting TCP segments") &&
           reader.risks.count(name) == 0;
  };
  if (std::erase_if(risks, own) != 0) ++out.kinds["risks"].more;
  if (reader.texts.count("JA3") == 0 && mine.texts.count("JA3") != 0) {
    if (reader.risks != risks) ++out.kinds["risks"].more;
    return;
  }
  if (reader.risks.empty() && risks.empty()) return;
  MetadataTally& tally = out.kinds["risks"];
  ++tally.flows;
  if (reader.risks == risks) {
    ++tally.equal;
    return;
  }
  bool lacking = false;
  for (const std::string& name : reader.risks) {
    if (risks.count(name) != 0) continue;
    lacking = true;
    ++out.risks["without " + name];
  }
  for (const std::string& name : risks)
    if (reader.risks.count(name) == 0) ++out.risks["with " + name];
  ++(lacking ? tally.lacking : tally.other);
  lines.push_back(flow + ": risks: ndpiReader " + joined(reader.risks) + "; l7mark " +
                  joined(risks));
}

bool print_metadata(const MetadataSummary& summary, double minimum) {
  bool good = true;
  std::printf("%-12s %8s %9s %9s %8s %12s\n", "metadata", "flows", "equal %", "lacking", "other",
              "l7mark only");
  for (const auto& [kind, tally] : summary.kinds) {
    const double equal = percent(tally.equal, tally.flows);
    good = good && equal >= minimum;
    std::printf("%-12s %8lu %9.2f %9lu %8lu %12lu\n", kind.c_str(), tally.flows, equal,
                tally.lacking, tally.other, tally.more);
  }
  for (const auto& [what, flows] : summary.risks)
    std::printf("  %lu flows %s\n", flows, what.c_str());
  return good;
}

}  // namespace l7mark
