// SPDX-License-Identifier: GPL-2.0-only
// nDPI reads the packet that QuicHello seals: it has the names of a hello in one packet, although
// it may not read the client's own packets.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>

#include "dpi/engine.hpp"
#include "handshake/quic_hello.hpp"
#include "quic_packets.hpp"

namespace l7mark {
namespace {

using namespace test;

struct Answer {
  std::string name;
  FlowFacts facts;
};

Answer answer_to(Engine& engine, const Bytes& datagram) {
  EngineFlow flow = engine.new_flow();
  const Bytes packet = udp({}, datagram);
  const Detection detection = engine.process(flow, packet.data(), packet.size(), 1);
  Answer answer{engine.name(detection), {}};
  engine.describe(flow, detection, answer.facts);
  return answer;
}

TEST(QuicHelloNdpi, NamesTheSealedPacket) {
  Engine engine = std::move(*Engine::make());
  for (const std::uint32_t version : {kQuicVersion1, kQuicVersion2, kQuicDraft29}) {
    for (const std::size_t size : {300U, 1200U, 2000U, 4000U, 16384U}) {
      QuicClient client;
      client.version = version;
      const Bytes message = quic_client_hello("us04web.zoom.us", size);
      QuicHello hello;
      // The second half comes first, which no nDPI of today reads in one packet.
      std::vector<Bytes> datagrams = client.initials(message, size / 1000 + 2);
      std::rotate(datagrams.begin(), datagrams.begin() + 1, datagrams.end());
      for (const Bytes& datagram : datagrams) hello.add(datagram);
      ASSERT_EQ(hello.state(), QuicHelloState::complete);
      const Answer answer = answer_to(engine, hello.sealed_initial());
      EXPECT_EQ(answer.name, "QUIC.Zoom") << std::hex << version << std::dec << ' ' << size;
      EXPECT_EQ(answer.facts.hostname, "us04web.zoom.us");
      EXPECT_EQ(answer.facts.details.alpn, "h3");
      EXPECT_TRUE(answer.facts.details.ja3_client.size() == 32 ||
                  !answer.facts.details.ja4_client.empty());
    }
  }
}

}  // namespace
}  // namespace l7mark
