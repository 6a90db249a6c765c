// SPDX-License-Identifier: GPL-2.0-only
// The publishers against the kernel, each case in a network namespace of its own. Effects are read
// with ipset, nft, iptables and conntrack, and by packets that match.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "publish/conntrack.hpp"
#include "publish/ipset.hpp"
#include "publish/nft.hpp"
#include "publish/publisher.hpp"
#include "util/fd.hpp"

namespace l7mark {
namespace {

using testing::HasSubstr;
using testing::Not;

struct Output {
  int status = -1;
  std::string text;
};

Output run(const std::string& command) {
  Output out;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return out;
  std::array<char, 4096> part{};
  while (std::fgets(part.data(), static_cast<int>(part.size()), pipe) != nullptr)
    out.text += part.data();
  const int status = pclose(pipe);
  out.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return out;
}

std::string text_of(const std::string& command) {
  return run(command).text;
}

std::size_t count_of(std::string_view text, std::string_view what) {
  std::size_t count = 0;
  for (auto at = text.find(what); at != std::string_view::npos; at = text.find(what, at + 1))
    ++count;
  return count;
}

// Entry of a TCP or UDP service.
SetEntry entry(const std::string& server, std::uint16_t port, const std::string& client,
               std::uint8_t protocol, std::uint32_t timeout = 600) {
  return {*Address::parse(server), *Address::parse(client), port, protocol, timeout};
}

struct Endpoint {
  std::string address;
  std::uint16_t port;
};

socklen_t fill(sockaddr_storage& out, const Endpoint& endpoint) {
  const Address address = *Address::parse(endpoint.address);
  std::memset(&out, 0, sizeof(out));
  if (address.is_v4()) {
    auto* in = reinterpret_cast<sockaddr_in*>(&out);
    in->sin_family = AF_INET;
    in->sin_port = htons(endpoint.port);
    in->sin_addr.s_addr = address.v4_bits();
    return sizeof(*in);
  }
  auto* in = reinterpret_cast<sockaddr_in6*>(&out);
  in->sin6_family = AF_INET6;
  in->sin6_port = htons(endpoint.port);
  std::memcpy(&in->sin6_addr, address.bytes.data(), address.bytes.size());
  return sizeof(*in);
}

// A bound socket; TCP ones listen if asked.
Fd bound(int type, const Endpoint& at, bool listening = false) {
  sockaddr_storage address{};
  const socklen_t length = fill(address, at);
  Fd fd(socket(address.ss_family, type | SOCK_CLOEXEC, 0));
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) < 0 ||
      (listening && listen(fd.get(), 8) < 0))
    ADD_FAILURE() << "bind " << at.address << ": " << strerror(errno);
  return fd;
}

void connect_to(const Fd& fd, const Endpoint& to) {
  sockaddr_storage address{};
  const socklen_t length = fill(address, to);
  ASSERT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length), 0)
      << to.address << ": " << strerror(errno);
}

constexpr const char* kServer4 = "198.51.100.7";
constexpr const char* kClient4 = "192.0.2.10";
constexpr const char* kServer6 = "2001:db8:5::7";
constexpr const char* kClient6 = "2001:db8:1::10";

class Netns : public testing::Test {
 protected:
  void SetUp() override {
    if (unshare(CLONE_NEWNET) != 0)
      GTEST_SKIP() << "no network namespace of its own: " << strerror(errno)
                   << " (run as root, with CAP_SYS_ADMIN and CAP_NET_ADMIN)";
    for (const char* tool : {"ip", "ipset", "nft", "iptables", "ip6tables", "conntrack"})
      if (run(std::string("command -v ") + tool).status != 0)
        GTEST_SKIP() << tool << " is not installed";
    ASSERT_EQ(run("ip link set lo up").status, 0);
    for (const char* address : {kServer4, kClient4})
      ASSERT_EQ(run(std::string("ip addr add ") + address + "/32 dev lo").status, 0);
    for (const char* address : {kServer6, kClient6})
      ASSERT_EQ(run(std::string("ip addr add ") + address + "/128 dev lo nodad").status, 0);
  }
};

// --- ipset -----------------------------------------------------------------------------------

class IpsetNetns : public Netns {
 protected:
  void SetUp() override {
    Netns::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (run("ipset create probe hash:ip,port,ip && ipset destroy probe").status != 0)
      GTEST_SKIP() << "the kernel has no ipset hash:ip,port,ip";
    auto opened = Ipset::open();
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    ipset_.emplace(std::move(*opened));
    spec_.name = "ZOOM";
    spec_.timeout = 600;
  }
  // Both sets of spec_.
  std::pair<IpsetSpec, IpsetSpec> pair() { return *ipset_pair(spec_); }

  std::optional<Ipset> ipset_;
  IpsetSpec spec_;
};

TEST_F(IpsetNetns, CreatesBothSetsAndWritesTcpAndUdp) {
  const auto [v4, v6] = pair();
  for (const IpsetSpec* spec : {&v4, &v6}) {
    const auto ensured = ipset_->ensure(*spec);
    ASSERT_TRUE(ensured.ok()) << ensured.error().message();
    EXPECT_EQ(*ensured, Ensured::created);
  }
  const std::vector<SetEntry> entries{
      entry(kServer4, 443, kClient4, IPPROTO_TCP), entry(kServer4, 8801, kClient4, IPPROTO_UDP),
      entry(kServer6, 443, kClient6, IPPROTO_TCP), entry(kServer6, 8801, kClient6, IPPROTO_UDP),
      entry(kServer4, 0, kClient4, IPPROTO_GRE),   entry(kServer4, 0, kClient4, IPPROTO_ICMP)};
  const WriteOutcome first = ipset_->add(v4, entries);
  EXPECT_TRUE(first.ok());
  EXPECT_EQ(first.written, 3U);
  EXPECT_EQ(first.skipped, 3U) << "two of IPv6, and ICMP";
  EXPECT_EQ(ipset_->add(v6, entries).written, 2U);
  const std::string list4 = text_of("ipset list ZOOM");
  EXPECT_THAT(list4, HasSubstr("Type: hash:ip,port,ip"));
  EXPECT_THAT(list4, HasSubstr("198.51.100.7,tcp:443,192.0.2.10 timeout"));
  EXPECT_THAT(list4, HasSubstr("198.51.100.7,udp:8801,192.0.2.10 timeout"));
  EXPECT_THAT(list4, HasSubstr("198.51.100.7,gre:0,192.0.2.10 timeout"));
  const std::string list6 = text_of("ipset list ZOOM6");
  EXPECT_THAT(list6, HasSubstr("family inet6"));
  EXPECT_THAT(list6, HasSubstr("2001:db8:5::7,tcp:443,2001:db8:1::10 timeout"));
  EXPECT_THAT(list6, HasSubstr("2001:db8:5::7,udp:8801,2001:db8:1::10 timeout"));
}

TEST_F(IpsetNetns, RulesMatchRealPackets) {
  const auto [v4, v6] = pair();
  ASSERT_TRUE(ipset_->ensure(v4).ok());
  ASSERT_TRUE(ipset_->ensure(v6).ok());
  struct Case {
    const char* tables;
    const IpsetSpec* spec;
    const char* server;
    const char* client;
  };
  for (const Case& c :
       {Case{"iptables", &v4, kServer4, kClient4}, Case{"ip6tables", &v6, kServer6, kClient6}}) {
    const std::string match = std::string(c.tables) + " -t mangle -A OUTPUT -m set --match-set " +
                              c.spec->name + " dst,dst,src -j MARK --set-mark 0x85";
    const Output rule = run(match);
    if (rule.status != 0) GTEST_SKIP() << c.tables << " cannot match sets: " << rule.text;
    const std::vector<SetEntry> entries{entry(c.server, 8801, c.client, IPPROTO_UDP),
                                        entry(c.server, 443, c.client, IPPROTO_TCP)};
    ASSERT_TRUE(ipset_->add(*c.spec, entries).ok());
    const std::string show = std::string(c.tables) + " -t mangle -nvxL OUTPUT | grep ZOOM";
    const auto packets = [&] { return std::stoul(text_of(show)); };
    EXPECT_EQ(packets(), 0U);
    const Fd udp_server = bound(SOCK_DGRAM, {c.server, 8801});
    const Fd udp = bound(SOCK_DGRAM, {c.client, 0});
    connect_to(udp, {c.server, 8801});
    ASSERT_EQ(send(udp.get(), "x", 1, 0), 1);
    EXPECT_EQ(packets(), 1U);
    const Fd listener = bound(SOCK_STREAM, {c.server, 443}, true);
    const Fd tcp = bound(SOCK_STREAM, {c.client, 0});
    connect_to(tcp, {c.server, 443});
    const auto with_tcp = packets();
    EXPECT_GT(with_tcp, 1U);
    // The same port by the other protocol is another service.
    const Fd other_server = bound(SOCK_DGRAM, {c.server, 443});
    const Fd other = bound(SOCK_DGRAM, {c.client, 0});
    connect_to(other, {c.server, 443});
    ASSERT_EQ(send(other.get(), "x", 1, 0), 1);
    EXPECT_EQ(packets(), with_tcp);
  }
}

TEST_F(IpsetNetns, EveryTypeAndOption) {
  struct Case {
    IpsetType type;
    const char* element;
  };
  const SetEntry one = entry(kServer4, 443, kClient4, IPPROTO_TCP);
  for (const Case& c :
       {Case{IpsetType::ip_port_ip, "198.51.100.7,tcp:443,192.0.2.10"},
        Case{IpsetType::ip_port, "198.51.100.7,tcp:443"}, Case{IpsetType::ip, "198.51.100.7"},
        Case{IpsetType::net, "198.51.100.7"}}) {
    IpsetSpec spec = spec_;
    spec.name = "T" + std::to_string(static_cast<int>(c.type));
    spec.type = c.type;
    spec.maxelem = 12345;
    spec.hashsize = 4096;
    spec.counters = spec.comment = spec.skbinfo = true;
    const auto ensured = ipset_->ensure(spec);
    ASSERT_TRUE(ensured.ok()) << ensured.error().message();
    const IpsetExtras extras{"class zoom", SkbInfo{0x85, 0xff, 0x00010010, 3}};
    const WriteOutcome outcome = ipset_->add(spec, std::span(&one, 1), extras);
    ASSERT_TRUE(outcome.ok()) << outcome.error->message();
    const std::string list = text_of("ipset list " + spec.name);
    EXPECT_THAT(list, HasSubstr("hashsize 4096 maxelem 12345"));
    EXPECT_THAT(list, HasSubstr(std::string(c.element) + " timeout"));
    EXPECT_THAT(list, HasSubstr("packets 0 bytes 0 comment \"class zoom\" skbmark 0x85/0xff "
                                "skbprio 1:10 skbqueue 3"));
    EXPECT_EQ(*ipset_->ensure(spec), Ensured::created) << "it still differs in nothing";
  }
}

// The kernel holds writers while it enlarges a set.
TEST_F(IpsetNetns, IsNotEnlargedAtHalfOfMaxelem) {
  ASSERT_TRUE(ipset_->ensure(spec_).ok());
  EXPECT_THAT(text_of("ipset list -terse ZOOM"), HasSubstr("hashsize 16384 maxelem 65536"));
  std::vector<SetEntry> entries;
  for (std::uint16_t port = 1; port <= 32768; ++port)
    entries.push_back(entry(kServer4, port, kClient4, IPPROTO_TCP));
  const WriteOutcome outcome = ipset_->add(spec_, entries);
  ASSERT_TRUE(outcome.ok()) << outcome.error->message();
  EXPECT_THAT(text_of("ipset list -terse ZOOM"), HasSubstr("hashsize 16384 maxelem 65536"));
  for (const auto& [maxelem, hashsize] : {std::pair{100U, 128U}, std::pair{1U, 64U}}) {
    IpsetSpec small = spec_;
    small.name = "SMALL" + std::to_string(maxelem);
    small.maxelem = maxelem;
    ASSERT_TRUE(ipset_->ensure(small).ok());
    EXPECT_THAT(text_of("ipset list -terse " + small.name),
                HasSubstr("hashsize " + std::to_string(hashsize) + " maxelem"));
  }
}

TEST_F(IpsetNetns, RefreshGivesANewTimeoutAndKeepsCounters) {
  spec_.counters = true;
  ASSERT_TRUE(ipset_->ensure(spec_).ok());
  ASSERT_EQ(
      run("ipset add ZOOM 198.51.100.7,tcp:443,192.0.2.10 timeout 100 packets 7 bytes 9").status,
      0);
  const SetEntry again = entry(kServer4, 443, kClient4, IPPROTO_TCP, 50000);
  ASSERT_TRUE(ipset_->add(spec_, std::span(&again, 1)).ok());
  const std::string list = text_of("ipset list ZOOM");
  EXPECT_EQ(count_of(list, "tcp:443"), 1U);
  EXPECT_THAT(list, testing::ContainsRegex("timeout (50000|49[0-9]{3}) packets 7 bytes 9"));
}

TEST_F(IpsetNetns, RemoveDeletesAndForgivesWhatIsMissing) {
  ASSERT_TRUE(ipset_->ensure(spec_).ok());
  const std::vector<SetEntry> entries{entry(kServer4, 1, kClient4, IPPROTO_TCP),
                                      entry(kServer4, 2, kClient4, IPPROTO_TCP)};
  ASSERT_TRUE(ipset_->add(spec_, std::span(entries).first(1)).ok());
  const WriteOutcome outcome = ipset_->remove(spec_, entries);
  EXPECT_TRUE(outcome.ok());
  EXPECT_EQ(outcome.written, 2U);
  EXPECT_EQ((*ipset_->header("ZOOM"))->elements, 0U);
}

TEST_F(IpsetNetns, AdoptsTheUsersSetAndNeverHarmsIt) {
  ASSERT_EQ(run("ipset create ZOOM hash:ip,port,ip timeout 60 counters comment maxelem 99 "
                "hashsize 64 && "
                "ipset add ZOOM 203.0.113.1,tcp:22,192.0.2.9 timeout 0")
                .status,
            0);
  const auto ensured = ipset_->ensure(spec_);
  ASSERT_TRUE(ensured.ok()) << ensured.error().message();
  EXPECT_EQ(*ensured, Ensured::adopted);
  EXPECT_EQ(ipset_->destroy("ZOOM").error().message(),
            "cannot destroy ipset ZOOM: Operation not permitted (l7mark did not create it)");
  EXPECT_FALSE(ipset_->flush("ZOOM").ok());
  const std::string list = text_of("ipset list ZOOM");
  EXPECT_THAT(list, HasSubstr("hashsize 64 maxelem 99"));
  EXPECT_THAT(list, HasSubstr("203.0.113.1,tcp:22,192.0.2.9"));
}

TEST_F(IpsetNetns, RefusesADifferentSetByNamingTheDifference) {
  ASSERT_EQ(run("ipset create ZOOM hash:ip,port").status, 0);
  const auto ensured = ipset_->ensure(spec_);
  ASSERT_FALSE(ensured.ok());
  EXPECT_EQ(ensured.error().message(),
            "cannot use ipset ZOOM: File exists (it exists, but its type is hash:ip,port, not "
            "hash:ip,port,ip, it was created without timeout: rename or recreate it)");
}

TEST_F(IpsetNetns, DestroyOfAUsedSetSaysSo) {
  ASSERT_TRUE(ipset_->ensure(spec_).ok());
  const Output rule = run("iptables -A OUTPUT -m set --match-set ZOOM dst,dst,src -j ACCEPT");
  if (rule.status != 0) GTEST_SKIP() << "iptables cannot match sets: " << rule.text;
  const Status status = ipset_->destroy("ZOOM");
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, EBUSY);
  EXPECT_THAT(status.error().message(), HasSubstr("a rule or another set uses it"));
  ASSERT_EQ(run("iptables -F OUTPUT").status, 0);
  EXPECT_TRUE(ipset_->destroy("ZOOM").ok());
  EXPECT_NE(run("ipset list ZOOM").status, 0);
}

TEST_F(IpsetNetns, BadElementsDoNotKeepTheRestOut) {
  spec_.type = IpsetType::ip;
  ASSERT_TRUE(ipset_->ensure(spec_).ok());
  std::vector<SetEntry> entries;
  for (std::uint32_t i = 0; i < 1000; ++i)
    entries.push_back({Address::v4(htonl(0xc6120000U + i)), Address::v4(0), 0, 0, 600});
  // The kernel refuses address 0 in this type.
  const std::vector<std::size_t> bad{0, 255, 256, 511, 700, 701, 999};
  for (const std::size_t index : bad) entries[index].server = Address::v4(0);
  const WriteOutcome outcome = ipset_->add(spec_, entries);
  std::vector<std::size_t> failed;
  for (const WriteFailure& failure : outcome.failures) failed.push_back(failure.index);
  EXPECT_THAT(failed, testing::UnorderedElementsAreArray(bad));
  EXPECT_EQ(outcome.trouble(), WriteTrouble::element);
  EXPECT_EQ(outcome.written, 993U);
  EXPECT_EQ(count_of(text_of("ipset list ZOOM"), "198.18."), 993U);
}

TEST_F(IpsetNetns, FullSetTakesWhatFitsAndStillRefreshes) {
  spec_.maxelem = 300;
  spec_.hashsize = 64;
  ASSERT_TRUE(ipset_->ensure(spec_).ok());
  std::vector<SetEntry> entries;
  for (std::uint16_t port = 1; port <= 2000; ++port)
    entries.push_back(entry(kServer4, port, kClient4, IPPROTO_TCP));
  const WriteOutcome outcome = ipset_->add(spec_, entries);
  EXPECT_EQ(outcome.trouble(), WriteTrouble::full);
  EXPECT_EQ(outcome.error->message(), "cannot add to ipset ZOOM: the set is full: raise maxelem");
  EXPECT_GE(outcome.written, 290U);
  EXPECT_EQ(outcome.written + outcome.failures.size(), entries.size());
  EXPECT_EQ((*ipset_->header("ZOOM"))->elements, outcome.written);
  // The first ones are in, and their refresh needs no room.
  EXPECT_TRUE(ipset_->add(spec_, std::span(entries).first(200)).ok());
}

TEST_F(IpsetNetns, GoneAndReplacedSetsAreToldApart) {
  ASSERT_TRUE(ipset_->ensure(spec_).ok());
  const SetEntry one = entry(kServer4, 443, kClient4, IPPROTO_TCP);
  ASSERT_EQ(run("ipset destroy ZOOM").status, 0);
  EXPECT_EQ(ipset_->add(spec_, std::span(&one, 1)).trouble(), WriteTrouble::gone);
  EXPECT_FALSE(ipset_->created("ZOOM")) << "the next of that name may be the user's";
  ASSERT_EQ(run("ipset create ZOOM hash:ip timeout 5").status, 0);
  EXPECT_EQ(ipset_->add(spec_, std::span(&one, 1)).trouble(), WriteTrouble::wrong_type);
  ASSERT_EQ(run("ipset destroy ZOOM && ipset create ZOOM hash:ip,port,ip").status, 0);
  EXPECT_EQ(ipset_->add(spec_, std::span(&one, 1)).trouble(), WriteTrouble::wrong_type)
      << "without timeouts";
  ASSERT_EQ(
      run("ipset destroy ZOOM && ipset create ZOOM hash:ip,port,ip family inet6 timeout 5").status,
      0);
  EXPECT_EQ(ipset_->add(spec_, std::span(&one, 1)).trouble(), WriteTrouble::wrong_type);
}

TEST_F(IpsetNetns, LostAcknowledgementsLoseNoEntry) {
  ASSERT_TRUE(ipset_->ensure(spec_).ok());
  ASSERT_TRUE(ipset_->socket().set_receive_buffer(1).ok());  // the kernel's least, 2304
  std::vector<SetEntry> entries;
  for (std::uint16_t port = 1; port <= 20000; ++port)
    entries.push_back(entry(kServer4, port, kClient4, IPPROTO_TCP));
  const WriteOutcome outcome = ipset_->add(spec_, entries);
  EXPECT_GT(outcome.resyncs, 0U) << "the buffer was meant to overrun";
  EXPECT_TRUE(outcome.ok());
  EXPECT_EQ((*ipset_->header("ZOOM"))->elements, entries.size());
}

// --- nftables --------------------------------------------------------------------------------

class NftNetns : public Netns {
 protected:
  void SetUp() override {
    Netns::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (run("nft add table inet probe && nft delete table inet probe").status != 0)
      GTEST_SKIP() << "the kernel has no nf_tables";
    auto opened = Nft::open();
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    nft_.emplace(std::move(*opened));
    spec_.table = "fw";
    spec_.set = "zoom";
    spec_.timeout = 600;
    spec_.create_table = true;
  }
  void ensure() {
    const auto specs = nft_pair(spec_);
    for (const NftSpec& spec : *specs) {
      const auto ensured = nft_->ensure(spec);
      ASSERT_TRUE(ensured.ok()) << ensured.error().message();
    }
  }
  NftSpec v4() { return nft_pair(spec_)->at(0); }
  NftSpec v6() { return nft_pair(spec_)->at(1); }

  std::optional<Nft> nft_;
  NftSpec spec_;
};

TEST_F(NftNetns, CreatesTableAndSetsAndWrites) {
  ensure();
  const std::vector<SetEntry> entries{
      entry(kServer4, 443, kClient4, IPPROTO_TCP), entry(kServer4, 8801, kClient4, IPPROTO_UDP),
      entry(kServer6, 443, kClient6, IPPROTO_TCP), entry(kServer6, 8801, kClient6, IPPROTO_UDP, 77),
      entry(kServer4, 0, kClient4, IPPROTO_ICMP)};
  const WriteOutcome outcome = nft_->add(v4(), entries);
  EXPECT_TRUE(outcome.ok());
  EXPECT_EQ(outcome.written, 2U);
  EXPECT_EQ(outcome.skipped, 3U);
  EXPECT_EQ(nft_->add(v6(), entries).written, 2U);
  const std::string list = text_of("nft -j list set inet fw zoom");
  EXPECT_THAT(list,
              HasSubstr(R"("type": ["ipv4_addr", "inet_proto", "inet_service", "ipv4_addr"])"));
  EXPECT_THAT(list, HasSubstr(R"("concat": ["198.51.100.7", "tcp", 443, "192.0.2.10"])"));
  EXPECT_THAT(list, HasSubstr(R"("concat": ["198.51.100.7", "udp", 8801, "192.0.2.10"])"));
  const std::string list6 = text_of("nft -j list set inet fw zoom6");
  EXPECT_THAT(list6, HasSubstr(R"("concat": ["2001:db8:5::7", "tcp", 443, "2001:db8:1::10"])"));
  EXPECT_THAT(list6, HasSubstr(R"("timeout": 77)"));
  EXPECT_TRUE(*nft_->contains(v4(), entries[0]));
  EXPECT_FALSE(*nft_->contains(v4(), entry(kServer4, 444, kClient4, IPPROTO_TCP)));
}

TEST_F(NftNetns, RulesMatchRealPackets) {
  ensure();
  ASSERT_EQ(run("nft add chain inet fw out '{ type filter hook output priority 0; }' && "
                "nft add rule inet fw out ip daddr . meta l4proto . th dport . ip saddr @zoom "
                "counter name c4 2>/dev/null; "
                "nft add rule inet fw out ip daddr . meta l4proto . th dport . ip saddr @zoom "
                "counter && "
                "nft add rule inet fw out ip6 daddr . meta l4proto . th dport . ip6 saddr @zoom6 "
                "counter")
                .status,
            0)
      << text_of("nft list ruleset");
  for (const auto& [server, client, spec] :
       {std::tuple{kServer4, kClient4, v4()}, std::tuple{kServer6, kClient6, v6()}}) {
    const SetEntry udp_entry = entry(server, 8801, client, IPPROTO_UDP);
    ASSERT_TRUE(nft_->add(spec, std::span(&udp_entry, 1)).ok());
    const Fd udp_server = bound(SOCK_DGRAM, {server, 8801});
    const Fd other_server = bound(SOCK_DGRAM, {server, 8802});
    const Fd udp = bound(SOCK_DGRAM, {client, 0});
    connect_to(udp, {server, 8801});
    ASSERT_EQ(send(udp.get(), "x", 1, 0), 1);
    connect_to(udp, {server, 8802});
    ASSERT_EQ(send(udp.get(), "x", 1, 0), 1);
  }
  const std::string rules = text_of("nft list chain inet fw out");
  EXPECT_EQ(count_of(rules, "counter packets 1 "), 2U) << rules;
}

TEST_F(NftNetns, RefreshGivesANewTimeoutInPlaceOrNot) {
  ensure();
  const SetEntry short_one = entry(kServer4, 443, kClient4, IPPROTO_TCP, 100);
  SetEntry long_one = short_one;
  long_one.timeout = 50000;
  ASSERT_TRUE(nft_->add(v4(), std::span(&short_one, 1)).ok());
  const WriteOutcome outcome = nft_->refresh(v4(), std::span(&long_one, 1));
  ASSERT_TRUE(outcome.ok()) << outcome.error->message();
  std::string list = text_of("nft -j list set inet fw zoom");
  EXPECT_EQ(count_of(list, "concat"), 1U);
  EXPECT_THAT(list, testing::ContainsRegex("\"expires\": (50000|49[0-9]{3})"));
  // The same timeout again must move the expiry as well.
  ASSERT_EQ(run("nft delete element inet fw zoom '{ 198.51.100.7 . tcp . 443 . 192.0.2.10 }' && "
                "nft add element inet fw zoom "
                "'{ 198.51.100.7 . tcp . 443 . 192.0.2.10 timeout 50000s expires 100s }'")
                .status,
            0);
  ASSERT_TRUE(nft_->refresh(v4(), std::span(&long_one, 1)).ok());
  list = text_of("nft -j list set inet fw zoom");
  EXPECT_THAT(list, testing::ContainsRegex("\"expires\": (50000|49[0-9]{3})"));
  // And one that is missing is added.
  const SetEntry missing = entry(kServer4, 80, kClient4, IPPROTO_TCP);
  ASSERT_TRUE(nft_->refresh(v4(), std::span(&missing, 1)).ok());
  EXPECT_TRUE(*nft_->contains(v4(), missing));
}

TEST_F(NftNetns, RemoveDeletesAndForgivesWhatIsMissing) {
  ensure();
  std::vector<SetEntry> entries;
  for (std::uint16_t port = 1; port <= 5000; ++port)
    entries.push_back(entry(kServer4, port, kClient4, IPPROTO_TCP));
  ASSERT_TRUE(nft_->add(v4(), std::span(entries).first(3000)).ok());
  const WriteOutcome outcome = nft_->remove(v4(), entries);
  EXPECT_TRUE(outcome.ok());
  EXPECT_EQ(outcome.written, 5000U);
  EXPECT_THAT(text_of("nft -j list set inet fw zoom"), Not(HasSubstr("concat")));
}

TEST_F(NftNetns, AdoptsTheUsersSetAndNeverHarmsIt) {
  ASSERT_EQ(run("nft add table inet fw && nft add set inet fw zoom '{ type ipv4_addr . inet_proto "
                ". inet_service . ipv4_addr; flags timeout; }' && nft add element inet fw zoom "
                "'{ 203.0.113.1 . tcp . 22 . 192.0.2.9 }'")
                .status,
            0);
  const auto ensured = nft_->ensure(v4());
  ASSERT_TRUE(ensured.ok()) << ensured.error().message();
  EXPECT_EQ(*ensured, Ensured::adopted);
  ASSERT_EQ(*nft_->ensure(v6()), Ensured::created);
  EXPECT_FALSE(nft_->destroy(v4()).ok());
  EXPECT_FALSE(nft_->flush(v4()).ok());
  EXPECT_TRUE(nft_->destroy(v6()).ok());
  const std::string list = text_of("nft list table inet fw");
  EXPECT_THAT(list, HasSubstr("203.0.113.1 . tcp . 22 . 192.0.2.9"));
  EXPECT_THAT(list, Not(HasSubstr("zoom6")));
}

TEST_F(NftNetns, RefusesADifferentSetByNamingTheDifference) {
  ASSERT_EQ(run("nft add table inet fw && nft add set inet fw zoom '{ type ipv4_addr; }'").status,
            0);
  const auto ensured = nft_->ensure(v4());
  ASSERT_FALSE(ensured.ok());
  EXPECT_EQ(ensured.error().message(),
            "cannot use nft set inet fw zoom: File exists (it exists, but its type is not "
            "ipv4_addr . inet_proto . inet_service . ipv4_addr, it was created without flag "
            "timeout: rename or recreate it)");
  spec_.table = "none";
  spec_.create_table = false;
  EXPECT_THAT(nft_->ensure(v4()).error().message(), HasSubstr("there is no table inet none"));
}

TEST_F(NftNetns, DestroyTakesTheTableOnlyIfNothingElseIsInIt) {
  ensure();
  ASSERT_EQ(run("nft add chain inet fw mine").status, 0);
  EXPECT_TRUE(nft_->destroy(v4()).ok());
  EXPECT_TRUE(nft_->destroy(v6()).ok());
  EXPECT_THAT(text_of("nft list table inet fw"), HasSubstr("chain mine"));
  spec_.table = "own";
  ensure();
  EXPECT_TRUE(nft_->destroy(v4()).ok());
  EXPECT_TRUE(nft_->destroy(v6()).ok());
  EXPECT_NE(run("nft list table inet own").status, 0);
}

TEST_F(NftNetns, UsedAndReplacedSetsAreSafe) {
  ensure();
  ASSERT_EQ(run("nft add chain inet fw c && nft add rule inet fw c ip daddr . meta l4proto . th "
                "dport . ip saddr @zoom accept")
                .status,
            0);
  const Status used = nft_->destroy(v4());
  ASSERT_FALSE(used.ok());
  EXPECT_EQ(used.error().code, EBUSY);
  ASSERT_EQ(run("nft delete table inet fw").status, 0);
  const SetEntry one = entry(kServer4, 443, kClient4, IPPROTO_TCP);
  EXPECT_EQ(nft_->add(v4(), std::span(&one, 1)).trouble(), WriteTrouble::gone);
  ASSERT_EQ(run("nft add table inet fw && nft add set inet fw zoom '{ type ipv4_addr . inet_proto "
                ". inet_service . ipv4_addr; flags timeout; }'")
                .status,
            0);
  EXPECT_EQ(*nft_->ensure(v4()), Ensured::adopted) << "the user's, by its handle";
}

TEST_F(NftNetns, FullSetTakesWhatFits) {
  spec_.size = 300;
  ensure();
  std::vector<SetEntry> entries;
  for (std::uint16_t port = 1; port <= 1000; ++port)
    entries.push_back(entry(kServer4, port, kClient4, IPPROTO_TCP));
  const WriteOutcome outcome = nft_->add(v4(), entries);
  EXPECT_EQ(outcome.trouble(), WriteTrouble::full) << outcome.error->message();
  EXPECT_EQ(outcome.written + outcome.failures.size(), entries.size());
  EXPECT_GE(outcome.written, 300U);
  const std::string list = text_of("nft -j list set inet fw zoom");
  EXPECT_EQ(count_of(list, "concat"), outcome.written);
  EXPECT_TRUE(nft_->refresh(v4(), std::span(entries).first(100)).ok());
}

TEST_F(NftNetns, LostAcknowledgementsLoseNoEntry) {
  ensure();
  ASSERT_TRUE(nft_->socket().set_receive_buffer(1).ok());
  std::vector<SetEntry> entries;
  for (std::uint16_t port = 1; port <= 20000; ++port)
    entries.push_back(entry(kServer4, port, kClient4, IPPROTO_TCP));
  const WriteOutcome outcome = nft_->add(v4(), entries);
  const std::string list = text_of("nft -j list set inet fw zoom");
  EXPECT_EQ(count_of(list, "concat"), entries.size())
      << (outcome.error ? outcome.error->message() : "no error");
}

// --- conntrack -------------------------------------------------------------------------------

class ConntrackNetns : public Netns {
 protected:
  void SetUp() override {
    Netns::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    // A rule about connections is what makes the namespace track them.
    const Output rules = run(
        "nft add table inet t && nft add chain inet t c '{ type filter hook output priority 0; }'"
        " && nft add rule inet t c ct state established counter");
    if (rules.status != 0) GTEST_SKIP() << "no connection tracking: " << rules.text;
    auto opened = Conntrack::open();
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    conntrack_.emplace(std::move(*opened));
  }

  // Sends a datagram; the socket's port is in `tuple`.
  Fd udp_flow(const char* client, const char* server, std::uint16_t port, ConntrackTuple& tuple) {
    Fd fd = bound(SOCK_DGRAM, {client, 0});
    connect_to(fd, {server, port});
    EXPECT_EQ(send(fd.get(), "x", 1, 0), 1);
    tuple = {*Address::parse(client), *Address::parse(server), port_of(fd), port, IPPROTO_UDP, {}};
    return fd;
  }
  static std::uint16_t port_of(const Fd& fd) {
    sockaddr_storage address{};
    socklen_t length = sizeof(address);
    getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length);
    return ntohs(address.ss_family == AF_INET
                     ? reinterpret_cast<const sockaddr_in*>(&address)->sin_port
                     : reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port);
  }
  ConntrackOutcome mark(const ConntrackTuple& tuple, std::uint32_t value, std::uint32_t mask) {
    ConntrackRequest request{tuple, {}};
    request.change.mark = value;
    request.change.mark_mask = mask;
    return conntrack_->write(std::span(&request, 1));
  }

  std::optional<Conntrack> conntrack_;
};

TEST_F(ConntrackNetns, MarksUdpAndTcpInsideTheMaskOnly) {
  for (const auto& [client, server, family] :
       {std::tuple{kClient4, kServer4, "ipv4"}, std::tuple{kClient6, kServer6, "ipv6"}}) {
    const Fd udp_server = bound(SOCK_DGRAM, {server, 8801});
    ConntrackTuple tuple;
    const Fd udp = udp_flow(client, server, 8801, tuple);
    EXPECT_EQ(mark(tuple, 0x4200, 0xff00).written, 1U);
    EXPECT_EQ(mark(tuple, 0xffff85, 0xff).written, 1U);
    const std::string list = std::string("conntrack -L -f ") + family + " -p udp --dport 8801";
    EXPECT_THAT(text_of(list), HasSubstr("mark=17029 ")) << "0x4285";

    const Fd listener = bound(SOCK_STREAM, {server, 443}, true);
    const Fd tcp = bound(SOCK_STREAM, {client, 0});
    connect_to(tcp, {server, 443});
    const ConntrackTuple tcp_tuple{
        *Address::parse(client), *Address::parse(server), port_of(tcp), 443, IPPROTO_TCP, {}};
    EXPECT_EQ(mark(tcp_tuple, 5, 0xff).written, 1U);
    EXPECT_THAT(text_of(std::string("conntrack -L -f ") + family + " -p tcp --dport 443"),
                HasSubstr("mark=5 "));
  }
}

TEST_F(ConntrackNetns, MissingEntriesAreReportedAndNotMade) {
  const ConntrackTuple tuple{
      *Address::parse(kClient4), *Address::parse(kServer4), 1, 2, IPPROTO_UDP, {}};
  const ConntrackOutcome outcome = mark(tuple, 1, 1);
  EXPECT_EQ(outcome.written, 0U);
  EXPECT_EQ(outcome.missing, (std::vector<std::size_t>{0}));
  EXPECT_FALSE(outcome.error);
  EXPECT_EQ(count_of(text_of("conntrack -L"), "mark="), 0U);
}

TEST_F(ConntrackNetns, BehindDestinationNatTheReplyIsFound) {
  ASSERT_EQ(run("ip addr add 203.0.113.80/32 dev lo && nft add table ip n && nft add chain ip n o "
                "'{ type nat hook output priority -100; }' && nft add rule ip n o ip daddr "
                "203.0.113.80 udp dport 80 dnat to 198.51.100.7:8080")
                .status,
            0);
  const Fd server = bound(SOCK_DGRAM, {kServer4, 8080});
  ConntrackTuple tuple;
  const Fd udp = udp_flow(kClient4, "203.0.113.80", 80, tuple);
  // What is seen on the inside: the translated destination.
  tuple.destination = *Address::parse(kServer4);
  tuple.destination_port = 8080;
  EXPECT_EQ(mark(tuple, 0x85, 0xff).written, 1U);
  EXPECT_THAT(text_of("conntrack -L -p udp --orig-dst 203.0.113.80"), HasSubstr("mark=133 "));
}

TEST_F(ConntrackNetns, MasqueradedFlowIsFoundByItsInnerTuple) {
  ASSERT_EQ(run("ip addr add 203.0.113.1/32 dev lo && nft add table ip n && nft add chain ip n p "
                "'{ type nat hook postrouting priority 100; }' && nft add rule ip n p ip saddr "
                "192.0.2.10 udp dport 8801 snat to 203.0.113.1")
                .status,
            0);
  const Fd server = bound(SOCK_DGRAM, {kServer4, 8801});
  ConntrackTuple tuple;
  const Fd udp = udp_flow(kClient4, kServer4, 8801, tuple);
  EXPECT_EQ(mark(tuple, 0x85, 0xff).written, 1U);
  EXPECT_THAT(text_of("conntrack -L -p udp --reply-dst 203.0.113.1"), HasSubstr("mark=133 "));
}

TEST_F(ConntrackNetns, IcmpIsFoundByItsAddresses) {
  if (run("command -v ping").status != 0) GTEST_SKIP() << "ping is not installed";
  for (const auto& [client, server, family, protocol] :
       {std::tuple{kClient4, kServer4, "ipv4", static_cast<int>(IPPROTO_ICMP)},
        std::tuple{kClient6, kServer6, "ipv6", static_cast<int>(IPPROTO_ICMPV6)}}) {
    const Output ping = run(std::string("ping -c 1 -W 2 -I ") + client + " " + server);
    ASSERT_EQ(ping.status, 0) << ping.text;
    const ConntrackTuple tuple{*Address::parse(client),
                               *Address::parse(server),
                               0,
                               0,
                               static_cast<std::uint8_t>(protocol),
                               {}};
    const ConntrackOutcome outcome = mark(tuple, 0x85, 0xff);
    EXPECT_EQ(outcome.written, 1U) << (outcome.error ? outcome.error->message() : "");
    EXPECT_THAT(text_of(std::string("conntrack -L -f ") + family), HasSubstr("mark=133 "));
  }
}

TEST_F(ConntrackNetns, LabelsNeedARuleAndSaySo) {
  const Fd server = bound(SOCK_DGRAM, {kServer4, 8801});
  ConntrackTuple tuple;
  const Fd before = udp_flow(kClient4, kServer4, 8801, tuple);
  ConntrackRequest request{tuple, {}};
  request.change.mark = request.change.mark_mask = 1;
  request.change.labels[7] = true;
  request.change.labels_mask[7] = true;
  ConntrackOutcome outcome = conntrack_->write(std::span(&request, 1));
  ASSERT_TRUE(outcome.error);
  EXPECT_EQ(outcome.error->code, ENOSPC);
  EXPECT_THAT(outcome.error->message(), HasSubstr("add a rule with `-m connlabel` or `ct label`"));
  EXPECT_THAT(text_of("conntrack -L -p udp"), HasSubstr("mark=1 ")) << "the mark is set anyway";

  ASSERT_EQ(run("nft add rule inet t c ct label 7 counter").status, 0);
  ConntrackTuple second;
  const Fd after = udp_flow(kClient4, kServer4, 8801, second);
  request.tuple = second;
  outcome = conntrack_->write(std::span(&request, 1));
  EXPECT_EQ(outcome.written, 1U) << (outcome.error ? outcome.error->message() : "");
  ASSERT_EQ(send(after.get(), "x", 1, 0), 1);
  EXPECT_THAT(text_of("nft list chain inet t c"),
              testing::ContainsRegex("ct label [^ ]+ counter packets 1 "));
}

TEST_F(ConntrackNetns, ManyInOneCall) {
  const Fd server = bound(SOCK_DGRAM, {kServer4, 8801});
  std::vector<Fd> sockets;
  std::vector<ConntrackRequest> requests(700);
  for (ConntrackRequest& request : requests) {
    sockets.push_back(udp_flow(kClient4, kServer4, 8801, request.tuple));
    request.change.mark = 0x85;
    request.change.mark_mask = 0xff;
  }
  requests[500].tuple.destination_port = 9;
  const ConntrackOutcome outcome = conntrack_->write(requests);
  EXPECT_EQ(outcome.written, 699U);
  EXPECT_EQ(outcome.missing, (std::vector<std::size_t>{500}));
  EXPECT_EQ(count_of(text_of("conntrack -L -p udp"), "mark=133 "), 699U);
  ASSERT_TRUE(conntrack_->socket().set_receive_buffer(1).ok());
  const ConntrackOutcome again = conntrack_->write(requests);
  EXPECT_GT(again.resyncs, 0U);
}

// So many were destroyed, as far as events tell.
std::size_t destroyed(ConntrackEvents& events, const ConntrackTuple& of, bool& lost) {
  std::size_t count = 0;
  const auto status = events.read(
      [&](const ConntrackEntry& entry) {
        const ConntrackTuple& original = entry.original;
        if (original.source == of.source && original.destination == of.destination &&
            original.protocol == of.protocol && original.zone == of.zone)
          ++count;
      },
      lost);
  EXPECT_TRUE(status.ok()) << status.error().message();
  return count;
}

TEST_F(ConntrackNetns, EventsTellOfDestroyedEntries) {
  auto events = ConntrackEvents::open();
  ASSERT_TRUE(events.ok()) << events.error().message();
  for (const auto& [client, server] :
       {std::pair{kClient4, kServer4}, std::pair{kClient6, kServer6}}) {
    const Fd at = bound(SOCK_DGRAM, {server, 8801});
    ConntrackTuple tuple;
    const Fd udp = udp_flow(client, server, 8801, tuple);
    bool lost = false;
    EXPECT_EQ(mark(tuple, 0x85, 0xff).written, 1U);
    EXPECT_EQ(destroyed(*events, tuple, lost), 0U) << "nothing of entries that come or change";
    ASSERT_EQ(run("conntrack -F").status, 0);
    EXPECT_EQ(destroyed(*events, tuple, lost), 1U);
    EXPECT_FALSE(lost);
    ASSERT_EQ(send(udp.get(), "x", 1, 0), 1);
    EXPECT_EQ(mark(tuple, 0x85, 0xff).written, 1U) << "the entry is there anew";
  }
}

TEST_F(ConntrackNetns, EventsThatWereLostAreToldOf) {
  auto events = ConntrackEvents::open();
  ASSERT_TRUE(events.ok()) << events.error().message();
  ASSERT_TRUE(events->socket().set_receive_buffer(1).ok());
  const Fd server = bound(SOCK_DGRAM, {kServer4, 8801});
  ConntrackTuple tuple;
  std::vector<Fd> sockets;
  for (int i = 0; i < 100; ++i) sockets.push_back(udp_flow(kClient4, kServer4, 8801, tuple));
  ASSERT_EQ(run("conntrack -F").status, 0);
  bool lost = false;
  EXPECT_LT(destroyed(*events, tuple, lost), 100U);
  EXPECT_TRUE(lost);
}

TEST_F(ConntrackNetns, ZonesAreApart) {
  ASSERT_EQ(run("nft add table inet z && nft add chain inet z o '{ type filter hook output "
                "priority -300; }' && nft add chain inet z p '{ type filter hook prerouting "
                "priority -300; }' && nft add rule inet z o ct zone set 7 && nft add rule inet z "
                "p ct zone set 7")
                .status,
            0);
  auto events = ConntrackEvents::open();
  ASSERT_TRUE(events.ok()) << events.error().message();
  const Fd server = bound(SOCK_DGRAM, {kServer4, 8801});
  ConntrackTuple tuple;
  const Fd udp = udp_flow(kClient4, kServer4, 8801, tuple);
  EXPECT_EQ(mark(tuple, 0x85, 0xff).missing.size(), 1U) << "not in zone 0";
  tuple.zone = 7;
  EXPECT_EQ(mark(tuple, 0x85, 0xff).written, 1U);
  EXPECT_THAT(text_of("conntrack -L -p udp --zone 7"), HasSubstr("mark=133 "));
  ASSERT_EQ(run("conntrack -F").status, 0);
  bool lost = false;
  EXPECT_EQ(destroyed(*events, tuple, lost), 1U) << "the event has the zone";
  ASSERT_EQ(run(std::string("ping -c 1 -W 2 -I ") + kClient4 + " " + kServer4).status, 0);
  ConntrackTuple icmp{*Address::parse(kClient4), *Address::parse(kServer4), 0, 0, IPPROTO_ICMP, {}};
  EXPECT_EQ(mark(icmp, 0x86, 0xff).missing.size(), 1U) << "not in zone 0";
  icmp.zone = 7;
  EXPECT_EQ(mark(icmp, 0x86, 0xff).written, 1U);
}

// --- Publisher -------------------------------------------------------------------------------

class PublisherNetns : public Netns {
 protected:
  FlowFacts flow(const char* client, const char* server, std::uint16_t port,
                 std::uint8_t protocol) {
    FlowFacts facts;
    facts.client = *Address::parse(client);
    facts.server = *Address::parse(server);
    facts.server_port = port;
    facts.protocol = protocol;
    return facts;
  }
  Publisher publisher_;
  Milliseconds now_ = 1'000'000;
};

TEST_F(PublisherNetns, IpsetAndNftFollowTheFlowsAndAreTakenOut) {
  IpsetTarget ipset;
  ipset.spec.name = "ZOOM";
  ipset.spec.timeout = 600;
  ipset.remove_at_end = true;
  NftTarget nft;
  nft.spec.table = "fw";
  nft.spec.set = "zoom";
  nft.spec.timeout = 600;
  nft.spec.create_table = true;
  const auto to_ipset = publisher_.add_target(ipset);
  ASSERT_TRUE(to_ipset.ok()) << to_ipset.error().message();
  const auto to_nft = publisher_.add_target(nft);
  ASSERT_TRUE(to_nft.ok()) << to_nft.error().message();
  EXPECT_EQ(*publisher_.add_target(ipset), *to_ipset);

  const FlowFacts tcp = flow(kClient4, kServer4, 443, IPPROTO_TCP);
  const FlowFacts udp = flow(kClient6, kServer6, 8801, IPPROTO_UDP);
  const EntryId first = publisher_.on_flow(*to_ipset, tcp, now_);
  const EntryId parallel = publisher_.on_flow(*to_ipset, tcp, now_);
  ASSERT_NE(publisher_.on_flow(*to_ipset, udp, now_), kNoEntry);
  ASSERT_NE(publisher_.on_flow(*to_nft, tcp, now_), kNoEntry);
  ASSERT_NE(publisher_.on_flow(*to_nft, udp, now_), kNoEntry);
  publisher_.flush(now_);
  EXPECT_THAT(text_of("ipset list ZOOM"), HasSubstr("198.51.100.7,tcp:443,192.0.2.10 timeout"));
  EXPECT_THAT(text_of("ipset list ZOOM6"),
              HasSubstr("2001:db8:5::7,udp:8801,2001:db8:1::10 timeout"));
  EXPECT_THAT(text_of("nft -j list set inet fw zoom"), HasSubstr(R"("198.51.100.7", "tcp", 443)"));
  EXPECT_THAT(text_of("nft -j list set inet fw zoom6"),
              HasSubstr(R"("2001:db8:5::7", "udp", 8801)"));

  publisher_.on_end(first);
  publisher_.flush(now_);
  EXPECT_THAT(text_of("ipset list ZOOM"), HasSubstr("tcp:443"));
  publisher_.on_end(parallel);
  publisher_.flush(now_);
  EXPECT_THAT(text_of("ipset list ZOOM"), Not(HasSubstr("tcp:443")));

  EXPECT_EQ(publisher_.created().size(), 4U);
  EXPECT_TRUE(publisher_.withdraw().ok());
  EXPECT_EQ(text_of("ipset list -n"), "");
  EXPECT_EQ(text_of("nft list ruleset"), "");
}

TEST_F(PublisherNetns, EmptiedAndDestroyedSetsAreFilledAgain) {
  IpsetTarget ipset;
  ipset.spec.name = "ZOOM";
  ipset.spec.timeout = 600;
  NftTarget nft;
  nft.spec.table = "fw";
  nft.spec.set = "zoom";
  nft.spec.timeout = 600;
  nft.spec.create_table = true;
  const auto to_ipset = publisher_.add_target(ipset);
  const auto to_nft = publisher_.add_target(nft);
  ASSERT_TRUE(to_ipset.ok() && to_nft.ok());
  for (std::uint16_t port = 1; port <= 100; ++port) {
    ASSERT_NE(publisher_.on_flow(*to_ipset, flow(kClient4, kServer4, port, IPPROTO_UDP), now_),
              kNoEntry);
    ASSERT_NE(publisher_.on_flow(*to_nft, flow(kClient4, kServer4, port, IPPROTO_UDP), now_),
              kNoEntry);
  }
  publisher_.tick(now_);
  const auto in_ipset = [] { return count_of(text_of("ipset list ZOOM"), "udp:"); };
  const auto in_nft = [] { return count_of(text_of("nft -j list set inet fw zoom"), "concat"); };
  ASSERT_EQ(in_ipset(), 100U);
  ASSERT_EQ(in_nft(), 100U);

  ASSERT_EQ(run("ipset flush ZOOM && nft flush set inet fw zoom").status, 0);
  publisher_.tick(now_ += 10'000);
  EXPECT_EQ(in_ipset(), 100U);
  EXPECT_EQ(in_nft(), 100U);

  ASSERT_EQ(run("ipset destroy ZOOM && nft delete table inet fw").status, 0);
  publisher_.tick(now_ += 10'000);
  EXPECT_EQ(in_ipset(), 100U);
  EXPECT_EQ(in_nft(), 100U);

  // By the error of a write, without the periodic check.
  ASSERT_EQ(run("ipset destroy ZOOM").status, 0);
  ASSERT_NE(publisher_.on_flow(*to_ipset, flow(kClient4, kServer4, 101, IPPROTO_UDP), now_),
            kNoEntry);
  publisher_.tick(now_ += 3'000);
  publisher_.tick(now_ += 1'000);
  EXPECT_EQ(in_ipset(), 101U);
}

TEST_F(PublisherNetns, ASetThatTheUserMadeInPlaceOfOursIsLeft) {
  IpsetTarget ipset;
  ipset.spec.name = "ZOOM";
  ipset.spec.timeout = 600;
  const auto target = publisher_.add_target(ipset);
  ASSERT_TRUE(target.ok()) << target.error().message();
  ASSERT_NE(publisher_.on_flow(*target, flow(kClient4, kServer4, 443, IPPROTO_TCP), now_),
            kNoEntry);
  publisher_.tick(now_);
  ASSERT_EQ(run("ipset destroy ZOOM && ipset create ZOOM hash:ip,port,ip timeout 60").status, 0);
  publisher_.tick(now_ += 10'000);
  EXPECT_THAT(text_of("ipset list ZOOM"), HasSubstr("tcp:443"));
  EXPECT_TRUE(publisher_.withdraw().ok());
  const Output list = run("ipset list ZOOM");
  EXPECT_EQ(list.status, 0);
  EXPECT_THAT(list.text, Not(HasSubstr("tcp:443")));
}

TEST_F(PublisherNetns, SetsThatRulesUseAreEmptiedAndNamed) {
  IpsetTarget ipset;
  ipset.spec.name = "ZOOM";
  ipset.spec.timeout = 600;
  NftTarget nft;
  nft.spec.table = "fw";
  nft.spec.set = "zoom";
  nft.spec.timeout = 600;
  nft.spec.create_table = true;
  const auto to_ipset = publisher_.add_target(ipset);
  const auto to_nft = publisher_.add_target(nft);
  ASSERT_TRUE(to_ipset.ok() && to_nft.ok());
  for (const TargetId target : {*to_ipset, *to_nft})
    ASSERT_NE(publisher_.on_flow(target, flow(kClient4, kServer4, 443, IPPROTO_TCP), now_),
              kNoEntry);
  publisher_.tick(now_);
  const Output rule = run("iptables -A OUTPUT -m set --match-set ZOOM dst,dst,src -j ACCEPT");
  if (rule.status != 0) GTEST_SKIP() << "iptables cannot match sets: " << rule.text;
  ASSERT_EQ(run("nft add chain inet fw c && nft add rule inet fw c ip daddr . meta l4proto . th "
                "dport . ip saddr @zoom accept")
                .status,
            0);
  const Status status = publisher_.withdraw();
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.error().message(), HasSubstr("cannot destroy ipset ZOOM"));
  EXPECT_THAT(text_of("ipset list ZOOM"), Not(HasSubstr("tcp:443")));
  EXPECT_NE(run("ipset list ZOOM6").status, 0);
  const std::string table = text_of("nft list table inet fw");
  EXPECT_THAT(table, HasSubstr("@zoom accept"));
  EXPECT_THAT(table, Not(HasSubstr("198.51.100.7")));
}

TEST_F(PublisherNetns, TheUsersElementsOutliveUs) {
  ASSERT_EQ(run("ipset create ZOOM hash:ip,port,ip timeout 60 && "
                "ipset add ZOOM 203.0.113.1,tcp:22,192.0.2.9 timeout 0")
                .status,
            0);
  IpsetTarget ipset;
  ipset.spec.name = "ZOOM";
  ipset.spec.timeout = 600;
  const auto target = publisher_.add_target(ipset);
  ASSERT_TRUE(target.ok()) << target.error().message();
  ASSERT_NE(publisher_.on_flow(*target, flow(kClient4, kServer4, 443, IPPROTO_TCP), now_),
            kNoEntry);
  publisher_.tick(now_);
  EXPECT_TRUE(publisher_.withdraw().ok());
  const std::string list = text_of("ipset list ZOOM");
  EXPECT_THAT(list, HasSubstr("203.0.113.1,tcp:22,192.0.2.9"));
  EXPECT_THAT(list, Not(HasSubstr("tcp:443")));
  EXPECT_NE(run("ipset list ZOOM6").status, 0) << "that one was ours";
}

}  // namespace
}  // namespace l7mark
