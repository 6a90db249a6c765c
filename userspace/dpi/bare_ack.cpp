// SPDX-License-Identifier: GPL-2.0-only
#include "dpi/bare_ack.hpp"

#include <netinet/in.h>

#include <algorithm>

namespace l7mark {
namespace {

constexpr std::size_t kIpv4 = 20;  // without options
constexpr std::size_t kIpv6 = 40;
constexpr std::size_t kTcp = 20;
constexpr std::uint8_t kAck = 0x10;

// Length of the IP header in front of TCP, 0 for anything else. Behind extension headers of IPv6
// the segment is not looked for: they are rare, and nothing but this acknowledgement is missed.
std::size_t ip_header(std::span<const std::uint8_t> packet) {
  if (packet.size() < kIpv4) return 0;
  const unsigned version = packet[0] >> 4;
  if (version == 4) {
    const std::size_t length = (packet[0] & 0x0fU) * 4U;
    const bool later_fragment = ((packet[6] & 0x1fU) | packet[7]) != 0;
    return length >= kIpv4 && packet[9] == IPPROTO_TCP && !later_fragment ? length : 0;
  }
  return version == 6 && packet[6] == IPPROTO_TCP ? kIpv6 : 0;
}

}  // namespace

std::size_t make_bare_ack(std::span<const std::uint8_t> packet,
                          std::span<std::uint8_t, kBareAckRoom> out) {
  const std::size_t ip = ip_header(packet);
  const std::size_t length = ip + kTcp;
  if (ip == 0 || packet.size() < length) return 0;
  std::copy_n(packet.begin(), length, out.begin());
  const auto put = [&out](std::size_t at, std::size_t value) {
    out[at] = static_cast<std::uint8_t>(value >> 8);
    out[at + 1] = static_cast<std::uint8_t>(value);
  };
  if (out[0] >> 4 == 4) {
    put(2, length);
    put(6, 0);   // no fragment
    put(10, 0);  // checksum
  } else {
    put(4, kTcp);
  }
  out[ip + 12] = kTcp / 4 << 4;
  out[ip + 13] = kAck;
  put(ip + 16, 0);  // checksum
  put(ip + 18, 0);  // urgent pointer
  return length;
}

}  // namespace l7mark
