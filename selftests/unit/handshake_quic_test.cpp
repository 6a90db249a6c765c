// SPDX-License-Identifier: GPL-2.0-only
// ClientHellos in QUIC, in every shape that clients, networks and strangers give them.
#include "handshake/quic_hello.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>

#include "quic_packets.hpp"

namespace l7mark {
namespace {

using namespace test;

using State = QuicHelloState;

Bytes message_of(const QuicHello& hello) {
  return {hello.message().begin(), hello.message().end()};
}

TEST(QuicHello, OnePlainPacket) {
  for (const std::uint32_t version : {kQuicVersion1, kQuicVersion2, kQuicDraft29}) {
    const Bytes message = quic_client_hello("example.org", 600);
    QuicClient client;
    client.version = version;
    QuicHello hello;
    EXPECT_EQ(hello.state(), State::not_quic);
    EXPECT_EQ(hello.add(client.initial(crypto_frame(0, message))), State::complete);
    EXPECT_EQ(message_of(hello), message);
    EXPECT_TRUE(hello.is_plain());
    EXPECT_FALSE(hello.conflict());
    EXPECT_EQ(hello.version(), version);
  }
}

TEST(QuicHello, SplitOverDatagramsInEachOrder) {
  const Bytes message = quic_client_hello("example.org", 2400);
  for (std::size_t count = 2; count <= 6; ++count) {
    QuicClient client;
    const std::vector<Bytes> datagrams = client.initials(message, count);
    ASSERT_EQ(datagrams.size(), count);
    std::vector<std::size_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    do {
      QuicHello hello;
      for (std::size_t i = 0; i < count; ++i) {
        EXPECT_TRUE(hello.message().empty());
        EXPECT_EQ(hello.add(datagrams[order[i]]),
                  i + 1 == count ? State::complete : State::collecting);
      }
      EXPECT_EQ(message_of(hello), message);
      EXPECT_FALSE(hello.is_plain());
      EXPECT_FALSE(hello.conflict());
    } while (std::next_permutation(order.begin(), order.end()));
  }
}

TEST(QuicHello, SeveralPacketsInOneDatagram) {
  const Bytes message = quic_client_hello("example.org", 3000);
  QuicClient client;
  Bytes merged;
  for (const Bytes& datagram : client.initials(message, 4)) put(merged, datagram);
  QuicHello hello;
  EXPECT_EQ(hello.add(merged), State::complete);
  EXPECT_EQ(message_of(hello), message);
  EXPECT_FALSE(hello.is_plain());
}

// Firefox fills a datagram up with zeros behind its packet, and UDP segmentation offload then glues
// it to the next.
TEST(QuicHello, ZerosBetweenPackets) {
  const Bytes message = quic_client_hello("example.org", 2400);
  QuicClient client;
  Bytes merged;
  for (const Bytes& datagram : client.initials(message, 3)) {
    put(merged, datagram);
    merged.insert(merged.end(), 247, 0x00);
  }
  QuicHello hello;
  EXPECT_EQ(hello.add(merged), State::complete);
  EXPECT_EQ(message_of(hello), message);
}

// Chromium cuts the hello into many CRYPTO frames, shuffles them, and puts PADDING and PING
// between.
TEST(QuicHello, ScrambledFrames) {
  const Bytes message = quic_client_hello("example.org", 1900);
  Bytes frames[2];
  for (std::size_t i = 0; i < 19; ++i) {
    const std::size_t part = i * 7 % 19;
    Bytes& out = frames[part % 2];
    put(out, crypto_part(message, part * 100, part * 100 + 100));
    if (i % 3 == 0) out.push_back(0x01);
    if (i % 2 == 0) out.insert(out.end(), i * 5, 0x00);
  }
  for (const std::size_t first : {0U, 1U}) {
    QuicClient client;
    QuicHello hello;
    EXPECT_EQ(hello.add(client.initial(frames[first])), State::collecting);
    EXPECT_EQ(hello.add(client.initial(frames[1 - first])), State::complete);
    EXPECT_EQ(message_of(hello), message);
    EXPECT_FALSE(hello.is_plain());
  }
}

TEST(QuicHello, FramesThatMayStandBesideCrypto) {
  const Bytes message = quic_client_hello("example.org", 400);
  const Bytes others[] = {
      {0x00},                                            // PADDING
      {0x01},                                            // PING
      {0x02, 0x05, 0x00, 0x01, 0x00, 0x00, 0x01},        // ACK
      {0x03, 0x05, 0x00, 0x00, 0x00, 0x01, 0x02, 0x03},  // ACK with ECN counts
      {0x1c, 0x0a, 0x06, 0x03, 'b', 'a', 'd'},           // CONNECTION_CLOSE
      {0x1d, 0x0a, 0x03, 'b', 'a', 'd'},                 // of the application
      {0x40, 0x01},                                      // a type in more bytes than needed
  };
  for (const Bytes& other : others) {
    QuicClient client;
    Bytes frames = other;
    put(frames, crypto_frame(0, message));
    QuicHello before;
    EXPECT_EQ(before.add(client.initial(frames)), State::complete) << unsigned{other[0]};
    EXPECT_EQ(message_of(before), message);
    EXPECT_FALSE(before.is_plain());
    frames = crypto_frame(0, message);
    put(frames, other);
    QuicHello behind;
    EXPECT_EQ(behind.add(client.initial(frames)), State::complete);
    EXPECT_TRUE(behind.is_plain());
  }
  QuicClient client;
  Bytes frames{0x08, 0x00};  // STREAM may not
  put(frames, crypto_frame(0, message));
  QuicHello hello;
  EXPECT_EQ(hello.add(client.initial(frames)), State::collecting);
}

TEST(QuicHello, RepeatedAndOverlapping) {
  const Bytes message = quic_client_hello("example.org", 2000);
  QuicClient client;
  QuicHello hello;
  const Bytes first = client.initial(crypto_part(message, 0, 900));
  EXPECT_EQ(hello.add(first), State::collecting);
  EXPECT_EQ(hello.add(first), State::collecting);
  EXPECT_EQ(hello.add(client.initial(crypto_part(message, 1500, 2000))), State::collecting);
  EXPECT_EQ(hello.add(client.initial(crypto_part(message, 700, 1600))), State::complete);
  EXPECT_EQ(message_of(hello), message);
  EXPECT_FALSE(hello.conflict());
}

TEST(QuicHello, TheFirstCopyWins) {
  const Bytes message = quic_client_hello("example.org", 2000);
  const Bytes other = quic_client_hello("example.net", 2000);
  QuicClient client;
  QuicHello hello;
  EXPECT_EQ(hello.add(client.initial(crypto_part(message, 0, 900))), State::collecting);
  EXPECT_EQ(hello.add(client.initial(crypto_part(other, 0, 900))), State::collecting);
  EXPECT_TRUE(hello.conflict());
  EXPECT_EQ(hello.add(client.initial(crypto_part(message, 900, 2000))), State::complete);
  EXPECT_EQ(message_of(hello), message);
  EXPECT_TRUE(hello.conflict());
}

TEST(QuicHello, AfterARetry) {
  const Bytes message = quic_client_hello("example.org", 1800);
  QuicClient client;
  const std::vector<Bytes> lost = client.initials(message, 2);
  client.dcid = from_hex("f067a5502a4262b5");
  client.token = from_hex("746f6b656e");
  QuicHello hello;
  EXPECT_EQ(hello.add(lost[0]), State::collecting);
  const std::vector<Bytes> datagrams = client.initials(message, 2);
  EXPECT_EQ(hello.add(datagrams[1]), State::collecting);
  EXPECT_EQ(Bytes(hello.dcid().begin(), hello.dcid().end()), client.dcid);
  EXPECT_EQ(hello.add(datagrams[0]), State::complete);
  EXPECT_EQ(message_of(hello), message);
  EXPECT_FALSE(hello.conflict());
}

// The server's choice of a connection id does not change the keys.
TEST(QuicHello, ALaterConnectionIdOfTheServer) {
  const Bytes message = quic_client_hello("example.org", 1800);
  QuicClient client;
  QuicHello hello;
  EXPECT_EQ(hello.add(client.initials(message, 2)[0]), State::collecting);
  const QuicKeys keys = quic_initial_keys(QuicProtection::version1, client.dcid, QuicSide::client);
  const Bytes id = from_hex("0badcafe");
  const Bytes frames = crypto_part(message, 900, 1800);
  EXPECT_EQ(hello.add(quic_seal(keys, {kQuicVersion1, id, {}, {}, 7, 2}, frames)), State::complete);
  EXPECT_EQ(message_of(hello), message);
}

// Compatible version negotiation (RFC 9368): the client goes on in the version of the server.
TEST(QuicHello, TheServerChoseAnotherVersion) {
  const Bytes message = quic_client_hello("example.org", 1800);
  QuicClient client;
  QuicHello hello;
  EXPECT_EQ(hello.add(client.initials(message, 2)[0]), State::collecting);
  const QuicKeys keys = quic_initial_keys(QuicProtection::version2, client.dcid, QuicSide::client);
  const Bytes id = from_hex("0badcafe");
  const Bytes frames = crypto_part(message, 900, 1800);
  EXPECT_EQ(hello.add(quic_seal(keys, {kQuicVersion2, id, {}, {}, 7, 2}, frames)), State::complete);
  EXPECT_EQ(message_of(hello), message);
  EXPECT_EQ(hello.version(), kQuicVersion1);
}

TEST(QuicHello, BesideZeroRtt) {
  const Bytes message = quic_client_hello("example.org", 1500);
  QuicClient client;
  const std::vector<Bytes> parts = client.initials(message, 2);
  Bytes second = client.other(1, 200);
  put(second, parts[1]);
  put(second, client.other(1, 100));
  QuicHello hello;
  EXPECT_EQ(hello.add(client.other(1, 900)), State::not_quic);
  EXPECT_EQ(hello.add(parts[0]), State::collecting);
  EXPECT_EQ(hello.add(second), State::complete);
  EXPECT_EQ(message_of(hello), message);
}

TEST(QuicHello, OnlyTheVeryFirstPacketIsPlain) {
  const Bytes message = quic_client_hello("example.org", 500);
  QuicClient client;
  QuicHello behind_another;
  EXPECT_EQ(behind_another.add(client.initial({0x01})), State::collecting);
  EXPECT_EQ(behind_another.add(client.initial(crypto_frame(0, message))), State::complete);
  EXPECT_FALSE(behind_another.is_plain());
  Bytes datagram = client.other(1, 20);
  put(datagram, client.initial(crypto_frame(0, message)));
  QuicHello behind_early_data;
  EXPECT_EQ(behind_early_data.add(datagram), State::complete);
  EXPECT_FALSE(behind_early_data.is_plain());
  Bytes two = crypto_part(message, 0, 200);
  put(two, crypto_part(message, 200, 500));
  QuicHello in_two_frames;
  EXPECT_EQ(in_two_frames.add(client.initial(two)), State::complete);
  EXPECT_FALSE(in_two_frames.is_plain());
}

TEST(QuicHello, CutShortAtEveryByte) {
  const Bytes message = quic_client_hello("example.org", 300);
  QuicClient client;
  const Bytes datagram = client.initial(crypto_frame(0, message), 0);
  for (std::size_t size = 0; size < datagram.size(); ++size) {
    QuicHello hello;
    EXPECT_EQ(hello.add(std::span(datagram).first(size)), State::not_quic) << size;
  }
  // The same of the message: CRYPTO frames that hold less than all of it.
  for (std::size_t size = 1; size < message.size(); ++size) {
    QuicHello hello;
    EXPECT_EQ(hello.add(client.initial(crypto_part(message, 0, size), 0)), State::collecting);
    EXPECT_TRUE(hello.sealed_initial().empty());
  }
  // And of the frames.
  const Bytes frames = crypto_frame(0, message);
  for (std::size_t size = 1; size < frames.size(); ++size) {
    QuicHello hello;
    EXPECT_EQ(hello.add(client.initial(
                  Bytes(frames.begin(), frames.begin() + static_cast<long>(size)), 0)),
              State::collecting);
  }
}

TEST(QuicHello, AWrongTag) {
  const Bytes message = quic_client_hello("example.org", 1800);
  QuicClient client;
  std::vector<Bytes> datagrams = client.initials(message, 2);
  Bytes forged = datagrams[0];
  forged.back() ^= 0x01;
  QuicHello hello;
  EXPECT_EQ(hello.add(forged), State::collecting);
  EXPECT_EQ(hello.add(datagrams[0]), State::collecting);
  EXPECT_EQ(hello.add(datagrams[1]), State::complete);
  EXPECT_EQ(message_of(hello), message);
  EXPECT_FALSE(hello.is_plain());
}

// Later packets refer to the first one's connection id, so that is kept even of a damaged one.
TEST(QuicHello, TheFirstPacketIsDamaged) {
  const Bytes message = quic_client_hello("example.org", 500);
  QuicClient client;
  Bytes damaged = client.initial({0x01});
  damaged.back() ^= 0x01;
  QuicHello hello;
  EXPECT_EQ(hello.add(damaged), State::collecting);
  const QuicKeys keys = quic_initial_keys(QuicProtection::version1, client.dcid, QuicSide::client);
  const Bytes id = from_hex("0badcafe");
  EXPECT_EQ(hello.add(quic_seal(keys, {kQuicVersion1, id, {}, {}, 1, 1}, crypto_frame(0, message))),
            State::complete);
}

TEST(QuicHello, GivesUpWhereNothingOpens) {
  QuicClient client;
  Bytes forged = client.initial({0x01});
  forged.back() ^= 0x01;
  QuicHello hello;
  int datagrams = 0;
  while (hello.add(forged) == State::collecting && datagrams < 100) ++datagrams;
  EXPECT_EQ(hello.state(), State::failed);
  EXPECT_LT(datagrams, 20);
  EXPECT_EQ(hello.add(client.initial(crypto_frame(0, quic_client_hello("example.org", 300)))),
            State::failed);
}

TEST(QuicHello, AnotherHandshakeMessageIsNoHello) {
  Bytes message = quic_client_hello("example.org", 300);
  message[0] = 0x02;
  QuicClient client;
  QuicHello hello;
  EXPECT_EQ(hello.add(client.initial(crypto_frame(0, message))), State::failed);
  EXPECT_TRUE(hello.message().empty());
}

TEST(QuicHello, TheLimitHolds) {
  const Bytes message = quic_client_hello("example.org", 2000);
  QuicClient client;
  QuicHello exact(2000);
  for (const Bytes& datagram : client.initials(message, 2)) exact.add(datagram);
  EXPECT_EQ(exact.state(), State::complete);
  QuicHello stated(1999);
  EXPECT_EQ(stated.add(client.initials(message, 2)[0]), State::overflow);
  QuicHello beyond(1999);
  EXPECT_EQ(beyond.add(client.initials(message, 2)[1]), State::overflow);
  Bytes far{0x06};
  quic_put_varint(far, (std::uint64_t{1} << 62) - 1);
  put(far, Bytes{0x01, 0x00});
  QuicHello farthest;
  EXPECT_EQ(farthest.add(client.initial(far)), State::overflow);
}

TEST(QuicHello, TheLargestHello) {
  const Bytes message = quic_client_hello("example.org", QuicHello::kDefaultLimit);
  QuicClient client;
  QuicHello hello;
  for (const Bytes& datagram : client.initials(message, 15)) hello.add(datagram);
  ASSERT_EQ(hello.state(), State::complete);
  EXPECT_EQ(message_of(hello), message);
  QuicHello again;
  EXPECT_EQ(again.add(hello.sealed_initial()), State::complete);
  EXPECT_EQ(message_of(again), message);
  EXPECT_TRUE(again.is_plain());
}

// Frames of a byte each: the hello is whole, although a datagram's frames are not read without end.
TEST(QuicHello, AByteAFrame) {
  const Bytes message = quic_client_hello("example.org", 600);
  QuicClient client;
  QuicHello hello;
  Bytes frames;
  for (std::size_t i = 0; i < message.size(); i += 2) put(frames, crypto_part(message, i, i + 1));
  hello.add(client.initial(frames));
  frames.clear();
  for (std::size_t i = 1; i < message.size(); i += 2) put(frames, crypto_part(message, i, i + 1));
  EXPECT_EQ(hello.add(client.initial(frames)), State::complete);
  EXPECT_EQ(message_of(hello), message);
  Bytes pings(4000, 0x01);
  put(pings, crypto_frame(0, message));
  QuicHello flooded;
  EXPECT_EQ(flooded.add(client.initial(pings)), State::collecting);
  Bytes ranges{0x02, 0x05, 0x00};
  quic_put_varint(ranges, 2000);
  ranges.insert(ranges.end(), 4001, 0x01);
  put(ranges, crypto_frame(0, message));
  QuicHello acknowledged;
  EXPECT_EQ(acknowledged.add(client.initial(ranges)), State::collecting);
}

// A datagram that takes too much work is read only up to the bound.
TEST(QuicHello, TheWorkForADatagramIsBounded) {
  QuicClient client;
  const Bytes last = client.initial(crypto_frame(0, quic_client_hello("example.org", 300)));
  const auto behind = [&](const Bytes& packet, std::size_t count) {
    Bytes datagram;
    for (std::size_t i = 0; i < count; ++i) put(datagram, packet);
    put(datagram, last);
    return QuicHello().add(datagram);
  };
  const Bytes small = client.initial({0x01}, 4);
  EXPECT_EQ(behind(small, 60), State::complete);
  EXPECT_EQ(behind(small, 70), State::collecting);
  const Bytes large = client.initial({0x01}, 16000);
  EXPECT_EQ(behind(large, 1), State::complete);
  EXPECT_EQ(behind(large, 2), State::collecting);
  QuicClient stranger;
  stranger.dcid = from_hex("f067a5502a4262b5");
  Bytes forged = stranger.initial({0x01}, 4);
  forged.back() ^= 0x01;
  EXPECT_EQ(behind(forged, 1), State::complete);
  stranger.dcid = from_hex("f067a5502a4262b6");
  Bytes other = stranger.initial({0x01}, 4);
  other.back() ^= 0x01;
  put(forged, other);
  EXPECT_EQ(behind(forged, 1), State::collecting) << "keys of three connection ids";
}

TEST(QuicHello, OtherVersions) {
  QuicClient client;
  const Bytes known = client.initial(crypto_frame(0, quic_client_hello("example.org", 600)));
  client.version = 0x51303530;
  QuicHello hello;
  EXPECT_EQ(hello.add(client.other(0, 1300)), State::unknown_version);
  EXPECT_EQ(hello.version(), 0x51303530U);
  EXPECT_EQ(hello.add(known), State::complete) << "the client tried again after a negotiation";
  EXPECT_FALSE(hello.is_plain());

  client.version = 0x1a2a3a4a;
  QuicHello reserved;
  EXPECT_EQ(reserved.add(client.initial({0x01})), State::collecting);
  EXPECT_EQ(reserved.add(known), State::complete) << "the same connection id, another version";
  EXPECT_EQ(reserved.version(), kQuicVersion1);

  client.version = 0x51303530;
  QuicHello too_short;
  EXPECT_EQ(too_short.add(client.other(0, 100)), State::not_quic);
  client.dcid.resize(7);
  QuicHello short_id;
  EXPECT_EQ(short_id.add(client.other(0, 1300)), State::not_quic);
  QuicHello text;
  EXPECT_EQ(text.add(Bytes(1300, 'x')), State::not_quic);
  QuicHello ones;
  EXPECT_EQ(ones.add(Bytes(1300, 0xff)), State::not_quic);
  QuicHello nothing;
  EXPECT_EQ(nothing.add({}), State::not_quic);
}

TEST(QuicHello, TheSealedPacketIsTheSameConnections) {
  const Bytes message = quic_client_hello("example.org", 1800);
  for (const std::uint32_t version : {kQuicVersion1, kQuicVersion2, kQuicDraft29}) {
    QuicClient client;
    client.version = version;
    client.token = from_hex("746f6b656e");
    QuicHello hello;
    for (const Bytes& datagram : client.initials(message, 3)) hello.add(datagram);
    const Bytes sealed = hello.sealed_initial(version);
    QuicPacketReader reader(sealed);
    const auto packet = reader.next();
    ASSERT_TRUE(packet);
    EXPECT_EQ(packet->type, QuicPacketType::initial);
    EXPECT_EQ(packet->version, version);
    EXPECT_EQ(Bytes(packet->dcid.begin(), packet->dcid.end()), client.dcid);
    EXPECT_EQ(Bytes(packet->scid.begin(), packet->scid.end()), client.scid);
    EXPECT_EQ(Bytes(packet->token.begin(), packet->token.end()), client.token);
    EXPECT_EQ(packet->bytes.size(), sealed.size());
    QuicHello again;
    EXPECT_EQ(again.add(sealed), State::complete);
    EXPECT_TRUE(again.is_plain());
    EXPECT_EQ(message_of(again), message);

    QuicHello replaced;
    EXPECT_EQ(replaced.add(hello.sealed_initial()), State::complete);
    EXPECT_EQ(replaced.version(), kQuicVersion1);
  }
}

}  // namespace
}  // namespace l7mark
