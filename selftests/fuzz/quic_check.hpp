// SPDX-License-Identifier: GPL-2.0-only
// Invariants of a QuicHello, for any input.
#pragma once

#include <algorithm>
#include <cstdlib>

#include "handshake/quic_hello.hpp"

namespace l7mark::fuzz {

inline void require(bool condition) {
  if (!condition) abort();
}

inline void check(const QuicHello& hello, std::size_t limit) {
  const auto message = hello.message();
  if (hello.state() != QuicHelloState::complete) {
    require(message.empty() && hello.sealed_initial().empty());
    return;
  }
  require(message.size() >= 4 && message.size() <= limit && message[0] == 0x01);
  ByteReader header(message.subspan(1));
  require(header.u24() + 4 == message.size());
  // The sealed packet has the same hello, and all of it where a reader of single packets looks.
  QuicHello again(limit);
  require(again.add(hello.sealed_initial()) == QuicHelloState::complete && again.is_plain());
  require(
      std::equal(message.begin(), message.end(), again.message().begin(), again.message().end()));
}

}  // namespace l7mark::fuzz
