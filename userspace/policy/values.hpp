// SPDX-License-Identifier: GPL-2.0-only
// Values that a policy writes as text, in the notation of the tools that they are meant for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policy/policy.hpp"

namespace l7mark {

// Decimal, or hexadecimal after "0x".
[[nodiscard]] std::optional<std::uint32_t> parse_u32(std::string_view text);
// "0x85/0xff", or "0x85" for all bits, as iptables writes a mark; bits are not compared with the
// mask.
[[nodiscard]] std::optional<MaskedValue> parse_masked(std::string_view text);
// "1:10" as tc writes it: both halves hexadecimal, major not 0.
[[nodiscard]] std::optional<std::uint32_t> parse_tc_class(std::string_view text);
// RFC 2474 class selectors, AF (RFC 2597), EF (RFC 3246), VA (RFC 5865), LE (RFC 8622), and BE.
[[nodiscard]] std::optional<std::uint8_t> parse_dscp_name(std::string_view text);
[[nodiscard]] std::vector<std::string> dscp_names();
// "8801-8810" or "443"; never 0.
[[nodiscard]] std::optional<PortRange> parse_port_range(std::string_view text);
// "00:53:00:aa:bb:cc"
[[nodiscard]] std::optional<MacAddress> parse_mac(std::string_view text);
// Lower-cases and checks. Names are as on the wire: ASCII, at most 253 characters (RFC
// 1035, 2.3.4).
[[nodiscard]] std::optional<HostPattern> parse_host_pattern(std::string_view text);
// "18:30" as minutes since midnight; "24:00" is the day's end.
[[nodiscard]] std::optional<std::uint16_t> parse_clock(std::string_view text);
// "UTC", "+02:00" or "-09:30" as minutes east of UTC.
[[nodiscard]] std::optional<std::int16_t> parse_utc_offset(std::string_view text);

struct TlsVersionName {
  const char* name;
  TlsVersion version;
};
[[nodiscard]] const std::vector<TlsVersionName>& tls_version_names();
// From the number in a hello (RFC 8446, 4.2.1; RFC 9147, 5.3 for DTLS); nothing for an unknown one.
[[nodiscard]] std::optional<TlsVersion> tls_version_from_wire(std::uint16_t number);

// True if a text in lower case is a JA4 fingerprint, three parts of 10, 12 and 12 characters, or a
// pattern of one with "*".
[[nodiscard]] bool is_ja4_pattern(std::string_view text);

}  // namespace l7mark
