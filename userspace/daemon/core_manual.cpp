// SPDX-License-Identifier: GPL-2.0-only
// Verdicts that somebody wrote into the kernel's map by hand. They have no flow here: the entry in
// the kernel is all there is, and only its age or its class's end lets the daemon take it out.
#include <l7mark/sampling.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "daemon/core.hpp"
#include "dpi/client.hpp"
#include "util/clock.hpp"
#include "util/log.hpp"

namespace l7mark {

// Each class by itself has a number from the beginning, so that a verdict can be written by hand
// for a class that no flow has had yet.
void Core::number_classes() {
  for (std::size_t i = 0; i < policy_->classes.size(); ++i) {
    const auto id = actions_.intern({static_cast<std::uint16_t>(i)});
    if (id) continue;
    log_warning("{}", id.error().message());
    break;
  }
  write_actions();
}

Result<std::vector<Core::ManualVerdict>> Core::read_manual() const {
  std::vector<ManualVerdict> out;
  L7MARK_TRY(dataplane_.for_each_verdict([&](const FlowKey& key, const l7m_verdict& verdict) {
    if (verdict.flow_id == 0) out.push_back({key, verdict, {}});
  }));
  for (ManualVerdict& entry : out)
    entry.effect = dataplane_.action(entry.verdict.action).value_or(l7m_action{});
  return out;
}

// Only the kernel's tables are left of the run before. A class has a number and an effect there,
// and no name: it is taken for the same class if both are equal.
std::optional<std::uint32_t> Core::same_effect(const ManualVerdict& entry) {
  const std::uint32_t index = entry.verdict.action;
  if (index < L7M_STATES) return index;
  const std::uint16_t place = entry.effect.class_id;
  if (place == 0 || place > policy_->classes.size()) return std::nullopt;
  const auto id = actions_.intern({static_cast<std::uint16_t>(place - 1)});
  if (!id) return std::nullopt;
  const std::uint32_t state = index % L7M_STATES;
  const l7m_action& now = actions_.effective(*id).kernel[state];
  if (std::memcmp(&now, &entry.effect, sizeof(now)) != 0) return std::nullopt;
  return ActionTable::index(*id, static_cast<FlowState>(state));
}

// By the names of the classes, while the numbers of the policy before still have their meaning.
std::optional<std::uint32_t> Core::same_names(const ManualVerdict& entry, const Policy& before) {
  const std::uint32_t index = entry.verdict.action;
  if (index < L7M_STATES) return index;
  ClassList classes;
  for (const std::uint16_t old : actions_.effective(ActionTable::id_of_index(index)).classes) {
    const auto& now = policy_->classes;
    const auto same = std::find_if(now.begin(), now.end(), [&](const PolicyClass& c) {
      return c.name == before.classes[old].name;
    });
    if (same == now.end()) return std::nullopt;
    classes.push_back(static_cast<std::uint16_t>(same - now.begin()));
  }
  if (classes.empty()) return std::nullopt;  // a number that no class had
  const auto id = actions_.intern(classes);
  if (!id) return std::nullopt;
  return ActionTable::index(*id, static_cast<FlowState>(index % L7M_STATES));
}

// Gives each entry the number that its class has now. An entry whose class is gone goes too: its
// number may soon be another class's.
void Core::renumber_manual(
    const std::vector<ManualVerdict>& entries,
    const std::function<std::optional<std::uint32_t>(const ManualVerdict&)>& number) {
  std::vector<l7m_settlement> gone;
  for (const ManualVerdict& entry : entries) {
    const auto index = number(entry);
    if (!index) {
      l7m_settlement& step = gone.emplace_back();
      step.key = entry.key.raw;
      step.step = L7M_SETTLE_REMOVE;  // of flow_id 0: what is there by hand
      continue;
    }
    if (*index == entry.verdict.action) continue;
    l7m_edit edit{};
    edit.key = entry.key.raw;
    edit.what = L7M_EDIT_ACTION;  // of flow_id 0
    edit.action = *index;
    edits_.push_back(edit);
  }
  write_actions();
  write_edits();
  if (gone.empty()) return;
  log_warning("verdicts by hand that were taken out, because their class is gone: {}", gone.size());
  if (const auto status = dataplane_.settle(gone); !status.ok())
    log_error("{}", status.error().message());
}

// The last sweep tells of which keys it can be true, so that an answer to any other costs no system
// call. One that came since is kept by L7M_SETTLE_MANUAL.
bool Core::is_manual(const FlowKey& key) const {
  if (manual_.empty() || !manual_.contains(key)) return false;
  const auto verdict = dataplane_.verdict(key);
  return verdict && verdict->flow_id == 0;
}

void Core::age_manual(std::unordered_map<FlowKey, Manual> found, const l7m_clock& now) {
  const std::uint64_t ms = now_ms();
  std::vector<l7m_settlement> over;
  for (auto& [key, entry] : found) {
    const auto known = manual_.find(key);
    entry.since_ms = known == manual_.end() ? ms : known->second.since_ms;
    // Without a stamp no packet has come since it was written.
    const std::uint32_t stamp = entry.verdict.last_seen;
    const std::uint64_t age = stamp != 0 ? jiffies_.age_ms(stamp, now) : ms - entry.since_ms;
    if (age <= timeout_ms(key, l7m_is_closing(&entry.verdict) != 0)) continue;
    l7m_settlement& step = over.emplace_back();
    step.key = key.raw;
    step.step = L7M_SETTLE_END;
    step.verdict = entry.verdict;
  }
  manual_ = std::move(found);
  if (const auto status = dataplane_.settle(over); !status.ok()) {
    log_error("{}", status.error().message());
    return;
  }
  for (const l7m_settlement& step : over) {
    FlowKey key;
    key.raw = step.key;
    if ((step.result & L7M_SETTLE_BUSY) != 0) continue;
    manual_.erase(key);
    if ((step.result & L7M_SETTLE_TOOK) == 0) continue;
    const l7m_verdict& last = step.verdict;
    Tally& tally = ended_[actions_.effective(ActionTable::id_of_index(last.action)).class_name];
    ++tally.flows;
    tally.packets += last.count.packets[0] + last.count.packets[1];
    tally.bytes += last.count.bytes[0] + last.count.bytes[1];
  }
}

std::optional<nlohmann::ordered_json> Core::manual_record(const FlowKey& key) {
  const auto known = manual_.find(key);
  const auto now = recent_clock();
  if (known == manual_.end() || !now) return std::nullopt;
  const auto verdict = dataplane_.verdict(key);
  if (!verdict || verdict->flow_id != 0) return std::nullopt;
  const Finding finding = told_by(*verdict);
  Flow flow;
  flow.finding = &finding;
  take_verdict(flow, key, *verdict);
  flow.action = ActionTable::id_of_index(verdict->action);
  const std::uint64_t ms = now_ms();
  const std::uint64_t age = jiffies_.age_ms(verdict->last_seen, *now);
  flow.last_ms = verdict->last_seen == 0 ? known->second.since_ms : ms > age ? ms - age : 0;
  nlohmann::ordered_json out = record(key, flow, Source::manual);
  out.erase("flow_id");
  out.erase("first_seen");
  return out;
}

}  // namespace l7mark
