// SPDX-License-Identifier: GPL-2.0-only
// Reassembles one direction of a TCP connection from copied segments, as far as needed for its
// hello, and takes that out of the TLS records (RFC 8446, 5.1), of which it may fill several.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "handshake/assembly.hpp"
#include "handshake/tls_state.hpp"

namespace l7mark {

class TlsStream {
 public:
  // Allocates nothing before there are bytes to keep.
  explicit TlsStream(std::size_t limit = kHandshakeLimit) : bytes_(limit) {}

  // The sequence number of the first payload byte (the SYN's plus 1), where the SYN was seen.
  // Without it the first segment begins the stream. Has no effect once the stream has begun.
  void begin(std::uint32_t sequence);

  // A segment's payload. Any order, repeated, overlapping; all outside of the limit is ignored, and
  // everything once the state is not_tls or overflow.
  void add(std::uint32_t sequence, std::span<const std::uint8_t> bytes);

  // The bytes from the beginning up to the first hole, whatever the state. Never becomes shorter.
  // Valid until the next add(), as message() is.
  [[nodiscard]] std::span<const std::uint8_t> contiguous() const { return bytes_.contiguous(); }
  [[nodiscard]] std::uint32_t first_sequence() const { return first_; }
  // Bytes of memory that the stream's take, those behind a hole included.
  [[nodiscard]] std::size_t kept() const { return bytes_.end(); }
  // Two copies of a byte differed.
  [[nodiscard]] bool conflict() const { return bytes_.conflict(); }

  [[nodiscard]] TlsState state() const { return state_; }
  // The hello with its four bytes of type and length, without record headers. Empty unless the
  // state is complete.
  [[nodiscard]] std::span<const std::uint8_t> message() const;
  // Bytes of contiguous() up to the end of the record in which the hello ended, or as far as that
  // record is there; 0 unless the state is complete.
  [[nodiscard]] std::size_t flight_length() const;

  // Goes on to the hello behind this one, which a HelloRetryRequest asks for: from the next record
  // on, past a ChangeCipherSpec (RFC 8446, D.4). The state is not_tls if something else follows.
  // Has no effect unless the state is complete.
  void next();

 private:
  static constexpr std::size_t kMessageHeader = 4;

  void advance();
  bool read_record_header();
  void read_message_header(std::size_t available);
  void finish();

  Assembly bytes_;
  std::uint32_t first_ = 0;
  bool begun_ = false;
  bool later_ = false;  // the message looked for is not the stream's first
  TlsState state_ = TlsState::empty;

  std::size_t first_record_ = 0;  // offset of the record in which the message begins
  std::size_t record_ = 0;        // offset of the record that is read now
  std::size_t record_end_ = 0;    // behind that record; 0 while its header is not read
  std::size_t position_ = 0;      // of the next byte to read of it
  std::size_t taken_ = 0;         // bytes of the message read so far
  std::size_t length_ = 0;        // of the message with its header; 0 while that is not read
  std::array<std::uint8_t, kMessageHeader> header_{};
  std::vector<std::uint8_t> joined_;  // the message, if it fills several records
};

}  // namespace l7mark
