// SPDX-License-Identifier: GPL-2.0-only
#include "detectors/wireguard.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>

namespace l7mark {
namespace {

using Bytes = std::span<const std::uint8_t>;

// Type, sender, ephemeral key, sealed static key, sealed timestamp, two MACs.
constexpr std::size_t kInitiation = 4 + 4 + 32 + 48 + 28 + 32;
// Type, sender, receiver, ephemeral key, sealed nothing, two MACs.
constexpr std::size_t kResponse = 4 + 4 + 4 + 32 + 16 + 32;
// Type, receiver, counter of 64 bits, and a tag; what is sealed is padded to 16 bytes.
constexpr std::size_t kData = 4 + 4 + 8 + 16;
constexpr std::size_t kBlock = 16;
constexpr std::size_t kMostBefore = 1280;    // bytes before initiation or response
constexpr std::size_t kMostBeforeData = 63;  // the search is for one of 64 places
// The first data of a session; the counter is little-endian.
constexpr std::uint64_t kMostCounter = 0xffff;

constexpr std::uint32_t kInitiationType = 1;
constexpr std::uint32_t kResponseType = 2;

std::uint32_t read_le32(Bytes bytes, std::size_t at) {
  return std::uint32_t{bytes[at]} | std::uint32_t{bytes[at + 1]} << 8 |
         std::uint32_t{bytes[at + 2]} << 16 | std::uint32_t{bytes[at + 3]} << 24;
}

std::uint64_t read_le64(Bytes bytes, std::size_t at) {
  return read_le32(bytes, at) | std::uint64_t{read_le32(bytes, at + 4)} << 32;
}

// Indexes are random; words like 0, 1 or 0x20202020 come back in any protocol.
bool is_random(std::uint32_t index) {
  std::array<std::uint8_t, 4> bytes{};
  std::memcpy(bytes.data(), &index, sizeof(index));
  std::sort(bytes.begin(), bytes.end());
  return std::unique(bytes.begin(), bytes.end()) - bytes.begin() >= 3;
}

struct Place {
  std::size_t at = 0;     // of the message in the datagram
  bool standard = false;  // its type is WireGuard's own
};

// Where a message of that type and length may be, if its first `needed` bytes were copied: at the
// datagram's beginning if the type stands there, else at its end.
std::optional<Place> find_message(const DetectorPacket& packet, std::uint32_t type,
                                  std::size_t length, std::size_t needed) {
  if (packet.wire_length < length) return std::nullopt;
  const auto has_type = [&](std::size_t at) {
    return packet.payload.size() >= at + needed && read_le32(packet.payload, at) == type;
  };
  if (has_type(0)) return Place{0, true};
  const std::size_t before = packet.wire_length - length;
  if (before > kMostBefore || packet.payload.size() < before + needed) return std::nullopt;
  return Place{before, has_type(before)};
}

bool repeats_index(const DetectorPacket& packet, std::uint32_t receiver) {
  const std::size_t copied = packet.payload.size();
  for (std::size_t before = 0; before <= kMostBeforeData; ++before) {
    if (copied < before + 16 || packet.wire_length < before + kData) return false;
    if ((packet.wire_length - before) % kBlock == 0 &&
        read_le32(packet.payload, before + 4) == receiver &&
        read_le64(packet.payload, before + 8) <= kMostCounter)
      return true;
  }
  return false;
}

// A response to one of the initiations that are remembered. True if it is one beyond doubt.
bool look_at_response(WireguardState& state, const DetectorPacket& packet) {
  const auto response = find_message(packet, kResponseType, kResponse, 12);
  if (!response) return false;
  const std::uint32_t sender = read_le32(packet.payload, response->at + 4);
  const std::uint32_t receiver = read_le32(packet.payload, response->at + 8);
  for (std::size_t i = 0; i < kWireguardInitiations; ++i) {
    const bool initiator_is_client = (state.from_client >> i & 1) != 0;
    if (receiver == 0 || state.initiators[i] != receiver ||
        initiator_is_client == packet.from_client)
      continue;
    if (response->standard && (state.standard >> i & 1) != 0) return true;
    if (!is_random(receiver) || !is_random(sender)) continue;
    state.initiator = receiver;
    state.responder = sender;
    state.initiator_is_client = initiator_is_client;
  }
  return false;
}

void remember_initiation(WireguardState& state, const DetectorPacket& packet) {
  const auto initiation = find_message(packet, kInitiationType, kInitiation, 8);
  if (!initiation) return;
  const std::uint32_t sender = read_le32(packet.payload, initiation->at + 4);
  // A repeated one has an index of its own; only a copy on the network has not.
  const auto bit = static_cast<std::uint8_t>(1U << state.next);
  state.initiators[state.next] = sender;
  state.from_client = static_cast<std::uint8_t>(packet.from_client ? state.from_client | bit
                                                                   : state.from_client & ~bit);
  state.standard = static_cast<std::uint8_t>(initiation->standard ? state.standard | bit
                                                                  : state.standard & ~bit);
  state.next = static_cast<std::uint8_t>((state.next + 1) % kWireguardInitiations);
}

}  // namespace

bool look_for_wireguard(WireguardState& state, const DetectorPacket& packet) {
  if (packet.tcp || packet.payload.empty() || packet.wire_length < packet.payload.size())
    return false;
  if (state.initiator != 0) {
    const bool by_initiator = packet.from_client == state.initiator_is_client;
    if (repeats_index(packet, by_initiator ? state.responder : state.initiator)) return true;
  }
  if (look_at_response(state, packet)) return true;
  remember_initiation(state, packet);
  return false;
}

}  // namespace l7mark
