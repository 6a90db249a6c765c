// SPDX-License-Identifier: GPL-2.0-only
// OpenVPN over TCP: packets behind 16-bit lengths, several in a segment or one over several.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "detectors/detector.hpp"

namespace l7mark {

// The longest beginning of a packet that the detector needs: opcode, session id, an HMAC of 64
// bytes, packet id and time, and eight acknowledgements with the other's session id.
inline constexpr std::size_t kOpenvpnHead = 1 + 8 + 64 + 8 + 1 + 8 * 4 + 8;

struct OpenvpnMessage {
  std::span<const std::uint8_t> head;  // from the opcode on; at most kOpenvpnHead bytes
  std::size_t length = 0;              // of the whole packet
};

// Cuts one direction's segments into packets. Holds the beginning of one packet, no more. A segment
// that was sent before is passed over; after a gap, and after bytes that were not copied where a
// length stood, the next segment is taken to begin a packet, which is how OpenVPN writes.
class OpenvpnFramer {
 public:
  void begin(const DetectorPacket& segment);
  // The next packet's beginning, as far as it is to be had; empty when the segment is used up. What
  // is returned is good until the next call.
  [[nodiscard]] std::optional<OpenvpnMessage> next(const DetectorPacket& segment);

 private:
  [[nodiscard]] std::size_t message_length() const { return read_be16(head_, 0); }
  OpenvpnMessage take();

  std::uint32_t expected_ = 0;  // sequence number after the last segment
  std::uint32_t skip_ = 0;      // bytes of the current packet that are not needed
  std::size_t at_ = 0;          // in the segment
  std::uint8_t size_ = 0;       // of `head_`
  bool aligned_ = false;        // `expected_` is known, and where a packet begins
  std::array<std::uint8_t, 2 + kOpenvpnHead> head_{};
};

struct OpenvpnStream {
  std::array<OpenvpnFramer, 2> sides;  // client, server
};

}  // namespace l7mark
