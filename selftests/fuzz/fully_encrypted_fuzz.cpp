// SPDX-License-Identifier: GPL-2.0-only
// The rules for fully encrypted traffic: any payload, and what a hit promises of it.
#include <algorithm>
#include <cstdlib>

#include "detectors/fully_encrypted.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::span<const std::uint8_t> payload(data + 2, size - 2);
  const std::size_t not_copied = std::size_t{data[0]} << 8 | data[1];
  if (!l7mark::is_fully_encrypted(payload, payload.size() + not_copied)) return 0;
  const auto printable = std::count_if(payload.begin(), payload.end(), [](std::uint8_t byte) {
    return byte >= 0x20 && byte < 0x7f;
  });
  if (payload.size() < 64 || static_cast<std::size_t>(printable) * 2 > payload.size()) abort();
  return 0;
}
