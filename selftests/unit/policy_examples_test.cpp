// SPDX-License-Identifier: GPL-2.0-only
// The example policies and the JSON Schema, against the parser and the names of the real nDPI.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "dpi/engine.hpp"
#include "policy/matcher.hpp"
#include "policy_catalog.hpp"

namespace l7mark {
namespace {

const std::string kSource = L7MARK_SOURCE_DIR;

const Catalog& real_catalog() {
  static const Catalog catalog = [] {
    Catalog out;
    const auto engine = Engine::make();
    EXPECT_TRUE(engine.ok());
    if (engine.ok()) engine->fill(out);
    return out;
  }();
  return catalog;
}

const nlohmann::json& schema() {
  static const nlohmann::json loaded =
      nlohmann::json::parse(std::ifstream(kSource + "/packaging/l7mark-policy.schema.json"));
  return loaded;
}

Policy example(const std::string& name) {
  auto policy = load_policy(kSource + "/examples/" + name, real_catalog());
  EXPECT_TRUE(policy.ok()) << policy.error().message();
  return policy.ok() ? std::move(*policy) : Policy{};
}

std::set<std::string> keys_of(const nlohmann::json& object) {
  std::set<std::string> out;
  for (const auto& [key, value] : object.items()) out.insert(key);
  return out;
}

TEST(PolicyExamples, AllAreReadWithoutWarning) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kSource + "/examples")) {
    if (entry.path().extension() != ".jsonc") continue;
    names.insert(entry.path().filename());
    const Policy policy = example(entry.path().filename());
    EXPECT_FALSE(policy.classes.empty()) << entry.path();
    EXPECT_THAT(policy.warnings, testing::IsEmpty()) << entry.path();
  }
  EXPECT_THAT(names, testing::IsSupersetOf({"block-vpn.jsonc", "shape-bittorrent.jsonc",
                                            "two-wans.jsonc", "weak-tls.jsonc", "zoom.jsonc"}));
}

TEST(PolicyExamples, ReadmeNamesEachOfThem) {
  std::ifstream file(kSource + "/examples/README.md");
  const std::string readme((std::istreambuf_iterator<char>(file)), {});
  for (const auto& entry : std::filesystem::directory_iterator(kSource + "/examples"))
    if (entry.path().extension() == ".jsonc") {
      EXPECT_THAT(readme, testing::HasSubstr("(" + entry.path().filename().string() + ")"));
    }
}

// The classes that a flow of `application` over `master` gets from an example.
std::vector<std::string> classes_of(const std::string& name, std::string_view application,
                                    std::string_view master, FlowFacts facts = {}) {
  const auto policy = std::make_shared<const Policy>(example(name));
  facts.application = real_catalog().application(application).value_or(UINT16_MAX);
  facts.master = real_catalog().application(master).value_or(UINT16_MAX);
  facts.category = real_catalog().application_category(facts.application);
  if (facts.server_port == 0) facts.server_port = 443;
  facts.protocol = IPPROTO_TCP;
  std::vector<std::string> out;
  const WallTime noon =
      std::chrono::sys_days(std::chrono::year(2024) / 3 / 6) + std::chrono::hours(12);
  const PolicyMatcher matcher(policy);
  const FlowState state = application == "Unknown" ? FlowState::guessed : FlowState::final;
  for (const std::uint16_t index : matcher.match(facts, state, noon))
    out.push_back(policy->classes[index].name);
  return out;
}

TEST(PolicyExamples, TheJobsTakeTheirFlowsAndNoOthers) {
  using testing::ElementsAre;
  using testing::IsEmpty;
  EXPECT_THAT(classes_of("zoom.jsonc", "Zoom", "TLS"), ElementsAre("zoom"));
  EXPECT_THAT(classes_of("zoom.jsonc", "TLS", "TLS"), IsEmpty());

  EXPECT_THAT(classes_of("block-vpn.jsonc", "OpenVPN", "OpenVPN"), ElementsAre("vpn"));
  EXPECT_THAT(classes_of("block-vpn.jsonc", "WireGuard", "WireGuard"), ElementsAre("vpn"));
  EXPECT_THAT(classes_of("block-vpn.jsonc", "Unknown", "Unknown"), ElementsAre("not-tls-on-443"));
  EXPECT_THAT(classes_of("block-vpn.jsonc", "TLS", "TLS"), IsEmpty());
  FlowFacts site;
  site.server = *Address::parse("198.51.100.10");
  EXPECT_THAT(classes_of("block-vpn.jsonc", "OpenVPN", "OpenVPN", site), IsEmpty());

  FlowFacts tls;
  tls.details.tls_version = 0x0303;
  tls.details.tls_cipher_id = 0xc02f;
  EXPECT_THAT(classes_of("weak-tls.jsonc", "TLS", "TLS", tls), IsEmpty());
  tls.risks = std::uint64_t{1} << 9;
  EXPECT_THAT(classes_of("weak-tls.jsonc", "TLS", "TLS", tls), ElementsAre("bad-certificate"));
  tls.details.tls_version = 0x0301;
  tls.details.tls_cipher_id = 0x0005;
  EXPECT_THAT(classes_of("weak-tls.jsonc", "TLS", "TLS", tls),
              ElementsAre("obsolete-tls", "weak-cipher", "bad-certificate"));

  EXPECT_THAT(classes_of("two-wans.jsonc", "Zoom", "TLS"), ElementsAre("low-latency"));
  EXPECT_THAT(classes_of("two-wans.jsonc", "HTTP", "HTTP"), ElementsAre("rest"));

  FlowFacts game;
  game.hostname = "fortnite-matchmaking.ol.epicgames.com";
  EXPECT_THAT(classes_of("shape-bittorrent.jsonc", "TLS", "TLS", game), ElementsAre("first"));
  EXPECT_THAT(classes_of("shape-bittorrent.jsonc", "TLS", "TLS"), IsEmpty());
}

TEST(PolicySchema, HasTheParsersKeys) {
  std::set<std::string> objects;
  for (const auto& table : policy_key_tables()) {
    SCOPED_TRACE(table.object);
    objects.insert(table.object);
    const auto& node = table.object == "policy" ? schema() : schema()["$defs"][table.object];
    ASSERT_TRUE(node.contains("properties"));
    EXPECT_EQ(keys_of(node["properties"]),
              std::set<std::string>(table.keys.begin(), table.keys.end()));
    EXPECT_EQ(node["additionalProperties"], false);
    const auto required = node.value("required", std::vector<std::string>{});
    EXPECT_THAT(required, testing::UnorderedElementsAreArray(table.required));
  }
  for (const auto& [name, node] : schema()["$defs"].items())
    if (node.contains("properties")) {
      EXPECT_THAT(objects, testing::Contains(name)) << "the parser has no such object";
    }
}

TEST(PolicySchema, DescribesEveryKey) {
  for (const auto& table : policy_key_tables()) {
    const auto& node = table.object == "policy" ? schema() : schema()["$defs"][table.object];
    for (const auto& [key, property] : node["properties"].items()) {
      std::string text = property.value("description", "");
      const std::string reference = property.value("$ref", "");
      if (text.empty() && reference.starts_with("#/$defs/"))
        text = schema()["$defs"][reference.substr(8)].value("description", "");
      EXPECT_FALSE(text.empty()) << table.object << "." << key;
    }
  }
}

// A range that the schema shows is the parser's: one beyond either end is refused by both.
TEST(PolicySchema, RangesAreTheParsers) {
  int ranges = 0;
  for (const std::string object : {"sampling", "limits", "timeouts", "first_packet", "log"}) {
    for (const auto& [key, property] : schema()["$defs"][object]["properties"].items()) {
      if (!property.contains("minimum")) continue;
      ++ranges;
      const auto message = [&, name = key](std::int64_t value) {
        const auto policy = parse_policy(
            nlohmann::json{{"version", 1}, {object, {{name, value}}}}.dump(), "p", real_catalog());
        return policy.ok() ? std::string() : policy.error().message();
      };
      const auto min = property["minimum"].get<std::int64_t>();
      const auto max = property["maximum"].get<std::int64_t>();
      EXPECT_THAT(message(min - 1), testing::HasSubstr("must be a whole number from")) << key;
      EXPECT_THAT(message(max + 1), testing::HasSubstr("must be a whole number from")) << key;
      EXPECT_THAT(message(min), testing::Not(testing::HasSubstr("whole number"))) << key;
      EXPECT_EQ(message(property["default"].get<std::int64_t>()), "") << key;
    }
  }
  EXPECT_EQ(ranges, 25);
}

}  // namespace
}  // namespace l7mark
