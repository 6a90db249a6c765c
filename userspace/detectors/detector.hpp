// SPDX-License-Identifier: GPL-2.0-only
// Input and output of this folder's detectors, for protocols that nDPI does not know, or only on
// their usual ports.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "flow.hpp"

namespace l7mark {

// A packet with payload, or a piece of one, as it passed.
struct DetectorPacket {
  bool from_client = false;
  bool tcp = false;                       // else UDP
  std::span<const std::uint8_t> payload;  // as far as it was copied
  std::size_t wire_length = 0;            // of the payload on the wire, not less than was copied
  std::uint32_t sequence = 0;             // TCP: sequence number of the payload's first byte
};

struct DetectorMatch {
  Detector detector = Detector::none;
  // As nDPI names it. Its number differs between the versions of nDPI and is the caller's to find.
  std::string_view application;
};

// Detectors read big-endian numbers at places that they have checked to be there.
[[nodiscard]] inline std::uint16_t read_be16(std::span<const std::uint8_t> bytes, std::size_t at) {
  return static_cast<std::uint16_t>(bytes[at] << 8 | bytes[at + 1]);
}
[[nodiscard]] inline std::uint32_t read_be32(std::span<const std::uint8_t> bytes, std::size_t at) {
  return std::uint32_t{read_be16(bytes, at)} << 16 | read_be16(bytes, at + 2);
}

}  // namespace l7mark
