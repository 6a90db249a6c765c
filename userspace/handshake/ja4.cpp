// SPDX-License-Identifier: GPL-2.0-only
#include "handshake/ja4.hpp"

#include <nettle/sha2.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace l7mark {
namespace {

using Numbers = std::vector<std::uint16_t>;

constexpr std::string_view kDigits = "0123456789abcdef";
constexpr std::size_t kHashBytes = 6;  // of the digest: 12 characters

void append_hex(std::string& out, std::uint8_t byte) {
  out += kDigits[byte >> 4];
  out += kDigits[byte & 15];
}

// "0005,000a".
std::string list_of(const Numbers& numbers) {
  std::string out;
  out.reserve(numbers.size() * 5);
  for (const std::uint16_t number : numbers) {
    if (!out.empty()) out += ',';
    append_hex(out, static_cast<std::uint8_t>(number >> 8));
    append_hex(out, static_cast<std::uint8_t>(number & 0xff));
  }
  return out;
}

Numbers without_grease(const Numbers& numbers) {
  Numbers out;
  out.reserve(numbers.size());
  std::copy_if(numbers.begin(), numbers.end(), std::back_inserter(out),
               [](std::uint16_t number) { return !is_grease(number); });
  return out;
}

// An empty list has a hash of its own, so that it is seen as empty.
std::string hash_of(const std::string& text) {
  std::array<std::uint8_t, SHA256_DIGEST_SIZE> digest{};
  if (!text.empty()) {
    sha256_ctx context;
    sha256_init(&context);
    sha256_update(&context, text.size(), reinterpret_cast<const std::uint8_t*>(text.data()));
    sha256_digest(&context, digest.size(), digest.data());
  }
  std::string out;
  for (std::size_t i = 0; i < kHashBytes; ++i) append_hex(out, digest[i]);
  return out;
}

char transport_letter(HelloTransport transport) {
  switch (transport) {
    case HelloTransport::tls:
      return 't';
    case HelloTransport::dtls:
      return 'd';
    case HelloTransport::quic:
      return 'q';
  }
  return 't';
}

// The highest number that supported_versions has, or else the legacy version. The numbers of DTLS
// go down as its versions go up; the specification asks for the highest number even so.
std::string_view version_of(const ClientHello& hello) {
  std::uint16_t version = hello.legacy_version;
  if (hello.has(extension::kSupportedVersions)) {
    version = 0;
    for (const std::uint16_t offered : hello.supported_versions) {
      if (!is_grease(offered)) version = std::max(version, offered);
    }
  }
  switch (version) {
    case 0x0304:
      return "13";
    case 0x0303:
      return "12";
    case 0x0302:
      return "11";
    case 0x0301:
      return "10";
    case 0x0300:
      return "s3";
    case 0x0002:
      return "s2";
    case 0xfeff:
      return "d1";
    case 0xfefd:
      return "d2";
    case 0xfefc:
      return "d3";
    default:
      return "00";
  }
}

// Two digits, at most 99.
void append_count(std::string& out, std::size_t count) {
  const std::size_t shown = std::min<std::size_t>(count, 99);
  out += kDigits[shown / 10];
  out += kDigits[shown % 10];
}

bool is_alphanumeric(std::uint8_t byte) {
  return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
         (byte >= 'a' && byte <= 'z');
}

// First and last character of the first protocol; of its hexadecimal form where either of the two
// bytes is no letter or digit.
void append_alpn(std::string& out, const ClientHello& hello) {
  if (hello.alpn.empty() || hello.alpn.front().empty()) {
    out += "00";
    return;
  }
  const auto first = static_cast<std::uint8_t>(hello.alpn.front().front());
  const auto last = static_cast<std::uint8_t>(hello.alpn.front().back());
  if (is_alphanumeric(first) && is_alphanumeric(last)) {
    out += static_cast<char>(first);
    out += static_cast<char>(last);
  } else {
    out += kDigits[first >> 4];
    out += kDigits[last & 15];
  }
}

}  // namespace

std::string ja4_of(const ClientHello& hello, HelloTransport transport) {
  Numbers ciphers = without_grease(hello.ciphers);
  Numbers extensions = without_grease(hello.extensions);
  const Numbers algorithms = without_grease(hello.signature_algorithms);

  std::string out;
  out += transport_letter(transport);
  out += version_of(hello);
  out += hello.has(extension::kServerName) ? 'd' : 'i';
  append_count(out, ciphers.size());
  append_count(out, extensions.size());
  append_alpn(out, hello);

  // The two that say where the client goes are counted, but left out of the hash.
  std::erase_if(extensions, [](std::uint16_t number) {
    return number == extension::kServerName || number == extension::kAlpn;
  });
  std::sort(ciphers.begin(), ciphers.end());
  std::sort(extensions.begin(), extensions.end());

  out += '_';
  out += hash_of(list_of(ciphers));
  out += '_';
  std::string list = list_of(extensions);
  if (!algorithms.empty()) list += '_' + list_of(algorithms);
  out += hash_of(list);
  return out;
}

}  // namespace l7mark
