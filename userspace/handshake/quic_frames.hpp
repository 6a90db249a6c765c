// SPDX-License-Identifier: GPL-2.0-only
// The frames of an Initial packet (RFC 9000, 17.2.2 and 19): CRYPTO is handed out, the others that
// may stand there (PADDING, PING, ACK, CONNECTION_CLOSE) are passed over.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "handshake/byte_reader.hpp"

namespace l7mark {

struct QuicCrypto {
  std::uint64_t offset = 0;
  std::span<const std::uint8_t> data;
  bool leads = false;  // nothing stands before it in the packet
};

class QuicFrameReader {
 public:
  // `budget` is how many frames may still be read; it goes down with each. A run of PADDING
  // is one, a range in an ACK is one more.
  QuicFrameReader(std::span<const std::uint8_t> frames, unsigned& budget)
      : reader_(frames), budget_(budget) {}

  // The next CRYPTO frame. Empty at the end, where the budget is used up, and at what is malformed
  // or may not stand in an Initial.
  [[nodiscard]] std::optional<QuicCrypto> next();

 private:
  void skip_padding();
  void skip_ack(bool with_ecn);
  void skip_close(bool by_transport);

  ByteReader reader_;
  unsigned& budget_;
};

// The size, its header included, of the TLS handshake message that a CRYPTO stream begins with (RFC
// 8446, 4); 0 while its header is not there.
[[nodiscard]] std::size_t quic_message_size(std::span<const std::uint8_t> stream);

}  // namespace l7mark
