// SPDX-License-Identifier: GPL-2.0-only
// The detector of OpenVPN: any packets, over UDP and TCP. It never speaks of one side alone.
#include <cstdlib>

#include "detector_input.hpp"
#include "detectors/openvpn.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const bool tcp = (data[0] & 1) != 0;
  l7mark::OpenvpnState state;
  bool sides[2] = {false, false};
  const bool found = l7mark::fuzz::show_packets({data + 1, size - 1}, tcp,
                                                [&](const l7mark::DetectorPacket& packet) {
                                                  sides[packet.from_client ? 0 : 1] = true;
                                                  return look_for_openvpn(state, packet);
                                                });
  if (found && (!sides[0] || !sides[1])) abort();
  return 0;
}
