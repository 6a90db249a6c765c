// SPDX-License-Identifier: GPL-2.0-only
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <string>
#include <vector>

#include "policy/matcher.hpp"
#include "policy_catalog.hpp"

namespace l7mark {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using namespace std::chrono_literals;

// Wednesday, 6 March 2024, 12:00 UTC.
const WallTime kNoon = std::chrono::sys_days(std::chrono::year(2024) / 3 / 6) + 12h;

// A Zoom call over TLS from a client in the LAN.
FlowFacts zoom_flow() {
  FlowFacts facts;
  facts.client = *Address::parse("192.168.1.20");
  facts.server = *Address::parse("203.0.113.7");
  facts.client_port = 50000;
  facts.server_port = 443;
  facts.protocol = IPPROTO_TCP;
  facts.application = kZoom;
  facts.master = kTls;
  facts.category = kCategoryVideo;
  facts.risks = std::uint64_t{1} << 8;
  facts.risk_score = 100;
  facts.hostname = "us04web.zoom.us";
  facts.details.tls_version = 0x0302;
  facts.details.tls_cipher_id = 0x0005;
  facts.details.alpn = "h2,http/1.1";
  facts.details.ja4_client = "t13d1516h2_8daaf6152771_b186095e22b6";
  facts.details.ech = true;
  facts.confidence = Confidence::dpi;
  facts.ifindex = 7;
  const MacAddress mac{0x00, 0x53, 0x00, 0x12, 0x34, 0x56};
  std::copy(mac.begin(), mac.end(), std::begin(facts.client_mac));
  return facts;
}

// A policy of one class with this match.
PolicyMatcher matcher_of(const std::string& match) {
  PolicyMatcher matcher(policy_of(R"({ "name": "a", "match": {)" + match + "} }",
                                  R"("interfaces": [{ "name": "lan0" }, { "name": "lan1" }],
         "applications": [{ "name": "Own", "hosts": ["*.zoom.us"], "ports": [443] },
                          { "name": "Net", "addresses": ["203.0.113.0/24"], "hosts": ["x.org"] },
                          { "name": "Port", "ports": ["8000-8080"] }],)"));
  matcher.set_interfaces({{"lan0", 7}, {"lan1", 8}});
  return matcher;
}

// True if a class with this match takes the flow.
bool matches(const std::string& match, const FlowFacts& facts, FlowState state = FlowState::final) {
  return !matcher_of(match).match(facts, state, kNoon).empty();
}

// The flow as its headers tell it, without an answer.
FlowFacts without_answer(FlowFacts facts) {
  facts.application = facts.master = facts.category = 0;
  facts.confidence = Confidence::none;
  facts.risks = 0;
  facts.risk_score = 0;
  facts.hostname.clear();
  facts.details = {};
  return facts;
}

enum class Needs { headers, detection };

struct KeyCase {
  std::string key;
  std::string hit;  // value of the key with which a match of it alone takes zoom_flow()
  std::string miss;
  Needs needs;
};

std::string match_of(const std::string& key, const std::string& value) {
  return "\"" + key + "\": " + value;
}

const std::vector<KeyCase> kKeyCases{
    {"applications", R"(["Zoom"])", R"(["DNS"])", Needs::detection},
    {"masters", R"(["TLS"])", R"(["Zoom"])", Needs::detection},
    {"categories", R"(["Video"])", R"(["VPN"])", Needs::detection},
    {"risks", "[8]", "[6]", Needs::detection},
    {"risk_score", R"({ "min": 100 })", R"({ "min": 101 })", Needs::detection},
    {"hostnames", R"(["*.zoom.us"])", R"(["zoom.us"])", Needs::detection},
    {"servers", R"(["203.0.113.7"])", R"(["203.0.113.8"])", Needs::headers},
    {"server_ports", "[443]", "[80]", Needs::headers},
    {"clients", R"(["192.168.1.0/24"])", R"(["192.168.2.0/24"])", Needs::headers},
    {"client_macs", R"(["00:53:00:12:34:56"])", R"(["00:53:00:12:34:57"])", Needs::headers},
    {"interfaces", R"(["lan0"])", R"(["lan1"])", Needs::headers},
    {"ip_version", "4", "6", Needs::headers},
    {"transports", R"(["tcp"])", R"(["udp"])", Needs::headers},
    {"tls_version", R"(["1.1"])", R"(["1.2"])", Needs::detection},
    {"tls_ciphers", R"(["*_RC4_*"])", R"(["*_AES_*"])", Needs::detection},
    {"alpn", R"(["http/*"])", R"(["h3"])", Needs::detection},
    {"ja4", R"(["t13d*_8daaf6152771_*"])", R"(["q13d*"])", Needs::detection},
    {"ech", "true", "false", Needs::detection},
    {"confidence", R"(["detector", "dpi"])", R"(["cache", "port"])", Needs::detection},
    {"states", R"(["final"])", R"(["guessed"])", Needs::headers},
    {"midstream", "false", "true", Needs::headers},
    {"any", R"([{ "masters": ["TLS"] }])", R"([{ "masters": ["DNS"] }])", Needs::detection},
    {"all", R"([{ "masters": ["TLS"] }, { "applications": ["Zoom"] }])",
     R"([{ "masters": ["TLS"] }, { "applications": ["DNS"] }])", Needs::detection},
    {"not", R"({ "masters": ["DNS"] })", R"({ "masters": ["TLS"] })", Needs::detection},
};

// A class whose key the matcher forgets takes every flow, and nothing says so: no key may be
// without its cases.
TEST(PolicyMatch, EveryKeyOfTheParserHasItsCases) {
  const auto tables = policy_key_tables();
  const auto table = std::find_if(tables.begin(), tables.end(),
                                  [](const KeyTable& one) { return one.object == "match"; });
  ASSERT_NE(table, tables.end());
  std::set<std::string> covered;
  for (const KeyCase& one : kKeyCases) covered.insert(one.key);
  EXPECT_EQ(covered, std::set<std::string>(table->keys.begin(), table->keys.end()));
}

TEST(PolicyMatch, EveryKeyHitsAndMisses) {
  const FlowFacts facts = zoom_flow();
  for (const auto& [key, hit, miss, needs] : kKeyCases) {
    SCOPED_TRACE(key);
    const std::string hits = match_of(key, hit);
    const std::string misses = match_of(key, miss);
    EXPECT_TRUE(matches(hits, facts));
    EXPECT_FALSE(matches(misses, facts));
    const PolicyMatcher matcher = matcher_of(hits);
    EXPECT_FALSE(matcher.policy().classes[0].match.matches_all());
    const FlowFacts bare = without_answer(facts);
    EXPECT_EQ(matcher.source(bare, {0}),
              needs == Needs::headers ? Source::headers : Source::answer);
    EXPECT_EQ(matcher.source(facts, {0}), Source::answer);
    if (needs == Needs::headers) continue;
    // Not before detection is done: it may come out either way.
    EXPECT_FALSE(matches(hits, bare, FlowState::undecided));
    EXPECT_FALSE(matches("\"not\": {" + misses + "}", bare, FlowState::undecided));
  }
  EXPECT_TRUE(Match{}.matches_all());
}

TEST(PolicyMatch, WhoDecided) {
  const PolicyMatcher matcher(
      policy_of(R"(
      { "name": "lan", "match": { "clients": ["192.168.0.0/16"] }, "continue": true },
      { "name": "port", "match": { "applications": ["Port", "SkypeCall"] }, "continue": true },
      { "name": "unknown", "match": { "applications": ["Unknown"] } },
      { "name": "but", "match": { "ip_version": 4 }, "except": { "hostnames": ["a.example"] } })",
                R"("applications": [{ "name": "Port", "ports": [443] }],)"));
  const FlowFacts bare = without_answer(zoom_flow());
  EXPECT_EQ(matcher.source(bare, {}), Source::none);
  EXPECT_EQ(matcher.source(bare, {0, 1}), Source::headers);
  EXPECT_EQ(matcher.source(bare, {0, 2}), Source::answer);
  EXPECT_EQ(matcher.source(bare, {3}), Source::answer);
  EXPECT_EQ(matcher.source(zoom_flow(), {}), Source::answer);
}

// As in a policy for another version of nDPI.
// A guess may mark, but not drop: the classes that hold by it are told apart, unless they name it.
TEST(PolicyMatch, ClassesThatHoldByAGuess) {
  struct Case {
    std::string match;
    bool by_port = false;  // the class holds by the guess when the confidence is `port`
  };
  const std::vector<Case> cases{
      {R"("applications": ["Zoom"])", true},
      {R"("masters": ["TLS"])", true},
      {R"("categories": ["Video"])", true},
      {R"("any": [{ "applications": ["DNS"] }, { "categories": ["Video"] }])", true},
      {R"("all": [{ "applications": ["Zoom"] }, { "server_ports": [443] }])", true},
      {R"("applications": ["Zoom"], "confidence": ["address"])", false},  // does not match at all
      {R"("applications": ["Zoom"], "confidence": ["port"])", false},
      {R"("all": [{ "applications": ["Zoom"] }, { "confidence": ["dpi", "port"] }])", false},
      {R"("any": [{ "applications": ["Zoom"] }, { "server_ports": [443] }])", false},
      {R"("server_ports": [443])", false},
      {R"("risks": [8])", false},
      {R"("hostnames": ["*.zoom.us"])", false},
      {R"("applications": ["Own"])", false},
      {R"("states": ["guessed"])", false},
      {R"("not": { "applications": ["DNS"] })", false},
  };
  for (const auto& [match, by_port] : cases) {
    const PolicyMatcher matcher = matcher_of(match);
    FlowFacts facts = zoom_flow();
    const auto by_guess = [&](Confidence confidence, FlowState state) {
      facts.confidence = confidence;
      return !matcher.by_guess(facts, state, matcher.match(facts, state, kNoon)).empty();
    };
    EXPECT_EQ(by_guess(Confidence::port, FlowState::guessed), by_port) << match;
    EXPECT_EQ(by_guess(Confidence::port, FlowState::provisional),
              by_port && match.find("states") == std::string::npos)
        << match;
    EXPECT_FALSE(by_guess(Confidence::dpi, FlowState::final)) << match;
    EXPECT_FALSE(by_guess(Confidence::detector, FlowState::final)) << match;
    // Taken over from the kernel, where no confidence is kept.
    EXPECT_FALSE(by_guess(Confidence::none, FlowState::final)) << match;
    facts = without_answer(facts);
    EXPECT_FALSE(by_guess(Confidence::none, FlowState::guessed)) << match;
  }
  const PolicyMatcher matcher = matcher_of(R"("applications": ["Zoom"])");
  FlowFacts facts = zoom_flow();
  for (const Confidence guess : {Confidence::address, Confidence::cache}) {
    facts.confidence = guess;
    EXPECT_THAT(matcher.by_guess(facts, FlowState::guessed, {0}), ElementsAre(0));
    EXPECT_EQ(matcher.source(facts, {0}), Source::guess);
  }
}

TEST(PolicyMatch, ApplicationsThatThisNdpiLacksMatchNothing) {
  const FlowFacts facts = zoom_flow();
  for (const char* match :
       {R"("applications": ["SkypeCall"])", R"("applications": ["SkypeCall", "SkypeTeams"])",
        R"("masters": ["SkypeCall"])", R"("any": [{ "applications": ["SkypeCall"] }])",
        R"("applications": ["SkypeCall"], "ip_version": 4)"})
    for (const FlowState state : {FlowState::undecided, FlowState::final}) {
      EXPECT_FALSE(matches(match, facts, state)) << match;
      EXPECT_FALSE(matches(match, without_answer(facts), state)) << match;
    }
  EXPECT_TRUE(matches(R"("applications": ["SkypeCall", "Zoom"])", facts));
  EXPECT_TRUE(matches(R"("not": { "applications": ["SkypeCall"] })", facts));
  const PolicyMatcher exempting(
      policy_of(R"({ "name": "a" })", R"("exemptions": [{ "applications": ["SkypeCall"] }],)"));
  EXPECT_THAT(exempting.match(facts, FlowState::final, kNoon), ElementsAre(0));
}

TEST(PolicyMatch, EachKeyMatchesAndMisses) {
  const FlowFacts facts = zoom_flow();
  const std::vector<const char*> hits{
      R"()",
      R"("applications": ["zoom"])",
      R"("applications": ["DNS", "Zoom"])",
      R"("applications": ["Own"])",
      R"("applications": ["Net"])",
      R"("applications": ["OpenVPN", "Net"])",
      R"("masters": ["TLS"])",
      R"("categories": ["Video"])",
      R"("risks": ["Weak TLS Cipher"])",
      R"("risks": [6, 8])",
      R"("risk_score": { "min": 100 })",
      R"("risk_score": { "min": 1, "max": 100 })",
      R"("hostnames": ["us04web.zoom.us"])",
      R"("hostnames": ["*.zoom.us"])",
      R"("hostnames": ["example.org", "*.us"])",
      R"("servers": ["203.0.113.0/29"])",
      R"("servers": ["198.51.100.1", "203.0.113.7"])",
      R"("server_ports": [80, "440-443"])",
      R"("clients": ["192.168.0.0/16"])",
      R"("clients": ["0.0.0.0/0"])",
      R"("client_macs": ["00:53:00:12:34:56"])",
      R"("interfaces": ["lan0"])",
      R"("ip_version": 4)",
      R"("transports": ["udp", "tcp"])",
      R"("transports": [6])",
      R"("tls_version": { "max": "1.1" })",
      R"("tls_version": ["1.1", "1.3"])",
      R"("tls_version": { "min": "1.0" })",
      R"("tls_ciphers": ["*_RC4_*"])",
      R"("alpn": ["h2"])",
      R"("alpn": ["h3", "HTTP/1.1"])",
      R"("ja4": ["T13D1516H2_8DAAF6152771_B186095E22B6"])",
      R"("states": ["guessed", "final"])",
      R"("midstream": false)",
      R"("any": [{ "applications": ["DNS"] }, { "applications": ["Zoom"] }])",
      R"("all": [{ "masters": ["TLS"] }, { "applications": ["Zoom"] }])",
      R"("not": { "applications": ["DNS"] })",
      R"("not": { "any": [{ "applications": ["DNS"] }, { "ip_version": 6 }] })",
      R"("applications": ["Zoom"], "server_ports": [443], "any": [{ "ip_version": 4 }])",
  };
  const std::vector<const char*> misses{
      R"("applications": ["TLS"])",
      R"("applications": ["Port"])",
      R"("applications": ["Unknown"])",
      R"("masters": ["Zoom"])",
      R"("categories": ["VPN"])",
      R"("risks": [6])",
      R"("risk_score": { "min": 101 })",
      R"("risk_score": { "max": 99 })",
      R"("hostnames": ["zoom.us"])",
      R"("hostnames": ["*.us04web.zoom.us"])",
      R"("hostnames": ["*.oom.us"])",
      R"("servers": ["203.0.113.8/29"])",
      R"("server_ports": ["444-65535"])",
      R"("clients": ["192.168.2.0/24"])",
      R"("clients": ["::/0"])",
      R"("client_macs": ["00:53:00:12:34:57"])",
      R"("interfaces": ["lan1"])",
      R"("ip_version": 6)",
      R"("transports": ["udp"])",
      R"("tls_version": { "max": "1.0" })",
      R"("tls_version": { "min": "1.2" })",
      R"("tls_ciphers": ["*_AES_*"])",
      R"("alpn": ["http", "h", "*3"])",
      R"("ja4": ["t13d1516h2_8daaf6152771_b186095e22b7"])",
      R"("states": ["provisional"])",
      R"("midstream": true)",
      R"("any": [{ "applications": ["DNS"] }, { "ip_version": 6 }])",
      R"("all": [{ "masters": ["TLS"] }, { "applications": ["DNS"] }])",
      R"("not": { "applications": ["Zoom"] })",
      R"("applications": ["Zoom"], "server_ports": [80])",
      R"("applications": ["Zoom"], "not": { "hostnames": ["*.zoom.us"] })",
  };
  for (const char* match : hits) EXPECT_TRUE(matches(match, facts)) << match;
  for (const char* match : misses) EXPECT_FALSE(matches(match, facts)) << match;
}

TEST(PolicyMatch, NothingIsKnownOfWhatWasNotSeen) {
  FlowFacts facts;
  facts.client = *Address::parse("2001:db8::1");
  facts.server = *Address::parse("2001:db8:1::1");
  for (const char* match :
       {R"("hostnames": ["*.zoom.us"])", R"("tls_version": { "max": "1.3" })",
        R"("tls_ciphers": ["*"])", R"("clients": ["0.0.0.0/0"])", R"("alpn": ["*"])",
        R"("ja4": ["*"])", R"("ech": true)", R"("ech": false)", R"("confidence": ["dpi", "port"])",
        R"("risks": [6])", R"("ip_version": 4)"})
    EXPECT_FALSE(matches(match, facts)) << match;
  EXPECT_TRUE(
      matches(R"("applications": ["Unknown"], "clients": ["::/0"], "ip_version": 6)", facts));
  EXPECT_TRUE(matches(R"("servers": ["2001:db8:1::/48"])", facts));
  EXPECT_FALSE(matches(R"("servers": ["2001:db8:2::/47"])", facts));
}

TEST(PolicyMatch, HostNamesAsTheyComeInHeaders) {
  FlowFacts facts = zoom_flow();
  for (const char* name : {"zoom.us", "zoom.us.", "zoom.us:8443"}) {
    facts.hostname = name;
    EXPECT_TRUE(matches(R"("hostnames": ["zoom.us"])", facts)) << name;
    EXPECT_FALSE(matches(R"("hostnames": ["*.zoom.us"])", facts)) << name;
  }
}

TEST(PolicyMatch, FirstClassWinsAndContinueGoesOn) {
  const PolicyMatcher matcher(policy_of(R"(
      { "name": "none", "match": { "applications": ["DNS"] } },
      { "name": "tls", "match": { "masters": ["TLS"] }, "continue": true },
      { "name": "zoom", "match": { "applications": ["Zoom"] } },
      { "name": "rest" })"));
  FlowFacts facts = zoom_flow();
  EXPECT_THAT(matcher.match(facts, FlowState::final, kNoon), ElementsAre(1, 2));
  facts.application = kTls;
  EXPECT_THAT(matcher.match(facts, FlowState::final, kNoon), ElementsAre(1, 3));
  facts.master = facts.application = kBitTorrent;
  EXPECT_THAT(matcher.match(facts, FlowState::final, kNoon), ElementsAre(3));
}

TEST(PolicyMatch, Exemptions) {
  const PolicyMatcher matcher(policy_of(
      R"({ "name": "a", "match": { "masters": ["TLS"] },
           "except": [{ "servers": ["198.51.100.0/24"] }, { "hostnames": ["*.example"] }] },
         { "name": "rest" })",
      R"("exemptions": [{ "clients": ["192.168.1.2"] }, { "server_ports": [22] }],)"));
  FlowFacts facts = zoom_flow();
  EXPECT_THAT(matcher.match(facts, FlowState::final, kNoon), ElementsAre(0));
  facts.hostname = "www.example";
  EXPECT_THAT(matcher.match(facts, FlowState::final, kNoon), ElementsAre(1));
  facts.server_port = 22;
  EXPECT_THAT(matcher.match(facts, FlowState::final, kNoon), IsEmpty());
  facts = zoom_flow();
  facts.client = *Address::parse("192.168.1.2");
  EXPECT_THAT(matcher.match(facts, FlowState::final, kNoon), IsEmpty());
}

// An undecided flow must get no class that its answer may take away again.
TEST(PolicyMatch, UndecidedFlowsGetOnlyWhatIsCertain) {
  const FlowFacts facts = without_answer(zoom_flow());
  for (const char* match :
       {R"("applications": ["Unknown"])", R"("not": { "applications": ["DNS"] })",
        R"("not": { "hostnames": ["*.zoom.us"] })", R"("not": { "risks": [6] })",
        R"("not": { "tls_version": { "max": "1.2" } })", R"("risk_score": { "max": 10 })",
        R"("not": { "applications": ["Own"] })"})
    EXPECT_FALSE(matches(match, facts, FlowState::undecided)) << match;
  for (const char* match : {R"("clients": ["192.168.0.0/16"])", R"("states": ["undecided"])",
                            R"("not": { "server_ports": [80] })", R"("applications": ["Net"])",
                            R"("any": [{ "applications": ["Zoom"] }, { "server_ports": [443] }])",
                            R"("not": { "applications": ["Port"] })",
                            R"("not": { "applications": ["Zoom"], "ip_version": 6 })"})
    EXPECT_TRUE(matches(match, facts, FlowState::undecided)) << match;

  const PolicyMatcher matcher(policy_of(R"(
      { "name": "six", "match": { "ip_version": 6, "applications": ["Zoom"] } },
      { "name": "lan", "match": { "clients": ["192.168.0.0/16"] }, "continue": true },
      { "name": "zoom", "match": { "applications": ["Zoom"] } },
      { "name": "rest" })"));
  EXPECT_THAT(matcher.match(facts, FlowState::undecided, kNoon), ElementsAre(1))
      << "class 2 may yet be the flow's, so class 3 is not";
  EXPECT_THAT(matcher.match(facts, FlowState::final, kNoon), ElementsAre(1, 3));
}

TEST(PolicyMatch, OwnApplicationIsShownInPlaceOfNdpis) {
  const PolicyMatcher matcher(policy_of(
      "",
      R"("applications": [{ "name": "Net", "addresses": ["203.0.113.0/24"], "ports": [443] }],)"));
  FlowFacts facts = zoom_flow();
  EXPECT_EQ(matcher.application(facts), kFirstOwnApplication);
  facts.server_port = 80;
  EXPECT_EQ(matcher.application(facts), kZoom);
}

struct Hour {
  WallTime time;
  bool in_force;
};

void expect_schedule(const std::string& schedule, const std::vector<Hour>& hours) {
  const PolicyMatcher matcher(policy_of(R"({ "name": "a", "schedule": )" + schedule + " }"));
  for (const auto& [time, in_force] : hours)
    EXPECT_EQ(!matcher.match(zoom_flow(), FlowState::final, time).empty(), in_force)
        << schedule << " at noon + "
        << std::chrono::floor<std::chrono::minutes>(time - kNoon).count() << " min";
}

TEST(PolicySchedule, DaysHoursAndOffsets) {
  expect_schedule(R"({ "from": "08:00", "to": "18:00", "timezone": "UTC" })",
                  {{kNoon, true},
                   {kNoon - 4h, true},
                   {kNoon - 4h - 1s, false},
                   {kNoon + 6h - 1s, true},
                   {kNoon + 6h, false}});
  expect_schedule(R"({ "days": ["wed"], "timezone": "utc" })",
                  {{kNoon, true}, {kNoon - 12h, true}, {kNoon + 12h, false}, {kNoon - 13h, false}});
  // From 22:00 on Wednesday to 06:00 on Thursday.
  expect_schedule(R"({ "days": ["wed"], "from": "22:00", "to": "06:00", "timezone": "UTC" })",
                  {{kNoon + 9h, false},
                   {kNoon + 10h, true},
                   {kNoon + 17h, true},
                   {kNoon + 18h, false},
                   {kNoon - 10h, false}});
  expect_schedule(R"({ "from": "14:00", "to": "15:00", "timezone": "+02:30" })",
                  {{kNoon, true}, {kNoon + 29min, true}, {kNoon + 30min, false}});
  expect_schedule(R"({ "days": ["tue"], "timezone": "-13:00" })", {{kNoon, true}});
  expect_schedule(
      R"([{ "days": ["mon"], "timezone": "UTC" }, { "to": "13:00", "timezone": "UTC" }])",
      {{kNoon, true}, {kNoon + 1h, false}, {kNoon + 5 * 24h + 1h, true}});
}

TEST(PolicySchedule, LocalTimeFollowsTz) {
  const char* before = getenv("TZ");
  const std::string saved = before == nullptr ? "" : before;
  setenv("TZ", "EST5EDT,M3.2.0,M11.1.0", 1);
  const std::string morning = R"({ "from": "07:00", "to": "08:00" })";
  expect_schedule(morning, {{kNoon, true}, {kNoon + 1h, false}});
  // After 10 March 2024 clocks are an hour ahead.
  expect_schedule(morning, {{kNoon + 7 * 24h, false}, {kNoon + 7 * 24h - 1h, true}});
  if (before == nullptr)
    unsetenv("TZ");
  else
    setenv("TZ", saved.c_str(), 1);
  tzset();
}

TEST(PolicySchedule, NextChange) {
  EXPECT_EQ(PolicyMatcher(policy_of(R"({ "name": "a" })")).next_change(kNoon), std::nullopt);
  const PolicyMatcher matcher(policy_of(
      R"({ "name": "a", "schedule": { "days": ["wed", "fri"], "from": "08:00", "to": "18:00",
                                      "timezone": "UTC" } })"));
  EXPECT_EQ(matcher.next_change(kNoon + 30s), kNoon + 6h);
  EXPECT_EQ(matcher.next_change(kNoon + 6h), kNoon + 44h);
  const PolicyMatcher always(policy_of(R"({ "name": "a", "schedule": { "timezone": "UTC" } })"));
  EXPECT_EQ(always.next_change(kNoon), std::nullopt);
}

// 200 classes and 5,000 host names, each of which must find its own class and no other.
TEST(PolicyMatch, ManyClassesAndNames) {
  constexpr int kClasses = 200;
  constexpr int kNames = 25;
  std::string classes;
  for (int c = 0; c < kClasses; ++c) {
    classes += (c > 0 ? ", " : "") + std::string(R"({ "name": "c)") + std::to_string(c) +
               R"(", "match": { "hostnames": [)";
    for (int n = 0; n < kNames; ++n)
      classes += (n > 0 ? ", " : "") + std::string(n % 2 == 0 ? "\"*." : "\"") + "h" +
                 std::to_string(n) + ".c" + std::to_string(c) + ".example\"";
    classes += "] } }";
  }
  const PolicyMatcher matcher(policy_of(classes));
  ASSERT_EQ(matcher.policy().classes.size(), std::size_t{kClasses});
  FlowFacts facts = zoom_flow();
  for (int c = 0; c < kClasses; ++c) {
    for (int n = 0; n < kNames; ++n) {
      const std::string name = "h" + std::to_string(n) + ".c" + std::to_string(c) + ".example";
      facts.hostname = n % 2 == 0 ? "www." + name : name;
      ASSERT_THAT(matcher.match(facts, FlowState::final, kNoon), ElementsAre(c)) << facts.hostname;
      facts.hostname = n % 2 == 0 ? name : "www." + name;
      ASSERT_THAT(matcher.match(facts, FlowState::final, kNoon), IsEmpty()) << facts.hostname;
    }
  }
}

}  // namespace
}  // namespace l7mark
