// SPDX-License-Identifier: GPL-2.0-only
// The payload of a sampled packet, for the detectors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "detectors/detector.hpp"

namespace l7mark {

// `packet` begins with its IP header, and ends where copying ended. `payload_length` is that of its
// TCP or UDP payload on the wire. Empty where there is no payload, or none of it was copied, or the
// headers are not what they should be. `from_client` is left to the caller.
[[nodiscard]] std::optional<DetectorPacket> detector_packet(std::span<const std::uint8_t> packet,
                                                            std::uint8_t protocol,
                                                            std::size_t payload_length);

}  // namespace l7mark
