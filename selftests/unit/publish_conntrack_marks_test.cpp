// SPDX-License-Identifier: GPL-2.0-only
// The ledger of conntrack entries against a conntrack that is a map.
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "publish/conntrack_marks.hpp"
#include "publish/conntrack_message.hpp"

namespace l7mark {
namespace {

ConntrackTuple tuple(std::uint16_t port, std::uint16_t zone = 0) {
  ConntrackTuple out;
  out.source = *Address::parse("10.0.0.2");
  out.destination = *Address::parse("198.51.100.7");
  out.source_port = port;
  out.destination_port = 443;
  out.protocol = IPPROTO_TCP;
  out.zone = zone;
  return out;
}

ConntrackChange mark(std::uint32_t value, std::uint32_t mask = 0xff) {
  ConntrackChange out;
  out.mark = value;
  out.mark_mask = mask;
  return out;
}

class ConntrackMarksTest : public testing::Test {
 protected:
  struct State {
    std::uint32_t mark = 0;
    ConntrackLabels labels;
  };
  using Id = std::pair<std::uint16_t, std::uint16_t>;  // source port and zone

  ConntrackMarksTest() { marks_.set_limit(1000); }

  void run() {
    marks_.run(
        [this](std::span<const ConntrackRequest> requests) {
          ConntrackOutcome outcome;
          for (std::size_t i = 0; i < requests.size(); ++i) {
            const auto& [tuple, change] = requests[i];
            ++requests_;
            const auto at = kernel_.find({tuple.source_port, tuple.zone});
            if (trouble_ != WriteTrouble::none) {
              outcome.failures.push_back({i, trouble_});
            } else if (at == kernel_.end()) {
              outcome.missing.push_back(i);
            } else {
              State& state = at->second;
              state.mark = (state.mark & ~change.mark_mask) | change.mark;
              state.labels = (state.labels & ~change.labels_mask) | change.labels;
              ++outcome.written;
            }
          }
          return outcome;
        },
        now_);
  }
  // So much later, in steps of 50 ms.
  void pass(std::uint64_t ms) {
    for (const std::uint64_t end = now_ + ms; now_ < end; now_ += 50) {
      if (now_ % 1000 == 0) marks_.tick(now_);
      run();
    }
  }
  void destroy(const ConntrackTuple& which) {
    kernel_.erase({which.source_port, which.zone});
    marks_.on_destroyed(which, conntrack_message::reversed(which), now_);
  }
  State& entry(std::uint16_t port, std::uint16_t zone = 0) { return kernel_[{port, zone}]; }
  [[nodiscard]] const ConntrackMarksCounters& counters() const { return marks_.counters(); }

  ConntrackMarks marks_;
  std::map<Id, State> kernel_;
  WriteTrouble trouble_ = WriteTrouble::none;
  std::size_t requests_ = 0;
  std::uint64_t now_ = 1'000'000;
};

TEST_F(ConntrackMarksTest, ClassesTakeTheirBitsAlong) {
  entry(1).mark = 0x4000;
  ConntrackChange first = mark(0x85);
  first.labels[3] = first.labels_mask[3] = true;
  marks_.want(tuple(1), first, "a", now_);
  run();
  EXPECT_EQ(entry(1).mark, 0x4085U);
  EXPECT_TRUE(entry(1).labels[3]);
  marks_.want(tuple(1), first, "a", now_);
  run();
  EXPECT_EQ(requests_, 1U) << "the same again is no work";
  marks_.want(tuple(1), mark(0x100, 0xf00), "b", now_);
  run();
  EXPECT_EQ(entry(1).mark, 0x4100U);
  EXPECT_TRUE(entry(1).labels.none());
  marks_.want(tuple(1), {}, {}, now_);
  run();
  EXPECT_EQ(entry(1).mark, 0x4000U);
  EXPECT_EQ(counters().written, 2U);
  EXPECT_EQ(counters().cleared, 1U);
  EXPECT_EQ(marks_.size(), 0U);
}

TEST_F(ConntrackMarksTest, SeveralChangesAtOnceAreOneWrite) {
  entry(1);
  marks_.want(tuple(1), mark(1), "a", now_);
  marks_.want(tuple(1), mark(2), "b", now_);
  marks_.want(tuple(1), {}, {}, now_);
  marks_.want(tuple(1), mark(3), "c", now_);
  pass(5000);
  EXPECT_EQ(entry(1).mark, 3U);
  EXPECT_EQ(requests_, 1U);
}

TEST_F(ConntrackMarksTest, EntriesMadeAnewAreWrittenAgain) {
  entry(1);
  marks_.want(tuple(1), mark(0x85), "a", now_);
  run();
  destroy(tuple(1));
  EXPECT_EQ(marks_.absent(), 1U);
  now_ += 100;
  entry(1);
  pass(1000);
  EXPECT_EQ(entry(1).mark, 0x85U);
  EXPECT_EQ(counters().rewritten, 1U);
  EXPECT_EQ(marks_.absent(), 0U);
}

TEST_F(ConntrackMarksTest, QuietFlowsWaitForTheirNextPacket) {
  entry(1);
  marks_.want(tuple(1), mark(0x85), "a", now_);
  run();
  destroy(tuple(1));
  const std::uint64_t quiet_since = now_ - 10;
  pass(60'000);
  const std::size_t tried = requests_;
  EXPECT_LE(tried, 4U);
  marks_.on_seen(tuple(1), quiet_since, now_);
  pass(5000);
  EXPECT_EQ(requests_, tried) << "it has not sent since";
  entry(1);
  marks_.on_seen(tuple(1), now_, now_);
  run();
  EXPECT_EQ(entry(1).mark, 0x85U);
  EXPECT_EQ(counters().rewritten, 1U);
  EXPECT_EQ(counters().missing, 0U);
}

TEST_F(ConntrackMarksTest, GivesUpAndTriesLessAndLessOften) {
  marks_.want(tuple(1), mark(0x85), "a", now_);
  pass(5000);
  EXPECT_EQ(requests_, 5U);
  EXPECT_EQ(counters().missing, 1U);
  for (int i = 0; i < 3600 / 5; ++i) {
    marks_.on_seen(tuple(1), now_, now_);
    pass(5000);
  }
  EXPECT_LE(counters().missing, 15U) << "in an hour";
  EXPECT_EQ(marks_.queued(), 0U);
}

TEST_F(ConntrackMarksTest, EventsAreMatchedInBothDirectionsAndByZone) {
  entry(1);
  entry(1, 7).mark = 0x4000;
  marks_.want(tuple(1), mark(0x85), "a", now_);
  marks_.want(tuple(1, 7), mark(0x86), "a", now_);
  run();
  EXPECT_EQ(entry(1).mark, 0x85U);
  EXPECT_EQ(entry(1, 7).mark, 0x4086U);
  // Behind destination NAT the flow is in the reply only.
  ConntrackTuple outside = tuple(1, 7);
  outside.destination = *Address::parse("203.0.113.80");
  kernel_.erase({1, 7});
  marks_.on_destroyed(outside, conntrack_message::reversed(tuple(1, 7)), now_);
  EXPECT_EQ(marks_.absent(), 1U);
  entry(1).mark = 0;
  entry(1, 7);
  pass(1000);
  EXPECT_EQ(entry(1, 7).mark, 0x86U);
  EXPECT_EQ(entry(1).mark, 0U) << "the one of zone 0 is another";
}

TEST_F(ConntrackMarksTest, EndedFlowsKeepTheirBitsUntilTheClassGoes) {
  for (std::uint16_t port = 1; port <= 3; ++port) {
    entry(port);
    marks_.want(tuple(port), mark(port), port == 1 ? "old" : "new", now_);
  }
  run();
  for (std::uint16_t port = 1; port <= 3; ++port) marks_.end(tuple(port));
  pass(5000);
  EXPECT_EQ(entry(1).mark, 1U);
  marks_.release([](const std::string& owner) { return owner == "old"; }, now_);
  run();
  EXPECT_EQ(entry(1).mark, 0U);
  EXPECT_EQ(entry(2).mark, 2U);
  destroy(tuple(2));
  EXPECT_EQ(marks_.size(), 1U);
  EXPECT_EQ(marks_.absent(), 0U) << "nobody waits for an ended flow's entry";
  // The next flow of the five-tuple is of another class.
  marks_.want(tuple(3), mark(0x100, 0xf00), "other", now_);
  run();
  EXPECT_EQ(entry(3).mark, 0x100U);
}

TEST_F(ConntrackMarksTest, LostEventsHaveAllWrittenAgain) {
  for (std::uint16_t port = 1; port <= 100; ++port) {
    entry(port);
    marks_.want(tuple(port), mark(0x85), "a", now_);
  }
  run();
  marks_.end(tuple(100));
  kernel_.clear();
  for (std::uint16_t port = 1; port <= 90; ++port) entry(port);
  marks_.on_lost_events();
  pass(5000);
  for (std::uint16_t port = 1; port <= 90; ++port) EXPECT_EQ(entry(port).mark, 0x85U) << port;
  EXPECT_EQ(counters().lost_events, 1U);
  EXPECT_EQ(counters().rewritten, 90U);
  EXPECT_EQ(marks_.absent(), 9U);
  EXPECT_EQ(marks_.size(), 99U) << "the ended flow's is gone";
  const std::size_t before = requests_;
  pass(60'000);
  EXPECT_EQ(requests_, before) << "once is enough";
}

TEST_F(ConntrackMarksTest, QueueAndTableAreBounded) {
  constexpr std::uint16_t kFlows = 50'000;
  marks_.set_limit(kFlows);
  for (std::uint16_t port = 1; port <= kFlows; ++port) {
    entry(port);
    marks_.want(tuple(port), mark(0x85), "a", now_);
  }
  entry(60'000);
  marks_.want(tuple(60'000), mark(0x85), "a", now_);
  EXPECT_EQ(marks_.queued(), ConntrackMarks::kQueue);
  EXPECT_EQ(marks_.size(), kFlows);
  EXPECT_EQ(counters().full, kFlows - ConntrackMarks::kQueue + 1);
  pass(30'000);
  EXPECT_EQ(counters().written, kFlows) << "what found the queue full is done later";
  EXPECT_EQ(entry(60'000).mark, 0U) << "what found the table full is not";
  // Ended flows make way for those that live.
  for (std::uint16_t port = 1; port <= kFlows; ++port) marks_.end(tuple(port));
  EXPECT_EQ(marks_.size(), kFlows / 4 * 3);
}

TEST_F(ConntrackMarksTest, ErrorsAreCountedAndEndTheTrying) {
  entry(1);
  trouble_ = WriteTrouble::element;
  marks_.want(tuple(1), mark(0x85), "a", now_);
  pass(60'000);
  EXPECT_EQ(requests_, 1U);
  EXPECT_EQ(counters().errors, 1U);
  trouble_ = WriteTrouble::lost;
  marks_.want(tuple(1), mark(0x86), "a", now_);
  pass(60'000);
  EXPECT_EQ(requests_, 6U) << "lost acknowledgements are asked for again, in bounds";
  EXPECT_EQ(counters().errors, 2U);
}

TEST_F(ConntrackMarksTest, WhatAnEarlierRunWroteIsClearedOrTakenOver) {
  entry(1).mark = 0x4f85;
  entry(2).mark = 0x4f85;
  marks_.assume(tuple(1), mark(0, 0xfff));
  marks_.assume(tuple(2), mark(0, 0xfff));
  marks_.want(tuple(1), mark(0x7, 0xf), "a", now_);
  marks_.want(tuple(2), {}, {}, now_);
  run();
  EXPECT_EQ(entry(1).mark, 0x4007U);
  EXPECT_EQ(entry(2).mark, 0x4000U);
}

TEST_F(ConntrackMarksTest, ClearAllLeavesNothing) {
  marks_.set_limit(10'000);
  for (std::uint16_t port = 1; port <= 5000; ++port) {
    entry(port).mark = 0x4000;
    marks_.want(tuple(port), mark(0x85), "a", now_);
  }
  pass(1000);
  marks_.end(tuple(1));
  marks_.clear_all([this](std::span<const ConntrackRequest> requests) {
    for (const auto& [tuple, change] : requests) entry(tuple.source_port).mark &= ~change.mark_mask;
    return ConntrackOutcome{};
  });
  for (std::uint16_t port = 1; port <= 5000; ++port) EXPECT_EQ(entry(port).mark, 0x4000U) << port;
  EXPECT_EQ(marks_.size(), 0U);
  EXPECT_EQ(marks_.queued(), 0U);
  EXPECT_EQ(counters().cleared, 5000U);
}

}  // namespace
}  // namespace l7mark
