// SPDX-License-Identifier: GPL-2.0-only
// Sends forged TLS hellos at a steady rate: each is a connection of its own, a SYN and then
// segments of a record that states 16 KiB, whose last is missing or whose content is noise. The
// source may be another address of one IPv6 /64 each time. Prints how many connections were sent.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <thread>

#include "packet_socket.hpp"
#include "util/address.hpp"
#include "util/result.hpp"

namespace l7mark {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint8_t kSyn = 2, kAck = 16;
constexpr std::size_t kStream = 16384;  // the longest that is copied of a first flight
constexpr std::size_t kSegment = 1400;

struct Options {
  std::string device, gateway, from, to, kind = "partial";
  unsigned from_port = 1024, rate = 512, seconds = 3;
  bool change = false;
};

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
    auto socket = PacketSocket::open(options.device, options.gateway, from->is_v4(), false);
    if (!socket) return socket.error();
    return Forger(std::move(*socket), *from, *to);
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
  Forger(PacketSocket socket, Address from, Address to)
      : socket_(std::move(socket)), from_(from), to_(to) {}

  // Nobody takes it, so its TCP checksum is left 0.
  Status send(std::uint16_t port, std::uint8_t flags, std::uint32_t sequence,
              const std::uint8_t* data, std::size_t size) {
    Bytes tcp;
    tcp.reserve(20 + size);
    put(tcp, port, 2);
    put(tcp, 443, 2);
    put(tcp, sequence, 4);
    put(tcp, 1, 4);
    put(tcp, 0x50, 1);  // header in words of 32 bits
    put(tcp, flags, 1);
    put(tcp, 0xffff, 2);
    put(tcp, 0, 4);
    if (size != 0) tcp.insert(tcp.end(), data, data + size);
    return socket_.send(ip_packet(from_, to_, tcp));
  }

  PacketSocket socket_;
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
