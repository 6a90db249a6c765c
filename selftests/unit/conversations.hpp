// SPDX-License-Identifier: GPL-2.0-only
// A handshake as its packets cross the gateway: cut into pieces, in an order, over TCP or UDP.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "handshake/client_hello.hpp"
#include "handshake/ja4.hpp"
#include "hellos.hpp"
#include "packets.hpp"

namespace l7mark::test {

struct Piece {
  std::size_t offset = 0;
  Bytes bytes;
};

inline Bytes part_of(const Bytes& bytes, std::size_t from, std::size_t to) {
  to = std::min(to, bytes.size());
  return {bytes.begin() + static_cast<std::ptrdiff_t>(from),
          bytes.begin() + static_cast<std::ptrdiff_t>(to)};
}

inline std::vector<Piece> cut(const Bytes& stream, std::size_t pieces) {
  std::vector<Piece> out;
  for (std::size_t i = 0; i < pieces; ++i) {
    const std::size_t from = stream.size() * i / pieces;
    out.push_back({from, part_of(stream, from, stream.size() * (i + 1) / pieces)});
  }
  return out;
}

enum class Order { forward, backward, shuffled };

template <class T>
std::vector<T> in_order(std::vector<T> pieces, Order order) {
  if (order == Order::backward) std::reverse(pieces.begin(), pieces.end());
  std::mt19937 random(7);
  if (order == Order::shuffled) std::shuffle(pieces.begin(), pieces.end(), random);
  return pieces;
}

// Offers all that a hello can tell. The name comes first, so that a part of the hello has it.
inline HelloSpec full_spec(std::string_view name, std::size_t padding = 1400) {
  HelloSpec spec;
  spec.ciphers = {0x1301, 0x1302, 0xc02f};
  spec.extensions = {server_name(name),
                     alpn({"h2", "http/1.1"}),
                     versions({0x0304, 0x0303}),
                     algorithms({0x0403, 0x0804}),
                     {extension::kEncryptedClientHello, Bytes(64, 1)},
                     {21, Bytes(padding, 0)}};
  return spec;
}

inline std::string ja4_of_message(const Bytes& message,
                                  HelloTransport transport = HelloTransport::tls) {
  return ja4_of(*parse_client_hello(message, transport), transport);
}

inline Bytes server_hello(std::uint16_t version, std::uint16_t cipher) {
  HelloSpec spec;
  spec.version = version == 0x0304 ? 0x0303 : version;
  spec.ciphers = {cipher};
  if (version == 0x0304) spec.extensions = {{extension::kSupportedVersions, {0x03, 0x04}}};
  return made_server_hello(spec);
}

// Packets of one TCP connection; offsets are of the stream, whose bytes count from 0.
struct TcpTalk {
  Endpoints ends;
  std::uint32_t client_first = 1000;
  std::uint32_t server_first = 70000;

  [[nodiscard]] Bytes syn() const { return tcp(ends, L7M_TCP_SYN, client_first - 1, 0); }
  [[nodiscard]] Bytes client(std::size_t offset, const Bytes& payload) const {
    return tcp(ends, L7M_TCP_ACK, client_first + static_cast<std::uint32_t>(offset), server_first,
               payload);
  }
  [[nodiscard]] Bytes server(std::size_t offset, const Bytes& payload) const {
    return tcp(ends.reversed(), L7M_TCP_ACK, server_first + static_cast<std::uint32_t>(offset),
               client_first, payload);
  }
};

}  // namespace l7mark::test
