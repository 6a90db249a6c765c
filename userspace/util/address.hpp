// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "util/keyed_hash.hpp"

namespace l7mark {

// An IPv4 or IPv6 address, network byte order; IPv4 is held as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2),
// the same 16 bytes as in the kernel's keys.
struct Address {
  std::array<std::uint8_t, 16> bytes{};

  [[nodiscard]] static Address v4(std::uint32_t network_order);
  [[nodiscard]] static std::optional<Address> parse(std::string_view text);

  [[nodiscard]] bool is_v4() const;
  // The last four bytes in network order; meaningful for IPv4 only.
  [[nodiscard]] std::uint32_t v4_bits() const;
  // "192.0.2.1" or "2001:db8::1" (RFC 5952).
  [[nodiscard]] std::string to_string() const;

  friend auto operator<=>(const Address&, const Address&) = default;
};

// A CIDR block. An IPv4 block's length is counted within the IPv4 address: 0 to 32.
struct Prefix {
  Address address;
  std::uint8_t length = 0;

  [[nodiscard]] static std::optional<Prefix> parse(std::string_view text);
  [[nodiscard]] bool contains(const Address& address) const;
  // Length within the 128-bit form: 96 more for IPv4.
  [[nodiscard]] unsigned length128() const;
  [[nodiscard]] std::string to_string() const;

  friend bool operator==(const Prefix&, const Prefix&) = default;
};

// "tcp", "udp", "icmp", … as in /etc/protocols, else the number.
[[nodiscard]] std::string protocol_name(std::uint8_t protocol);
[[nodiscard]] std::optional<std::uint8_t> parse_protocol(std::string_view text);

}  // namespace l7mark

template <>
struct std::hash<l7mark::Address> {
  // Not noexcept: the standard tables then keep the hashes instead of reckoning them anew.
  std::size_t operator()(const l7mark::Address& a) const { return l7mark::keyed_hash_of(a.bytes); }
};
