// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/core.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "dpi/client.hpp"
#include "util/clock.hpp"
#include "util/keyed_hash.hpp"
#include "util/log.hpp"

namespace l7mark {

namespace {

// Stamps and promises of seconds need no clock that is newer, and to read it runs a program.
constexpr std::uint64_t kClockNs = 20'000'000;

Result<IpsetTarget> to_target(const IpsetAction& action, const EffectiveAction& effective,
                              const std::string& comment, bool ours) {
  IpsetTarget out;
  out.spec.name = action.name;
  const auto type = parse_ipset_type(action.type);
  if (!type) return Error{"use ipset", action.name, 0, "unknown type " + action.type};
  out.spec.type = *type;
  out.spec.timeout = action.timeout;
  out.spec.maxelem = action.maxelem;
  out.spec.hashsize = action.hashsize;
  out.spec.counters = action.counters;
  out.spec.comment = action.comment;
  out.spec.skbinfo = action.skbinfo;
  out.spec.ours = ours;
  if (action.comment) out.extras.comment = comment;
  if (action.skbinfo) {
    const l7m_action& kernel = effective.kernel[L7M_STATE_FINAL];
    out.extras.skbinfo = SkbInfo{kernel.mark, kernel.mark_mask,
                                 (kernel.flags & L7M_ACT_CLASSID) != 0 ? kernel.classid : 0, 0};
  }
  out.remove_at_end = action.delete_on_end;
  return out;
}

Result<NftTarget> to_target(const NftsetAction& action, bool ours) {
  NftTarget out;
  const auto family = parse_nft_family(action.family);
  if (!family) return Error{"use nft set", action.name, 0, "unknown family " + action.family};
  out.spec.family = *family;
  out.spec.table = action.table;
  out.spec.set = action.name;
  out.spec.timeout = action.timeout;
  out.spec.size = action.size;
  out.spec.create_table = action.create_table;
  out.spec.ours = ours;
  out.remove_at_end = action.delete_on_end;
  return out;
}

// Whether these are the flow's own endpoints: a worker that was taken over may say otherwise.
bool are_of(const FlowFacts& facts, const FlowKey& key) {
  const auto is = [&](int client) {
    return facts.client == key.address(client) && facts.client_port == key.port(client) &&
           facts.server == key.address(client ^ 1) && facts.server_port == key.port(client ^ 1);
  };
  return facts.protocol == key.raw.protocol && (is(0) || is(1));
}

bool same_class_actions(const EffectiveAction& effective) {
  return effective.ipsets.empty() && effective.nftsets.empty();
}

}  // namespace

Core::Core(Dataplane& dataplane, std::shared_ptr<const Policy> policy, RecordNames names,
           JiffiesClock clock, Events events, std::set<std::string> our_sets)
    : dataplane_(dataplane),
      policy_(std::move(policy)),
      names_(std::move(names)),
      jiffies_(clock),
      events_(std::move(events)),
      matcher_(std::make_unique<PolicyMatcher>(policy_)),
      actions_(policy_),
      our_sets_(std::move(our_sets)),
      admission_(policy_->limits, flows_),
      hints_(policy_->limits.hints) {}

// --- start, reload, exit -------------------------------------------------------------------------

Status Core::start() {
  L7MARK_TRY(make_class_targets(*policy_));
  update_zones();
  // The actions as the run before left them are about to be overwritten.
  auto by_hand = read_manual();
  if (!by_hand) return by_hand.error();
  L7MARK_TRY(write_policy());
  // Those of the run before have its numbers, and nobody knows any more what they rest on.
  clear_promises();
  number_classes();
  write_headers();
  renumber_manual(*by_hand, [this](const ManualVerdict& entry) { return same_effect(entry); });
  L7MARK_TRY(adopt());
  next_schedule_ = matcher_->next_change(wall_now());
  in_schedule_ = matcher_->in_schedule(wall_now());
  return success();
}

Status Core::write_policy() {
  L7MARK_TRY(set_sampling(sampling_));
  std::vector<std::pair<Address, unsigned>> inside;
  for (const Prefix& prefix : policy_->inside)
    inside.emplace_back(prefix.address, prefix.length128());
  L7MARK_TRY(dataplane_.set_inside(inside));
  write_actions();
  return success();
}

Status Core::set_sampling(bool on) {
  sampling_ = on;
  l7m_settings settings = policy_->settings();
  settings.rings = dataplane_.rings();
  settings.mark_mask = policy_->class_mark_bits();
  settings.recheck = policy_->first_packet.recheck * jiffies_.hz();
  settings.hz = jiffies_.hz();
  if (!on) settings.flags |= L7M_SET_PAUSED;
  // Nothing to be found there: no look-up on a new flow.
  if (policy_->classes.empty()) settings.flags &= ~std::uint32_t{L7M_SET_SERVICES | L7M_SET_HINTS};
  return dataplane_.write_settings(settings);
}

Result<std::vector<TargetId>> Core::make_targets(const EffectiveAction& action,
                                                 const std::string& comment) {
  std::vector<TargetId> out;
  for (const IpsetAction& set : action.ipsets) {
    auto target = to_target(set, action, comment, our_sets_.contains(set.name));
    if (!target) return target.error();
    auto id = publisher_.add_target(*target);
    if (!id) return id.error();
    out.push_back(*id);
  }
  for (const NftsetAction& set : action.nftsets) {
    const std::string full = set.family + " " + set.table + " " + set.name;
    auto target = to_target(set, our_sets_.contains(full));
    if (!target) return target.error();
    auto id = publisher_.add_target(*target);
    if (!id) return id.error();
    out.push_back(*id);
  }
  return out;
}

// Every class's sets are made at once, so that rules can name them before the first flow comes.
Status Core::make_class_targets(const Policy& policy) {
  for (std::size_t i = 0; i < policy.classes.size(); ++i) {
    const auto action = merge_classes(policy, {static_cast<std::uint16_t>(i)});
    auto made = make_targets(action, action.class_name);
    if (!made) return made.error();
  }
  return open_conntrack(policy);
}

const std::vector<TargetId>& Core::targets_of(std::uint32_t action) {
  const auto known = targets_.find(action);
  if (known != targets_.end()) return known->second;
  const EffectiveAction& effective = actions_.effective(action);
  auto made = make_targets(effective, effective.class_name);
  if (!made) log_error("{}", made.error().message());
  return targets_.emplace(action, made ? std::move(*made) : std::vector<TargetId>{}).first->second;
}

void Core::withdraw() {
  withdraw_conntrack();
  if (const auto status = publisher_.withdraw(); !status.ok())
    log_warning("{}", status.error().message());
}

std::set<std::string> Core::our_sets() const {
  std::set<std::string> out = our_sets_;
  for (const std::string& name : publisher_.created()) out.insert(name);
  return out;
}

void Core::set_interfaces(const std::vector<std::pair<std::string, std::uint32_t>>& indexes) {
  interfaces_ = indexes;
  matcher_->set_interfaces(indexes);
  update_zones();
  if (headers_ && headers_->uses_interfaces()) write_headers();
}

Status Core::reload(const std::shared_ptr<const Policy>& policy, RecordNames names) {
  commit();
  // The sets first: if one can't be made, nothing has changed yet.
  const auto old_policy = std::exchange(policy_, policy);
  std::map<std::uint32_t, std::vector<TargetId>> old_targets = std::exchange(targets_, {});
  const auto undo = [&](const Error& error) {
    policy_ = old_policy;
    targets_ = std::move(old_targets);
    return error;
  };
  if (const auto made = make_class_targets(*policy); !made.ok()) return undo(made.error());
  if (const auto begun = actions_.begin_generation(policy); !begun.ok()) return undo(begun.error());
  names_ = std::move(names);
  matcher_ = std::make_unique<PolicyMatcher>(policy_);
  matcher_->set_interfaces(interfaces_);
  if (const auto written = write_policy(); !written.ok())
    log_error("{}", written.error().message());  // the kernel refuses what it took before: keep on
  write_headers();
  clear_promises();
  move_zones();
  rematch();
  release_conntrack();
  if (const auto by_hand = read_manual())
    renumber_manual(*by_hand,
                    [&](const ManualVerdict& entry) { return same_names(entry, *old_policy); });
  else
    log_error("{}", by_hand.error().message());
  actions_.retire_previous();
  number_classes();
  // Sets that no class names any more go, if they were ours.
  std::vector<TargetId> kept;
  for (std::size_t i = 0; i < policy_->classes.size(); ++i) {
    const auto action = merge_classes(*policy_, {static_cast<std::uint16_t>(i)});
    if (auto ids = make_targets(action, action.class_name))
      kept.insert(kept.end(), ids->begin(), ids->end());
  }
  for (const auto& [action, ids] : targets_) kept.insert(kept.end(), ids.begin(), ids.end());
  for (const auto& [action, ids] : old_targets) {
    for (const TargetId id : ids) {
      if (std::find(kept.begin(), kept.end(), id) != kept.end()) continue;
      kept.push_back(id);  // once
      if (const auto status = publisher_.drop_target(id); !status.ok())
        log_warning("{}", status.error().message());
    }
  }
  next_schedule_ = matcher_->next_change(wall_now());
  in_schedule_ = matcher_->in_schedule(wall_now());
  return success();
}

// Promises of the old classes would mark by numbers that are soon used again.
void Core::clear_promises() {
  if (const auto status = dataplane_.rewrite_promises([](l7m_promise) { return std::nullopt; });
      !status.ok())
    log_error("{}", status.error().message());
  hints_.clear();
  for (Service& service : service_list_) service.written_action = 0;
}

// Gives every flow and every service its class anew, and candidates that were marked at once the
// class that their headers have now, or their neutral state.
void Core::rematch() {
  rematch_services();
  std::vector<FlowKey> keys;
  keys.reserve(flows_.size());
  flows_.for_each([&](const FlowKey& key, const Flow&) { keys.push_back(key); });
  for (const FlowKey& key : keys) {
    Flow* flow = flows_.find(key);
    if (flow == nullptr) continue;
    leave_sets(*flow);
    const std::uint32_t before = flow->action;
    const FlowFacts facts = facts_of(key, *flow);
    renew_promise(key, *flow);
    flow->action = action_of(*flow, facts);
    enter_sets(*flow, facts);
    mark_conntrack(key, *flow);
    queue_edit(key, *flow, L7M_EDIT_ACTION);
    if (flow->followed && !wants_names(*flow)) {
      flow->followed = false;
      fresh_.push_back({key, flow->id});
    }
    note_block(key, *flow);
    if (before != flow->action) emit("update", key, *flow, "policy");
  }
  write_actions();
  const auto status =
      dataplane_.for_each_candidate([&](const FlowKey& key, const l7m_candidate& c) {
        if (c.action < L7M_STATES || flows_.find(key) != nullptr) return;
        l7m_edit edit{};
        edit.key = key.raw;
        edit.flow_id = c.flow_id;
        edit.what = L7M_EDIT_ACTION | L7M_EDIT_STATE;
        const std::uint32_t action = headers_action(key, c);
        const FlowState state = action != 0 ? FlowState::provisional : FlowState::undecided;
        edit.action = ActionTable::index(action, state);
        edit.state = static_cast<std::uint8_t>(state);
        edits_.push_back(edit);
      });
  if (!status.ok()) log_error("{}", status.error().message());
  write_actions();
  write_edits();
  write_services();
  write_conntrack();
  publisher_.flush(now_ms());
}

// The application, as far as a verdict tells it.
Finding Core::told_by(const l7m_verdict& verdict) {
  Finding finding;
  finding.application = verdict.application;
  finding.master = verdict.master;
  finding.category = names_.catalog.application_category(verdict.application);
  std::string name = names_.catalog.application_name(finding.application);
  if (finding.master != 0 && finding.master != finding.application && finding.application != 0)
    name.insert(0, names_.catalog.application_name(finding.master) + ".");
  else if (finding.application == 0 && finding.master != 0)
    name = names_.catalog.application_name(finding.master);
  finding.name = flows_.intern(name.empty() ? "Unknown" : name);
  return finding;
}

// Takes over the rest of a verdict, but its action, its id and its age.
void Core::take_verdict(Flow& flow, const FlowKey& key, const l7m_verdict& verdict) const {
  flow.state =
      verdict.state < L7M_STATES ? static_cast<FlowState>(verdict.state) : FlowState::guessed;
  flow.initiator = verdict.initiator & 1;
  flow.client = client_of(key, flow.initiator, verdict.flags, policy_->inside) & 1;
  flow.flags = verdict.flags;
  flow.set_since(verdict.count);
}

// Flows that the kernel went on marking while nobody was there. What only the packets told (host
// name, risks) is gone; application and counters are in the entry.
Status Core::adopt() {
  if (!dataplane_.adopted()) return success();
  const auto now = dataplane_.clock();
  if (!now) return now.error();
  std::vector<std::pair<FlowKey, l7m_verdict>> found;
  L7MARK_TRY(dataplane_.for_each_verdict([&](const FlowKey& key, const l7m_verdict& v) {
    if (v.flow_id != 0) found.emplace_back(key, v);
  }));
  const std::uint64_t ms = now_ms();
  for (const auto& [key, verdict] : found) {
    Flow& flow = flows_.at(key);
    flow.id = verdict.flow_id;
    take_verdict(flow, key, verdict);
    flow.decided = true;
    const std::uint64_t age = jiffies_.age_ms(verdict.last_seen, *now);
    flow.last_ms = ms > age ? ms - age : 0;
    flow.first_ns = flow.last_ms * 1'000'000;
    flows_.set_finding(flow, told_by(verdict));
    admission_.count(key, flow);
    if (verdict.action >= L7M_STATES) adopt_conntrack(key, flow);
    ++counters_.adopted;
  }
  rematch();
  if (counters_.adopted > 0) log_info("adopted {} flows from the kernel", counters_.adopted);
  return success();
}

// --- classes -------------------------------------------------------------------------------------

std::uint32_t Core::classify(const Flow& flow, const FlowFacts& facts) {
  const ClassList classes = matcher_->match(facts, flow.state, wall_now());
  const auto id = actions_.intern(classes, matcher_->by_guess(facts, flow.state, classes));
  if (!id) {
    log_error("{}", id.error().message());
    return 0;
  }
  return *id;
}

std::uint32_t Core::action_of(const Flow& flow, const FlowFacts& facts) {
  const bool probe = (flow.flags & L7M_FLOW_PROBE) != 0;
  const bool over = flow.state == FlowState::final || flow.state == FlowState::guessed;
  const bool own = flow.state == FlowState::final && facts.own_answer();
  const bool headers = over && promised_by(flow) == Source::headers;
  if (flow.promised != 0 && !own && !headers && (over || !probe)) return flow.promised;
  return classify(flow, facts);
}

void Core::set_class(Flow& flow, const FlowFacts& facts, std::uint32_t action) {
  if (action == flow.action) {
    if (!flow.entries) enter_sets(flow, facts);
    return;
  }
  leave_sets(flow);
  flow.action = action;
  enter_sets(flow, facts);
}

void Core::enter_sets(Flow& flow, const FlowFacts& facts) {
  if (flow.action == 0 || same_class_actions(actions_.effective(flow.action))) return;
  for (const TargetId target : targets_of(flow.action)) {
    const EntryId id = publisher_.on_flow(target, facts, now_ms());
    if (id == kNoEntry) continue;
    if (!flow.entries) flow.entries = std::make_unique<std::vector<EntryId>>();
    flow.entries->push_back(id);
  }
}

void Core::leave_sets(Flow& flow) {
  if (!flow.entries) return;
  for (const EntryId id : *flow.entries) publisher_.on_end(id);
  flow.entries.reset();
}

Result<l7m_clock> Core::recent_clock() {
  const std::uint64_t ns = now_ns();
  if (clock_ && ns < clock_->time_ns + kClockNs) return *clock_;
  auto fresh = dataplane_.clock();
  if (fresh) clock_ = *fresh;
  return fresh;
}

void Core::queue_edit(const FlowKey& key, const Flow& flow, std::uint8_t what,
                      const SamplingOverride* sampling) {
  l7m_edit edit{};
  edit.key = key.raw;
  edit.flow_id = flow.id;
  edit.what = what;
  edit.action = ActionTable::index(flow.action, flow.state);
  edit.state = static_cast<std::uint8_t>(flow.state);
  edit.application = flow.found().application;
  edit.master = flow.found().master;
  if (sampling != nullptr) {
    edit.what |= L7M_EDIT_PACKETS;
    edit.packets = sampling->packets;
    if (sampling->whole) {
      edit.what |= L7M_EDIT_WHOLE;
      edit.whole = *sampling->whole;
    }
  }
  edits_.push_back(edit);
}

// The verdict that follows says it all. A batch is short; in a long one, an edit too many is no
// harm.
void Core::drop_edit(const FlowKey& key, std::uint64_t id) {
  constexpr std::size_t kLookBack = 64;
  const std::size_t end = edits_.size() > kLookBack ? edits_.size() - kLookBack : 0;
  for (std::size_t i = edits_.size(); i-- > end;) {
    if (edits_[i].flow_id != id || std::memcmp(&edits_[i].key, &key.raw, sizeof(key.raw)) != 0)
      continue;
    edits_.erase(edits_.begin() + static_cast<std::ptrdiff_t>(i));
    return;
  }
}

// --- what workers say ----------------------------------------------------------------------------

void Core::on_messages(std::span<const Message> messages) {
  std::array<FlowKey, kMessagesAtOnce> keys{};
  std::size_t count = 0;
  for (const Message& message : messages.first(std::min(messages.size(), keys.size()))) {
    if (const auto* answer = std::get_if<Answer>(&message))
      keys[count++] = answer->key;
    else if (const auto* reopened = std::get_if<Reopened>(&message))
      keys[count++] = reopened->key;
  }
  flows_.prefetch(std::span(keys).first(count));
  for (const Message& message : messages) {
    if (const auto* answer = std::get_if<Answer>(&message))
      on_answer(*answer);
    else if (const auto* hint = std::get_if<DnsHint>(&message))
      on_hint(*hint);
    else if (const auto* reopened = std::get_if<Reopened>(&message))
      on_reopened(*reopened);
  }
}

// The flow that an answer is about, null if its life is over. The kernel is only asked where
// another life of the five-tuple is known here.
Flow* Core::begin_life(const Answer& answer, bool& fresh) {
  Flow* flow = flows_.find(answer.key);
  if (flow != nullptr && flow->id != answer.id) {
    if (dataplane_.find_life(answer.key, answer.id) == Dataplane::Place::none) return nullptr;
    // Nobody has told of its end.
    end_flow(answer.key, flow->decided ? "lost" : "evicted");
    flow = nullptr;
  }
  fresh = flow == nullptr;
  if (!fresh) return flow;
  make_room_among_candidates();
  ++counters_.flows_begun;
  flow = &flows_.at(answer.key);
  flow->id = answer.id;
  return flow;
}

void Core::on_answer(const Answer& said) {
  const FlowKey key = said.key;
  const bool last = said.state == FlowState::final || said.state == FlowState::guessed;
  if (said.state == FlowState::undecided || !are_of(said.facts, key)) return;
  if (is_manual(key)) return;
  bool fresh = false;
  Flow* const life = begin_life(said, fresh);
  if (life == nullptr) return;
  Flow& flow = *life;
  Answer doubted;
  const bool doubtful = is_doubtful(flow, said);
  if (doubtful) {
    doubted = said;
    doubted.facts.confidence = Confidence::none;
    if (last) doubted.state = FlowState::guessed;
    ++counters_.doubted;
  }
  const Answer& answer = doubtful ? doubted : said;
  const std::string* name_before = flow.found().name;
  const bool was_decided = flow.decided;
  const FlowState state_before = flow.state;
  update_flow(flow, key, answer, flows_);
  constexpr std::uint16_t kPromised =
      L7M_FLOW_SERVICE | L7M_FLOW_HINT | L7M_FLOW_HEADERS | L7M_FLOW_KEPT;
  if (fresh && (answer.flags & kPromised) != 0) note_promise(key, flow);
  if (was_decided && !last) flow.state = state_before;  // a stray sample of a decided flow
  // Those of the answer, but where the flow keeps a better one.
  const bool keeps = keeps_finding(flow, answer);
  const FlowFacts kept = keeps ? facts_of(key, flow) : FlowFacts();
  const FlowFacts& facts = keeps ? kept : answer.facts;
  const std::uint32_t action_before = flow.action;
  set_class(flow, facts, action_of(flow, facts));
  mark_conntrack(key, flow);
  if (flow.state != state_before) weigh_promise(key, flow, state_before);
  if (was_decided) teach_service(key, flow);

  const std::uint8_t what = L7M_EDIT_ACTION | L7M_EDIT_STATE | L7M_EDIT_APPLICATION;
  if (!last) {
    queue_edit(key, flow, what, policy_->sampling.override_for(flow.found().application));
  } else if (was_decided) {
    queue_edit(key, flow, what);
  } else if (answer.followed && wants_names(flow)) {
    flow.followed = true;
    const SamplingOverride no_limit{.applications = {}, .packets = L7M_NO_LIMIT, .whole = {}};
    queue_edit(key, flow, what, &no_limit);
  } else {
    flow.followed = false;
    drop_edit(key, flow.id);
    fresh_.push_back({key, flow.id});
  }
  if (was_decided)
    admission_.count(key, flow);
  else if (!last || flow.followed)
    admission_.wait(key, flow);
  note_block(key, flow);

  if (fresh) {
    emit("flow", key, flow);
  } else if (flow.found().name != name_before || flow.action != action_before ||
             flow.state != state_before) {
    emit("update", key, flow);
  }
  if (last && actions_.effective(flow.action).log) log_flow(key, flow);
}

void Core::on_worker_died(std::uint32_t worker, const std::optional<FlowKey>& culprit) {
  const auto sampled = culprit ? dataplane_.candidate(*culprit) : std::nullopt;
  if (culprit && (sampled || flows_.find(*culprit) != nullptr)) {
    bool fresh = false;
    Flow& flow = flows_.at(*culprit, &fresh);
    if (fresh) {
      ++counters_.flows_begun;
      flow.id = sampled->flow_id;
      flow.initiator = sampled->initiator & 1;
    }
    flow.state = FlowState::guessed;
    if (flow.finding == nullptr) {
      Finding unknown;
      unknown.name = flows_.intern("Unknown");
      flows_.set_finding(flow, std::move(unknown));
    }
    flow.last_ms = now_ms();
    if (!flow.decided) fresh_.push_back({*culprit, flow.id});
    // Else whoever crashes the worker would undo what its first packet was given.
    if (fresh) {
      flow.client = client_of(*culprit, flow.initiator, sampled->flags, policy_->inside) & 1;
      note_promise(*culprit, flow);
    }
    const FlowFacts facts = facts_of(*culprit, flow);
    set_class(flow, facts, action_of(flow, facts));
    note_block(*culprit, flow);
  }
  // What the dead one knew of its flows is gone: let the kernel sample them some more.
  const SamplingConfig& sampling = policy_->sampling;
  const auto status =
      dataplane_.for_each_candidate([&](const FlowKey& key, const l7m_candidate& c) {
        if (c.ring != worker || c.sampled == 0 || (culprit && key == *culprit)) return;
        l7m_edit edit{};
        edit.key = key.raw;
        edit.flow_id = c.flow_id;
        edit.what = L7M_EDIT_PACKETS | L7M_EDIT_WHOLE;
        edit.packets = static_cast<std::uint8_t>(
            c.packets == L7M_NO_LIMIT ? L7M_NO_LIMIT
                                      : std::min(L7M_MAX_PACKETS, c.sampled + sampling.packets));
        edit.whole =
            static_cast<std::uint8_t>(std::min(255, c.sampled + sampling.whole_of(c.whole)));
        edits_.push_back(edit);
      });
  if (!status.ok()) log_error("{}", status.error().message());
  commit();
}

}  // namespace l7mark
