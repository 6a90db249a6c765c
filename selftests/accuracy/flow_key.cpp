// SPDX-License-Identifier: GPL-2.0-only
#include "flow_key.hpp"

#include "util/address.hpp"

namespace l7mark {

std::string plain_address(const std::string& address) {
  const auto parsed = Address::parse(address);
  std::string text = parsed ? parsed->to_string() : address;
  const auto zero = text.find(":0:");
  if (zero != std::string::npos) text.replace(zero, 3, "::");
  return text;
}

std::string flow_key(unsigned protocol, const std::string& src, unsigned sport,
                     const std::string& dst, unsigned dport) {
  const std::string a = src + ' ' + std::to_string(sport);
  const std::string b = dst + ' ' + std::to_string(dport);
  return std::to_string(protocol) + ' ' + (a < b ? a + ' ' + b : b + ' ' + a);
}

}  // namespace l7mark
