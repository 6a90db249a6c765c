// SPDX-License-Identifier: GPL-2.0-only
// What the parts of the policy parser share: tables of keys, checks of single values, and the first
// error, which makes all that comes after it harmless and unseen.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "policy/catalog.hpp"
#include "policy/json_document.hpp"
#include "policy/policy.hpp"

namespace l7mark {

class PolicyReader;

// One key of an object and what reads its value.
template <class T>
struct Field {
  std::string_view key;
  void (*read)(PolicyReader& reader, const JsonNode& node, T& out);
  bool required = false;
};

template <class T>
using Choices = std::span<const std::pair<std::string_view, T>>;

class PolicyReader {
 public:
  PolicyReader(const JsonDocument& document, const Catalog& catalog, Policy& policy,
               UnknownApplications unknown)
      : document_(document), catalog_(catalog), policy_(policy), unknown_(unknown) {}

  [[nodiscard]] const Catalog& catalog() const { return catalog_; }
  // As far as it has been read: tables of keys are in the order in which they are read.
  [[nodiscard]] Policy& policy() { return policy_; }

  // Keeps the first error only.
  void fail(const JsonNode& node, std::string_view message);
  void fail_at_key(const JsonNode& node, std::string_view message);
  void warn(const JsonNode& node, std::string_view message);
  [[nodiscard]] const std::optional<Error>& error() const { return error_; }

  // All return a harmless value after an error.
  [[nodiscard]] std::uint64_t number(const JsonNode& node, std::uint64_t min, std::uint64_t max);
  [[nodiscard]] bool boolean(const JsonNode& node);
  [[nodiscard]] std::string text(const JsonNode& node);
  [[nodiscard]] std::uint32_t u32(const JsonNode& node);  // number or "0x…"
  [[nodiscard]] MaskedValue masked(const JsonNode& node);
  [[nodiscard]] Prefix prefix(const JsonNode& node);
  [[nodiscard]] PortRange port_range(const JsonNode& node);
  [[nodiscard]] HostPattern host_pattern(const JsonNode& node);
  // Numbers of a list of nDPI's and own applications. Names that this classifier lacks are left
  // out with a warning, or fail, as the constructor was told.
  [[nodiscard]] std::vector<std::uint16_t> applications(const JsonNode& node);
  // The same of nDPI's applications only: what carries another.
  [[nodiscard]] std::vector<std::uint16_t> masters(const JsonNode& node);

  // The elements of a list that must have some.
  [[nodiscard]] std::span<JsonNode* const> elements(const JsonNode& node);

  // "mode" is what `what` would be in: unknown mode "natve": must be one of …
  template <class T>
  [[nodiscard]] T one_of(const JsonNode& node, std::string_view what, Choices<T> choices) {
    const std::string wanted = text(node);
    std::string names;
    for (const auto& [name, value] : choices) {
      if (name == wanted) return value;
      names += names.empty() ? "" : ", ";
      names += name;
    }
    fail(node, fmt::format("unknown {} \"{}\": must be one of {}", what, wanted, names));
    return choices.front().second;
  }

  template <class T>
  void object(const JsonNode& node, std::span<const Field<T>> fields, T& out) {
    if (node.kind != JsonNode::Kind::object) {
      fail(node, "must be an object in braces");
      return;
    }
    std::vector<std::string> keys;
    for (const auto& field : fields) keys.emplace_back(field.key);
    check_keys(node, keys);
    for (const auto& field : fields) {
      if (const JsonNode* child = node.find(field.key))
        field.read(*this, *child, out);
      else if (field.required)
        fail(node, fmt::format("\"{}\" is missing", field.key));
    }
  }

 private:
  void check_keys(const JsonNode& node, const std::vector<std::string>& keys);
  [[nodiscard]] std::optional<std::uint16_t> application(const JsonNode& node, bool own,
                                                         std::string_view kind);
  [[nodiscard]] std::string describe(const JsonNode& node, std::string_view message) const;

  const JsonDocument& document_;
  const Catalog& catalog_;
  Policy& policy_;
  UnknownApplications unknown_;
  std::size_t unknown_names_ = 0;
  std::optional<Error> error_;
};

template <class T>
[[nodiscard]] KeyTable key_table(std::string object, std::span<const Field<T>> fields) {
  KeyTable table{std::move(object), {}, {}};
  for (const auto& field : fields) {
    table.keys.emplace_back(field.key);
    if (field.required) table.required.emplace_back(field.key);
  }
  return table;
}

[[nodiscard]] Match read_match(PolicyReader& reader, const JsonNode& node);
[[nodiscard]] Schedule read_schedule(PolicyReader& reader, const JsonNode& node);
void read_classes(PolicyReader& reader, const JsonNode& node);
void read_protocols_file(PolicyReader& reader, const JsonNode& node, Policy& out);
void read_root(PolicyReader& reader, const JsonNode& node);

void add_match_keys(std::vector<KeyTable>& out);
void add_schedule_keys(std::vector<KeyTable>& out);
void add_class_keys(std::vector<KeyTable>& out);
void add_root_keys(std::vector<KeyTable>& out);

}  // namespace l7mark
