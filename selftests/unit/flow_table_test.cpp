// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/flow_table.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "dpi/flow_pool.hpp"

namespace l7mark {
namespace {

FlowKey key_of(std::uint32_t number, bool v6) {
  FlowKey out;
  if (v6) {
    out.raw.addr[0][0] = L7M_BE32(0x20010db8U);
    out.raw.addr[0][3] = number;
    out.raw.addr[1][0] = L7M_BE32(0x20010db9U);
  } else {
    l7m_key4 key{};
    key.addr[0] = number;
    key.addr[1] = L7M_BE32(0xc6336414U);
    key.protocol = 6;
    l7m_key_from_v4(&key, &out.raw);
  }
  out.raw.protocol = 6;
  return out;
}

Answer answer_with(const FlowKey& key, const std::string& hostname) {
  Answer answer;
  answer.key = key;
  answer.id = 7;
  answer.initiator = 1;
  answer.state = FlowState::final;
  answer.name = "TLS.Zoom";
  answer.first_ns = 5'000'000;
  answer.last_ns = 9'000'000;
  answer.sampled_packets = 5;
  answer.sampled_bytes = 2500;
  answer.count = {{3, 2}, {300, 2000}};
  FlowFacts& facts = answer.facts;
  facts.client = key.address(1);
  facts.server = key.address(0);
  facts.client_port = key.port(1);
  facts.server_port = key.port(0);
  facts.protocol = key.raw.protocol;
  facts.application = 189;
  facts.master = 91;
  facts.category = 26;
  facts.confidence = Confidence::detector;
  facts.risks = 1ULL << 40 | 2;
  facts.risk_score = 60;
  facts.hostname = hostname;
  facts.details.alpn = "h2";
  facts.details.ja3_client = std::string(32, 'a');
  facts.details.tls_subject = "CN=example.org";
  facts.details.tls_version = 0x0303;
  facts.details.tls_not_after = 1'800'000'000;
  facts.details.ech = true;
  return answer;
}

TEST(FlowTable, FindsWhatWasMadeAndNotWhatWasErased) {
  constexpr std::uint32_t count = 5000;  // the buckets grow several times
  FlowTable table;
  std::unordered_map<std::uint32_t, const Flow*> places;
  for (std::uint32_t i = 0; i < count; ++i) {
    Flow& flow = table.at(key_of(i, i % 2 == 0));
    flow.action = i;
    places[i] = &flow;
  }
  EXPECT_EQ(table.size(), count);
  for (std::uint32_t i = 0; i < count; i += 3) table.erase(key_of(i, i % 2 == 0));
  for (std::uint32_t i = 0; i < count; ++i) {
    const Flow* flow = table.find(key_of(i, i % 2 == 0));
    if (i % 3 == 0) {
      EXPECT_EQ(flow, nullptr) << i;
    } else {
      ASSERT_NE(flow, nullptr) << i;
      EXPECT_EQ(flow->action, i);
      EXPECT_EQ(flow, places[i]) << "it has moved";
    }
    EXPECT_EQ(table.find(key_of(i, i % 2 != 0)), nullptr) << "of the other family";
  }
  std::unordered_set<std::uint32_t> seen;
  table.for_each([&](const FlowKey& key, const Flow& flow) {
    EXPECT_EQ(key, key_of(flow.action, flow.action % 2 == 0));
    seen.insert(flow.action);
  });
  EXPECT_EQ(seen.size(), table.size());
}

TEST(FlowTable, LosesNothingAsFlowsComeAndGo) {
  FlowTable table;
  std::unordered_set<std::uint32_t> there;
  std::mt19937 random(1);
  for (int i = 0; i < 100'000; ++i) {
    const auto number = static_cast<std::uint32_t>(random() % 2000);
    const FlowKey key = key_of(number, false);
    if (there.erase(number) > 0) {
      table.erase(key);
      ASSERT_EQ(table.find(key), nullptr);
    } else {
      table.at(key).action = number;
      there.insert(number);
    }
    const auto other = static_cast<std::uint32_t>(random() % 2000);
    const Flow* flow = table.find(key_of(other, false));
    ASSERT_EQ(flow != nullptr, there.contains(other)) << i;
    if (flow != nullptr) {
      ASSERT_EQ(flow->action, other);
    }
  }
  ASSERT_EQ(table.size(), there.size());
}

TEST(FlowTable, GivesAPlaceOnAsNew) {
  FlowTable table;
  const FlowKey key = key_of(1, false);
  Flow& first = table.at(key);
  update_flow(first, key, answer_with(key, "zoom.us"), table);
  first.entries = std::make_unique<std::vector<EntryId>>();
  EXPECT_EQ(first.id, 7U);
  table.erase(key);
  Flow& second = table.at(key_of(2, false));
  EXPECT_EQ(second.id, 0U) << "its life is not known yet";
  EXPECT_EQ(second.finding, nullptr);
  EXPECT_EQ(second.entries, nullptr);
  EXPECT_EQ(second.packets(), 0U);
  EXPECT_EQ(second.state, FlowState::undecided);
}

TEST(FlowTable, TellsAgainWhatTheAnswerSaid) {
  for (const bool v6 : {false, true}) {
    FlowTable table;
    const FlowKey key = key_of(1, v6);
    const Answer answer = answer_with(key, "us04web.zoom.us");
    Flow& flow = table.at(key);
    update_flow(flow, key, answer, table);
    const Answer again = answer_of(key, flow);
    EXPECT_EQ(again.name, "TLS.Zoom");
    EXPECT_EQ(again.id, answer.id);
    EXPECT_EQ(again.state, FlowState::final);
    EXPECT_EQ(again.initiator, 1);
    EXPECT_EQ(again.first_ns, answer.first_ns);
    EXPECT_EQ(again.last_ns, answer.last_ns);
    EXPECT_EQ(again.sampled_packets, 5U);
    EXPECT_EQ(again.sampled_bytes, 2500U);
    EXPECT_EQ(again.count.bytes[1], 2000U);
    EXPECT_EQ(again.facts.client, answer.facts.client);
    EXPECT_EQ(again.facts.application, 189);
    EXPECT_EQ(again.facts.master, 91);
    EXPECT_EQ(again.facts.category, 26);
    EXPECT_EQ(again.facts.confidence, Confidence::detector);
    EXPECT_EQ(again.facts.risks, answer.facts.risks);
    EXPECT_EQ(again.facts.risk_score, 60U);
    EXPECT_EQ(again.facts.hostname, "us04web.zoom.us");
    EXPECT_EQ(again.facts.details.alpn, "h2");
    EXPECT_EQ(again.facts.details.ja3_client, answer.facts.details.ja3_client);
    EXPECT_EQ(again.facts.details.ja3_server, "");
    EXPECT_EQ(again.facts.details.tls_subject, "CN=example.org");
    EXPECT_EQ(again.facts.details.tls_version, 0x0303);
    EXPECT_EQ(again.facts.details.tls_not_before, 0);
    EXPECT_EQ(again.facts.details.tls_not_after, 1'800'000'000);
    EXPECT_TRUE(again.facts.details.ech);
  }
}

// A second look that finds less takes nothing away.
TEST(FlowTable, KeepsItsOwnAnswer) {
  FlowTable table;
  const FlowKey key = key_of(1, false);
  Flow& flow = table.at(key);
  update_flow(flow, key, answer_with(key, "us04web.zoom.us"), table);
  Answer less = answer_with(key, "");
  less.state = FlowState::guessed;
  less.sampled_packets = 9;
  for (const Confidence confidence :
       {Confidence::none, Confidence::port, Confidence::address, Confidence::cache}) {
    less.facts.confidence = confidence;
    less.facts.application = less.facts.master = confidence == Confidence::none ? 0 : 5;
    less.name = "Other";
    update_flow(flow, key, less, table);
    EXPECT_EQ(*flow.found().name, "TLS.Zoom");
    EXPECT_EQ(flow.found().confidence, Confidence::detector);
    EXPECT_EQ(flow.state, FlowState::final);
    EXPECT_EQ(flow.sampled_packets, 9);
  }
  Answer other = answer_with(key, "example.org");
  other.facts.confidence = Confidence::dpi;
  other.name = "TLS";
  update_flow(flow, key, other, table);
  EXPECT_EQ(*flow.found().name, "TLS");

  const Finding* held = nullptr;
  table.share_finding(held, flow.finding);
  table.erase(key);
  EXPECT_EQ(held->hostname(), "example.org");
  table.share_finding(held, nullptr);
  EXPECT_EQ(held, nullptr);
}

TEST(FlowTable, CountsBeforeAndSinceTheVerdict) {
  Flow flow;
  flow.set_since({{3, 1}, {400, 60}});
  flow.keep_count();
  EXPECT_EQ(flow.packets(), 4U);
  EXPECT_EQ(flow.bytes(), 460U);
  flow.set_since({{10, 20}, {1ULL << 40, 5}});
  EXPECT_EQ(flow.total.packets[0], 13U);
  EXPECT_EQ(flow.total.packets[1], 21U);
  EXPECT_EQ(flow.total.bytes[0], (1ULL << 40) + 400);
  EXPECT_EQ(flow.total.bytes[1], 65U);
  flow.set_since({{11, 20}, {1ULL << 41, 5}});
  EXPECT_EQ(flow.total.packets[0], 14U);
  EXPECT_EQ(flow.total.bytes[0], (1ULL << 41) + 400);
  EXPECT_EQ(flow.since().packets[0], 11U);
  EXPECT_EQ(flow.since().bytes[0], 1ULL << 41);
}

TEST(FindingTable, KeepsEqualOnesOnceAndAsLongAsOneIsUsed) {
  FindingTable table;
  const auto make = [](const std::string& host) {
    FlowFacts facts;
    facts.hostname = host;
    Finding out;
    out.application = 5;
    out.texts = pack_texts(facts);
    return out;
  };
  const Finding* first = table.share(make("a.example"));
  const Finding* same = table.share(make("a.example"));
  const Finding* other = table.share(make("b.example"));
  EXPECT_EQ(first, same);
  EXPECT_NE(first, other);
  EXPECT_EQ(table.size(), 2U);
  table.release(first);
  EXPECT_EQ(table.size(), 2U);
  EXPECT_EQ(same->hostname(), "a.example");
  table.release(same);
  EXPECT_EQ(table.size(), 1U);
  EXPECT_EQ(other->hostname(), "b.example");
  table.release(other);
  EXPECT_EQ(table.size(), 0U);
}

TEST(FindingTable, TellsTheDetector) {
  FindingTable table;
  Finding named;
  named.application = 1;
  named.detector = Detector::openvpn;
  Finding by_ndpi = named;
  by_ndpi.detector = Detector::none;
  const Finding* first = table.share(std::move(named));
  const Finding* second = table.share(std::move(by_ndpi));
  EXPECT_NE(first, second);
  FlowFacts facts;
  first->tell(facts);
  EXPECT_EQ(facts.detector, Detector::openvpn);
  second->tell(facts);
  EXPECT_EQ(facts.detector, Detector::none);
  table.release(first);
  table.release(second);
}

TEST(FindingTable, PacksNothingIntoNothing) {
  EXPECT_TRUE(pack_texts(FlowFacts{}).empty());
}

struct Element : PoolLinks<Element> {
  FlowKey key;
  int value = 0;
  void reset() { value = 0; }
};

TEST(FlowPool, FindsErasesAndTakesAgain) {
  FlowPool<Element> pool;
  for (std::uint32_t i = 0; i < 3000; ++i) pool.insert(key_of(i, true)).value = static_cast<int>(i);
  for (std::uint32_t i = 0; i < 3000; i += 2) pool.erase(*pool.find(key_of(i, true)));
  EXPECT_EQ(pool.size(), 1500U);
  EXPECT_EQ(pool.find(key_of(10, true)), nullptr);
  ASSERT_NE(pool.find(key_of(11, true)), nullptr);
  EXPECT_EQ(pool.find(key_of(11, true))->value, 11);
  EXPECT_EQ(pool.insert(key_of(10, true)).value, 0) << "an erased element comes back as new";
}

TEST(FlowPool, GivesMemoryBackOnlyWhenEmpty) {
  FlowPool<Element> pool;
  EXPECT_FALSE(pool.release(1)) << "there was none";
  Element& element = pool.insert(key_of(1, true));
  EXPECT_FALSE(pool.release(1));
  pool.erase(element);
  EXPECT_FALSE(pool.release(2)) << "not worth it";
  EXPECT_TRUE(pool.release(1));
  EXPECT_EQ(pool.find(key_of(1, true)), nullptr);
  EXPECT_EQ(pool.insert(key_of(1, true)).value, 0);
  EXPECT_NE(pool.find(key_of(1, true)), nullptr);
}

TEST(PoolQueue, KeepsTheOrder) {
  Element a, b, c;
  PoolQueue<Element> queue;
  EXPECT_TRUE(queue.empty());
  for (Element* element : {&a, &b, &c}) queue.push_back(*element);
  EXPECT_EQ(&queue.front(), &a);
  queue.remove(b);
  queue.remove(a);
  queue.push_back(a);
  EXPECT_EQ(queue.size(), 2U);
  EXPECT_EQ(&queue.front(), &c);
  queue.remove(c);
  EXPECT_EQ(&queue.front(), &a);
  queue.remove(a);
  EXPECT_TRUE(queue.empty());
}

}  // namespace
}  // namespace l7mark
