// SPDX-License-Identifier: GPL-2.0-only
#include <gtest/gtest.h>
#include <pcap/dlt.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "capture/reader.hpp"
#include "capture/record.hpp"
#include "capture/user_path.hpp"
#include "packets.hpp"

namespace l7mark {
namespace {

using namespace test;

// A file that goes with the test.
class File {
 public:
  explicit File(const Bytes& content) {
    char name[] = "/tmp/l7mark-capture-XXXXXX";
    const int fd = mkstemp(name);
    path_ = name;
    EXPECT_EQ(::write(fd, content.data(), content.size()), static_cast<ssize_t>(content.size()));
    ::close(fd);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { ::unlink(path_.c_str()); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct Pcap {
  bool big_endian = false;
  bool nanoseconds = false;
  Bytes out;

  void u32(std::uint32_t value) {
    for (int i = 0; i < 4; ++i)
      out.push_back(static_cast<std::uint8_t>(value >> 8 * (big_endian ? 3 - i : i)));
  }
  void header(int link_type) {
    u32(nanoseconds ? 0xa1b23c4d : 0xa1b2c3d4);
    // Version 2.4, either order.
    const Bytes version = big_endian ? Bytes{0, 2, 0, 4} : Bytes{2, 0, 4, 0};
    put(out, version);
    u32(0);
    u32(0);
    u32(65535);
    u32(static_cast<std::uint32_t>(link_type));
  }
  void packet(const Bytes& bytes, std::uint32_t fraction = 5) {
    u32(1000);
    u32(fraction);
    u32(static_cast<std::uint32_t>(bytes.size()));
    u32(static_cast<std::uint32_t>(bytes.size()));
    put(out, bytes);
  }
};

const Bytes kPacket = udp({}, text("payload"));

TEST(Reader, EitherByteOrderAndPrecision) {
  for (const bool big : {false, true}) {
    for (const bool nano : {false, true}) {
      Pcap pcap{big, nano, {}};
      pcap.header(DLT_EN10MB);
      pcap.packet(ethernet(kPacket));
      const File file(pcap.out);
      auto reader = CaptureReader::open(file.path());
      ASSERT_TRUE(reader.ok()) << reader.error().message();
      const auto packet = reader->next();
      ASSERT_TRUE(packet);
      EXPECT_EQ(packet->time_ns, 1'000'000'000'000U + (nano ? 5U : 5'000U));
      EXPECT_EQ(packet->bytes, kPacket.size() + 14);
      EXPECT_FALSE(reader->next());
      EXPECT_FALSE(reader->problem());
    }
  }
}

TEST(Reader, ACutFileIsReadUpToTheCut) {
  Pcap pcap;
  pcap.header(DLT_EN10MB);
  pcap.packet(ethernet(kPacket));
  pcap.packet(ethernet(kPacket));
  pcap.out.resize(pcap.out.size() - 3);
  const File file(pcap.out);
  auto reader = CaptureReader::open(file.path());
  ASSERT_TRUE(reader.ok());
  EXPECT_TRUE(reader->next());
  EXPECT_FALSE(reader->next());
  ASSERT_TRUE(reader->problem());
  EXPECT_NE(reader->problem()->message().find(file.path()), std::string::npos);
  EXPECT_EQ(reader->packets(), 1U);
}

TEST(Reader, WhatIsNoCaptureIsRefusedByName) {
  const File file(text("not a capture at all, but long enough for a header"));
  const auto reader = CaptureReader::open(file.path());
  ASSERT_FALSE(reader.ok());
  EXPECT_NE(reader.error().message().find(file.path()), std::string::npos);
  EXPECT_FALSE(CaptureReader::open("/nonexistent").ok());
}

TEST(Reader, UnsupportedLinkTypeIsNamed) {
  const std::pair<int, std::string> cases[] = {
      {DLT_USB_LINUX, "USB_LINUX"}, {DLT_PPI, "PPI"}, {65000, "65000"}};
  for (const auto& [link_type, name] : cases) {
    Pcap pcap;
    pcap.header(link_type);
    const File file(pcap.out);
    const auto reader = CaptureReader::open(file.path());
    ASSERT_FALSE(reader.ok());
    EXPECT_EQ(reader.error().code, EPROTONOSUPPORT);
    EXPECT_NE(reader.error().message().find("link type " + name), std::string::npos);
  }
}

// RFC draft-ietf-opsawg-pcapng: section, interfaces, enhanced packets; little endian.
struct Pcapng {
  Bytes out;
  void u32(std::uint32_t value) {
    for (int i = 0; i < 4; ++i) out.push_back(static_cast<std::uint8_t>(value >> 8 * i));
  }
  void block(std::uint32_t type, const Bytes& body) {
    u32(type);
    const auto padded = static_cast<std::uint32_t>((body.size() + 3) / 4 * 4);
    u32(padded + 12);
    put(out, body);
    out.resize(out.size() + padded - body.size());
    u32(padded + 12);
  }
  void section() {
    block(0x0a0d0d0a, {0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255});
  }
  void interface(std::uint8_t link_type) { block(1, {link_type, 0, 0, 0, 0, 0, 4, 0}); }
  void packet(std::uint8_t interface_id, const Bytes& bytes) {
    Bytes body{interface_id, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0};
    for (int i = 0; i < 2; ++i) {
      body.push_back(static_cast<std::uint8_t>(bytes.size()));
      put(body, Bytes{0, 0, 0});
    }
    put(body, bytes);
    block(6, body);
  }
};

TEST(Reader, Pcapng) {
  Pcapng file;
  file.section();
  file.interface(DLT_EN10MB);
  file.packet(0, ethernet(kPacket));
  const File on_disk(file.out);
  auto reader = CaptureReader::open(on_disk.path());
  ASSERT_TRUE(reader.ok()) << reader.error().message();
  const auto packet = reader->next();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->time_ns, 9'000U);
}

TEST(Reader, ASecondLinkTypeInOneFileIsReported) {
  Pcapng file;
  file.section();
  file.interface(DLT_EN10MB);
  file.packet(0, ethernet(kPacket));
  file.interface(DLT_NULL);
  file.packet(1, kPacket);
  const File on_disk(file.out);
  auto reader = CaptureReader::open(on_disk.path());
  ASSERT_TRUE(reader.ok());
  EXPECT_TRUE(reader->next());
  EXPECT_FALSE(reader->next());
  EXPECT_TRUE(reader->problem());
}

struct LinkCase {
  const char* name;
  int link_type;
  Bytes before;
};

class LinkType : public testing::TestWithParam<LinkCase> {};

TEST_P(LinkType, BecomesEthernet) {
  Bytes packet = GetParam().before;
  put(packet, kPacket);
  Bytes buffer;
  const auto frame = to_ethernet(GetParam().link_type, packet, buffer);
  ASSERT_GE(frame.size(), 14 + kPacket.size());
  EXPECT_EQ(frame[12], 0x08);
  EXPECT_EQ(frame[13], 0x00);
  EXPECT_TRUE(std::equal(kPacket.begin(), kPacket.end(), frame.begin() + 14));
  // A longer header's bytes are made up for behind the packet.
  EXPECT_EQ(frame.size(), std::max(packet.size(), 14 + kPacket.size()));
}

TEST_P(LinkType, EveryPrefixIsSafe) {
  Bytes packet = GetParam().before;
  put(packet, kPacket);
  for (std::size_t length = 0; length < packet.size(); ++length) {
    const Bytes cut(packet.begin(), packet.begin() + static_cast<std::ptrdiff_t>(length));
    Bytes buffer;
    EXPECT_LE(to_ethernet(GetParam().link_type, cut, buffer).size(), packet.size() + 14);
  }
}

Bytes wifi(bool qos) {
  Bytes out{0, 0, 8, 0, 0, 0, 0, 0};
  out.push_back(qos ? 0x88 : 0x08);
  out.push_back(0x01);
  out.resize(8 + (qos ? 26 : 24));
  put(out, Bytes{0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x00});
  return out;
}

INSTANTIATE_TEST_SUITE_P(
    All, LinkType,
    testing::Values(
        LinkCase{"raw12", 12, {}}, LinkCase{"raw14", 14, {}}, LinkCase{"raw101", 101, {}},
        LinkCase{"ipv4", DLT_IPV4, {}}, LinkCase{"null", DLT_NULL, {2, 0, 0, 0}},
        LinkCase{"null_big", DLT_NULL, {0, 0, 0, 2}}, LinkCase{"loop", DLT_LOOP, {0, 0, 0, 2}},
        LinkCase{"ppp", DLT_PPP, {0xff, 0x03, 0x00, 0x21}},
        LinkCase{"ppp_compressed", DLT_PPP, {0x21}}, LinkCase{"ppp_short", DLT_PPP, {0x00, 0x21}},
        LinkCase{"ppp_hdlc", DLT_PPP, {0x0f, 0x00, 0x08, 0x00}},
        LinkCase{"ppp_serial", DLT_PPP_SERIAL, {0xff, 0x03, 0x00, 0x21}},
        LinkCase{"ppp_serial_hdlc", DLT_PPP_SERIAL, {0x0f, 0x00, 0x08, 0x00}},
        LinkCase{"c_hdlc", DLT_C_HDLC, {0x0f, 0x00, 0x08, 0x00}},
        LinkCase{"sll", DLT_LINUX_SLL, {0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x00}},
        LinkCase{"sll2", 276, {0x08, 0x00, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0}},
        LinkCase{"wifi", DLT_IEEE802_11_RADIO, wifi(false)},
        LinkCase{"wifi_qos", DLT_IEEE802_11_RADIO, wifi(true)}),
    [](const auto& each) { return std::string(each.param.name); });

// Runs packets through the user path, a millisecond apart.
UserPath run(const std::vector<Bytes>& packets, PathOptions options = {}) {
  options.parse = L7M_PARSE_IPIP | L7M_PARSE_TWO_PORTS;
  auto path = UserPath::make(options);
  EXPECT_TRUE(path.ok());
  std::uint64_t time = 1'000'000'000;
  for (const Bytes& packet : packets) {
    const Bytes frame = ethernet(packet);
    EXPECT_TRUE(
        path->packet({time += 1'000'000, frame, static_cast<std::uint32_t>(frame.size())}).ok());
  }
  EXPECT_TRUE(path->finish().ok());
  return std::move(*path);
}

std::vector<Bytes> zoom_flow(std::size_t payload_packets, const Endpoints& up = {}) {
  const Endpoints down = up.reversed();
  std::vector<Bytes> out{tcp(up, L7M_TCP_SYN, 100, 0),
                         tcp(down, L7M_TCP_SYN | L7M_TCP_ACK, 500, 101),
                         tcp(up, L7M_TCP_ACK, 101, 501)};
  const Bytes hello = client_hello("us04web.zoom.us");
  out.push_back(tcp(up, L7M_TCP_ACK, 101, 501, hello));
  std::uint32_t seq = 501;
  for (std::size_t i = 1; i < payload_packets; ++i, seq += 1000)
    out.push_back(tcp(down, L7M_TCP_ACK, seq, 101 + static_cast<std::uint32_t>(hello.size()),
                      Bytes(1000, 0x17)));
  return out;
}

TEST(UserPath, CountsEveryPacketAndCopiesFew) {
  const auto packets = zoom_flow(100);
  const UserPath path = run(packets);
  ASSERT_EQ(path.flows().size(), 1U);
  const CaptureFlow& flow = path.flows()[0];
  EXPECT_EQ(flow.answer.name, "TLS.Zoom");
  EXPECT_EQ(flow.count.packets[0] + flow.count.packets[1], packets.size());
  std::uint64_t bytes = 0;
  for (const Bytes& packet : packets) bytes += packet.size() + 14;
  EXPECT_EQ(flow.count.bytes[0] + flow.count.bytes[1], bytes);
  EXPECT_LE(flow.sampled_packets, 9U);  // the first, and 8 with payload
  EXPECT_EQ(path.stats().sampled_packets, flow.sampled_packets);
}

TEST(UserPath, LaterFragmentsAreNotCounted) {
  Bytes later = udp({}, Bytes(64, 1));
  later[6] = 0x00;
  later[7] = 0x08;
  const UserPath path = run({udp({}, Bytes(64, 1)), later});
  ASSERT_EQ(path.flows().size(), 1U);
  EXPECT_EQ(path.flows()[0].count.packets[0] + path.flows()[0].count.packets[1], 1U);
  EXPECT_EQ(path.stats().later_fragments, 1U);
}

// Issue: nDPI remembers things across a client's flows; workers that share the flows by client must
// answer as one worker does.
TEST(UserPath, FourWorkersAnswerAsOne) {
  std::vector<Bytes> packets;
  for (unsigned client = 0; client < 250; ++client) {
    Endpoints ends;
    ends.source = "192.0.2." + std::to_string(client);
    for (unsigned i = 0; i < 4; ++i) {
      ends.sport = static_cast<std::uint16_t>(40000 + i);
      ends.dport = 443;
      for (auto& packet : zoom_flow(10, ends)) packets.push_back(std::move(packet));
      // Zoom's media: known by the cache of clients that spoke TLS with Zoom.
      Endpoints media = ends;
      media.dport = 8801;
      for (int n = 0; n < 10; ++n) packets.push_back(udp(media, Bytes(200, 0x55)));
      Endpoints resolver = ends;
      resolver.destination = "198.51.100.53";
      resolver.dport = 53;
      packets.push_back(udp(resolver, dns_query(7, "zoom.us", 1)));
    }
  }
  const UserPath one = run(packets);
  PathOptions options;
  options.rings = 4;
  options.inside = {*Prefix::parse("192.0.2.0/24")};
  const UserPath four = run(packets, options);
  ASSERT_EQ(one.flows().size(), 3000U);
  ASSERT_EQ(four.flows().size(), one.flows().size());
  std::size_t different = 0;
  for (std::size_t i = 0; i < one.flows().size(); ++i)
    different += one.flows()[i].answer.name != four.flows()[i].answer.name ? 1U : 0U;
  EXPECT_LE(different * 1000, one.flows().size());
}

TEST(Record, HasTheKeysInOrder) {
  const UserPath path = run(zoom_flow(3));
  const RecordNames names = RecordNames::of(path.engine());
  const CaptureFlow& flow = path.flows()[0];
  RecordContext context;
  context.capture = "a.pcap";
  context.class_name = "zoom";
  context.source = Source::answer;
  context.count = flow.count;
  context.sampled_packets = flow.sampled_packets;
  context.sampled_bytes = flow.sampled_bytes;
  const auto json = to_json(flow.answer, context, names);
  const std::vector<std::string> wanted{
      "capture",     "proto",   "src",      "sport",           "dst",          "dport",    "ndpi",
      "application", "master",  "category", "source",          "confidence",   "hostname", "risks",
      "class",       "packets", "bytes",    "sampled_packets", "sampled_bytes"};
  std::vector<std::string> keys;
  for (const auto& item : json.items()) keys.push_back(item.key());
  ASSERT_GE(keys.size(), wanted.size());
  keys.resize(wanted.size());
  EXPECT_EQ(keys, wanted);
  EXPECT_EQ(json["proto"], "tcp");
  EXPECT_EQ(json["src"], "192.0.2.10");
  EXPECT_EQ(json["dport"], 443);
  EXPECT_EQ(json["ndpi"], "TLS.Zoom");
  EXPECT_EQ(json["application"], "Zoom");
  EXPECT_EQ(json["master"], "TLS");
  EXPECT_EQ(json["hostname"], "us04web.zoom.us");
  EXPECT_EQ(json["class"], "zoom");
  EXPECT_EQ(json["packets"], 6);
  EXPECT_EQ(json["source"], "answer");
  EXPECT_EQ(json["confidence"], "dpi");
  EXPECT_EQ(json["tls"]["alpn"], "h2");
  EXPECT_EQ(to_json_line(flow.answer, context, names).find('\n'), std::string::npos);
  EXPECT_NE(to_table_row(flow.answer, context, names).find("TLS.Zoom"), std::string::npos);
}

TEST(Record, WhatIsNotKnownIsNull) {
  const RecordNames names;
  Answer answer;
  auto json = to_json(answer, {}, names);
  EXPECT_TRUE(json.at("source").is_null());
  EXPECT_TRUE(json.at("confidence").is_null());
  EXPECT_FALSE(json.contains("tls"));
  RecordContext context;
  context.source = Source::dns;
  answer.facts.details.ja4_client = "t13d1516h2_8daaf6152771_b186095e22b6";
  json = to_json(answer, context, names);
  EXPECT_EQ(json["source"], "dns");
  EXPECT_EQ(json["tls"]["ech"], false);
  answer.facts.details.ech = true;
  EXPECT_EQ(to_json(answer, context, names)["tls"]["ech"], true);
}

}  // namespace
}  // namespace l7mark
