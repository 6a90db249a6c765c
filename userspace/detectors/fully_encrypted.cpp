// SPDX-License-Identifier: GPL-2.0-only
#include "detectors/fully_encrypted.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <string_view>

namespace l7mark {
namespace {

using Bytes = std::span<const std::uint8_t>;

constexpr std::size_t kLeastPayload = 64;
constexpr std::ptrdiff_t kFrameZeros = 4;
constexpr std::size_t kFrame = 16;        // where a frame of zeros is looked for
constexpr std::size_t kLengthPlaces = 4;  // of a 16-bit length
constexpr std::size_t kPrintableStart = 6;
constexpr std::size_t kPrintableRun = 20;

bool is_printable(std::uint8_t byte) {
  return byte >= 0x20 && byte <= 0x7e;
}

// Bits that are 1, of 8: of random bytes it is 4 in the mean.
bool has_random_bits(Bytes payload) {
  std::size_t ones = 0;
  for (const std::uint8_t byte : payload) ones += static_cast<std::size_t>(std::popcount(byte));
  return ones * 10 > payload.size() * 34 && ones * 10 < payload.size() * 46;
}

bool has_text(Bytes payload) {
  if (std::all_of(payload.begin(), payload.begin() + kPrintableStart, is_printable)) return true;
  std::size_t printable = 0;
  std::size_t run = 0;
  for (const std::uint8_t byte : payload) {
    run = is_printable(byte) ? run + 1 : 0;
    if (run > kPrintableRun) return true;
    if (run > 0) ++printable;
  }
  return printable * 2 > payload.size();
}

// A TLS record of a handshake or of data, or an HTTP request. A request begins with text as well.
bool is_tls(Bytes payload) {
  return (payload[0] == 0x16 || payload[0] == 0x17) && payload[1] == 0x03 && payload[2] <= 0x09;
}

bool is_http(Bytes payload) {
  const auto begins_with = [payload](std::string_view method) {
    return std::equal(method.begin(), method.end(), payload.begin());
  };
  return begins_with("GET ") || begins_with("PUT ") || begins_with("POST ") || begins_with("HEAD ");
}

bool has_zeros(Bytes payload) {
  const Bytes frame = payload.first(kFrame);
  return std::count(frame.begin(), frame.end(), std::uint8_t{0}) >= kFrameZeros;
}

// The length counts the whole payload, or what follows it.
bool has_length(Bytes payload, std::size_t wire_length) {
  for (std::size_t at = 0; at < kLengthPlaces; ++at) {
    const std::size_t big = std::size_t{payload[at]} << 8 | payload[at + 1];
    const std::size_t little = std::size_t{payload[at + 1]} << 8 | payload[at];
    for (const std::size_t length : {big, little})
      if (length == wire_length || length + at + 2 == wire_length) return true;
  }
  return false;
}

}  // namespace

bool is_fully_encrypted(Bytes payload, std::size_t wire_length) {
  if (payload.size() < kLeastPayload) return false;
  if (has_zeros(payload) || has_length(payload, wire_length)) return false;
  return has_random_bits(payload) && !has_text(payload) && !is_tls(payload) && !is_http(payload);
}

}  // namespace l7mark
