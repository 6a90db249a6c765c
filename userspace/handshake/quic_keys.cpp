// SPDX-License-Identifier: GPL-2.0-only
#include "handshake/quic_keys.hpp"

#include <nettle/aes.h>
#include <nettle/gcm.h>
#include <nettle/hkdf.h>
#include <nettle/hmac.h>
#include <nettle/memops.h>

#include <algorithm>
#include <string_view>

namespace l7mark {
namespace {

constexpr std::size_t kTag = GCM_DIGEST_SIZE;
constexpr std::size_t kSampleOffset = 4;  // from the packet number on (RFC 9001, 5.4.2)
constexpr std::size_t kSample = AES_BLOCK_SIZE;

using Salt = std::array<std::uint8_t, 20>;
using Secret = std::array<std::uint8_t, SHA256_DIGEST_SIZE>;

// draft-ietf-quic-tls-23 and -29, 5.2; RFC 9001, 5.2; RFC 9369, 3.3.1.
constexpr Salt kDraft23Salt{0xc3, 0xee, 0xf7, 0x12, 0xc7, 0x2e, 0xbb, 0x5a, 0x11, 0xa7,
                            0xd2, 0x43, 0x2b, 0xb4, 0x63, 0x65, 0xbe, 0xf9, 0xf5, 0x02};
constexpr Salt kDraft29Salt{0xaf, 0xbf, 0xec, 0x28, 0x99, 0x93, 0xd2, 0x4c, 0x9e, 0x97,
                            0x86, 0xf1, 0x9c, 0x61, 0x11, 0xe0, 0x43, 0x90, 0xa8, 0x99};
constexpr Salt kVersion1Salt{0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17,
                             0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a};
constexpr Salt kVersion2Salt{0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93,
                             0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e, 0xd9};

const Salt& salt_of(QuicProtection protection) {
  switch (protection) {
    case QuicProtection::draft23:
      return kDraft23Salt;
    case QuicProtection::draft29:
      return kDraft29Salt;
    case QuicProtection::version2:
      return kVersion2Salt;
    case QuicProtection::version1:
    case QuicProtection::unknown:
      break;
  }
  return kVersion1Salt;
}

void hmac_update(void* context, std::size_t length, const std::uint8_t* data) {
  hmac_sha256_update(static_cast<hmac_sha256_ctx*>(context), length, data);
}
void hmac_digest(void* context, std::size_t length, std::uint8_t* digest) {
  hmac_sha256_digest(static_cast<hmac_sha256_ctx*>(context), length, digest);
}

// HKDF-Expand-Label of TLS 1.3 with an empty context (RFC 8446, 7.1).
template <std::size_t Length>
void expand(hmac_sha256_ctx& secret, std::string_view label,
            std::array<std::uint8_t, Length>& out) {
  constexpr std::string_view kPrefix = "tls13 ";
  std::array<std::uint8_t, 32> info{};
  info[1] = Length;
  info[2] = static_cast<std::uint8_t>(kPrefix.size() + label.size());
  auto end = std::copy(kPrefix.begin(), kPrefix.end(), info.begin() + 3);
  end = std::copy(label.begin(), label.end(), end);
  const auto size = static_cast<std::size_t>(end - info.begin()) + 1;
  hkdf_expand(&secret, hmac_update, hmac_digest, SHA256_DIGEST_SIZE, size, info.data(), Length,
              out.data());
}

hmac_sha256_ctx keyed(std::span<const std::uint8_t> key) {
  hmac_sha256_ctx context{};
  hmac_sha256_set_key(&context, key.size(), key.data());
  return context;
}

std::array<std::uint8_t, kSample> header_mask(const QuicKeys& keys, const std::uint8_t* sample) {
  aes128_ctx cipher{};
  aes128_set_encrypt_key(&cipher, keys.header.data());
  std::array<std::uint8_t, kSample> mask{};
  aes128_encrypt(&cipher, mask.size(), mask.data(), sample);
  return mask;
}

// The cipher, ready for the payload: nonce and authenticated header are in (RFC 9001, 5.3).
void start(gcm_aes128_ctx& cipher, const QuicKeys& keys, std::uint32_t number,
           std::span<const std::uint8_t> header) {
  std::array<std::uint8_t, GCM_IV_SIZE> nonce = keys.iv;
  for (std::size_t i = 0; i < 4; ++i)
    nonce[nonce.size() - 1 - i] ^= static_cast<std::uint8_t>(number >> 8 * i);
  gcm_aes128_set_key(&cipher, keys.key.data());
  gcm_aes128_set_iv(&cipher, nonce.size(), nonce.data());
  gcm_aes128_update(&cipher, header.size(), header.data());
}

void put_bytes(std::vector<std::uint8_t>& out, std::span<const std::uint8_t> bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

}  // namespace

QuicKeys quic_initial_keys(QuicProtection protection, std::span<const std::uint8_t> dcid,
                           QuicSide side) {
  hmac_sha256_ctx context = keyed(salt_of(protection));
  Secret initial{};
  hkdf_extract(&context, hmac_update, hmac_digest, SHA256_DIGEST_SIZE, dcid.size(), dcid.data(),
               initial.data());
  context = keyed(initial);
  Secret secret{};
  expand(context, side == QuicSide::client ? "client in" : "server in", secret);

  context = keyed(secret);
  const bool second = protection == QuicProtection::version2;
  QuicKeys keys;
  expand(context, second ? "quicv2 key" : "quic key", keys.key);
  expand(context, second ? "quicv2 iv" : "quic iv", keys.iv);
  expand(context, second ? "quicv2 hp" : "quic hp", keys.header);
  return keys;
}

std::optional<QuicOpened> quic_open(const QuicKeys& keys, const QuicPacket& packet,
                                    QuicScratch& scratch) {
  const auto bytes = packet.bytes;
  if (packet.number_offset == 0 || bytes.size() > scratch.size() ||
      bytes.size() < packet.number_offset + kSampleOffset + kSample)
    return std::nullopt;
  const auto mask = header_mask(keys, bytes.data() + packet.number_offset + kSampleOffset);
  const auto first = static_cast<std::uint8_t>(bytes[0] ^ (mask[0] & 0x0f));
  const std::size_t number_length = (first & 3U) + 1;
  const std::size_t header_size = packet.number_offset + number_length;

  // The header as it was before its protection is authenticated together with the payload.
  std::copy_n(bytes.begin(), header_size, scratch.begin());
  scratch[0] = first;
  QuicOpened opened;
  for (std::size_t i = 0; i < number_length; ++i) {
    std::uint8_t& byte = scratch[packet.number_offset + i];
    byte = static_cast<std::uint8_t>(byte ^ mask[1 + i]);
    opened.number = opened.number << 8 | byte;
  }
  const std::span<std::uint8_t> out = scratch;
  const std::size_t size = bytes.size() - header_size - kTag;
  gcm_aes128_ctx cipher;
  start(cipher, keys, opened.number, out.first(header_size));
  gcm_aes128_decrypt(&cipher, size, out.data() + header_size, bytes.data() + header_size);
  std::array<std::uint8_t, kTag> tag{};
  gcm_aes128_digest(&cipher, tag.size(), tag.data());
  if (memeql_sec(tag.data(), bytes.data() + header_size + size, tag.size()) == 0)
    return std::nullopt;
  opened.frames = out.subspan(header_size, size);
  return opened;
}

std::vector<std::uint8_t> quic_seal(const QuicKeys& keys, const QuicInitial& initial,
                                    std::span<const std::uint8_t> frames) {
  // The sample must lie within the packet (RFC 9001, 5.4.2); PADDING frames are zeros.
  const std::size_t padded = std::max(frames.size(), kSampleOffset - initial.number_length);
  const bool second = quic_protection(initial.version) == QuicProtection::version2;
  std::vector<std::uint8_t> out;
  out.reserve(80 + initial.token.size() + padded);
  out.push_back(
      static_cast<std::uint8_t>((second ? 0xd0U : 0xc0U) | ((initial.number_length - 1) & 3)));
  for (int shift = 24; shift >= 0; shift -= 8)
    out.push_back(static_cast<std::uint8_t>(initial.version >> shift));
  out.push_back(static_cast<std::uint8_t>(initial.dcid.size()));
  put_bytes(out, initial.dcid);
  out.push_back(static_cast<std::uint8_t>(initial.scid.size()));
  put_bytes(out, initial.scid);
  quic_put_varint(out, initial.token.size());
  put_bytes(out, initial.token);
  // Two bytes, as nearly all clients send the length.
  quic_put_varint(out, initial.number_length + padded + kTag, 2);
  const std::size_t number_offset = out.size();
  for (std::size_t i = initial.number_length; i > 0; --i)
    out.push_back(static_cast<std::uint8_t>(initial.number >> 8 * (i - 1)));
  const std::size_t header_size = out.size();
  put_bytes(out, frames);
  out.resize(header_size + padded + kTag);

  gcm_aes128_ctx cipher;
  start(cipher, keys, initial.number, std::span<const std::uint8_t>(out).first(header_size));
  std::uint8_t* payload = out.data() + header_size;
  gcm_aes128_encrypt(&cipher, padded, payload, payload);
  gcm_aes128_digest(&cipher, kTag, payload + padded);
  const auto mask = header_mask(keys, out.data() + number_offset + kSampleOffset);
  out[0] = static_cast<std::uint8_t>(out[0] ^ (mask[0] & 0x0f));
  for (std::size_t i = 0; i < initial.number_length; ++i)
    out[number_offset + i] = static_cast<std::uint8_t>(out[number_offset + i] ^ mask[1 + i]);
  return out;
}

void quic_put_varint(std::vector<std::uint8_t>& out, std::uint64_t value, std::size_t at_least) {
  unsigned power = 0;
  while (power < 3 && ((std::size_t{1} << power) < at_least ||
                       value >> (8 * (std::size_t{1} << power) - 2) != 0))
    ++power;
  const std::size_t size = std::size_t{1} << power;
  for (std::size_t i = size; i > 0; --i) {
    const auto byte = static_cast<std::uint8_t>(value >> 8 * (i - 1));
    out.push_back(i == size ? static_cast<std::uint8_t>((byte & 0x3f) | power << 6) : byte);
  }
}

}  // namespace l7mark
