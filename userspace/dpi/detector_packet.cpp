// SPDX-License-Identifier: GPL-2.0-only
#include "dpi/detector_packet.hpp"

#include <netinet/in.h>

#include <algorithm>

namespace l7mark {
namespace {

using Bytes = std::span<const std::uint8_t>;

constexpr std::size_t kIpv4Header = 20;
constexpr std::size_t kIpv6Header = 40;
// More extension headers (RFC 8200) than a sender has a reason for.
constexpr int kMaxExtensions = 8;

std::optional<std::size_t> after_ipv6(Bytes packet, std::uint8_t protocol) {
  if (packet.size() < kIpv6Header) return std::nullopt;
  std::uint8_t next = packet[6];
  std::size_t at = kIpv6Header;
  for (int i = 0; i < kMaxExtensions && next != protocol; ++i) {
    if (packet.size() < at + 8) return std::nullopt;
    switch (next) {
      case IPPROTO_HOPOPTS:
      case IPPROTO_ROUTING:
      case IPPROTO_DSTOPTS:
        next = packet[at];
        at += (std::size_t{packet[at + 1]} + 1) * 8;
        break;
      case IPPROTO_FRAGMENT:
        next = packet[at];
        at += 8;
        break;
      default:
        return std::nullopt;
    }
  }
  if (next != protocol) return std::nullopt;
  return at;
}

// Where the transport's header begins.
std::optional<std::size_t> transport_at(Bytes packet, std::uint8_t protocol) {
  if (packet.empty()) return std::nullopt;
  if (packet[0] >> 4 == 6) return after_ipv6(packet, protocol);
  const std::size_t header = (packet[0] & 0x0fU) * std::size_t{4};
  if (packet[0] >> 4 != 4 || header < kIpv4Header) return std::nullopt;
  return header;
}

}  // namespace

std::optional<DetectorPacket> detector_packet(Bytes packet, std::uint8_t protocol,
                                              std::size_t payload_length) {
  if (payload_length == 0 || (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP))
    return std::nullopt;
  const auto transport = transport_at(packet, protocol);
  if (!transport) return std::nullopt;
  DetectorPacket out;
  out.tcp = protocol == IPPROTO_TCP;
  std::size_t at = *transport + 8;
  if (out.tcp) {
    if (packet.size() < *transport + 20) return std::nullopt;
    out.sequence = read_be32(packet, *transport + 4);
    at = *transport + (packet[*transport + 12] >> 4) * std::size_t{4};
  }
  if (packet.size() <= at) return std::nullopt;
  out.payload = packet.subspan(at);
  out.payload = out.payload.first(std::min(out.payload.size(), payload_length));
  out.wire_length = payload_length;
  return out;
}

}  // namespace l7mark
