// SPDX-License-Identifier: GPL-2.0-only
#include "detectors/openvpn_stream.hpp"

#include <algorithm>

namespace l7mark {

void OpenvpnFramer::begin(const DetectorPacket& segment) {
  at_ = 0;
  const auto length = static_cast<std::uint32_t>(segment.wire_length);
  if (aligned_) {
    const auto ahead = static_cast<std::int32_t>(expected_ - segment.sequence);
    if (ahead < 0) {
      aligned_ = false;
    } else {
      at_ = std::min<std::size_t>(static_cast<std::size_t>(ahead), segment.wire_length);
      if (at_ == segment.wire_length) return;
    }
  }
  if (!aligned_) {
    skip_ = 0;
    size_ = 0;
    aligned_ = true;
  }
  expected_ = segment.sequence + length;
}

OpenvpnMessage OpenvpnFramer::take() {
  const OpenvpnMessage out{std::span(head_).subspan(2, size_ - std::size_t{2}), message_length()};
  skip_ = static_cast<std::uint32_t>(out.length - out.head.size());
  size_ = 0;
  return out;
}

std::optional<OpenvpnMessage> OpenvpnFramer::next(const DetectorPacket& segment) {
  const std::size_t copied = std::min(segment.payload.size(), segment.wire_length);
  while (at_ < segment.wire_length) {
    if (skip_ > 0) {
      const std::size_t passed = std::min<std::size_t>(skip_, segment.wire_length - at_);
      skip_ -= static_cast<std::uint32_t>(passed);
      at_ += passed;
      continue;
    }
    if (at_ >= copied) {
      // The rest of the segment was not copied.
      if (size_ >= 2) return take();
      aligned_ = false;
      break;
    }
    const std::size_t wanted =
        size_ < 2 ? 2 : std::min<std::size_t>(2 + message_length(), head_.size());
    const std::size_t taken = std::min(wanted - size_, copied - at_);
    std::copy_n(segment.payload.begin() + static_cast<std::ptrdiff_t>(at_), taken,
                head_.begin() + size_);
    size_ = static_cast<std::uint8_t>(size_ + taken);
    at_ += taken;
    if (size_ < wanted) continue;
    if (message_length() == 0) {
      // No packet is empty: this is not where one begins.
      aligned_ = false;
      break;
    }
    if (wanted > 2) return take();
  }
  at_ = segment.wire_length;
  return std::nullopt;
}

}  // namespace l7mark
