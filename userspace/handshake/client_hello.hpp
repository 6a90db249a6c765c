// SPDX-License-Identifier: GPL-2.0-only
// Reads the two hello messages of TLS (RFC 5246, RFC 8446), DTLS (RFC 6347, RFC 9147) and QUIC
// (RFC 9001), which are the last that everybody on the way can read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace l7mark {

// The carrier of a hello: a DTLS hello has a cookie, and fingerprints tell them apart.
enum class HelloTransport : std::uint8_t { tls, dtls, quic };

// Longest message that is read, and most protocol names that are kept of one. Every other list is
// bounded by the message's length.
inline constexpr std::size_t kHelloMaxMessage = 65536;
inline constexpr std::size_t kHelloMaxAlpn = 16;

// Extensions (IANA, "TLS ExtensionType Values").
namespace extension {
inline constexpr std::uint16_t kServerName = 0;
inline constexpr std::uint16_t kSignatureAlgorithms = 13;
inline constexpr std::uint16_t kAlpn = 16;
inline constexpr std::uint16_t kSupportedVersions = 43;
inline constexpr std::uint16_t kQuicTransportParameters = 57;
inline constexpr std::uint16_t kEncryptedClientHello = 0xfe0d;
inline constexpr std::uint16_t kQuicTransportParametersDraft = 0xffa5;
}  // namespace extension

struct ClientHello {
  std::uint16_t legacy_version = 0;
  // All in the order of the message, GREASE values (RFC 8701) included. Of an extension that is
  // there twice, which is forbidden, the first counts.
  std::vector<std::uint16_t> supported_versions;
  std::vector<std::uint16_t> ciphers;
  std::vector<std::uint16_t> extensions;
  std::vector<std::uint16_t> signature_algorithms;
  // Lower case, without a last dot; empty if there is none or if it is no printable host name.
  std::string server_name;
  // Raw bytes, at most kHelloMaxAlpn of them.
  std::vector<std::string> alpn;
  // The extension is there. That proves nothing: browsers send it with random content too (GREASE).
  // With a real one, server_name is the outer name, the one of the provider.
  bool ech = false;
  bool quic_transport_parameters = false;

  [[nodiscard]] bool has(std::uint16_t number) const;
};

struct ServerHello {
  std::uint16_t version = 0;  // that the server chose
  std::uint16_t cipher = 0;
  std::string alpn;       // raw bytes; empty where it is encrypted (TLS 1.3) or not there
  bool is_retry = false;  // HelloRetryRequest (RFC 8446, 4.1.3)
};

// `message`: a whole handshake message behind the four bytes of type and length. DTLS too comes
// without its fragment fields, as DtlsStream gives it. Empty for any other message, and for a
// malformed one: a length that leads beyond its enclosing field, or bytes left over. Content of an
// extension that can't be right counts as absent.
[[nodiscard]] std::optional<ClientHello> parse_client_hello(std::span<const std::uint8_t> message,
                                                            HelloTransport transport);
[[nodiscard]] std::optional<ServerHello> parse_server_hello(std::span<const std::uint8_t> message);

// Values that clients invent so that servers stay tolerant (RFC 8701): 0x0a0a, 0x1a1a, ... 0xfafa.
[[nodiscard]] constexpr bool is_grease(std::uint16_t value) {
  return (value & 0x0f0f) == 0x0a0a && value >> 8 == (value & 0xff);
}

}  // namespace l7mark
