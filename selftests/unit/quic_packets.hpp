// SPDX-License-Identifier: GPL-2.0-only
// ClientHellos and Initial packets for tests of what reads QUIC.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "handshake/quic_keys.hpp"
#include "packets.hpp"

namespace l7mark::test {

// A ClientHello of TLS 1.3 for HTTP/3 (RFC 8446, 4.1.2) that is `size` bytes long; its key share,
// which no test looks into, takes what the rest leaves.
inline Bytes quic_client_hello(std::string_view server_name, std::size_t size) {
  Bytes extensions;
  put16(extensions, 0);
  put16(extensions, static_cast<unsigned>(server_name.size() + 5));
  put16(extensions, static_cast<unsigned>(server_name.size() + 3));
  extensions.push_back(0);
  put16(extensions, static_cast<unsigned>(server_name.size()));
  put(extensions, server_name);
  put(extensions, Bytes{0x00, 0x10, 0x00, 0x05, 0x00, 0x03, 0x02, 'h', '3'});
  put(extensions, Bytes{0x00, 0x2b, 0x00, 0x03, 0x02, 0x03, 0x04});
  Bytes hello{0x01, 0x00};
  put16(hello, static_cast<unsigned>(size - 4));
  put16(hello, 0x0303);
  hello.insert(hello.end(), 32, 0x5a);
  put(hello, Bytes{0x00, 0x00, 0x04, 0x13, 0x01, 0x13, 0x02, 0x01, 0x00});
  const std::size_t share = size - hello.size() - 2 - extensions.size() - 10;
  put16(extensions, 0x33);
  put16(extensions, static_cast<unsigned>(share + 6));
  put16(extensions, static_cast<unsigned>(share + 4));
  put16(extensions, 0x11ec);
  put16(extensions, static_cast<unsigned>(share));
  for (std::size_t i = 0; i < share; ++i)
    extensions.push_back(static_cast<std::uint8_t>(i * 167 + (i >> 8)));
  put16(hello, static_cast<unsigned>(extensions.size()));
  put(hello, extensions);
  return hello;
}

inline Bytes crypto_frame(std::size_t offset, std::span<const std::uint8_t> data) {
  Bytes out{0x06};
  quic_put_varint(out, offset);
  quic_put_varint(out, data.size());
  out.insert(out.end(), data.begin(), data.end());
  return out;
}

// A frame with a part of `hello`, which ends where the hello does.
inline Bytes crypto_part(const Bytes& hello, std::size_t begin, std::size_t end) {
  return crypto_frame(begin, std::span(hello).subspan(begin, std::min(end, hello.size()) - begin));
}

// The packets of one client: each has the next number.
struct QuicClient {
  std::uint32_t version = kQuicVersion1;
  Bytes dcid = from_hex("8394c8f03e515708");
  Bytes scid = from_hex("c1c2c3");
  Bytes token;
  std::uint32_t number = 0;

  // An Initial with the given frames, padded to `size` bytes of frames.
  Bytes initial(Bytes frames, std::size_t size = 1200) {
    if (frames.size() < size) frames.resize(size);
    const QuicInitial header{version, dcid, scid, token, number++, 1};
    return quic_seal(quic_initial_keys(quic_protection(version), dcid, QuicSide::client), header,
                     frames);
  }

  // `hello` over `count` Initials, in order.
  std::vector<Bytes> initials(const Bytes& hello, std::size_t count) {
    std::vector<Bytes> out;
    const std::size_t step = (hello.size() + count - 1) / count;
    for (std::size_t at = 0; at < hello.size(); at += step)
      out.push_back(initial(crypto_part(hello, at, at + step)));
    return out;
  }

  // A packet of another type by the bits of version 1, its payload as if encrypted.
  [[nodiscard]] Bytes other(unsigned type, std::size_t payload) const {
    Bytes out{static_cast<std::uint8_t>(0xc0 | type << 4)};
    put32(out, version);
    out.push_back(static_cast<std::uint8_t>(dcid.size()));
    put(out, dcid);
    out.push_back(static_cast<std::uint8_t>(scid.size()));
    put(out, scid);
    quic_put_varint(out, payload, 2);
    out.insert(out.end(), payload, 0xa5);
    return out;
  }
};

}  // namespace l7mark::test
