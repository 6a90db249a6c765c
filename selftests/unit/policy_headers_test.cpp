// SPDX-License-Identifier: GPL-2.0-only
// Header rules against the matcher: what a flow's first packet tells must be what the matcher says
// in the end, and the tables for the kernel must say the same as the rules they are made of.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "policy/header_rules.hpp"
#include "policy/matcher.hpp"
#include "policy_catalog.hpp"

namespace l7mark {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using namespace std::chrono_literals;

// Wednesday, 6 March 2024, 12:00 UTC.
const WallTime kNoon = std::chrono::sys_days(std::chrono::year(2024) / 3 / 6) + 12h;
const std::vector<std::pair<std::string, std::uint32_t>> kInterfaces{{"lan0", 7}, {"lan1", 8}};

HeaderRules rules_of(const Policy& policy) {
  HeaderRules rules(policy, PolicyMatcher(std::make_shared<Policy>(policy)).in_schedule(kNoon));
  rules.set_interfaces(kInterfaces);
  return rules;
}

HeaderPoint point(const std::string& client, const std::string& server, std::uint16_t port,
                  std::uint8_t protocol = IPPROTO_TCP, std::uint32_t ifindex = 7) {
  return {*Address::parse(client), *Address::parse(server), port, protocol, ifindex};
}

// The first class by the rules: "-" for none, "exempt", and "?" behind a class that may yet give
// way to one in front.
std::string first_class(const Policy& policy, const HeaderPoint& at) {
  const auto found = rules_of(policy).find(at);
  if (!found) return "-";
  if (found->classes.empty()) return "exempt";
  std::string out;
  for (const std::uint16_t index : found->classes)
    out += (out.empty() ? "" : "+") + policy.classes[index].name;
  return found->certain ? out : out + "?";
}

const HeaderPoint kMail = point("192.168.1.20", "203.0.113.7", 25);
const HeaderPoint kWeb = point("192.168.1.20", "203.0.113.7", 443);

TEST(HeaderRules, ClassOfPortsIsCertain) {
  const auto policy = policy_of(R"({ "name": "mail", "match": { "server_ports": [25, "587"] } })");
  EXPECT_EQ(first_class(*policy, kMail), "mail");
  EXPECT_EQ(first_class(*policy, kWeb), "-");
  EXPECT_TRUE(rules_of(*policy).any_exact());
}

TEST(HeaderRules, ClassThatNeedsDetectionHasNoExactRule) {
  for (const char* match : {R"("applications": ["Zoom"])", R"("hostnames": ["x.org"])",
                            R"("states": ["final"])", R"("client_macs": ["00:53:00:12:34:56"])",
                            R"("midstream": false)", R"("not": { "applications": ["Zoom"] })"}) {
    const auto policy = policy_of(std::string(R"({ "name": "a", "match": {)") + match + "} }");
    EXPECT_FALSE(rules_of(*policy).any_exact()) << match;
    EXPECT_THAT(rules_of(*policy).rules(), IsEmpty()) << match;
  }
}

TEST(HeaderRules, EarlierClassThatMayMatchLeavesItUncertain) {
  const auto policy =
      policy_of(R"({ "name": "zoom", "match": { "applications": ["Zoom"], "transports": ["udp"] } },
                   { "name": "mail", "match": { "server_ports": [25] } })");
  EXPECT_EQ(first_class(*policy, kMail), "mail");
  HeaderPoint udp = kMail;
  udp.protocol = IPPROTO_UDP;
  EXPECT_EQ(first_class(*policy, udp), "mail?");
}

TEST(HeaderRules, ExemptionByAddressComesFirst) {
  const auto policy = policy_of(R"({ "name": "all" })",
                                R"("exemptions": [{ "clients": ["192.168.1.0/24"] },
                                                  { "hostnames": ["*.bank.example"],
                                                    "server_ports": [443] }],)");
  EXPECT_EQ(first_class(*policy, kMail), "exempt");
  EXPECT_EQ(first_class(*policy, point("10.0.0.1", "203.0.113.7", 25)), "all");
  EXPECT_EQ(first_class(*policy, point("10.0.0.1", "203.0.113.7", 443)), "all?");
}

TEST(HeaderRules, ExceptTakesPartOfAClass) {
  const auto policy = policy_of(R"({ "name": "mail", "match": { "server_ports": ["1-1000"] },
                                     "except": [{ "servers": ["203.0.113.0/28"] }] })");
  EXPECT_EQ(first_class(*policy, kMail), "-");
  EXPECT_EQ(first_class(*policy, point("10.0.0.1", "203.0.113.200", 25)), "mail");
}

TEST(HeaderRules, ClassesWithContinueAddUp) {
  const auto policy = policy_of(
      R"({ "name": "lan", "match": { "interfaces": ["lan0"] }, "continue": true },
         { "name": "v6", "match": { "ip_version": 6 }, "continue": true },
         { "name": "mail", "match": { "server_ports": [25] } })",
      R"("interfaces": [{ "name": "lan0" }, { "name": "lan1" }],)");
  EXPECT_EQ(first_class(*policy, kMail), "lan+mail");
  EXPECT_EQ(first_class(*policy, kWeb), "lan");
  EXPECT_EQ(first_class(*policy, point("2001:db8::1", "2001:db8::2", 25, IPPROTO_TCP, 8)),
            "v6+mail");
  EXPECT_EQ(first_class(*policy, point("10.0.0.1", "10.0.0.2", 443, IPPROTO_TCP, 8)), "-");
}

TEST(HeaderRules, OwnApplicationOfAddressesAndPorts) {
  const std::string own = R"("applications": [
      { "name": "Erp", "addresses": ["203.0.113.0/24"], "ports": [443] },
      { "name": "Crm", "addresses": ["198.51.100.0/24"], "hosts": ["crm.example"] }],)";
  const auto policy =
      policy_of(R"({ "name": "a", "match": { "applications": ["Erp", "Crm"] } })", own);
  EXPECT_EQ(first_class(*policy, kWeb), "a");
  EXPECT_EQ(first_class(*policy, kMail), "-");
  EXPECT_EQ(first_class(*policy, point("10.0.0.1", "198.51.100.9", 25)), "a");
  const auto alone = policy_of(R"({ "name": "a", "match": { "applications": ["Erp"] } })", own);
  EXPECT_EQ(first_class(*alone, kWeb), "a");
  EXPECT_EQ(first_class(*alone, kMail), "-");
}

TEST(HeaderRules, ScheduleOfNowDecides) {
  const auto policy = policy_of(R"({ "name": "night", "match": { "server_ports": [25] },
                                     "schedule": { "from": "22:00", "to": "23:00",
                                                   "timezone": "UTC" } },
                                   { "name": "day", "match": { "server_ports": [25] } })");
  EXPECT_EQ(first_class(*policy, kMail), "day");
}

TEST(HeaderRules, TooManyRulesLeaveTheLastClassesOut) {
  std::string classes;
  for (int i = 0; i < 300; ++i)
    classes += (i == 0 ? "" : ",") + std::string(R"({ "name": "c)") + std::to_string(i) +
               R"(", "match": { "server_ports": [)" + std::to_string(1000 + i) + "] } }";
  const auto policy = policy_of(classes);
  const HeaderRules rules = rules_of(*policy);
  EXPECT_EQ(rules.rules().size(), std::size_t{L7M_HEADER_RULES});
  ASSERT_EQ(rules.left_out().size(), 1U);
  EXPECT_EQ(rules.left_out()[0].first, 256);
  EXPECT_EQ(first_class(*policy, point("10.0.0.1", "10.0.0.2", 1255)), "c255");
  EXPECT_EQ(first_class(*policy, point("10.0.0.1", "10.0.0.2", 1256)), "-");
  EXPECT_THAT(policy->warnings, ElementsAre(HasSubstr("class \"c256\"")));
}

// --- against the matcher, at random --------------------------------------------------------------

class Dice {
 public:
  explicit Dice(unsigned seed) : random_(seed) {}
  std::size_t below(std::size_t limit) { return random_() % limit; }
  bool one_in(std::size_t n) { return below(n) == 0; }
  template <class T>
  const T& pick(const std::vector<T>& from) {
    return from[below(from.size())];
  }
  template <class T>
  std::vector<T> some(const std::vector<T>& from) {
    std::vector<T> out;
    for (std::size_t n = 1 + below(3); n > 0; --n) out.push_back(pick(from));
    return out;
  }

 private:
  std::mt19937 random_;
};

const std::vector<Prefix> kPrefixes = [] {
  std::vector<Prefix> out;
  for (const char* text :
       {"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "10.0.0.0/30", "10.0.0.1/32", "10.1.0.0/16",
        "203.0.113.0/24", "::/0", "::/64", "2001:db8::/32", "2001:db8::/64", "2001:db8::1/128"})
    out.push_back(*Prefix::parse(text));
  return out;
}();
const std::vector<std::string> kAddresses{
    "10.0.0.1", "10.0.0.2", "10.0.0.9",    "10.1.2.3",    "10.2.0.1",      "203.0.113.9",
    "0.0.0.0",  "::",       "2001:db8::1", "2001:db8::2", "2001:db8:1::1", "fe80::1"};
const std::vector<PortRange> kPorts{{25, 25}, {80, 90}, {85, 443}, {0, 0}, {1000, 65535}};
const std::vector<std::uint16_t> kPortNumbers{0, 25, 26, 80, 87, 90, 91, 443, 444, 1000, 65535};
const std::vector<std::uint8_t> kProtocols{IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, 255};

Match random_match(Dice& dice, bool detection, int depth) {
  Match out;
  if (dice.one_in(3)) out.clients = dice.some(kPrefixes);
  if (dice.one_in(3)) out.servers = dice.some(kPrefixes);
  if (dice.one_in(3)) out.server_ports = dice.some(kPorts);
  if (dice.one_in(4)) out.transports = dice.some(kProtocols);
  if (dice.one_in(6)) out.ip_version = dice.one_in(2) ? 4 : 6;
  if (dice.one_in(6)) out.interfaces = dice.some<std::string>({"lan0", "lan1", "gone"});
  if (dice.one_in(5)) out.applications = {kFirstOwnApplication};
  if (detection) {
    if (dice.one_in(5))
      out.applications =
          dice.some<std::uint16_t>({0, kZoom, kTls, kAbsentApplication, kFirstOwnApplication + 1});
    if (dice.one_in(12)) out.hostnames = {{"zoom.us", true}};
    if (dice.one_in(12)) out.masters = {kTls};
    if (dice.one_in(12)) out.states = static_cast<std::uint8_t>(1 + dice.below(15));
    if (dice.one_in(12)) out.confidences = 1U << static_cast<unsigned>(Confidence::port);
    if (dice.one_in(12)) out.midstream = dice.one_in(2);
    if (dice.one_in(12)) out.client_macs = {{0, 0x53, 0, 0, 0, 1}};
    if (dice.one_in(12)) out.risk_score = ScoreRange{10, UINT32_MAX};
  }
  if (depth == 0) return out;
  for (auto* list : {&out.any, &out.all, &out.none})
    if (dice.one_in(5))
      for (std::size_t n = 1 + dice.below(2); n > 0; --n)
        list->push_back(random_match(dice, detection, depth - 1));
  return out;
}

Policy random_policy(Dice& dice, bool detection) {
  Policy out;
  out.applications.push_back(
      {"Own", kFirstOwnApplication, {}, dice.some(kPrefixes), dice.some(kPorts)});
  out.applications.push_back(
      {"Named", kFirstOwnApplication + 1, {{"zoom.us", true}}, dice.some(kPrefixes), {}});
  if (dice.one_in(3)) out.exemptions.push_back(random_match(dice, detection, 1));
  for (std::size_t n = 1 + dice.below(5); n > 0; --n) {
    PolicyClass c;
    c.name = "c" + std::to_string(out.classes.size());
    c.match = random_match(dice, detection, 2);
    if (dice.one_in(4)) c.except.push_back(random_match(dice, detection, 1));
    c.proceed = dice.one_in(4);
    out.classes.push_back(std::move(c));
  }
  return out;
}

FlowFacts random_headers(Dice& dice) {
  FlowFacts facts;
  do {
    facts.client = *Address::parse(dice.pick(kAddresses));
    facts.server = *Address::parse(dice.pick(kAddresses));
  } while (facts.client.is_v4() != facts.server.is_v4());
  facts.client_port = 50000;
  facts.server_port = dice.pick(kPortNumbers);
  facts.protocol = dice.pick(kProtocols);
  facts.ifindex = static_cast<std::uint32_t>(6 + dice.below(3));
  return facts;
}

FlowFacts with_detection(FlowFacts facts, Dice& dice) {
  facts.application = dice.pick<std::uint16_t>({0, kZoom, kTls});
  facts.master = facts.application == 0 ? 0 : kTls;
  facts.hostname = dice.one_in(2) ? "us.zoom.us" : "";
  facts.confidence = dice.one_in(2) ? Confidence::port : Confidence::dpi;
  facts.midstream = dice.one_in(2);
  facts.risk_score = dice.one_in(2) ? 20 : 0;
  facts.client_mac[1] = 0x53;
  facts.client_mac[5] = static_cast<std::uint8_t>(dice.below(2));
  return facts;
}

constexpr FlowState kLaterStates[] = {FlowState::provisional, FlowState::guessed, FlowState::final};

TEST(HeaderRules, CertainClassIsTheMatchersWhateverDetectionFinds) {
  Dice dice(1);
  std::size_t certain = 0;
  for (int round = 0; round < 3000; ++round) {
    const auto policy = std::make_shared<const Policy>(random_policy(dice, true));
    PolicyMatcher matcher(policy);
    matcher.set_interfaces(kInterfaces);
    const HeaderRules rules = rules_of(*policy);
    for (int flow = 0; flow < 20; ++flow) {
      const FlowFacts headers = random_headers(dice);
      const auto found = rules.find(header_point(headers));
      if (!found || !found->certain) continue;
      ++certain;
      for (int end = 0; end < 20; ++end) {
        const FlowFacts facts = with_detection(headers, dice);
        const FlowState state = kLaterStates[dice.below(3)];
        ASSERT_EQ(matcher.match(facts, state, kNoon), found->classes)
            << "policy " << round << ", flow " << flow;
      }
    }
  }
  EXPECT_GT(certain, 5000U);
}

TEST(HeaderRules, WithoutDetectionTheRulesSayAllThatTheMatcherSays) {
  Dice dice(2);
  std::size_t hits = 0;
  std::size_t whole = 0;
  for (int round = 0; round < 3000; ++round) {
    const auto policy = std::make_shared<const Policy>(random_policy(dice, false));
    PolicyMatcher matcher(policy);
    matcher.set_interfaces(kInterfaces);
    const HeaderRules rules = rules_of(*policy);
    if (!rules.left_out().empty()) continue;
    ++whole;
    for (int flow = 0; flow < 20; ++flow) {
      const FlowFacts facts = random_headers(dice);
      const auto found = rules.find(header_point(facts));
      const ClassList expected = matcher.match(facts, FlowState::final, kNoon);
      ASSERT_EQ(found ? found->classes : ClassList{}, expected)
          << "policy " << round << ", flow " << flow;
      ASSERT_TRUE(!found || found->certain) << "policy " << round << ", flow " << flow;
      hits += expected.empty() ? 0 : 1;
    }
  }
  EXPECT_GT(hits, 5000U);
  EXPECT_GT(whole, 2900U);
}

// The longest entry that holds the key, as the kernel finds it.
HeaderMask look_up(const std::vector<HeaderEntry>& entries, HeaderTable table,
                   const std::array<std::uint8_t, 16>& key) {
  const HeaderEntry* best = nullptr;
  for (const HeaderEntry& entry : entries) {
    if (entry.table != table || (best != nullptr && entry.length <= best->length)) continue;
    bool holds = true;
    for (unsigned bit = 0; bit < entry.length; ++bit)
      holds = holds && ((entry.key[bit / 8] ^ key[bit / 8]) >> (7 - bit % 8) & 1) == 0;
    if (holds) best = &entry;
  }
  return best == nullptr ? HeaderMask{} : best->rules;
}

TEST(HeaderRules, TablesSayTheSameAsTheRules) {
  Dice dice(3);
  for (int round = 0; round < 1000; ++round) {
    const Policy policy = random_policy(dice, round % 2 == 0);
    const HeaderRules rules = rules_of(policy);
    const auto entries = rules.entries();
    for (int flow = 0; flow < 20; ++flow) {
      const HeaderPoint at = header_point(random_headers(dice));
      HeaderMask left = look_up(entries, HeaderTable::client, at.client.bytes);
      const auto narrow = [&](HeaderTable table, const std::array<std::uint8_t, 16>& key) {
        const HeaderMask more = look_up(entries, table, key);
        for (std::size_t i = 0; i < left.size(); ++i) left[i] &= more[i];
      };
      narrow(HeaderTable::server, at.server.bytes);
      narrow(HeaderTable::port, {static_cast<std::uint8_t>(at.server_port >> 8),
                                 static_cast<std::uint8_t>(at.server_port)});
      narrow(HeaderTable::transport,
             {static_cast<std::uint8_t>(at.client.is_v4() ? 4 : 6), at.protocol});
      narrow(HeaderTable::interface, {0, 0, 0, static_cast<std::uint8_t>(at.ifindex)});
      bool certain = true;
      const HeaderRule* rule = nullptr;
      for (std::size_t i = 0; i < rules.rules().size() && rule == nullptr; ++i) {
        if ((left[i / 64] >> (i % 64) & 1) == 0) continue;
        if (rules.rules()[i].exact) rule = &rules.rules()[i];
        certain = certain && rules.rules()[i].exact;
      }
      const auto found = rules.find(at);
      ASSERT_EQ(rule != nullptr, found.has_value()) << "policy " << round << ", flow " << flow;
      if (!found) continue;
      ASSERT_EQ(rule->classes, found->classes) << "policy " << round << ", flow " << flow;
      ASSERT_EQ(certain, found->certain) << "policy " << round << ", flow " << flow;
    }
  }
}

// Conditions of classes that come to no rule take room, too.
TEST(HeaderRules, ThousandsOfConditionsAreLeftOutInNoTime) {
  Policy policy;
  for (std::uint16_t c = 0; c < kMaxClasses; ++c) {
    PolicyClass one;
    one.name = "c" + std::to_string(c);
    for (std::uint16_t i = 0; i < 100; ++i) {
      Match match;
      match.server_ports = {{static_cast<std::uint16_t>(c * 30 + i), 65535}};
      match.applications = {kZoom};
      match.states = 1U << L7M_STATE_FINAL;
      match.clients = {*Prefix::parse("10.0.0.0/8")};
      match.transports = {static_cast<std::uint8_t>(i)};
      one.match.any.push_back(match);
    }
    policy.classes.push_back(one);
  }
  policy.classes.front().match = {};
  policy.classes.front().match.server_ports = {{25, 25}};
  const std::vector<bool> always(policy.classes.size(), true);
  const auto begin = std::chrono::steady_clock::now();
  const HeaderRules rules(policy, always);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 20s);  // a sanitizer's build takes its time
  EXPECT_THAT(rules.left_out().back().second, HasSubstr("no room"));
  const auto found = rules.find(kMail);
  ASSERT_TRUE(found);
  EXPECT_THAT(found->classes, ElementsAre(0));
  EXPECT_FALSE(rules.find(kWeb));
}

TEST(HeaderRules, ThousandsOfPrefixesAreCompiledInNoTime) {
  Policy policy;
  for (int c = 0; c < 4; ++c) {
    PolicyClass one;
    one.name = "c" + std::to_string(c);
    for (int i = 0; i < 20000; ++i)
      one.match.servers.push_back(
          *Prefix::parse(std::to_string(11 + c) + "." + std::to_string(i / 256) + "." +
                         std::to_string(i % 256) + ".0/" + (i % 2 == 0 ? "24" : "25")));
    policy.classes.push_back(one);
  }
  const auto begin = std::chrono::steady_clock::now();
  const HeaderRules rules = rules_of(policy);
  const auto entries = rules.entries();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 20s);  // a sanitizer's build takes its time
  EXPECT_EQ(std::count_if(entries.begin(), entries.end(),
                          [](const auto& e) { return e.table == HeaderTable::server; }),
            1 + 4 * 20000);
  EXPECT_EQ(first_class(policy, point("10.0.0.1", "13.1.2.3", 443)), "c2");
}

}  // namespace
}  // namespace l7mark
