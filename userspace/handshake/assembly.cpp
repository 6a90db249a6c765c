// SPDX-License-Identifier: GPL-2.0-only
#include "handshake/assembly.hpp"

#include <algorithm>

namespace l7mark {
namespace {

constexpr std::size_t kWord = 64;
constexpr std::size_t kFirstAllocation = 2048;  // a browser's hello of today

}  // namespace

// A vector's own growth could go beyond the limit.
void Assembly::grow(std::size_t end) {
  if (end <= bytes_.size()) return;
  if (end > bytes_.capacity()) {
    const std::size_t wanted = std::max({end, 2 * bytes_.capacity(), kFirstAllocation});
    bytes_.reserve(std::min(wanted, limit_));
  }
  bytes_.resize(end);
}

void Assembly::add(std::size_t offset, std::span<const std::uint8_t> bytes) {
  if (offset >= limit_ || bytes.empty()) return;
  bytes = bytes.first(std::min(bytes.size(), limit_ - offset));
  if (offset < whole_) {
    const std::size_t known = std::min(bytes.size(), whole_ - offset);
    const auto kept = std::span(bytes_).subspan(offset, known);
    if (!std::equal(kept.begin(), kept.end(), bytes.begin())) conflict_ = true;
    bytes = bytes.subspan(known);
    offset += known;
    if (bytes.empty()) return;
  }
  grow(offset + bytes.size());
  if (offset == whole_ && present_.empty()) {
    std::copy(bytes.begin(), bytes.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
    whole_ += bytes.size();
    return;
  }
  fill(offset, bytes);
}

void Assembly::fill(std::size_t offset, std::span<const std::uint8_t> bytes) {
  if (const std::size_t words = (bytes_.size() + kWord - 1) / kWord; words > present_.size()) {
    present_.reserve(std::min(std::max(words, 2 * present_.size()), (limit_ + kWord - 1) / kWord));
    present_.resize(words);
  }
  for (const std::uint8_t byte : bytes) {
    std::uint64_t& word = present_[offset / kWord];
    const std::uint64_t bit = std::uint64_t{1} << offset % kWord;
    if ((word & bit) == 0) {
      word |= bit;
      bytes_[offset] = byte;
    } else if (bytes_[offset] != byte) {
      conflict_ = true;
    }
    ++offset;
  }
  while (whole_ < bytes_.size() && (present_[whole_ / kWord] >> whole_ % kWord & 1) != 0) ++whole_;
}

}  // namespace l7mark
