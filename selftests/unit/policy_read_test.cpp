// SPDX-License-Identifier: GPL-2.0-only
// What a good policy file is read as.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <cstdio>
#include <fstream>

#include "policy/tls_ciphers.hpp"
#include "policy/values.hpp"
#include "policy_catalog.hpp"

namespace l7mark {
namespace {

TEST(PolicyRead, Defaults) {
  const auto policy = good_policy(R"({ "version": 1 })");
  EXPECT_EQ(policy->sampling.packets, 8);
  EXPECT_EQ(policy->sampling.whole, 4);
  EXPECT_EQ(policy->sampling.whole_plain, 4);
  EXPECT_EQ(policy->sampling.snaplen, 128U);
  EXPECT_EQ(policy->sampling.whole_snaplen, std::uint32_t{L7M_MAX_SNAPLEN});
  EXPECT_EQ(policy->sampling.source_budget, 4U << 20);
  EXPECT_EQ(policy->sampling.outside_budget, 16U << 20);
  EXPECT_EQ(policy->workers, 1U);
  EXPECT_EQ(policy->limits.flows, std::uint32_t{L7M_DEFAULT_FLOWS});
  EXPECT_TRUE(policy->first_packet.services);
  EXPECT_TRUE(policy->first_packet.hints);
  EXPECT_EQ(policy->first_packet.recheck, 600U);
  EXPECT_EQ(policy->limits.unprotected, 50U);
  EXPECT_EQ(policy->timeouts.unanswered, 60U);
  EXPECT_EQ(policy->log.rate, 50U);
  std::vector<std::string> inside;
  for (const auto& prefix : policy->inside) inside.push_back(prefix.to_string());
  EXPECT_THAT(inside, testing::ElementsAre("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",
                                           "100.64.0.0/10", "fc00::/7", "fe80::/10"));
  EXPECT_TRUE(policy->classes.empty());
  EXPECT_TRUE(policy->warnings.empty());
}

// A flow that began with no handshake had "whole_plain" packets whole, and gets as many again.
TEST(PolicyRead, AFlowSampledAnewKeepsItsKind) {
  const auto usual = good_policy(R"({ "version": 1, "sampling": { "whole_plain": 2 } })");
  EXPECT_EQ(usual->sampling.whole_of(4), 4);
  EXPECT_EQ(usual->sampling.whole_of(2), 2);
  EXPECT_EQ(usual->sampling.whole_of(9), 4) << "sampled anew before";
  const auto few = good_policy(R"({ "version": 1, "sampling": { "whole": 1, "whole_plain": 3 } })");
  EXPECT_EQ(few->sampling.whole_of(1), 1);
}

TEST(PolicyRead, SettingsOfTheInstance) {
  const auto policy = good_policy(R"({
    "$schema": "x.json", "version": 1, "workers": 4,
    "interfaces": [{ "name": "lan0", "mode": "native", "conntrack_zone": 65535 }, { "name": "lan1" }],
    "sampling": { "packets": 3, "source_budget": 100000, "outside_budget": 0, "overrides": [{ "applications": ["Zoom"], "packets": 16 },
                                              { "applications": ["dns"], "packets": 1, "whole": 0 }] },
    "timeouts": { "udp": 30 }, "first_packet": { "hints": false, "private_hints": ["10.8.0.0/16", "fd00:8::/32"] },
    "decapsulate": ["gre", "vxlan"], "vlan": "ignore", "inside": ["2001:db8::/32"] })");
  EXPECT_EQ(policy->workers, 4U);
  EXPECT_EQ(policy->settings().source_budget, 100000U);
  EXPECT_EQ(policy->settings().outside_budget, 0U);
  ASSERT_EQ(policy->interfaces.size(), 2U);
  EXPECT_EQ(policy->interfaces[0].mode, AttachMode::native);
  EXPECT_EQ(policy->interfaces[1].mode, AttachMode::automatic);
  EXPECT_EQ(policy->interfaces[0].conntrack_zone, 65535);
  EXPECT_EQ(policy->interfaces[1].conntrack_zone, 0);
  EXPECT_EQ(policy->sampling.whole, 3) << "the default never exceeds packets";
  ASSERT_NE(policy->sampling.override_for(kZoom), nullptr);
  EXPECT_EQ(policy->sampling.override_for(kZoom)->packets, 16);
  EXPECT_EQ(policy->sampling.override_for(kZoom)->whole, std::nullopt);
  ASSERT_NE(policy->sampling.override_for(kDns), nullptr);
  EXPECT_EQ(policy->sampling.override_for(kDns)->whole, 0);
  EXPECT_EQ(policy->sampling.override_for(kTls), nullptr);
  EXPECT_TRUE(policy->decapsulate.gre && policy->decapsulate.vxlan);
  EXPECT_FALSE(policy->decapsulate.ipip || policy->decapsulate.gtpu);
  EXPECT_EQ(policy->vlan, VlanUse::ignore);
  EXPECT_EQ(good_policy(R"({ "version": 1 })")->vlan, VlanUse::key);
  ASSERT_EQ(policy->inside.size(), 1U);
  ASSERT_EQ(policy->first_packet.private_hints.size(), 2U);
  EXPECT_EQ(policy->first_packet.private_hints[1].to_string(), "fd00:8::/32");

  const auto settings = policy->settings();
  EXPECT_EQ(settings.packets, 3U);
  EXPECT_EQ(settings.rings, 4U);
  EXPECT_EQ(settings.flags, std::uint32_t{L7M_SET_SERVICES});
}

TEST(PolicyRead, WhatDependsOnTheClient) {
  const auto depends = [](const std::string& rest) {
    const auto policy = good_policy(R"({ "version": 1, )" + rest + "}");
    const bool flag = (policy->settings().flags & L7M_SET_CLIENT_HINTS) != 0;
    EXPECT_EQ(policy->depends_on_client(), flag) << rest;
    return flag;
  };
  const auto of_class = [&](const std::string& match) {
    return depends(R"("classes": [{ "name": "a", "mark": 1, )" + match + "}]");
  };
  EXPECT_FALSE(of_class(R"("match": { "applications": ["Zoom"], "servers": ["10.0.0.0/8"] })"));
  EXPECT_TRUE(of_class(R"("match": { "clients": ["10.0.0.0/8"] })"));
  EXPECT_TRUE(of_class(R"("match": { "client_macs": ["02:00:00:00:00:01"] })"));
  EXPECT_TRUE(of_class(R"("match": { "any": [{ "not": { "clients": ["10.0.0.1"] } }] })"));
  EXPECT_TRUE(of_class(
      R"("match": { "applications": ["Zoom"] }, "except": [{ "clients": ["10.0.0.1"] }])"));
  EXPECT_TRUE(depends(R"("exemptions": [{ "clients": ["10.0.0.1"] }])"));
  EXPECT_FALSE(depends(R"("exemptions": [{ "servers": ["10.0.0.1"] }])"));
}

TEST(PolicyRead, ActionsOfAClass) {
  const auto policy = policy_of(R"({ "name": "all", "mark": "0x85/0xff", "dscp": "af41",
    "priority": "1:10", "tc_class": "10:1f", "log": true,
    "ipset": { "name": "S", "type": "hash:ip", "timeout": 0, "maxelem": 9, "hashsize": 64,
               "counters": true, "comment": true, "skbinfo": true, "delete_on_end": true },
    "nftset": { "family": "ip", "table": "fw", "name": "s", "timeout": 5, "size": 9,
                "create_table": false, "delete_on_end": true },
    "conntrack": { "mark": "0x1/0x3", "label": [3, 127] } },
    { "name": "numbers", "mark": 7, "dscp": 5, "priority": "0x20", "conntrack": { "label": 0 } })");
  const Actions& all = policy->classes[0].actions;
  EXPECT_EQ(all.mark, (MaskedValue{0x85, 0xff}));
  EXPECT_EQ(all.dscp, 34);
  EXPECT_EQ(all.priority, 0x10010U);
  EXPECT_EQ(all.tc_class, 0x10001fU);
  EXPECT_TRUE(all.log);
  EXPECT_EQ(*all.ipset, (IpsetAction{"S", "hash:ip", 0, 9, 64, true, true, true, true}));
  EXPECT_EQ(*all.nftset, (NftsetAction{"ip", "fw", "s", 5, 9, false, true}));
  EXPECT_EQ(all.conntrack->mark, (MaskedValue{1, 3}));
  EXPECT_TRUE(all.conntrack->labels.test(3) && all.conntrack->labels.test(127));
  EXPECT_EQ(all.conntrack->labels.count(), 2U);
  const Actions& numbers = policy->classes[1].actions;
  EXPECT_EQ(numbers.mark, (MaskedValue{7, 0xffffffff}));
  EXPECT_EQ(numbers.dscp, 5);
  EXPECT_EQ(numbers.priority, 0x20U);
  EXPECT_TRUE(numbers.conntrack->labels.test(0));
}

TEST(PolicyRead, TouchedMarkBits) {
  const auto policy =
      policy_of(R"({ "name": "a", "mark": "0x85/0xff" },
                                   { "name": "b", "conntrack": { "mark": "0x1/0xf0001" } })",
                R"("state_marks": { "mask": "0xf00", "conntrack_mask": "0x300" },)");
  EXPECT_EQ(policy->touched_mark_bits().packet, 0xfffU);
  EXPECT_EQ(policy->touched_mark_bits().conntrack, 0xf0301U);
  EXPECT_EQ(policy->class_mark_bits(), 0xffU);
  EXPECT_EQ(policy->settings().mark_mask, 0xffU);
}

TEST(PolicyRead, OwnApplicationsMayComeBehindTheirUse) {
  const auto policy = good_policy(R"({ "version": 1,
    "classes": [{ "name": "a", "match": { "applications": ["INTRANET"] } }],
    "applications": [{ "name": "Shop", "ports": [8080] },
                     { "name": "Intranet", "hosts": ["*.Corp.Example"] }] })");
  EXPECT_THAT(policy->classes[0].match.applications,
              testing::ElementsAre(kFirstOwnApplication + 1));
  EXPECT_EQ(policy->applications[1].hosts[0].name, "corp.example");
  EXPECT_TRUE(policy->applications[1].hosts[0].suffix);
}

TEST(PolicyRead, ProtocolsFileIsRelativeToThePolicy) {
  const std::string directory = testing::TempDir();
  std::ofstream(directory + "/protos.txt") << "tcp:81@Mine\n";
  std::ofstream(directory + "/policy.json") << R"({ "version": 1, "protocols_file": "protos.txt",
      "classes": [{ "name": "a", "match": { "applications": ["NotYetKnown"] } }] })";
  const auto setting = load_protocols_file_setting(directory + "/policy.json");
  ASSERT_TRUE(setting.ok()) << setting.error().message();
  EXPECT_TRUE(std::ifstream(*setting).good()) << *setting;
  EXPECT_EQ(std::remove((directory + "/protos.txt").c_str()), 0);
  EXPECT_FALSE(load_protocols_file_setting(directory + "/policy.json").ok());
  std::ofstream(directory + "/policy.json") << R"({ "version": 1 })";
  EXPECT_EQ(*load_protocols_file_setting(directory + "/policy.json"), "");
  EXPECT_EQ(std::remove((directory + "/policy.json").c_str()), 0);
}

TEST(PolicyRead, ByteOrderMarkAndComments) {
  EXPECT_TRUE(parse_policy("\xef\xbb\xbf// first\n{ /* \"version\": 2 */ \"version\": 1 } // last",
                           "p.json", test_catalog())
                  .ok());
}

TEST(PolicyValues, Dscp) {
  EXPECT_EQ(parse_dscp_name("ef"), 46);
  EXPECT_EQ(parse_dscp_name("CS7"), 56);
  EXPECT_EQ(parse_dscp_name("AF11"), 10);
  EXPECT_EQ(parse_dscp_name("AF43"), 38);
  EXPECT_EQ(parse_dscp_name("LE"), 1);
  EXPECT_EQ(parse_dscp_name("VA"), 44);
  EXPECT_FALSE(parse_dscp_name("AF14"));
}

TEST(PolicyValues, Clock) {
  EXPECT_EQ(parse_clock("00:00"), 0);
  EXPECT_EQ(parse_clock("24:00"), 1440);
  EXPECT_FALSE(parse_clock("24:01"));
  EXPECT_FALSE(parse_clock("12:60"));
  EXPECT_FALSE(parse_clock("1200"));
  EXPECT_EQ(parse_utc_offset("-09:30"), -570);
  EXPECT_EQ(parse_utc_offset("utc"), 0);
  EXPECT_FALSE(parse_utc_offset("+15:00"));
}

TEST(PolicyValues, HostPatterns) {
  EXPECT_EQ(parse_host_pattern("Example.ORG.")->name, "example.org");
  EXPECT_TRUE(parse_host_pattern("*.a-b_c.org")->suffix);
  for (const char* bad : {"", "*.", ".", "a..b", ".a", "*a.org", "a b", "münchen.de"})
    EXPECT_FALSE(parse_host_pattern(bad)) << bad;
  EXPECT_TRUE(parse_host_pattern(std::string(63, 'a')));
  EXPECT_FALSE(parse_host_pattern(std::string(64, 'a')));
}

TEST(PolicyValues, TlsCiphers) {
  EXPECT_THAT(find_tls_ciphers("TLS_RSA_WITH_RC4_128_SHA"), testing::ElementsAre(0x0005));
  EXPECT_THAT(find_tls_ciphers("tls_aes_*"), testing::ElementsAre(0x1301, 0x1302, 0x1304, 0x1305));
  EXPECT_THAT(find_tls_ciphers("0xcca8"), testing::ElementsAre(0xcca8));
  EXPECT_THAT(find_tls_ciphers("*_anon_WITH_RC4_*"), testing::ElementsAre(0x0018, 0xc016));
  EXPECT_THAT(find_tls_ciphers("TLS_RSA_WITH"), testing::IsEmpty());
  EXPECT_THAT(find_tls_ciphers("0x10000"), testing::IsEmpty());
}

TEST(PolicyValues, TlsVersions) {
  EXPECT_EQ(tls_version_from_wire(0x0303), TlsVersion::tls12);
  EXPECT_EQ(tls_version_from_wire(0xfeff), TlsVersion::tls11);
  EXPECT_EQ(tls_version_from_wire(0xfefd), TlsVersion::tls12);
  EXPECT_FALSE(tls_version_from_wire(0x7f12));
}

}  // namespace
}  // namespace l7mark
