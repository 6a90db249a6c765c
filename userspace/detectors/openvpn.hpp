// SPDX-License-Identifier: GPL-2.0-only
// Recognises OpenVPN on any port by its handshake, with TLS in the clear, tls-auth, tls-crypt and
// tls-crypt-v2, over UDP and TCP. The idea is that of Xue and others, "OpenVPN is Open to VPN
// Fingerprinting" (USENIX Security 2022): opcodes and acknowledgements follow a fixed pattern, and
// are not encrypted in whole. Layout: OpenVPN's wire protocol (draft-openvpn-wire-protocol), and
// doc/tls-crypt-v2.txt of its source.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "detectors/detector.hpp"
#include "detectors/openvpn_stream.hpp"

namespace l7mark {

// The packets that one side has sent.
struct OpenvpnSide {
  std::array<std::uint8_t, 8> session{};  // all 0 until it is known
  std::uint32_t time = 0;                 // tls-crypt: seconds since 1970 when its key was set up
  std::uint16_t id = 0;     // tls-crypt: low bits of the packet id of the first packet
  std::uint8_t opcode = 0;  // of the first packet
  bool wrapped = false;     // the first packet may be one of tls-crypt
};

struct OpenvpnState {
  std::array<OpenvpnSide, 2> sides;       // client, server
  std::unique_ptr<OpenvpnStream> stream;  // TCP: only where the first payload could be OpenVPN's
  bool rejected = false;                  // TCP: the first payload was another protocol's
};

// True when the packets up to this one show an exchange of OpenVPN:
//
// - In the clear and with tls-auth a side acknowledges by repeating the other's session id, 64
// random
//   bits, at a place that the acknowledgements' number fixes. The server's answer to the first
//   packet does, and so does every later control packet.
// - With tls-crypt acknowledgements are encrypted, but opcode, session id, packet id and time are
//   not. A reset of each side, of the right lengths, their packet ids near 1 and their clocks
//   within a day, are an exchange. With clocks further apart one more control packet of either side
//   is needed, which has the same session id and time, and another packet id.
//
// So the second packet with payload tells, or the third. Works from the opening handshake only: a
// tunnel that is under way shows nothing.
[[nodiscard]] bool look_for_openvpn(OpenvpnState& state, const DetectorPacket& packet);

}  // namespace l7mark
