// SPDX-License-Identifier: GPL-2.0-only
// The hashes that the programs in the kernel find candidates and rings by: strangers choose the
// keys, and know all but the secrets.
#include <gtest/gtest.h>
#include <l7mark/candidates.h>
#include <l7mark/ring.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace l7mark {
namespace {

using Random = std::mt19937_64;

l7m_secrets draw(Random& random) {
  l7m_secrets out{};
  for (auto& word : out.candidate) word = random();
  for (auto& word : out.ring) word = random();
  return out;
}

l7m_key key6() {
  l7m_key key{};
  const std::uint8_t addresses[32] = {0x20, 0x01, 0x0d, 0xb8, 0,    0,    0,    1,    0,    0,   0,
                                      0,    0,    0,    0,    0x10, 0x20, 0x01, 0x0d, 0xb8, 0,   0,
                                      0,    2,    0,    0,    0,    0,    0,    0,    0,    0x20};
  std::memcpy(key.addr, addresses, sizeof(addresses));
  key.port[0] = L7M_BE16(40000);
  key.port[1] = L7M_BE16(443);
  key.protocol = 6;
  return key;
}

l7m_key key4(std::uint32_t client, std::uint32_t server, unsigned client_port,
             unsigned server_port) {
  l7m_key4 key{};
  key.addr[0] = L7M_BE32(client);
  key.addr[1] = L7M_BE32(server);
  key.port[0] = L7M_BE16(static_cast<std::uint16_t>(client_port));
  key.port[1] = L7M_BE16(static_cast<std::uint16_t>(server_port));
  key.protocol = 6;
  l7m_key out;
  l7m_key_from_v4(&key, &out);
  return out;
}

l7m_key flipped(l7m_key key, const std::vector<std::pair<unsigned, unsigned>>& bytes) {
  auto* raw = reinterpret_cast<std::uint8_t*>(&key);
  for (const auto& [at, bits] : bytes) raw[at] = static_cast<std::uint8_t>(raw[at] ^ bits);
  return key;
}

// The hash of candidates before: the seed is XORed into the first words.
std::uint64_t seeded_hash6(const l7m_key& key, std::uint32_t seed) {
  std::uint32_t words[10];
  std::memcpy(words, &key, sizeof(words));
  std::uint64_t h = 0x9e3779b97f4a7c15ULL ^ seed;
  for (int i = 0; i < 10; i += 2) {
    h ^= std::uint64_t{words[i]} << 32 | words[i + 1];
    h *= 0xff51afd7ed558ccdULL;
    h ^= h >> 32;
  }
  return h;
}

struct Pair {
  std::string name;
  l7m_key a, b;
};

// The highest bit of a word of 64 bits stays itself when the word is multiplied, and the shift adds
// one bit more: flipping the two in the next word undoes it, whatever the seed was.
std::vector<Pair> pairs_of_every_seed() {
  const l7m_key key = key6();
  return {
      {"first address", key, flipped(key, {{3, 0x80}, {11, 0x80}, {15, 0x80}})},
      {"both addresses", key, flipped(key, {{11, 0x80}, {19, 0x80}, {23, 0x80}})},
      {"second address", key, flipped(key, {{19, 0x80}, {27, 0x80}, {31, 0x80}})},
      {"port and VLAN", key, flipped(key, {{27, 0x80}, {35, 0x80}, {39, 0x80}})},
  };
}

TEST(CandidateHash, SeededOneHadPairsThatMetForEverySeed) {
  Random random(1);
  for (const Pair& pair : pairs_of_every_seed())
    for (int i = 0; i < 1000; ++i) {
      const auto seed = static_cast<std::uint32_t>(random());
      ASSERT_EQ(seeded_hash6(pair.a, seed), seeded_hash6(pair.b, seed)) << pair.name;
    }
}

TEST(CandidateHash, NoPairMeetsMoreOftenThanByChance) {
  std::vector<Pair> pairs = pairs_of_every_seed();
  const l7m_key plain = key4(0xc0000201, 0xc6336414, 40000, 443);
  pairs.push_back({"next port", plain, key4(0xc0000201, 0xc6336414, 40001, 443)});
  pairs.push_back({"next address", plain, key4(0xc0000202, 0xc6336414, 40000, 443)});
  pairs.push_back({"both ports", plain, key4(0xc0000201, 0xc6336414, 40001, 444)});
  pairs.push_back({"server", plain, key4(0xc0000201, 0xc6336415, 40000, 443)});
  pairs.push_back({"swapped ports", plain, key4(0xc0000201, 0xc6336414, 443, 40000)});
  for (unsigned byte : {0U, 3U, 4U, 15U, 16U, 31U, 32U, 35U, 36U, 39U})
    for (unsigned bit : {0x01U, 0x80U})
      pairs.push_back({"byte " + std::to_string(byte) + " bit " + std::to_string(bit), key6(),
                       flipped(key6(), {{byte, bit}})});
  constexpr std::uint32_t kSets = 1024;
  constexpr int kSecrets = 100 * kSets;
  for (const Pair& pair : pairs) {
    Random random(2);
    int met = 0;
    for (int i = 0; i < kSecrets; ++i) {
      const l7m_secrets secrets = draw(random);
      if (l7m_candidate_set_of(l7m_candidate_hash(&pair.a, &secrets), kSets) ==
          l7m_candidate_set_of(l7m_candidate_hash(&pair.b, &secrets), kSets))
        ++met;
    }
    EXPECT_NEAR(met, 100, 60) << pair.name;  // six standard deviations
  }
}

// A gateway sees ports and addresses in a row.
std::map<std::string, std::function<l7m_key(unsigned)>> families() {
  return {
      {"ports", [](unsigned n) { return key4(0xc0000201, 0xc6336414, 20000 + n, 443); }},
      {"every other port",
       [](unsigned n) { return key4(0xc0000201, 0xc6336414, 20000 + 2 * n, 443); }},
      {"clients", [](unsigned n) { return key4(0x0a000000 + n, 0xc6336414, 40000, 443); }},
      {"networks", [](unsigned n) { return key4(0x0a000001 + (n << 8), 0xc6336414, 40000, 443); }},
      {"clients and ports",
       [](unsigned n) { return key4(0xc0000201 + n % 250, 0xc6336414, 40000 + n / 250, 443); }},
      {"servers' ports", [](unsigned n) { return key4(0xc0000201, 0xc6336414, 40000, n + 1); }},
      {"IPv6 clients",
       [](unsigned n) {
         l7m_key key = key6();
         key.addr[0][3] = L7M_BE32(n + 1);
         return key;
       }},
      {"IPv6 networks",
       [](unsigned n) {
         l7m_key key = key6();
         key.addr[1][1] = L7M_BE32(n + 1);
         return key;
       }},
  };
}

// As many flows as half the table's places: what finds its set full.
TEST(CandidateHash, KeysInARowFillSetsAsRandomOnesDo) {
  constexpr std::uint32_t kSets = 1024;
  constexpr unsigned kFlows = kSets * L7M_WAYS / 2;
  const auto overflow = [](const std::function<std::uint32_t(unsigned)>& set_of) {
    std::vector<unsigned> taken(kSets);
    unsigned out = 0;
    for (unsigned n = 0; n < kFlows; ++n)
      if (++taken[set_of(n)] > L7M_WAYS) ++out;
    return out;
  };
  Random random(3);
  unsigned by_chance = 0;
  for (int i = 0; i < 300; ++i)
    by_chance = std::max(by_chance, overflow([&](unsigned) { return random() % kSets; }));
  for (const auto& [name, key_of] : families()) {
    unsigned most = 0;
    for (int i = 0; i < 300; ++i) {
      const l7m_secrets secrets = draw(random);
      most = std::max(most, overflow([&, &make = key_of](unsigned n) {
                        const l7m_key key = make(n);
                        return l7m_candidate_set_of(l7m_candidate_hash(&key, &secrets), kSets);
                      }));
    }
    EXPECT_LE(most, 2 * by_chance) << name;
  }
}

TEST(CandidateHash, TagsTellTheFlowsOfASetApart) {
  constexpr std::uint32_t kSets = 8192;
  Random random(4);
  for (const auto& [name, key_of] : families()) {
    const l7m_secrets secrets = draw(random);
    std::set<std::pair<std::uint32_t, std::uint32_t>> seen;
    unsigned alike = 0;
    for (unsigned n = 0; n < 20000; ++n) {
      const l7m_key key = key_of(n);
      const std::uint32_t hash = l7m_candidate_hash(&key, &secrets);
      EXPECT_EQ(l7m_candidate_tag(hash) & 0xfU, L7M_TAG_TAKEN);
      if (!seen.emplace(l7m_candidate_set_of(hash, kSets), l7m_candidate_tag(hash)).second) ++alike;
    }
    EXPECT_LE(alike, 20U) << name;  // one of a thousand costs a comparison of keys
  }
}

l7m_packet packet_of(std::uint32_t source, std::uint32_t destination) {
  l7m_packet out{};
  out.version = 4;
  out.protocol = 17;
  out.saddr[3] = L7M_BE32(source);
  out.daddr[3] = L7M_BE32(destination);
  l7m_map_ipv4(&out);
  return out;
}

TEST(Ring, FlowsOfAClientMeet) {
  Random random(5);
  for (int i = 0; i < 100; ++i) {
    const l7m_secrets secrets = draw(random);
    const auto client = static_cast<std::uint32_t>(random());
    l7m_packet first = packet_of(client, 0xc6336414);
    const std::uint32_t ring = l7m_ring_of(&first, 1, 0, 16, &secrets);
    for (unsigned n = 0; n < 100; ++n) {
      const auto server = static_cast<std::uint32_t>(random());
      l7m_packet sent = packet_of(client, server);
      sent.sport = L7M_BE16(static_cast<std::uint16_t>(n));
      l7m_packet answer = packet_of(server, client);
      answer.dport = sent.sport;
      EXPECT_EQ(l7m_ring_of(&sent, 1, 0, 16, &secrets), ring);
      EXPECT_EQ(l7m_ring_of(&answer, 0, 1, 16, &secrets), ring);
      answer.tcp_flags = L7M_TCP_SYN | L7M_TCP_ACK;
      EXPECT_EQ(l7m_ring_of(&answer, 0, 0, 16, &secrets), ring);
    }
    EXPECT_EQ(l7m_ring_of(&first, 1, 0, 1, &secrets), 0U);
  }
}

TEST(Ring, ClientsSpreadAndNobodyKnowsWhere) {
  constexpr std::uint32_t kRings = 4;
  constexpr unsigned kClients = 4096;
  Random random(6);
  // Without a secret, addresses whose words had one XOR came to one ring.
  const auto chosen = [](unsigned n) {
    l7m_packet out = packet_of(0, 0xc6336414);
    out.saddr[0] = L7M_BE32(0x20010db8);
    out.saddr[1] = out.saddr[3] = L7M_BE32(n * 0x9e3779b1U);
    out.saddr[2] = L7M_BE32(7);
    return out;
  };
  const auto in_a_row = [](unsigned n) { return packet_of(0x0a000000 + n, 0xc6336414); };
  for (int i = 0; i < 100; ++i) {
    const l7m_secrets secrets = draw(random);
    unsigned rows[kRings] = {}, others[kRings] = {};
    for (unsigned n = 0; n < kClients; ++n) {
      const l7m_packet row = in_a_row(n), other = chosen(n);
      ++rows[l7m_ring_of(&row, 1, 0, kRings, &secrets)];
      ++others[l7m_ring_of(&other, 1, 0, kRings, &secrets)];
    }
    for (std::uint32_t ring = 0; ring < kRings; ++ring) {
      EXPECT_NEAR(rows[ring], 1024, 256) << ring;
      EXPECT_NEAR(others[ring], 1024, 256) << ring;
    }
  }
  const l7m_packet one = in_a_row(1);
  unsigned found[kRings] = {};
  for (unsigned i = 0; i < 4096; ++i) {
    const l7m_secrets secrets = draw(random);
    ++found[l7m_ring_of(&one, 1, 0, kRings, &secrets)];
  }
  for (const unsigned times : found) EXPECT_NEAR(times, 1024, 170);
}

}  // namespace
}  // namespace l7mark
