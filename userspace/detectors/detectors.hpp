// SPDX-License-Identifier: GPL-2.0-only
// All detectors of this folder, as a classifier uses them.
#pragma once

#include <optional>

#include "detectors/detector.hpp"
#include "detectors/openvpn.hpp"
#include "detectors/wireguard.hpp"

namespace l7mark {

// The state of one flow. Small, for a flow has it from its first payload until it is answered.
struct DetectorState {
  OpenvpnState openvpn;
  WireguardState wireguard;
  bool client_spoke = false;
  bool fully_encrypted = false;  // the client's first payload is: see fully_encrypted.hpp
};
static_assert(sizeof(DetectorState) <= 88);

// Shows a flow's next packet with payload to the detectors of its transport. A match is the last
// word: nothing more need be shown.
[[nodiscard]] std::optional<DetectorMatch> look(DetectorState& state, const DetectorPacket& packet);

}  // namespace l7mark
