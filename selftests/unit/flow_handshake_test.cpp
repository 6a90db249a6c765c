// SPDX-License-Identifier: GPL-2.0-only
// A flow's handshake by itself: what it holds, what it gives nDPI in its place, what it tells.
#include "dpi/flow_handshake.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conversations.hpp"
#include "dpi/made_packet.hpp"
#include "handshake/quic_hello.hpp"
#include "quic_packets.hpp"
#include "recorded_hellos.hpp"

namespace l7mark {
namespace {

using namespace test;
using testing::IsEmpty;
using testing::SizeIs;
using Step = FlowHandshake::Step;

// One flow, and the packets that nDPI would be given of it.
class Flow {
 public:
  explicit Flow(bool with_begin = true, const TcpTalk& talk = {}) : talk_(talk) {
    if (with_begin) handshake_.begin(direction_of(talk_.syn()), talk_.client_first);
  }

  Step client(std::size_t offset, const Bytes& payload) {
    return give(talk_.client(offset, payload));
  }
  Step server(std::size_t offset, const Bytes& payload) {
    return give(talk_.server(offset, payload));
  }
  Step datagram(const Bytes& payload, bool from_server = false, std::size_t copied = 65535) {
    return give(udp(from_server ? talk_.ends.reversed() : talk_.ends, payload), copied);
  }
  Step give(const Bytes& packet, std::size_t copied = 65535) {
    const Sample sample(packet);
    HandshakePacket part;
    part.direction = sample.head.direction;
    part.protocol = sample.head.key.protocol;
    part.sequence = sample.head.sequence;
    part.packet = std::span(packet).first(std::min(packet.size(), copied));
    part.payload_length = sample.head.l4_payload;
    part.payload_offset = packet.size() - part.payload_length;
    const Step step = handshake_.take(part);
    if (step == Step::replaced || step == Step::released) given_.push_back(handshake_.take_made());
    if (step == Step::as_it_is || step == Step::released) given_.push_back(packet);
    return step;
  }

  [[nodiscard]] const HandshakeFacts& facts() const { return handshake_.facts(); }
  [[nodiscard]] const std::vector<Bytes>& given() const { return given_; }
  FlowHandshake& handshake() { return handshake_; }

 private:
  static int direction_of(const Bytes& packet) { return Sample(packet).head.direction; }

  TcpTalk talk_;
  FlowHandshake handshake_;
  std::vector<Bytes> given_;
};

// A packet's lengths agree with each other: its payload.
Bytes payload_of(const Bytes& packet) {
  const Sample sample(packet);
  EXPECT_EQ(sample.head.l3_length, packet.size());
  EXPECT_LE(sample.head.l4_payload, packet.size());
  return part_of(packet, packet.size() - sample.head.l4_payload, packet.size());
}
std::uint32_t sequence_of(const Bytes& packet) {
  return Sample(packet).head.sequence;
}

const Bytes kMessage = made_client_hello(full_spec("www.example.com"));
const Bytes kHello = records(kMessage);

TEST(FlowHandshake, AHelloInOnePacketIsLeftAsItIs) {
  Flow flow;
  EXPECT_EQ(flow.client(0, kHello), Step::as_it_is);
  EXPECT_FALSE(flow.handshake().holds());
  EXPECT_TRUE(flow.facts().hello);
  EXPECT_EQ(flow.facts().server_name, "www.example.com");
  EXPECT_EQ(flow.facts().alpn, "h2,http/1.1");
  EXPECT_EQ(flow.facts().ja4, ja4_of_message(kMessage));
  EXPECT_TRUE(flow.facts().ech);
  EXPECT_FALSE(flow.facts().conflict);
  EXPECT_EQ(flow.client(kHello.size(), Bytes(100, 1)), Step::as_it_is);
}

TEST(FlowHandshake, SegmentsBecomeOnePacket) {
  for (const char* source : {"192.0.2.10", "2001:db8::10"}) {
    TcpTalk talk;
    talk.client_first = 0xffffff80;
    if (talk.ends.source != source) talk.ends = {source, "2001:db8:1::20", 40000, 443};
    for (const std::size_t pieces :
         {std::size_t{2}, std::size_t{3}, std::size_t{40}, kHello.size()}) {
      for (const Order order : {Order::forward, Order::backward, Order::shuffled}) {
        Flow flow(true, talk);
        const auto cut_up = in_order(cut(kHello, pieces), order);
        for (const Piece& piece : cut_up) {
          const bool last = &piece == &cut_up.back();
          ASSERT_EQ(flow.client(piece.offset, piece.bytes), last ? Step::replaced : Step::hold);
          ASSERT_EQ(flow.handshake().holds(), !last);
        }
        ASSERT_THAT(flow.given(), SizeIs(1)) << pieces;
        EXPECT_EQ(payload_of(flow.given()[0]), kHello);
        EXPECT_EQ(sequence_of(flow.given()[0]), talk.client_first);
        EXPECT_EQ(flow.facts().ja4, ja4_of_message(kMessage));
      }
    }
  }
}

TEST(FlowHandshake, WithoutASynTheFirstSegmentIsTheBeginning) {
  const auto pieces = cut(kHello, 4);
  Flow flow(false);
  EXPECT_EQ(flow.client(pieces[0].offset, pieces[0].bytes), Step::hold);
  for (const std::size_t each : {3U, 1U})
    EXPECT_EQ(flow.client(pieces[each].offset, pieces[each].bytes), Step::hold);
  EXPECT_EQ(flow.client(pieces[2].offset, pieces[2].bytes), Step::replaced);
  EXPECT_EQ(payload_of(flow.given()[0]), kHello);
}

TEST(FlowHandshake, WhatIsBehindTheHelloIsGivenToo) {
  Bytes stream = kHello;
  put(stream, Bytes(300, 0x17));
  Flow flow;
  EXPECT_EQ(flow.client(0, part_of(stream, 0, 500)), Step::hold);
  EXPECT_EQ(flow.client(500, part_of(stream, 500, stream.size())), Step::replaced);
  EXPECT_EQ(payload_of(flow.given()[0]), stream);
}

TEST(FlowHandshake, SeveralRecordsBecomeOne) {
  Bytes stream = records(kMessage, 300);
  const Bytes behind = records(Bytes(20, 1), 100, 23);
  put(stream, behind);
  Bytes expected = records(kMessage);
  put(expected, behind);
  for (const std::size_t pieces : {1U, 2U, 9U}) {
    Flow flow;
    Step step = Step::hold;
    for (const Piece& piece : cut(stream, pieces)) step = flow.client(piece.offset, piece.bytes);
    EXPECT_EQ(step, Step::replaced);
    ASSERT_THAT(flow.given(), SizeIs(1));
    EXPECT_EQ(payload_of(flow.given()[0]), expected);
    EXPECT_EQ(flow.facts().ja4, ja4_of_message(kMessage));
  }
}

TEST(FlowHandshake, ANonHelloIsReleasedInOrder) {
  const Bytes request = text("GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n");
  Flow flow;
  EXPECT_EQ(flow.client(16, part_of(request, 16, request.size())), Step::hold);
  EXPECT_EQ(flow.client(0, part_of(request, 0, 16)), Step::replaced);
  ASSERT_THAT(flow.given(), SizeIs(1));
  EXPECT_EQ(payload_of(flow.given()[0]), request);
  EXPECT_FALSE(flow.facts().hello);
  EXPECT_EQ(flow.client(request.size(), request), Step::as_it_is);
}

TEST(FlowHandshake, AFirstSegmentThatIsNoHelloEndsTheWaitingAtOnce) {
  Flow flow;
  EXPECT_EQ(flow.client(3000, Bytes(100, 1)), Step::hold);
  // A hole is left: what is beyond it can't be given, the segment itself is.
  EXPECT_EQ(flow.client(0, text("GET ")), Step::replaced);
  EXPECT_EQ(payload_of(flow.given()[0]), text("GET "));
}

TEST(FlowHandshake, AnAnswerBeforeTheHelloIsWholeReleasesWhatIsThere) {
  Flow flow;
  flow.client(0, part_of(kHello, 0, 600));
  EXPECT_EQ(flow.server(0, Bytes(20, 0x17)), Step::released);
  ASSERT_THAT(flow.given(), SizeIs(2));
  const Bytes there = payload_of(flow.given()[0]);
  EXPECT_EQ(there.size(), kHello.size());
  EXPECT_EQ(part_of(there, 0, 600), part_of(kHello, 0, 600));
  EXPECT_THAT(part_of(there, 600, there.size()), testing::Each(0xff));
  // It is never held again.
  EXPECT_EQ(flow.client(600, part_of(kHello, 600, 700)), Step::as_it_is);
  EXPECT_EQ(flow.client(700, part_of(kHello, 700, kHello.size())), Step::as_it_is);
  EXPECT_EQ(flow.facts().server_name, "www.example.com");
}

TEST(FlowHandshake, GivingUpPadsToTheStatedLength) {
  Flow flow;
  flow.client(0, part_of(kHello, 0, 600));
  flow.client(900, part_of(kHello, 900, 1000));
  const Bytes held = flow.handshake().give_up();
  const Bytes there = payload_of(held);
  EXPECT_EQ(there.size(), kHello.size());
  EXPECT_EQ(part_of(there, 0, 600), part_of(kHello, 0, 600));
  EXPECT_THAT(part_of(there, 600, there.size()), testing::Each(0xff));
  EXPECT_FALSE(flow.handshake().holds());
  EXPECT_THAT(flow.handshake().give_up(), IsEmpty());
  Flow nothing_first;
  nothing_first.client(900, part_of(kHello, 900, 1000));
  EXPECT_TRUE(nothing_first.handshake().holds());
  EXPECT_THAT(nothing_first.handshake().give_up(), IsEmpty());
}

TEST(FlowHandshake, ACutSegmentIsNotWaitedFor) {
  const TcpTalk talk;
  Flow first;
  EXPECT_EQ(first.give(talk.client(0, part_of(kHello, 0, 600)), 300), Step::replaced);
  EXPECT_EQ(payload_of(first.given()[0]).size(), kHello.size());
  Flow second;
  EXPECT_EQ(second.client(0, part_of(kHello, 0, 600)), Step::hold);
  EXPECT_EQ(second.give(talk.client(600, part_of(kHello, 600, 1400)), 300), Step::replaced);
  EXPECT_EQ(part_of(payload_of(second.given()[0]), 0, 860), part_of(kHello, 0, 860));
  Flow third;
  EXPECT_EQ(third.client(0, part_of(kHello, 0, 600)), Step::hold);
  const Bytes beyond = talk.client(900, part_of(kHello, 900, 1400));
  EXPECT_EQ(third.give(beyond, 300), Step::released) << "it is behind a hole";
  EXPECT_EQ(third.given()[1], beyond);
}

TEST(FlowHandshake, DifferentBytesInOnePlaceAreAConflict) {
  const auto pieces = cut(kHello, 3);
  const auto conflict_of = [&](const Bytes& again, std::size_t offset, bool before) {
    Flow flow;
    flow.client(0, pieces[0].bytes);
    flow.client(pieces[1].offset, pieces[1].bytes);
    if (before) flow.client(offset, again);
    flow.client(pieces[2].offset, pieces[2].bytes);
    if (!before) flow.client(offset, again);
    EXPECT_EQ(flow.facts().server_name, "www.example.com") << "the first copy counts";
    return flow.facts().conflict;
  };
  Bytes forged = pieces[1].bytes;
  forged.back() ^= 1;
  for (const bool before : {true, false}) {
    EXPECT_FALSE(conflict_of(pieces[1].bytes, pieces[1].offset, before)) << before;
    EXPECT_FALSE(conflict_of(part_of(kHello, 10, 700), 10, before)) << before;
    EXPECT_TRUE(conflict_of(forged, pieces[1].offset, before)) << before;
  }
  // Behind the hello each record is its own.
  EXPECT_FALSE(conflict_of(Bytes(100, 9), kHello.size(), false));
}

// Many flows may be past their hello, and few have a long one.
TEST(FlowHandshake, OfALongHelloNothingIsKept) {
  const Bytes message = made_client_hello(full_spec("www.example.com", 14000));
  const Bytes hello = records(message);
  Bytes forged = part_of(hello, 0, 9000);
  forged[50] ^= 1;
  Flow whole;
  whole.client(0, part_of(hello, 0, 9000));
  EXPECT_EQ(whole.client(9000, part_of(hello, 9000, hello.size())), Step::replaced);
  EXPECT_EQ(whole.facts().ja4, ja4_of_message(message));
  EXPECT_EQ(whole.client(0, forged), Step::as_it_is);
  EXPECT_FALSE(whole.facts().conflict);

  Flow answered;
  answered.client(0, part_of(hello, 0, 9000));
  answered.server(0, Bytes(20, 0x17));
  answered.client(9000, part_of(hello, 9000, hello.size()));
  EXPECT_FALSE(answered.facts().hello);
}

TEST(FlowHandshake, TheServersChoiceCounts) {
  for (const auto& [version, cipher] : {std::pair<std::uint16_t, std::uint16_t>{0x0302, 0xc013},
                                        {0x0303, 0xc02f},
                                        {0x0304, 0x1302}}) {
    Bytes stream = records(server_hello(version, cipher));
    put(stream, Bytes(1000, 0x16));
    for (const std::size_t pieces : {std::size_t{1}, std::size_t{3}, stream.size()}) {
      Flow flow;
      flow.client(0, kHello);
      Bytes given;
      for (const Piece& piece : cut(stream, pieces)) flow.server(piece.offset, piece.bytes);
      for (std::size_t i = 1; i < flow.given().size(); ++i) put(given, payload_of(flow.given()[i]));
      EXPECT_EQ(given, stream) << "nDPI gets all of it, in order";
      EXPECT_EQ(flow.facts().version, version);
      EXPECT_EQ(flow.facts().cipher, cipher);
      EXPECT_FALSE(flow.handshake().holds());
    }
  }
}

TEST(FlowHandshake, BothHellosOfAHelloRetryRequestAreRead) {
  const Bytes client = from_hex(kRetryClient), server = from_hex(kRetryServer);
  const std::size_t hello = 5 + (std::size_t{client[3]} << 8 | client[4]);
  const std::size_t request = 5 + (std::size_t{server[3]} << 8 | server[4]);
  Flow flow;
  EXPECT_EQ(flow.client(0, part_of(client, 0, hello)), Step::as_it_is);
  EXPECT_EQ(flow.server(0, part_of(server, 0, request)), Step::as_it_is);
  EXPECT_EQ(flow.client(hello, part_of(client, hello, hello + 200)), Step::as_it_is);
  EXPECT_EQ(flow.client(hello + 200, part_of(client, hello + 200, client.size())), Step::as_it_is);
  EXPECT_EQ(flow.server(request, part_of(server, request, server.size())), Step::as_it_is);
  EXPECT_EQ(flow.facts().server_name, "retry.example");
  EXPECT_EQ(flow.facts().version, 0x0304);
  EXPECT_EQ(flow.facts().cipher, 0x1302);
  EXPECT_EQ(flow.facts().ja4, ja4_of_message(part_of(client, 5, hello)));
  EXPECT_FALSE(flow.facts().conflict);
}

TEST(FlowHandshake, TheFirstClientHelloAndTheLastServerHelloCount) {
  const Bytes hello = records(kMessage);
  HelloSpec second = full_spec("second.example");
  second.extensions.push_back({44, {0, 1, 7}});
  Bytes again = records(Bytes{1}, 1, 20);
  put(again, records(made_client_hello(second)));
  HelloSpec retry;
  retry.ciphers = {0x1301};
  retry.random = from_hex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c");
  retry.extensions = {{extension::kSupportedVersions, {3, 4}}};
  const Bytes request = records(made_server_hello(retry));
  Bytes choice = records(Bytes{1}, 1, 20);
  put(choice, records(server_hello(0x0304, 0x1302)));
  Flow flow;
  flow.client(0, hello);
  flow.server(0, request);
  EXPECT_EQ(flow.facts().cipher, 0x1301);
  EXPECT_EQ(flow.client(hello.size(), again), Step::as_it_is);
  flow.server(request.size(), choice);
  EXPECT_EQ(flow.facts().cipher, 0x1302);
  EXPECT_EQ(flow.facts().ja4, ja4_of_message(kMessage));
  EXPECT_EQ(flow.facts().server_name, "www.example.com");
}

TEST(FlowHandshake, OnlyWhatMayBeAHandshakeIsLookedAt) {
  const auto may_begin = [](const Bytes& packet, bool has_begin, std::uint32_t begin) {
    const Sample sample(packet);
    HandshakePacket part;
    part.protocol = sample.head.key.protocol;
    part.sequence = sample.head.sequence;
    part.packet = packet;
    part.payload_length = sample.head.l4_payload;
    part.payload_offset = packet.size() - part.payload_length;
    return FlowHandshake::may_begin(part, has_begin, begin);
  };
  const TcpTalk talk;
  EXPECT_TRUE(may_begin(talk.client(0, {0x16}), true, talk.client_first));
  EXPECT_TRUE(may_begin(talk.client(0, {0x16, 3}), false, 0));
  EXPECT_FALSE(may_begin(talk.client(0, {0x16, 2}), false, 0));
  EXPECT_FALSE(may_begin(talk.client(0, text("GET")), true, talk.client_first));
  EXPECT_TRUE(may_begin(talk.client(5, text("GET")), true, talk.client_first));
  EXPECT_FALSE(may_begin(talk.client(16384, text("GET")), true, talk.client_first));
  EXPECT_FALSE(may_begin(talk.client(5, text("GET")), false, 0));
  EXPECT_FALSE(may_begin(talk.syn(), true, talk.client_first));
  EXPECT_TRUE(may_begin(udp({}, {0x16, 0xfe, 0xff}), false, 0));
  EXPECT_TRUE(may_begin(udp({}, {0xc3, 0, 0, 0, 1}), false, 0));
  EXPECT_FALSE(may_begin(udp({}, {0x43, 0, 0, 0, 1}), false, 0));
  EXPECT_FALSE(may_begin(udp({}, {0x16, 3, 1}), false, 0));
}

TEST(FlowHandshake, DtlsFragmentsBecomeOneRecord) {
  HelloSpec spec = full_spec("dtls.example", 300);
  spec.dtls = true;
  spec.version = 0xfefd;
  const Bytes message = made_client_hello(spec);
  const std::size_t body = message.size() - 4;
  for (const Order order : {Order::forward, Order::backward, Order::shuffled}) {
    std::vector<Bytes> fragments;
    for (std::size_t at = 0; at < body; at += 100)
      fragments.push_back(dtls_fragment(message, 0, at, std::min<std::size_t>(100, body - at)));
    fragments = in_order(fragments, order);
    Flow flow(false);
    for (std::size_t i = 0; i + 1 < fragments.size(); ++i) {
      EXPECT_EQ(flow.datagram(fragments[i]), Step::hold);
      // Other traffic on the same ports does not disturb.
      EXPECT_EQ(flow.datagram(Bytes(20, 0), true), Step::as_it_is);
    }
    EXPECT_EQ(flow.datagram(fragments.back()), Step::replaced);
    EXPECT_EQ(payload_of(flow.given().back()).size(), 13 + 12 + body);
    EXPECT_EQ(flow.facts().ja4, ja4_of_message(message, HelloTransport::dtls));
    EXPECT_EQ(flow.facts().server_name, "dtls.example");
    flow.datagram(
        dtls_fragment(server_hello(0xfefd, 0xc030), 0, 0, server_hello(0xfefd, 0xc030).size() - 4),
        true);
    EXPECT_EQ(flow.facts().cipher, 0xc030);
    EXPECT_EQ(flow.facts().version, 0xfefd);
  }
}

TEST(FlowHandshake, RecordedDtlsWithACookie) {
  Flow flow(false);
  EXPECT_EQ(flow.datagram(from_hex(kDtlsClient1)), Step::as_it_is);
  EXPECT_EQ(flow.datagram(from_hex(kDtlsServer1), true), Step::as_it_is);
  EXPECT_EQ(flow.datagram(from_hex(kDtlsClient2)), Step::as_it_is);
  EXPECT_EQ(flow.datagram(from_hex(kDtlsClient3)), Step::as_it_is);
  EXPECT_EQ(flow.datagram(from_hex(kDtlsServer2), true), Step::as_it_is);
  EXPECT_EQ(flow.facts().server_name, "dtls.example");
  EXPECT_EQ(flow.facts().cipher, 0xc030);
}

// nDPI ignores a packet that is shorter than its header says.
TEST(FlowHandshake, ACutDatagramThatWasHeldHasTheLengthThatItStillHas) {
  HelloSpec spec = full_spec("dtls.example", 300);
  spec.dtls = true;
  const Bytes message = made_client_hello(spec);
  Bytes two = dtls_fragment(message, 0, 0, 100);
  put(two, dtls_fragment(message, 0, 100, 100));
  Flow flow(false);
  EXPECT_EQ(flow.datagram(two, false, 28 + 150), Step::hold);
  const Bytes held = flow.handshake().give_up();
  EXPECT_EQ(payload_of(held), part_of(two, 0, 150));

  QuicClient client;
  const Bytes hello = quic_client_hello("quic.example", 2000);
  Bytes merged = client.initials(hello, 2)[0];
  const std::size_t first = merged.size();
  put(merged, Bytes(1000, 0xc1));
  Flow quic(false);
  EXPECT_EQ(quic.datagram(merged, false, 28 + first + 500), Step::hold);
  EXPECT_EQ(payload_of(quic.handshake().give_up()), part_of(merged, 0, first + 500));
}

TEST(FlowHandshake, QuicInitialsBecomeOne) {
  for (const std::uint32_t version : {kQuicVersion1, kQuicVersion2, kQuicDraft29}) {
    for (const std::size_t count : {1U, 2U, 3U, 4U}) {
      for (const Order order : {Order::forward, Order::backward, Order::shuffled}) {
        QuicClient client;
        client.version = version;
        const Bytes hello = quic_client_hello("quic.example", count == 1 ? 900 : 3000);
        const auto datagrams = in_order(client.initials(hello, count), order);
        Flow flow(false);
        for (const Bytes& datagram : datagrams) {
          const bool last = &datagram == &datagrams.back();
          const Step step = flow.datagram(datagram);
          const bool plain = count == 1 && version == kQuicVersion1;
          EXPECT_EQ(step, !last ? Step::hold : plain ? Step::as_it_is : Step::replaced);
          if (last) continue;
          EXPECT_EQ(flow.datagram(client.other(2, 60), true), Step::hold);
          EXPECT_EQ(flow.datagram(Bytes(60, 0x41), true), Step::hold);
        }
        ASSERT_THAT(flow.given(), SizeIs(1));
        EXPECT_EQ(flow.facts().server_name, "quic.example");
        EXPECT_EQ(flow.facts().ja4, ja4_of_message(hello, HelloTransport::quic));
        EXPECT_EQ(flow.facts().version, 0x0304);
        EXPECT_TRUE(flow.handshake().awaits_server());
        QuicHello one;
        one.add(payload_of(flow.given()[0]));
        EXPECT_EQ(Bytes(one.message().begin(), one.message().end()), hello);
      }
    }
  }
}

Bytes server_initial(const QuicClient& client, const Bytes& dcid, const Bytes& message) {
  return quic_seal(quic_initial_keys(quic_protection(client.version), dcid, QuicSide::server),
                   {client.version, client.scid, from_hex("f067a5502a4262b5"), {}, 0, 1},
                   crypto_frame(0, message));
}

TEST(FlowHandshake, QuicsServerTellsTheCipher) {
  QuicClient client;
  Flow flow(false);
  flow.datagram(client.initial(crypto_frame(0, quic_client_hello("quic.example", 900))));
  EXPECT_TRUE(flow.handshake().awaits_server());
  EXPECT_EQ(
      flow.datagram(server_initial(client, from_hex("00"), server_hello(0x0304, 0x1303)), true),
      Step::as_it_is)
      << "another connection's";
  EXPECT_TRUE(flow.handshake().awaits_server());
  flow.datagram(server_initial(client, client.dcid, server_hello(0x0304, 0x1303)), true);
  EXPECT_FALSE(flow.handshake().awaits_server());
  EXPECT_EQ(flow.facts().cipher, 0x1303);
}

TEST(FlowHandshake, QuicAfterARetry) {
  for (const std::size_t count : {1U, 2U}) {
    QuicClient client;
    const Bytes hello = quic_client_hello("quic.example", count == 1 ? 900 : 2000);
    Flow flow(false);
    flow.datagram(client.initials(hello, count)[0]);
    const Bytes fresh = from_hex("a0a1a2a3a4a5a6a7a8");
    Bytes retry{0xf0};
    put32(retry, client.version);
    put(retry, vector8(client.scid));
    put(retry, vector8(fresh));
    put(retry, text("a token"));
    put(retry, Bytes(16, 0x11));
    flow.datagram(retry, true);
    client.dcid = fresh;
    client.token = text("a token");
    for (const Bytes& datagram : client.initials(hello, count)) flow.datagram(datagram);
    EXPECT_EQ(flow.facts().server_name, "quic.example");
    EXPECT_TRUE(flow.handshake().awaits_server());
    flow.datagram(server_initial(client, fresh, server_hello(0x0304, 0x1302)), true);
    EXPECT_EQ(flow.facts().cipher, 0x1302) << count;
    EXPECT_FALSE(flow.handshake().awaits_server());
  }
}

TEST(FlowHandshake, QuicThatIsNoneIsReleased) {
  Flow flow(false);
  EXPECT_EQ(flow.datagram(Bytes(100, 0xc5)), Step::as_it_is);
  EXPECT_FALSE(flow.handshake().awaits_server());
  QuicClient client;
  Flow half(false);
  const Bytes first = client.initials(quic_client_hello("quic.example", 2000), 2)[0];
  EXPECT_EQ(half.datagram(first), Step::hold);
  EXPECT_EQ(payload_of(half.handshake().give_up()), first);
  EXPECT_EQ(half.datagram(first), Step::as_it_is);
}

TEST(MadePacket, HasTheHeadersOfTheOldOne) {
  for (const char* source : {"192.0.2.10", "2001:db8::10"}) {
    Endpoints ends;
    if (ends.source != source) ends = {source, "2001:db8:1::20", 40000, 443};
    const Bytes segment = tcp(ends, L7M_TCP_ACK, 5, 6, Bytes(10, 1));
    const Bytes headers = headers_of(segment, segment.size() - 10);
    EXPECT_EQ(packet_with(headers, L7M_PROTO_TCP, 0x12345678, Bytes(3000, 2)),
              tcp(ends, L7M_TCP_ACK, 0x12345678, 6, Bytes(3000, 2)));
    const Bytes datagram = udp(ends, Bytes(10, 1));
    EXPECT_EQ(
        packet_with(headers_of(datagram, datagram.size() - 10), L7M_PROTO_UDP, 9, Bytes(3000, 2)),
        udp(ends, Bytes(3000, 2)));
    EXPECT_THAT(packet_with(headers, L7M_PROTO_TCP, 1, Bytes(70000, 3)), SizeIs(kMaxPacketBytes));
    EXPECT_THAT(packet_with(std::span(headers).first(headers.size() - 1), L7M_PROTO_TCP, 1, {}),
                IsEmpty());
  }
  EXPECT_THAT(headers_of(Bytes(1000, 0), 257), IsEmpty());
  EXPECT_THAT(headers_of(Bytes(10, 0), 11), IsEmpty());
  EXPECT_THAT(packet_with({}, L7M_PROTO_TCP, 1, {}), IsEmpty());
}

}  // namespace
}  // namespace l7mark
