// SPDX-License-Identifier: GPL-2.0-only
#include "handshake/client_hello.hpp"

#include <algorithm>
#include <array>

#include "handshake/byte_reader.hpp"

namespace l7mark {
namespace {

using Bytes = std::span<const std::uint8_t>;

constexpr std::uint8_t kTypeClientHello = 1;
constexpr std::uint8_t kTypeServerHello = 2;
constexpr std::size_t kRandom = 32;
constexpr std::size_t kMaxServerName = 255;  // RFC 1035, 2.3.4

// The ServerHello.random that makes it a HelloRetryRequest: SHA-256 of that word (RFC 8446, 4.1.3).
constexpr std::array<std::uint8_t, kRandom> kRetryRandom = {
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c};

// The body of a message that has the right type, and exactly the length that it states.
std::optional<ByteReader> body_of(Bytes message, std::uint8_t type) {
  if (message.size() > kHelloMaxMessage) return std::nullopt;
  ByteReader reader(message);
  if (reader.u8() != type) return std::nullopt;
  const Bytes body = reader.vector24();
  if (!reader.done()) return std::nullopt;
  return ByteReader(body);
}

// Numbers of two bytes; empty if there is half of one.
std::vector<std::uint16_t> numbers_of(Bytes bytes) {
  std::vector<std::uint16_t> out;
  if (bytes.size() % 2 != 0) return out;
  out.reserve(bytes.size() / 2);
  ByteReader reader(bytes);
  while (reader.remaining() != 0) out.push_back(reader.u16());
  return out;
}

// The content of an extension that is one vector of numbers, behind a length of one or two bytes.
std::vector<std::uint16_t> number_list(Bytes content, int length_bytes) {
  ByteReader reader(content);
  const Bytes list = length_bytes == 1 ? reader.vector8() : reader.vector16();
  if (!reader.done()) return {};
  return numbers_of(list);
}

// The host_name of a server_name extension (RFC 6066, 3).
std::string server_name_of(Bytes content) {
  ByteReader outer(content);
  ByteReader list(outer.vector16());
  if (!outer.ok()) return {};
  while (list.remaining() != 0) {
    const std::uint8_t type = list.u8();
    const Bytes name = list.vector16();
    if (!list.ok()) return {};
    if (type != 0) continue;
    if (name.size() > kMaxServerName) return {};
    std::string out;
    out.reserve(name.size());
    for (const std::uint8_t byte : name) {
      if (byte <= 0x20 || byte >= 0x7f) return {};
      const char c = static_cast<char>(byte);
      out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
    if (!out.empty() && out.back() == '.') out.pop_back();
    return out;
  }
  return {};
}

// The protocols of an ALPN extension (RFC 7301, 3.1).
std::vector<std::string> alpn_of(Bytes content) {
  std::vector<std::string> out;
  ByteReader outer(content);
  ByteReader list(outer.vector16());
  if (!outer.done()) return out;
  while (list.remaining() != 0 && out.size() < kHelloMaxAlpn) {
    const Bytes name = list.vector8();
    if (!list.ok()) return {};
    out.emplace_back(name.begin(), name.end());
  }
  return out;
}

void read_extension(ClientHello& hello, std::uint16_t number, Bytes content) {
  switch (number) {
    case extension::kServerName:
      hello.server_name = server_name_of(content);
      break;
    case extension::kSignatureAlgorithms:
      hello.signature_algorithms = number_list(content, 2);
      break;
    case extension::kAlpn:
      hello.alpn = alpn_of(content);
      break;
    case extension::kSupportedVersions:
      hello.supported_versions = number_list(content, 1);
      break;
    case extension::kQuicTransportParameters:
    case extension::kQuicTransportParametersDraft:
      hello.quic_transport_parameters = true;
      break;
    case extension::kEncryptedClientHello:
      hello.ech = true;
      break;
    default:
      break;
  }
}

// Extensions that are read once only, as bits: a hello of thousands of them must not be searched
// for each.
unsigned bit_of(std::uint16_t number) {
  switch (number) {
    case extension::kServerName:
      return 1;
    case extension::kSignatureAlgorithms:
      return 2;
    case extension::kAlpn:
      return 4;
    case extension::kSupportedVersions:
      return 8;
    default:
      return 0;
  }
}

}  // namespace

bool ClientHello::has(std::uint16_t number) const {
  return std::find(extensions.begin(), extensions.end(), number) != extensions.end();
}

std::optional<ClientHello> parse_client_hello(Bytes message, HelloTransport transport) {
  auto body = body_of(message, kTypeClientHello);
  if (!body) return std::nullopt;
  ClientHello hello;
  hello.legacy_version = body->u16();
  body->skip(kRandom);
  body->vector8();                                         // session id
  if (transport == HelloTransport::dtls) body->vector8();  // cookie (RFC 6347, 4.2.1)
  const Bytes ciphers = body->vector16();
  body->vector8();  // compression methods
  if (!body->ok() || ciphers.size() % 2 != 0) return std::nullopt;
  hello.ciphers = numbers_of(ciphers);
  if (body->done()) return hello;  // before TLS 1.2 there need be no extensions

  ByteReader list(body->vector16());
  if (!body->done()) return std::nullopt;
  unsigned seen = 0;
  while (list.remaining() != 0) {
    const std::uint16_t number = list.u16();
    const Bytes content = list.vector16();
    if (!list.ok()) return std::nullopt;
    hello.extensions.push_back(number);
    const unsigned bit = bit_of(number);
    if ((seen & bit) != 0) continue;
    seen |= bit;
    read_extension(hello, number, content);
  }
  return hello;
}

std::optional<ServerHello> parse_server_hello(Bytes message) {
  auto body = body_of(message, kTypeServerHello);
  if (!body) return std::nullopt;
  ServerHello hello;
  hello.version = body->u16();
  const Bytes random = body->take(kRandom);
  body->vector8();  // session id
  hello.cipher = body->u16();
  body->skip(1);  // compression method
  if (!body->ok()) return std::nullopt;
  hello.is_retry = std::equal(random.begin(), random.end(), kRetryRandom.begin());
  if (body->done()) return hello;

  ByteReader list(body->vector16());
  if (!body->done()) return std::nullopt;
  unsigned seen = 0;
  while (list.remaining() != 0) {
    const std::uint16_t number = list.u16();
    const Bytes content = list.vector16();
    if (!list.ok()) return std::nullopt;
    const unsigned bit = bit_of(number);
    if ((seen & bit) != 0) continue;
    seen |= bit;
    if (number == extension::kSupportedVersions && content.size() == 2) {
      hello.version = ByteReader(content).u16();
    } else if (number == extension::kAlpn) {
      auto names = alpn_of(content);
      if (!names.empty()) hello.alpn = std::move(names.front());
    }
  }
  return hello;
}

}  // namespace l7mark
