// SPDX-License-Identifier: GPL-2.0-only
// Packets for the benches that classify: a few hundred different flows, copied under ever other
// client addresses until there are as many as wanted, so that every copy is a flow of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "util/result.hpp"

namespace l7mark::bench {

// One Ethernet frame, and where in it the IP header and the last four bytes of the client's
// address are.
struct MadePacket {
  std::vector<std::uint8_t> frame;
  std::size_t ip_offset = 0;
  std::size_t address_offset = 0;
  std::uint8_t version = 4;  // of IP
  std::uint32_t client = 0;  // number of the client among those of the packets
};

class PacketSource {
 public:
  // Flows as a gateway sees them, made up: TLS 1.3 with a server name (half of them), DNS, HTTP,
  // and a protocol that nobody knows (a twentieth).
  // Without `closed`, no connection ends.
  static PacketSource made_up(bool closed = true, bool ipv6 = false);
  // Flows of these captures. What is no IP, and fragments after the first, is left out.
  static Result<PacketSource> read(const std::vector<std::string>& captures);

  // Flows in a copy of all packets, by five-tuple.
  [[nodiscard]] std::size_t flows() const { return flows_; }
  [[nodiscard]] std::size_t packets() const { return packets_.size(); }
  // Calls with each packet of copies `first` to `first + copies - 1`, in order; the frame is valid
  // during the call. Clients get the addresses from 10.0.0.0 on, of IPv6
  // in the last four bytes; checksums of TCP and UDP are left
  // as they were. The first failure ends it.
  Status replay(std::size_t first, std::size_t copies,
                const std::function<Status(std::span<const std::uint8_t>)>& call) const;

 private:
  void add(std::span<const std::uint8_t> frame, std::size_t file);

  struct Known;
  std::vector<MadePacket> packets_;
  std::size_t flows_ = 0;
  std::uint32_t clients_ = 0;
  std::shared_ptr<Known> known_;  // while packets are added
};

// A file that goes with its owner.
class TemporaryFile {
 public:
  // In $TMPDIR, or /tmp.
  static Result<TemporaryFile> make(const std::string& suffix);
  TemporaryFile(TemporaryFile&& other) noexcept;
  TemporaryFile& operator=(TemporaryFile&& other) noexcept;
  ~TemporaryFile();
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  explicit TemporaryFile(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// So many copies as a pcap file; 0 gives a file without packets. Packets are 20 microseconds apart.
Status write_capture(const PacketSource& source, std::size_t copies, const std::string& path);

}  // namespace l7mark::bench
