// SPDX-License-Identifier: GPL-2.0-only
// Link types, as numbered on https://www.tcpdump.org/linktypes.html.
#include <pcap/dlt.h>

#include <algorithm>
#include <array>

#include "capture/reader.hpp"

namespace l7mark {
namespace {

constexpr std::size_t kEthernet = 14;
constexpr std::uint16_t kIpv4 = 0x0800;
constexpr std::uint16_t kIpv6 = 0x86dd;
// DLT_RAW has had three numbers, by operating system; files carry any of them.
constexpr std::array kRawNumbers{12, 14, 101};
constexpr int kSll2 = 276;  // missing in old headers of libpcap

using Bytes = std::span<const std::uint8_t>;

// Where the network layer begins, and the EtherType of what does.
struct Inside {
  std::size_t offset;
  std::uint16_t type;
};

std::uint16_t be16(Bytes packet, std::size_t at) {
  return static_cast<std::uint16_t>(packet[at] << 8 | packet[at + 1]);
}

std::optional<Inside> by_version(Bytes packet, std::size_t offset) {
  if (packet.size() <= offset) return std::nullopt;
  const unsigned version = packet[offset] >> 4;
  if (version == 4) return Inside{offset, kIpv4};
  if (version == 6) return Inside{offset, kIpv6};
  return std::nullopt;
}

// RFC 1661 and 1662: address and control may be left out, and the protocol may be one byte. Cisco
// HDLC puts 0x0f or 0x8f first and an EtherType third.
std::optional<Inside> find_ppp(Bytes packet) {
  if (packet.size() < 5) return std::nullopt;
  if (packet[0] == 0x0f || packet[0] == 0x8f) return Inside{4, be16(packet, 2)};
  std::size_t at = packet[0] == 0xff && packet[1] == 0x03 ? 2 : 0;
  unsigned protocol = packet[at++];
  if ((protocol & 1) == 0) protocol = protocol << 8 | packet[at++];
  switch (protocol) {
    case 0x0021:
      return Inside{at, kIpv4};
    case 0x0057:
      return Inside{at, kIpv6};
    case 0x0281:
      return Inside{at, 0x8847};
    default:
      return std::nullopt;
  }
}

// IEEE 802.11 behind a radiotap header: data frames in the clear with LLC and SNAP.
std::optional<Inside> find_wifi(Bytes packet) {
  if (packet.size() < 8) return std::nullopt;
  const std::size_t radio = packet[2] + packet[3] * 256U;
  // Bits 1 and 0 of `present`: a time stamp of 8 bytes, then a byte of flags. 0x40 is a bad
  // checksum.
  const bool has_flags = (packet[4] & 0x02) != 0;
  const std::size_t flags_at = (packet[4] & 0x01) != 0 ? 16 : 8;
  const bool more_present = (packet[7] & 0x80) != 0;
  if (has_flags && !more_present && flags_at < radio && flags_at < packet.size() &&
      (packet[flags_at] & 0x40) != 0)
    return std::nullopt;
  if (packet.size() < radio + 24) return std::nullopt;
  const std::uint8_t control = packet[radio];
  const std::uint8_t flags = packet[radio + 1];
  if ((control & 0x0c) != 0x08 || (control & 0x40) != 0) return std::nullopt;  // no data
  if ((flags & 0x40) != 0) return std::nullopt;                                // encrypted
  std::size_t at = radio + 24;
  if ((flags & 0x03) == 0x03) at += 6;  // a fourth address
  if ((control & 0x80) != 0) at += 2;   // quality of service
  if (packet.size() < at + 8) return std::nullopt;
  if (packet[at] != 0xaa || packet[at + 1] != 0xaa) return std::nullopt;
  return Inside{at + 8, be16(packet, at + 6)};
}

std::optional<Inside> find_inside(int link_type, Bytes packet) {
  if (std::find(kRawNumbers.begin(), kRawNumbers.end(), link_type) != kRawNumbers.end())
    return by_version(packet, 0);
  switch (link_type) {
    case DLT_NULL:
    case DLT_LOOP:
      return by_version(packet, 4);
    case DLT_IPV4:
    case DLT_IPV6:
      return by_version(packet, 0);
    case DLT_PPP:
    case DLT_PPP_SERIAL:
      return find_ppp(packet);
    case DLT_C_HDLC:
      if (packet.size() < 5) return std::nullopt;
      return Inside{4, be16(packet, 2)};
    case DLT_LINUX_SLL:
      if (packet.size() < 17) return std::nullopt;
      return Inside{16, be16(packet, 14)};
    case kSll2:
      if (packet.size() < 21) return std::nullopt;
      return Inside{20, be16(packet, 0)};
    case DLT_IEEE802_11_RADIO:
      return find_wifi(packet);
    default:
      return std::nullopt;
  }
}

}  // namespace

bool is_supported_link_type(int link_type) {
  constexpr std::array others{DLT_EN10MB,
                              DLT_NULL,
                              DLT_LOOP,
                              DLT_IPV4,
                              DLT_IPV6,
                              DLT_PPP,
                              DLT_PPP_SERIAL,
                              DLT_C_HDLC,
                              DLT_LINUX_SLL,
                              kSll2,
                              DLT_IEEE802_11_RADIO};
  return std::find(kRawNumbers.begin(), kRawNumbers.end(), link_type) != kRawNumbers.end() ||
         std::find(others.begin(), others.end(), link_type) != others.end();
}

Bytes to_ethernet(int link_type, Bytes packet, std::vector<std::uint8_t>& out) {
  if (link_type == DLT_EN10MB) return packet.size() < kEthernet ? Bytes{} : packet;
  const auto inside = find_inside(link_type, packet);
  if (!inside || inside->offset >= packet.size()) return {};
  const Bytes payload = packet.subspan(inside->offset);
  out.assign(kEthernet, 0);
  out[12] = static_cast<std::uint8_t>(inside->type >> 8);
  out[13] = static_cast<std::uint8_t>(inside->type);
  out.insert(out.end(), payload.begin(), payload.end());
  if (out.size() < packet.size()) out.resize(packet.size());
  return out;
}

}  // namespace l7mark
