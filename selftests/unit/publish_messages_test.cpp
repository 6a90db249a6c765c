// SPDX-License-Identifier: GPL-2.0-only
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>

#include <cstring>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "publish/conntrack_message.hpp"
#include "publish/ipset_message.hpp"
#include "publish/nft_message.hpp"

namespace l7mark {
namespace {

using Bytes = std::string;

// Attributes of one level: type without flags, to payload. A repeated one is in `repeated`.
struct Level {
  std::map<int, Bytes> attributes;
  std::map<int, bool> net_order;
  std::vector<Bytes> repeated;
};

Level parse(const void* from, std::size_t length) {
  Level out;
  const char* end = static_cast<const char*>(from) + length;
  for (const auto* at = static_cast<const nlattr*>(from);
       mnl_attr_ok(at, static_cast<int>(end - reinterpret_cast<const char*>(at)));
       at = mnl_attr_next(at)) {
    const int type = mnl_attr_get_type(at);
    Bytes payload(static_cast<const char*>(mnl_attr_get_payload(at)), mnl_attr_get_payload_len(at));
    out.net_order[type] = (at->nla_type & NLA_F_NET_BYTEORDER) != 0;
    out.repeated.push_back(payload);
    out.attributes[type] = std::move(payload);
  }
  return out;
}

Level parse(const Bytes& nested) {
  return parse(nested.data(), nested.size());
}

Level parse(const nlmsghdr* message) {
  return parse(mnl_nlmsg_get_payload_offset(message, sizeof(nfgenmsg)),
               message->nlmsg_len - NLMSG_HDRLEN - sizeof(nfgenmsg));
}

Bytes hex(std::initializer_list<int> bytes) {
  Bytes out;
  for (const int byte : bytes) out.push_back(static_cast<char>(byte));
  return out;
}

SetEntry zoom() {
  return {*Address::parse("198.51.100.7"), *Address::parse("192.0.2.10"), 8801, IPPROTO_UDP, 600};
}

std::vector<std::byte> buffer() {
  return std::vector<std::byte>(64 * 1024);
}

TEST(IpsetMessage, ElementCarriesProtocolPortAndBothAddresses) {
  IpsetSpec spec;
  spec.name = "Z";
  spec.timeout = 600;
  const std::vector<SetEntry> entries{zoom()};
  const std::vector<std::size_t> chosen{0};
  auto space = buffer();
  std::size_t count = 0;
  const nlmsghdr* message = ipset_message::put_elements(space.data(), {7, 5}, IPSET_CMD_ADD, spec,
                                                        entries, chosen, 0, {}, count);
  EXPECT_EQ(count, 1U);
  EXPECT_EQ(message->nlmsg_type, NFNL_SUBSYS_IPSET << 8 | IPSET_CMD_ADD);
  EXPECT_EQ(message->nlmsg_flags, NLM_F_REQUEST | NLM_F_ACK) << "NLM_F_EXCL would forbid refresh";
  EXPECT_EQ(message->nlmsg_seq, 5U);
  Level top = parse(message);
  EXPECT_EQ(top.attributes[IPSET_ATTR_PROTOCOL], hex({7}));
  EXPECT_EQ(top.attributes[IPSET_ATTR_SETNAME], hex({'Z', 0}));
  ASSERT_TRUE(top.attributes.contains(IPSET_ATTR_LINENO)) << "the kernel demands it";
  Level data = parse(parse(top.attributes[IPSET_ATTR_ADT]).attributes[IPSET_ATTR_DATA]);
  EXPECT_EQ(parse(data.attributes[IPSET_ATTR_IP]).attributes[IPSET_ATTR_IPADDR_IPV4],
            hex({198, 51, 100, 7}));
  EXPECT_EQ(parse(data.attributes[IPSET_ATTR_IP2]).attributes[IPSET_ATTR_IPADDR_IPV4],
            hex({192, 0, 2, 10}));
  EXPECT_EQ(data.attributes[IPSET_ATTR_PORT], hex({0x22, 0x61}));
  EXPECT_TRUE(data.net_order[IPSET_ATTR_PORT]);
  EXPECT_EQ(data.attributes[IPSET_ATTR_PROTO], hex({IPPROTO_UDP}));
  EXPECT_EQ(data.attributes[IPSET_ATTR_TIMEOUT], hex({0, 0, 2, 88}));
  EXPECT_TRUE(data.net_order[IPSET_ATTR_TIMEOUT]);
  const std::uint32_t line = 1;
  EXPECT_EQ(data.attributes[IPSET_ATTR_LINENO],
            Bytes(reinterpret_cast<const char*>(&line), sizeof(line)));
}

TEST(IpsetMessage, TypesTakeTheirFieldsOnly) {
  auto space = buffer();
  IpsetSpec spec;
  spec.name = "S";
  spec.type = IpsetType::net;
  Level data =
      parse(parse(ipset_message::put_element(space.data(), {}, IPSET_CMD_ADD, spec, zoom()))
                .attributes[IPSET_ATTR_DATA]);
  EXPECT_EQ(data.attributes[IPSET_ATTR_CIDR], hex({32}));
  EXPECT_FALSE(data.attributes.contains(IPSET_ATTR_PORT));
  EXPECT_FALSE(data.attributes.contains(IPSET_ATTR_IP2));
  spec.type = IpsetType::ip_port;
  data = parse(parse(ipset_message::put_element(space.data(), {}, IPSET_CMD_ADD, spec, zoom()))
                   .attributes[IPSET_ATTR_DATA]);
  EXPECT_TRUE(data.attributes.contains(IPSET_ATTR_PORT));
  EXPECT_FALSE(data.attributes.contains(IPSET_ATTR_IP2));
}

TEST(IpsetMessage, SkbInfoAndComment) {
  IpsetSpec spec;
  spec.name = "S";
  const IpsetExtras extras{"l7mark zoom", SkbInfo{0x85, 0xff, 0x00010010, 3}};
  const std::vector<SetEntry> entries{zoom()};
  const std::vector<std::size_t> chosen{0};
  auto space = buffer();
  std::size_t count = 0;
  Level top = parse(ipset_message::put_elements(space.data(), {}, IPSET_CMD_ADD, spec, entries,
                                                chosen, 0, extras, count));
  Level data = parse(parse(top.attributes[IPSET_ATTR_ADT]).attributes[IPSET_ATTR_DATA]);
  EXPECT_EQ(data.attributes[IPSET_ATTR_SKBMARK], hex({0, 0, 0, 0x85, 0, 0, 0, 0xff}));
  EXPECT_EQ(data.attributes[IPSET_ATTR_SKBPRIO], hex({0, 1, 0, 0x10}));
  EXPECT_EQ(data.attributes[IPSET_ATTR_SKBQUEUE], hex({0, 3}));
  EXPECT_EQ(data.attributes[IPSET_ATTR_COMMENT], Bytes("l7mark zoom") + Bytes(1, '\0'));
  EXPECT_FALSE(data.attributes.contains(IPSET_ATTR_TIMEOUT)) << "the set has no timeouts";
}

TEST(IpsetMessage, ManyElementsFillAMessageWithinItsBounds) {
  IpsetSpec spec;
  spec.name = std::string(31, 'n');
  spec.ipv6 = true;
  spec.timeout = 600;
  SetEntry entry{*Address::parse("2001:db8::1"), *Address::parse("2001:db8::2"), 1, 6, 600};
  const std::vector<SetEntry> entries(1000, entry);
  std::vector<std::size_t> chosen(1000);
  std::iota(chosen.begin(), chosen.end(), std::size_t{0});
  auto space = buffer();
  for (const std::string& comment : {std::string(), std::string(255, 'c')}) {
    const IpsetExtras extras{comment, SkbInfo{1, 2, 3, 4}};
    std::size_t count = 0;
    const nlmsghdr* message = ipset_message::put_elements(space.data(), {}, IPSET_CMD_ADD, spec,
                                                          entries, chosen, 100, extras, count);
    EXPECT_LE(count, ipset_message::kElementsPerMessage);
    EXPECT_GE(count, 50U);
    EXPECT_LE(message->nlmsg_len, ipset_message::kMessageBytes);
    Level top = parse(message);
    const Level elements = parse(top.attributes[IPSET_ATTR_ADT]);
    ASSERT_EQ(elements.repeated.size(), count);
    std::uint32_t line = 0;
    std::memcpy(&line, parse(elements.repeated[0]).attributes[IPSET_ATTR_LINENO].data(), 4);
    EXPECT_EQ(line, 101U);
  }
}

TEST(IpsetMessage, ErrorLineIsReadFromTheEcho) {
  IpsetSpec spec;
  spec.name = "S";
  const std::vector<SetEntry> entries{zoom()};
  const std::vector<std::size_t> chosen{0};
  auto request_space = buffer();
  std::size_t count = 0;
  nlmsghdr* request = ipset_message::put_elements(request_space.data(), {}, IPSET_CMD_ADD, spec,
                                                  entries, chosen, 0, {}, count);
  // As the kernel does: its number over the message's LINENO.
  char* attributes = static_cast<char*>(mnl_nlmsg_get_payload_offset(request, sizeof(nfgenmsg)));
  for (auto* at = reinterpret_cast<nlattr*>(attributes);; at = mnl_attr_next(at))
    if (mnl_attr_get_type(at) == IPSET_ATTR_LINENO) {
      const std::uint32_t line = 77;
      std::memcpy(mnl_attr_get_payload(at), &line, sizeof(line));
      break;
    }
  auto reply_space = buffer();
  nlmsghdr* reply = mnl_nlmsg_put_header(reply_space.data());
  reply->nlmsg_type = NLMSG_ERROR;
  auto* error = static_cast<nlmsgerr*>(
      mnl_nlmsg_put_extra_header(reply, offsetof(nlmsgerr, msg) + request->nlmsg_len));
  error->error = -IPSET_ERR_PRIVATE;
  std::memcpy(&error->msg, request, request->nlmsg_len);
  EXPECT_EQ(ipset_message::error_line(reply), 77U);
  // An ordinary, capped error has the header only.
  reply->nlmsg_len = NLMSG_HDRLEN + sizeof(nlmsgerr);
  EXPECT_EQ(ipset_message::error_line(reply), 0U);
}

TEST(IpsetMessage, OwnErrorCodesAreWords) {
  EXPECT_EQ(ipset_message::error("add to", "S", 4352).message(),
            "cannot add to ipset S: the set is full: raise maxelem");
  EXPECT_EQ(ipset_message::error("add to", "S", 4999).message(),
            "cannot add to ipset S: ipset error 4999");
}

TEST(Ipset, PairChecksNamesWithTheirSuffix) {
  IpsetSpec spec;
  spec.name = std::string(30, 'n');
  const auto pair = ipset_pair(spec);
  ASSERT_TRUE(pair.ok());
  EXPECT_EQ(pair->first.name, spec.name);
  EXPECT_FALSE(pair->first.ipv6);
  EXPECT_EQ(pair->second.name, spec.name + "6");
  EXPECT_TRUE(pair->second.ipv6);
  spec.name += "n";
  EXPECT_FALSE(ipset_pair(spec).ok());
  spec.name.clear();
  EXPECT_FALSE(ipset_pair(spec).ok());
  spec.name = "ok";
  spec.timeout = 2147484;
  EXPECT_FALSE(ipset_pair(spec).ok());
}

TEST(Ipset, HashsizeFollowsMaxelemUnlessGiven) {
  IpsetSpec spec;
  EXPECT_EQ(ipset_hashsize(spec), 16384U);
  spec.maxelem = 100;
  EXPECT_EQ(ipset_hashsize(spec), 100U);
  spec.maxelem = 1U << 20;
  EXPECT_EQ(ipset_hashsize(spec), 16384U);
  spec.hashsize = 64;
  EXPECT_EQ(ipset_hashsize(spec), 64U);
  spec.hashsize = 65536;
  EXPECT_EQ(ipset_hashsize(spec), 65536U);
}

TEST(Ipset, DifferenceNamesEachThing) {
  IpsetSpec spec;
  spec.name = "S";
  spec.timeout = 600;
  spec.skbinfo = true;
  IpsetHeader found;
  found.type = "hash:ip,port,ip";
  found.with_timeout = true;
  found.skbinfo = true;
  EXPECT_EQ(ipset_difference(spec, found), "");
  found.maxelem = 10;
  found.counters = true;
  EXPECT_EQ(ipset_difference(spec, found), "") << "more than asked for is no difference";
  found.type = "hash:ip";
  found.ipv6 = true;
  found.with_timeout = false;
  found.skbinfo = false;
  EXPECT_EQ(ipset_difference(spec, found),
            "its type is hash:ip, not hash:ip,port,ip, its family is inet6, not inet, it was "
            "created without timeout, it was created without skbinfo");
}

TEST(Ipset, PortTypesCannotHoldIcmp) {
  EXPECT_FALSE(ipset_holds(IpsetType::ip_port_ip, IPPROTO_ICMP));
  EXPECT_FALSE(ipset_holds(IpsetType::ip_port, IPPROTO_ICMPV6));
  EXPECT_TRUE(ipset_holds(IpsetType::ip, IPPROTO_ICMP));
  EXPECT_TRUE(ipset_holds(IpsetType::ip_port_ip, IPPROTO_GRE));
}

TEST(NftMessage, KeyIsPaddedFieldByField) {
  const nft_message::Key key = nft_message::key_of(zoom(), false);
  EXPECT_EQ(Bytes(reinterpret_cast<const char*>(key.bytes.data()), key.length),
            hex({198, 51, 100, 7, 17, 0, 0, 0, 0x22, 0x61, 0, 0, 192, 0, 2, 10}));
  EXPECT_EQ(nft_message::key_type(false), 0x1cc347U);
  const SetEntry six{*Address::parse("2001:db8::1"), *Address::parse("2001:db8::2"), 443, 6, 0};
  const nft_message::Key key6 = nft_message::key_of(six, true);
  ASSERT_EQ(key6.length, 40U);
  EXPECT_EQ(key6.bytes[15], 1);
  EXPECT_EQ(key6.bytes[16], 6);
  EXPECT_EQ(key6.bytes[39], 2);
}

TEST(NftMessage, ElementsFitTheirMessage) {
  NftSpec spec;
  spec.table = std::string(255, 't');
  spec.set = std::string(255, 's');
  spec.ipv6 = true;
  spec.timeout = 600;
  const SetEntry six{*Address::parse("2001:db8::1"), *Address::parse("2001:db8::2"), 443, 6, 600};
  const std::vector<SetEntry> entries(nft_message::kElementsPerMessage, six);
  std::vector<std::size_t> chosen(entries.size());
  std::iota(chosen.begin(), chosen.end(), std::size_t{0});
  NetlinkBatch batch(nft_message::kElementsPerMessage * nft_message::kElementBytes + 1024);
  nft_message::elements(batch, 9, false, spec, entries, chosen);
  const auto* message = reinterpret_cast<const nlmsghdr*>(batch.bytes().data());
  EXPECT_EQ(message->nlmsg_len, batch.bytes().size());
  Level top = parse(message);
  const Level list = parse(top.attributes[NFTA_SET_ELEM_LIST_ELEMENTS]);
  ASSERT_EQ(list.repeated.size(), entries.size());
  EXPECT_EQ(parse(list.repeated.back()).attributes[NFTA_SET_ELEM_TIMEOUT],
            hex({0, 0, 0, 0, 0, 9, 0x27, 0xc0}));
}

TEST(Nft, PairFollowsTheTablesFamily) {
  NftSpec spec;
  spec.table = "fw";
  spec.set = "zoom";
  EXPECT_EQ(nft_pair(spec)->size(), 2U);
  EXPECT_EQ(nft_pair(spec)->at(1).full_name(), "inet fw zoom6");
  spec.family = NftFamily::ip;
  ASSERT_EQ(nft_pair(spec)->size(), 1U);
  EXPECT_FALSE(nft_pair(spec)->at(0).ipv6);
  spec.family = NftFamily::ip6;
  EXPECT_EQ(nft_pair(spec)->at(0).full_name(), "ip6 fw zoom6");
  spec.table.clear();
  EXPECT_FALSE(nft_pair(spec).ok());
}

TEST(ConntrackMessage, MarkGoesOutWithItsMaskOnly) {
  ConntrackTuple tuple{*Address::parse("192.0.2.10"),
                       *Address::parse("198.51.100.7"),
                       40000,
                       443,
                       IPPROTO_TCP,
                       std::nullopt};
  ConntrackChange change;
  change.mark = 0x1285;
  change.mark_mask = 0xff;
  auto space = buffer();
  const nlmsghdr* message = conntrack_message::put_change(space.data(), 3, tuple, change);
  EXPECT_EQ(message->nlmsg_flags, NLM_F_REQUEST | NLM_F_ACK) << "must not create entries";
  EXPECT_LE(message->nlmsg_len, conntrack_message::kChangeBytes);
  Level top = parse(message);
  EXPECT_EQ(top.attributes[CTA_MARK], hex({0, 0, 0, 0x85})) << "bits outside the mask";
  EXPECT_EQ(top.attributes[CTA_MARK_MASK], hex({0, 0, 0, 0xff}));
  EXPECT_FALSE(top.attributes.contains(CTA_LABELS));
  Level orig = parse(top.attributes[CTA_TUPLE_ORIG]);
  EXPECT_EQ(parse(orig.attributes[CTA_TUPLE_IP]).attributes[CTA_IP_V4_SRC], hex({192, 0, 2, 10}));
  EXPECT_EQ(parse(orig.attributes[CTA_TUPLE_PROTO]).attributes[CTA_PROTO_DST_PORT],
            hex({0x01, 0xbb}));
}

TEST(ConntrackMessage, LabelsAreWordsAndFitWithIpv6) {
  ConntrackTuple tuple{*Address::parse("2001:db8::1"),
                       *Address::parse("2001:db8::2"),
                       1,
                       2,
                       IPPROTO_UDP,
                       std::nullopt};
  ConntrackChange change;
  change.mark_mask = 0xffffffff;
  change.labels[33] = true;
  change.labels[5] = true;
  change.labels_mask[33] = true;
  auto space = buffer();
  const nlmsghdr* message = conntrack_message::put_change(space.data(), 3, tuple, change);
  EXPECT_LE(message->nlmsg_len, conntrack_message::kChangeBytes);
  Level top = parse(message);
  std::uint32_t words[4];
  ASSERT_EQ(top.attributes[CTA_LABELS].size(), sizeof(words));
  std::memcpy(words, top.attributes[CTA_LABELS].data(), sizeof(words));
  EXPECT_EQ(words[0], 0U) << "label 5 is outside the mask";
  EXPECT_EQ(words[1], 2U);
  EXPECT_EQ(top.attributes[CTA_LABELS_MASK], top.attributes[CTA_LABELS]);
}

TEST(ConntrackMessage, ReversedSwapsEndsAndEcho) {
  ConntrackTuple tuple{
      *Address::parse("192.0.2.1"), *Address::parse("192.0.2.2"), 0, 0, IPPROTO_ICMP,
      ConntrackTuple::Icmp{7, 8, 0}};
  const ConntrackTuple back = conntrack_message::reversed(tuple);
  EXPECT_EQ(back.source.to_string(), "192.0.2.2");
  EXPECT_EQ(back.icmp->type, 0);
  EXPECT_EQ(back.icmp->id, 7);
}

TEST(ConntrackMessage, ZoneGoesOutUnlessItIsTheDefault) {
  ConntrackTuple tuple{*Address::parse("192.0.2.10"),
                       *Address::parse("198.51.100.7"),
                       40000,
                       443,
                       IPPROTO_TCP,
                       std::nullopt};
  auto space = buffer();
  EXPECT_FALSE(parse(conntrack_message::put_change(space.data(), 3, tuple, {}))
                   .attributes.contains(CTA_ZONE));
  tuple.zone = 0x1234;
  ConntrackChange change;
  change.mark_mask = 0xffffffff;
  change.labels_mask.set();
  const nlmsghdr* message = conntrack_message::put_change(space.data(), 3, tuple, change);
  EXPECT_LE(message->nlmsg_len, conntrack_message::kChangeBytes);
  EXPECT_EQ(parse(message).attributes[CTA_ZONE], hex({0x12, 0x34}));
  EXPECT_EQ(parse(conntrack_message::put_dump(space.data(), 3, tuple)).attributes[CTA_ZONE],
            hex({0x12, 0x34}));
  EXPECT_EQ(conntrack_message::reversed(tuple).zone, tuple.zone);
}

TEST(ConntrackMessage, EventsTellBothDirectionsAndTheZone) {
  ConntrackTuple tuple{*Address::parse("2001:db8::1"),
                       *Address::parse("2001:db8::2"),
                       40000,
                       443,
                       IPPROTO_TCP,
                       std::nullopt};
  tuple.zone = 7;
  auto space = buffer();
  nlmsghdr* message = conntrack_message::put_change(space.data(), 0, tuple, {});
  EXPECT_FALSE(conntrack_message::is_destroyed(message));
  EXPECT_FALSE(conntrack_message::parse_entry(message)) << "the reply is missing";
  message->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE;
  EXPECT_TRUE(conntrack_message::is_destroyed(message));
  // The reply's attribute is the original's with another type.
  const auto* first =
      static_cast<const nlattr*>(mnl_nlmsg_get_payload_offset(message, sizeof(nfgenmsg)));
  const Bytes original(static_cast<const char*>(mnl_attr_get_payload(first)),
                       mnl_attr_get_payload_len(first));
  mnl_attr_put(message, CTA_TUPLE_REPLY | NLA_F_NESTED, original.size(), original.data());
  const auto entry = conntrack_message::parse_entry(message);
  ASSERT_TRUE(entry);
  for (const ConntrackTuple* one : {&entry->original, &entry->reply}) {
    EXPECT_EQ(one->source, tuple.source);
    EXPECT_EQ(one->destination_port, 443);
    EXPECT_EQ(one->protocol, IPPROTO_TCP);
    EXPECT_EQ(one->zone, 7);
  }
  // Cut anywhere, it tells less or nothing, and is read no further.
  for (std::uint32_t length = message->nlmsg_len; length > 0; --length) {
    message->nlmsg_len = length;
    (void)conntrack_message::parse_entry(message);
  }
}

}  // namespace
}  // namespace l7mark
