// SPDX-License-Identifier: GPL-2.0-only
// The ServerHello of a QUIC connection, which tells the version and cipher that the server chose.
// Its Initials open with keys from the connection id of the client's (RFC 9001, 5.2).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "handshake/assembly.hpp"

namespace l7mark {

class QuicServerHello {
 public:
  // Takes the payload of a UDP packet that the server sent; `client_dcid` is QuicHello::dcid().
  // True once the message is whole; then and after the limits nothing is read any more.
  bool add(std::span<const std::uint8_t> datagram, std::span<const std::uint8_t> client_dcid);

  // With the four bytes of its header; empty until it is whole. A HelloRetryRequest is one too (RFC
  // 8446, 4.1.4).
  [[nodiscard]] std::span<const std::uint8_t> message() const;

 private:
  // A key share of ML-KEM makes it 1.2 kilobytes.
  static constexpr std::size_t kLimit = 4096;

  std::uint8_t attempts_ = 0;  // packets that were tried to open
  Assembly stream_{kLimit};
};

}  // namespace l7mark
