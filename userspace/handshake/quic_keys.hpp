// SPDX-License-Identifier: GPL-2.0-only
// The protection of QUIC's Initial packets (RFC 9001, 5; RFC 9369, 3.3). Its keys follow from a
// connection id that is sent in the clear, so whoever sees the packet can open and make it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "handshake/quic_packet.hpp"

namespace l7mark {

enum class QuicSide : std::uint8_t { client, server };

// The keys of one side's Initials: AEAD_AES_128_GCM, and AES for the header.
struct QuicKeys {
  std::array<std::uint8_t, 16> key{};
  std::array<std::uint8_t, 12> iv{};
  std::array<std::uint8_t, 16> header{};
};

// `dcid` is the destination connection id of the client's first Initial, or of its first one after
// a Retry. `protection` must be a known one.
[[nodiscard]] QuicKeys quic_initial_keys(QuicProtection protection,
                                         std::span<const std::uint8_t> dcid, QuicSide side);

// A larger packet is not opened: a hello of 16 KiB in one packet fits.
inline constexpr std::size_t kQuicMaxPacket = std::size_t{17} * 1024;
using QuicScratch = std::array<std::uint8_t, kQuicMaxPacket>;

struct QuicOpened {
  // As it was sent, without the upper bytes that it was cut by. An Initial's number is taken to be
  // whole: an endpoint would need 256 of them before one byte does not hold it.
  std::uint32_t number = 0;
  std::span<const std::uint8_t> frames;  // in the scratch buffer
};

// Takes the protection off; empty where the tag is wrong. `packet` must have a packet number.
[[nodiscard]] std::optional<QuicOpened> quic_open(const QuicKeys& keys, const QuicPacket& packet,
                                                  QuicScratch& scratch);

// An Initial to be made. `number_length` is 1 to 4.
struct QuicInitial {
  std::uint32_t version = kQuicVersion1;
  std::span<const std::uint8_t> dcid;
  std::span<const std::uint8_t> scid;
  std::span<const std::uint8_t> token;
  std::uint32_t number = 0;
  std::size_t number_length = 1;
};

// The packet with `frames` as its payload, which is padded where it is too short to be protected.
[[nodiscard]] std::vector<std::uint8_t> quic_seal(const QuicKeys& keys, const QuicInitial& initial,
                                                  std::span<const std::uint8_t> frames);

// Appends an integer in as few bytes as hold it, but in no fewer than `at_least`.
void quic_put_varint(std::vector<std::uint8_t>& out, std::uint64_t value, std::size_t at_least = 1);

}  // namespace l7mark
