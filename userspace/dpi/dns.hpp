// SPDX-License-Identifier: GPL-2.0-only
// Reads answers of the Domain Name System (RFC 1035, RFC 3596), for hints: nDPI keeps only the
// first address of one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "flow.hpp"

namespace l7mark {

enum class DnsKind : std::uint8_t { query, response };

// What the header alone says: is this a DNS message, and of which kind? Empty if it can't be one.
[[nodiscard]] std::optional<DnsKind> dns_kind(std::span<const std::uint8_t> message);

// The addresses that a response gives for the name it was asked for, aliases followed. Empty for
// anything else: a query, an error, a message cut short or malformed, a reply without addresses.
// `client` of the result is left to the caller. Never more than kDnsMaxAddresses addresses.
inline constexpr std::size_t kDnsMaxAddresses = 64;
[[nodiscard]] std::optional<DnsAnswer> parse_dns_answer(std::span<const std::uint8_t> message);

}  // namespace l7mark
