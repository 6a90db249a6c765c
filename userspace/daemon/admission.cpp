// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/admission.hpp"

#include <algorithm>
#include <utility>

namespace l7mark {

namespace {

// Flows that have been heard of since they came into the queue and go to its end again, in one
// search: where all go on sending, the search still ends.
constexpr int kSecondChances = 64;
// Less is no news: the first sweep has a flow's time from its verdict, which was written later than
// its last packet came.
constexpr std::uint64_t kNewsMs = 1000;
// Entries of flows that are gone, beyond as many as there are flows.
constexpr std::size_t kLeftOvers = 1024;

}  // namespace

Worth worth_of(const Flow& flow) {
  if (flow.total.packets[0] == 0 || flow.total.packets[1] == 0) return Worth::one_way;
  // A flow that was found in the kernel tells by its state that it had an answer of its own.
  const bool own = flow.own_answer() || (flow.state == FlowState::final &&
                                         (flow.found().application | flow.found().master) != 0);
  return own ? Worth::protected_flow : Worth::two_way;
}

// --- a queue -------------------------------------------------------------------------------------

WorthQueue::WorthQueue(FlowTable& flows, Belongs belongs)
    : flows_(flows), belongs_(std::move(belongs)) {}

Flow* WorthQueue::flow_of(const Entry& entry) {
  Flow* flow = flows_.find(entry.life.key);
  return flow != nullptr && flow->id == entry.life.id && belongs_(*flow) ? flow : nullptr;
}

void WorthQueue::push(const FlowKey& key, const Flow& flow, std::size_t live) {
  std::deque<Entry>& queue = worth_of(flow) == Worth::one_way ? one_way_ : more_;
  queue.push_back({{key, flow.id}, flow.last_ms});
  if (size() <= live * 2 + kLeftOvers) return;
  trim(one_way_);
  trim(more_);
}

void WorthQueue::trim(std::deque<Entry>& queue) {
  std::erase_if(queue, [this](const Entry& entry) { return flow_of(entry) == nullptr; });
  queue.shrink_to_fit();
}

std::optional<FlowLife> WorthQueue::pop(bool protected_too) {
  if (auto life = pop_from(one_way_, Worth::one_way)) return life;
  return pop_from(more_, protected_too ? Worth::protected_flow : Worth::two_way);
}

std::optional<FlowLife> WorthQueue::pop_from(std::deque<Entry>& queue, Worth highest) {
  int chances = kSecondChances;
  while (!queue.empty()) {
    Entry entry = queue.front();
    queue.pop_front();
    const Flow* flow = flow_of(entry);
    if (flow == nullptr) continue;
    if (worth_of(*flow) > highest) {
      // Answered meanwhile. One that is protected now is pushed again if it ever is no longer.
      if (&queue == &one_way_) more_.push_back(entry);
      continue;
    }
    if (flow->last_ms > entry.last_ms + kNewsMs && chances-- > 0) {
      entry.last_ms = flow->last_ms;
      queue.push_back(entry);
      continue;
    }
    return entry.life;
  }
  return std::nullopt;
}

// --- verdicts ------------------------------------------------------------------------------------

Admission::Admission(const Limits& limits, FlowTable& flows)
    : flows_(flows),
      size_(limits.flows),
      share_(std::max<std::size_t>(1, std::size_t{limits.flows} * limits.unprotected / 100)),
      candidates_(limits.candidates),
      tables_{
          Table{0, 0, WorthQueue(flows, [](const Flow& f) { return f.counted == kUnprotected; })},
          Table{0, 0, WorthQueue(flows, [](const Flow& f) { return f.counted == kUnprotected; })}},
      waiting_(flows, [](const Flow& f) { return !f.decided; }) {}

Admission::Room Admission::make_room(const FlowKey& key, Flow& flow) {
  Table& table = table_of(key);
  Room out;
  const bool full = table.unprotected + table.protected_flows >= size_;
  if (worth_of(flow) == Worth::protected_flow) {
    // Whatever is counted here: the kernel knows better if there is room.
    out.admitted = true;
    if (full) out.victim = take_victim(key);
  } else {
    const bool room = !full && table.unprotected < share_;
    if (!room) out.victim = take_victim(key);
    out.admitted = room || out.victim;
  }
  if (out.admitted) reserve(table, flow);
  return out;
}

void Admission::confirm(const FlowKey& key, Flow& flow) {
  forget(key, flow);
  count(key, flow);
}

std::optional<FlowLife> Admission::take_victim(const FlowKey& key) {
  auto life = table_of(key).queue.pop(false);
  if (life) forget(life->key, *flows_.find(life->key));
  return life;
}

void Admission::reserve(Table& table, Flow& flow) {
  const bool is_protected = worth_of(flow) == Worth::protected_flow;
  flow.counted = is_protected ? kProtected : kUnprotected;
  ++(is_protected ? table.protected_flows : table.unprotected);
}

void Admission::count(const FlowKey& key, Flow& flow) {
  if (flow.counted == (worth_of(flow) == Worth::protected_flow ? kProtected : kUnprotected)) return;
  forget(key, flow);
  Table& table = table_of(key);
  reserve(table, flow);
  if (flow.counted == kUnprotected) table.queue.push(key, flow, table.unprotected);
}

void Admission::forget(const FlowKey& key, Flow& flow) {
  Table& table = table_of(key);
  if (flow.counted == kProtected) --table.protected_flows;
  if (flow.counted == kUnprotected) --table.unprotected;
  flow.counted = kUncounted;
}

// --- candidates ----------------------------------------------------------------------------------

void Admission::wait(const FlowKey& key, const Flow& flow) {
  waiting_.push(key, flow, waiting());
}

std::size_t Admission::verdicts(bool protected_flows) const {
  std::size_t count = 0;
  for (const Table& table : tables_)
    count += protected_flows ? table.protected_flows : table.unprotected;
  return count;
}

std::size_t Admission::waiting() const {
  const std::size_t decided = verdicts(true) + verdicts(false);
  return flows_.size() > decided ? flows_.size() - decided : 0;
}

std::size_t Admission::queued() const {
  return tables_[0].queue.size() + tables_[1].queue.size() + waiting_.size();
}

}  // namespace l7mark
