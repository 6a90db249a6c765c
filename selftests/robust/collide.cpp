// SPDX-License-Identifier: GPL-2.0-only
#include "collide.hpp"

#include <l7mark/candidates.h>

#include <algorithm>
#include <cstring>

#include "packet.hpp"

namespace l7mark::robust {

namespace {

// Secrets as somebody may have who is not this instance.
l7m_secrets other_secrets() {
  Random random(0x5eed);
  l7m_secrets out{};
  for (__u64& word : out.candidate) word = static_cast<__u64>(random.next()) << 32 | random.next();
  return out;
}

l7m_key key_of(const Tuple& tuple, std::uint8_t protocol) {
  const Endpoint* low = &tuple.from;
  const Endpoint* high = &tuple.to;
  const int order = std::memcmp(high->address.bytes.data(), low->address.bytes.data(), 16);
  if (order < 0 || (order == 0 && high->port < low->port)) std::swap(low, high);
  l7m_key key{};
  std::memcpy(key.addr[0], low->address.bytes.data(), 16);
  std::memcpy(key.addr[1], high->address.bytes.data(), 16);
  key.port[0] = htons(low->port);
  key.port[1] = htons(high->port);
  key.protocol = protocol;
  return key;
}

std::uint32_t bucket_of(const Tuple& tuple, std::uint32_t buckets) {
  static const l7m_secrets secrets = other_secrets();
  const l7m_key key = key_of(tuple, kUdp);
  return l7m_candidate_set_of(l7m_candidate_hash(&key, &secrets), buckets);
}

}  // namespace

std::vector<Tuple> collide_always(const Flow& flow) {
  std::vector<Tuple> out;
  if (flow.v4()) return out;
  // The words of a key as the hash took them: the first of a pair is the upper half. The server's
  // address is the lower one in this lab, and so the first of the key.
  struct Pair {
    std::uint32_t upper, lower;
  };
  // Differences of a pair, and of the next one, that leave the hash as it was: surely for the top
  // bit, by every second key for the one below it.
  constexpr Pair kFirst[] = {{0, 0}, {1U << 31, 0}, {1U << 30, 0}, {1U << 30, 0}};
  constexpr Pair kSecond[] = {
      {0, 0}, {1U << 31, 1U << 31}, {1U << 30, 1U << 30}, {3U << 30, 3U << 30}};
  constexpr unsigned kWays = 4;
  for (unsigned choice = 1; choice < kWays * kWays * kWays; ++choice) {
    Tuple tuple{flow.client, flow.server};
    std::uint32_t words[8];
    std::memcpy(words, tuple.to.address.bytes.data(), 16);
    std::memcpy(words + 4, tuple.from.address.bytes.data(), 16);
    for (unsigned pair = 0, rest = choice; pair < 3; ++pair, rest /= kWays) {
      const unsigned way = rest % kWays;
      words[pair * 2] ^= kFirst[way].upper;
      words[pair * 2 + 1] ^= kFirst[way].lower;
      words[pair * 2 + 2] ^= kSecond[way].upper;
      words[pair * 2 + 3] ^= kSecond[way].lower;
    }
    std::memcpy(tuple.to.address.bytes.data(), words, 16);
    std::memcpy(tuple.from.address.bytes.data(), words + 4, 16);
    out.push_back(tuple);
  }
  return out;
}

std::vector<Tuple> collide_for_a_seed(const Flow& flow, std::uint32_t buckets, unsigned count) {
  Random random(flow.number + 1);
  const std::uint32_t wanted = bucket_of({flow.client, flow.server}, buckets);
  std::vector<Tuple> out;
  while (out.size() < count) {
    Tuple tuple{flow.client, flow.server};
    tuple.from.address.bytes[14] = 129;  // of nobody
    tuple.from.address.bytes[15] = static_cast<std::uint8_t>(random.next());
    tuple.from.port = static_cast<std::uint16_t>(random.next() | 1024);
    tuple.to.address.bytes[15] = static_cast<std::uint8_t>(64 + random.below(64));
    tuple.to.port = static_cast<std::uint16_t>(random.next() | 1024);
    if (bucket_of(tuple, buckets) == wanted) out.push_back(tuple);
  }
  return out;
}

}  // namespace l7mark::robust
