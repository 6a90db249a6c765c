// SPDX-License-Identifier: GPL-2.0-only
#include "dpi/engine.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "dpi/own_risks.hpp"
#include "packets.hpp"
#include "policy/catalog.hpp"

namespace l7mark {
namespace {

using namespace test;

class EngineTest : public testing::Test {
 protected:
  EngineTest() : engine_(std::move(*Engine::make())) {}

  Detection feed(EngineFlow& flow, const Bytes& packet) {
    return engine_.process(flow, packet.data(), packet.size(), time_ms_++);
  }

  Engine engine_;
  std::uint64_t time_ms_ = 1;
};

TEST_F(EngineTest, TlsByServerName) {
  EngineFlow flow = engine_.new_flow();
  const Endpoints ends;
  feed(flow, tcp(ends, L7M_TCP_SYN, 100, 0));
  const Detection detection =
      feed(flow, tcp(ends, L7M_TCP_ACK, 101, 1, client_hello("us04web.zoom.us")));
  EXPECT_TRUE(detection.known());
  EXPECT_EQ(engine_.name(detection), "TLS.Zoom");
  EXPECT_TRUE(engine_.wants_more(flow));
  EXPECT_FALSE(engine_.is_guess(flow));
  FlowFacts facts;
  engine_.describe(flow, detection, facts);
  EXPECT_EQ(facts.confidence, Confidence::dpi);
  EXPECT_EQ(facts.hostname, "us04web.zoom.us");
  EXPECT_EQ(facts.details.alpn, "h2");
  EXPECT_TRUE(facts.details.ja3_client.size() == 32 || !facts.details.ja4_client.empty());
  EXPECT_EQ(engine_.application_name(facts.application), "Zoom");
  EXPECT_EQ(engine_.application_name(facts.master), "TLS");
}

TEST_F(EngineTest, GuessByPortIsToldApart) {
  EngineFlow flow = engine_.new_flow();
  feed(flow, tcp({}, L7M_TCP_SYN, 100, 0));
  const Detection detection = engine_.give_up(flow);
  EXPECT_EQ(engine_.name(detection), "TLS");
  EXPECT_TRUE(engine_.is_guess(flow));
  FlowFacts facts;
  engine_.describe(flow, detection, facts);
  EXPECT_EQ(facts.application, facts.master);
  EXPECT_EQ(facts.confidence, Confidence::port);
  EXPECT_TRUE(facts.hostname.empty());
}

TEST_F(EngineTest, AWeakServerIsARisk) {
  EngineFlow flow = engine_.new_flow();
  const Endpoints ends;
  const Endpoints back = ends.reversed();
  feed(flow, tcp(ends, L7M_TCP_SYN, 100, 0));
  Bytes offer = client_hello("example.org");
  offer[9] = 0x03;
  offer[10] = 0x01;
  feed(flow, tcp(ends, L7M_TCP_ACK, 101, 501, offer));
  // ServerHello of TLS 1.0 that takes TLS_RSA_WITH_AES_128_CBC_SHA.
  Bytes hello{0x16, 0x03, 0x01, 0x00, 0x2c, 0x02, 0x00, 0x00, 0x28, 0x03, 0x01};
  hello.insert(hello.end(), 32, 0x33);
  put(hello, Bytes{0x00, 0x00, 0x2f, 0x00, 0x00, 0x00});
  const Detection detection = feed(flow, tcp(back, L7M_TCP_ACK, 501, 300, hello));
  FlowFacts facts;
  engine_.describe(flow, detection, facts);
  EXPECT_EQ(facts.details.tls_version, 0x0301);
  EXPECT_EQ(facts.details.tls_cipher_id, 0x002f);
  std::string names;
  for (const RiskName& risk : engine_.risks())
    if ((facts.risks >> risk.id & 1) != 0) names += risk.name + ";";
  EXPECT_NE(names.find("Obsolete TLS"), std::string::npos) << names;
  EXPECT_NE(names.find("Weak TLS Cipher"), std::string::npos) << names;
  EXPECT_EQ(facts.details.tls_cipher, "TLS_RSA_WITH_AES_128_CBC_SHA");
  EXPECT_GT(facts.risk_score, 0U);
}

TEST_F(EngineTest, NoAnswerHasNoConfidence) {
  EngineFlow flow = engine_.new_flow();
  Endpoints ends;
  ends.dport = 40001;
  feed(flow, tcp(ends, L7M_TCP_SYN, 100, 0));
  const Detection detection = engine_.give_up(flow);
  FlowFacts facts;
  facts.confidence = Confidence::dpi;
  engine_.describe(flow, detection, facts);
  EXPECT_FALSE(facts.answered()) << engine_.name(detection);
  EXPECT_EQ(facts.confidence, Confidence::none);
}

TEST_F(EngineTest, OwnRisksAreNamedAndScoredAsNdpisAre) {
  Catalog catalog;
  engine_.fill(catalog);
  EXPECT_EQ(catalog.risk("conflicting tcp segments"), kConflictingSegments.bit);
  EXPECT_EQ(catalog.risk_severity(62), RiskSeverity::high);
  EXPECT_EQ(catalog.risk(kFullyEncrypted.name), Engine::fully_encrypted_risk());
  EXPECT_EQ(engine_.risk_name(kConflictingSegments.bit), "Conflicting TCP segments");

  // nDPI gives 100 to a high risk and 50 to a medium one, in all of its versions.
  EngineFlow flow = engine_.new_flow();
  FlowFacts facts;
  engine_.describe(flow, Detection{}, facts);
  EXPECT_EQ(facts.risk_score, 0U);
  engine_.add_risk(facts, kConflictingSegments.bit);
  EXPECT_EQ(facts.risks, std::uint64_t{1} << 62);
  EXPECT_EQ(facts.risk_score, 100U);
  engine_.add_risk(facts, kConflictingSegments.bit);
  EXPECT_EQ(facts.risk_score, 100U) << "the same risk counts once";
  engine_.add_risk(facts, Engine::fully_encrypted_risk());
  EXPECT_EQ(facts.risk_score, 150U);
}

TEST_F(EngineTest, HttpHostAndAgent) {
  EngineFlow flow = engine_.new_flow();
  Endpoints ends;
  ends.dport = 80;
  feed(flow, tcp(ends, L7M_TCP_SYN, 100, 0));
  const Detection detection =
      feed(flow, tcp(ends, L7M_TCP_ACK, 101, 1,
                     text("GET /a HTTP/1.1\r\nHost: Example.org\r\nUser-Agent: test/1.0\r\n\r\n")));
  EXPECT_EQ(engine_.name(detection), "HTTP");
  FlowFacts facts;
  engine_.describe(flow, detection, facts);
  EXPECT_EQ(facts.hostname, "example.org");
  EXPECT_EQ(facts.details.user_agent, "test/1.0");
}

TEST_F(EngineTest, InjectionsInUrlsAreRisks) {
  const std::pair<const char*, const char*> cases[] = {
      {"/item?id=1%27%20or%20%271%27=%271", "SQL Injection"},
      {"/item?name=%3Cscript%3Ealert(1)%3C/script%3E", "XSS Attack"},
      {"/item?id=17", nullptr}};
  for (const auto& [url, risk] : cases) {
    EngineFlow flow = engine_.new_flow();
    Endpoints ends;
    ends.dport = 80;
    feed(flow, tcp(ends, L7M_TCP_SYN, 100, 0));
    const std::string request =
        std::string("GET ") + url +
        " HTTP/1.1\r\nHost: example.org\r\nUser-Agent: Mozilla/5.0 (X11; Linux "
        "x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\r\n";
    const Detection detection = feed(flow, tcp(ends, L7M_TCP_ACK, 101, 1, text(request)));
    FlowFacts facts;
    engine_.describe(flow, detection, facts);
    std::string names;
    for (const RiskName& each : engine_.risks())
      if ((facts.risks >> each.id & 1) != 0) names += each.name + ";";
    if (risk == nullptr) {
      EXPECT_EQ(names, "");
      EXPECT_EQ(facts.risk_score, 0U);
    } else {
      EXPECT_NE(names.find(risk), std::string::npos) << url << ": " << names;
      EXPECT_GT(facts.risk_score, 0U);
    }
  }
}

// nDPI is not given the other side's SYN-ACK, but it was counted.
TEST_F(EngineTest, AFlowWithPacketsBothWaysIsNotUnidirectional) {
  std::uint64_t one_way = 0;
  for (const RiskName& risk : engine_.risks())
    if (risk.name == "Unidirectional Traffic") one_way = std::uint64_t{1} << risk.id;
  if (one_way == 0) GTEST_SKIP() << "this nDPI has no such risk";
  EngineFlow flow = engine_.new_flow();
  const Endpoints ends;
  feed(flow, tcp(ends, L7M_TCP_SYN, 100, 0));
  feed(flow, tcp(ends, L7M_TCP_ACK, 101, 1, client_hello("example.org")));
  const Detection detection = engine_.give_up(flow);
  FlowFacts facts;
  engine_.describe(flow, detection, facts, true);
  EXPECT_EQ(facts.risks & one_way, 0U);
}

TEST_F(EngineTest, TheHashIsBitTorrentsOwn) {
  Endpoints ends;
  ends.dport = 6881;
  EngineFlow peer = engine_.new_flow();
  feed(peer, tcp(ends, L7M_TCP_SYN, 100, 0));
  Bytes handshake = text(
      "\x13"
      "BitTorrent protocol");
  handshake.resize(28);
  handshake.insert(handshake.end(), 20, 0xa5);
  handshake.insert(handshake.end(), 20, 0x31);
  Detection detection = feed(peer, tcp(ends, L7M_TCP_ACK, 101, 1, handshake));
  EXPECT_EQ(engine_.name(detection), "BitTorrent");
  FlowFacts facts;
  engine_.describe(peer, detection, facts);
  EXPECT_EQ(facts.details.bittorrent_hash, "a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5");

  // nDPI keeps what DNS tells in the same place.
  ends.dport = 53;
  EngineFlow query = engine_.new_flow();
  detection = feed(query, udp(ends, dns_query(1, "torrent.example.org", 1)));
  if (engine_.application_name(detection.application) != "BitTorrent")
    GTEST_SKIP() << "this nDPI gives DNS no application";
  facts = {};
  engine_.describe(query, detection, facts);
  EXPECT_EQ(facts.hostname, "torrent.example.org");
  EXPECT_EQ(facts.details.bittorrent_hash, "");
}

TEST_F(EngineTest, NamesGoIntoTheCatalog) {
  Catalog catalog;
  engine_.fill(catalog);
  const auto zoom = catalog.application("zoom");
  ASSERT_TRUE(zoom);
  EXPECT_EQ(catalog.application_name(*zoom), "Zoom");
  EXPECT_FALSE(catalog.category_name(catalog.application_category(*zoom)).empty());
  EXPECT_TRUE(catalog.category("VPN"));
  EXPECT_GT(catalog.risk_names().size(), 20U);
}

TEST_F(EngineTest, HostNames) {
  EXPECT_EQ(engine_.application_name(engine_.match_host("us04web.ZOOM.us")), "Zoom");
  EXPECT_EQ(engine_.match_host("host.invalid"), 0);
  EXPECT_EQ(engine_.match_host(""), 0);
  EXPECT_EQ(engine_.match_host(std::string(1000, 'a')), 0);
}

TEST_F(EngineTest, CustomProtocols) {
  char name[] = "/tmp/l7mark-protocols-XXXXXX";
  ::close(mkstemp(name));
  std::ofstream(name) << "host:\"intranet.example\"@Intranet\n";
  auto engine = Engine::make({name});
  ::unlink(name);
  ASSERT_TRUE(engine.ok());
  EXPECT_EQ(engine->application_name(engine->match_host("www.intranet.example")), "Intranet");
  EXPECT_FALSE(Engine::make({"/nonexistent"}).ok());
}

TEST_F(EngineTest, AMovedFlowIsFreedOnce) {
  EngineFlow flow = engine_.new_flow();
  feed(flow, tcp({}, L7M_TCP_ACK, 101, 1, client_hello("example.org")));
  EngineFlow moved = std::move(flow);
  EXPECT_TRUE(moved);
  moved = EngineFlow();
  EXPECT_FALSE(moved);
}

}  // namespace
}  // namespace l7mark
