// SPDX-License-Identifier: GPL-2.0-only
// Flows over time: schedules, sweeps, and how a flow ends.
#include "daemon/core.hpp"

#include <l7mark/sampling.h>
#include <netinet/in.h>

#include <algorithm>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "util/clock.hpp"
#include "util/log.hpp"

namespace l7mark {

namespace {

constexpr std::uint64_t kSweepMs = 5000;
// A sweep looks at so many flows, a fraction of a millisecond's work, before it lets answers by.
constexpr std::size_t kSweepFlows = 256;
// A flow that only has a first answer, and whose worker or candidate is gone, is let go after this.
constexpr std::uint64_t kUndecidedLifeMs = 180'000;
// A flow with a resolver is over so soon: what comes later begins it anew, and is read likewise.
constexpr std::uint64_t kFollowedLifeMs = 10'000;

}  // namespace

std::uint64_t Core::timeout_ms(const FlowKey& key, bool closing) const {
  const Timeouts& timeouts = policy_->timeouts;
  if (closing) return std::uint64_t{timeouts.closed} * 1000;
  if (key.raw.protocol == IPPROTO_TCP) return std::uint64_t{timeouts.tcp} * 1000;
  if (key.raw.protocol == IPPROTO_UDP) return std::uint64_t{timeouts.udp} * 1000;
  return std::uint64_t{timeouts.other} * 1000;
}

void Core::tick() {
  const std::uint64_t ms = now_ms();
  fresh_.insert(fresh_.end(), retries_.begin(), retries_.end());
  retries_.clear();
  commit();
  tell_left_out(ms);
  if (next_schedule_ && wall_now() >= *next_schedule_) {
    const auto before = std::exchange(in_schedule_, matcher_->in_schedule(wall_now()));
    write_headers();
    withdraw_promises(before);
    rematch();
    next_schedule_ = matcher_->next_change(wall_now());
  }
  conntrack_marks_.tick(ms);
  if (ms >= next_sweep_ms_) {
    sweep();
    const std::uint64_t cost = now_ms() - ms;
    std::uint64_t interval = kSweepMs;
    if (const Milliseconds wanted = publisher_.sweep_interval(); wanted > 0)
      interval = std::clamp<std::uint64_t>(wanted, 500, kSweepMs);
    // A big table is swept less often, so that ageing stays a small part of the work.
    next_sweep_ms_ = ms + std::max(interval, cost * 20);
  }
  publisher_.tick(ms);
}

// A schedule has begun or ended: what a class that it changes promises, or what it might take from
// a class behind it, is not known any more. Flows that are there promise anew when they are matched
// anew; the rest is learned again.
void Core::withdraw_promises(const std::vector<bool>& before) {
  const auto stale = [&](std::uint32_t id) {
    const ClassList& classes = actions_.effective(id).classes;
    const auto holds = [&](std::size_t i) {
      return std::find(classes.begin(), classes.end(), i) != classes.end();
    };
    const bool open = classes.empty() || policy_->classes[classes.back()].proceed;
    for (std::size_t i = 0; i < in_schedule_.size(); ++i) {
      if (in_schedule_[i] == before[i]) continue;
      if (in_schedule_[i] ? open || i < classes.back() : holds(i)) return true;
    }
    return false;
  };
  const auto status =
      dataplane_.rewrite_promises([&](l7m_promise promise) -> std::optional<l7m_promise> {
        if (stale(ActionTable::id_of_index(promise.action))) return std::nullopt;
        return promise;
      });
  if (!status.ok()) log_error("{}", status.error().message());
  // An address that is known to be shared stays so.
  hints_.forget([&](const Hint& hint) { return !hint.mixed && stale(hint.action); });
}

void Core::breathe_each(std::size_t& count) {
  if (++count % kSweepFlows == 0 && events_.breathe) events_.breathe();
}

// Of a big table it takes longer than an answer may wait: flows come and go while it breathes.
void Core::sweep() {
  const auto now = dataplane_.clock();
  if (!now) return;
  const std::uint64_t ms = now_ms();
  ++sweep_;
  std::vector<Ended> ended;
  std::vector<FlowLife> replaced;
  std::vector<FlowLife> strays;
  std::vector<FlowLife> missed;
  std::unordered_map<FlowKey, Manual> by_hand;
  std::size_t count = 0;
  const auto look = [&](const FlowKey& key, const l7m_verdict& v) {
    breathe_each(count);
    Flow* flow = flows_.find(key);
    if (v.flow_id == 0) {
      by_hand[key].verdict = v;
      if (flow != nullptr) replaced.push_back({key, flow->id});
      return;
    }
    if (flow == nullptr || flow->id != v.flow_id) {
      if (flow == nullptr) strays.push_back({key, v.flow_id});
      return;
    }
    flow->sweep = sweep_;
    const std::uint64_t age = jiffies_.age_ms(v.last_seen, *now);
    flow->set_since(v.count);
    flow->flags = static_cast<std::uint16_t>((flow->flags & ~L7M_FLOW_CLOSING) | v.flags);
    flow->last_ms = ms > age ? ms - age : 0;
    teach_service(key, *flow);  // if its other side has spoken only now
    if (flow->entries)
      for (const EntryId id : *flow->entries) publisher_.seen(id, flow->last_ms, ms);
    see_conntrack(key, *flow, ms);
    admission_.count(key, *flow);
    if (age > std::min(timeout_ms(key, l7m_is_closing(&v) != 0), worth_timeout_ms(*flow)))
      ended.push_back({{key, flow->id}, v});
  };
  const auto status = dataplane_.for_each_verdict(
      look, [this](std::span<const FlowKey> keys) { flows_.prefetch(keys); });
  if (!status.ok()) log_error("{}", status.error().message());
  remove_strays(strays);
  for (const auto& [key, id] : replaced)
    if (const Flow* flow = flows_.find(key); flow != nullptr && flow->id == id)
      end_flow(key, "manual");
  age_manual(std::move(by_hand), *now);
  age_services();
  flows_.for_each([&](const FlowKey& key, Flow& flow) {
    if (flow.decided) {
      if (flow.sweep != sweep_ && status.ok()) missed.push_back({key, flow.id});
      return;
    }
    const auto candidate = dataplane_.candidate(key);
    if (!candidate || candidate->flow_id != flow.id) {
      missed.push_back({key, flow.id});
      return;
    }
    flow.set_since(wide(candidate->count));
    flow.set_times(*candidate);
    const std::uint64_t age = jiffies_.age_ms(candidate->last_seen, *now);
    flow.last_ms = ms > age ? ms - age : 0;
    if (flow.entries)
      for (const EntryId id : *flow.entries) publisher_.seen(id, flow.last_ms, ms);
    see_conntrack(key, flow, ms);
    const std::uint64_t life =
        flow.followed
            ? std::min(kFollowedLifeMs, timeout_ms(key, l7m_has_ended(candidate->flags) != 0))
            : kUndecidedLifeMs;
    const bool answered = flow.state == FlowState::guessed || flow.state == FlowState::final;
    if (ms > flow.last_ms + life || (answered && is_over(flow, ms)))
      ended.push_back({{key, flow.id}, std::nullopt});
    else if (answered && !flow.followed && flow.packets() > 1 &&
             !is_looked_at(flow, *candidate, age))
      fresh_.push_back({key, flow.id});
  });
  end_flows(ended);
  for (const FlowLife& life : missed) look_for(life);
  expire_hints(ms);
}

// Verdicts of no flow that is known here.
void Core::remove_strays(std::span<const FlowLife> strays) {
  std::vector<l7m_settlement> steps;
  for (const auto& [key, id] : strays) {
    if (flows_.find(key) != nullptr) continue;
    l7m_settlement& step = steps.emplace_back();
    step.key = key.raw;
    step.flow_id = id;
    step.step = L7M_SETTLE_REMOVE;
  }
  if (const auto status = dataplane_.settle(steps); !status.ok())
    log_error("{}", status.error().message());
}

// Packets since the sweep looked keep a flow: what was read of it goes with the step.
void Core::end_flows(std::span<const Ended> ended) {
  std::vector<l7m_settlement> steps;
  std::vector<FlowKey> keys;
  while (!ended.empty()) {
    const auto batch = ended.first(std::min<std::size_t>(ended.size(), kSweepFlows));
    ended = ended.subspan(batch.size());
    keys.clear();
    for (const Ended& each : batch) keys.push_back(each.life.key);
    flows_.prefetch(keys);
    steps.clear();
    for (const auto& [life, verdict] : batch) {
      const Flow* flow = flows_.find(life.key);
      if (flow == nullptr || flow->id != life.id) continue;
      l7m_settlement& step = steps.emplace_back();
      step.key = life.key.raw;
      step.flow_id = life.id;
      step.step = verdict ? L7M_SETTLE_END : L7M_SETTLE_TAKE_QUIET;
      if (verdict)
        step.verdict = *verdict;
      else
        step.candidate.count = narrow(flow->since());
    }
    if (const auto status = dataplane_.settle(steps); !status.ok()) {
      log_error("{}", status.error().message());
      return;  // the next sweep finds them again
    }
    for (const l7m_settlement& step : steps) {
      if ((step.result & L7M_SETTLE_TOOK) == 0) continue;
      const FlowKey key{step.key};
      const bool is_verdict = step.step == L7M_SETTLE_END;
      const bool closed = is_verdict ? l7m_is_closing(&step.verdict) != 0
                                     : l7m_has_ended(step.candidate.flags) != 0;
      if (!is_verdict && flows_.find(key)->packets() == 1) ++counters_.one_packet;
      end_flow(key, closed ? "closed" : "idle");
    }
    if (events_.breathe) events_.breathe();
  }
}

// Its verdict has been taken out before, if it had one.
void Core::end_flow(const FlowKey& key, std::string_view reason) {
  Flow* flow = flows_.find(key);
  if (flow == nullptr) return;
  leave_sets(*flow);
  end_conntrack(key, *flow, reason == "manual");
  const bool answered = flow->state == FlowState::final || flow->state == FlowState::guessed;
  if (flow->promised != 0 && !answered)
    ++counters_.promises[static_cast<std::size_t>(promised_by(*flow))].absent;
  admission_.forget(key, *flow);
  ++counters_.flows_ended;
  Tally& tally = ended_[actions_.effective(flow->action).class_name];
  ++tally.flows;
  tally.packets += flow->packets();
  tally.bytes += flow->bytes();
  emit("end", key, *flow, reason);
  flows_.erase(key);
}

}  // namespace l7mark
