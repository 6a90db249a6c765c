// SPDX-License-Identifier: GPL-2.0-only
// A hash for tables whose keys strangers choose: SipHash-1-3 (Aumasson and Bernstein, 2012) under a
// key that the process draws when it starts. libsodium has SipHash-2-4 only, more rounds than
// tables need, and would be one more library in a privileged process for these few lines.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace l7mark {

struct HashKey {
  std::uint64_t words[2];
};

// Drawn before main() runs: the workers' sandbox comes later.
extern const HashKey process_hash_key;

// Rounds after each word, and rounds at the end.
template <int PerWord, int AtEnd>
class SipHash {
 public:
  explicit SipHash(const HashKey& key)
      : v0_(key.words[0] ^ 0x736f6d6570736575ULL),
        v1_(key.words[1] ^ 0x646f72616e646f6dULL),
        v2_(key.words[0] ^ 0x6c7967656e657261ULL),
        v3_(key.words[1] ^ 0x7465646279746573ULL) {}

  void add(std::uint64_t word) {
    v3_ ^= word;
    for (int i = 0; i < PerWord; ++i) round();
    v0_ ^= word;
  }
  // What is left over of a text, fewer than eight bytes, and the length of it all.
  [[nodiscard]] std::uint64_t finish(std::uint64_t rest, std::size_t length) {
    add(rest | std::uint64_t{length} << 56);
    v2_ ^= 0xff;
    for (int i = 0; i < AtEnd; ++i) round();
    return v0_ ^ v1_ ^ v2_ ^ v3_;
  }

  [[nodiscard]] static std::uint64_t of(const HashKey& key, std::string_view text) {
    SipHash hash(key);
    std::size_t at = 0;
    for (; at + sizeof(std::uint64_t) <= text.size(); at += sizeof(std::uint64_t))
      hash.add(load(text.substr(at, sizeof(std::uint64_t))));
    return hash.finish(load(text.substr(at)), text.size());
  }

 private:
  static std::uint64_t load(std::string_view bytes) {
    std::uint64_t out = 0;
    if (!bytes.empty()) std::memcpy(&out, bytes.data(), bytes.size());
    return std::endian::native == std::endian::little ? out : __builtin_bswap64(out);
  }
  void round() {
    v0_ += v1_;
    v2_ += v3_;
    v1_ = std::rotl(v1_, 13) ^ v0_;
    v3_ = std::rotl(v3_, 16) ^ v2_;
    v0_ = std::rotl(v0_, 32);
    v2_ += v1_;
    v0_ += v3_;
    v1_ = std::rotl(v1_, 17) ^ v2_;
    v3_ = std::rotl(v3_, 21) ^ v0_;
    v2_ = std::rotl(v2_, 32);
  }

  std::uint64_t v0_, v1_, v2_, v3_;
};

[[nodiscard]] inline std::uint64_t keyed_hash(std::string_view text) {
  return SipHash<1, 3>::of(process_hash_key, text);
}

// Words are in the order of the host: no hash leaves the process.
template <std::size_t N>
[[nodiscard]] std::uint64_t keyed_hash(const std::uint64_t (&words)[N]) {
  SipHash<1, 3> hash(process_hash_key);
  for (const std::uint64_t word : words) hash.add(word);
  return hash.finish(0, sizeof(words));
}

// The key is a plain structure without padding.
template <class Key>
[[nodiscard]] std::uint64_t keyed_hash_of(const Key& key) {
  static_assert(sizeof(key) % sizeof(std::uint64_t) == 0);
  std::uint64_t words[sizeof(key) / sizeof(std::uint64_t)];
  std::memcpy(words, &key, sizeof(words));
  return keyed_hash(words);
}

// For tables of texts.
struct KeyedTextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return keyed_hash(text); }
};

}  // namespace l7mark
