// SPDX-License-Identifier: GPL-2.0-only
// IP packets of one's own making and the packet socket (packet(7)) that sends them to the next hop,
// from addresses that no stack on the machine has.
#pragma once

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "util/address.hpp"
#include "util/fd.hpp"
#include "util/result.hpp"

namespace l7mark {

using Bytes = std::vector<std::uint8_t>;

// Big endian, as on the wire.
inline void put(Bytes& out, std::uint64_t value, int bytes) {
  for (int i = bytes - 1; i >= 0; --i) out.push_back(static_cast<std::uint8_t>(value >> 8 * i));
}

inline void set16(Bytes& out, std::size_t at, std::uint16_t value) {
  out[at] = static_cast<std::uint8_t>(value >> 8);
  out[at + 1] = static_cast<std::uint8_t>(value);
}

inline void put_address(Bytes& out, const Address& address) {
  out.insert(out.end(), address.bytes.begin() + (address.is_v4() ? 12 : 0), address.bytes.end());
}

// The Internet checksum (RFC 1071): sums are added up, and folded at the end.
inline std::uint32_t sum16(const std::uint8_t* data, std::size_t size, std::uint32_t sum) {
  for (std::size_t i = 0; i < size; ++i)
    sum += static_cast<std::uint32_t>(data[i]) << (i % 2 ? 0 : 8);
  return sum;
}
inline std::uint16_t fold(std::uint32_t sum) {
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

// A segment behind an IP header of the addresses' version, which must be the same.
inline Bytes ip_packet(const Address& from, const Address& to, const Bytes& tcp) {
  Bytes packet;
  packet.reserve(40 + tcp.size());
  if (from.is_v4()) {
    put(packet, 0x4500, 2);
    put(packet, 20 + tcp.size(), 2);
    put(packet, 0x00004000, 4);  // do not fragment
    put(packet, 64, 1);
    put(packet, IPPROTO_TCP, 1);
    put(packet, 0, 2);
  } else {
    put(packet, 0x60000000, 4);
    put(packet, tcp.size(), 2);
    put(packet, IPPROTO_TCP, 1);
    put(packet, 64, 1);
  }
  put_address(packet, from);
  put_address(packet, to);
  if (from.is_v4()) set16(packet, 10, fold(sum16(packet.data(), 20, 0)));
  packet.insert(packet.end(), tcp.begin(), tcp.end());
  return packet;
}

// A socket for IP packets to one next hop.
class PacketSocket {
 public:
  // `gateway` is the Ethernet address of the next hop. The socket receives nothing unless
  // `receives` says so.
  static Result<PacketSocket> open(const std::string& device, const std::string& gateway, bool v4,
                                   bool receives) {
    const std::uint16_t protocol = htons(v4 ? ETH_P_IP : ETH_P_IPV6);
    sockaddr_ll peer{};
    peer.sll_family = AF_PACKET;
    peer.sll_protocol = protocol;
    peer.sll_ifindex = static_cast<int>(::if_nametoindex(device.c_str()));
    if (peer.sll_ifindex == 0) return error_from_errno("find", device);
    Fd fd(::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, receives ? protocol : 0));
    if (!fd) return error_from_errno("open", "a packet socket");
    if (receives && ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&peer), sizeof(peer)) != 0)
      return error_from_errno("bind to", device);
    std::array<unsigned, ETH_ALEN> mac{};
    const int read = std::sscanf(gateway.c_str(), "%2x:%2x:%2x:%2x:%2x:%2x", &mac[0],  // NOLINT
                                 &mac[1], &mac[2], &mac[3], &mac[4], &mac[5]);
    if (read != ETH_ALEN) return Error{"read", gateway, 0, "not an Ethernet address"};
    peer.sll_halen = ETH_ALEN;
    std::transform(mac.begin(), mac.end(), peer.sll_addr,
                   [](unsigned byte) { return static_cast<std::uint8_t>(byte); });
    return PacketSocket(std::move(fd), peer);
  }

  [[nodiscard]] Status send(const Bytes& packet) const {
    if (::sendto(fd_.get(), packet.data(), packet.size(), 0,
                 reinterpret_cast<const sockaddr*>(&peer_), sizeof(peer_)) < 0)
      return error_from_errno("send", "a packet");
    return success();
  }
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  PacketSocket(Fd fd, const sockaddr_ll& peer) : fd_(std::move(fd)), peer_(peer) {}

  Fd fd_;
  sockaddr_ll peer_;
};

}  // namespace l7mark
