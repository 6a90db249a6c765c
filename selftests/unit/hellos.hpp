// SPDX-License-Identifier: GPL-2.0-only
// Makes hello messages, TLS records and DTLS fragments for tests of what reads them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "packets.hpp"

namespace l7mark::test {

using Numbers = std::vector<std::uint16_t>;

inline void put24(Bytes& out, std::size_t value) {
  out.push_back(static_cast<std::uint8_t>(value >> 16));
  put16(out, static_cast<unsigned>(value & 0xffff));
}
inline Bytes vector8(const Bytes& content) {
  Bytes out{static_cast<std::uint8_t>(content.size())};
  put(out, content);
  return out;
}
inline Bytes vector16(const Bytes& content) {
  Bytes out;
  put16(out, static_cast<unsigned>(content.size()));
  put(out, content);
  return out;
}
inline Bytes numbers(const Numbers& values) {
  Bytes out;
  for (const std::uint16_t value : values) put16(out, value);
  return out;
}

struct Extension {
  std::uint16_t number = 0;
  Bytes content;
};

inline Extension server_name(std::string_view name, std::uint8_t type = 0) {
  const Bytes text(name.begin(), name.end());
  Bytes entry{type};
  put(entry, vector16(text));
  return {0, vector16(entry)};
}
inline Extension alpn(const std::vector<std::string>& names) {
  Bytes list;
  for (const auto& name : names) put(list, vector8(Bytes(name.begin(), name.end())));
  return {16, vector16(list)};
}
inline Extension versions(const Numbers& values) {
  return {43, vector8(numbers(values))};
}
inline Extension algorithms(const Numbers& values) {
  return {13, vector16(numbers(values))};
}

inline Bytes message(std::uint8_t type, const Bytes& body) {
  Bytes out{type};
  put24(out, body.size());
  put(out, body);
  return out;
}

struct HelloSpec {
  std::uint16_t version = 0x0303;
  Numbers ciphers{0x1301};
  std::vector<Extension> extensions;
  bool with_extensions = true;
  bool dtls = false;
  Bytes random = Bytes(32, 0x5a);
};

inline Bytes extension_block(const std::vector<Extension>& extensions) {
  Bytes list;
  for (const auto& one : extensions) {
    put16(list, one.number);
    put(list, vector16(one.content));
  }
  return vector16(list);
}

inline Bytes made_client_hello(const HelloSpec& spec) {
  Bytes body;
  put16(body, spec.version);
  put(body, spec.random);
  put(body, vector8(Bytes(32, 7)));
  if (spec.dtls) put(body, vector8(Bytes(20, 9)));
  put(body, vector16(numbers(spec.ciphers)));
  put(body, vector8({0}));
  if (spec.with_extensions) put(body, extension_block(spec.extensions));
  return message(1, body);
}

inline Bytes made_server_hello(const HelloSpec& spec) {
  Bytes body;
  put16(body, spec.version);
  put(body, spec.random);
  put(body, vector8({}));
  put16(body, spec.ciphers.front());
  body.push_back(0);
  if (spec.with_extensions) put(body, extension_block(spec.extensions));
  return message(2, body);
}

// A message as TLS records of at most `most` bytes of it each.
inline Bytes records(const Bytes& bytes, std::size_t most = 16384, std::uint8_t type = 22) {
  Bytes out;
  for (std::size_t at = 0; at < bytes.size(); at += most) {
    const std::size_t size = std::min(most, bytes.size() - at);
    out.push_back(type);
    put16(out, 0x0301);
    put16(out, static_cast<unsigned>(size));
    const auto from = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    out.insert(out.end(), from, from + static_cast<std::ptrdiff_t>(size));
  }
  return out;
}

// A hello for `name` that has `size` bytes with its record header.
inline Bytes hello_record(std::string_view name, std::size_t size) {
  HelloSpec spec;
  spec.extensions = {server_name(name), {21, {}}};
  const std::size_t without = made_client_hello(spec).size() + 5;
  if (size > without) spec.extensions.back().content.resize(size - without);
  return records(made_client_hello(spec));
}

// A fragment of a handshake message as a DTLS record.
inline Bytes dtls_fragment(const Bytes& whole, std::uint16_t number, std::size_t offset,
                           std::size_t size, std::uint16_t epoch = 0) {
  Bytes fragment{whole[0], whole[1], whole[2], whole[3]};
  put16(fragment, number);
  put24(fragment, offset);
  put24(fragment, size);
  const auto from = whole.begin() + 4 + static_cast<std::ptrdiff_t>(offset);
  fragment.insert(fragment.end(), from, from + static_cast<std::ptrdiff_t>(size));
  Bytes out{22};
  put16(out, 0xfeff);
  put16(out, epoch);
  put16(out, 0);
  put32(out, 7);
  put(out, vector16(fragment));
  return out;
}

}  // namespace l7mark::test
