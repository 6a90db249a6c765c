// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/flow_table.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>

namespace l7mark {

namespace {

bool is_empty(const FlowDetails& d) {
  return d.alpn.empty() && d.ja3_client.empty() && d.ja3_server.empty() && d.ja4_client.empty() &&
         d.tls_cipher.empty() && d.tls_subject.empty() && d.tls_issuer.empty() &&
         d.user_agent.empty() && d.http_url.empty() && d.dns_query.empty() &&
         d.bittorrent_hash.empty() && d.tls_version == 0 && d.tls_cipher_id == 0 &&
         d.tls_not_before == 0 && d.tls_not_after == 0;
}

}  // namespace

l7m_counters Flow::total() const {
  l7m_counters out = base;
  for (int i = 0; i < 2; ++i) {
    out.packets[i] += count.packets[i];
    out.bytes[i] += count.bytes[i];
  }
  return out;
}

std::uint64_t Flow::packets() const {
  return base.packets[0] + base.packets[1] + count.packets[0] + count.packets[1];
}

std::uint64_t Flow::bytes() const {
  return base.bytes[0] + base.bytes[1] + count.bytes[0] + count.bytes[1];
}

Flow* FlowTable::find(const FlowKey& key) {
  const auto found = flows_.find(key);
  return found == flows_.end() ? nullptr : &found->second;
}

Flow& FlowTable::at(const FlowKey& key) {
  const auto [place, fresh] = flows_.try_emplace(key);
  if (fresh) place->second.id = next_id_++;
  return place->second;
}

const std::string* FlowTable::intern(const std::string& name) {
  return &*names_.insert(name).first;
}

void FlowTable::reserve_id(std::uint64_t id) {
  next_id_ = std::max(next_id_, id + 1);
}

void update_flow(Flow& flow, const FlowKey& key, const Answer& answer, FlowTable& table) {
  const FlowFacts& facts = answer.facts;
  if (flow.first_ns == 0) flow.first_ns = answer.first_ns;
  flow.last_ms = std::max(flow.last_ms, answer.last_ns / 1'000'000);
  if (!flow.decided) flow.base = answer.count;
  flow.risks = facts.risks;
  flow.risk_score = facts.risk_score;
  flow.hostname = facts.hostname;
  flow.details = is_empty(facts.details) ? nullptr : std::make_unique<FlowDetails>(facts.details);
  flow.name = table.intern(answer.name);
  flow.sampled_bytes = answer.sampled_bytes;
  flow.sampled_packets = answer.sampled_packets;
  flow.candidate_id = answer.id;
  flow.ifindex = facts.ifindex;
  flow.application = facts.application;
  flow.master = facts.master;
  flow.category = facts.category;
  flow.confidence = facts.confidence;
  flow.vlan = facts.vlan;
  std::copy(std::begin(facts.client_mac), std::end(facts.client_mac), flow.client_mac);
  flow.initiator = answer.initiator;
  flow.client = facts.client == key.address(0) && facts.client_port == key.port(0) ? 0 : 1;
  flow.state = answer.state;
  flow.midstream = facts.midstream;
}

FlowFacts facts_of(const FlowKey& key, const Flow& flow) {
  FlowFacts facts;
  const int server = flow.client ^ 1;
  facts.client = key.address(flow.client);
  facts.client_port = key.port(flow.client);
  facts.server = key.address(server);
  facts.server_port = key.port(server);
  facts.protocol = key.raw.protocol;
  facts.midstream = flow.midstream;
  facts.application = flow.application;
  facts.master = flow.master;
  facts.category = flow.category;
  facts.confidence = flow.confidence;
  facts.risks = flow.risks;
  facts.risk_score = flow.risk_score;
  facts.hostname = flow.hostname;
  if (flow.details) facts.details = *flow.details;
  facts.ifindex = flow.ifindex;
  facts.vlan = flow.vlan;
  std::copy(std::begin(flow.client_mac), std::end(flow.client_mac), facts.client_mac);
  return facts;
}

Answer answer_of(const FlowKey& key, const Flow& flow) {
  Answer answer;
  answer.key = key;
  answer.id = flow.candidate_id;
  answer.initiator = flow.initiator;
  answer.state = flow.state;
  answer.closed = (flow.flags & L7M_FLOW_CLOSED) != 0;
  answer.facts = facts_of(key, flow);
  answer.sampled_packets = flow.sampled_packets;
  answer.sampled_bytes = flow.sampled_bytes;
  answer.count = flow.total();
  answer.first_ns = flow.first_ns;
  answer.last_ns = flow.last_ms * 1'000'000;
  if (flow.name != nullptr) answer.name = *flow.name;
  return answer;
}

}  // namespace l7mark
