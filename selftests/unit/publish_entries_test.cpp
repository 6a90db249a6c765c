// SPDX-License-Identifier: GPL-2.0-only
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>

#include "publish/entries.hpp"

namespace l7mark {
namespace {

using Kind = EntryDelta::Kind;

SetEntry entry(const char* server, std::uint16_t port, const char* client,
               std::uint8_t protocol = IPPROTO_TCP) {
  return {*Address::parse(server), *Address::parse(client), port, protocol, 0};
}

const SetEntry kZoom = entry("198.51.100.7", 443, "192.0.2.10");
constexpr Milliseconds kStart = 1'000'000;

class Entries : public testing::Test {
 protected:
  void use(std::uint32_t timeout, bool remove_at_end = false) {
    registry_.set_target(0, {timeout, remove_at_end});
  }
  std::vector<EntryDelta> take(Milliseconds now) {
    registry_.advance(now);
    std::vector<EntryDelta> out;
    registry_.take(out, now);
    return out;
  }
  EntryRegistry registry_;
};

TEST_F(Entries, FirstFlowAddsAndParallelOnesShare) {
  use(600);
  const EntryId first = registry_.acquire(0, kZoom, kStart);
  const EntryId second = registry_.acquire(0, kZoom, kStart);
  EXPECT_EQ(first, second);
  const auto deltas = take(kStart);
  ASSERT_EQ(deltas.size(), 1U);
  EXPECT_EQ(deltas[0].kind, Kind::add);
  EXPECT_EQ(deltas[0].entry.timeout, 600U);
  EXPECT_EQ(deltas[0].entry.server, kZoom.server);
  EXPECT_EQ(deltas[0].entry.port, 443);
  EXPECT_TRUE(take(kStart + 1000).empty());
}

TEST_F(Entries, EveryFieldTellsEntriesApart) {
  use(600);
  registry_.set_target(1, {600, false});
  registry_.acquire(0, kZoom, kStart);
  registry_.acquire(0, entry("198.51.100.8", 443, "192.0.2.10"), kStart);
  registry_.acquire(0, entry("198.51.100.7", 444, "192.0.2.10"), kStart);
  registry_.acquire(0, entry("198.51.100.7", 443, "192.0.2.11"), kStart);
  registry_.acquire(0, entry("198.51.100.7", 443, "192.0.2.10", IPPROTO_UDP), kStart);
  registry_.acquire(1, kZoom, kStart);
  EXPECT_EQ(take(kStart).size(), 6U);
}

TEST_F(Entries, DeletesOnlyWithTheLastFlow) {
  use(600, true);
  const EntryId id = registry_.acquire(0, kZoom, kStart);
  registry_.acquire(0, kZoom, kStart);
  take(kStart);
  registry_.release(id);
  EXPECT_TRUE(take(kStart + 1000).empty());
  registry_.release(id);
  const auto deltas = take(kStart + 2000);
  ASSERT_EQ(deltas.size(), 1U);
  EXPECT_EQ(deltas[0].kind, Kind::remove);
  EXPECT_EQ(deltas[0].id, kNoEntry);
  EXPECT_EQ(registry_.size(), 0U);
}

TEST_F(Entries, ActiveFlowIsRefreshedInTimeAndNotMoreOftenThanNeeded) {
  use(100);
  const EntryId id = registry_.acquire(0, kZoom, kStart);
  Milliseconds expires = kStart + take(kStart)[0].entry.timeout * 1000;
  unsigned refreshes = 0;
  for (Milliseconds now = kStart; now < kStart + 1'000'000; now += 5'000) {
    registry_.seen(id, now, now);
    for (const EntryDelta& delta : take(now)) {
      EXPECT_EQ(delta.kind, Kind::refresh);
      EXPECT_LE(expires - now, 50'000U);
      expires = now + delta.entry.timeout * 1000;
      ++refreshes;
    }
    ASSERT_GT(expires, now) << "expired under a live flow";
  }
  EXPECT_GE(refreshes, 10U);
  EXPECT_LE(refreshes, 20U);
}

TEST_F(Entries, LifeIsCountedFromTheLastPacketNotFromTheWrite) {
  use(100);
  const EntryId id = registry_.acquire(0, kZoom, kStart);
  take(kStart);
  // A last packet after 40 s, then silence: written once more when half the time is gone, so that
  // it ends 100 s after that packet.
  registry_.seen(id, kStart + 40'000, kStart + 40'000);
  EXPECT_TRUE(take(kStart + 45'000).empty());
  const auto deltas = take(kStart + 60'000);
  ASSERT_EQ(deltas.size(), 1U);
  EXPECT_EQ(deltas[0].kind, Kind::refresh);
  EXPECT_EQ(deltas[0].entry.timeout, 80U);
  EXPECT_TRUE(take(kStart + 139'000).empty());
  EXPECT_EQ(registry_.written(0, false), 1U);
  EXPECT_TRUE(take(kStart + 141'000).empty());
  EXPECT_EQ(registry_.written(0, false), 0U);
  EXPECT_EQ(registry_.size(), 1U) << "the flow still holds it";
  // It speaks again.
  registry_.seen(id, kStart + 500'000, kStart + 500'000);
  const auto again = take(kStart + 500'000);
  ASSERT_EQ(again.size(), 1U);
  EXPECT_EQ(again[0].kind, Kind::add);
}

TEST_F(Entries, EndedFlowLingersIsNotRefreshedAndIsForgotten) {
  use(100);
  const EntryId id = registry_.acquire(0, kZoom, kStart);
  take(kStart);
  registry_.seen(id, kStart + 49'000, kStart + 49'000);
  registry_.release(id);
  EXPECT_TRUE(take(kStart + 60'000).empty());
  EXPECT_EQ(registry_.size(), 1U);
  EXPECT_TRUE(take(kStart + 101'000).empty());
  EXPECT_TRUE(take(kStart + 102'000).empty());
  EXPECT_EQ(registry_.size(), 0U);
}

TEST_F(Entries, NewFlowRevivesALingeringEntry) {
  use(100);
  registry_.release(registry_.acquire(0, kZoom, kStart));
  ASSERT_EQ(take(kStart).size(), 1U) << "a short flow's entry serves the next one";
  const EntryId id = registry_.acquire(0, kZoom, kStart + 80'000);
  const auto deltas = take(kStart + 80'000);
  ASSERT_EQ(deltas.size(), 1U);
  EXPECT_EQ(deltas[0].kind, Kind::refresh);
  EXPECT_EQ(deltas[0].id, id);
  EXPECT_EQ(deltas[0].entry.timeout, 100U);
}

TEST_F(Entries, WithoutTimeoutTheLastFlowDeletes) {
  use(0);
  const EntryId id = registry_.acquire(0, kZoom, kStart);
  const auto added = take(kStart);
  ASSERT_EQ(added.size(), 1U);
  EXPECT_EQ(added[0].entry.timeout, 0U);
  EXPECT_TRUE(take(kStart + 10'000'000).empty());
  registry_.release(id);
  const auto removed = take(kStart + 10'000'100);
  ASSERT_EQ(removed.size(), 1U);
  EXPECT_EQ(removed[0].kind, Kind::remove);
}

TEST_F(Entries, EndBeforeTheWriteWritesNothingWhereTheEndDeletes) {
  use(600, true);
  registry_.release(registry_.acquire(0, kZoom, kStart));
  EXPECT_TRUE(take(kStart).empty());
  EXPECT_EQ(registry_.size(), 0U);
}

TEST_F(Entries, FailedAddComesAgainAndLaterNoMore) {
  use(600);
  const EntryId id = registry_.acquire(0, kZoom, kStart);
  take(kStart);
  registry_.failed(id, kStart, 10'000);
  EXPECT_EQ(registry_.written(0, false), 0U);
  EXPECT_TRUE(take(kStart + 5'000).empty());
  const auto deltas = take(kStart + 11'000);
  ASSERT_EQ(deltas.size(), 1U);
  EXPECT_EQ(deltas[0].kind, Kind::add);
  EXPECT_EQ(deltas[0].entry.timeout, 589U);
  registry_.failed(id, kStart + 11'000, 10'000);
  registry_.release(id);
  take(kStart + 30'000);
  EXPECT_EQ(registry_.size(), 1U);
}

TEST_F(Entries, FailedAddOfAnEndedFlowIsDropped) {
  use(600);
  const EntryId id = registry_.acquire(0, kZoom, kStart);
  registry_.release(id);
  ASSERT_EQ(take(kStart).size(), 1U);
  registry_.failed(id, kStart, 10'000);
  EXPECT_TRUE(take(kStart + 20'000).empty());
  EXPECT_EQ(registry_.size(), 0U);
}

TEST_F(Entries, RewriteTouchesOneTargetAndOneFamily) {
  use(600);
  registry_.set_target(1, {600, false});
  registry_.acquire(0, kZoom, kStart);
  registry_.acquire(0, entry("2001:db8::7", 443, "2001:db8:1::10"), kStart);
  registry_.acquire(1, kZoom, kStart);
  take(kStart);
  EXPECT_EQ(registry_.rewrite(0, true, kStart + 1000), 1U);
  const auto deltas = take(kStart + 1000);
  ASSERT_EQ(deltas.size(), 1U);
  EXPECT_EQ(deltas[0].kind, Kind::add);
  EXPECT_FALSE(deltas[0].entry.server.is_v4());
  EXPECT_EQ(deltas[0].entry.timeout, 599U);
}

TEST_F(Entries, WithdrawRemovesAllAndStaysQuiet) {
  use(600);
  const EntryId id = registry_.acquire(0, kZoom, kStart);
  registry_.release(registry_.acquire(0, entry("198.51.100.9", 80, "192.0.2.1"), kStart));
  take(kStart);
  std::vector<EntryDelta> out;
  registry_.withdraw(0, out);
  EXPECT_EQ(out.size(), 2U);
  EXPECT_TRUE(take(kStart + 1000).empty());
  registry_.seen(id, kStart + 2000, kStart + 2000);
  EXPECT_TRUE(take(kStart + 2000).empty());
  registry_.release(id);
  EXPECT_TRUE(take(kStart + 3000).empty());
  EXPECT_EQ(registry_.size(), 0U);
}

TEST_F(Entries, SampleHoldsOnlyWhatWillStay) {
  use(100);
  for (std::uint16_t port = 1; port <= 500; ++port)
    registry_.acquire(0, entry("198.51.100.7", port, "192.0.2.10"), kStart);
  take(kStart);
  EXPECT_EQ(registry_.sample(0, false, 16, kStart).size(), 16U);
  EXPECT_TRUE(registry_.sample(0, true, 16, kStart).empty());
  EXPECT_TRUE(registry_.sample(0, false, 16, kStart + 99'000).empty());
}

TEST_F(Entries, AMillionEntriesAreCompact) {
  use(600);
  SetEntry key = kZoom;
  for (std::uint32_t i = 0; i < 1'000'000; ++i) {
    key.client = Address::v4(htonl(0x0a000000U + i / 100));
    key.port = static_cast<std::uint16_t>(1000 + i % 100);
    registry_.acquire(0, key, kStart);
  }
  EXPECT_EQ(registry_.size(), 1'000'000U);
  std::vector<EntryDelta> out;
  registry_.take(out, kStart);
  EXPECT_EQ(out.size(), 1'000'000U);
  EXPECT_LE(registry_.memory_bytes(), 80'000'000U);
}

// Random flows against a model of the kernel's set: an element must be there at any time at which
// one of its flows was seen no longer ago than the timeout, and be gone when no flow was for twice
// that.
TEST_F(Entries, RandomFlowsAgainstAModel) {
  for (const bool remove_at_end : {false, true}) {
    constexpr std::uint32_t kTimeout = 20;
    EntryRegistry registry;
    registry.set_target(0, {kTimeout, remove_at_end});
    std::mt19937 random(7);
    struct Flow {
      std::uint16_t port;
      EntryId id;
    };
    std::vector<Flow> flows;
    std::map<std::uint16_t, Milliseconds> set;   // port to expiry
    std::map<std::uint16_t, Milliseconds> seen;  // port to last packet
    for (Milliseconds now = kStart; now < kStart + 400'000; now += 500) {
      const auto begin = random() % 4;
      for (unsigned i = 0; i < begin && flows.size() < 60; ++i) {
        const auto port = static_cast<std::uint16_t>(1 + random() % 40);
        flows.push_back(
            {port, registry.acquire(0, entry("198.51.100.7", port, "192.0.2.10"), now)});
        seen[port] = now;
      }
      for (std::size_t i = 0; i < flows.size();) {
        if (random() % 30 == 0) {
          registry.release(flows[i].id);
          flows[i] = flows.back();
          flows.pop_back();
          continue;
        }
        if (random() % 8 == 0) {
          registry.seen(flows[i].id, now, now);
          seen[flows[i].port] = now;
        }
        ++i;
      }
      registry.advance(now);
      std::vector<EntryDelta> deltas;
      registry.take(deltas, now);
      for (const EntryDelta& delta : deltas) {
        if (delta.kind == Kind::remove)
          ASSERT_EQ(set.erase(delta.entry.port), 1U);
        else
          set[delta.entry.port] = now + delta.entry.timeout * 1000;
      }
      for (const Flow& flow : flows) {
        if (now - seen[flow.port] >= kTimeout * 1000) continue;
        ASSERT_TRUE(set.contains(flow.port)) << "port " << flow.port << " at " << now;
        ASSERT_GT(set[flow.port], now) << "port " << flow.port;
      }
      for (const auto& [port, expires] : set)
        ASSERT_LE(expires, seen[port] + kTimeout * 1000 + 1000) << "port " << port;
    }
  }
}

}  // namespace
}  // namespace l7mark
