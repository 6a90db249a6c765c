// SPDX-License-Identifier: GPL-2.0-only
// A cursor over bytes that a stranger sent, numbers in network order. A read beyond the end gives
// zero or an empty span and makes ok() false from then on, so a parser may read a whole structure
// and ask once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace l7mark {

class ByteReader {
 public:
  ByteReader() = default;
  explicit ByteReader(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

  // False once anything was read that is not there.
  [[nodiscard]] bool ok() const { return ok_; }
  // All was read, and there was no failure.
  [[nodiscard]] bool done() const { return ok_ && at_ == bytes_.size(); }
  // Bytes read so far.
  [[nodiscard]] std::size_t position() const { return at_; }
  [[nodiscard]] std::size_t remaining() const { return ok_ ? bytes_.size() - at_ : 0; }
  // The bytes that are left, without reading them.
  [[nodiscard]] std::span<const std::uint8_t> rest() const {
    return ok_ ? bytes_.subspan(at_) : std::span<const std::uint8_t>();
  }

  std::uint8_t u8() { return static_cast<std::uint8_t>(number(1)); }
  std::uint16_t u16() { return static_cast<std::uint16_t>(number(2)); }
  std::uint32_t u24() { return static_cast<std::uint32_t>(number(3)); }
  std::uint32_t u32() { return static_cast<std::uint32_t>(number(4)); }
  std::uint64_t u64() { return number(8); }

  std::span<const std::uint8_t> take(std::uint64_t count) {
    if (!need(count)) return {};
    const auto part = bytes_.subspan(at_, static_cast<std::size_t>(count));
    at_ += part.size();
    return part;
  }
  void skip(std::uint64_t count) { take(count); }

  // Vectors of TLS (RFC 8446, 3.4): the length in 1, 2 or 3 bytes, then as many bytes.
  std::span<const std::uint8_t> vector8() { return take(u8()); }
  std::span<const std::uint8_t> vector16() { return take(u16()); }
  std::span<const std::uint8_t> vector24() { return take(u24()); }

  // Makes ok() false, for a caller that found a value which cannot be.
  void fail() { ok_ = false; }

 private:
  bool need(std::uint64_t count) {
    if (bytes_.size() - at_ < count) ok_ = false;
    return ok_;
  }
  std::uint64_t number(std::size_t count) {
    std::uint64_t value = 0;
    for (const std::uint8_t byte : take(count)) value = value << 8 | byte;
    return value;
  }

  std::span<const std::uint8_t> bytes_;
  std::size_t at_ = 0;
  bool ok_ = true;
};

}  // namespace l7mark
