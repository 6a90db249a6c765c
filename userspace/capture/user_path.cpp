// SPDX-License-Identifier: GPL-2.0-only
#include "capture/user_path.hpp"

#include <l7mark/parse.h>
#include <l7mark/ring.h>
#include <l7mark/sampling.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <iterator>
#include <random>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "dpi/classifier.hpp"

namespace l7mark {
namespace {

bool is_inside(const std::vector<Prefix>& prefixes, const __be32 (&address)[4]) {
  Address plain;
  std::memcpy(plain.bytes.data(), address, plain.bytes.size());
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](const Prefix& prefix) { return prefix.contains(plain); });
}

// The first bytes of the payload that the capture has.
l7m_head head_of(const CapturedPacket& captured, const l7m_packet& packet) {
  l7m_head head{};
  const std::size_t offset = std::size_t{packet.l3_offset} + packet.l3_length - packet.payload;
  if (packet.payload == 0 || offset >= captured.frame.size()) return head;
  head.length = static_cast<std::uint32_t>(
      std::min<std::size_t>({L7M_HEAD, packet.payload, captured.frame.size() - offset}));
  std::memcpy(head.bytes, captured.frame.data() + offset, head.length);
  return head;
}

// A capture is met in one place.
const std::uint32_t kSide = l7m_side_of(1, 0);

}  // namespace

struct UserPath::State : ClassifierSink {
  struct Entry {
    l7m_candidate candidate{};
    l7m_flight flight[2]{};
    std::size_t flow = 0;  // index into `flows`
    bool decided = false;
  };

  PathOptions options;
  l7m_settings settings{};
  std::vector<Engine> engines;
  std::vector<std::unique_ptr<Classifier>> classifiers;
  std::unordered_map<FlowKey, Entry> table;
  std::deque<CaptureFlow> flows;
  UserPathStats stats;
  std::vector<std::byte> record;

  void on_answer(Answer&& answer) override {
    const auto found = table.find(answer.key);
    if (found == table.end()) return;
    Entry& entry = found->second;
    entry.decided = answer.state != FlowState::provisional;
    if (const auto* other = options.sampling.override_for(answer.facts.application)) {
      entry.candidate.packets = other->packets;
      if (other->whole) entry.candidate.whole = *other->whole;
    }
    flows[entry.flow].answer = std::move(answer);
  }
  void on_dns(DnsAnswer&& /*answer*/) override {}

  std::uint8_t choose_ring(const l7m_packet& packet) const {
    return static_cast<std::uint8_t>(l7m_ring_of(
        &packet, is_inside(options.inside, packet.saddr) ? 1 : 0,
        is_inside(options.inside, packet.daddr) ? 1 : 0, settings.rings, &settings.secrets));
  }

  void sample(const CapturedPacket& captured, const l7m_packet& packet, const FlowKey& key,
              Entry& entry, std::uint16_t type, std::uint16_t flags, std::uint32_t length,
              std::uint8_t direction) {
    l7m_sample head{};
    head.type = type;
    head.flags = flags;
    head.captured = length;
    head.time_ns = captured.time_ns;
    head.key = key.raw;
    head.count = flows[entry.flow].count;
    head.flow_id = entry.candidate.flow_id;
    head.wire_length = captured.bytes;
    head.l3_offset = packet.l3_offset;
    head.l4_payload = static_cast<std::uint16_t>(std::min<std::uint32_t>(packet.payload, 0xffff));
    head.l3_length = packet.l3_length;
    head.direction = direction;
    head.initiator = entry.candidate.initiator;
    head.candidate_flags = entry.candidate.flags;
    head.sampled = entry.candidate.sampled;
    head.l2 = 1;
    head.vlan = packet.vlan;
    head.wanted = static_cast<std::uint16_t>(length);
    head.sequence = packet.sequence;
    record.resize(sizeof(head) + length);
    std::memcpy(record.data(), &head, sizeof(head));
    if (length != 0) std::memcpy(record.data() + sizeof(head), captured.frame.data(), length);
    classifiers[entry.candidate.ring]->take(record);
  }
};

UserPath::UserPath(std::unique_ptr<State> state) : state_(std::move(state)) {}
UserPath::UserPath(UserPath&&) noexcept = default;
UserPath& UserPath::operator=(UserPath&&) noexcept = default;
UserPath::~UserPath() = default;

Result<UserPath> UserPath::make(const PathOptions& options) {
  auto state = std::make_unique<State>();
  state->options = options;
  const std::uint32_t rings = std::clamp<std::uint32_t>(options.rings, 1, L7M_MAX_RINGS);
  state->options.rings = rings;
  state->settings = state->options.settings();
  // The same in every run, so that a capture is always read alike: nobody attacks this table.
  std::mt19937_64 fixed;  // NOLINT(cert-msc32-c,cert-msc51-cpp)
  std::generate(std::begin(state->settings.secrets.ring), std::end(state->settings.secrets.ring),
                std::ref(fixed));
  // A capture's flows are all kept: nothing is given up before its end.
  ClassifierOptions limits;
  limits.idle_ns = 0;
  limits.inside = options.inside;
  limits.max_flows = limits.max_waiting = SIZE_MAX;
  state->engines.reserve(rings);
  for (std::uint32_t i = 0; i < rings; ++i) {
    auto engine = Engine::make(options.engine);
    if (!engine.ok()) return engine.error();
    state->engines.push_back(std::move(*engine));
    state->classifiers.push_back(
        std::make_unique<Classifier>(state->engines.back(), *state, limits));
  }
  return UserPath(std::move(state));
}

Status UserPath::packet(const CapturedPacket& captured) {
  State& state = *state_;
  l7m_packet packet{};
  const std::uint8_t* start = captured.frame.data();
  l7m_cursor cursor{start, start + captured.frame.size(), 0, nullptr, 0};
  const int parsed = l7m_parse(
      &cursor, &packet, 0, static_cast<std::uint32_t>(captured.frame.size()), state.options.parse);
  if (parsed != L7M_PARSE_OK) {
    ++(parsed == L7M_PARSE_NOT_IP ? state.stats.not_ip : state.stats.malformed);
    return success();
  }
  if (packet.fragment == L7M_FRAGMENT_LATER) {
    ++state.stats.later_fragments;
    return success();
  }
  l7m_map_ipv4(&packet);
  FlowKey key;
  const auto sender = static_cast<std::uint8_t>(l7m_make_key(&packet, &key.raw));

  const auto [place, fresh] = state.table.try_emplace(key);
  State::Entry& entry = place->second;
  l7m_candidate& candidate = entry.candidate;
  if (fresh) {
    l7m_begin_candidate(&candidate, &packet, sender, &state.settings);
    candidate.flow_id = state.flows.size() + 1;
    candidate.ring = state.choose_ring(packet);
    entry.flow = state.flows.size();
    CaptureFlow flow;
    flow.answer.key = key;
    flow.answer.initiator = sender;
    state.flows.push_back(std::move(flow));
  }
  CaptureFlow& flow = state.flows[entry.flow];
  ++flow.count.packets[sender];
  flow.count.bytes[sender] += captured.bytes;
  ++state.stats.packets;
  state.stats.bytes += captured.bytes;
  const std::uint16_t closing = l7m_close_candidate(&candidate, &packet, sender, kSide);
  if (entry.decided) return success();

  std::uint16_t flags = fresh ? L7M_SAMPLE_FIRST : 0;
  if ((packet.tcp_flags & L7M_TCP_FIN) != 0) flags |= L7M_SAMPLE_FIN;
  if ((packet.tcp_flags & L7M_TCP_RST) != 0) flags |= L7M_SAMPLE_RST;
  l7m_flight& flight = entry.flight[sender];
  l7m_expect_flight(&flight, &packet);
  const l7m_head head = head_of(captured, packet);
  l7m_wanted wanted{};
  l7m_packet_wanted(&candidate, &flight, &packet, &head, &state.settings, &wanted);
  if (wanted.length == 0) {
    if ((closing & L7M_FLOW_CLOSING) != 0 && l7m_has_ended(candidate.flags) != 0)
      state.sample(captured, packet, key, entry, L7M_RECORD_NOTICE, flags, 0, sender);
    return success();
  }
  const auto length =
      std::min<std::uint32_t>(wanted.length, static_cast<std::uint32_t>(captured.frame.size()));
  l7m_count_sample(&candidate, &flight, &packet, &wanted, &state.settings);
  if (candidate.sampled >= candidate.packets) flags |= L7M_SAMPLE_LAST;
  ++flow.sampled_packets;
  flow.sampled_bytes += length;
  ++state.stats.sampled_packets;
  state.stats.sampled_bytes += length;
  state.sample(captured, packet, key, entry, L7M_RECORD_SAMPLE, flags, length, sender);
  return success();
}

Status UserPath::finish() {
  for (const auto& classifier : state_->classifiers) classifier->finish();
  return success();
}

Status UserPath::restart() {
  auto fresh = make(state_->options);
  if (!fresh.ok()) return fresh.error();
  *this = std::move(*fresh);
  return success();
}

const std::deque<CaptureFlow>& UserPath::flows() const {
  return state_->flows;
}
const UserPathStats& UserPath::stats() const {
  return state_->stats;
}
const Engine& UserPath::engine() const {
  return state_->engines.front();
}

}  // namespace l7mark
