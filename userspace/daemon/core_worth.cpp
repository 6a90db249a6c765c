// SPDX-License-Identifier: GPL-2.0-only
// Flows that make way for others, and those that do not get a verdict yet.
#include <algorithm>
#include <utility>
#include <vector>

#include "daemon/core.hpp"
#include "util/clock.hpp"
#include "util/log.hpp"

namespace l7mark {

namespace {

// A flow of one packet that then is quiet is over: a scan, a flood, or a question and no more. A
// guess came after a silence of its own.
constexpr std::uint64_t kOnePacketMs = 10'000;
constexpr std::uint64_t kOnePacketGuessedMs = 1000;

}  // namespace

// Sooner than others of its protocol, if nobody has answered it and its own packets have not
// either.
std::uint64_t Core::worth_timeout_ms(const Flow& flow) const {
  if (worth_of(flow) != Worth::one_way || flow.own_answer()) return UINT64_MAX;
  return std::uint64_t{policy_->timeouts.unanswered} * 1000;
}

// Has its answer, and stays a candidate until its second packet. One that is dropped has to be
// quiet: what it tries again is the same flow.
bool Core::is_over(const Flow& flow, std::uint64_t ms) {
  if (flow.packets() != 1 || flow.blocked) return false;
  const bool guessed = flow.state == FlowState::guessed;
  return ms > flow.last_ms + (guessed ? kOnePacketGuessedMs : kOnePacketMs);
}

// Its place goes to another flow.
void Core::let_go(const FlowLife& life, l7m_settle_step what) {
  l7m_settlement& step = departures_.emplace_back();
  step.key = life.key.raw;
  step.flow_id = life.id;
  step.step = static_cast<std::uint8_t>(what);
}

void Core::write_departures() {
  if (departures_.empty()) return;
  auto steps = std::exchange(departures_, {});
  if (const auto status = dataplane_.settle(steps); !status.ok()) {
    log_error("{}", status.error().message());
    return;  // they stay, and the next sweep counts them again
  }
  for (const l7m_settlement& step : steps) {
    const FlowLife life{FlowKey{step.key}, step.flow_id};
    Flow* flow = flows_.find(life.key);
    if (flow == nullptr || flow->id != life.id) continue;
    if ((step.result & L7M_SETTLE_TOOK) == 0) {
      look_for(life);
      continue;
    }
    const bool verdict = step.step == L7M_SETTLE_REMOVE;
    if (verdict)
      flow->set_since(step.verdict.count);
    else
      flow->set_since(wide(step.candidate.count));
    ++(verdict ? counters_.evicted_verdicts : counters_.evicted_candidates);
    end_flow(life.key, "evicted");
  }
}

// Before a flow begins that has no verdict yet. The kernel holds no more candidates than its table:
// beyond that many flows, the one that makes way has lost its place there most likely.
void Core::make_room_among_candidates() {
  if (!admission_.waiting_full()) return;
  if (const auto life = admission_.take_waiting()) let_go(*life, L7M_SETTLE_TAKE);
}

// Keeps its place among the candidates, with its class.
void Core::keep_waiting(const FlowKey& key, Flow& flow) {
  flow.decided = false;
  admission_.forget(key, flow);
  admission_.wait(key, flow);
}

void Core::refuse(const FlowKey& key, Flow& flow, std::uint64_t& cause) {
  keep_waiting(key, flow);
  queue_edit(key, flow, L7M_EDIT_ACTION | L7M_EDIT_STATE);
  ++cause;
  if (!std::exchange(full_reported_, true))
    log_warning(
        "no room for a verdict, see \"flows\" in l7mark status: some flows keep their place "
        "among the candidates");
}

// The flows of `fresh_` that are known by one packet: their class goes to the candidates, and
// whoever has sent more by now stays in the list.
void Core::hold_one_packet_flows() {
  std::vector<l7m_settlement> steps;
  std::vector<FlowLife> rest;
  for (const FlowLife& life : fresh_) {
    const Flow* flow = flows_.find(life.key);
    if (flow == nullptr || flow->id != life.id || flow->decided) continue;
    if (flow->packets() > 1) {
      rest.push_back(life);
      continue;
    }
    l7m_settlement& step = steps.emplace_back();
    step.key = life.key.raw;
    step.flow_id = life.id;
    step.step = L7M_SETTLE_WAIT;
    step.verdict.action = ActionTable::index(flow->action, flow->state);
    step.verdict.state = static_cast<std::uint8_t>(flow->state);
  }
  if (steps.empty()) return;
  fresh_ = std::move(rest);
  if (const auto status = dataplane_.settle(steps); !status.ok()) {
    log_error("{}", status.error().message());
    return;  // sweeps find them
  }
  const std::uint64_t ms = now_ms();
  std::vector<Ended> over;
  for (const l7m_settlement& step : steps) {
    const FlowLife life{FlowKey{step.key}, step.flow_id};
    Flow* flow = flows_.find(life.key);
    if (flow == nullptr || flow->id != life.id || flow->decided) continue;  // it was there twice
    if ((step.result & L7M_SETTLE_MANUAL) != 0) {
      end_flow(life.key, "manual");
      continue;
    }
    if ((step.result & L7M_SETTLE_WAITS) == 0) {
      look_for(life);  // most likely the candidate has made way
      continue;
    }
    flow->set_since(wide(step.candidate.count));
    flow->set_times(step.candidate);
    flow->flags |= step.candidate.flags;
    if (flow->packets() > 1) {
      fresh_.push_back(life);
    } else if (is_over(*flow, ms)) {
      over.push_back({life, std::nullopt});
    } else {
      keep_waiting(life.key, *flow);
      if (!flow->retried) retries_.push_back(life);
      flow->retried = true;
    }
  }
  end_flows(over);
}

}  // namespace l7mark
