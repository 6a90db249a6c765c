// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/flow_table.hpp"

#include <l7mark/handshake_time.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>

#include "dpi/engine.hpp"
#include "dpi/own_risks.hpp"

namespace l7mark {

namespace {

constexpr std::size_t kCacheLine = 64;

bool same(const l7m_key4& a, const l7m_key4& b) {
  return std::memcmp(&a, &b, sizeof(a)) == 0;
}
bool same(const FlowKey& a, const FlowKey& b) {
  return a == b;
}

// Strangers choose the keys.
template <class Key>
std::uint32_t hash_of(const Key& key) {
  return static_cast<std::uint32_t>(keyed_hash_of(key));
}

l7m_key4 short_key(const FlowKey& key) {
  l7m_key4 out;
  l7m_key_to_v4(&key.raw, &out);
  return out;
}
bool is_v4(const FlowKey& key) {
  return l7m_key_is_v4(&key.raw) != 0;
}

}  // namespace

// --- a flow --------------------------------------------------------------------------------------

const Finding& Flow::found() const {
  static const Finding nothing;
  return finding != nullptr ? *finding : nothing;
}

void Flow::keep_count() {
  const auto cut = [](std::uint64_t value) {
    return static_cast<std::uint32_t>(
        std::min<std::uint64_t>(value, std::numeric_limits<std::uint32_t>::max()));
  };
  for (int i = 0; i < 2; ++i) {
    before[i] = cut(total.packets[i]);
    before[2 + i] = cut(total.bytes[i]);
  }
}

void Flow::set_times(const l7m_candidate& candidate) {
  // With UDP nothing but the order tells who asked: known where the client was first.
  const bool asked = (candidate.flags & L7M_FLOW_ANSWER) == 0 && candidate.initiator == client;
  const bool answered = (candidate.flags & L7M_FLOW_ANSWER) != 0 && candidate.initiator != client;
  if (!asked && !answered) return;
  if (candidate.rtt_server_us != 0 && candidate.rtt_server_us != L7M_RTT_VOID)
    rtt_server_us = candidate.rtt_server_us;
  if (candidate.rtt_client_us != 0 && candidate.rtt_client_us != L7M_RTT_VOID)
    rtt_client_us = candidate.rtt_client_us;
}

l7m_counters Flow::since() const {
  l7m_counters out{};
  for (int i = 0; i < 2; ++i) {
    out.packets[i] = total.packets[i] - before[i];
    out.bytes[i] = total.bytes[i] - before[2 + i];
  }
  return out;
}

void Flow::set_since(const l7m_counters& count) {
  for (int i = 0; i < 2; ++i) {
    total.packets[i] = before[i] + count.packets[i];
    total.bytes[i] = before[2 + i] + count.bytes[i];
  }
}

// --- the arenas ----------------------------------------------------------------------------------

template <class Key>
std::size_t FlowTable::Arena<Key>::slot_of(const Key& key, std::uint32_t hash) {
  std::size_t slot = hash & (slots_.size() - 1);
  while (slots_[slot].number != kNone &&
         (slots_[slot].hash != hash || !same(at(slots_[slot].number).key, key)))
    slot = next_of(slot);
  return slot;
}

template <class Key>
Flow* FlowTable::Arena<Key>::find(const Key& key) {
  if (slots_.empty()) return nullptr;
  const std::uint32_t number = slots_[slot_of(key, hash_of(key))].number;
  return number == kNone ? nullptr : &at(number).flow;
}

template <class Key>
std::size_t FlowTable::Arena<Key>::probes(const Key& key) {
  if (slots_.empty()) return 0;
  const std::uint32_t hash = hash_of(key);
  return ((slot_of(key, hash) - hash) & (slots_.size() - 1)) + 1;
}

template <class Key>
void FlowTable::Arena<Key>::prefetch_slot(const Key& key) const {
  if (!slots_.empty()) __builtin_prefetch(&slots_[hash_of(key) & (slots_.size() - 1)]);
}

template <class Key>
void FlowTable::Arena<Key>::prefetch_place(const Key& key) {
  if (slots_.empty()) return;
  const std::uint32_t hash = hash_of(key);
  std::size_t slot = hash & (slots_.size() - 1);
  while (slots_[slot].number != kNone && slots_[slot].hash != hash) slot = next_of(slot);
  if (slots_[slot].number == kNone) return;
  const auto* const place = reinterpret_cast<const char*>(&at(slots_[slot].number));
  for (std::size_t offset = 0; offset < sizeof(Place); offset += kCacheLine)
    __builtin_prefetch(place + offset, 1);
}

template <class Key>
void FlowTable::Arena<Key>::grow() {
  std::vector<Slot> old(std::max<std::size_t>(kPiece, slots_.size() * 2));
  old.swap(slots_);
  for (const Slot& from : old) {
    if (from.number == kNone) continue;
    std::size_t slot = from.hash & (slots_.size() - 1);
    while (slots_[slot].number != kNone) slot = next_of(slot);
    slots_[slot] = from;
  }
}

// The key is not there yet.
template <class Key>
Flow& FlowTable::Arena<Key>::insert(const Key& key) {
  if ((size_ + 1) * 4 > slots_.size() * 3) grow();
  std::uint32_t number = free_;
  if (number != kNone) {
    free_ = at(number).next;
  } else {
    number = made_++;
    if (number % kPiece == 0) pieces_.push_back(std::make_unique<Place[]>(kPiece));
  }
  Place& place = at(number);
  place.key = key;
  place.used = true;
  const std::uint32_t hash = hash_of(key);
  slots_[slot_of(key, hash)] = {hash, number};
  ++size_;
  return place.flow;
}

template <class Key>
void FlowTable::Arena<Key>::erase(const Key& key, FindingTable& findings) {
  if (slots_.empty()) return;
  std::size_t gap = slot_of(key, hash_of(key));
  const std::uint32_t number = slots_[gap].number;
  if (number == kNone) return;
  // What had to go past this slot moves back, so that probing ends at the first free one.
  for (std::size_t slot = next_of(gap); slots_[slot].number != kNone; slot = next_of(slot)) {
    const std::size_t mask = slots_.size() - 1;
    const std::size_t home = slots_[slot].hash & mask;
    if (((slot - home) & mask) < ((slot - gap) & mask)) continue;
    slots_[gap] = slots_[slot];
    gap = slot;
  }
  slots_[gap] = Slot();
  Place& place = at(number);
  if (place.flow.finding != nullptr) findings.release(place.flow.finding);
  place.flow = Flow();
  place.used = false;
  place.next = free_;
  free_ = number;
  --size_;
}

// --- the table -----------------------------------------------------------------------------------

Flow* FlowTable::find(const FlowKey& key) {
  return is_v4(key) ? v4_.find(short_key(key)) : v6_.find(key);
}

void FlowTable::prefetch(std::span<const FlowKey> keys) {
  for (const FlowKey& key : keys)
    is_v4(key) ? v4_.prefetch_slot(short_key(key)) : v6_.prefetch_slot(key);
  for (const FlowKey& key : keys)
    is_v4(key) ? v4_.prefetch_place(short_key(key)) : v6_.prefetch_place(key);
}

std::size_t FlowTable::probes(const FlowKey& key) {
  return is_v4(key) ? v4_.probes(short_key(key)) : v6_.probes(key);
}

Flow& FlowTable::at(const FlowKey& key, bool* made) {
  Flow* known = find(key);
  if (made != nullptr) *made = known == nullptr;
  if (known != nullptr) return *known;
  return is_v4(key) ? v4_.insert(short_key(key)) : v6_.insert(key);
}

void FlowTable::erase(const FlowKey& key) {
  if (is_v4(key))
    v4_.erase(short_key(key), findings_);
  else
    v6_.erase(key, findings_);
}

const std::string* FlowTable::intern(const std::string& name) {
  return &*names_.insert(name).first;
}

void FlowTable::set_finding(Flow& flow, Finding&& finding) {
  const Finding* before = flow.finding;
  flow.finding = findings_.share(std::move(finding));
  if (before != nullptr) findings_.release(before);
}

void FlowTable::share_finding(const Finding*& held, const Finding* other) {
  if (held == other) return;
  const Finding* before = std::exchange(held, other);
  if (other != nullptr) findings_.share(other);
  if (before != nullptr) findings_.release(before);
}

// --- answers -------------------------------------------------------------------------------------

bool keeps_finding(const Flow& flow, const Answer& answer) {
  if (answer.facts.own_answer() || flow.finding == nullptr) return false;
  return flow.own_answer() || (answer.flags & L7M_FLOW_AGAIN) != 0;
}

void update_flow(Flow& flow, const FlowKey& key, const Answer& answer, FlowTable& table) {
  const FlowFacts& facts = answer.facts;
  if (flow.first_ns == 0) flow.first_ns = answer.first_ns;
  flow.last_ms = std::max(flow.last_ms, answer.last_ns / 1'000'000);
  if (!flow.decided) flow.set_since(answer.count);
  const bool keep = keeps_finding(flow, answer);
  if (!keep) {
    Finding finding;
    finding.risks = facts.risks;
    finding.name = table.intern(answer.name);
    finding.risk_score = facts.risk_score;
    finding.application = facts.application;
    finding.master = facts.master;
    finding.category = facts.category;
    finding.confidence = facts.confidence;
    finding.detector = facts.detector;
    finding.texts = pack_texts(facts);
    table.set_finding(flow, std::move(finding));
  }
  flow.sampled_bytes = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(answer.sampled_bytes, std::numeric_limits<std::uint32_t>::max()));
  flow.sampled_packets = static_cast<std::uint16_t>(
      std::min<std::uint32_t>(answer.sampled_packets, std::numeric_limits<std::uint16_t>::max()));
  flow.id = answer.id;
  flow.ifindex = facts.ifindex;
  flow.vlan = facts.vlan;
  std::copy(std::begin(facts.client_mac), std::end(facts.client_mac), flow.client_mac);
  flow.initiator = answer.initiator & 1;
  flow.client = facts.client == key.address(0) && facts.client_port == key.port(0) ? 0 : 1;
  const bool own = keep && flow.own_answer();
  flow.state = own && answer.state == FlowState::guessed ? FlowState::final : answer.state;
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
  flow.found().tell(facts);
  const std::uint64_t forged = std::uint64_t{1} << kForgedClosing.bit;
  if ((flow.flags & L7M_FLOW_FORGED) != 0 && (facts.risks & forged) == 0) {
    facts.risks |= forged;
    facts.risk_score += Engine::score_of(kForgedClosing.severity);
  }
  facts.ifindex = flow.ifindex;
  facts.vlan = flow.vlan;
  std::copy(std::begin(flow.client_mac), std::end(flow.client_mac), facts.client_mac);
  return facts;
}

Answer answer_of(const FlowKey& key, const Flow& flow) {
  Answer answer;
  answer.key = key;
  answer.id = flow.id;
  answer.initiator = flow.initiator;
  answer.state = flow.state;
  answer.closed = (flow.flags & L7M_FLOW_CLOSING) != 0;
  answer.facts = facts_of(key, flow);
  answer.sampled_packets = flow.sampled_packets;
  answer.sampled_bytes = flow.sampled_bytes;
  answer.count = flow.total;
  answer.first_ns = flow.first_ns;
  answer.last_ns = flow.last_ms * 1'000'000;
  if (const std::string* name = flow.found().name) answer.name = *name;
  return answer;
}

}  // namespace l7mark
