// SPDX-License-Identifier: GPL-2.0-only
#include "detectors/detectors.hpp"

#include "detectors/fully_encrypted.hpp"

namespace l7mark {

std::optional<DetectorMatch> look(DetectorState& state, const DetectorPacket& packet) {
  if (packet.payload.empty()) return std::nullopt;
  if (packet.tcp && packet.from_client && !state.client_spoke) {
    state.client_spoke = true;
    state.fully_encrypted = is_fully_encrypted(packet.payload, packet.wire_length);
  }
  if (look_for_openvpn(state.openvpn, packet)) return DetectorMatch{Detector::openvpn, "OpenVPN"};
  if (look_for_wireguard(state.wireguard, packet))
    return DetectorMatch{Detector::wireguard, "WireGuard"};
  return std::nullopt;
}

}  // namespace l7mark
