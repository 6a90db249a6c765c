// SPDX-License-Identifier: GPL-2.0-only
#include "handshake/quic_server_hello.hpp"

#include "handshake/quic_frames.hpp"
#include "handshake/quic_keys.hpp"
#include "handshake/quic_packet.hpp"

namespace l7mark {
namespace {

constexpr unsigned kMaxFrames = 256;       // of one datagram
constexpr std::uint8_t kMaxAttempts = 16;  // of one connection
constexpr std::uint8_t kServerHello = 0x02;

}  // namespace

bool QuicServerHello::add(std::span<const std::uint8_t> datagram,
                          std::span<const std::uint8_t> client_dcid) {
  QuicPacketReader packets(datagram);
  unsigned frames = kMaxFrames;
  std::uint32_t version = 0;  // of the keys; no Initial has 0
  QuicKeys keys;
  QuicScratch scratch;  // not cleared: it is large, and only what was written is read
  while (message().empty() && attempts_ < kMaxAttempts) {
    const auto packet = packets.next();
    if (!packet) break;
    if (packet->type != QuicPacketType::initial) continue;
    ++attempts_;
    if (packet->version != version) {
      version = packet->version;
      keys = quic_initial_keys(quic_protection(version), client_dcid, QuicSide::server);
    }
    const auto opened = quic_open(keys, *packet, scratch);
    if (!opened) continue;
    QuicFrameReader reader(opened->frames, frames);
    while (const auto crypto = reader.next())
      if (crypto->offset < kLimit)
        stream_.add(static_cast<std::size_t>(crypto->offset), crypto->data);
  }
  return !message().empty();
}

std::span<const std::uint8_t> QuicServerHello::message() const {
  const auto stream = stream_.contiguous();
  const std::size_t size = quic_message_size(stream);
  if (size == 0 || size > stream.size() || stream[0] != kServerHello) return {};
  return stream.first(size);
}

}  // namespace l7mark
