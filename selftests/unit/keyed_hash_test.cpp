// SPDX-License-Identifier: GPL-2.0-only
// Keys that strangers chose for the hashes of before, which had no key or XORed one in: in the
// tables of today they are as any others. What counts is how many entries a look-up passes.
#include "util/keyed_hash.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "daemon/finding.hpp"
#include "daemon/flow_table.hpp"
#include "dpi/answered_flows.hpp"
#include "dpi/flow_pool.hpp"
#include "publish/entries.hpp"

namespace l7mark {
namespace {

constexpr std::uint32_t kMany = 20'000;

std::string bytes_to(std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) out.push_back(static_cast<char>(i));
  return out;
}

// The reference's vectors: texts of the bytes 0, 1, 2, …, for keys of 0, 1, 2, … and of zeros.
TEST(SipHash, IsThatOfTheReference) {
  const HashKey key{{0x0706050403020100, 0x0f0e0d0c0b0a0908}};
  EXPECT_EQ((SipHash<2, 4>::of(key, bytes_to(0))), 0x726fdb47dd0e0e31U);
  EXPECT_EQ((SipHash<2, 4>::of(key, bytes_to(1))), 0x74f839c593dc67fdU);
  EXPECT_EQ((SipHash<2, 4>::of(key, bytes_to(7))), 0xab0200f58b01d137U);
  EXPECT_EQ((SipHash<2, 4>::of(key, bytes_to(8))), 0x93f5f5799a932462U);
  EXPECT_EQ((SipHash<2, 4>::of(key, bytes_to(15))), 0xa129ca6149be45e5U);
  EXPECT_EQ((SipHash<2, 4>::of(key, bytes_to(16))), 0x3f2acc7f57c29bdbU);
  EXPECT_EQ((SipHash<2, 4>::of(key, bytes_to(63))), 0x958a324ceb064572U);
  const HashKey zero{};
  EXPECT_EQ((SipHash<1, 3>::of(zero, bytes_to(0))), 0xd1fba762150c532cU);
  EXPECT_EQ((SipHash<1, 3>::of(zero, bytes_to(1))), 0x68a914128e01e473U);
  EXPECT_EQ((SipHash<1, 3>::of(zero, bytes_to(7))), 0x2f098ab0c751325aU);
  EXPECT_EQ((SipHash<1, 3>::of(zero, bytes_to(8))), 0xead411e67ebe2eeaU);
  EXPECT_EQ((SipHash<1, 3>::of(zero, bytes_to(15))), 0xf30eb725bb91c9eaU);
  EXPECT_EQ((SipHash<1, 3>::of(zero, bytes_to(40))), 0x95bc321ab41d8206U);
  EXPECT_EQ((SipHash<1, 3>::of(zero, bytes_to(63))), 0x385d3e39e5f37359U);
}

TEST(SipHash, TakesWordsAsTheirBytes) {
  if (std::endian::native != std::endian::little) GTEST_SKIP() << "words are the host's";
  const std::uint64_t words[3] = {1, 0x0123456789abcdef, ~0ULL};
  EXPECT_EQ(keyed_hash(words),
            keyed_hash(std::string_view(reinterpret_cast<const char*>(words), sizeof(words))));
  EXPECT_EQ(keyed_hash(std::string_view()), keyed_hash(""));
}

TEST(SipHash, KeyIsDrawn) {
  EXPECT_NE(process_hash_key.words[0], 0U);
  EXPECT_NE(process_hash_key.words[1], 0U);
  EXPECT_NE(process_hash_key.words[0], process_hash_key.words[1]);
}

using Words = std::array<std::uint64_t, 5>;  // of a FlowKey

FlowKey flow_of(const Words& words) {
  FlowKey out;
  std::memcpy(&out.raw, words.data(), sizeof(out.raw));
  return out;
}

// The hash of flows before: `h` was a number that all knew, or a secret one.
std::uint64_t multiplied(std::uint64_t h, std::span<const std::uint64_t> words) {
  for (const std::uint64_t word : words) {
    h = (h ^ word) * 0xff51afd7ed558ccdULL;
    h ^= h >> 32;
  }
  return h;
}
constexpr std::uint64_t kKnownSeed = 0x9e3779b97f4a7c15ULL;

// Many sources; the destination's host part makes up for them.
std::vector<FlowKey> flows_of_one_hash() {
  std::vector<FlowKey> out;
  std::unordered_set<std::uint64_t> hashes;
  for (std::uint64_t n = 0; n < kMany; ++n) {
    Words words = {0xb80d0120, n + 1, 0xb80d0120'00000001, 0, 0x06'bb01'409cULL};
    words[3] = multiplied(kKnownSeed, std::span(words).first(3));
    hashes.insert(multiplied(kKnownSeed, words));
    out.push_back(flow_of(words));
  }
  EXPECT_EQ(hashes.size(), 1U) << "they are not what they should be";
  return out;
}

// Eight each that had one hash for every seed: a word's highest bit stays itself when the word is
// multiplied, the shift adds a bit more, and flipping both in the next word undoes it.
std::vector<FlowKey> flows_that_meet_for_every_seed() {
  constexpr std::uint64_t kFirst = 1ULL << 63, kNext = kFirst | 1ULL << 31;
  std::vector<FlowKey> out;
  std::mt19937_64 random(1);
  while (out.size() < kMany) {
    const Words base = {random(), random(), random(), random(), 0x06'bb01'409cULL};
    const std::uint64_t seed = random();
    for (unsigned mask = 0; mask < 8; ++mask) {
      Words words = base;
      for (unsigned i = 0; i < 3; ++i)
        if ((mask >> i & 1) != 0) {
          words[i] ^= kFirst;
          words[i + 1] ^= kNext;
        }
      EXPECT_EQ(multiplied(seed, words), multiplied(seed, base));
      out.push_back(flow_of(words));
    }
  }
  return out;
}

std::vector<FlowKey> random_flows() {
  std::vector<FlowKey> out;
  std::mt19937_64 random(2);
  while (out.size() < kMany)
    out.push_back(flow_of({random(), random(), random(), random(), 0x06'bb01'409cULL}));
  return out;
}

struct Element : PoolLinks<Element> {
  FlowKey key;
  void reset() {}
};

// Elements that find() passes, on average.
double pool_cost(const std::vector<FlowKey>& flows) {
  FlowPool<Element> pool;
  std::vector<const Element*> elements;
  elements.reserve(flows.size());
  for (const FlowKey& key : flows) elements.push_back(&pool.insert(key));
  // A hundred elements of a long chain are enough to tell.
  std::size_t passed = 0;
  for (const Element* at : elements)
    for (int i = 0; at != nullptr && i < 100; at = at->chain, ++i) ++passed;
  return static_cast<double>(passed) / kMany;
}

double table_cost(const std::vector<FlowKey>& flows) {
  FlowTable table;
  for (const FlowKey& key : flows) table.at(key);
  std::size_t passed = 0;
  for (const FlowKey& key : flows) passed += table.probes(key);
  return static_cast<double>(passed) / kMany;
}

template <class Map>
double bucket_cost(const Map& map) {
  double passed = 0;
  for (std::size_t i = 0; i < map.bucket_count(); ++i)
    passed += static_cast<double>(map.bucket_size(i)) * static_cast<double>(map.bucket_size(i));
  return passed / static_cast<double>(map.size());
}

double map_cost(const std::vector<FlowKey>& flows) {
  std::unordered_map<FlowKey, int> map;
  for (const FlowKey& key : flows) map.emplace(key, 0);
  return bucket_cost(map);
}

TEST(ChosenFlows, CostNoMoreThanOthers) {
  const std::vector<FlowKey> others = random_flows();
  for (const auto& chosen : {flows_of_one_hash(), flows_that_meet_for_every_seed()}) {
    EXPECT_LE(pool_cost(chosen), 2 * pool_cost(others));
    EXPECT_LE(table_cost(chosen), 2 * table_cost(others));
    EXPECT_LE(map_cost(chosen), 2 * map_cost(others));
  }
}

TEST(ChosenFlows, AreNotTakenForAnswered) {
  const std::vector<FlowKey> chosen = flows_of_one_hash();
  AnsweredFlows answered;
  for (std::size_t i = 0; i < 1000; ++i) answered.add(chosen[i], 7);
  std::size_t known = 0;
  for (std::size_t i = 0; i < 1000; ++i) known += answered.contains(chosen[i], 7) ? 1 : 0;
  EXPECT_EQ(known, 1000U) << "pushed out";
  for (std::size_t i = 1000; i < 2000; ++i) EXPECT_FALSE(answered.contains(chosen[i], 7)) << i;
}

constexpr std::uint64_t inverse(std::uint64_t odd) {
  std::uint64_t out = odd;
  for (int i = 0; i < 6; ++i) out *= 2 - odd * out;
  return out;
}

// The halves of an address were multiplied and XORed.
std::vector<Address> addresses_of_one_hash() {
  constexpr std::uint64_t kFirst = 0x9e3779b97f4a7c15ULL, kAdded = 0x7f4a7c159e3779b9ULL,
                          kSecond = 0xbf58476d1ce4e5b9ULL;
  std::vector<Address> out;
  for (std::uint64_t n = 0; n < kMany; ++n) {
    const std::uint64_t halves[2] = {n, (n * kFirst ^ 1) * inverse(kSecond) - kAdded};
    EXPECT_EQ(halves[0] * kFirst ^ (halves[1] + kAdded) * kSecond, 1U);
    std::memcpy(out.emplace_back().bytes.data(), halves, sizeof(halves));
  }
  return out;
}

std::vector<Address> random_addresses() {
  std::vector<Address> out;
  std::mt19937_64 random(3);
  while (out.size() < kMany) {
    const std::uint64_t halves[2] = {random(), random()};
    std::memcpy(out.emplace_back().bytes.data(), halves, sizeof(halves));
  }
  return out;
}

TEST(ChosenAddresses, CostNoMoreThanOthers) {
  const auto map_of = [](const std::vector<Address>& addresses) {
    std::unordered_map<Address, int> out;
    for (const Address& address : addresses) out.emplace(address, 0);
    return out;
  };
  EXPECT_LE(bucket_cost(map_of(addresses_of_one_hash())),
            2 * bucket_cost(map_of(random_addresses())));
  const auto longest = [](const std::vector<Address>& addresses) {
    EntryRegistry entries;
    entries.set_target(0, {});
    for (const Address& address : addresses)
      static_cast<void>(entries.acquire(0, {address, Address(), 443, 6, 0}, 1));
    return entries.longest_bucket();
  };
  EXPECT_LE(longest(addresses_of_one_hash()), 2 * longest(random_addresses()));
}

// The standard library's hash of texts (MurmurHash64A) takes eight bytes at a time. Those that turn
// its highest bit, and those that turn it back, give texts of one hash: two ways for each pair.
std::vector<std::string> texts_of_one_hash() {
  constexpr std::uint64_t kFactor = 0xc6a4a7935bd1e995ULL;
  const auto turned = [](std::uint64_t block) {
    const auto shifted = [](std::uint64_t word) { return word ^ word >> 47; };
    const std::uint64_t data = shifted(block * kFactor) * kFactor ^ 1ULL << 63;
    return shifted(data * inverse(kFactor)) * inverse(kFactor);
  };
  std::vector<std::string> out;
  std::unordered_set<std::size_t> hashes;
  for (std::uint32_t n = 0; n < kMany; ++n) {
    std::string text;
    for (unsigned bit = 0; bit < 15; ++bit)
      for (std::uint64_t block : {std::uint64_t{bit} + 1, std::uint64_t{bit} + 77}) {
        if ((n >> bit & 1) != 0) block = turned(block);
        text.append(reinterpret_cast<const char*>(&block), sizeof(block));
      }
    hashes.insert(std::hash<std::string>()(text));
    out.push_back(std::move(text));
  }
  EXPECT_EQ(hashes.size(), 1U) << "not of libstdc++?";
  return out;
}

std::vector<std::string> random_texts() {
  std::vector<std::string> out;
  std::mt19937_64 random(4);
  while (out.size() < kMany) out.push_back(std::to_string(random()));
  return out;
}

TEST(ChosenTexts, CostNoMoreThanOthers) {
  const auto findings = [](const std::vector<std::string>& texts) {
    std::unordered_map<Finding, int, FindingHash> out;
    for (const std::string& text : texts) {
      Finding finding;
      finding.texts = text;
      out.emplace(std::move(finding), 0);
    }
    return out;
  };
  EXPECT_LE(bucket_cost(findings(texts_of_one_hash())), 2 * bucket_cost(findings(random_texts())));
  const auto names = [](const std::vector<std::string>& texts) {
    return std::unordered_set<std::string, KeyedTextHash>(texts.begin(), texts.end());
  };
  EXPECT_LE(bucket_cost(names(texts_of_one_hash())), 2 * bucket_cost(names(random_texts())));
}

}  // namespace
}  // namespace l7mark
