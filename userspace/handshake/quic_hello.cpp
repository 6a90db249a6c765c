// SPDX-License-Identifier: GPL-2.0-only
#include "handshake/quic_hello.hpp"

#include <algorithm>
#include <utility>

#include "handshake/quic_frames.hpp"

namespace l7mark {
namespace {

// For one datagram, which may be several that offload merged. A packet is tried with two keys at
// most, so the largest one that can be opened must fit twice.
constexpr unsigned kMaxPackets = 64;
constexpr unsigned kMaxFrames = 1024;
constexpr unsigned kMaxDerivations = 2;
constexpr std::size_t kMaxOpenedBytes = 2 * kQuicMaxPacket;

constexpr std::uint8_t kMaxFailures = 8;     // packets of a connection
constexpr std::size_t kMaxToken = 512;       // a longer token is left out of the sealed packet
constexpr std::size_t kMinDatagram = 1200;   // of a client's Initials (RFC 9000, 14.1)
constexpr std::size_t kMinFirstDcid = 8;     // RFC 9000, 7.2
constexpr std::uint8_t kClientHello = 0x01;  // RFC 8446, 4

bool same(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

// The demands of every version on a client's first packet. Versions that are not known may ask for
// less, but then nothing tells them from other protocols.
bool may_be_first(const QuicPacket& packet) {
  return packet.fixed_bit && packet.bytes.size() >= kMinDatagram &&
         packet.dcid.size() >= kMinFirstDcid && packet.dcid.size() <= kQuicMaxConnectionId &&
         packet.scid.size() <= kQuicMaxConnectionId;
}

}  // namespace

// The work that a datagram may still cost.
struct QuicHello::Budget {
  unsigned packets = kMaxPackets;
  unsigned frames = kMaxFrames;
  unsigned derivations = kMaxDerivations;
  std::size_t bytes = kMaxOpenedBytes;
};

void QuicHello::ConnectionId::assign(std::span<const std::uint8_t> id) {
  size = static_cast<std::uint8_t>(std::min(id.size(), data.size()));
  std::copy_n(id.begin(), size, data.begin());
}

QuicHelloState QuicHello::add(std::span<const std::uint8_t> datagram) {
  QuicPacketReader packets(datagram);
  Budget budget;
  QuicScratch scratch;  // not cleared: it is large, and only what was written is read
  bool is_first = !std::exchange(seen_, true);
  while (!is_final() && budget.packets > 0) {
    --budget.packets;
    const std::optional<QuicPacket> packet = packets.next();
    if (!packet) break;
    if (packet->type == QuicPacketType::initial) {
      if (budget.bytes < 2 * packet->bytes.size()) break;
      add_initial(*packet, budget, scratch, is_first);
    } else if (packet->type == QuicPacketType::other && !started_ && may_be_first(*packet)) {
      state_ = QuicHelloState::unknown_version;
      version_ = packet->version;
    }
    is_first = false;
  }
  return state_;
}

void QuicHello::add_initial(const QuicPacket& packet, Budget& budget, QuicScratch& scratch,
                            bool is_first) {
  state_ = QuicHelloState::collecting;
  const std::optional<QuicOpened> opened = open(packet, budget, scratch);
  if (opened) {
    read_frames(opened->frames, budget, is_first);
    look();
  } else if (++failures_ == kMaxFailures) {
    state_ = QuicHelloState::failed;
  }
}

// Tries the keys that the packet can have been sealed with, the likeliest first. Without a tag that
// fits nothing is changed, but for the very first packet: later ones refer to its connection id.
std::optional<QuicOpened> QuicHello::open(const QuicPacket& packet, Budget& budget,
                                          QuicScratch& scratch) {
  const QuicProtection protection = quic_protection(packet.version);
  const bool own_id = started_ && same(packet.dcid, dcid_.bytes());
  const auto attempt = [&](const QuicKeys& keys) -> std::optional<QuicOpened> {
    budget.bytes -= packet.bytes.size();
    return quic_open(keys, packet, scratch);
  };
  if (started_ && packet.version == version_) {
    if (auto opened = attempt(keys_); opened || own_id) return opened;
  } else if (started_ && !own_id) {
    // The server chose another version for the connection that goes on (RFC 9368, 2.1); the keys
    // still come from the client's first connection id.
    if (budget.derivations == 0) return std::nullopt;
    --budget.derivations;
    if (auto opened = attempt(quic_initial_keys(protection, dcid_.bytes(), QuicSide::client)))
      return opened;
  }
  // A connection of its own: the first packet; after a Retry, which gives the client a new
  // connection id (RFC 9001, 5.2); or after a version negotiation.
  if (budget.derivations == 0) return std::nullopt;
  --budget.derivations;
  const QuicKeys keys = quic_initial_keys(protection, packet.dcid, QuicSide::client);
  auto opened = attempt(keys);
  if (opened || !started_) start(packet, keys);
  return opened;
}

void QuicHello::start(const QuicPacket& packet, const QuicKeys& keys) {
  started_ = true;
  version_ = packet.version;
  dcid_.assign(packet.dcid);
  scid_.assign(packet.scid);
  const auto token = packet.token.size() <= kMaxToken ? packet.token : decltype(packet.token)();
  token_.assign(token.begin(), token.end());
  keys_ = keys;
  stream_ = Assembly(stream_.limit());
}

void QuicHello::read_frames(std::span<const std::uint8_t> frames, Budget& budget, bool is_first) {
  QuicFrameReader reader(frames, budget.frames);
  while (const std::optional<QuicCrypto> crypto = reader.next()) {
    const std::size_t limit = stream_.limit();
    if (crypto->offset > limit || crypto->data.size() > limit - crypto->offset) {
      state_ = QuicHelloState::overflow;
      return;
    }
    if (is_first && crypto->leads && crypto->offset == 0) {
      const std::size_t size = quic_message_size(crypto->data);
      plain_ = size != 0 && size <= crypto->data.size();
    }
    stream_.add(static_cast<std::size_t>(crypto->offset), crypto->data);
  }
}

void QuicHello::look() {
  if (state_ != QuicHelloState::collecting) return;
  const auto stream = stream_.contiguous();
  if (stream.empty()) return;
  const std::size_t size = quic_message_size(stream);
  if (stream[0] != kClientHello)
    state_ = QuicHelloState::failed;
  else if (size > stream_.limit())
    state_ = QuicHelloState::overflow;
  else if (size != 0 && size <= stream.size())
    state_ = QuicHelloState::complete;
}

std::span<const std::uint8_t> QuicHello::message() const {
  if (state_ != QuicHelloState::complete) return {};
  const auto stream = stream_.contiguous();
  return stream.first(quic_message_size(stream));
}

std::vector<std::uint8_t> QuicHello::sealed_initial(std::uint32_t version) const {
  const auto hello = message();
  if (hello.empty()) return {};
  std::vector<std::uint8_t> frames;
  frames.reserve(std::max(kMinDatagram, hello.size() + 16));
  frames.push_back(0x06);
  frames.push_back(0);
  quic_put_varint(frames, hello.size(), 2);
  frames.insert(frames.end(), hello.begin(), hello.end());
  if (frames.size() < kMinDatagram) frames.resize(kMinDatagram);

  QuicInitial initial;
  initial.version = version;
  initial.dcid = dcid_.bytes();
  initial.scid = scid_.bytes();
  initial.token = token_;
  if (version == version_) return quic_seal(keys_, initial, frames);
  return quic_seal(quic_initial_keys(quic_protection(version), initial.dcid, QuicSide::client),
                   initial, frames);
}

}  // namespace l7mark
