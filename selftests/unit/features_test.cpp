// SPDX-License-Identifier: GPL-2.0-only
// What is said about features; what a kernel has is the kernel matrix's to test.
#include "dataplane/features.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <nlohmann/json.hpp>

namespace l7mark {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A kernel that has everything.
Features complete() {
  const Features none;
  Features features;
  for (const Feature& feature : none.all()) features.set(feature.id, 0);
  return features;
}

TEST(Features, NothingIsPresentBeforeTheProbe) {
  const Features none;
  for (const Feature& feature : none.all()) {
    EXPECT_FALSE(feature.present) << feature.name;
  }
}

TEST(Features, EveryFeatureSaysWhatItIsAndWhichWayIsTaken) {
  const Features none;
  for (const Feature& feature : none.all()) {
    EXPECT_FALSE(feature.name.empty());
    EXPECT_FALSE(feature.use.empty()) << feature.name;
    EXPECT_FALSE(feature.with.empty()) << feature.name;
    EXPECT_THAT(std::string(feature.since), ::testing::MatchesRegex("[0-9]+\\.[0-9]+"))
        << feature.name;
    EXPECT_EQ(feature.path(), feature.required() ? "refused" : feature.without) << feature.name;
  }
}

// XDP is put on by netlink, whatever else the kernel has.
TEST(Features, NoneIsListedThatNoPathDependsOn) {
  Features features = complete();
  EXPECT_FALSE(features.disable("xdp_link").ok());
  EXPECT_THAT(format_features(features, "6.18"), Not(HasSubstr("detaches itself")));
}

TEST(Features, MissingRequiredFeatureIsRefusedByNameAndVersion) {
  Features features = complete();
  ASSERT_TRUE(features.check_required().ok());
  features.set(FeatureId::ring_buffer, EINVAL);
  const Status status = features.check_required();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, EINVAL);
  EXPECT_THAT(status.error().message(), HasSubstr("ring_buffer"));
  EXPECT_THAT(status.error().message(), HasSubstr("since 5.8"));
}

TEST(Features, MissingOptionalFeatureTakesTheOtherPath) {
  Features features = complete();
  EXPECT_EQ(features.get(FeatureId::tcx).path(), "TCX link");
  features.set(FeatureId::tcx, EINVAL);
  EXPECT_TRUE(features.check_required().ok());
  EXPECT_EQ(features.get(FeatureId::tcx).path(), "clsact qdisc with a bpf filter");
}

TEST(Features, DisableSwitchesOffWhatItNames) {
  Features features = complete();
  ASSERT_TRUE(features.disable("tcx,map_batch,").ok());
  EXPECT_FALSE(features.has(FeatureId::tcx));
  EXPECT_FALSE(features.has(FeatureId::map_batch));
  EXPECT_TRUE(features.has(FeatureId::xdp_load_bytes));
}

TEST(Features, DisableRefusesUnknownAndRequiredNames) {
  Features features = complete();
  const Status unknown = features.disable("map_bacth");
  ASSERT_FALSE(unknown.ok());
  EXPECT_THAT(unknown.error().message(), HasSubstr("did you mean map_batch"));
  const Status required = features.disable("lru_hash");
  ASSERT_FALSE(required.ok());
  EXPECT_THAT(required.error().message(), HasSubstr("lru_hash"));
  EXPECT_TRUE(features.has(FeatureId::lru_hash));
}

TEST(Features, TableNamesKernelResultAndPath) {
  Features features = complete();
  features.set(FeatureId::tcx, EINVAL);
  ASSERT_TRUE(features.disable("map_batch").ok());
  const std::string text = format_features(features, "5.10.0-test");
  EXPECT_THAT(text, HasSubstr("kernel 5.10.0-test\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex("tcx +no +6\\.6 +.*clsact qdisc"));
  EXPECT_THAT(text, ::testing::ContainsRegex("map_batch +off +5\\.6 +.*one call for each entry"));
  EXPECT_THAT(text, ::testing::ContainsRegex("ring_buffer +yes +5\\.8 "));
  EXPECT_THAT(text, Not(HasSubstr("cannot use this kernel")));
  features.set(FeatureId::lru_hash, EINVAL);
  EXPECT_THAT(format_features(features, "x"), HasSubstr("cannot use this kernel lru_hash"));
}

TEST(Features, JsonHoldsEveryFeature) {
  Features features = complete();
  features.set(FeatureId::tcx, EINVAL);
  const auto document = nlohmann::json::parse(features_json(features, "6.1.0\xff"));
  EXPECT_EQ(document.at("usable"), true);
  ASSERT_EQ(document.at("features").size(), kFeatureCount);
  for (const auto& entry : document.at("features")) {
    const bool is_tcx = entry.at("name") == "tcx";
    EXPECT_EQ(entry.at("present"), !is_tcx) << entry;
    EXPECT_EQ(entry.at("errno"), is_tcx ? EINVAL : 0) << entry;
  }
}

}  // namespace
}  // namespace l7mark
