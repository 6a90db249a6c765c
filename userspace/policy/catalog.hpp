// SPDX-License-Identifier: GPL-2.0-only
// The names that a policy may use and the classifier's numbers for them. The part that owns the
// classifier fills it, so that policies can be read and tested without one.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace l7mark {

enum class RiskSeverity : std::uint8_t { low, medium, high, severe };

class Catalog {
 public:
  // A name that is already taken keeps its first number; a number keeps its first name. `category`
  // need not have been added yet.
  void add_application(std::uint16_t id, std::string_view name, std::uint16_t category);
  void add_category(std::uint16_t id, std::string_view name);
  // `id` is the number of the bit in FlowFacts::risks, 0 to 63; others are left out.
  void add_risk(std::uint16_t id, std::string_view name, RiskSeverity severity);

  // Case is ignored.
  [[nodiscard]] std::optional<std::uint16_t> application(std::string_view name) const;
  [[nodiscard]] std::optional<std::uint16_t> category(std::string_view name) const;
  [[nodiscard]] std::optional<std::uint16_t> risk(std::string_view name) const;

  // Name as added; empty for a number that was not.
  [[nodiscard]] const std::string& application_name(std::uint16_t id) const;
  [[nodiscard]] const std::string& category_name(std::uint16_t id) const;
  [[nodiscard]] const std::string& risk_name(std::uint16_t id) const;
  // Category that an application belongs to by default; 0 for an unknown number.
  [[nodiscard]] std::uint16_t application_category(std::uint16_t id) const;
  // `low` for an unknown number.
  [[nodiscard]] RiskSeverity risk_severity(std::uint16_t id) const;

  // In the order of their numbers.
  [[nodiscard]] std::vector<std::string> application_names() const;
  [[nodiscard]] std::vector<std::string> category_names() const;
  [[nodiscard]] std::vector<std::string> risk_names() const;

 private:
  struct Entry {
    std::string name;
    std::uint16_t extra = 0;  // an application's category, a risk's severity
  };
  struct Kind {
    std::map<std::uint16_t, Entry> by_id;
    std::unordered_map<std::string, std::uint16_t> by_name;  // lower case

    void add(std::uint16_t id, std::string_view name, std::uint16_t extra);
    [[nodiscard]] std::optional<std::uint16_t> find(std::string_view name) const;
    [[nodiscard]] const Entry& entry(std::uint16_t id) const;
    [[nodiscard]] std::vector<std::string> names() const;
  };

  Kind applications_;
  Kind categories_;
  Kind risks_;
};

}  // namespace l7mark
