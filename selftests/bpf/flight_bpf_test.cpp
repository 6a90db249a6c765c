// SPDX-License-Identifier: GPL-2.0-only
// Handshakes are copied whole (l7mark/flight.h): by stated length, in segments of any size and
// order, merged, inside tunnels, and within the source's budget. Packet in, records out.
#include <gmock/gmock.h>

#include <algorithm>
#include <numeric>

#include "layers.hpp"
#include "program_run.hpp"

namespace l7mark::test {
namespace {

const Endpoints k4{"192.0.2.10", "198.51.100.20", 40000, 443};
const Endpoints k6{"2001:db8::10", "2001:db8:1::20", 40000, 443};
constexpr std::uint8_t kSyn = 0x02, kSynAck = 0x12, kAck = 0x10;
constexpr std::uint32_t kFirst = 0xfffffe00;  // of the stream: its numbers wrap
constexpr std::uint32_t kQuic1 = 1, kQuic2 = 0x6b3343cf;

// A ClientHello of so many bytes in one record: what the programs read of it is right.
Bytes hello(std::size_t size) {
  Bytes out{0x16, 0x03, 0x01};
  put16(out, static_cast<unsigned>(size - 5));
  out.push_back(0x01);
  out.push_back(0);
  put16(out, static_cast<unsigned>(size - 9));
  while (out.size() < size) out.push_back(static_cast<std::uint8_t>(out.size() * 7));
  return out;
}

// A long header of QUIC, `type` as its two bits of the first byte.
Bytes quic(std::uint32_t version, unsigned type, std::size_t size) {
  Bytes out{static_cast<std::uint8_t>(0xc0 | type << 4)};
  put32(out, version);
  out.resize(size, 0x33);
  return out;
}

Bytes piece(const Bytes& stream, std::size_t at, std::size_t size) {
  const auto from = stream.begin() + static_cast<long>(at);
  return {from, from + static_cast<long>(std::min(size, stream.size() - at))};
}

class Flight : public testing::TestWithParam<bool> {
 protected:
  static void SetUpTestSuite() {
    DataplaneOptions options;
    options.flows = options.candidates = options.services = options.hints = 1024;
    options.ring_bytes = 1U << 20;
    options.parse = L7M_PARSE_VXLAN | L7M_PARSE_IPIP;
    plane_ = Plane::make(options, why_);
  }
  static void TearDownTestSuite() { plane_.reset(); }

  void SetUp() override {
    if (!plane_) GTEST_SKIP() << why_;
    plane_->reset();
    plane_->clear_budgets();
    plane_->set([](l7m_settings& settings) {
      settings.whole_snaplen = L7M_MAX_SNAPLEN;
      settings.flight = L7M_MAX_FLIGHT;
      settings.flight_budget = 1U << 20;
    });
  }

  // The records of one packet.
  std::vector<Record> send(const Bytes& packet) {
    const RunResult result = GetParam() ? run_xdp(plane_->xdp("l7mark_xdp_only"), packet)
                                        : run_tc(plane_->tc("l7mark_ingress"), packet);
    EXPECT_EQ(result.code, 0);
    return plane_->records();
  }
  std::vector<Record> segment(const Endpoints& ends, std::uint32_t offset, const Bytes& payload) {
    return send(ethernet(tcp(ends, kAck, kFirst + offset, 1, payload)));
  }
  void syn(const Endpoints& ends) { send(ethernet(tcp(ends, kSyn, kFirst - 1, 0))); }

  // Bytes of payload copied of a packet.
  static std::size_t copied(const std::vector<Record>& records) {
    std::size_t bytes = 0;
    for (const Record& record : records) bytes += record.data.size();
    if (records.empty()) return 0;
    const l7m_sample& head = records.front().head;
    return bytes - (head.l3_offset + head.l3_length - head.l4_payload);
  }

  static inline std::unique_ptr<Plane> plane_;
  static inline std::string why_;
};

// Forty segments: more than the packets of a flow, none of them lost, and one of its number.
TEST_P(Flight, EverySegmentOfAHelloIsCopied) {
  const Bytes stream = hello(1830);
  for (const std::size_t size : {915U, 610U, 46U, 1U}) {
    for (const Endpoints& ends : {k4, k6}) {
      plane_->reset();
      plane_->set([](l7m_settings& settings) {
        settings.flight = L7M_MAX_FLIGHT;
        settings.flight_budget = 1U << 20;
      });
      syn(ends);
      for (std::size_t at = 0; at < stream.size(); at += size) {
        const Bytes payload = piece(stream, at, size);
        const auto records = segment(ends, static_cast<std::uint32_t>(at), payload);
        ASSERT_EQ(records.size(), 1U) << size << " bytes, at " << at;
        ASSERT_EQ(copied(records), payload.size());
        EXPECT_EQ(records[0].head.sequence, kFirst + static_cast<std::uint32_t>(at));
        EXPECT_EQ(records[0].head.sampled, 1);
        EXPECT_EQ(records[0].head.flags & L7M_SAMPLE_LAST, 0);
      }
    }
  }
}

// The last segment is there first, and each again.
TEST_P(Flight, OrderDoesNotMatter) {
  const Bytes stream = hello(1830);
  syn(k4);
  for (int times = 0; times < 2; ++times) {
    for (std::size_t at = 1800; at < stream.size(); at -= 60) {
      const Bytes payload = piece(stream, at, 60);
      ASSERT_EQ(copied(segment(k4, static_cast<std::uint32_t>(at), payload)), payload.size()) << at;
    }
  }
  EXPECT_EQ(plane_->maps.candidate(flow_key(k4, L7M_PROTO_TCP))->sampled, 1);
}

// The hello ends where it says: what follows is copied as any packet is.
TEST_P(Flight, EndsWithTheStatedLength) {
  plane_->set([](l7m_settings& settings) {
    settings.packets = 3;
    settings.whole = 1;
    settings.whole_plain = 1;
    settings.snaplen = 100;
  });
  const Bytes stream = hello(1830);
  syn(k4);
  EXPECT_EQ(copied(segment(k4, 0, piece(stream, 0, 1000))), 1000U);
  Bytes last = piece(stream, 1000, 1000);
  last.insert(last.end(), 500, 0x17);
  EXPECT_EQ(copied(segment(k4, 1000, last)), 830U) << "without what stands behind it";
  EXPECT_EQ(copied(segment(k4, 2330, Bytes(500, 0x17))), 46U) << "the second of three, cut";
  EXPECT_EQ(copied(segment(k4, 2830, Bytes(500, 0x17))), 46U);
  EXPECT_TRUE(segment(k4, 3330, Bytes(500, 0x17)).empty());
}

// Each side has its own: what the server's first record states is copied, too.
TEST_P(Flight, BothSidesHaveOne) {
  plane_->set([](l7m_settings& settings) { settings.whole = settings.whole_plain = 0; });
  const Bytes stream = hello(1830);
  Bytes answer = hello(3000);
  answer[5] = 2;  // ServerHello
  const Endpoints back = k4.reversed();
  syn(k4);
  segment(k4, 0, stream);
  send(ethernet(tcp(back, kSynAck, 999, kFirst)));
  for (std::size_t at = 0; at < answer.size(); at += 1000) {
    const Bytes packet = ethernet(
        tcp(back, kAck, 1000 + static_cast<std::uint32_t>(at), 1, piece(answer, at, 1000)));
    EXPECT_EQ(copied(send(packet)), 1000U) << at;
  }
  EXPECT_EQ(plane_->maps.candidate(flow_key(k4, L7M_PROTO_TCP))->sampled, 2);
}

TEST_P(Flight, BeginsWithTheFirstPayloadWhereNoSynWasSeen) {
  plane_->set([](l7m_settings& settings) { settings.whole = settings.whole_plain = 0; });
  const Bytes stream = hello(1830);
  EXPECT_EQ(copied(segment(k4, 77, piece(stream, 0, 1000))), 1000U);
  EXPECT_EQ(copied(segment(k4, 1077, piece(stream, 1000, 1000))), 830U);
}

TEST_P(Flight, WhatIsNoHandshakeIsCopiedSparingly) {
  plane_->set([](l7m_settings& settings) {
    settings.packets = 2;
    settings.whole = settings.whole_plain = 1;
    settings.snaplen = 100;
  });
  for (const unsigned first : {0x17U, 0x41U, 0x16U}) {
    Endpoints ends = k4;
    ends.sport = static_cast<std::uint16_t>(41000 + first);
    Bytes stream = hello(1830);
    stream[0] = static_cast<std::uint8_t>(first);
    if (first == 0x16) stream[1] = 0x08;  // no version of TLS
    syn(ends);
    EXPECT_EQ(copied(segment(ends, 0, piece(stream, 0, 900))), 900U);
    EXPECT_EQ(copied(segment(ends, 900, piece(stream, 900, 900))), 46U);
    EXPECT_TRUE(segment(ends, 1800, piece(stream, 1800, 900)).empty());
  }
}

// A record that says less than its message: the rest comes in records of their own.
TEST_P(Flight, AHelloOfManyRecordsIsCopiedWhole) {
  plane_->set([](l7m_settings& settings) { settings.whole = settings.whole_plain = 0; });
  const Bytes message = piece(hello(1830), 5, 2000);
  Bytes stream;
  for (std::size_t at = 0; at < message.size(); at += 100) {
    const Bytes part = piece(message, at, 100);
    put(stream, Bytes{0x16, 0x03, 0x01});
    put16(stream, static_cast<unsigned>(part.size()));
    put(stream, part);
  }
  syn(k4);
  for (std::size_t at = 0; at < stream.size(); at += 120) {
    const Bytes payload = piece(stream, at, 120);
    EXPECT_EQ(copied(segment(k4, static_cast<std::uint32_t>(at), payload)), payload.size()) << at;
  }
}

// More than a record of the ring holds. A run of TC takes a page of a packet at most; the
// namespaces have them from real programs.
class FlightOfSeveralBuffers : public Flight {};

TEST_P(FlightOfSeveralBuffers, ALongPacketComesInSeveralRecords) {
  const Bytes stream = hello(15000);
  const Bytes packet = ethernet(tcp(k4, kAck, kFirst, 1, stream));
  syn(k4);
  const RunResult result = run_xdp(plane_->xdp("l7mark_xdp_only"), packet);
  if (result.code != 0) GTEST_SKIP() << "a run takes no frame of several buffers before 5.18";
  const auto records = plane_->records();
  ASSERT_EQ(records.size(), 4U);
  Bytes whole;
  for (const Record& record : records) {
    EXPECT_EQ(record.head.offset, whole.size());
    EXPECT_EQ(record.head.wanted, packet.size());
    put(whole, record.data);
  }
  EXPECT_EQ(whole, packet);
  EXPECT_EQ(plane_->count(L7M_COUNT_SAMPLED_PACKETS), 2U);
}

TEST_P(Flight, IsBoundedForOneFlow) {
  Bytes stream = hello(L7M_MAX_FLIGHT);
  stream[3] = stream[4] = 0xff;
  syn(k4);
  std::size_t bytes = 0;
  for (std::uint32_t at = 0; at < 60000; at += 1000)
    bytes += copied(segment(k4, at, at == 0 ? piece(stream, 0, 1000) : Bytes(1000, 0x55)));
  // The flow's other packets are copied beside it: seven, of which three are whole.
  EXPECT_LE(bytes, L7M_MAX_FLIGHT + 7 * 1000U);
  EXPECT_GE(bytes, std::size_t{L7M_MAX_FLIGHT});
  // The same bytes, again and again.
  plane_->reset();
  plane_->set([](l7m_settings& settings) {
    settings.flight = L7M_MAX_FLIGHT;
    settings.flight_budget = 1U << 20;
  });
  syn(k4);
  bytes = 0;
  for (int i = 0; i < 60; ++i) bytes += copied(segment(k4, 0, piece(stream, 0, 1000)));
  EXPECT_LE(bytes, L7M_MAX_FLIGHT + 7 * 1000U);
}

TEST_P(Flight, InitialsOfQuicAreCopiedWhole) {
  plane_->set([](l7m_settings& settings) {
    settings.packets = 2;
    settings.whole = settings.whole_plain = 1;
    settings.snaplen = 100;
  });
  struct Case {
    std::uint32_t version;
    unsigned initial, retry, handshake, early;
  };
  for (const Case& c : {Case{kQuic1, 0, 3, 2, 1}, Case{kQuic2, 1, 0, 3, 2}}) {
    for (Endpoints ends : {k4, k6}) {
      ends.sport = static_cast<std::uint16_t>(42000 + c.initial);
      for (int i = 0; i < 6; ++i) {
        const auto records = send(ethernet(udp(ends, quic(c.version, c.initial, 1250))));
        ASSERT_EQ(copied(records), 1250U) << i;
        EXPECT_EQ(records[0].head.sampled, 1);
      }
      EXPECT_EQ(copied(send(ethernet(udp(ends.reversed(), quic(c.version, c.retry, 600))))), 600U);
      EXPECT_TRUE(send(ethernet(udp(ends, quic(c.version, c.handshake, 1250)))).empty());
      EXPECT_TRUE(send(ethernet(udp(ends, quic(c.version, c.early, 1250)))).empty());
      EXPECT_TRUE(send(ethernet(udp(ends, Bytes(1250, 0x41)))).empty());
      std::size_t bytes = 0;
      for (int i = 0; i < 20; ++i)
        bytes += copied(send(ethernet(udp(ends, quic(c.version, c.initial, 1250)))));
      EXPECT_EQ(bytes, L7M_MAX_FLIGHT - 6 * 1250U);
    }
  }
}

TEST_P(Flight, DtlsHandshakesInTheClearAreCopiedWhole) {
  plane_->set([](l7m_settings& settings) { settings.whole = settings.whole_plain = 0; });
  Bytes record{0x16, 0xfe, 0xfd, 0, 0};
  record.resize(800, 0x22);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(copied(send(ethernet(udp(k4, record)))), 800U);
  record[4] = 1;  // epoch: encrypted
  EXPECT_EQ(copied(send(ethernet(udp(k4, record)))), 128U - 42);
}

TEST_P(Flight, HoldsInsideTunnels) {
  plane_->set([](l7m_settings& settings) { settings.whole = settings.whole_plain = 0; });
  const Bytes stream = hello(1830);
  const Endpoints outer{"203.0.113.1", "203.0.113.2", 5000, 4789};
  const auto in_vxlan = [&](const Bytes& packet) { return ethernet(vxlan(outer, packet)); };
  send(in_vxlan(tcp(k4, kSyn, kFirst - 1, 0)));
  EXPECT_EQ(copied(send(in_vxlan(tcp(k4, kAck, kFirst, 1, piece(stream, 0, 1000))))), 1000U);
  EXPECT_EQ(copied(send(in_vxlan(tcp(k4, kAck, kFirst + 1000, 1, piece(stream, 1000, 1000))))),
            830U);
}

// One source's forged hellos are cut when its budget is gone; another's are not.
TEST_P(Flight, ASourcePaysForItsOwn) {
  plane_->set([](l7m_settings& settings) {
    settings.whole = settings.whole_plain = 0;
    settings.flight_budget = 40000;
    settings.hz = 0xffffffff;  // all is in one second
  });
  for (const bool v6 : {false, true}) {
    plane_->clear_budgets();
    const std::uint64_t refused = plane_->count(L7M_COUNT_FLIGHT_REFUSED);
    Endpoints ends = v6 ? k6 : k4;
    const Bytes stream = hello(3000);
    std::size_t bytes = 0;
    for (std::uint16_t port = 20000; port < 20040; ++port) {
      ends.sport = port;
      // IPv6: a host has more addresses than anybody could count.
      if (v6) ends.source = "2001:db8::" + std::to_string(port - 19000);
      syn(ends);
      bytes += copied(segment(ends, 0, stream));
    }
    EXPECT_LE(bytes, 40000U + 40 * 128U);
    EXPECT_GT(plane_->count(L7M_COUNT_FLIGHT_REFUSED), refused);
    Endpoints other = v6 ? k6 : k4;
    other.source = v6 ? "2001:db8:0:1::10" : "192.0.2.11";
    syn(other);
    EXPECT_EQ(copied(segment(other, 0, stream)), 3000U);
  }
}

TEST_P(Flight, CanBeTurnedOff) {
  plane_->set([](l7m_settings& settings) {
    settings.flight = 0;
    settings.whole = settings.whole_plain = 0;
  });
  syn(k4);
  EXPECT_EQ(copied(segment(k4, 0, hello(1830))), 128U - 54);
}

INSTANTIATE_TEST_SUITE_P(Hooks, Flight, testing::Bool(),
                         [](const testing::TestParamInfo<bool>& hook) {
                           return hook.param ? "xdp" : "tc";
                         });

INSTANTIATE_TEST_SUITE_P(Xdp, FlightOfSeveralBuffers, testing::Values(true));

}  // namespace
}  // namespace l7mark::test
