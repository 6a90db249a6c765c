// SPDX-License-Identifier: GPL-2.0-only
// The detector of WireGuard: any datagrams. It never speaks of one side alone, nor of short ones.
#include <cstdlib>

#include "detector_input.hpp"
#include "detectors/wireguard.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  l7mark::WireguardState state;
  bool sides[2] = {false, false};
  bool initiation = false;
  const bool found =
      l7mark::fuzz::show_packets({data, size}, false, [&](const l7mark::DetectorPacket& packet) {
        sides[packet.from_client ? 0 : 1] = true;
        if (packet.wire_length >= 148) initiation = true;
        return look_for_wireguard(state, packet);
      });
  if (found && (!sides[0] || !sides[1] || !initiation)) abort();
  return 0;
}
