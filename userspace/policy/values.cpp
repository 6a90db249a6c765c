// SPDX-License-Identifier: GPL-2.0-only
#include "policy/values.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

#include "util/text.hpp"

namespace l7mark {

namespace {

template <class T>
std::optional<T> parse_digits(std::string_view text, int base) {
  T out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out, base);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return out;
}

struct DscpName {
  const char* name;
  std::uint8_t value;
};
constexpr DscpName kDscpNames[] = {
    {"BE", 0},    {"LE", 1},    {"CS0", 0},   {"CS1", 8},   {"AF11", 10}, {"AF12", 12},
    {"AF13", 14}, {"CS2", 16},  {"AF21", 18}, {"AF22", 20}, {"AF23", 22}, {"CS3", 24},
    {"AF31", 26}, {"AF32", 28}, {"AF33", 30}, {"CS4", 32},  {"AF41", 34}, {"AF42", 36},
    {"AF43", 38}, {"CS5", 40},  {"VA", 44},   {"EF", 46},   {"CS6", 48},  {"CS7", 56},
};

bool is_label_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

}  // namespace

std::optional<std::uint32_t> parse_u32(std::string_view text) {
  if (text.starts_with("0x") || text.starts_with("0X"))
    return parse_digits<std::uint32_t>(text.substr(2), 16);
  return parse_digits<std::uint32_t>(text, 10);
}

std::optional<MaskedValue> parse_masked(std::string_view text) {
  const auto slash = text.find('/');
  const auto value = parse_u32(text.substr(0, slash));
  if (!value) return std::nullopt;
  if (slash == std::string_view::npos) return MaskedValue{*value, UINT32_MAX};
  const auto mask = parse_u32(text.substr(slash + 1));
  if (!mask) return std::nullopt;
  return MaskedValue{*value, *mask};
}

std::optional<std::uint32_t> parse_tc_class(std::string_view text) {
  const auto colon = text.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const auto major = parse_digits<std::uint16_t>(text.substr(0, colon), 16);
  const std::string_view minor_text = text.substr(colon + 1);
  const auto minor =
      minor_text.empty() ? std::uint16_t{0} : parse_digits<std::uint16_t>(minor_text, 16);
  if (!major || *major == 0 || !minor) return std::nullopt;
  return static_cast<std::uint32_t>(*major) << 16 | *minor;
}

std::optional<std::uint8_t> parse_dscp_name(std::string_view text) {
  for (const auto& [name, value] : kDscpNames)
    if (equal_ignoring_case(text, name)) return value;
  return std::nullopt;
}

std::vector<std::string> dscp_names() {
  std::vector<std::string> out;
  for (const auto& entry : kDscpNames) out.emplace_back(entry.name);
  return out;
}

std::optional<PortRange> parse_port_range(std::string_view text) {
  const auto dash = text.find('-');
  const auto first = parse_digits<std::uint16_t>(text.substr(0, dash), 10);
  const auto last = dash == std::string_view::npos
                        ? first
                        : parse_digits<std::uint16_t>(text.substr(dash + 1), 10);
  if (!first || !last || *first == 0 || *first > *last) return std::nullopt;
  return PortRange{*first, *last};
}

std::optional<MacAddress> parse_mac(std::string_view text) {
  MacAddress out{};
  if (text.size() != 17) return std::nullopt;
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (i > 0 && text[i * 3 - 1] != ':') return std::nullopt;
    const auto byte = parse_digits<std::uint8_t>(text.substr(i * 3, 2), 16);
    if (!byte) return std::nullopt;
    out[i] = *byte;
  }
  return out;
}

std::optional<HostPattern> parse_host_pattern(std::string_view text) {
  HostPattern out;
  if (text.starts_with("*.")) {
    out.suffix = true;
    text.remove_prefix(2);
  }
  if (text.ends_with('.')) text.remove_suffix(1);
  out.name = to_lower(text);
  if (out.name.empty() || out.name.size() > 253) return std::nullopt;
  std::size_t label = 0;
  for (const char c : out.name) {
    if (c == '.') {
      if (label == 0) return std::nullopt;
      label = 0;
    } else if (!is_label_character(c) || ++label > 63) {
      return std::nullopt;
    }
  }
  if (label == 0) return std::nullopt;
  return out;
}

std::optional<std::uint16_t> parse_clock(std::string_view text) {
  if (text.size() != 5 || text[2] != ':') return std::nullopt;
  const auto hours = parse_digits<std::uint16_t>(text.substr(0, 2), 10);
  const auto minutes = parse_digits<std::uint16_t>(text.substr(3), 10);
  if (!hours || !minutes || *minutes > 59) return std::nullopt;
  const int total = *hours * 60 + *minutes;
  if (total > 24 * 60) return std::nullopt;
  return static_cast<std::uint16_t>(total);
}

std::optional<std::int16_t> parse_utc_offset(std::string_view text) {
  if (equal_ignoring_case(text, "UTC")) return std::int16_t{0};
  if (text.empty() || (text[0] != '+' && text[0] != '-')) return std::nullopt;
  const auto minutes = parse_clock(text.substr(1));
  if (!minutes || *minutes > 14 * 60) return std::nullopt;  // the farthest zone is UTC+14
  return static_cast<std::int16_t>(text[0] == '-' ? -*minutes : *minutes);
}

const std::vector<TlsVersionName>& tls_version_names() {
  static const std::vector<TlsVersionName> names{
      {"ssl2", TlsVersion::ssl2}, {"ssl3", TlsVersion::ssl3}, {"1.0", TlsVersion::tls10},
      {"1.1", TlsVersion::tls11}, {"1.2", TlsVersion::tls12}, {"1.3", TlsVersion::tls13},
  };
  return names;
}

std::optional<TlsVersion> tls_version_from_wire(std::uint16_t number) {
  switch (number) {
    case 0x0002:
      return TlsVersion::ssl2;
    case 0x0300:
      return TlsVersion::ssl3;
    case 0x0301:
      return TlsVersion::tls10;
    case 0x0302:
    case 0xfeff:
      return TlsVersion::tls11;
    case 0x0303:
    case 0xfefd:
      return TlsVersion::tls12;
    case 0x0304:
    case 0xfefc:
      return TlsVersion::tls13;
    default:
      return std::nullopt;
  }
}

bool is_ja4_pattern(std::string_view text) {
  constexpr std::size_t kLength = 36;
  constexpr std::size_t kSeparators[] = {10, 23};
  const bool plain = text.find('*') == std::string_view::npos;
  if (text.empty() || text.size() > kLength || (plain && text.size() != kLength)) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (plain && (c == '_') != (i == kSeparators[0] || i == kSeparators[1])) return false;
    if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '_' && c != '*') return false;
  }
  return true;
}

}  // namespace l7mark
