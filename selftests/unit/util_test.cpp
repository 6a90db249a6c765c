// SPDX-License-Identifier: GPL-2.0-only
#include <gtest/gtest.h>

#include "util/address.hpp"
#include "util/result.hpp"
#include "util/text.hpp"

namespace l7mark {
namespace {

TEST(Result, ErrorNamesOperationObjectAndCause) {
  EXPECT_EQ((Error{"attach", "lan0", EPERM, "needs root"}).message(),
            "cannot attach lan0: Operation not permitted (needs root)");
  EXPECT_EQ((Error{"read policy", "a.json", 0, "line 3"}).message(),
            "cannot read policy a.json: line 3");
}

TEST(Address, TextAndMappedForm) {
  EXPECT_EQ(Address::parse("192.0.2.1")->to_string(), "192.0.2.1");
  EXPECT_TRUE(Address::parse("192.0.2.1")->is_v4());
  EXPECT_EQ(Address::parse("2001:db8:0::1")->to_string(), "2001:db8::1");
  EXPECT_FALSE(Address::parse("2001:db8::1")->is_v4());
  EXPECT_FALSE(Address::parse("192.0.2"));
}

TEST(Prefix, ContainsItsOwnFamilyOnly) {
  const auto ten = *Prefix::parse("10.0.0.0/8");
  EXPECT_TRUE(ten.contains(*Address::parse("10.255.0.1")));
  EXPECT_FALSE(ten.contains(*Address::parse("11.0.0.1")));
  EXPECT_TRUE(Prefix::parse("0.0.0.0/0")->contains(*Address::parse("198.51.100.1")));
  EXPECT_FALSE(Prefix::parse("::/0")->contains(*Address::parse("198.51.100.1")));
  EXPECT_TRUE(Prefix::parse("2001:db8::/33")->contains(*Address::parse("2001:db8:7fff::1")));
  EXPECT_FALSE(Prefix::parse("2001:db8::/33")->contains(*Address::parse("2001:db8:8000::1")));
  EXPECT_FALSE(Prefix::parse("10.0.0.0/33"));
  EXPECT_FALSE(Prefix::parse("10.0.0.0/"));
}

TEST(Text, NearestNames) {
  const std::vector<std::string> names{"Zoom", "Zattoo", "BitTorrent", "OpenVPN"};
  EXPECT_EQ(nearest("zom", names), std::vector<std::string>{"Zoom"});
  EXPECT_EQ(nearest("bittorent", names), std::vector<std::string>{"BitTorrent"});
  EXPECT_TRUE(nearest("Quake", names).empty());
  EXPECT_EQ(did_you_mean("Zoon", names), " (did you mean Zoom?)");
}

TEST(Text, Protocols) {
  EXPECT_EQ(protocol_name(17), "udp");
  EXPECT_EQ(protocol_name(200), "200");
  EXPECT_EQ(parse_protocol("UDP"), 17);
  EXPECT_EQ(parse_protocol("47"), 47);
  EXPECT_FALSE(parse_protocol("256"));
}

}  // namespace
}  // namespace l7mark
