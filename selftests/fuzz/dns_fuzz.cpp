// SPDX-License-Identifier: GPL-2.0-only
// The reader of DNS answers: any bytes, no crash, and what it promises of its results.
#include <cstdlib>

#include "dpi/dns.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto answer = l7mark::parse_dns_answer({data, size});
  if (!answer) return 0;
  if (answer->addresses.empty() || answer->addresses.size() > l7mark::kDnsMaxAddresses) abort();
  if (answer->name.empty() || answer->name.size() > 255) abort();
  return 0;
}
