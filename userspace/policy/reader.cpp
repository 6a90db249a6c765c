// SPDX-License-Identifier: GPL-2.0-only
#include "policy/reader.hpp"

#include <algorithm>

#include "policy/values.hpp"
#include "util/text.hpp"

namespace l7mark {

namespace {

// Nearest names are looked for among all applications: a policy of thousands of unknown names must
// not take seconds.
constexpr std::size_t kSuggestions = 50;

}  // namespace

std::string PolicyReader::describe(const JsonNode& node, std::string_view message) const {
  const std::string path = JsonDocument::path(node);
  return path.empty() ? std::string(message) : fmt::format("{}: {}", path, message);
}

void PolicyReader::fail(const JsonNode& node, std::string_view message) {
  if (!error_) error_ = document_.error(node.offset, describe(node, message));
}

void PolicyReader::fail_at_key(const JsonNode& node, std::string_view message) {
  if (!error_) error_ = document_.error(node.key_offset, describe(node, message));
}

void PolicyReader::warn(const JsonNode& node, std::string_view message) {
  policy_.warnings.push_back(document_.place(node.offset) + ": " + describe(node, message));
}

void PolicyReader::check_keys(const JsonNode& node, const std::vector<std::string>& keys) {
  for (const JsonNode* child : node.children)
    if (std::find(keys.begin(), keys.end(), child->key) == keys.end())
      fail_at_key(*child, "unknown key" + did_you_mean(child->key, keys));
}

std::uint64_t PolicyReader::number(const JsonNode& node, std::uint64_t min, std::uint64_t max) {
  if (node.kind == JsonNode::Kind::integer && !node.negative && node.number >= min &&
      node.number <= max)
    return node.number;
  fail(node, fmt::format("must be a whole number from {} to {}", min, max));
  return min;
}

bool PolicyReader::boolean(const JsonNode& node) {
  if (node.kind != JsonNode::Kind::boolean) fail(node, "must be true or false");
  return node.boolean;
}

std::string PolicyReader::text(const JsonNode& node) {
  if (node.kind != JsonNode::Kind::string) fail(node, "must be text in quotes");
  return node.text;
}

std::uint32_t PolicyReader::u32(const JsonNode& node) {
  if (node.kind == JsonNode::Kind::integer && !node.negative && node.number <= UINT32_MAX)
    return static_cast<std::uint32_t>(node.number);
  if (node.kind == JsonNode::Kind::string)
    if (const auto value = parse_u32(node.text)) return *value;
  fail(node, "must be a number of 32 bits, as in 133 or \"0x85\"");
  return 0;
}

MaskedValue PolicyReader::masked(const JsonNode& node) {
  std::optional<MaskedValue> out;
  if (node.kind == JsonNode::Kind::string)
    out = parse_masked(node.text);
  else if (node.kind == JsonNode::Kind::integer && !node.negative && node.number <= UINT32_MAX)
    out = MaskedValue{static_cast<std::uint32_t>(node.number), UINT32_MAX};
  if (!out) {
    fail(node, "must be a mark of 32 bits, as in \"0x85/0xff\" (with a mask) or \"0x85\"");
    return {};
  }
  if ((out->value & ~out->mask) != 0)
    fail(node, fmt::format("mark 0x{:x} has bits outside its mask 0x{:x}", out->value, out->mask));
  if (out->mask == 0) fail(node, "a mask of 0 changes nothing");
  return *out;
}

Prefix PolicyReader::prefix(const JsonNode& node) {
  const std::string wanted = text(node);
  const auto parsed = Prefix::parse(wanted);
  if (!parsed) {
    fail(node, fmt::format("\"{}\" is no address or CIDR block, as in \"192.0.2.0/24\"", wanted));
    return {};
  }
  Prefix masked = *parsed;
  for (unsigned bit = parsed->length128(); bit < 128; ++bit)
    masked.address.bytes[bit / 8] &= static_cast<std::uint8_t>(~(0x80U >> (bit % 8)));
  if (masked.address != parsed->address)
    fail(node, fmt::format("\"{}\" has address bits beyond its length: write \"{}\"", wanted,
                           masked.to_string()));
  return masked;
}

PortRange PolicyReader::port_range(const JsonNode& node) {
  if (node.kind == JsonNode::Kind::integer && !node.negative && node.number >= 1 &&
      node.number <= UINT16_MAX) {
    const auto port = static_cast<std::uint16_t>(node.number);
    return {port, port};
  }
  if (node.kind == JsonNode::Kind::string)
    if (const auto range = parse_port_range(node.text)) return *range;
  fail(node, "must be a port from 1 to 65535 or a range, as in 443 or \"8801-8810\"");
  return {};
}

HostPattern PolicyReader::host_pattern(const JsonNode& node) {
  const std::string wanted = text(node);
  if (auto pattern = parse_host_pattern(wanted)) return *pattern;
  fail(node, fmt::format("\"{}\" is no host name: must be as in \"example.org\" or "
                         "\"*.example.org\", international names in their xn-- form",
                         wanted));
  return {};
}

std::optional<std::uint16_t> PolicyReader::application(const JsonNode& node, bool own,
                                                       std::string_view kind) {
  const std::string wanted = text(node);
  if (own)
    for (const auto& one : policy_.applications)
      if (equal_ignoring_case(one.name, wanted)) return one.id;
  if (const auto id = catalog_.application(wanted)) return id;
  if (error_) return std::nullopt;  // the names below are many, and would not be seen
  std::string near;
  if (++unknown_names_ <= kSuggestions) {
    auto names = catalog_.application_names();
    if (own)
      for (const auto& one : policy_.applications) names.push_back(one.name);
    near = did_you_mean(wanted, names);
  }
  const std::string message = fmt::format("unknown {} \"{}\"{}", kind, wanted, near);
  if (unknown_ == UnknownApplications::fail)
    fail(node, message);
  else
    warn(node, message);
  return std::nullopt;
}

std::vector<std::uint16_t> PolicyReader::applications(const JsonNode& node) {
  std::vector<std::uint16_t> out;
  for (const JsonNode* element : elements(node))
    if (const auto id = application(*element, true, "application")) out.push_back(*id);
  return out;
}

std::vector<std::uint16_t> PolicyReader::masters(const JsonNode& node) {
  std::vector<std::uint16_t> out;
  for (const JsonNode* element : elements(node))
    if (const auto id = application(*element, false, "master protocol")) out.push_back(*id);
  return out;
}

std::span<JsonNode* const> PolicyReader::elements(const JsonNode& node) {
  if (node.kind != JsonNode::Kind::list)
    fail(node, "must be a list in brackets");
  else if (node.children.empty())
    fail(node, "an empty list matches nothing: leave the key out or name something");
  else
    return node.children;
  return {};
}

}  // namespace l7mark
