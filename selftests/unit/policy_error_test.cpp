// SPDX-License-Identifier: GPL-2.0-only
// What a policy file with a fault in it is answered with: the whole line that the user sees.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "policy_catalog.hpp"

namespace l7mark {
namespace {

std::string message_of(const std::string& text) {
  const auto policy = parse_policy(text, "p.json", test_catalog(), UnknownApplications::fail);
  return policy.ok() ? "no error" : policy.error().message();
}

struct Fault {
  const char* text;
  const char* message;  // behind "cannot read policy p.json:"
};

void expect_messages(const std::vector<Fault>& faults) {
  for (const auto& [text, message] : faults)
    EXPECT_EQ(message_of(text), std::string("cannot read policy p.json:") + message) << text;
}

// The text of a policy whose second line is the class.
std::string with_class(const std::string& c) {
  return "{ \"version\": 1, \"classes\": [\n" + c + "] }";
}

TEST(PolicyError, MalformedJsonNamesLineAndColumn) {
  expect_messages({
      {"",
       "1:1: syntax error while parsing value - unexpected end of input; expected '[', '{', or "
       "a literal"},
      {"{ \"version\": 1,\n  \"classes\": [ }",
       "2:16: syntax error while parsing value - unexpected '}'; expected '[', '{', or a literal"},
      {"{ \"version\": 1\n  \"classes\": [] }",
       "2:3: syntax error while parsing object - unexpected string literal; expected '}'"},
      {"{ \"version\": 1, // a comment, with a comma: ,\n  \"classes\": tru }",
       "2:14: syntax error while parsing value - invalid literal"},
      {"{ /* ä, ö and ü are one column each */ \"version\": 1, }",
       "1:54: syntax error while parsing object key - unexpected '}'; expected string literal"},
      {"{ \"version\": 1 /* no end",
       "1:16: syntax error while parsing object - invalid comment; missing closing '*/'; expected "
       "'}'"},
      {"{ \"version\": 1,\n  \"version\": 1 }", "2:3: key \"version\" is given twice"},
  });
}

TEST(PolicyError, DeepNestingIsRefusedAtItsPlace) {
  std::string text = "{ \"version\": 1, \"classes\": ";
  text.append(100, '[');
  EXPECT_EQ(message_of(text), "cannot read policy p.json:1:59: nested deeper than 32 levels");
}

TEST(PolicyError, UnknownNamesComeWithTheNearest) {
  expect_messages({
      {"{ \"version\": 1, \"clases\": [] }", "1:17: clases: unknown key (did you mean classes?)"},
      {"{ \"version\": 1,\n  \"classes\": [\n    { \"name\": \"zoom\", \"match\": { "
       "\"applications\": [\"TLS\", \"Zom\"] } } ] }",
       "3:58: classes[0].match.applications[1]: unknown application \"Zom\" (did you mean Zoom?)"},
  });
  expect_messages({
      {with_class(R"({ "name": "a", "match": { "masters": ["TSL"] } })").c_str(),
       "2:39: classes[0].match.masters[0]: unknown master protocol \"TSL\" (did you mean "
       "TLS?)"},
  });
  EXPECT_EQ(message_of(with_class(R"({ "name": "a", "match": { "categories": ["Vidio"] } })")),
            "cannot read policy p.json:2:42: classes[0].match.categories[0]: unknown category "
            "\"Vidio\" (did you mean Video?)");
  EXPECT_EQ(
      message_of(with_class(R"({ "name": "a", "match": { "risks": ["Weak TLS Ciphers"] } })")),
      "cannot read policy p.json:2:37: classes[0].match.risks[0]: unknown risk \"Weak TLS "
      "Ciphers\" (did you mean Weak TLS Cipher?)");
  EXPECT_EQ(message_of(with_class(R"({ "name": "a", "macth": {} })")),
            "cannot read policy p.json:2:16: classes[0].macth: unknown key (did you mean match?)");
  EXPECT_EQ(message_of(with_class(R"({ "name": "a", "quux": {} })")),
            "cannot read policy p.json:2:16: classes[0].quux: unknown key");
}

TEST(PolicyError, TextOfTheFileCantBreakTheLine) {
  expect_messages({
      {R"({ "version": 1, "a\nb\u001b[2J": 1 })", R"(1:17: a\x0ab\x1b[2J: unknown key)"},
  });
}

TEST(PolicyError, FindClassNamesTheNearest) {
  const auto policy = policy_of(R"({ "name": "bittorrent" }, { "name": "Zoom" })");
  EXPECT_EQ(*policy->find_class("zoom"), 1U);
  EXPECT_EQ(policy->find_class("bitorrent").error().message(),
            "cannot find class bitorrent: the policy has none of that name (did you mean "
            "bittorrent?)");
}

TEST(PolicyError, Settings) {
  expect_messages({
      {"[]", "1:1: must be an object in braces"},
      {"{}", "1:1: \"version\" is missing"},
      {"{ \"version\": 2 }",
       "1:14: version: must be 1, the only version of the format that this l7mark reads"},
      {R"({ "version": 1, "interfaces": [{ "name": "lan0", "mode": "xdp" }] })",
       "1:58: interfaces[0].mode: unknown mode \"xdp\": must be one of auto, native, generic, tc"},
      {R"({ "version": 1, "interfaces": [{ "name": "a", "conntrack_zone": 65536 }] })",
       "1:65: interfaces[0].conntrack_zone: must be a whole number from 0 to 65535"},
      {R"({ "version": 1, "interfaces": [{ "name": "lan/0" }] })",
       "1:42: interfaces[0].name: \"lan/0\" can't be the name of an interface"},
      {R"({ "version": 1, "interfaces": [{ "name": "a" }, { "name": "a" }] })",
       "1:59: interfaces[1].name: interface \"a\" is there already"},
      {R"({ "version": 1, "sampling": { "packets": 0 } })",
       "1:42: sampling.packets: must be a whole number from 1 to 254"},
      {R"({ "version": 1, "sampling": { "packets": 8.5 } })",
       "1:42: sampling.packets: must be a whole number from 1 to 254"},
      {R"({ "version": 1, "sampling": { "whole": 5, "packets": 4 } })",
       "1:40: sampling.whole: must be a whole number from 0 to 4"},
      {R"({ "version": 1, "sampling": { "snaplen": 2000, "whole_snaplen": 1600 } })",
       "1:29: sampling: \"snaplen\" is above \"whole_snaplen\", 1600"},
      {R"({ "version": 1, "workers": 65 })", "1:28: workers: must be a whole number from 1 to 64"},
      {R"({ "version": 1, "limits": { "ring_bytes": 100000 } })",
       "1:43: limits.ring_bytes: must be a power of two: 65536 or 131072"},
      {R"({ "version": 1, "inside": ["10.0.0.1/8"] })",
       "1:28: inside[0]: \"10.0.0.1/8\" has address bits beyond its length: write \"10.0.0.0/8\""},
      {R"({ "version": 1, "inside": ["lan"] })",
       "1:28: inside[0]: \"lan\" is no address or CIDR block, as in \"192.0.2.0/24\""},
      {R"({ "version": 1, "first_packet": { "hints": "yes" } })",
       "1:44: first_packet.hints: must be true or false"},
      {R"({ "version": 1, "vlan": "both" })",
       "1:25: vlan: unknown use of VLANs \"both\": must be one of key, ignore"},
      {R"({ "version": 1, "decapsulate": ["l2tp"] })",
       "1:33: decapsulate[0]: unknown tunnel \"l2tp\": must be one of gre, ipip, gtpu, vxlan"},
      {R"({ "version": 1, "state_marks": { "final": "0x100", "mask": "0x300" , "guessed": "0x400"} })",
       "1:81: state_marks.guessed: 0x400 has bits outside the mask 0x300"},
      {R"({ "version": 1, "protocols_file": "no/such.txt" })",
       "1:35: protocols_file: cannot read \"no/such.txt\""},
      {R"({ "version": 1, "applications": [{ "name": "zoom", "ports": [1] }] })",
       "1:44: applications[0].name: nDPI has an application \"zoom\" already"},
      {R"({ "version": 1, "applications": [{ "name": "Mine" }] })",
       "1:34: applications[0]: needs \"hosts\", \"addresses\" or \"ports\""},
      {R"({ "version": 1, "exemptions": [{}] })",
       "1:32: exemptions[0]: an empty exemption exempts every flow"},
  });
}

TEST(PolicyError, ValuesOfAMatch) {
  const std::vector<Fault> faults{
      {R"("applications": "Zoom")", "applications: must be a list in brackets"},
      {R"("applications": [])",
       "applications: an empty list matches nothing: leave the key out or name something"},
      {R"("risks": [7])", "risks[0]: no risk has number 7"},
      {R"("risk_score": {})", "risk_score: needs \"min\" or \"max\""},
      {R"("risk_score": { "min": 5, "max": 4 })", "risk_score: \"min\" is above \"max\""},
      {R"("hostnames": ["*"])",
       "hostnames[0]: \"*\" is no host name: must be as in \"example.org\" or \"*.example.org\", "
       "international names in their xn-- form"},
      {R"("hostnames": ["a.*.org"])",
       "hostnames[0]: \"a.*.org\" is no host name: must be as in \"example.org\" or "
       "\"*.example.org\", international names in their xn-- form"},
      {R"("server_ports": ["8810-8801"])",
       "server_ports[0]: must be a port from 1 to 65535 or a range, as in 443 or \"8801-8810\""},
      {R"("server_ports": [0])",
       "server_ports[0]: must be a port from 1 to 65535 or a range, as in 443 or \"8801-8810\""},
      {R"("client_macs": ["00:53:00:12:34"])",
       "client_macs[0]: \"00:53:00:12:34\" is no MAC address, as in \"00:53:00:12:34:56\""},
      {R"("interfaces": ["lan1"])",
       "interfaces[0]: interface \"lan1\" is not in the policy's \"interfaces\" (did you mean "
       "lan0?)"},
      {R"("ip_version": 5)", "ip_version: must be 4 or 6"},
      {R"("transports": ["tpc"])",
       "transports[0]: unknown transport \"tpc\": must be as in \"tcp\", \"udp\", \"icmp\", "
       "\"sctp\", or a number up to 255"},
      {R"("tls_version": ["1.4"])",
       "tls_version[0]: unknown TLS version \"1.4\": must be one of ssl2, ssl3, 1.0, 1.1, 1.2, "
       "1.3"},
      {R"("tls_ciphers": ["TLS_RSA_WITH_RC4_128_SH"])",
       "tls_ciphers[0]: no TLS cipher suite is called \"TLS_RSA_WITH_RC4_128_SH\" (did you mean "
       "TLS_RSA_WITH_RC4_128_SHA, TLS_PSK_WITH_RC4_128_SHA or TLS_RSA_WITH_RC4_128_MD5?)"},
      {R"("alpn": ["h2,h3"])",
       "alpn[0]: \"h2,h3\" is no protocol of ALPN, as in \"h2\" or \"http/*\""},
      {R"("ja4": ["e7d705a3286e19ea42f587b344ee6865"])",
       "ja4[0]: \"e7d705a3286e19ea42f587b344ee6865\" is no JA4 fingerprint, as in "
       "\"t13d1516h2_8daaf6152771_b186095e22b6\" or \"t13d*_8daaf6152771_*\""},
      {R"("ja4": [""])",
       "ja4[0]: \"\" is no JA4 fingerprint, as in \"t13d1516h2_8daaf6152771_b186095e22b6\" or "
       "\"t13d*_8daaf6152771_*\""},
      {R"("ech": "yes")", "ech: must be true or false"},
      {R"("confidence": ["none"])",
       "confidence[0]: unknown confidence \"none\": must be one of dpi, detector, cache, port, "
       "address"},
      {R"("states": ["finale"])",
       "states[0]: unknown state \"finale\": must be one of undecided, provisional, guessed, "
       "final"},
      {R"("any": [{ "not": {} }])", "any[0].not: an empty \"not\" matches nothing"},
  };
  for (const auto& [match, message] : faults) {
    const auto policy = parse_policy(R"({ "version": 1, "interfaces": [{ "name": "lan0" }],
                          "classes": [{ "name": "a", "match": { )" +
                                         std::string(match) + " } }] }",
                                     "p.json", test_catalog());
    ASSERT_FALSE(policy.ok()) << match;
    EXPECT_THAT(policy.error().message(),
                testing::EndsWith(": classes[0].match." + std::string(message)));
  }
}

TEST(PolicyError, ValuesOfAClass) {
  const std::vector<Fault> faults{
      {R"("name": "two words")",
       "name: \"two words\" is no name: use letters, digits, '-', '_' and '.'"},
      {R"("name": "first")", "name: class \"First\" is there already"},
      {R"("name": "a", "mark": "0x185/0xff")", "mark: mark 0x185 has bits outside its mask 0xff"},
      {R"("name": "a", "mark": "0x/0xff")",
       "mark: must be a mark of 32 bits, as in \"0x85/0xff\" (with a mask) or \"0x85\""},
      {R"("name": "a", "mark": "0x0/0x0")", "mark: a mask of 0 changes nothing"},
      {R"("name": "a", "mark": "0x85")",
       "mark: mask 0xffffffff has bits of \"state_marks\", 0xf00: leave them out, as in "
       "\"0x85/0xfffff0ff\""},
      {R"("name": "a", "conntrack": { "mark": "0x100/0x100" })",
       "conntrack.mark: mask 0x100 has bits of \"state_marks\", 0x100: use other bits"},
      {R"("name": "a", "dscp": "EFF")",
       "dscp: unknown DSCP \"EFF\" (did you mean EF?): must be a number from 0 to 63 "
       "or a name as in EF, CS1, AF41, VA, LE"},
      {R"("name": "a", "dscp": 64)", "dscp: must be a whole number from 0 to 63"},
      {R"("name": "a", "tc_class": "10")",
       "tc_class: must be a tc class as in \"1:10\", both parts hexadecimal as tc has them"},
      {R"("name": "a", "tc_class": "1:fffff")",
       "tc_class: must be a tc class as in \"1:10\", both parts hexadecimal as tc has them"},
      {R"("name": "a", "priority": -1)",
       "priority: must be a number of 32 bits, as in 133 or \"0x85\""},
      {R"("name": "a", "drop": true, "allow": true)", "allow: a class can't both drop and allow"},
      {R"("name": "a", "ipset": {})", "ipset: \"name\" is missing"},
      {R"("name": "a", "ipset": { "name": "0123456789012345678901234567890" })",
       "ipset.name: name is longer than 30 characters: its IPv6 sibling has \"6\" behind it"},
      {R"("name": "a", "ipset": { "name": "S", "type": "hash:mac" })",
       "ipset.type: unknown set type \"hash:mac\": must be one of hash:ip,port,ip, hash:ip,port, "
       "hash:ip, hash:net"},
      {R"("name": "a", "ipset": { "name": "FIRST", "timeout": 5 })",
       "ipset: set \"FIRST\" is defined otherwise in class \"First\""},
      {R"("name": "a", "ipset": { "name": "FIRST6" })",
       "ipset: set \"FIRST6\" would also be the IPv6 sibling of set \"FIRST\""},
      {R"("name": "a", "nftset": { "name": "s", "family": "arp" })",
       "nftset.family: unknown family \"arp\": must be one of inet, ip, ip6"},
      {R"("name": "a", "conntrack": {})", "conntrack: needs \"mark\" or \"label\""},
      {R"("name": "a", "conntrack": { "label": [128] })",
       "conntrack.label[0]: must be a whole number from 0 to 127"},
      {R"("name": "a", "schedule": { "days": ["monday"] })",
       "schedule.days[0]: unknown day \"monday\": must be one of mon, tue, wed, thu, fri, sat, "
       "sun"},
      {R"("name": "a", "schedule": { "from": "8:00" })",
       "schedule.from: must be a time from \"00:00\" to \"24:00\""},
      {R"("name": "a", "schedule": [{ "from": "08:00", "to": "08:00" }])",
       "schedule[0]: \"from\" and \"to\" are the same time: leave both out for whole days"},
      {R"("name": "a", "schedule": { "timezone": "CET" })",
       "schedule.timezone: unknown time zone \"CET\": must be \"local\" (set TZ for another), "
       "\"UTC\", or an offset as in \"+02:00\""},
      {R"("name": "a", "except": [{}])", "except[0]: an empty exemption exempts every flow"},
  };
  for (const auto& [keys, message] : faults) {
    const auto policy = parse_policy(
        R"({ "version": 1, "state_marks": { "mask": "0xf00", "conntrack_mask": "0x100" },
             "classes": [{ "name": "First", "ipset": { "name": "FIRST" }, "continue": true }, { )" +
            std::string(keys) + " }] }",
        "p.json", test_catalog());
    ASSERT_FALSE(policy.ok()) << keys;
    EXPECT_THAT(policy.error().message(),
                testing::EndsWith(": classes[1]." + std::string(message)));
  }
}

TEST(PolicyError, MissingFileIsNamed) {
  EXPECT_EQ(load_policy("no/such/policy.json", test_catalog()).error().message(),
            "cannot read policy no/such/policy.json: No such file or directory");
  EXPECT_EQ(load_policy("/", test_catalog()).error().message(),
            "cannot read policy /: Is a directory");
}

TEST(PolicyWarning, ClassesThatAreNeverReached) {
  const auto policy = policy_of(R"(
    { "name": "zoom", "match": { "applications": ["Zoom", "TLS"] } },
    { "name": "again", "match": { "applications": ["Zoom"], "ip_version": 4 } },
    { "name": "partly", "match": { "applications": ["Zoom", "DNS"] } },
    { "name": "rest" },
    { "name": "late", "match": { "applications": ["OpenVPN"] } })");
  EXPECT_THAT(
      policy->warnings,
      testing::ElementsAre("p.json:3:5: classes[1]: class \"again\" is never reached: class "
                           "\"zoom\" before it takes its applications",
                           "p.json:6:5: classes[4]: class \"late\" is never reached: class "
                           "\"rest\" before it takes every flow"));
}

TEST(PolicyWarning, ApplicationsThatThisNdpiLacks) {
  const auto policy = good_policy(R"({ "version": 1,
    "sampling": { "overrides": [{ "applications": ["SkypeCall", "DNS"], "packets": 2 }] },
    "classes": [
    { "name": "calls", "match": { "applications": ["SkypeCall", "Zom", "Zoom"] } },
    { "name": "skype", "match": { "applications": ["SkypeCall"] } },
    { "name": "again", "match": { "applications": ["SkypeCall"], "masters": ["TSL"] } } ] })");
  EXPECT_THAT(
      policy->warnings,
      testing::ElementsAre(
          "p.json:2:52: sampling.overrides[0].applications[0]: unknown application \"SkypeCall\"",
          "p.json:4:52: classes[0].match.applications[0]: unknown application \"SkypeCall\"",
          "p.json:4:65: classes[0].match.applications[1]: unknown application \"Zom\" (did you "
          "mean Zoom?)",
          "p.json:5:52: classes[1].match.applications[0]: unknown application \"SkypeCall\"",
          "p.json:6:52: classes[2].match.applications[0]: unknown application \"SkypeCall\"",
          "p.json:6:78: classes[2].match.masters[0]: unknown master protocol \"TSL\" (did you "
          "mean TLS?)"));
  EXPECT_THAT(policy->classes[0].match.applications, testing::ElementsAre(kZoom));
  EXPECT_EQ(policy->sampling.override_for(kAbsentApplication), nullptr);
  EXPECT_NE(policy->sampling.override_for(kDns), nullptr);
}

// Nearest names are not looked for without end.
TEST(PolicyWarning, ManyUnknownApplications) {
  std::string names;
  for (int i = 0; i < 60; ++i) names += std::string(i > 0 ? ", " : "") + "\"Zom\"";
  const auto policy = policy_of(R"({ "name": "a", "match": { "applications": [)" + names + "] } }");
  ASSERT_EQ(policy->warnings.size(), 60U);
  EXPECT_THAT(policy->warnings[0], testing::HasSubstr("did you mean Zoom?"));
  EXPECT_THAT(policy->warnings[59], testing::EndsWith("unknown application \"Zom\""));
}

TEST(PolicyWarning, NothingOfWhatIsReachedAfterAll) {
  EXPECT_THAT(policy_of(R"(
    { "name": "zoom", "match": { "applications": ["Zoom"] }, "continue": true },
    { "name": "evening", "match": { "applications": ["Zoom"] }, "schedule": { "from": "18:00" } },
    { "name": "guests", "except": { "clients": ["192.0.2.1"] } },
    { "name": "zoom-too", "match": { "applications": ["Zoom"] } })")
                  ->warnings,
              testing::IsEmpty());
}

TEST(PolicyWarning, FieldsThatADropMakesIdle) {
  EXPECT_THAT(
      policy_of(R"({ "name": "a", "drop": true, "dscp": 1 })")->warnings,
      testing::ElementsAre("p.json:1:30: classes[0]: class \"a\" drops its packets, so nobody "
                           "sees their mark, DSCP, priority or tc class"));
}

}  // namespace
}  // namespace l7mark
