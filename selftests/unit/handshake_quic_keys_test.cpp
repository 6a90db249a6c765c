// SPDX-License-Identifier: GPL-2.0-only
// Headers and protection of QUIC packets against the examples in the specifications: RFC 9001,
// appendix A (version 1), RFC 9369, appendix A (version 2), draft-ietf-quic-tls-29, appendix A.
#include "handshake/quic_keys.hpp"

#include <gtest/gtest.h>

#include <memory>

#include "quic_packets.hpp"

namespace l7mark {
namespace {

using namespace test;

const Bytes kDcid = from_hex("8394c8f03e515708");

template <class Range>
Bytes bytes(const Range& range) {
  return {range.begin(), range.end()};
}

struct KeyVector {
  QuicProtection protection;
  QuicSide side;
  const char* key;
  const char* iv;
  const char* header;
};

TEST(QuicKeys, AsSpecified) {
  const KeyVector vectors[] = {
      {QuicProtection::version1, QuicSide::client, "1f369613dd76d5467730efcbe3b1a22d",
       "fa044b2f42a3fd3b46fb255c", "9f50449e04a0e810283a1e9933adedd2"},
      {QuicProtection::version1, QuicSide::server, "cf3a5331653c364c88f0f379b6067e37",
       "0ac1493ca1905853b0bba03e", "c206b8d9b9f0f37644430b490eeaa314"},
      {QuicProtection::version2, QuicSide::client, "8b1a0bc121284290a29e0971b5cd045d",
       "91f73e2351d8fa91660e909f", "45b95e15235d6f45a6b19cbcb0294ba9"},
      {QuicProtection::version2, QuicSide::server, "82db637861d55e1d011f19ea71d5d2a7",
       "dd13c276499c0249d3310652", "edf6d05c83121201b436e16877593c3a"},
      {QuicProtection::draft29, QuicSide::client, "175257a31eb09dea9366d8bb79ad80ba",
       "6b26114b9cba2b63a9e8dd4f", "9ddd12c994c0698b89374a9c077a3077"},
      {QuicProtection::draft29, QuicSide::server, "149d0b1662ab871fbe63c49b5e655a5d",
       "bab2b12a4c76016ace47856d", "c0c499a65a60024a18a250974ea01dfa"},
  };
  for (const KeyVector& vector : vectors) {
    const QuicKeys keys = quic_initial_keys(vector.protection, kDcid, vector.side);
    EXPECT_EQ(bytes(keys.key), from_hex(vector.key));
    EXPECT_EQ(bytes(keys.iv), from_hex(vector.iv));
    EXPECT_EQ(bytes(keys.header), from_hex(vector.header));
  }
}

// The client's packets are long; the tag at the end covers all of them, and the packet must open to
// the frames that it was made of.
struct ClientVector {
  std::uint32_t version;
  const char* frames;
  const char* begin;
  const char* end;
};

const char* const kRfcFrames =
    "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c0000041301"
    "1302010000c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007"
    "000504616c706e000500050100000000003300260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f5"
    "0f1ce15d43e994ec74d748002b0003020304000d0010000e0403050306030203080408050806002d00020101001c00"
    "024001003900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901100f088394c8f0"
    "3e51570806048000ffff";

TEST(QuicKeys, TheClientsInitialAsSpecified) {
  const ClientVector vectors[] = {
      {kQuicVersion1, kRfcFrames,
       "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9b",
       "e221af44860018ab0856972e194cd934"},
      {kQuicVersion2, kRfcFrames,
       "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485dd04de806071",
       "e96ba18b2faa745b6fe189cf772a9f84cbfc"},
      {kQuicDraft29,
       "060040c4010000c003036660261ff947cea49cce6cfad687f457cf1b14531ba14131a0e8f309a1d0b9c40000061"
       "30113031302010000910000000b0009000006736572766572ff01000100000a00140012001d0017001800190100"
       "010101020103010400230000003300260024001d00204cfdfcd178b784bf328cae793b136f2aedce005ff183d7b"
       "b1495207236647037002b0003020304000d0020001e040305030603020308040805080604010501060102010402"
       "050206020202002d00020101001c00024001",
       "c5ff00001d088394c8f03e5157080000449e4a95245bfb66bc5f93032b7ddd89fe0ff15d9c4f",
       "43b1ca70a2d8d3f725ead1391377dcc0"},
  };
  for (const ClientVector& vector : vectors) {
    Bytes frames = from_hex(vector.frames);
    frames.resize(1162);
    const QuicKeys keys =
        quic_initial_keys(quic_protection(vector.version), kDcid, QuicSide::client);
    const Bytes packet = quic_seal(keys, {vector.version, kDcid, {}, {}, 2, 4}, frames);
    ASSERT_EQ(packet.size(), 1200U);
    const Bytes begin = from_hex(vector.begin);
    EXPECT_EQ(Bytes(packet.begin(), packet.begin() + static_cast<long>(begin.size())), begin);
    const Bytes end = from_hex(vector.end);
    EXPECT_EQ(Bytes(packet.end() - static_cast<long>(end.size()), packet.end()), end);

    QuicPacketReader reader(packet);
    const auto read = reader.next();
    ASSERT_TRUE(read);
    EXPECT_EQ(read->type, QuicPacketType::initial);
    const auto scratch = std::make_unique<QuicScratch>();
    const auto opened = quic_open(keys, *read, *scratch);
    ASSERT_TRUE(opened);
    EXPECT_EQ(opened->number, 2U);
    EXPECT_EQ(bytes(opened->frames), frames);
  }
}

TEST(QuicKeys, TheServersInitialAsSpecified) {
  const struct {
    std::uint32_t version;
    const char* packet;
    const char* frames;
  } vectors[] = {
      {kQuicVersion1,
       "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a5816b6394100f37a1c697975547"
       "80bb38cc5a99f5ede4cf73c3ec2493a1839b3dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b56"
       "2bfb19fb84022f8ef4cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc42158407dd074ee",
       "02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf73988cfc79825df566dc5430b9a045"
       "a1200130100002e00330024001d00209d3c940d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9"
       "da1a002b00020304"},
      {kQuicVersion2,
       "dc6b3343cf0008f067a5502a4262b5004075d92faaf16f05d8a4398c47089698baeea26b91eb761d9b89237bbf8"
       "7263017915358230035f7fd3945d88965cf17f9af6e16886c61bfc703106fbaf3cb4cfa52382dd16a393e427575"
       "07698075b2c984c707f0a0812d8cd5a6881eaf21ceda98f4bd23f6fe1a3e2c43edd9ce7ca84bed8521e2e140",
       "02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf73988cfc79825df566dc5430b9a045"
       "a1200130100002e00330024001d00209d3c940d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9"
       "da1a002b00020304"},
      {kQuicDraft29,
       "caff00001d0008f067a5502a4262b5004074aaf2f007823a5d3a1207c86ee49132824f0465243d082d868b107a3"
       "8092bc80528664cbf9456ebf27673fb5fa5061ab573c9f001b81da028a00d52ab00b15bebaa70640e106cf2acd0"
       "43e9c6b4411c0a79637134d8993701fe779e58c2fe753d14b0564021565ea92e57bc6faf56dfc7a40870e6",
       "0d0000000018410a020000560303eefce7f7b37ba1d1632e96677825ddf73988cfc79825df566dc5430b9a045a1"
       "200130100002e00330024001d00209d3c940d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9da"
       "1a002b00020304"},
  };
  for (const auto& vector : vectors) {
    const Bytes packet = from_hex(vector.packet);
    QuicPacketReader reader(packet);
    const auto read = reader.next();
    ASSERT_TRUE(read);
    EXPECT_EQ(read->type, QuicPacketType::initial);
    EXPECT_EQ(bytes(read->scid), from_hex("f067a5502a4262b5"));
    const auto scratch = std::make_unique<QuicScratch>();
    const QuicProtection protection = quic_protection(vector.version);
    const auto opened =
        quic_open(quic_initial_keys(protection, kDcid, QuicSide::server), *read, *scratch);
    ASSERT_TRUE(opened);
    EXPECT_EQ(opened->number, 1U);
    EXPECT_EQ(bytes(opened->frames), from_hex(vector.frames));
    EXPECT_FALSE(
        quic_open(quic_initial_keys(protection, kDcid, QuicSide::client), *read, *scratch));
  }
}

TEST(QuicKeys, AByteChangedAnywhereIsRefused) {
  QuicClient client;
  const Bytes packet = client.initial(crypto_frame(0, kDcid), 40);
  const QuicKeys keys = quic_initial_keys(QuicProtection::version1, client.dcid, QuicSide::client);
  const auto scratch = std::make_unique<QuicScratch>();
  for (std::size_t i = 0; i < packet.size(); ++i) {
    Bytes changed = packet;
    changed[i] ^= 0x01;
    QuicPacketReader reader(changed);
    const auto read = reader.next();
    EXPECT_FALSE(read && quic_open(keys, *read, *scratch)) << i;
  }
}

TEST(QuicPackets, RetryAsSpecified) {
  for (const char* digits :
       {"ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba",
        "cf6b3343cf0008f067a5502a4262b5746f6b656ec8646ce8bfe33952d955543665dcc7b6",
        "ffff00001d0008f067a5502a4262b5746f6b656ed16926d81f6f9ca2953a8aa4575e1e49"}) {
    const Bytes packet = from_hex(digits);
    QuicPacketReader reader(packet);
    const auto read = reader.next();
    ASSERT_TRUE(read);
    EXPECT_EQ(read->type, QuicPacketType::retry);
    EXPECT_EQ(read->bytes.size(), packet.size());
    EXPECT_EQ(read->number_offset, 0U);
    EXPECT_FALSE(reader.next());
  }
}

TEST(QuicPackets, EachTypeOfBothVersions) {
  QuicClient client;
  const QuicPacketType first[] = {QuicPacketType::zero_rtt, QuicPacketType::handshake};
  for (unsigned bits = 1; bits <= 2; ++bits) {
    const Bytes packet = client.other(bits, 30);
    EXPECT_EQ(QuicPacketReader(packet).next()->type, first[bits - 1]);
  }
  client.version = kQuicVersion2;
  for (unsigned bits = 2; bits <= 3; ++bits) {
    const Bytes packet = client.other(bits, 30);
    EXPECT_EQ(QuicPacketReader(packet).next()->type, first[bits - 2]);
  }
}

TEST(QuicPackets, SeveralInOneDatagram) {
  QuicClient client;
  client.token = from_hex("0102030405");
  Bytes datagram = client.initial({0x01}, 20);
  put(datagram, client.other(1, 50));
  put(datagram, client.other(2, 60));
  put(datagram, Bytes{0x40, 0x01, 0x02});
  QuicPacketReader reader(datagram);
  std::size_t total = 0;
  for (const QuicPacketType type :
       {QuicPacketType::initial, QuicPacketType::zero_rtt, QuicPacketType::handshake}) {
    const auto packet = reader.next();
    ASSERT_TRUE(packet);
    EXPECT_EQ(packet->type, type);
    EXPECT_EQ(bytes(packet->dcid), client.dcid);
    EXPECT_EQ(bytes(packet->scid), client.scid);
    EXPECT_EQ(packet->token.size(), type == QuicPacketType::initial ? 5U : 0U);
    total += packet->bytes.size();
  }
  EXPECT_FALSE(reader.next());
  EXPECT_EQ(total, datagram.size() - 3);
}

TEST(QuicPackets, NegotiationAndOtherVersions) {
  const Bytes negotiation = from_hex("c000000000010108010203040506070800000001");
  QuicPacketReader reader(negotiation);
  EXPECT_EQ(reader.next()->type, QuicPacketType::version_negotiation);
  EXPECT_FALSE(reader.next());
  const Bytes other = from_hex("ca513035300108050102ffff");
  const auto packet = QuicPacketReader(other).next();
  EXPECT_FALSE(packet) << "the second id ends behind the packet";
  const Bytes google = from_hex("ca513035300108020102ff");
  EXPECT_EQ(QuicPacketReader(google).next()->type, QuicPacketType::other);
  EXPECT_EQ(QuicPacketReader(google).next()->version, 0x51303530U);
}

TEST(QuicPackets, CutShortAnywhere) {
  QuicClient client;
  client.token = from_hex("0102");
  const Bytes packet = client.initial({0x01}, 30);
  for (std::size_t size = 0; size < packet.size(); ++size)
    EXPECT_FALSE(QuicPacketReader(std::span(packet).first(size)).next()) << size;
  EXPECT_FALSE(QuicPacketReader(client.other(1, 0)).next()) << "without a packet number";
  Bytes long_id = packet;
  long_id[5] = 21;
  long_id.insert(long_id.begin() + 6, 13, 0);
  EXPECT_FALSE(QuicPacketReader(long_id).next());
}

TEST(QuicPackets, IntegersOfEachSize) {
  // RFC 9000, appendix A.1.
  for (const auto& [digits, value] : std::initializer_list<std::pair<const char*, std::uint64_t>>{
           {"c2197c5eff14e88c", 151288809941952652U},
           {"9d7f3e7d", 494878333U},
           {"7bbd", 15293U},
           {"25", 37U}}) {
    const Bytes bytes_of = from_hex(digits);
    ByteReader reader(bytes_of);
    EXPECT_EQ(quic_varint(reader), value);
    EXPECT_TRUE(reader.done());
    Bytes made;
    quic_put_varint(made, value);
    EXPECT_EQ(made, bytes_of);
  }
}

}  // namespace
}  // namespace l7mark
