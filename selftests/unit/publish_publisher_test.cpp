// SPDX-License-Identifier: GPL-2.0-only
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "publish/publisher.hpp"

namespace l7mark {
namespace {

// A set in memory, with the ways in which a kernel's fails.
struct FakeKernelSet {
  std::map<std::string, std::uint32_t> elements;
  bool exists = false;
  bool ensure_fails = false;
  bool created = false;
  std::size_t room = 1000;
  unsigned ensures = 0;
  unsigned writes = 0;
};

std::string text_of(const SetEntry& entry) {
  return entry.server.to_string() + "," + std::to_string(entry.protocol) + ":" +
         std::to_string(entry.port) + "," + entry.client.to_string();
}

class FakeSink final : public EntrySink {
 public:
  FakeSink(FakeKernelSet& set, std::string name) : set_(set), name_(std::move(name)) {}
  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] bool created() const override { return set_.created; }
  Result<Ensured> ensure() override {
    ++set_.ensures;
    if (set_.ensure_fails) return Error{"use", name_, EEXIST, "its type is hash:ip"};
    if (std::exchange(set_.exists, true)) return Ensured::adopted;
    set_.created = true;
    return Ensured::created;
  }
  WriteOutcome add(std::span<const SetEntry> entries) override {
    ++set_.writes;
    WriteOutcome out;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      const std::string key = text_of(entries[i]);
      if (!set_.exists) {
        out.fail(i, WriteTrouble::gone, Error{"add to", name_, ENOENT, {}});
      } else if (!set_.elements.contains(key) && set_.elements.size() >= set_.room) {
        out.fail(i, WriteTrouble::full, Error{"add to", name_, 0, "full"});
      } else {
        set_.elements[key] = entries[i].timeout;
        ++out.written;
      }
    }
    return out;
  }
  WriteOutcome refresh(std::span<const SetEntry> entries) override { return add(entries); }
  WriteOutcome remove(std::span<const SetEntry> entries) override {
    WriteOutcome out;
    for (const SetEntry& entry : entries) set_.elements.erase(text_of(entry));
    out.written = entries.size();
    return out;
  }
  Result<bool> intact(std::size_t written, std::span<const SetEntry>) override {
    if (!set_.exists) return Error{"look at", name_, ENOENT, {}};
    return set_.elements.size() >= written;
  }
  Status withdraw(std::span<const SetEntry> entries, bool shared) override {
    if (shared || !set_.created) {
      (void)remove(entries);
      return success();
    }
    set_ = FakeKernelSet{};
    return success();
  }

 private:
  FakeKernelSet& set_;
  std::string name_;
};

FlowFacts flow(const char* client, const char* server, std::uint16_t port,
               std::uint8_t protocol = IPPROTO_TCP) {
  FlowFacts facts;
  facts.client = *Address::parse(client);
  facts.server = *Address::parse(server);
  facts.client_port = 40000;
  facts.server_port = port;
  facts.protocol = protocol;
  return facts;
}

class PublisherTest : public testing::Test {
 protected:
  TargetId target(TargetShape shape = {}, TargetPolicy policy = {600, false}) {
    auto id = publisher_.add_target(std::make_unique<FakeSink>(v4_, "Z"),
                                    std::make_unique<FakeSink>(v6_, "Z6"), shape, policy);
    EXPECT_TRUE(id.ok());
    return *id;
  }
  FakeKernelSet v4_;
  FakeKernelSet v6_;
  Publisher publisher_;
  Milliseconds now_ = 5'000'000;
};

TEST_F(PublisherTest, FamiliesGoToTheirSets) {
  const TargetId id = target();
  ASSERT_NE(publisher_.on_flow(id, flow("192.0.2.1", "198.51.100.7", 443), now_), kNoEntry);
  ASSERT_NE(publisher_.on_flow(id, flow("2001:db8::1", "2001:db8::7", 8801, IPPROTO_UDP), now_),
            kNoEntry);
  EXPECT_EQ(v4_.writes, 0U) << "nothing is written before flush()";
  publisher_.flush(now_);
  EXPECT_EQ(v4_.elements,
            (std::map<std::string, std::uint32_t>{{"198.51.100.7,6:443,192.0.2.1", 600}}));
  EXPECT_EQ(v6_.elements,
            (std::map<std::string, std::uint32_t>{{"2001:db8::7,17:8801,2001:db8::1", 600}}));
  EXPECT_EQ(publisher_.counters().added, 2U);
}

TEST_F(PublisherTest, ShapesWithoutClientOrPortMergeFlows) {
  const TargetId id = target({false, false, nullptr});
  const EntryId a = publisher_.on_flow(id, flow("192.0.2.1", "198.51.100.7", 443), now_);
  const EntryId b = publisher_.on_flow(id, flow("192.0.2.2", "198.51.100.7", 80), now_);
  EXPECT_EQ(a, b);
  publisher_.flush(now_);
  EXPECT_EQ(v4_.elements.size(), 1U);
}

TEST_F(PublisherTest, WhatTheSetCannotHoldIsCounted) {
  const TargetId id = target({true, true, nft_holds});
  EXPECT_EQ(publisher_.on_flow(id, flow("192.0.2.1", "198.51.100.7", 0, IPPROTO_ICMP), now_),
            kNoEntry);
  publisher_.seen(kNoEntry, now_, now_);
  publisher_.on_end(kNoEntry);
  EXPECT_EQ(publisher_.counters().unsupported, 1U);
}

TEST_F(PublisherTest, FlushedSetIsFilledAgain) {
  const TargetId id = target();
  for (std::uint16_t port = 1; port <= 50; ++port)
    ASSERT_NE(publisher_.on_flow(id, flow("192.0.2.1", "198.51.100.7", port), now_), kNoEntry);
  publisher_.tick(now_);
  ASSERT_EQ(v4_.elements.size(), 50U);
  v4_.elements.clear();
  publisher_.tick(now_ + 60'000);
  EXPECT_EQ(v4_.elements.size(), 50U);
  EXPECT_EQ(publisher_.counters().rewritten, 50U);
}

TEST_F(PublisherTest, DestroyedSetIsMadeAgainByTheNextWrite) {
  const TargetId id = target();
  ASSERT_NE(publisher_.on_flow(id, flow("192.0.2.1", "198.51.100.7", 1), now_), kNoEntry);
  publisher_.flush(now_);
  v4_ = FakeKernelSet{};
  ASSERT_NE(publisher_.on_flow(id, flow("192.0.2.1", "198.51.100.7", 2), now_), kNoEntry);
  publisher_.flush(now_);
  publisher_.tick(now_ + 1000);
  EXPECT_TRUE(v4_.exists);
  EXPECT_EQ(v4_.elements.size(), 2U);
}

TEST_F(PublisherTest, UnusableSetIsLeftAloneUntilItCanBeUsed) {
  const TargetId id = target();
  publisher_.tick(now_);
  v4_ = FakeKernelSet{};
  v4_.ensure_fails = true;
  ASSERT_NE(publisher_.on_flow(id, flow("192.0.2.1", "198.51.100.7", 1), now_), kNoEntry);
  for (unsigned second = 0; second < 60; ++second) publisher_.tick(now_ + second * 1000);
  EXPECT_LE(v4_.ensures, 10U);
  EXPECT_EQ(v4_.writes, 1U) << "no write without a set";
  v4_.ensure_fails = false;
  for (unsigned second = 60; second < 80; ++second) publisher_.tick(now_ + second * 1000);
  EXPECT_EQ(v4_.elements.size(), 1U);
}

TEST_F(PublisherTest, FullSetTakesTheRestWhenThereIsRoom) {
  const TargetId id = target();
  v4_.room = 2;
  for (std::uint16_t port = 1; port <= 3; ++port)
    ASSERT_NE(publisher_.on_flow(id, flow("192.0.2.1", "198.51.100.7", port), now_), kNoEntry);
  publisher_.flush(now_);
  EXPECT_EQ(v4_.elements.size(), 2U);
  EXPECT_EQ(publisher_.counters().full, 1U);
  v4_.room = 3;
  publisher_.tick(now_ + 11'000);
  EXPECT_EQ(v4_.elements.size(), 3U);
}

TEST_F(PublisherTest, DropRemovesOnlyOurElementsFromAnAdoptedSet) {
  v4_.exists = true;
  v4_.elements["203.0.113.1,6:22,192.0.2.9"] = 0;
  const TargetId id = target();
  const EntryId entry = publisher_.on_flow(id, flow("192.0.2.1", "198.51.100.7", 1), now_);
  publisher_.flush(now_);
  EXPECT_EQ(v4_.elements.size(), 2U);
  EXPECT_TRUE(publisher_.drop_target(id).ok());
  EXPECT_EQ(v4_.elements.size(), 1U);
  EXPECT_TRUE(v4_.elements.contains("203.0.113.1,6:22,192.0.2.9"));
  EXPECT_FALSE(v6_.exists) << "we made that one";
  publisher_.on_end(entry);
  publisher_.tick(now_ + 1000);
  EXPECT_EQ(publisher_.registry().size(), 0U);
}

TEST_F(PublisherTest, FailureOfTheSecondSetTakesTheFirstBack) {
  v6_.ensure_fails = true;
  const auto id = publisher_.add_target(std::make_unique<FakeSink>(v4_, "Z"),
                                        std::make_unique<FakeSink>(v6_, "Z6"), {}, {600, false});
  ASSERT_FALSE(id.ok());
  EXPECT_EQ(id.error().message(), "cannot use Z6: File exists (its type is hash:ip)");
  EXPECT_FALSE(v4_.exists);
}

TEST_F(PublisherTest, SweepFollowsTheShortestTimeout) {
  EXPECT_EQ(publisher_.sweep_interval(), 0U);
  target({}, {600, false});
  target({}, {20, false});
  EXPECT_EQ(publisher_.sweep_interval(), 5000U);
}

}  // namespace
}  // namespace l7mark
