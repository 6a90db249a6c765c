// SPDX-License-Identifier: GPL-2.0-only
// Collects the ClientHello of one QUIC connection from the Initials of its client, however they are
// split, reordered, repeated or scrambled, and makes one packet of it that a reader of single
// packets understands.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "handshake/assembly.hpp"
#include "handshake/quic_keys.hpp"
#include "handshake/quic_packet.hpp"

namespace l7mark {

enum class QuicHelloState : std::uint8_t {
  not_quic,         // nothing added had a QUIC long header
  unknown_version,  // QUIC by all signs, of a version whose Initials can't be opened; may change
  collecting,
  complete,
  failed,   // no ClientHello in it, or no packet could be opened time and again
  overflow  // longer than the limit
};

// The work for one datagram is bounded by the constants in quic_hello.cpp, the memory by the limit.
class QuicHello {
 public:
  static constexpr std::size_t kDefaultLimit = std::size_t{16} * 1024;

  // `limit`: most bytes of the client's CRYPTO stream.
  explicit QuicHello(std::size_t limit = kDefaultLimit) : stream_(limit) {}

  // Takes the payload of a UDP packet that the client sent. After complete, failed or overflow
  // nothing is read any more.
  QuicHelloState add(std::span<const std::uint8_t> datagram);

  [[nodiscard]] QuicHelloState state() const { return state_; }
  // Version of the connection's first Initial, or the last one that is not known; 0 before.
  [[nodiscard]] std::uint32_t version() const { return version_; }
  // The destination connection id that the keys come from.
  [[nodiscard]] std::span<const std::uint8_t> dcid() const { return dcid_.bytes(); }
  // The ClientHello with the four bytes of its header; empty unless complete.
  [[nodiscard]] std::span<const std::uint8_t> message() const;
  // Two copies of a byte differed; the first one was kept.
  [[nodiscard]] bool conflict() const { return stream_.conflict(); }
  // Complete by the very first packet alone, with all of the hello in its first frame: nDPI 4.2
  // reads such a packet by itself.
  [[nodiscard]] bool is_plain() const { return plain_; }

  // A UDP payload of one Initial of this connection that has the whole hello in its first frame;
  // empty unless complete. It is made as one of version 1, whatever the connection's own is, for
  // readers that know no other: nDPI 4.2 knows neither version 2 nor the last drafts. `version`
  // must be one that quic_protection() knows.
  [[nodiscard]] std::vector<std::uint8_t> sealed_initial(
      std::uint32_t version = kQuicVersion1) const;

 private:
  struct Budget;
  // A connection id that outlives its datagram.
  struct ConnectionId {
    std::array<std::uint8_t, kQuicMaxConnectionId> data{};
    std::uint8_t size = 0;

    void assign(std::span<const std::uint8_t> id);
    [[nodiscard]] std::span<const std::uint8_t> bytes() const {
      return std::span(data).first(size);
    }
  };

  void add_initial(const QuicPacket& packet, Budget& budget, QuicScratch& scratch, bool is_first);
  [[nodiscard]] std::optional<QuicOpened> open(const QuicPacket& packet, Budget& budget,
                                               QuicScratch& scratch);
  void start(const QuicPacket& packet, const QuicKeys& keys);
  void read_frames(std::span<const std::uint8_t> frames, Budget& budget, bool is_first);
  void look();
  [[nodiscard]] bool is_final() const {
    return state_ == QuicHelloState::complete || state_ == QuicHelloState::failed ||
           state_ == QuicHelloState::overflow;
  }

  QuicHelloState state_ = QuicHelloState::not_quic;
  bool plain_ = false;
  bool started_ = false;       // the three below and the keys are set
  bool seen_ = false;          // there was a datagram
  std::uint8_t failures_ = 0;  // packets that could not be opened
  std::uint32_t version_ = 0;
  ConnectionId dcid_;
  ConnectionId scid_;
  std::vector<std::uint8_t> token_;
  QuicKeys keys_;
  Assembly stream_;
};

}  // namespace l7mark
