// SPDX-License-Identifier: GPL-2.0-only
#include "util/address.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "util/text.hpp"

namespace l7mark {

namespace {

constexpr std::array<std::uint8_t, 12> kMapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

// A fixed table, not /etc/protocols: a minimal gateway may not have that file.
constexpr std::pair<std::uint8_t, const char*> kProtocols[] = {
    {IPPROTO_ICMP, "icmp"},    {IPPROTO_IGMP, "igmp"},
    {IPPROTO_IPIP, "ipip"},    {IPPROTO_TCP, "tcp"},
    {IPPROTO_UDP, "udp"},      {IPPROTO_DCCP, "dccp"},
    {IPPROTO_IPV6, "ipv6"},    {IPPROTO_GRE, "gre"},
    {IPPROTO_ESP, "esp"},      {IPPROTO_AH, "ah"},
    {IPPROTO_ICMPV6, "icmp6"}, {89, "ospf"},
    {IPPROTO_PIM, "pim"},      {112, "vrrp"},
    {IPPROTO_SCTP, "sctp"},    {IPPROTO_UDPLITE, "udplite"},
};

}  // namespace

Address Address::v4(std::uint32_t network_order) {
  Address out;
  std::copy(kMapped.begin(), kMapped.end(), out.bytes.begin());
  std::memcpy(out.bytes.data() + kMapped.size(), &network_order, sizeof(network_order));
  return out;
}

std::optional<Address> Address::parse(std::string_view text) {
  const std::string copy(text);
  std::uint32_t v4_bits = 0;
  if (inet_pton(AF_INET, copy.c_str(), &v4_bits) == 1) return v4(v4_bits);
  Address out;
  if (inet_pton(AF_INET6, copy.c_str(), out.bytes.data()) == 1) return out;
  return std::nullopt;
}

bool Address::is_v4() const {
  return std::equal(kMapped.begin(), kMapped.end(), bytes.begin());
}

std::uint32_t Address::v4_bits() const {
  std::uint32_t out = 0;
  std::memcpy(&out, bytes.data() + kMapped.size(), sizeof(out));
  return out;
}

std::string Address::to_string() const {
  char text[INET6_ADDRSTRLEN];
  const bool mapped = is_v4();
  inet_ntop(mapped ? AF_INET : AF_INET6, mapped ? bytes.data() + kMapped.size() : bytes.data(),
            text, sizeof(text));
  return text;
}

std::optional<Prefix> Prefix::parse(std::string_view text) {
  const auto slash = text.find('/');
  const auto address = Address::parse(text.substr(0, slash));
  if (!address) return std::nullopt;
  const unsigned longest = address->is_v4() ? 32 : 128;
  unsigned length = longest;
  if (slash != std::string_view::npos) {
    const auto digits = text.substr(slash + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
    if (error != std::errc{} || end != digits.data() + digits.size() || length > longest)
      return std::nullopt;
  }
  return Prefix{*address, static_cast<std::uint8_t>(length)};
}

unsigned Prefix::length128() const {
  return address.is_v4() ? length + 96U : length;
}

bool Prefix::contains(const Address& other) const {
  if (address.is_v4() != other.is_v4()) return false;
  const unsigned bits = length128();
  const unsigned whole = bits / 8;
  if (std::memcmp(address.bytes.data(), other.bytes.data(), whole) != 0) return false;
  if (bits % 8 == 0) return true;
  const auto mask = static_cast<std::uint8_t>(0xff << (8 - bits % 8));
  return ((address.bytes[whole] ^ other.bytes[whole]) & mask) == 0;
}

std::string Prefix::to_string() const {
  return address.to_string() + "/" + std::to_string(length);
}

std::string protocol_name(std::uint8_t protocol) {
  for (const auto& [number, name] : kProtocols)
    if (number == protocol) return name;
  return std::to_string(protocol);
}

std::optional<std::uint8_t> parse_protocol(std::string_view text) {
  for (const auto& [number, name] : kProtocols)
    if (equal_ignoring_case(text, name)) return number;
  unsigned number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number > 255) return std::nullopt;
  return static_cast<std::uint8_t>(number);
}

}  // namespace l7mark
