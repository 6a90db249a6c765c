// SPDX-License-Identifier: GPL-2.0-only
#include "handshake/quic_packet.hpp"

#include <algorithm>

namespace l7mark {
namespace {

constexpr std::uint8_t kLongHeader = 0x80;
constexpr std::uint8_t kFixedBit = 0x40;

QuicPacketType packet_type(QuicProtection protection, std::uint8_t first) {
  // In the order of version 1 (RFC 9000, 17.2); version 2 counts from Retry on (RFC 9369, 3.2).
  constexpr QuicPacketType kTypes[] = {QuicPacketType::initial, QuicPacketType::zero_rtt,
                                       QuicPacketType::handshake, QuicPacketType::retry};
  const unsigned bits = first >> 4 & 3U;
  return kTypes[protection == QuicProtection::version2 ? (bits + 3) % 4 : bits];
}

}  // namespace

QuicProtection quic_protection(std::uint32_t version) {
  if (version == kQuicVersion1) return QuicProtection::version1;
  if (version == kQuicVersion2) return QuicProtection::version2;
  // The salt changed with drafts 23, 29 and 33; the last one became that of version 1.
  if (version >= 0xff000017 && version <= 0xff00001c) return QuicProtection::draft23;
  if (version >= kQuicDraft29 && version <= 0xff000020) return QuicProtection::draft29;
  if (version >= 0xff000021 && version <= 0xff000022) return QuicProtection::version1;
  // Reserved to make a server negotiate (RFC 9000, 15). No specification gives these a salt; the
  // clients that sent them, in the interoperability tests of the drafts, took draft 29's.
  if ((version & 0x0f0f0f0f) == 0x0a0a0a0a) return QuicProtection::draft29;
  return QuicProtection::unknown;
}

std::uint64_t quic_varint(ByteReader& reader) {
  const std::uint8_t first = reader.u8();
  std::uint64_t value = first & 0x3fU;
  const std::size_t more = (std::size_t{1} << (first >> 6)) - 1;
  for (const std::uint8_t byte : reader.take(more)) value = value << 8 | byte;
  return value;
}

std::optional<QuicPacket> QuicPacketReader::next() {
  // Some clients fill a datagram up behind its last packet, and UDP segmentation offload glues
  // datagrams: zeros are no header, and another packet may follow them.
  const auto begin =
      std::find_if(rest_.begin(), rest_.end(), [](std::uint8_t byte) { return byte != 0; });
  const auto datagram = std::span<const std::uint8_t>(begin, rest_.end());
  rest_ = {};
  ByteReader reader(datagram);
  const std::uint8_t first = reader.u8();
  if ((first & kLongHeader) == 0) return std::nullopt;
  QuicPacket packet;
  packet.fixed_bit = (first & kFixedBit) != 0;
  packet.version = reader.u32();
  packet.dcid = reader.vector8();
  packet.scid = reader.vector8();
  if (!reader.ok()) return std::nullopt;
  packet.bytes = datagram;

  if (packet.version == 0) {
    packet.type = QuicPacketType::version_negotiation;
    return packet;
  }
  const QuicProtection protection = quic_protection(packet.version);
  if (protection == QuicProtection::unknown) return packet;
  // The fixed bit is not asked for: a client that knows its server may clear it (RFC 9287, 3.1).
  if (packet.dcid.size() > kQuicMaxConnectionId || packet.scid.size() > kQuicMaxConnectionId)
    return std::nullopt;
  packet.type = packet_type(protection, first);
  if (packet.type == QuicPacketType::retry) return packet;

  if (packet.type == QuicPacketType::initial) packet.token = reader.take(quic_varint(reader));
  const std::uint64_t length = quic_varint(reader);
  packet.number_offset = reader.position();
  reader.skip(length);
  if (!reader.ok() || length == 0) return std::nullopt;
  packet.bytes = datagram.first(reader.position());
  rest_ = datagram.subspan(reader.position());
  return packet;
}

}  // namespace l7mark
