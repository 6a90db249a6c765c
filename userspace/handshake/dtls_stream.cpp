// SPDX-License-Identifier: GPL-2.0-only
#include "handshake/dtls_stream.hpp"

#include <array>

#include "handshake/byte_reader.hpp"

namespace l7mark {
namespace {

constexpr std::uint8_t kHandshake = 22;
constexpr std::uint8_t kMajorVersion = 0xfe;
constexpr std::uint16_t kFirstCiscoVersion = 0x0100;  // OpenSSL's DTLS1_BAD_VER, of AnyConnect
constexpr std::size_t kRecordHeader = 13;

constexpr std::uint8_t kClientHello = 1;
constexpr std::uint8_t kServerHello = 2;
constexpr std::size_t kMessageHeader = 4;
// A hello is its side's first message, or one of the few behind a request to say it again. Higher
// numbers are none, which also bounds how often a lower one can take a hello's place.
constexpr std::uint16_t kHighestNumber = 3;

}  // namespace

struct DtlsStream::Fragment {
  std::uint8_t type = 0;
  std::size_t length = 0;  // of the whole message, with four bytes of header
  std::uint16_t number = 0;
  std::size_t offset = 0;
  std::span<const std::uint8_t> bytes;
};

void DtlsStream::add(std::span<const std::uint8_t> datagram) {
  ByteReader reader(datagram);
  while (reader.remaining() >= kRecordHeader) {
    const std::uint8_t type = reader.u8();
    const std::uint16_t version = reader.u16();
    const std::uint16_t epoch = reader.u16();
    reader.skip(6);  // sequence number
    const auto record = reader.vector16();
    if (!reader.ok() || (version >> 8 != kMajorVersion && version != kFirstCiscoVersion)) break;
    if (type == kHandshake && epoch == 0 && !read_record(record)) break;
  }
  if (state_ == TlsState::empty && !datagram.empty()) state_ = TlsState::not_tls;
}

// A record may have several fragments. False if it is malformed.
bool DtlsStream::read_record(std::span<const std::uint8_t> record) {
  ByteReader reader(record);
  while (reader.remaining() != 0) {
    Fragment fragment;
    fragment.type = reader.u8();
    const std::size_t length = reader.u24();
    fragment.length = kMessageHeader + length;
    fragment.number = reader.u16();
    fragment.offset = reader.u24();
    fragment.bytes = reader.vector24();
    if (!reader.ok() || fragment.bytes.size() > length ||
        fragment.offset > length - fragment.bytes.size()) {
      return false;
    }
    if (fragment.type == kClientHello || fragment.type == kServerHello) take(fragment);
  }
  return true;
}

void DtlsStream::take(const Fragment& fragment) {
  if (fragment.number < lowest_ || fragment.number > kHighestNumber) return;
  const bool none = state_ == TlsState::empty || state_ == TlsState::not_tls;
  if (none || (fragment.number < number_ && state_ != TlsState::complete)) {
    start(fragment);
  } else if (fragment.number != number_) {
    return;
  } else if (fragment.type != type_ || fragment.length != length_) {
    conflict_ = true;
    return;
  }
  if (state_ == TlsState::overflow) return;
  message_.add(kMessageHeader + fragment.offset, fragment.bytes);
  if (message_.contiguous().size() == length_) state_ = TlsState::complete;
}

void DtlsStream::start(const Fragment& fragment) {
  conflict_ = conflict();
  message_ = Assembly(message_.limit());
  type_ = fragment.type;
  number_ = fragment.number;
  length_ = fragment.length;
  state_ = length_ > message_.limit() ? TlsState::overflow : TlsState::partial;
  if (state_ == TlsState::overflow) return;
  const std::size_t body = length_ - kMessageHeader;
  const std::array<std::uint8_t, kMessageHeader> header = {
      type_, static_cast<std::uint8_t>(body >> 16), static_cast<std::uint8_t>(body >> 8 & 0xff),
      static_cast<std::uint8_t>(body & 0xff)};
  message_.add(0, header);
}

std::span<const std::uint8_t> DtlsStream::message() const {
  if (state_ != TlsState::complete) return {};
  return message_.contiguous();
}

void DtlsStream::next() {
  if (state_ != TlsState::complete) return;
  conflict_ = conflict();
  message_ = Assembly(message_.limit());
  lowest_ = static_cast<std::uint16_t>(number_ + 1);
  state_ = TlsState::empty;
}

}  // namespace l7mark
