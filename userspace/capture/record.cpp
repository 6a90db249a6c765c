// SPDX-License-Identifier: GPL-2.0-only
#include "capture/record.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

namespace l7mark {
namespace {

using Json = nlohmann::ordered_json;

constexpr unsigned kRiskBits = 64;

std::string severity_name(RiskSeverity severity) {
  switch (severity) {
    case RiskSeverity::low:
      return "low";
    case RiskSeverity::medium:
      return "medium";
    case RiskSeverity::high:
      return "high";
    case RiskSeverity::severe:
      return "severe";
  }
  return "low";
}

std::string tls_version_name(std::uint16_t version) {
  switch (version) {
    case 0x0002:
      return "SSL 2";
    case 0x0300:
      return "SSL 3";
    case 0x0301:
      return "TLS 1.0";
    case 0x0302:
      return "TLS 1.1";
    case 0x0303:
      return "TLS 1.2";
    case 0x0304:
      return "TLS 1.3";
    case 0xfeff:
      return "DTLS 1.0";
    case 0xfefd:
      return "DTLS 1.2";
    default:
      return fmt::format("0x{:04x}", version);
  }
}

void put(Json& object, const char* key, const std::string& value) {
  if (!value.empty()) object[key] = value;
}

template <class T>
Json name_or_null(T value, T none) {
  return value == none ? Json() : Json(to_string(value));
}

Json tls_of(const FlowDetails& details) {
  Json tls = Json::object();
  if (details.tls_version != 0) tls["version"] = tls_version_name(details.tls_version);
  put(tls, "cipher", details.tls_cipher);
  put(tls, "alpn", details.alpn);
  put(tls, "ja3", details.ja3_client);
  put(tls, "ja3s", details.ja3_server);
  put(tls, "ja4", details.ja4_client);
  if (details.client_hello_seen()) tls["ech"] = details.ech;
  put(tls, "subject", details.tls_subject);
  put(tls, "issuer", details.tls_issuer);
  if (details.tls_not_before != 0) tls["not_before"] = details.tls_not_before;
  if (details.tls_not_after != 0) tls["not_after"] = details.tls_not_after;
  return tls;
}

std::string application_of(const Answer& answer, const RecordNames& names) {
  return names.catalog.application_name(answer.facts.application);
}

}  // namespace

RecordNames RecordNames::of(const Engine& engine) {
  RecordNames names;
  engine.fill(names.catalog);
  return names;
}

nlohmann::ordered_json to_json(const Answer& answer, const RecordContext& context,
                               const RecordNames& names) {
  const FlowFacts& facts = answer.facts;
  const FlowDetails& details = facts.details;
  const int source = answer.initiator;
  Json out = Json::object();
  if (!context.capture.empty()) out["capture"] = context.capture;
  out["proto"] = protocol_name(answer.key.raw.protocol);
  out["src"] = answer.key.address(source).to_string();
  out["sport"] = answer.key.port(source);
  out["dst"] = answer.key.address(1 - source).to_string();
  out["dport"] = answer.key.port(1 - source);
  out["ndpi"] = answer.name.empty() ? names.catalog.application_name(0) : answer.name;
  out["application"] = application_of(answer, names);
  out["master"] = names.catalog.application_name(facts.master);
  out["category"] = names.catalog.category_name(facts.category);
  out["source"] = name_or_null(context.source, Source::none);
  out["confidence"] = name_or_null(facts.confidence, Confidence::none);
  out["hostname"] = facts.hostname;
  Json risks = Json::array();
  Json risk_details = Json::array();
  for (unsigned bit = 0; bit < kRiskBits; ++bit) {
    if ((facts.risks >> bit & 1) == 0) continue;
    const auto id = static_cast<std::uint16_t>(bit);
    std::string name = names.catalog.risk_name(id);
    if (name.empty()) name = std::to_string(bit);
    risk_details.push_back(
        Json{{"name", name}, {"severity", severity_name(names.catalog.risk_severity(id))}});
    risks.push_back(std::move(name));
  }
  out["risks"] = std::move(risks);
  out["class"] = context.class_name;
  out["packets"] = context.count.packets[0] + context.count.packets[1];
  out["bytes"] = context.count.bytes[0] + context.count.bytes[1];
  out["sampled_packets"] = context.sampled_packets;
  out["sampled_bytes"] = context.sampled_bytes;
  out["state"] = to_string(answer.state);
  out["midstream"] = facts.midstream;
  if (!risk_details.empty()) {
    out["risk_score"] = facts.risk_score;
    out["risk_details"] = std::move(risk_details);
  }
  if (facts.detector != Detector::none) out["detector"] = to_string(facts.detector);
  if (Json tls = tls_of(details); !tls.empty()) out["tls"] = std::move(tls);
  Json http = Json::object();
  put(http, "url", details.http_url);
  put(http, "user_agent", details.user_agent);
  if (!http.empty()) out["http"] = std::move(http);
  put(out, "address_owner", details.address_owner);
  if (!details.dns_query.empty()) out["dns"] = Json{{"query", details.dns_query}};
  if (!details.bittorrent_hash.empty())
    out["bittorrent"] = Json{{"info_hash", details.bittorrent_hash}};
  return out;
}

std::string to_json_line(const Answer& answer, const RecordContext& context,
                         const RecordNames& names) {
  return to_json(answer, context, names).dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string table_header() {
  return fmt::format("{:<8} {:<45} {:<45} {:<24} {:>9} {:>12} {:<16} {}", "PROTO", "SOURCE",
                     "DESTINATION", "NDPI", "PACKETS", "BYTES", "CLASS", "HOSTNAME");
}

std::string to_table_row(const Answer& answer, const RecordContext& context,
                         const RecordNames& names) {
  const auto endpoint = [&](int which) {
    const std::string address = answer.key.address(which).to_string();
    const bool v6 = address.find(':') != std::string::npos;
    return fmt::format("{}{}{}:{}", v6 ? "[" : "", address, v6 ? "]" : "", answer.key.port(which));
  };
  return fmt::format("{:<8} {:<45} {:<45} {:<24} {:>9} {:>12} {:<16} {}",
                     protocol_name(answer.key.raw.protocol), endpoint(answer.initiator),
                     endpoint(1 - answer.initiator),
                     answer.name.empty() ? names.catalog.application_name(0) : answer.name,
                     context.count.packets[0] + context.count.packets[1],
                     context.count.bytes[0] + context.count.bytes[1],
                     context.class_name.empty() ? "-" : context.class_name,
                     answer.facts.hostname.empty() ? "-" : answer.facts.hostname);
}

}  // namespace l7mark
