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
  // verdict must come out on top. What finds the table full becomes an edit after all.
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

// A flow of one packet and then nothing is a scan or a flood: it does not get to fill the table.
// One that is dropped has to be quiet: what it tries again is the same flow.
bool Core::passing(const Flow& flow, std::uint64_t ms) {
  return flow.packets() == 1 && flow.state != FlowState::final && !flow.blocked &&
         ms > flow.last_ms + 1000;
}

void Core::write_verdicts() {
  if (fresh_.empty()) return;
  const auto now = recent_clock();
  const std::uint64_t ms = now_ms();
  std::vector<l7m_settlement> steps;
  std::vector<Flow*> flows;  // by step; null: to be let go
  steps.reserve(fresh_.size());
  flows.reserve(fresh_.size());
  for (const auto& [key, id] : fresh_) {
    Flow* flow = flows_.find(key);
    if (flow == nullptr || flow->id != id || flow->decided) continue;
    l7m_settlement& step = steps.emplace_back();
    step.key = key.raw;
    step.flow_id = id;
    if (passing(*flow, ms)) {
      step.step = L7M_SETTLE_TAKE_QUIET;
      step.candidate.count = narrow(flow->total);
      flows.push_back(nullptr);
      continue;
    }
    step.step = L7M_SETTLE_DECIDE;
    step.verdict.last_seen = now ? static_cast<std::uint32_t>(now->jiffies) : 0;
    step.verdict.action = ActionTable::index(flow->action, flow->state);
    step.verdict.application = flow->found().application;
    step.verdict.master = flow->found().master;
    step.verdict.state = static_cast<std::uint8_t>(flow->state);
    step.verdict.initiator = flow->initiator;
    step.verdict.flags = flow->flags;
    flow->decided = true;  // and not twice, if the key is there twice
    flows.push_back(flow);
  }
  fresh_.clear();
  // The candidate goes with the verdict's coming, so that no packet falls between the two tables;
  // what it has counted is the flow's beginning.
  if (const auto status = dataplane_.settle(steps); !status.ok()) {
    log_error("{}", status.error().message());
    for (Flow* flow : flows)
      if (flow != nullptr) flow->decided = false;
    return;
  }
  for (std::size_t i = 0; i < steps.size(); ++i) {
    FlowKey key;
    key.raw = steps[i].key;
    if ((steps[i].result & L7M_SETTLE_MANUAL) != 0) {
      end_flow(key, "manual");
    } else if (flows[i] != nullptr && (steps[i].result & L7M_SETTLE_STALE) != 0) {
      end_flow(key, "evicted");
    } else if (flows[i] != nullptr) {
      on_settled(key, *flows[i], steps[i]);
    } else if ((steps[i].result & L7M_SETTLE_BUSY) != 0) {
      // It goes on after all, and gets its verdict by the next commit.
      Flow* flow = flows_.find(key);
      flow->set_before(wide(steps[i].candidate.count));
      fresh_.push_back({key, flow->id});
    } else {
      ++counters_.one_packet;
      end_flow(key, "idle");
    }
  }
}

void Core::on_settled(const FlowKey& key, Flow& flow, const l7m_settlement& step) {
  if ((step.result & L7M_SETTLE_WROTE) == 0) {
    flow.decided = false;
    queue_edit(key, flow, L7M_EDIT_ACTION | L7M_EDIT_STATE);
    if ((step.result & L7M_SETTLE_NO_MEMORY) != 0) {
      ++counters_.no_memory;
      if (!std::exchange(no_memory_reported_, true))
        log_warning(
            "the kernel has no memory for a verdict: new flows keep their place among the "
            "candidates");
      return;
    }
    ++counters_.table_full;
    if (!std::exchange(full_reported_, true))
      log_warning(
          "the verdict table is full: new flows keep their place among the candidates; "
          "raise limits.flows");
    return;
  }
  flow.sweep = sweep_;
  if ((step.result & L7M_SETTLE_TOOK) == 0) return;
  const l7m_candidate& candidate = step.candidate;
  flow.set_before(wide(candidate.count));
  flow.set_times(candidate);
  flow.flags |= candidate.flags;
  teach_service(key, flow);
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
