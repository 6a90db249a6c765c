// SPDX-License-Identifier: GPL-2.0-only
// Sends forged TLS hellos at a steady rate: each is a connection of its own, a SYN and then
// segments of a record that states 16 KiB, whose last is missing or whose content is noise. The
// source may be another address of one IPv6 /64 each time. Prints how many connections were sent.
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "util/address.hpp"
#include "util/fd.hpp"
#include "util/result.hpp"

namespace l7mark {
namespace {

using Bytes = std::vector<std::uint8_t>;
using Clock = std::chrono::steady_clock;

constexpr std::uint8_t kSyn = 2, kAck = 16;
constexpr std::size_t kStream = 16384;  // the longest that is copied of a first flight
constexpr std::size_t kSegment = 1400;

struct Options {
  std::string device, gateway, from, to, kind = "partial";
  unsigned from_port = 1024, rate = 512, seconds = 3;
  bool change = false;
};

// Big endian, as on the wire.
void put(Bytes& out, std::uint64_t value, int bytes) {
  for (int i = bytes - 1; i >= 0; --i) out.push_back(static_cast<std::uint8_t>(value >> 8 * i));
}

// The headers of a record and of a ClientHello as long as the stream, and noise.
Bytes forged_hello() {
  Bytes out{0x16, 0x03, 0x01};
  put(out, kStream - 5, 2);
  put(out, 1, 1);
  put(out, kStream - 9, 3);
  std::mt19937 random(1);  // NOLINT(bugprone-random-generator-seed): the same noise each time
  while (out.size() < kStream) out.push_back(static_cast<std::uint8_t>(random()));
  return out;
}

class Forger {
 public:
  static Result<Forger> open(const Options& options) {
    const auto from = Address::parse(options.from);
    const auto to = Address::parse(options.to);
    if (!from || !to || from->is_v4() != to->is_v4())
      return Error{"use", options.from + " and " + options.to, 0, "two addresses of one version"};
    sockaddr_ll peer{};
    peer.sll_family = AF_PACKET;
    peer.sll_protocol = htons(from->is_v4() ? ETH_P_IP : ETH_P_IPV6);
    peer.sll_ifindex = static_cast<int>(::if_nametoindex(options.device.c_str()));
    if (peer.sll_ifindex == 0) return error_from_errno("find", options.device);
    std::array<unsigned, ETH_ALEN> mac{};
    if (std::sscanf(options.gateway.c_str(), "%2x:%2x:%2x:%2x:%2x:%2x", &mac[0], &mac[1],
                    &mac[2],  // NOLINT
                    &mac[3], &mac[4], &mac[5]) != ETH_ALEN)
      return Error{"read", options.gateway, 0, "not an Ethernet address"};
    peer.sll_halen = ETH_ALEN;
    std::transform(mac.begin(), mac.end(), peer.sll_addr,
                   [](unsigned byte) { return static_cast<std::uint8_t>(byte); });
    Fd fd(::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!fd) return error_from_errno("open", "a packet socket");
    return Forger(std::move(fd), peer, *from, *to);
  }

  Status run(const Options& options) {
    const Bytes hello = forged_hello();
    const std::size_t end = options.kind == "partial" ? kStream - kSegment : kStream;
    const auto start = Clock::now();
    const unsigned count = options.rate * options.seconds;
    for (unsigned i = 0; i < count; ++i) {
      std::this_thread::sleep_until(start +
                                    i * std::chrono::nanoseconds(1'000'000'000) / options.rate);
      const auto port = static_cast<std::uint16_t>(options.from_port + i);
      if (options.change) {
        from_.bytes[14] = static_cast<std::uint8_t>(i >> 8);
        from_.bytes[15] = static_cast<std::uint8_t>(i);
      }
      if (auto status = send(port, kSyn, 999, nullptr, 0); !status) return status;
      for (std::size_t at = 0; at < end; at += kSegment) {
        const std::size_t size = std::min(kSegment, end - at);
        if (auto status = send(port, kAck, 1000 + static_cast<std::uint32_t>(at), &hello[at], size);
            !status)
          return status;
      }
    }
    std::printf("%u\n", count);
    return success();
  }

 private:
  Forger(Fd fd, sockaddr_ll peer, Address from, Address to)
      : fd_(std::move(fd)), peer_(peer), from_(from), to_(to) {}

  static void put_address(Bytes& out, const Address& address) {
    out.insert(out.end(), address.bytes.begin() + (address.is_v4() ? 12 : 0), address.bytes.end());
  }

  // Nobody takes it, so its TCP checksum is left 0.
  Status send(std::uint16_t port, std::uint8_t flags, std::uint32_t sequence,
              const std::uint8_t* data, std::size_t size) {
    Bytes packet;
    packet.reserve(60 + size);
    if (from_.is_v4()) {
      put(packet, 0x4500, 2);
      put(packet, 40 + size, 2);
      put(packet, 0x00004000, 4);  // do not fragment
      put(packet, 64, 1);
      put(packet, IPPROTO_TCP, 1);
      put(packet, 0, 2);
    } else {
      put(packet, 0x60000000, 4);
      put(packet, 20 + size, 2);
      put(packet, IPPROTO_TCP, 1);
      put(packet, 64, 1);
    }
    put_address(packet, from_);
    put_address(packet, to_);
    if (from_.is_v4()) write_checksum(packet);
    put(packet, port, 2);
    put(packet, 443, 2);
    put(packet, sequence, 4);
    put(packet, 1, 4);
    put(packet, 0x50, 1);  // header in words of 32 bits
    put(packet, flags, 1);
    put(packet, 0xffff, 2);
    put(packet, 0, 4);
    if (size != 0) packet.insert(packet.end(), data, data + size);
    if (::sendto(fd_.get(), packet.data(), packet.size(), 0,
                 reinterpret_cast<const sockaddr*>(&peer_), sizeof(peer_)) < 0)
      return error_from_errno("send to", to_.to_string());
    return success();
  }

  static void write_checksum(Bytes& header) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < 20; i += 2) sum += header[i] * 256U + header[i + 1];
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    header[10] = static_cast<std::uint8_t>(~sum >> 8);
    header[11] = static_cast<std::uint8_t>(~sum);
  }

  Fd fd_;
  sockaddr_ll peer_;
  Address from_, to_;
};

Status run(const Options& options) {
  auto forger = Forger::open(options);
  if (!forger) return forger.error();
  return forger->run(options);
}

}  // namespace
}  // namespace l7mark

int main(int argc, char** argv) {
  l7mark::Options options;
  CLI::App app{"Sends forged TLS hellos at a steady rate"};
  app.add_option("--device", options.device, "Interface to send on")->required();
  app.add_option("--gateway", options.gateway, "Ethernet address of the next hop")->required();
  app.add_option("--from", options.from, "Source address, not one of this machine")->required();
  app.add_option("--from-port", options.from_port, "Source port of the first; others follow")
      ->check(CLI::Range(1, 65535));
  app.add_option("--to", options.to, "Address that answers nothing")->required();
  app.add_option("--rate", options.rate, "Connections a second")->check(CLI::Range(1, 10000));
  app.add_option("--seconds", options.seconds, "For how long")->check(CLI::Range(1, 60));
  app.add_option("--kind", options.kind, "Without an end, or whole")
      ->check(CLI::IsMember({"partial", "garbage"}));
  app.add_flag("--change", options.change, "Another lower half of the address for each");
  CLI11_PARSE(app, argc, argv);
  const auto status = l7mark::run(options);
  if (!status) std::fprintf(stderr, "forged: %s\n", status.error().message().c_str());
  return status ? 0 : 1;
}
