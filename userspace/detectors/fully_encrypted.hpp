// SPDX-License-Identifier: GPL-2.0-only
// TCP that looks like nothing from its first byte on, by the rules that Wu and others found ("How
// the Great Firewall of China Detects and Blocks Fully Encrypted Traffic", USENIX Security 2023):
// Shadowsocks, VMess, obfs4 and their like, and some other encrypted protocols as well. A hint, not
// an application: it is told as a risk (dpi/own_risks.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace l7mark {

// True if a flow's first payload from the client looks random. `payload` is what was copied of it,
// `wire_length` its whole length. False if one of the paper's exemptions holds: bits too far from
// random, a printable beginning, much or long printable text, a TLS record or an HTTP request.
// Three more keep out messengers and monitoring with a frame around what is encrypted or
// compressed: fewer than 64 bytes, of which the share of bits says little; four zero bytes among
// the first 16; and a 16-bit length of the payload among its first five bytes. Random bytes have
// the zeros in one of 2^21 payloads, and such a length in one of 2^12.
[[nodiscard]] bool is_fully_encrypted(std::span<const std::uint8_t> payload,
                                      std::size_t wire_length);

}  // namespace l7mark
