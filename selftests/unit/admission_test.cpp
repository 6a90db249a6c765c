// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/admission.hpp"

#include <gtest/gtest.h>

namespace l7mark {
namespace {

FlowKey key_of(std::uint32_t number) {
  l7m_key4 key{};
  key.addr[0] = number;
  key.protocol = 17;
  FlowKey out;
  l7m_key_from_v4(&key, &out.raw);
  return out;
}

class AdmissionTest : public testing::Test {
 protected:
  Flow& flow(std::uint32_t number, std::uint64_t sent = 2, std::uint64_t received = 0) {
    Flow& out = flows_.at(key_of(number));
    out.id = number + 1;
    out.last_ms = ++ms_;
    out.total.packets[0] = sent;
    out.total.packets[1] = received;
    return out;
  }
  void answer(Flow& flow) {
    Finding finding;
    finding.application = 7;
    finding.confidence = Confidence::dpi;
    flows_.set_finding(flow, std::move(finding));
    flow.state = FlowState::final;
  }
  // As the main process does it; true if it is admitted.
  bool decide(std::uint32_t number, Flow& flow) {
    const auto room = admission_.make_room(key_of(number), flow);
    if (room.victim) {
      victim_ = room.victim->id - 1;
      flows_.erase(room.victim->key);
    }
    if (!room.admitted) return false;
    flow.decided = true;
    admission_.confirm(key_of(number), flow);
    return true;
  }
  void end(std::uint32_t number) {
    admission_.forget(key_of(number), *flows_.find(key_of(number)));
    flows_.erase(key_of(number));
  }

  static Limits limits() {
    Limits out;
    out.flows = 100;
    out.unprotected = 30;
    out.candidates = 64;
    return out;
  }
  FlowTable flows_;
  Admission admission_{limits(), flows_};
  std::uint64_t ms_ = 1'000'000;
  std::uint64_t victim_ = UINT64_MAX;
};

TEST_F(AdmissionTest, WorthIsAnAnswerAndPacketsBothWays) {
  EXPECT_EQ(worth_of(flow(1, 9, 0)), Worth::one_way);
  EXPECT_EQ(worth_of(flow(1, 1, 1)), Worth::two_way);
  answer(flow(1, 1, 1));
  EXPECT_EQ(worth_of(flow(1, 9, 0)), Worth::one_way);
  EXPECT_EQ(worth_of(flow(1, 0, 9)), Worth::one_way);
  EXPECT_EQ(worth_of(flow(1, 1, 1)), Worth::protected_flow);
}

TEST_F(AdmissionTest, TheOldestOfTheShareMakesWay) {
  for (std::uint32_t n = 0; n < 30; ++n) EXPECT_TRUE(decide(n, flow(n)));
  EXPECT_EQ(victim_, UINT64_MAX);
  for (std::uint32_t n = 30; n < 90; ++n) {
    EXPECT_TRUE(decide(n, flow(n)));
    EXPECT_EQ(victim_, n - 30);
    EXPECT_EQ(admission_.verdicts(false), 30U);
  }
}

// One batch of answers does not go beyond the share, and nobody in it makes way for another.
TEST_F(AdmissionTest, WhatIsNotConfirmedIsCountedAndStays) {
  for (std::uint32_t n = 0; n < 30; ++n)
    EXPECT_TRUE(admission_.make_room(key_of(n), flow(n)).admitted);
  const auto room = admission_.make_room(key_of(30), flow(30));
  EXPECT_FALSE(room.admitted);
  EXPECT_FALSE(room.victim);
  admission_.confirm(key_of(0), flow(0));
  EXPECT_EQ(admission_.make_room(key_of(30), flow(30)).victim->id, 1U);
}

// Flows that all go on sending do not keep the others out, nor the search busy.
TEST_F(AdmissionTest, SecondChancesEnd) {
  for (std::uint32_t n = 0; n < 30; ++n) decide(n, flow(n));
  for (std::uint32_t n = 0; n < 30; ++n) flows_.find(key_of(n))->last_ms += 60'000;
  EXPECT_TRUE(decide(100, flow(100)));
  EXPECT_EQ(victim_, 0U) << "the first, once each had its chance";
}

TEST_F(AdmissionTest, QueuesStaySmall) {
  for (std::uint32_t n = 0; n < 100'000; ++n) {
    ASSERT_TRUE(decide(n, flow(n)));
    end(n);
    admission_.wait(key_of(n), flow(n));
    flows_.erase(key_of(n));
  }
  EXPECT_EQ(admission_.verdicts(false), 0U);
  EXPECT_LE(admission_.queued(), 4096U);
}

TEST_F(AdmissionTest, AsManyWaitAsThereAreCandidates) {
  for (std::uint32_t n = 0; n < 64; ++n) {
    EXPECT_FALSE(admission_.waiting_full());
    admission_.wait(key_of(n), flow(n, 1, n < 8 ? 1 : 0));
  }
  EXPECT_TRUE(admission_.waiting_full());
  EXPECT_EQ(admission_.take_waiting()->id, 9U) << "the first one-way flow";
  decide(20, *flows_.find(key_of(20)));
  EXPECT_FALSE(admission_.waiting_full());
}

}  // namespace
}  // namespace l7mark
