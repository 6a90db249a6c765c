// SPDX-License-Identifier: GPL-2.0-only
#include "dpi/made_packet.hpp"

#include <netinet/in.h>

#include <algorithm>

namespace l7mark {
namespace {

constexpr std::size_t kUdpHeader = 8;
constexpr std::size_t kTcpHeader = 20;

void put16(std::vector<std::uint8_t>& out, std::size_t at, std::size_t value) {
  out[at] = static_cast<std::uint8_t>(value >> 8);
  out[at + 1] = static_cast<std::uint8_t>(value);
}

}  // namespace

std::vector<std::uint8_t> headers_of(std::span<const std::uint8_t> packet,
                                     std::size_t payload_offset) {
  if (payload_offset > packet.size() || payload_offset > kMaxHeaderBytes) return {};
  const auto headers = packet.first(payload_offset);
  return {headers.begin(), headers.end()};
}

std::vector<std::uint8_t> packet_with(std::span<const std::uint8_t> headers, std::uint8_t protocol,
                                      std::uint32_t sequence,
                                      std::span<const std::uint8_t> payload) {
  if (headers.empty()) return {};
  const bool v6 = headers[0] >> 4 == 6;
  const std::size_t network = v6 ? 40 : (headers[0] & 0x0fU) * 4U;
  const std::size_t transport = protocol == IPPROTO_TCP ? kTcpHeader : kUdpHeader;
  if (headers.size() < network + transport) return {};
  payload = payload.first(std::min(payload.size(), kMaxPacketBytes - headers.size()));
  std::vector<std::uint8_t> out;
  out.reserve(headers.size() + payload.size());
  out.assign(headers.begin(), headers.end());
  out.insert(out.end(), payload.begin(), payload.end());
  if (v6)
    put16(out, 4, out.size() - network);
  else
    put16(out, 2, out.size());
  if (protocol == IPPROTO_UDP) {
    put16(out, headers.size() - kUdpHeader + 4, kUdpHeader + payload.size());
  } else if (!v6 || headers[6] == IPPROTO_TCP) {
    put16(out, network + 4, sequence >> 16);
    put16(out, network + 6, sequence & 0xffff);
  }
  return out;
}

}  // namespace l7mark
