// SPDX-License-Identifier: GPL-2.0-only
// What the honest client and its servers say to each other: HTTP, or records of TLS whose content
// is not encrypted but noise. Each request after a hello, and its answer, ends in a token.
#pragma once

#include <cstring>
#include <string>
#include <string_view>

#include "bpf/token.h"
#include "unit/packets.hpp"

namespace l7mark::robust {

inline std::string_view bytes_of(const robust_token& token) {
  return {reinterpret_cast<const char*>(&token), sizeof(token)};
}

inline std::string hello_for(std::string_view host) {
  const test::Bytes hello = test::client_hello(host);
  return {hello.begin(), hello.end()};
}

inline std::string tls_record(char type, std::string_view content) {
  std::string out = {type, 3, 3, static_cast<char>(content.size() >> 8),
                     static_cast<char>(content.size())};
  out += content;
  return out;
}

inline std::string noise(std::size_t size) {
  std::string out;
  for (std::uint64_t state = 1; out.size() < size;) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    out += static_cast<char>(state >> 56);
  }
  return out;
}

inline std::string request_of(bool tls, std::string_view host, const robust_token& token) {
  if (tls) return tls_record(23, noise(48) + std::string(bytes_of(token)));
  std::string out = "POST /robust HTTP/1.1\r\nHost: ";
  out += host;
  out += "\r\nUser-Agent: robust\r\nContent-Type: application/octet-stream\r\nContent-Length: ";
  out += std::to_string(sizeof(token)) + "\r\n\r\n";
  out += bytes_of(token);
  return out;
}

// Bytes of the message that `in` begins with; 0 while that is not known.
inline std::size_t message_size(std::string_view in) {
  if (in.size() < 5) return 0;
  if (in[0] >= 20 && in[0] <= 23 && in[1] == 3)
    return 5 + static_cast<std::size_t>(static_cast<unsigned char>(in[3])) * 256 +
           static_cast<unsigned char>(in[4]);
  const auto end = in.find("\r\n\r\n");
  return end == std::string_view::npos ? 0 : end + 4 + sizeof(robust_token);
}

// The server's answer to a whole message.
inline std::string reply_to(std::string_view message) {
  if (message[0] == 22) {
    std::string hello("\x03\x03", 2);
    hello += noise(32);
    hello += std::string("\0\x13\x01\0", 4);                          // no session, its cipher
    hello += std::string("\0\x2e\0\x2b\0\x02\x03\x04", 8);            // TLS 1.3
    hello += std::string("\0\x33\0\x24\0\x1d\0\x20", 8) + noise(32);  // key share
    const std::string head = {2, 0, 0, static_cast<char>(hello.size())};
    return tls_record(22, head + hello) + tls_record(20, "\x01") + tls_record(23, noise(600));
  }
  const std::string token(message.substr(message.size() - sizeof(robust_token)));
  if (message[0] == 23) return tls_record(23, noise(48) + token);
  return "HTTP/1.1 200 OK\r\nServer: robust\r\nContent-Type: application/octet-stream\r\n"
         "Content-Length: " +
         std::to_string(token.size()) + "\r\n\r\n" + token;
}

}  // namespace l7mark::robust
