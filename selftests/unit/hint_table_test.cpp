// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/hint_table.hpp"

#include <gtest/gtest.h>

#include <string>

namespace l7mark {
namespace {

HintKey key(unsigned number, std::string_view client = "::") {
  return {*Address::parse("203.0.113." + std::to_string(number)), *Address::parse(client)};
}

TEST(HintTable, NamesThatAgreePromise) {
  HintTable table(4);
  const auto first = table.tell(key(1), 7, 33, 1000, 5000);
  EXPECT_EQ(first.hint.action, 7U);
  EXPECT_EQ(first.hint.application, 33U);
  EXPECT_EQ(first.hint.expires_ms, 5000U);
  // The longest life counts.
  EXPECT_EQ(table.tell(key(1), 7, 33, 2000, 4000).hint.expires_ms, 5000U);
  EXPECT_EQ(table.tell(key(1), 7, 33, 2000, 9000).hint.expires_ms, 9000U);
  EXPECT_FALSE(table.tell(key(1), 7, 33, 2000, 9000).hint.mixed);
  EXPECT_TRUE(table.mixed(8).empty());
}

TEST(HintTable, NamesThatDisagreePromiseNothing) {
  HintTable table(4);
  table.tell(key(1), 7, 33, 1000, 5000);
  auto told = table.tell(key(1), 0, 0, 1000, 5000);
  EXPECT_TRUE(told.became_mixed);
  EXPECT_TRUE(told.hint.mixed);
  told = table.tell(key(1), 7, 33, 1000, 6000);
  EXPECT_FALSE(told.became_mixed) << "it was before";
  EXPECT_TRUE(told.hint.mixed);
  ASSERT_EQ(table.mixed(8).size(), 1U);
  EXPECT_EQ(table.mixed(8)[0], key(1).server);
  // As long as any of them is good.
  EXPECT_TRUE(table.tell(key(1), 7, 33, 5999, 6500).hint.mixed);
  EXPECT_FALSE(table.tell(key(1), 7, 33, 6500, 9000).hint.mixed);
}

TEST(HintTable, ClientsAreApart) {
  HintTable table(4);
  table.tell(key(1, "10.0.0.1"), 7, 33, 1000, 5000);
  EXPECT_FALSE(table.tell(key(1, "10.0.0.2"), 8, 33, 1000, 5000).hint.mixed);
  EXPECT_TRUE(table.tell(key(1, "10.0.0.1"), 8, 33, 1000, 5000).hint.mixed);
  EXPECT_TRUE(table.tell(key(1, "10.0.0.2"), 7, 33, 1000, 5000).hint.mixed);
  EXPECT_EQ(table.mixed(8).size(), 1U) << "it is one address";
}

TEST(HintTable, AContradictedOnePromisesNothing) {
  HintTable table(4);
  table.tell(key(1), 7, 33, 1000, 5000);
  EXPECT_FALSE(table.contradict(key(2)));
  EXPECT_TRUE(table.contradict(key(1)));
  EXPECT_FALSE(table.contradict(key(1)));
  EXPECT_TRUE(table.tell(key(1), 7, 33, 1000, 5000).hint.mixed);
}

TEST(HintTable, NeverMoreThanTheLimit) {
  HintTable table(4);
  for (unsigned i = 0; i < 4; ++i) table.tell(key(i), 7, 33, 1000, 5000 - i);
  EXPECT_EQ(table.tell(key(0), 8, 33, 1000, 9000).gone, std::nullopt) << "known already";
  // What expires first makes way, a name of no class and a mixed one like any other.
  EXPECT_EQ(table.tell(key(10), 0, 0, 1000, 6000).gone, key(3));
  EXPECT_EQ(table.tell(key(11), 7, 33, 1000, 6001).gone, key(2));
  EXPECT_EQ(table.size(), 4U);
  EXPECT_EQ(table.tell(key(12), 7, 33, 1000, 2000).gone, key(1));
  EXPECT_EQ(table.tell(key(13), 7, 33, 1000, 2000).gone, key(12));
  // One that has expired is no loss.
  EXPECT_EQ(table.tell(key(14), 7, 33, 2000, 7000).gone, std::nullopt);
  EXPECT_EQ(table.size(), 4U);
}

TEST(HintTable, ExpiredOnesGo) {
  HintTable table(4);
  table.tell(key(1), 7, 33, 1000, 5000);
  table.tell(key(2), 7, 33, 1000, 4000);
  table.tell(key(3), 7, 33, 1000, 6000);
  EXPECT_TRUE(table.expire(3999).empty());
  const auto gone = table.expire(5000);
  ASSERT_EQ(gone.size(), 2U);
  EXPECT_EQ(gone[0], key(2));
  EXPECT_EQ(gone[1], key(1));
  EXPECT_EQ(table.size(), 1U);
  table.clear();
  EXPECT_TRUE(table.expire(9000).empty());
}

}  // namespace
}  // namespace l7mark
