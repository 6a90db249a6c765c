// SPDX-License-Identifier: GPL-2.0-only
#include "policy/actions.hpp"

#include <algorithm>
#include <optional>
#include <utility>

namespace l7mark {

namespace {

constexpr std::uint32_t kMaxIds = L7M_MAX_ACTIONS / L7M_STATES;

// Bits that `sum` has already are left as they are.
void combine(MaskedValue& sum, const MaskedValue& more) {
  const std::uint32_t fresh = more.mask & ~sum.mask;
  sum.value |= more.value & fresh;
  sum.mask |= fresh;
}

template <class T>
void keep_first(std::optional<T>& kept, const std::optional<T>& next) {
  if (!kept) kept = next;
}

l7m_action kernel_action(const Actions& merged, const MaskedValue& mark, std::uint16_t class_id) {
  l7m_action out{};
  out.class_id = class_id;
  out.mark = mark.value;
  out.mark_mask = mark.mask;
  if (mark.mask != 0) out.flags |= L7M_ACT_MARK;
  if (merged.priority) {
    out.priority = *merged.priority;
    out.flags |= L7M_ACT_PRIORITY;
  }
  if (merged.tc_class) {
    out.classid = *merged.tc_class;
    out.flags |= L7M_ACT_CLASSID;
  }
  if (merged.dscp) {
    out.dscp = *merged.dscp;
    out.flags |= L7M_ACT_DSCP;
  }
  if (merged.drop) out.flags |= L7M_ACT_DROP;
  return out;
}

}  // namespace

EffectiveAction merge_classes(const Policy& policy, const ClassList& classes,
                              const ClassList& spared) {
  EffectiveAction out;
  out.classes = classes;
  out.spared = spared;
  Actions merged;
  MaskedValue mark;
  MaskedValue conntrack;
  for (const std::uint16_t index : classes) {
    const Actions& next = policy.classes[index].actions;
    if (next.mark) combine(mark, *next.mark);
    keep_first(merged.dscp, next.dscp);
    keep_first(merged.priority, next.priority);
    keep_first(merged.tc_class, next.tc_class);
    if (!merged.allow && !merged.drop) {
      merged.allow = next.allow;
      merged.drop = next.drop && std::find(spared.begin(), spared.end(), index) == spared.end();
    }
    out.log = out.log || next.log;
    const auto names_set = [](const auto& wanted) {
      return [&wanted](const auto& set) { return set == wanted; };
    };
    if (next.ipset && std::none_of(out.ipsets.begin(), out.ipsets.end(), names_set(*next.ipset)))
      out.ipsets.push_back(*next.ipset);
    if (next.nftset &&
        std::none_of(out.nftsets.begin(), out.nftsets.end(), names_set(*next.nftset)))
      out.nftsets.push_back(*next.nftset);
    if (next.conntrack) {
      if (next.conntrack->mark) combine(conntrack, *next.conntrack->mark);
      out.conntrack_labels |= next.conntrack->labels;
    }
  }
  out.drop = merged.drop;
  std::uint16_t class_id = 0;
  if (!classes.empty()) {
    out.class_name = policy.classes[classes.front()].name;
    class_id = static_cast<std::uint16_t>(classes.front() + 1);
  }
  const StateMarks& states = policy.state_marks;
  for (std::size_t state = 0; state < L7M_STATES; ++state) {
    MaskedValue with_state = mark;
    combine(with_state, {states.values[state], states.mask});
    out.kernel[state] = kernel_action(merged, with_state, class_id);
    out.conntrack_mark[state] = conntrack;
    combine(out.conntrack_mark[state],
            {states.values[state] & states.conntrack_mask, states.conntrack_mask});
  }
  return out;
}

ActionTable::ActionTable(std::shared_ptr<const Policy> policy)
    : policy_(std::move(policy)), current_(std::make_unique<Generation>()) {
  put(0, merge_classes(*policy_, {}));
}

void ActionTable::put(std::uint32_t id, EffectiveAction action) {
  for (std::uint32_t state = 0; state < L7M_STATES; ++state)
    writes_.push_back({id * L7M_STATES + state, action.kernel[state]});
  effective_.insert_or_assign(id, std::move(action));
}

Status ActionTable::begin_generation(std::shared_ptr<const Policy> policy) {
  if (previous_ != nullptr)
    return Error{"begin a generation of actions", policy->file, 0,
                 "the one before is not retired yet"};
  policy_ = std::move(policy);
  previous_ = std::exchange(current_, std::make_unique<Generation>());
  put(0, merge_classes(*policy_, {}));
  return success();
}

void ActionTable::retire_previous() {
  if (previous_ == nullptr) return;
  for (const auto& [key, id] : *previous_) effective_.erase(id);
  previous_.reset();
}

Result<std::uint32_t> ActionTable::intern(const ClassList& classes, const ClassList& spared) {
  if (classes.empty()) return std::uint32_t{0};
  ClassList dropping;
  for (const std::uint16_t index : spared)
    if (policy_->classes[index].actions.drop) dropping.push_back(index);
  auto key = std::pair(classes, std::move(dropping));
  if (const auto found = current_->find(key); found != current_->end()) return found->second;
  if (effective_.size() >= kMaxIds)
    return Error{"number a combination of classes", policy_->classes[classes.front()].name, 0,
                 "all " + std::to_string(kMaxIds - 1) +
                     " numbers are taken: use fewer classes with \"continue\""};
  // Numbers go round, so that a freed one rests as long as possible.
  while (effective_.contains(next_)) next_ = next_ + 1 < kMaxIds ? next_ + 1 : 1;
  const std::uint32_t id = next_;
  next_ = next_ + 1 < kMaxIds ? next_ + 1 : 1;
  put(id, merge_classes(*policy_, key.first, key.second));
  current_->emplace(std::move(key), id);
  return id;
}

std::vector<ActionTable::Write> ActionTable::take_writes() {
  return std::exchange(writes_, {});
}

const EffectiveAction& ActionTable::effective(std::uint32_t id) const {
  const auto found = effective_.find(id);
  return found == effective_.end() ? effective_.at(0) : found->second;
}

std::map<std::uint32_t, std::uint32_t> ActionTable::marks() const {
  const std::uint32_t bits = policy_->class_mark_bits();
  std::map<std::uint32_t, std::uint32_t> out;
  for (const auto& [key, id] : *current_) {
    const auto& action = effective_.at(id).kernel[L7M_STATE_FINAL];
    const std::uint32_t mark = action.mark & bits;
    if (mark != 0 && (action.flags & L7M_ACT_CLASSID) != 0)
      out.try_emplace(mark, index(id, FlowState::final));
  }
  return out;
}

}  // namespace l7mark
