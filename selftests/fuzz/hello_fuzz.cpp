// SPDX-License-Identifier: GPL-2.0-only
// The readers of hello messages and JA4. Input: a byte that chooses the transport, then a message.
// Its length field is set right for one of two runs, so that the bodies are reached.
#include <cstdlib>
#include <vector>

#include "handshake/ja4.hpp"

namespace {

using l7mark::HelloTransport;

void check_client(const l7mark::ClientHello& hello, HelloTransport transport, std::size_t size) {
  if (hello.server_name.size() > 255 || hello.alpn.size() > l7mark::kHelloMaxAlpn) abort();
  for (const char c : hello.server_name) {
    if (c <= 0x20 || c >= 0x7f || (c >= 'A' && c <= 'Z')) abort();
  }
  // Four bytes of the message for each extension, two for each cipher.
  if (hello.extensions.size() * 4 + hello.ciphers.size() * 2 > size) abort();
  const std::string ja4 = l7mark::ja4_of(hello, transport);
  if (ja4.size() != 36 || ja4[10] != '_' || ja4[23] != '_') abort();
}

void check(const std::vector<std::uint8_t>& message, HelloTransport transport) {
  if (const auto hello = l7mark::parse_client_hello(message, transport)) {
    check_client(*hello, transport, message.size());
    if (l7mark::parse_server_hello(message)) abort();
  }
  if (const auto hello = l7mark::parse_server_hello(message)) {
    if (hello->alpn.size() > 255) abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto transport = static_cast<HelloTransport>(data[0] % 3);
  std::vector<std::uint8_t> message(data + 1, data + size);
  message.shrink_to_fit();
  check(message, transport);
  if (message.size() < 4) return 0;
  const std::size_t body = message.size() - 4;
  message[1] = static_cast<std::uint8_t>(body >> 16);
  message[2] = static_cast<std::uint8_t>(body >> 8);
  message[3] = static_cast<std::uint8_t>(body);
  check(message, transport);
  return 0;
}
