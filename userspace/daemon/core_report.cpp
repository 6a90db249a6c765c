// SPDX-License-Identifier: GPL-2.0-only
// The main process's words: events, records, status.
#include <nlohmann/json.hpp>

#include "daemon/core.hpp"
#include "dpi/client.hpp"
#include "util/clock.hpp"
#include "util/log.hpp"

namespace l7mark {

namespace {

std::string hex(std::uint32_t value) {
  return fmt::format("0x{:x}", value);
}

std::string masked(const MaskedValue& value) {
  return hex(value.value) + "/" + hex(value.mask);
}

// Seconds since 1970 of a moment on CLOCK_MONOTONIC, to the millisecond.
double wall_seconds(std::uint64_t monotonic_ns) {
  const std::uint64_t then =
      clock_ns(CLOCK_REALTIME) / 1'000'000 - now_ms() + monotonic_ns / 1'000'000;
  return static_cast<double>(then) / 1000.0;
}

bool is_promised(const l7m_candidate& candidate) {
  return (candidate.flags &
          (L7M_FLOW_SERVICE | L7M_FLOW_HINT | L7M_FLOW_HEADERS | L7M_FLOW_KEPT)) != 0 &&
         candidate.action >= L7M_STATES;
}

bool is_blocked(const EffectiveAction& effective, const Flow& flow) {
  const l7m_action& action = effective.kernel[static_cast<std::size_t>(flow.state)];
  return (action.flags & L7M_ACT_DROP) != 0;
}

nlohmann::ordered_json actions_json(const PolicyClass& c) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();  // a class may do nothing
  const Actions& a = c.actions;
  if (a.mark) out["mark"] = masked(*a.mark);
  if (a.dscp) out["dscp"] = *a.dscp;
  if (a.priority) out["priority"] = *a.priority;
  if (a.tc_class)
    out["tc_class"] = fmt::format("{:x}:{:x}", *a.tc_class >> 16, *a.tc_class & 0xffff);
  if (a.drop) out["drop"] = true;
  if (a.allow) out["allow"] = true;
  if (a.log) out["log"] = true;
  if (a.ipset) out["ipset"] = a.ipset->name;
  if (a.nftset) out["nftset"] = a.nftset->family + " " + a.nftset->table + " " + a.nftset->name;
  if (a.conntrack && a.conntrack->mark) out["conntrack_mark"] = masked(*a.conntrack->mark);
  return out;
}

}  // namespace

nlohmann::ordered_json Core::record(const FlowKey& key, const Flow& flow, Source source) const {
  RecordContext context;
  const Answer answer = answer_of(key, flow);
  const EffectiveAction& effective = actions_.effective(flow.action);
  context.class_name = effective.class_name;
  context.source = source != Source::none ? source : source_of(key, flow);
  context.count = flow.total;
  context.sampled_packets = flow.sampled_packets;
  context.sampled_bytes = flow.sampled_bytes;
  nlohmann::ordered_json out = to_json(answer, context, names_);
  out["flow_id"] = std::to_string(flow.id);  // 64 bits: JSON's readers keep 53 of a number
  out["first_seen"] = wall_seconds(flow.first_ns);
  out["last_seen"] = wall_seconds(flow.last_ms * 1'000'000);
  if (const Source first = promised_by(flow); first != Source::none)
    out["marked_first_by"] = to_string(first);
  if (is_blocked(effective, flow)) out["blocked"] = true;
  if (flow.rtt_server_us != 0) out["rtt_server_ms"] = flow.rtt_server_us / 1000.0;
  if (flow.rtt_client_us != 0) out["rtt_client_ms"] = flow.rtt_client_us / 1000.0;
  for (const auto& [name, index] : interfaces_)
    if (index == flow.ifindex) out["interface"] = name;
  if (const std::uint16_t vlan = key.vlan() != 0 ? key.vlan() : flow.vlan; vlan != 0)
    out["vlan"] = vlan;
  if (key.inner_vlan() != 0) out["inner_vlan"] = key.inner_vlan();
  return out;
}

Source Core::source_of(const FlowKey& key, const Flow& flow) const {
  if (flow.promised != 0 && flow.action == flow.promised && flow.state != FlowState::final)
    return promised_by(flow);
  return matcher_->source(facts_of(key, flow), actions_.effective(flow.action).classes);
}

// Counts the flow when it begins to be dropped.
void Core::note_block(const FlowKey& key, Flow& flow) {
  const EffectiveAction& effective = actions_.effective(flow.action);
  const bool blocked = is_blocked(effective, flow);
  if (blocked && !flow.blocked)
    ++blocked_[effective.class_name][static_cast<std::size_t>(source_of(key, flow))];
  flow.blocked = blocked;
}

// A flow that the kernel marked by its first packet and that has no answer yet. It is in the table
// of candidates only: the time of the first packet comes with the answer.
std::optional<nlohmann::ordered_json> Core::promised_record(const FlowKey& key) {
  const auto candidate = dataplane_.candidate(key);
  const auto now = recent_clock();
  if (!candidate || !is_promised(*candidate) || !now) return std::nullopt;
  Flow flow;
  flow.initiator = candidate->initiator & 1;
  flow.client = client_of(key, flow.initiator, candidate->flags, policy_->inside) & 1;
  flow.flags = candidate->flags;
  flow.midstream = (candidate->flags & L7M_FLOW_MIDSTREAM) != 0;
  flow.state = FlowState::provisional;
  flow.action = ActionTable::id_of_index(candidate->action);
  flow.id = candidate->flow_id;
  flow.total = wide(candidate->count);
  flow.sampled_packets = candidate->sampled;
  const std::uint64_t age = jiffies_.age_ms(candidate->last_seen, *now);
  flow.last_ms = now_ms() > age ? now_ms() - age : 0;
  nlohmann::ordered_json out = record(key, flow, promised_by(flow));
  out.erase("first_seen");
  return out;
}

void Core::emit(std::string_view type, const FlowKey& key, const Flow& flow,
                std::string_view reason) {
  if (!events_.wants_events()) return;
  nlohmann::ordered_json line;
  line["type"] = type;
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const std::int64_t ms = static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
  line["time"] = static_cast<double>(ms) / 1000.0;
  if (!reason.empty()) line["reason"] = reason;
  if (actions_.effective(flow.action).log) line["log"] = true;
  line.update(record(key, flow));
  events_.publish_event(
      line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

// How many lines were left out, once a second at most.
void Core::tell_left_out(std::uint64_t ms) {
  if (log_left_out_ == 0 || ms / 1000 == log_second_) return;
  log_warning("{} lines of flows were left out: log.rate is {} a second",
              std::exchange(log_left_out_, 0), policy_->log.rate);
}

void Core::log_flow(const FlowKey& key, const Flow& flow) {
  const std::uint64_t ms = now_ms();
  if (ms / 1000 != log_second_) {
    tell_left_out(ms);
    log_second_ = ms / 1000;
    log_lines_ = 0;
  }
  if (log_lines_ >= policy_->log.rate) {
    ++log_left_out_;
    ++counters_.log_left_out;
    return;
  }
  ++log_lines_;
  const FlowFacts facts = facts_of(key, flow);
  std::string risks;
  for (unsigned bit = 0; bit < 64; ++bit) {
    if ((facts.risks >> bit & 1) == 0) continue;
    if (!risks.empty()) risks += ", ";
    risks += names_.catalog.risk_name(static_cast<std::uint16_t>(bit));
  }
  const EffectiveAction& effective = actions_.effective(flow.action);
  log_info("class {}: {} {}:{} to {}:{}, {}{}{}{}{}; {}by {}", effective.class_name,
           protocol_name(facts.protocol), facts.client.to_string(), facts.client_port,
           facts.server.to_string(), facts.server_port,
           flow.found().name != nullptr ? *flow.found().name : "Unknown",
           facts.hostname.empty() ? "" : " ", facts.hostname, risks.empty() ? "" : "; ", risks,
           is_blocked(effective, flow) ? "dropped " : "", to_string(source_of(key, flow)));
}

std::function<std::optional<nlohmann::ordered_json>()> Core::records() {
  commit();
  sweep();
  std::vector<FlowKey> keys;
  keys.reserve(flows_.size() + manual_.size());
  flows_.for_each([&](const FlowKey& key, const Flow&) { keys.push_back(key); });
  for (const auto& [key, entry] : manual_) keys.push_back(key);
  const auto walked =
      dataplane_.for_each_candidate([&](const FlowKey& key, const l7m_candidate& candidate) {
        if (is_promised(candidate) && flows_.find(key) == nullptr && !manual_.contains(key))
          keys.push_back(key);
      });
  if (!walked.ok()) log_error("{}", walked.error().message());
  return [this, keys = std::move(keys),
          next = std::size_t{0}]() mutable -> std::optional<nlohmann::ordered_json> {
    while (next < keys.size()) {
      const FlowKey& key = keys[next++];
      if (const Flow* flow = flows_.find(key)) return record(key, *flow);
      if (auto by_hand = manual_record(key)) return by_hand;
      if (auto promised = promised_record(key)) return promised;
    }
    return std::nullopt;
  };
}

void Core::status(nlohmann::ordered_json& out) {
  commit();
  sweep();
  std::map<std::string, Tally> classes = ended_;
  std::uint64_t packets = 0, bytes = 0, undecided_packets = 0, undecided_bytes = 0;
  std::uint64_t by_state[L7M_STATES] = {};
  std::map<std::string, std::uint64_t> live;
  for (const auto& [name, tally] : ended_) {
    packets += tally.packets;
    bytes += tally.bytes;
  }
  const auto add = [&](std::uint32_t action, std::uint64_t its_packets, std::uint64_t its_bytes) {
    const std::string& name = actions_.effective(action).class_name;
    Tally& tally = classes[name];
    ++tally.flows;
    tally.packets += its_packets;
    tally.bytes += its_bytes;
    packets += its_packets;
    bytes += its_bytes;
    ++live[name];
  };
  flows_.for_each([&](const FlowKey&, const Flow& flow) {
    add(flow.action, flow.packets(), flow.bytes());
    ++by_state[static_cast<std::size_t>(flow.state)];
  });
  for (const auto& [key, entry] : manual_) {
    const l7m_counters& count = entry.verdict.count;
    add(ActionTable::id_of_index(entry.verdict.action), count.packets[0] + count.packets[1],
        count.bytes[0] + count.bytes[1]);
  }
  std::uint64_t candidates = 0;
  const auto walked =
      dataplane_.for_each_candidate([&](const FlowKey& key, const l7m_candidate& c) {
        ++candidates;
        const Flow* flow = flows_.find(key);
        if (flow != nullptr && !flow->decided) return;
        undecided_packets += c.count.packets[0] + c.count.packets[1];
        undecided_bytes += c.count.bytes[0] + c.count.bytes[1];
      });
  if (!walked.ok()) log_error("{}", walked.error().message());
  packets += undecided_packets;
  bytes += undecided_bytes;

  nlohmann::ordered_json policy;
  policy["file"] = policy_->file;
  policy["classes"] = nlohmann::ordered_json::array();
  for (std::size_t i = 0; i < policy_->classes.size(); ++i) {
    const PolicyClass& c = policy_->classes[i];
    nlohmann::ordered_json entry;
    entry["name"] = c.name;
    if (const auto id = actions_.intern({static_cast<std::uint16_t>(i)}))
      entry["action"] = ActionTable::index(*id, FlowState::final);
    entry["live_flows"] = live[c.name];
    entry["flows"] = classes[c.name].flows;
    entry["packets"] = classes[c.name].packets;
    entry["bytes"] = classes[c.name].bytes;
    entry.update(actions_json(c));
    policy["classes"].push_back(std::move(entry));
  }
  const MarkBits bits = policy_->touched_mark_bits();
  policy["mark_bits"] = hex(bits.packet);
  policy["conntrack_bits"] = hex(bits.conntrack);
  if (const StateMarks& marks = policy_->state_marks; marks.mask != 0) {
    policy["state_marks"]["mask"] = hex(marks.mask);
    for (std::size_t i = 0; i < marks.values.size(); ++i)
      policy["state_marks"][std::string(to_string(static_cast<FlowState>(i)))] =
          hex(marks.values[i]);
  }
  out["policy"] = std::move(policy);

  const CounterValues counters = dataplane_.counters();
  const std::uint64_t sampled = counters[L7M_COUNT_SAMPLED_PACKETS];
  out["packets_seen"] = packets;
  out["packets_sampled"] = sampled;
  out["bytes_seen"] = bytes;
  out["bytes_sampled"] = counters[L7M_COUNT_SAMPLED_BYTES];
  out["sampled_share"] =
      packets == 0 ? 0.0 : static_cast<double>(sampled) / static_cast<double>(packets);
  out["flows"] = {{"live", flows_.size()},
                  {"candidates", candidates},
                  {"provisional", by_state[L7M_STATE_PROVISIONAL]},
                  {"guessed", by_state[L7M_STATE_GUESSED]},
                  {"final", by_state[L7M_STATE_FINAL]},
                  {"manual", manual_.size()},
                  {"begun", counters_.flows_begun},
                  {"ended", counters_.flows_ended},
                  {"adopted", counters_.adopted},
                  {"protected", admission_.verdicts(true)},
                  {"unprotected", admission_.verdicts(false)},
                  {"waiting", admission_.waiting()},
                  {"one_packet", counters_.one_packet},
                  {"doubted", counters_.doubted},
                  {"evicted_verdicts", counters_.evicted_verdicts},
                  {"evicted_candidates", counters_.evicted_candidates},
                  {"share_full", counters_.share_full},
                  {"table_full", counters_.table_full},
                  {"no_memory", counters_.no_memory}};
  out["hints"] = hints_status();
  for (const Source source : {Source::service, Source::dns, Source::headers}) {
    const PromiseCounters& count = counters_.promises[static_cast<std::size_t>(source)];
    out["first_packet"][std::string(to_string(source))] = {
        {"confirmed", count.confirmed}, {"corrected", count.corrected}, {"absent", count.absent}};
  }
  tell_services(out["services"]);
  tell_budgets(out["budgets"]);
  nlohmann::ordered_json blocked = nlohmann::ordered_json::object();
  for (const auto& [name, by_source] : blocked_)
    for (std::size_t i = 0; i < by_source.size(); ++i)
      if (by_source[i] != 0)
        blocked[name][std::string(to_string(static_cast<Source>(i)))] = by_source[i];
  out["blocked"] = std::move(blocked);
  out["log_left_out"] = counters_.log_left_out;
  nlohmann::ordered_json kernel;
  for (std::size_t i = 0; i < counters.size(); ++i)
    kernel[std::string(counter_name(i))] = counters[i];
  out["counters"] = std::move(kernel);
  const PublishCounters& published = publisher_.counters();
  out["publish"] = {{"entries", publisher_.registry().size()},
                    {"added", published.added},
                    {"refreshed", published.refreshed},
                    {"removed", published.removed},
                    {"failed", published.failed},
                    {"full", published.full},
                    {"unsupported", published.unsupported},
                    {"rewritten", published.rewritten},
                    {"resyncs", published.resyncs}};
  out["conntrack"] = conntrack_status();
}

}  // namespace l7mark
