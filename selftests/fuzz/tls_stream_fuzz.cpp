// SPDX-License-Identifier: GPL-2.0-only
// Reassembly of a TLS hello from TCP segments. Input: a byte of flags, then segments: an offset in
// two bytes, a length in one, as many bytes. They go to a stream as they are, which may be
// anything; then the bytes of that stream go to others cut and shuffled, which must find the same.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "handshake/tls_stream.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;
using l7mark::TlsState;
using l7mark::TlsStream;

constexpr std::size_t kLimit = 2048;

Bytes copy(std::span<const std::uint8_t> bytes) {
  return {bytes.begin(), bytes.end()};
}

// Invariants of every state.
void check(const TlsStream& stream) {
  const auto there = stream.contiguous();
  if (there.size() > kLimit) abort();
  const bool complete = stream.state() == TlsState::complete;
  const auto message = stream.message();
  if (complete != !message.empty() || complete != (stream.flight_length() != 0)) abort();
  if (!complete) return;
  if (message.size() > there.size() || stream.flight_length() > there.size()) abort();
  const std::size_t length = static_cast<std::size_t>(message[1]) << 16 |
                             static_cast<std::size_t>(message[2]) << 8 | message[3];
  if (message.size() != 4 + length || (message[0] != 1 && message[0] != 2)) abort();
}

// All messages that a stream finds, and how it ends.
struct Found {
  std::vector<Bytes> messages;
  TlsState last = TlsState::empty;
  bool operator==(const Found&) const = default;
};

Found drain(TlsStream& stream) {
  Found found;
  while (stream.state() == TlsState::complete) {
    check(stream);
    found.messages.push_back(copy(stream.message()));
    stream.next();
  }
  check(stream);
  found.last = stream.state();
  return found;
}

// The same bytes in pieces of an order that `seed` chooses.
Found pieces(const Bytes& bytes, std::uint32_t first, std::uint32_t seed) {
  TlsStream stream(kLimit);
  stream.begin(first);
  const auto draw = [&seed] { return (seed = seed * 1664525 + 1013904223) >> 16; };
  std::vector<std::pair<std::size_t, std::size_t>> parts;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t size = std::min<std::size_t>(1 + draw() % 97, bytes.size() - at);
    parts.emplace_back(at, size);
    at += size;
  }
  for (std::size_t i = parts.size(); i > 1; --i) std::swap(parts[i - 1], parts[draw() % i]);
  for (const auto& [at, size] : parts) {
    stream.add(first + static_cast<std::uint32_t>(at), std::span(bytes).subspan(at, size));
    check(stream);
  }
  if (stream.conflict()) abort();
  return drain(stream);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::uint8_t flags = data[0];
  ++data;
  --size;
  // Some streams wrap around.
  const std::uint32_t first = (flags & 2) != 0 ? 0xfffffff0 : 1000;
  TlsStream stream(kLimit);
  if ((flags & 1) != 0) stream.begin(first);
  Bytes before;
  while (size >= 3) {
    // Offsets from 256 before the beginning on.
    const std::uint32_t offset = (static_cast<std::uint32_t>(data[0]) << 8 | data[1]) - 256;
    const std::size_t length = std::min<std::size_t>(data[2], size - 3);
    const Bytes segment(data + 3, data + 3 + length);
    stream.add(first + offset, segment);
    data += 3 + length;
    size -= 3 + length;
    check(stream);
    const Bytes now = copy(stream.contiguous());
    if (now.size() < before.size() || !std::equal(before.begin(), before.end(), now.begin())) {
      abort();
    }
    before = now;
    if ((flags & 4) != 0) stream.next();
  }
  TlsStream whole(kLimit);
  whole.begin(first);
  whole.add(first, before);
  if (before != copy(whole.contiguous())) abort();
  const Found found = drain(whole);
  if (pieces(before, first, flags) != found || pieces(before, first, flags * 7U + 1) != found) {
    abort();
  }
  return 0;
}
