// SPDX-License-Identifier: GPL-2.0-only
// Flows' marks and labels in conntrack: what they are to be, and when entries come and go.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "daemon/core.hpp"
#include "util/clock.hpp"
#include "util/log.hpp"

namespace l7mark {

namespace {

ConntrackTuple tuple_of(const FlowKey& key, const Flow& flow, std::uint16_t zone) {
  const int client = flow.client;
  ConntrackTuple out;
  out.source = key.address(client);
  out.destination = key.address(client ^ 1);
  out.source_port = key.port(client);
  out.destination_port = key.port(client ^ 1);
  out.protocol = key.raw.protocol;
  out.zone = zone;
  return out;
}

bool wants_conntrack(const Policy& policy) {
  return policy.state_marks.conntrack_mask != 0 ||
         std::any_of(policy.classes.begin(), policy.classes.end(),
                     [](const PolicyClass& c) { return c.actions.conntrack.has_value(); });
}

// A flow has its place here while it lives, and some time longer.
std::size_t most_entries(const Limits& limits) {
  return std::size_t{limits.flows} * 2 + limits.candidates;
}

}  // namespace

// Both sockets stay open when a later policy wants nothing of conntrack: what was written is to be
// cleared.
Status Core::open_conntrack(const Policy& policy) {
  if (conntrack_ || !wants_conntrack(policy)) return success();
  auto opened = Conntrack::open();
  if (!opened) return opened.error();
  auto events = ConntrackEvents::open();
  if (!events) return events.error();
  conntrack_marks_.set_limit(most_entries(policy.limits));
  conntrack_.emplace(std::move(*opened));
  conntrack_events_.emplace(std::move(*events));
  return success();
}

int Core::conntrack_events_fd() const {
  return conntrack_events_ ? conntrack_events_->fd() : -1;
}

// --- zones ---------------------------------------------------------------------------------------

std::optional<std::uint16_t> Core::Zones::of(std::uint32_t ifindex) const {
  if (ifindex == 0) return common;
  const auto known = by_index.find(ifindex);
  return known == by_index.end() ? std::uint16_t{0} : known->second;
}

std::optional<ConntrackTuple> Core::conntrack_tuple(const FlowKey& key, const Flow& flow) const {
  const auto zone = zones_.of(flow.ifindex);
  if (!conntrack_ || !zone) return std::nullopt;
  return tuple_of(key, flow, *zone);
}

// An index that is gone keeps its zone, for the flows that were seen there.
void Core::update_zones() {
  const auto& configs = policy_->interfaces;
  for (const auto& there : interfaces_) {
    const std::uint32_t index = there.second;
    const auto config = std::find_if(configs.begin(), configs.end(), [&](const InterfaceConfig& c) {
      return c.name == there.first;
    });
    if (config != configs.end() && config->conntrack_zone != 0)
      zones_.by_index[index] = config->conntrack_zone;
    else
      zones_.by_index.erase(index);
  }
  zones_.common = configs.empty() ? std::uint16_t{0} : configs.front().conntrack_zone;
  for (const InterfaceConfig& config : configs)
    if (config.conntrack_zone != zones_.common) zones_.common.reset();
}

// Before flows are matched anew under the policy that is in force now.
void Core::move_zones() {
  const Zones were = zones_;
  update_zones();
  if (!conntrack_ || were == zones_) return;
  const std::uint64_t ms = now_ms();
  flows_.for_each([&](const FlowKey& key, Flow& flow) {
    const auto before = were.of(flow.ifindex);
    if (!before || before == zones_.of(flow.ifindex)) return;
    const ConntrackTuple tuple = tuple_of(key, flow, *before);
    conntrack_marks_.want(tuple, {}, {}, ms);
    conntrack_marks_.end(tuple);
  });
}

// --- flows ---------------------------------------------------------------------------------------

void Core::mark_conntrack(const FlowKey& key, const Flow& flow) {
  const auto tuple = conntrack_tuple(key, flow);
  if (!tuple) return;
  const EffectiveAction& effective = actions_.effective(flow.action);
  const MaskedValue mark = effective.conntrack_mark[static_cast<std::size_t>(flow.state)];
  const ConntrackChange change{mark.value, mark.mask, effective.conntrack_labels,
                               effective.conntrack_labels};
  conntrack_marks_.want(*tuple, change, effective.class_name, now_ms());
}

// Of a flow that an earlier run has marked. Which bits are its class's alone is not known any more.
void Core::adopt_conntrack(const FlowKey& key, const Flow& flow) {
  const auto tuple = conntrack_tuple(key, flow);
  if (!tuple) return;
  ConntrackChange bits;
  bits.mark_mask = policy_->touched_mark_bits().conntrack;
  conntrack_marks_.assume(*tuple, bits);
}

// An entry outlives its flow here, and keeps the mark for packets that come late; but not against a
// verdict by hand.
void Core::end_conntrack(const FlowKey& key, const Flow& flow, bool clear) {
  const auto tuple = conntrack_tuple(key, flow);
  if (!tuple) return;
  if (clear) conntrack_marks_.want(*tuple, {}, {}, now_ms());
  conntrack_marks_.end(*tuple);
}

// The sweep has seen when its last packet came.
void Core::see_conntrack(const FlowKey& key, const Flow& flow, std::uint64_t ms) {
  if (conntrack_marks_.absent() == 0) return;
  if (const auto tuple = conntrack_tuple(key, flow))
    conntrack_marks_.on_seen(*tuple, flow.last_ms, ms);
}

// Ended flows of classes that the policy in force does not have.
void Core::release_conntrack() {
  if (!conntrack_) return;
  const auto gone = [this](const std::string& owner) {
    return !owner.empty() && std::none_of(policy_->classes.begin(), policy_->classes.end(),
                                          [&](const PolicyClass& c) { return c.name == owner; });
  };
  conntrack_marks_.release(gone, now_ms());
}

// --- writes and events ---------------------------------------------------------------------------

void Core::write_conntrack() {
  if (!conntrack_) return;
  conntrack_marks_.run([this](auto requests) { return send_conntrack(requests); }, now_ms());
}

ConntrackOutcome Core::send_conntrack(std::span<const ConntrackRequest> requests) {
  ConntrackOutcome outcome = conntrack_->write(requests);
  if (outcome.error && !std::exchange(conntrack_reported_, true))
    log_warning("{}", outcome.error->message());
  return outcome;
}

void Core::on_conntrack_events() {
  if (!conntrack_events_) return;
  const std::uint64_t ms = now_ms();
  bool lost = false;
  const auto status = conntrack_events_->read(
      [&](const ConntrackEntry& entry) {
        conntrack_marks_.on_destroyed(entry.original, entry.reply, ms);
      },
      lost);
  if (!status.ok()) log_error("{}", status.error().message());
  if (lost) conntrack_marks_.on_lost_events();
}

void Core::withdraw_conntrack() {
  if (!conntrack_) return;
  conntrack_marks_.clear_all([this](auto requests) { return send_conntrack(requests); });
}

nlohmann::ordered_json Core::conntrack_status() const {
  const ConntrackMarksCounters& counters = conntrack_marks_.counters();
  return {{"entries", conntrack_marks_.size()},  {"queued", conntrack_marks_.queued()},
          {"absent", conntrack_marks_.absent()}, {"written", counters.written},
          {"rewritten", counters.rewritten},     {"cleared", counters.cleared},
          {"missing", counters.missing},         {"full", counters.full},
          {"lost_events", counters.lost_events}, {"errors", counters.errors}};
}

}  // namespace l7mark
