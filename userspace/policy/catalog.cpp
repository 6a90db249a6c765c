// SPDX-License-Identifier: GPL-2.0-only
#include "policy/catalog.hpp"

#include "util/text.hpp"

namespace l7mark {

void Catalog::Kind::add(std::uint16_t id, std::string_view name, std::uint16_t extra) {
  by_id.try_emplace(id, Entry{std::string(name), extra});
  by_name.try_emplace(to_lower(name), id);
}

std::optional<std::uint16_t> Catalog::Kind::find(std::string_view name) const {
  const auto found = by_name.find(to_lower(name));
  if (found == by_name.end()) return std::nullopt;
  return found->second;
}

const Catalog::Entry& Catalog::Kind::entry(std::uint16_t id) const {
  static const Entry unknown;
  const auto found = by_id.find(id);
  return found == by_id.end() ? unknown : found->second;
}

std::vector<std::string> Catalog::Kind::names() const {
  std::vector<std::string> out;
  out.reserve(by_id.size());
  for (const auto& [id, entry] : by_id) out.push_back(entry.name);
  return out;
}

void Catalog::add_application(std::uint16_t id, std::string_view name, std::uint16_t category) {
  applications_.add(id, name, category);
}

void Catalog::add_category(std::uint16_t id, std::string_view name) {
  categories_.add(id, name, 0);
}

void Catalog::add_risk(std::uint16_t id, std::string_view name, RiskSeverity severity) {
  if (id < 64) risks_.add(id, name, static_cast<std::uint16_t>(severity));
}

std::optional<std::uint16_t> Catalog::application(std::string_view name) const {
  return applications_.find(name);
}

std::optional<std::uint16_t> Catalog::category(std::string_view name) const {
  return categories_.find(name);
}

std::optional<std::uint16_t> Catalog::risk(std::string_view name) const {
  return risks_.find(name);
}

const std::string& Catalog::application_name(std::uint16_t id) const {
  return applications_.entry(id).name;
}

const std::string& Catalog::category_name(std::uint16_t id) const {
  return categories_.entry(id).name;
}

const std::string& Catalog::risk_name(std::uint16_t id) const {
  return risks_.entry(id).name;
}

std::uint16_t Catalog::application_category(std::uint16_t id) const {
  return applications_.entry(id).extra;
}

RiskSeverity Catalog::risk_severity(std::uint16_t id) const {
  return static_cast<RiskSeverity>(risks_.entry(id).extra);
}

std::vector<std::string> Catalog::application_names() const {
  return applications_.names();
}

std::vector<std::string> Catalog::category_names() const {
  return categories_.names();
}

std::vector<std::string> Catalog::risk_names() const {
  return risks_.names();
}

}  // namespace l7mark
