// SPDX-License-Identifier: GPL-2.0-only
// Recognises WireGuard on any port by its index echo (Donenfeld, "WireGuard: Next Generation Kernel
// Network Tunnel", section 5.4): the index that an initiation names its sender by comes back in the
// response, and the response's own in the data that follows.
//
// Obfuscating variants (AmneziaWG) send random datagrams first, put random bytes before a message
// and change the words that tell messages apart; the lengths of initiation and response behind
// those bytes, 148 and 92, stay, and so do the places of the indexes, counted from the end. Others
// (TunnelBear) leave the message as it is and put padding behind it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "detectors/detector.hpp"

namespace l7mark {

// Datagrams that may be an initiation are remembered, the newest of them.
inline constexpr std::size_t kWireguardInitiations = 4;

struct WireguardState {
  std::array<std::uint32_t, kWireguardInitiations> initiators{};  // their senders' indexes
  std::uint32_t initiator = 0;   // of an initiation that may have been answered; 0 for none
  std::uint32_t responder = 0;   // of what may be its response
  std::uint8_t next = 0;         // place in `initiators`
  std::uint8_t from_client = 0;  // a bit for each place: the client sent it
  std::uint8_t standard = 0;     // a bit for each place: its type is an initiation's
  bool initiator_is_client = false;
};

// True when the datagrams up to this one show WireGuard: initiation and response, and where their
// types are not WireGuard's own, data that repeats an index as well. By chance, lengths left
// aside, the former happens in one of 2^96 cases (types and index), the latter in one of 2^104 (two
// indexes at up to 4 and 64 places, and six bytes of the counter that are 0).
//
// So the response tells, or the first data. An initiation with more than about 70 bytes before it
// is seen only where the datagram was copied whole.
[[nodiscard]] bool look_for_wireguard(WireguardState& state, const DetectorPacket& packet);

}  // namespace l7mark
