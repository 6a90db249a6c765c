// SPDX-License-Identifier: GPL-2.0-only
// Puts pieces of a byte string together that come in any order, repeated and overlapping. The first
// copy of a byte wins, since that is what the analysis may already have seen, and a different
// second one is noted: it is how a sender shows an observer something else than the receiver takes.
// Work is linear in the bytes given, memory at most the limit and an eighth of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace l7mark {

class Assembly {
 public:
  // Allocates nothing; bytes at `limit` and beyond are ignored.
  explicit Assembly(std::size_t limit) : limit_(limit) {}

  void add(std::size_t offset, std::span<const std::uint8_t> bytes);

  // From the beginning up to the first hole. Valid until the next add().
  [[nodiscard]] std::span<const std::uint8_t> contiguous() const { return {bytes_.data(), whole_}; }
  // Behind the last byte that was kept.
  [[nodiscard]] std::size_t end() const { return bytes_.size(); }
  [[nodiscard]] std::size_t limit() const { return limit_; }
  // Copies of a byte differed.
  [[nodiscard]] bool conflict() const { return conflict_; }

 private:
  void grow(std::size_t end);
  void fill(std::size_t offset, std::span<const std::uint8_t> bytes);

  std::size_t limit_;
  std::size_t whole_ = 0;
  bool conflict_ = false;
  std::vector<std::uint8_t> bytes_;
  // A bit for each byte from whole_ on that is there; empty until there was a hole.
  std::vector<std::uint64_t> present_;
};

}  // namespace l7mark
