// SPDX-License-Identifier: GPL-2.0-only
// The packets of one QUIC datagram, by what their headers say in the clear (RFC 9000, 17.2; RFC
// 9369, 3 for version 2). Nothing is decrypted here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "handshake/byte_reader.hpp"

namespace l7mark {

inline constexpr std::uint32_t kQuicVersion1 = 1;
inline constexpr std::uint32_t kQuicVersion2 = 0x6b3343cf;
inline constexpr std::uint32_t kQuicDraft29 = 0xff00001d;
inline constexpr std::size_t kQuicMaxConnectionId = 20;  // RFC 9000, 17.2

// Versions that protect their Initials alike.
enum class QuicProtection : std::uint8_t { unknown, draft23, draft29, version1, version2 };
[[nodiscard]] QuicProtection quic_protection(std::uint32_t version);

// `other` is a long header of a version that quic_protection() does not know: only the version and
// the connection ids mean something (RFC 8999).
enum class QuicPacketType : std::uint8_t {
  initial,
  zero_rtt,
  handshake,
  retry,
  version_negotiation,
  other
};

// Spans point into the datagram.
struct QuicPacket {
  QuicPacketType type = QuicPacketType::other;
  bool fixed_bit = false;
  std::uint32_t version = 0;
  std::span<const std::uint8_t> dcid;
  std::span<const std::uint8_t> scid;
  std::span<const std::uint8_t> token;  // of an Initial
  std::span<const std::uint8_t> bytes;  // the whole packet, its header included
  std::size_t number_offset = 0;        // of the packet number in `bytes`; 0 where there is none
};

// Walks the long-header packets of a datagram (RFC 9000, 12.2). Several datagrams in one buffer, as
// UDP segmentation offload leaves them, read as one: each packet states its length. The walk ends
// at a short header, which states none, and at anything malformed or cut short. Retry, version
// negotiation and packets of other versions take all of the rest.
class QuicPacketReader {
 public:
  explicit QuicPacketReader(std::span<const std::uint8_t> datagram) : rest_(datagram) {}
  [[nodiscard]] std::optional<QuicPacket> next();

 private:
  std::span<const std::uint8_t> rest_;
};

// An integer of 1, 2, 4 or 8 bytes (RFC 9000, 16).
[[nodiscard]] std::uint64_t quic_varint(ByteReader& reader);

}  // namespace l7mark
