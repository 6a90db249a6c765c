// SPDX-License-Identifier: GPL-2.0-only
// ServerHellos in QUIC: the examples of the specifications, and one that is split.
#include <gtest/gtest.h>

#include "handshake/quic_server_hello.hpp"
#include "quic_packets.hpp"

namespace l7mark {
namespace {

using namespace test;

const Bytes kClientDcid = from_hex("8394c8f03e515708");

Bytes server_initial(std::uint32_t version, std::uint32_t number, Bytes frames) {
  const Bytes scid = from_hex("f067a5502a4262b5");
  return quic_seal(quic_initial_keys(quic_protection(version), kClientDcid, QuicSide::server),
                   {version, {}, scid, {}, number, 1}, frames);
}

TEST(QuicServerHello, AsSpecified) {
  for (
      const char* digits :
      {"cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a5816b6394100f37a1c697975547"
       "80bb38cc5a99f5ede4cf73c3ec2493a1839b3dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b56"
       "2bfb19fb84022f8ef4cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc42158407dd074ee",
       "dc6b3343cf0008f067a5502a4262b5004075d92faaf16f05d8a4398c47089698baeea26b91eb761d9b89237bbf8"
       "7263017915358230035f7fd3945d88965cf17f9af6e16886c61bfc703106fbaf3cb4cfa52382dd16a393e427575"
       "07698075b2c984c707f0a0812d8cd5a6881eaf21ceda98f4bd23f6fe1a3e2c43edd9ce7ca84bed8521e2e14"
       "0"}) {
    const Bytes datagram = from_hex(digits);
    QuicServerHello hello;
    EXPECT_FALSE(hello.add(datagram, from_hex("8394c8f03e515709"))) << "another connection's id";
    EXPECT_TRUE(hello.add(datagram, kClientDcid));
    ASSERT_EQ(hello.message().size(), 90U);
    // The version field, then a random, an empty session id, and TLS_AES_128_GCM_SHA256.
    EXPECT_EQ(hello.message()[39], 0x13);
    EXPECT_EQ(hello.message()[40], 0x01);
  }
}

TEST(QuicServerHello, OverTwoPacketsInAnyOrder) {
  Bytes message{0x02, 0x00, 0x04, 0xb0};
  message.insert(message.end(), 1200, 0x77);
  const Bytes first = server_initial(kQuicVersion1, 0, crypto_part(message, 0, 1000));
  const Bytes second = server_initial(kQuicVersion1, 1, crypto_part(message, 1000, 1204));
  QuicServerHello hello;
  EXPECT_FALSE(hello.add(second, kClientDcid));
  EXPECT_TRUE(hello.message().empty());
  EXPECT_TRUE(hello.add(first, kClientDcid));
  EXPECT_EQ(Bytes(hello.message().begin(), hello.message().end()), message);
  Bytes merged = first;
  put(merged, second);
  QuicServerHello at_once;
  EXPECT_TRUE(at_once.add(merged, kClientDcid));
}

TEST(QuicServerHello, GivesUp) {
  Bytes message{0x02, 0x00, 0x00, 0x04, 0x01, 0x02, 0x03, 0x04};
  const Bytes good = server_initial(kQuicVersion1, 0, crypto_frame(0, message));
  Bytes forged = good;
  forged.back() ^= 0x01;
  QuicServerHello hello;
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(hello.add(forged, kClientDcid));
  EXPECT_FALSE(hello.add(good, kClientDcid));
  message[0] = 0x01;
  QuicServerHello of_a_client;
  EXPECT_FALSE(
      of_a_client.add(server_initial(kQuicVersion1, 0, crypto_frame(0, message)), kClientDcid));
  QuicServerHello endless;
  EXPECT_FALSE(
      endless.add(server_initial(kQuicVersion1, 0, crypto_frame((std::size_t{1} << 61), message)),
                  kClientDcid));
}

}  // namespace
}  // namespace l7mark
