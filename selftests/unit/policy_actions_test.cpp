// SPDX-License-Identifier: GPL-2.0-only
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "policy/actions.hpp"
#include "policy_catalog.hpp"

namespace l7mark {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

TEST(MergeClasses, FirstClassWinsField) {
  const auto policy = policy_of(R"(
      { "name": "a", "continue": true, "dscp": "EF", "mark": "0x5/0xf" },
      { "name": "b", "continue": true, "dscp": 1, "priority": 7, "mark": "0xff/0xff" },
      { "name": "c", "tc_class": "1:10", "priority": 8, "log": true })");
  const auto merged = merge_classes(*policy, {0, 1, 2});
  const auto& action = merged.kernel[L7M_STATE_FINAL];
  EXPECT_EQ(merged.class_name, "a");
  EXPECT_EQ(action.class_id, 1);
  EXPECT_EQ(action.dscp, 46);
  EXPECT_EQ(action.priority, 7U);
  EXPECT_EQ(action.classid, 0x10010U);
  EXPECT_EQ(action.mark, 0xf5U) << "bits of the first class, the other's for the rest";
  EXPECT_EQ(action.mark_mask, 0xffU);
  EXPECT_EQ(action.flags, L7M_ACT_MARK | L7M_ACT_PRIORITY | L7M_ACT_CLASSID | L7M_ACT_DSCP);
  EXPECT_TRUE(merged.log);
  EXPECT_FALSE(merged.drop);
}

TEST(MergeClasses, DropAndAllow) {
  const auto policy = policy_of(R"(
      { "name": "allow", "continue": true, "allow": true },
      { "name": "drop", "continue": true, "drop": true },
      { "name": "neither" })");
  EXPECT_FALSE(merge_classes(*policy, {0, 1}).drop);
  EXPECT_TRUE(merge_classes(*policy, {1, 2}).drop);
  EXPECT_EQ(merge_classes(*policy, {1, 2}).kernel[L7M_STATE_PROVISIONAL].flags, L7M_ACT_DROP);
  EXPECT_EQ(merge_classes(*policy, {0, 2}).kernel[L7M_STATE_FINAL].flags, 0);
}

// What hides its ports passes unless it could be a way around a class.
TEST(PolicySettings, TellWhetherAnyClassDrops) {
  EXPECT_EQ(policy_of(R"({ "name": "a", "mark": 1 })")->settings().flags & L7M_SET_DROPS, 0U);
  EXPECT_NE(
      policy_of(R"({ "name": "a", "mark": 1 }, { "name": "b", "drop": true })")->settings().flags &
          L7M_SET_DROPS,
      0U);
}

// Of a class that is spared only the drop is left out, and a later one may drop in its place.
TEST(MergeClasses, ASparedClassDropsNothing) {
  const auto policy = policy_of(R"(
      { "name": "a", "continue": true, "mark": "0x1/0x1", "drop": true, "ipset": { "name": "S" } },
      { "name": "b", "continue": true, "drop": true },
      { "name": "c", "mark": "0x2/0x2" })");
  const auto merged = merge_classes(*policy, {0, 2}, {0});
  EXPECT_FALSE(merged.drop);
  EXPECT_EQ(merged.kernel[L7M_STATE_GUESSED].flags, L7M_ACT_MARK);
  EXPECT_EQ(merged.kernel[L7M_STATE_GUESSED].mark, 3U);
  EXPECT_EQ(merged.ipsets.size(), 1U);
  EXPECT_TRUE(merge_classes(*policy, {0, 1}, {0}).drop);

  ActionTable table(policy);
  const std::uint32_t whole = *table.intern({0, 2});
  const std::uint32_t spared = *table.intern({0, 2}, {0});
  EXPECT_NE(whole, spared);
  EXPECT_EQ(*table.intern({0, 2}, {0}), spared);
  EXPECT_EQ(*table.intern({0, 2}, {2}), whole) << "there is no drop to leave out";
  EXPECT_TRUE(table.effective(whole).drop);
  EXPECT_FALSE(table.effective(spared).drop);
  EXPECT_EQ(table.effective(spared).classes, table.effective(whole).classes);
}

TEST(MergeClasses, SetsAndLabelsAddUp) {
  const auto policy = policy_of(R"(
      { "name": "a", "continue": true, "ipset": { "name": "S" }, "conntrack": { "label": 1 } },
      { "name": "b", "continue": true, "ipset": { "name": "S" }, "nftset": { "name": "n" },
        "conntrack": { "label": 5, "mark": "0x1/0x1" } },
      { "name": "c", "ipset": { "name": "T" }, "conntrack": { "mark": "0x2/0x3" } })");
  const auto merged = merge_classes(*policy, {0, 1, 2});
  ASSERT_EQ(merged.ipsets.size(), 2U);
  EXPECT_EQ(merged.ipsets[0].name, "S");
  EXPECT_EQ(merged.ipsets[1].name, "T");
  ASSERT_EQ(merged.nftsets.size(), 1U);
  EXPECT_EQ(merged.conntrack_labels.to_ulong(), 0x22U);
  EXPECT_EQ(merged.conntrack_mark[L7M_STATE_FINAL], (MaskedValue{3, 3}));
}

TEST(MergeClasses, StateMarksInPacketAndConntrack) {
  const auto policy = policy_of(
      R"({ "name": "a", "mark": "0x85/0xff", "conntrack": { "mark": "0x1/0xf" } })",
      R"("state_marks": { "mask": "0xf00", "undecided": "0x100", "guessed": "0x300", "final": 1024,
                          "conntrack_mask": "0x400" },)");
  const auto merged = merge_classes(*policy, {0});
  EXPECT_EQ(merged.kernel[L7M_STATE_UNDECIDED].mark, 0x185U);
  EXPECT_EQ(merged.kernel[L7M_STATE_PROVISIONAL].mark, 0x085U);
  EXPECT_EQ(merged.kernel[L7M_STATE_GUESSED].mark, 0x385U);
  EXPECT_EQ(merged.kernel[L7M_STATE_FINAL].mark, 0x485U);
  for (const auto& action : merged.kernel) EXPECT_EQ(action.mark_mask, 0xfffU);
  EXPECT_EQ(merged.conntrack_mark[L7M_STATE_GUESSED], (MaskedValue{0x1, 0x40f}));
  EXPECT_EQ(merged.conntrack_mark[L7M_STATE_FINAL], (MaskedValue{0x401, 0x40f}));

  const auto none = merge_classes(*policy, {});
  EXPECT_EQ(none.class_name, "");
  EXPECT_EQ(none.kernel[L7M_STATE_FINAL].mark, 0x400U);
  EXPECT_EQ(none.kernel[L7M_STATE_FINAL].mark_mask, 0xf00U);
  EXPECT_EQ(none.kernel[L7M_STATE_FINAL].flags, L7M_ACT_MARK);
  EXPECT_EQ(none.kernel[L7M_STATE_FINAL].class_id, 0);
}

std::set<std::uint32_t> indexes(const std::vector<ActionTable::Write>& writes) {
  std::set<std::uint32_t> out;
  for (const auto& write : writes) out.insert(write.index);
  return out;
}

TEST(ActionTable, NumbersCombinationsAndTellsTheirWrites) {
  ActionTable table(policy_of(R"({ "name": "a", "mark": "0x1/0x1" }, { "name": "b" })"));
  EXPECT_THAT(indexes(table.take_writes()), ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(*table.intern({}), 0U);
  const auto a = *table.intern({0});
  const auto both = *table.intern({0, 1});
  EXPECT_EQ(*table.intern({0}), a);
  EXPECT_NE(a, both);
  const auto writes = table.take_writes();
  EXPECT_THAT(indexes(writes), ElementsAre(a * 4, a * 4 + 1, a * 4 + 2, a * 4 + 3, both * 4,
                                           both * 4 + 1, both * 4 + 2, both * 4 + 3));
  EXPECT_EQ(writes[0].action.mark, 1U);
  EXPECT_THAT(table.take_writes(), IsEmpty());
  EXPECT_EQ(ActionTable::index(a, FlowState::final), a * 4 + 3);
  EXPECT_EQ(ActionTable::id_of_index(a * 4 + 3), a);
  EXPECT_THAT(table.effective(both).classes, ElementsAre(0, 1));
  EXPECT_THAT(table.effective(4000).classes, IsEmpty()) << "not in use";
}

TEST(ActionTable, GenerationsDoNotShareNumbers) {
  ActionTable table(policy_of(R"({ "name": "old" })"));
  const auto old_id = *table.intern({0});
  (void)table.take_writes();
  const auto next = policy_of(R"({ "name": "new", "mark": "0x2/0x2" })",
                              R"("state_marks": { "mask": "0x10", "final": "0x10" },)");
  ASSERT_TRUE(table.begin_generation(next).ok());
  EXPECT_TRUE(table.has_previous());
  const auto zero = table.take_writes();
  EXPECT_THAT(indexes(zero), ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(zero[3].action.mark, 0x10U) << "flows without a class follow the new state marks";
  const auto new_id = *table.intern({0});
  EXPECT_NE(new_id, old_id);
  EXPECT_EQ(table.effective(old_id).class_name, "old");
  EXPECT_EQ(table.effective(new_id).class_name, "new");

  const auto early = table.begin_generation(next);
  ASSERT_FALSE(early.ok());
  EXPECT_EQ(early.error().message(),
            "cannot begin a generation of actions p.json: the one before is not retired yet");

  table.retire_previous();
  EXPECT_FALSE(table.has_previous());
  EXPECT_EQ(table.effective(old_id).class_name, "");
  EXPECT_EQ(table.effective(new_id).class_name, "new");
  EXPECT_TRUE(table.begin_generation(next).ok());
}

TEST(ActionTable, FreedNumbersRestBeforeTheyComeAgain) {
  const auto policy = policy_of(R"({ "name": "a" })");
  ActionTable table(policy);
  const auto first = *table.intern({0});
  for (int reload = 0; reload < 4000; ++reload) {
    ASSERT_TRUE(table.begin_generation(policy).ok());
    ASSERT_NE(*table.intern({0}), first);
    table.retire_previous();
  }
  EXPECT_EQ(table.size(), 2U);
}

TEST(ActionTable, SaysWhenAllNumbersAreTaken) {
  std::string classes;
  for (int i = 0; i < 13; ++i)
    classes += (i > 0 ? ", " : "") + std::string(R"({ "continue": true, "name": "c)") +
               std::to_string(i) + "\" }";
  const auto policy = policy_of(classes);
  ActionTable table(policy);
  // Every set of 13 classes is a combination: 8,191, of which the table takes 4,095.
  std::set<std::uint32_t> ids;
  for (std::uint32_t bits = 1; bits <= 4095; ++bits) {
    ClassList combination;
    for (std::uint16_t i = 0; i < 13; ++i)
      if ((bits >> i & 1) != 0) combination.push_back(i);
    const auto id = table.intern(combination);
    ASSERT_TRUE(id.ok());
    ids.insert(*id);
  }
  EXPECT_EQ(ids.size(), 4095U);
  EXPECT_EQ(*ids.rbegin(), std::uint32_t{L7M_MAX_ACTIONS / L7M_STATES - 1});
  const auto full = table.intern({12});
  ASSERT_FALSE(full.ok());
  EXPECT_EQ(full.error().message(),
            "cannot number a combination of classes c12: all 4095 numbers are taken: use fewer "
            "classes with \"continue\"");
  ASSERT_TRUE(table.begin_generation(policy).ok());
  table.retire_previous();
  EXPECT_TRUE(table.intern({12}).ok());
}

TEST(ActionTable, MarksNameTheClassBehindNat) {
  ActionTable table(policy_of(
      R"({ "name": "a", "mark": "0x10/0xff", "tc_class": "1:10" },
         { "name": "b", "mark": "0x10/0xff", "tc_class": "1:11" },
         { "name": "c", "mark": "0x20/0xff" }, { "name": "d", "tc_class": "1:12" })",
      R"("state_marks": { "mask": "0x300", "final": "0x100" },)"));
  for (std::uint16_t i = 0; i < 4; ++i) ASSERT_TRUE(table.intern({i}).ok());
  EXPECT_THAT(table.marks(),
              ElementsAre(Pair(0x10U, ActionTable::index(*table.intern({0}), FlowState::final))));
}

}  // namespace
}  // namespace l7mark
