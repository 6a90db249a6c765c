// SPDX-License-Identifier: GPL-2.0-only
// The main process's writes: what the answers of a batch come to, in the kernel and in sets.
#include "daemon/core.hpp"

#include <utility>
#include <vector>

#include "util/clock.hpp"
#include "util/log.hpp"

namespace l7mark {

void Core::commit() {
  write_actions();
  // A flow's first answer may be an edit and its last a verdict, in one batch of messages: the
  // verdict must come out on top. What finds no room for one becomes an edit after all.
  write_edits();
  write_verdicts();
  write_edits();
  write_services();
  publisher_.flush(now_ms());
  write_conntrack();
}

void Core::write_actions() {
  const auto writes = actions_.take_writes();
  for (const ActionTable::Write& write : writes) {
    if (const auto status = dataplane_.write_action(write.index, write.action); !status.ok())
      log_error("{}", status.error().message());
  }
  if (writes.empty()) return;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> marks;
  for (const auto& [mark, index] : actions_.marks()) marks.emplace_back(mark, index);
  if (const auto status = dataplane_.set_marks(marks); !status.ok())
    log_error("{}", status.error().message());
}

void Core::write_verdicts() {
  write_departures();
  if (fresh_.empty()) return;
  hold_one_packet_flows();
  write_verdicts_of(std::exchange(fresh_, {}));
  // A protected flow that found the table full, although there was room by what is known here: by
  // now it has been made.
  write_departures();
  write_verdicts_of(std::exchange(fresh_, {}));
}

void Core::write_verdicts_of(const std::vector<FlowLife>& lives) {
  if (lives.empty()) return;
  const auto now = recent_clock();
  std::vector<l7m_settlement> steps;
  std::vector<Flow*> flows;
  steps.reserve(lives.size());
  flows.reserve(lives.size());
  for (const auto& [key, id] : lives) {
    Flow* flow = flows_.find(key);
    if (flow == nullptr || flow->id != id || flow->decided) continue;
    const auto room = admission_.make_room(key, *flow);
    if (room.victim) let_go(*room.victim, L7M_SETTLE_REMOVE);
    if (!room.admitted) {
      refuse(key, *flow, counters_.share_full);
      continue;
    }
    l7m_settlement& step = steps.emplace_back();
    step.key = key.raw;
    step.flow_id = id;
    step.step = L7M_SETTLE_DECIDE;
    step.verdict.last_seen = now ? static_cast<std::uint32_t>(now->jiffies) : 0;
    step.verdict.action = ActionTable::index(flow->action, flow->state);
    step.verdict.application = flow->found().application;
    step.verdict.master = flow->found().master;
    step.verdict.state = static_cast<std::uint8_t>(flow->state);
    step.verdict.initiator = flow->initiator;
    step.verdict.flags = flow->flags & static_cast<std::uint16_t>(~L7M_FLOW_CLOSING);
    step.verdict.next_look = next_look(*flow);
    flow->decided = true;  // and not twice, if the key is there twice
    flows.push_back(flow);
  }
  write_departures();
  // The candidate goes with the verdict's coming, so that no packet falls between the two tables;
  // what it has counted is the flow's beginning.
  if (const auto status = dataplane_.settle(steps); !status.ok()) {
    log_error("{}", status.error().message());
    for (std::size_t i = 0; i < steps.size(); ++i) keep_waiting(FlowKey{steps[i].key}, *flows[i]);
    return;
  }
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const FlowKey key{steps[i].key};
    if ((steps[i].result & L7M_SETTLE_MANUAL) != 0)
      end_flow(key, "manual");
    else if ((steps[i].result & L7M_SETTLE_STALE) != 0)
      end_flow(key, "evicted");
    else
      on_settled(key, *flows[i], steps[i]);
  }
}

void Core::on_settled(const FlowKey& key, Flow& flow, const l7m_settlement& step) {
  if ((step.result & L7M_SETTLE_WROTE) == 0) {
    if ((step.result & L7M_SETTLE_NO_MEMORY) != 0) {
      refuse(key, flow, counters_.no_memory);
    } else if (const auto victim = worth_of(flow) == Worth::protected_flow
                                       ? admission_.take_victim(key)
                                       : std::nullopt) {
      let_go(*victim, L7M_SETTLE_REMOVE);
      flow.decided = false;
      admission_.forget(key, flow);
      fresh_.push_back({key, flow.id});
    } else {
      refuse(key, flow, counters_.table_full);
    }
    return;
  }
  flow.sweep = sweep_;
  if ((step.result & L7M_SETTLE_TOOK) != 0) {
    const l7m_candidate& candidate = step.candidate;
    flow.set_since(wide(candidate.count));
    flow.keep_count();
    flow.set_times(candidate);
    flow.flags |= candidate.flags & static_cast<std::uint16_t>(~L7M_FLOW_AGAIN);
    teach_service(key, flow);
  }
  admission_.confirm(key, flow);
}

void Core::write_edits() {
  if (edits_.empty()) return;
  if (const auto status = dataplane_.edit(edits_); !status.ok())
    log_error("{}", status.error().message());
  edits_.clear();
}

// After write_actions(): they refer to actions.
void Core::write_services() {
  if (services_.empty()) return;
  if (const auto status = dataplane_.put_services(services_); !status.ok()) {
    for (Service& service : service_list_) service.written_ms = 0;
    log_debug("{}", status.error().message());
  }
  services_.clear();
}

}  // namespace l7mark
