// SPDX-License-Identifier: GPL-2.0-only
// How far a stream of handshake messages is with the hello that it looks for.
#pragma once

#include <cstddef>
#include <cstdint>

namespace l7mark {

enum class TlsState : std::uint8_t {
  empty,     // not a byte of it
  not_tls,   // it is no hello of TLS or DTLS
  partial,   // some of it
  complete,  // all of it
  overflow,  // it is longer than the limit
};

// Most bytes that are kept of one direction: as many as the longest record has (RFC 8446, 5.1).
// Hellos with post-quantum keys have 1.7 to 1.9 kB.
inline constexpr std::size_t kHandshakeLimit = 16384;

}  // namespace l7mark
