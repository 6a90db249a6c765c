// SPDX-License-Identifier: GPL-2.0-only
// Reassembly of a DTLS hello. Input: a byte of flags, then datagrams, each behind its length in two
// bytes. They go to a stream as they are; then the input is a hello that is cut into fragments, and
// those must give it back in any order.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "handshake/client_hello.hpp"
#include "handshake/dtls_stream.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;
using l7mark::DtlsStream;
using l7mark::TlsState;

constexpr std::size_t kLimit = 2048;

void check(const DtlsStream& stream) {
  const auto message = stream.message();
  if ((stream.state() == TlsState::complete) != !message.empty()) abort();
  if (message.empty()) return;
  const std::size_t length = static_cast<std::size_t>(message[1]) << 16 |
                             static_cast<std::size_t>(message[2]) << 8 | message[3];
  if (message.size() != 4 + length || message.size() > kLimit) abort();
  if (message[0] != 1 && message[0] != 2) abort();
  (void)l7mark::parse_client_hello(message, l7mark::HelloTransport::dtls);
}

void put(Bytes& out, std::size_t value, int bytes) {
  while (bytes-- > 0) out.push_back(static_cast<std::uint8_t>(value >> 8 * bytes));
}

// A ClientHello with that body as fragments of an order and of sizes that `seed` chooses.
void check_pieces(std::span<const std::uint8_t> body, std::uint32_t seed) {
  const auto draw = [&seed] { return (seed = seed * 1664525 + 1013904223) >> 16; };
  std::vector<Bytes> fragments;
  for (std::size_t at = 0; at < body.size() || fragments.empty();) {
    const std::size_t size = std::min<std::size_t>(1 + draw() % 97, body.size() - at);
    Bytes out{22, 0xfe, 0xfd};
    put(out, 0, 8);  // epoch and sequence number
    put(out, 12 + size, 2);
    out.push_back(1);
    put(out, body.size(), 3);
    put(out, 0, 2);
    put(out, at, 3);
    put(out, size, 3);
    const auto part = body.subspan(at, size);
    out.insert(out.end(), part.begin(), part.end());
    fragments.push_back(std::move(out));
    at += size;
  }
  for (std::size_t i = fragments.size(); i > 1; --i)
    std::swap(fragments[i - 1], fragments[draw() % i]);
  DtlsStream stream(kLimit);
  for (const Bytes& fragment : fragments) {
    check(stream);
    stream.add(fragment);
  }
  check(stream);
  if (stream.conflict() || stream.state() != TlsState::complete) abort();
  const auto message = stream.message();
  if (!std::equal(body.begin(), body.end(), message.begin() + 4, message.end())) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::uint8_t flags = data[0];
  ++data;
  --size;
  const std::span<const std::uint8_t> input(data, size);
  DtlsStream stream(kLimit);
  while (size >= 2) {
    const std::size_t stated = static_cast<std::size_t>(data[0]) << 8 | data[1];
    const std::size_t length = std::min(stated, size - 2);
    const Bytes datagram(data + 2, data + 2 + length);
    const bool was_complete = stream.state() == TlsState::complete;
    stream.add(datagram);
    check(stream);
    if (was_complete && stream.state() != TlsState::complete) abort();
    if ((flags & 1) != 0) stream.next();
    data += 2 + length;
    size -= 2 + length;
  }
  if (input.size() <= kLimit - 4) check_pieces(input, flags);
  return 0;
}
