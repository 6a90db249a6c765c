// SPDX-License-Identifier: GPL-2.0-only
#include "detectors/openvpn.hpp"

#include <algorithm>

namespace l7mark {
namespace {

// The upper five bits of a packet's first byte; the lower three are the key's number, 0 in the
// first handshake.
constexpr unsigned kSoftReset = 3;
constexpr unsigned kControl = 4;
constexpr unsigned kAck = 5;
constexpr unsigned kClientReset = 7;
constexpr unsigned kServerReset = 8;
constexpr unsigned kClientResetV3 = 10;   // tls-crypt-v2: the client's wrapped key follows
constexpr unsigned kControlWithKey = 11;  // tls-crypt-v2: the same in the client's second packet

constexpr std::size_t kSessionAt = 1;
constexpr std::size_t kAfterSession = 9;
// Between session id and acknowledgements: nothing, or of tls-auth an HMAC (MD5, SHA-1, SHA-224,
// SHA-256, SHA-384 or SHA-512), packet id and time.
constexpr std::array<std::size_t, 7> kWrappings = {0, 24, 28, 36, 40, 56, 72};
constexpr std::size_t kMaxAcks = 8;
constexpr std::uint32_t kMaxMessageId = 0xffff;

// tls-crypt: opcode, session id, packet id, time, HMAC-SHA-256; then encrypted the number of
// acknowledgements, these, the other's session id, and the packet's message id.
constexpr std::size_t kWrappedHeader = 1 + 8 + 8 + 32;
constexpr std::size_t kWrappedClientReset = kWrappedHeader + 1 + 4;
constexpr std::size_t kWrappedServerReset = kWrappedHeader + 1 + 4 + 8 + 4;
// A server may add a few flags of its own to its reset.
constexpr std::size_t kMaxServerFlags = 32;
// tls-crypt-v2: tag, two keys of 128 bytes, the length; metadata may stand between.
constexpr std::size_t kLeastWrappedKey = 32 + 256 + 2;
// Peers that negotiate early count packets from one of these instead of from 0: 2.6, and what was
// released of its development.
constexpr std::uint32_t kEarlyNegotiation = 0x0f000000;
constexpr std::uint32_t kOldEarlyNegotiation = 0x0a010000;
constexpr std::uint32_t kMaxFirstId = 255;           // a reset is repeated under new ids
constexpr std::uint32_t kLeastTime = 1'000'000'000;  // 2001, before OpenVPN's first release
constexpr std::uint32_t kClockDifference = 86'400;

bool is_control(unsigned opcode) {
  switch (opcode) {
    case kSoftReset:
    case kControl:
    case kAck:
    case kClientReset:
    case kServerReset:
    case kClientResetV3:
    case kControlWithKey:
      return true;
    default:
      return false;
  }
}

bool is_client_reset(unsigned opcode) {
  return opcode == kClientReset || opcode == kClientResetV3;
}

bool is_reset(unsigned opcode) {
  return is_client_reset(opcode) || opcode == kServerReset;
}

// Session ids are random. Fewer than five different bytes in eight come once in millions there,
// and often in fields of other protocols.
bool is_random(std::span<const std::uint8_t> session) {
  std::size_t different = 0;
  for (std::size_t i = 0; i < session.size(); ++i) {
    const auto seen = session.first(i);
    if (std::find(seen.begin(), seen.end(), session[i]) == seen.end()) ++different;
  }
  return different >= 5;
}

// An array of acknowledgements at `at`, and behind it the session id that is acknowledged.
bool acknowledges(const OpenvpnMessage& message, std::size_t at, const OpenvpnSide& other) {
  const std::span<const std::uint8_t> head = message.head;
  if (head.size() <= at) return false;
  const std::size_t count = head[at];
  const std::size_t end = at + 1 + 4 * count + other.session.size();
  if (count == 0 || count > kMaxAcks || head.size() < end) return false;
  for (std::size_t i = 0; i < count; ++i)
    if (read_be32(head, at + 1 + 4 * i) > kMaxMessageId) return false;
  return std::equal(other.session.begin(), other.session.end(),
                    head.begin() + static_cast<std::ptrdiff_t>(at + 1 + 4 * count));
}

bool acknowledges(const OpenvpnMessage& message, const OpenvpnSide& other) {
  return std::any_of(kWrappings.begin(), kWrappings.end(), [&](std::size_t wrapping) {
    return acknowledges(message, kAfterSession + wrapping, other);
  });
}

// The length that a packet of tls-crypt has.
bool has_wrapped_length(const OpenvpnMessage& message, unsigned opcode) {
  switch (opcode) {
    case kClientReset:
      return message.length == kWrappedClientReset;
    case kClientResetV3:
      return message.length >= kWrappedClientReset + kLeastWrappedKey;
    case kServerReset:
      return message.length >= kWrappedServerReset &&
             message.length <= kWrappedServerReset + kMaxServerFlags;
    default:
      return message.length >= kWrappedClientReset;
  }
}

struct WrappedHeader {
  std::uint32_t id;
  std::uint32_t time;
};

// The header that tls-crypt leaves in the clear, if this can be one of the handshake's first
// packets.
std::optional<WrappedHeader> wrapped_header(const OpenvpnMessage& message, unsigned opcode) {
  if (message.head.size() < kAfterSession + 8 || !has_wrapped_length(message, opcode))
    return std::nullopt;
  const WrappedHeader out{read_be32(message.head, kAfterSession),
                          read_be32(message.head, kAfterSession + 4)};
  const std::uint32_t base = out.id & 0xffff0000;
  const std::uint32_t count = out.id & 0x0000ffff;
  if (base != 0 && base != kEarlyNegotiation && base != kOldEarlyNegotiation) return std::nullopt;
  if (count == 0 || count > kMaxFirstId || out.time < kLeastTime) return std::nullopt;
  return out;
}

bool near_in_time(const OpenvpnSide& a, const OpenvpnSide& b) {
  const std::uint32_t difference = a.time > b.time ? a.time - b.time : b.time - a.time;
  return difference <= kClockDifference;
}

bool known(const OpenvpnSide& side) {
  return side.opcode != 0;
}

// One reset is the client's and one the server's.
bool is_pair(unsigned a, unsigned b) {
  return (is_client_reset(a) && b == kServerReset) || (a == kServerReset && is_client_reset(b));
}

bool look_at_message(OpenvpnState& state, bool from_client, const OpenvpnMessage& message) {
  if (message.head.size() < kAfterSession) return false;
  const unsigned opcode = message.head[0] >> 3;
  const unsigned key = message.head[0] & 7;
  const auto session = message.head.subspan(kSessionAt, 8);
  if (!is_control(opcode) || (is_reset(opcode) && key != 0) || !is_random(session)) return false;

  OpenvpnSide& own = state.sides[from_client ? 0 : 1];
  const OpenvpnSide& other = state.sides[from_client ? 1 : 0];
  const bool same = known(own) && std::equal(session.begin(), session.end(), own.session.begin());
  if (known(other) && acknowledges(message, other)) return true;

  const auto wrapped = key == 0 ? wrapped_header(message, opcode) : std::nullopt;
  if (!same && (is_reset(opcode) || !known(own))) {
    // A first packet, or a new attempt on the same ports.
    own = OpenvpnSide();
    std::copy(session.begin(), session.end(), own.session.begin());
    own.opcode = static_cast<std::uint8_t>(opcode);
    own.wrapped = wrapped.has_value();
    if (wrapped) {
      own.id = static_cast<std::uint16_t>(wrapped->id);
      own.time = wrapped->time;
    }
    return own.wrapped && other.wrapped && is_pair(opcode, other.opcode) &&
           near_in_time(own, other);
  }
  if (!same || !wrapped || !own.wrapped || !other.wrapped) return false;
  const bool began = is_reset(own.opcode) || is_reset(other.opcode);
  return began && !is_reset(opcode) && wrapped->time == own.time &&
         static_cast<std::uint16_t>(wrapped->id) != own.id;
}

// The first payload over TCP, or its first byte or two.
bool may_begin(std::span<const std::uint8_t> payload) {
  constexpr std::size_t kLeast = kAfterSession + 1 + 4;
  constexpr std::size_t kMost = 2047;
  if (payload.empty()) return false;
  if (payload.size() == 1) return payload[0] <= kMost >> 8;
  const std::size_t length = read_be16(payload, 0);
  if (length < kLeast || length > kMost) return false;
  return payload.size() == 2 || ((payload[2] & 7) == 0 && is_reset(payload[2] >> 3));
}

bool look_at_segment(OpenvpnState& state, const DetectorPacket& segment) {
  if (state.rejected) return false;
  if (!state.stream) {
    if (!may_begin(segment.payload)) {
      state.rejected = true;
      return false;
    }
    state.stream = std::make_unique<OpenvpnStream>();
  }
  OpenvpnFramer& framer = state.stream->sides[segment.from_client ? 0 : 1];
  framer.begin(segment);
  while (const auto message = framer.next(segment))
    if (look_at_message(state, segment.from_client, *message)) return true;
  return false;
}

}  // namespace

bool look_for_openvpn(OpenvpnState& state, const DetectorPacket& packet) {
  if (packet.payload.empty() || packet.wire_length < packet.payload.size()) return false;
  if (packet.tcp) return look_at_segment(state, packet);
  return look_at_message(
      state, packet.from_client,
      {packet.payload.first(std::min(packet.payload.size(), kOpenvpnHead)), packet.wire_length});
}

}  // namespace l7mark
