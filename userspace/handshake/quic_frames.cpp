// SPDX-License-Identifier: GPL-2.0-only
#include "handshake/quic_frames.hpp"

#include <algorithm>

#include "handshake/quic_packet.hpp"

namespace l7mark {
namespace {

constexpr std::uint64_t kPadding = 0x00;
constexpr std::uint64_t kPing = 0x01;
constexpr std::uint64_t kAck = 0x02;
constexpr std::uint64_t kAckEcn = 0x03;
constexpr std::uint64_t kCrypto = 0x06;
constexpr std::uint64_t kCloseTransport = 0x1c;
constexpr std::uint64_t kCloseApplication = 0x1d;

}  // namespace

std::optional<QuicCrypto> QuicFrameReader::next() {
  while (reader_.remaining() > 0 && budget_ > 0) {
    --budget_;
    const bool leads = reader_.position() == 0;
    switch (quic_varint(reader_)) {
      case kPadding:
        skip_padding();
        break;
      case kPing:
        break;
      case kAck:
        skip_ack(false);
        break;
      case kAckEcn:
        skip_ack(true);
        break;
      case kCrypto: {
        QuicCrypto crypto;
        crypto.offset = quic_varint(reader_);
        crypto.data = reader_.take(quic_varint(reader_));
        crypto.leads = leads;
        if (!reader_.ok()) return std::nullopt;
        return crypto;
      }
      case kCloseTransport:
        skip_close(true);
        break;
      case kCloseApplication:
        skip_close(false);
        break;
      default:
        reader_.fail();
    }
  }
  return std::nullopt;
}

void QuicFrameReader::skip_padding() {
  const auto rest = reader_.rest();
  const auto end =
      std::find_if(rest.begin(), rest.end(), [](std::uint8_t byte) { return byte != 0; });
  reader_.skip(static_cast<std::uint64_t>(end - rest.begin()));
}

// RFC 9000, 19.3. A range counts as a frame: a packet of nothing but ranges would cost as much.
void QuicFrameReader::skip_ack(bool with_ecn) {
  (void)quic_varint(reader_);  // largest acknowledged
  (void)quic_varint(reader_);  // delay
  const std::uint64_t ranges = quic_varint(reader_);
  (void)quic_varint(reader_);  // first range
  for (std::uint64_t i = 0; i < ranges && reader_.ok(); ++i) {
    if (budget_ == 0) return reader_.fail();
    --budget_;
    (void)quic_varint(reader_);  // gap
    (void)quic_varint(reader_);  // length
  }
  for (int i = 0; with_ecn && i < 3; ++i) (void)quic_varint(reader_);
}

// RFC 9000, 19.19.
void QuicFrameReader::skip_close(bool by_transport) {
  (void)quic_varint(reader_);                    // error code
  if (by_transport) (void)quic_varint(reader_);  // type of the frame that was wrong
  reader_.skip(quic_varint(reader_));            // reason
}

std::size_t quic_message_size(std::span<const std::uint8_t> stream) {
  ByteReader reader(stream);
  reader.u8();
  const std::size_t length = reader.u24();
  return reader.ok() ? reader.position() + length : 0;
}

}  // namespace l7mark
