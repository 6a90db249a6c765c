// SPDX-License-Identifier: GPL-2.0-only
// Puts the hello of one direction of DTLS 1.0 to 1.3 (RFC 4347, RFC 6347, RFC 9147) together from
// datagrams, in which it may be cut into fragments (RFC 6347, 4.2.3).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "handshake/assembly.hpp"
#include "handshake/tls_state.hpp"

namespace l7mark {

class DtlsStream {
 public:
  // Allocates nothing before there is a fragment to keep. `limit`: of the hello's bytes.
  explicit DtlsStream(std::size_t limit = kHandshakeLimit) : message_(limit) {}

  // A datagram's payload, in any order. All that is no part of the hello is passed over: STUN and
  // RTP share the ports of WebRTC's DTLS, and a HelloVerifyRequest stands before a ServerHello.
  // The hello with the lower message number is taken where there are two.
  void add(std::span<const std::uint8_t> datagram);

  // not_tls here means: no datagram so far had a part of a hello. One that comes later counts.
  [[nodiscard]] TlsState state() const { return state_; }
  // Two copies of a fragment differed.
  [[nodiscard]] bool conflict() const { return conflict_ || message_.conflict(); }
  // The hello with four bytes of type and length before it, as TLS has it. Empty unless the state
  // is complete. Valid until the next add() or next().
  [[nodiscard]] std::span<const std::uint8_t> message() const;

  // Goes on to a hello with a higher message number: the one with the cookie, or the one that a
  // HelloRetryRequest asked for. Has no effect unless the state is complete.
  void next();

 private:
  struct Fragment;

  bool read_record(std::span<const std::uint8_t> record);
  void take(const Fragment& fragment);
  void start(const Fragment& fragment);

  Assembly message_;
  TlsState state_ = TlsState::empty;
  bool conflict_ = false;
  std::uint8_t type_ = 0;
  std::uint16_t number_ = 0;  // message_seq of the hello
  std::uint16_t lowest_ = 0;  // that is still looked for
  std::size_t length_ = 0;    // of the hello with its four bytes
};

}  // namespace l7mark
