// SPDX-License-Identifier: GPL-2.0-only
// Reads questions and answers of the Domain Name System (RFC 1035, RFC 3596), for hints: nDPI keeps
// only the first address of an answer, and does not compare it with the question.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "flow.hpp"

namespace l7mark {

enum class DnsKind : std::uint8_t { query, response };

// What the header alone says: is this a DNS message, and of which kind? Empty if it can't be one.
[[nodiscard]] std::optional<DnsKind> dns_kind(std::span<const std::uint8_t> message);

// The one question of a query, or of the response that repeats it. Empty if there is not exactly
// one, if its class is not Internet, or if it is malformed.
struct DnsQuestion {
  std::uint16_t id = 0;  // of the message
  std::uint16_t type = 0;
  std::string name;  // lower case
  friend bool operator==(const DnsQuestion&, const DnsQuestion&) = default;
};
[[nodiscard]] std::optional<DnsQuestion> parse_dns_question(std::span<const std::uint8_t> message);

// The questions of one flow that have no response yet. Bounded: for the ninth the oldest goes.
inline constexpr std::size_t kDnsMaxQuestions = 8;
class DnsQuestions {
 public:
  // `direction` sent it. A query that is repeated is still one question.
  void ask(DnsQuestion question, std::uint8_t direction);
  // The other side has answered: true, and the question is done with, if it had been asked.
  [[nodiscard]] bool answer(const DnsQuestion& question, std::uint8_t direction);
  [[nodiscard]] bool empty() const { return asked_.empty(); }

 private:
  struct Asked {
    DnsQuestion question;
    std::uint8_t direction = 0;
  };
  std::vector<Asked> asked_;  // oldest first
};

// The addresses that a response gives for the name it was asked for, aliases followed. Empty for
// anything else: a query, an error, a message cut short or malformed, a reply without addresses.
// `client` of the result is left to the caller. Never more than kDnsMaxAddresses addresses.
inline constexpr std::size_t kDnsMaxAddresses = 64;
[[nodiscard]] std::optional<DnsAnswer> parse_dns_answer(std::span<const std::uint8_t> message);

}  // namespace l7mark
