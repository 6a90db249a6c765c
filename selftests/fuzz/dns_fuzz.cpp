// SPDX-License-Identifier: GPL-2.0-only
// The reader of DNS messages: any bytes, no crash, and what it promises of its results.
#include <cstdlib>

#include "dpi/dns.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto question = l7mark::parse_dns_question({data, size});
  if (question && (question->name.size() > 255 || !l7mark::dns_kind({data, size}))) abort();
  const auto answer = l7mark::parse_dns_answer({data, size});
  if (!answer) return 0;
  if (answer->addresses.empty() || answer->addresses.size() > l7mark::kDnsMaxAddresses) abort();
  // The worker asks by the question which answers to believe: none may lack one.
  if (!question || question->name != answer->name) abort();
  if (answer->name.empty() || answer->name.size() > 255) abort();
  return 0;
}
