// SPDX-License-Identifier: GPL-2.0-only
// Frames of any content, written into a buffer of the caller's from its begin on.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "netns/packet_socket.hpp"
#include "plan.hpp"

namespace l7mark::robust {

constexpr std::size_t kFrame = 512;  // no frame is longer

constexpr std::uint8_t kFin = 1, kSyn = 2, kRst = 4, kPsh = 8, kAck = 16;
constexpr std::uint8_t kTcp = 6, kUdp = 17, kIcmp = 1, kIcmp6 = 58, kFragment = 44, kOptions = 60;
constexpr unsigned kExtensions = 9;  // more than a parser follows

using Mac = std::array<std::uint8_t, 6>;

// Small and fast (xorshift64*): millions of packets a second ask it.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 2 + 1) {}
  std::uint32_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return static_cast<std::uint32_t>(state_ * 0x2545f4914f6cdd1dULL >> 32);
  }
  std::uint32_t below(std::uint32_t end) {
    return static_cast<std::uint32_t>(static_cast<std::uint64_t>(next()) * end >> 32);
  }

 private:
  std::uint64_t state_;
};

class Frame {
 public:
  void clear() { size_ = 0; }
  [[nodiscard]] const std::uint8_t* data() const { return bytes_.data(); }
  [[nodiscard]] std::size_t size() const { return size_; }

  void put8(unsigned value) { bytes_[size_++] = static_cast<std::uint8_t>(value); }
  void put16(unsigned value) {
    put8(value >> 8);
    put8(value);
  }
  void put32(std::uint32_t value) {
    put16(value >> 16);
    put16(value);
  }
  void put(const void* data, std::size_t size) {
    std::memcpy(&bytes_[size_], data, size);
    size_ += size;
  }
  void put(std::string_view text) { put(text.data(), text.size()); }
  void zeros(std::size_t count) {
    std::memset(&bytes_[size_], 0, count);
    size_ += count;
  }

  void ethernet(const Mac& to, const Mac& from) {
    put(to.data(), to.size());
    put(from.data(), from.size());
  }
  void type(bool v4) { put16(v4 ? 0x0800 : 0x86dd); }

  // Of the version of the addresses. `offset` is the fragment field of IPv4, its flags included.
  void ip(const Address& from, const Address& to, std::uint8_t protocol, std::size_t room,
          std::uint8_t hop_limit = 64, std::uint16_t id = 0, std::uint16_t offset = 0x4000) {
    const std::size_t begin = size_;
    if (from.is_v4()) {
      put16(0x4500);
      put16(static_cast<unsigned>(20 + room));
      put16(id);
      put16(offset);
      put8(hop_limit);
      put8(protocol);
      put16(0);
      put(&from.bytes[12], 4);
      put(&to.bytes[12], 4);
      const std::uint16_t sum = fold(sum16(&bytes_[begin], 20, 0));
      bytes_[begin + 10] = static_cast<std::uint8_t>(sum >> 8);
      bytes_[begin + 11] = static_cast<std::uint8_t>(sum);
    } else {
      put32(0x60000000);
      put16(static_cast<unsigned>(room));
      put8(protocol);
      put8(hop_limit);
      put(from.bytes.data(), 16);
      put(to.bytes.data(), 16);
    }
  }
  // Of version 4 or 6, up to the fragment's bytes; `at` in bytes, a multiple of 8.
  void fragment(const Address& from, const Address& to, std::uint8_t protocol, std::uint16_t id,
                unsigned at, bool more, std::size_t room) {
    if (from.is_v4()) {
      ip(from, to, protocol, room, 64, id,
         static_cast<std::uint16_t>(at / 8 | (more ? 0x2000U : 0U)));
      return;
    }
    ip(from, to, kFragment, room + 8);
    put8(protocol);
    put8(0);
    put16(at | (more ? 1U : 0U));
    put32(id);
  }
  // IPv6, up to the TCP header: `count` headers of destination options, and room for `tcp` bytes.
  void extensions(const Address& from, const Address& to, unsigned count, std::size_t tcp) {
    ip(from, to, kOptions, count * 8 + tcp);
    for (unsigned i = 1; i <= count; ++i) {
      put8(i == count ? kTcp : kOptions);
      put8(0);
      put16(0x0104);  // padding of six bytes
      put32(0);
    }
  }
  // Without a checksum: what it is for never comes to a stack that takes it.
  void tcp(std::uint16_t sport, std::uint16_t dport, std::uint8_t flags, std::uint32_t sequence,
           std::uint32_t acknowledged) {
    put16(sport);
    put16(dport);
    put32(sequence);
    put32(acknowledged);
    put16(0x5000U | flags);
    put16(0xffff);
    put32(0);
  }
  void udp(std::uint16_t sport, std::uint16_t dport, std::size_t payload) {
    put16(sport);
    put16(dport);
    put16(static_cast<unsigned>(8 + payload));
    put16(0);
  }

 private:
  std::array<std::uint8_t, kFrame> bytes_;  // NOLINT: written before it is read
  std::size_t size_ = 0;
};

}  // namespace l7mark::robust
