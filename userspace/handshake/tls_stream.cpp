// SPDX-License-Identifier: GPL-2.0-only
#include "handshake/tls_stream.hpp"

#include <algorithm>

#include "handshake/byte_reader.hpp"

namespace l7mark {
namespace {

constexpr std::uint8_t kChangeCipherSpec = 20;
constexpr std::uint8_t kHandshake = 22;
constexpr std::uint8_t kMajorVersion = 3;
constexpr std::uint8_t kLastMinorVersion = 4;
constexpr std::size_t kRecordHeader = 5;
constexpr std::size_t kMaxFragment = 16384;  // RFC 8446, 5.1

constexpr std::uint8_t kClientHello = 1;
constexpr std::uint8_t kServerHello = 2;
// The shortest hello has a version, a random, an empty session id, a cipher and a compression.
constexpr std::size_t kShortestHello = 2 + 32 + 1 + 2 + 1;

}  // namespace

void TlsStream::begin(std::uint32_t sequence) {
  if (begun_) return;
  begun_ = true;
  first_ = sequence;
}

void TlsStream::add(std::uint32_t sequence, std::span<const std::uint8_t> bytes) {
  if (bytes.empty() || state_ == TlsState::not_tls || state_ == TlsState::overflow) return;
  if (!begun_) {
    begin(sequence);
    // No bytes are kept of the many flows that have nothing to do with TLS.
    if (bytes[0] != kHandshake) {
      state_ = TlsState::not_tls;
      return;
    }
  }
  // Sequence numbers wrap around (RFC 9293, 3.4): only the distance counts.
  const std::int64_t offset = static_cast<std::int32_t>(sequence - first_);
  if (offset < 0) {
    const auto before = static_cast<std::size_t>(-offset);
    if (before >= bytes.size()) return;
    bytes_.add(0, bytes.subspan(before));
  } else {
    bytes_.add(static_cast<std::size_t>(offset), bytes);
  }
  if (state_ == TlsState::empty && bytes_.end() > record_) state_ = TlsState::partial;
  advance();
}

void TlsStream::advance() {
  const std::size_t there = bytes_.contiguous().size();
  while (state_ == TlsState::partial) {
    if (record_end_ == 0 && !read_record_header()) break;
    const std::size_t available = std::min(record_end_, there);
    if (length_ == 0) read_message_header(available);
    if (length_ != 0 && state_ == TlsState::partial) {
      const std::size_t step = std::min(available - position_, length_ - taken_);
      position_ += step;
      taken_ += step;
      if (taken_ == length_) {
        finish();
        return;
      }
    }
    if (position_ < record_end_) break;
    record_ = record_end_;
    record_end_ = 0;
    if (taken_ == 0) first_record_ = record_;
  }
  if (state_ == TlsState::partial && there == bytes_.limit()) state_ = TlsState::overflow;
}

// False if the header is not all there, or is none of a record with a hello. Each byte is judged as
// it comes, so that other protocols are told apart early.
bool TlsStream::read_record_header() {
  const auto data = bytes_.contiguous();
  if (data.size() <= record_) return false;
  const auto header = data.subspan(record_);
  const bool change = header[0] == kChangeCipherSpec && later_ && taken_ == 0;
  bool possible = change || header[0] == kHandshake;
  if (header.size() > 1 && header[1] != kMajorVersion) possible = false;
  if (header.size() > 2 && header[2] > kLastMinorVersion) possible = false;
  std::size_t length = 0;
  if (header.size() > 3) {
    const std::size_t high = header[3];
    if (high > kMaxFragment >> 8) possible = false;
    if (header.size() > 4) {
      length = high << 8 | header[4];
      // Handshake fragments are never empty (RFC 8446, 5.1).
      if (length == 0 || length > kMaxFragment || (change && length != 1)) possible = false;
    }
  }
  if (!possible) {
    state_ = TlsState::not_tls;
    return false;
  }
  if (header.size() < kRecordHeader) return false;
  record_end_ = record_ + kRecordHeader + length;
  position_ = change ? record_end_ : record_ + kRecordHeader;
  return true;
}

// Type and length of the message, which may be cut apart by records too.
void TlsStream::read_message_header(std::size_t available) {
  while (position_ < available && taken_ < kMessageHeader) {
    header_[taken_++] = bytes_.contiguous()[position_++];
    if (header_[0] != kClientHello && header_[0] != kServerHello) {
      state_ = TlsState::not_tls;
      return;
    }
  }
  if (taken_ < kMessageHeader) return;
  ByteReader reader(header_);
  reader.skip(1);
  const std::size_t body = reader.u24();
  length_ = kMessageHeader + body;
  if (body < kShortestHello) {
    state_ = TlsState::not_tls;
  } else if (first_record_ + kRecordHeader + length_ > bytes_.limit()) {
    state_ = TlsState::overflow;
  }
}

void TlsStream::finish() {
  state_ = TlsState::complete;
  if (record_ == first_record_) return;
  joined_.reserve(length_);
  ByteReader reader(bytes_.contiguous().subspan(first_record_));
  while (joined_.size() < length_) {
    reader.skip(kRecordHeader - 2);
    const std::size_t size = std::min<std::size_t>(reader.u16(), length_ - joined_.size());
    const auto fragment = reader.take(size);
    if (!reader.ok()) return;
    joined_.insert(joined_.end(), fragment.begin(), fragment.end());
  }
}

std::span<const std::uint8_t> TlsStream::message() const {
  if (state_ != TlsState::complete) return {};
  if (!joined_.empty()) return joined_;
  return bytes_.contiguous().subspan(first_record_ + kRecordHeader, length_);
}

std::size_t TlsStream::flight_length() const {
  if (state_ != TlsState::complete) return 0;
  return std::min(record_end_, bytes_.contiguous().size());
}

void TlsStream::next() {
  if (state_ != TlsState::complete) return;
  later_ = true;
  first_record_ = record_ = record_end_;
  record_end_ = position_ = taken_ = length_ = 0;
  joined_.clear();
  state_ = bytes_.end() > record_ ? TlsState::partial : TlsState::empty;
  advance();
}

}  // namespace l7mark
