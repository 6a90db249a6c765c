// SPDX-License-Identifier: GPL-2.0-only
#include "publish/publisher.hpp"

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include "publish/sinks.hpp"
#include "util/log.hpp"

namespace l7mark {

namespace {

constexpr Milliseconds kCheckEvery = 5000;
constexpr Milliseconds kRetryEnsure = 10000;
constexpr Milliseconds kRetryFull = 10000;
constexpr Milliseconds kRetryOther = 2000;
constexpr std::size_t kSample = 16;

Milliseconds retry_after(WriteTrouble trouble) {
  switch (trouble) {
    case WriteTrouble::gone:
      return 0;  // cure() comes first
    case WriteTrouble::full:
    case WriteTrouble::element:
      return kRetryFull;
    default:
      return kRetryOther;
  }
}

template <auto Holds, auto Type>
bool holds_type(std::uint8_t protocol) {
  return Holds(Type, protocol);
}

TargetShape shape_of(IpsetType type) {
  switch (type) {
    case IpsetType::ip_port_ip:
      return {true, true, holds_type<ipset_holds, IpsetType::ip_port_ip>};
    case IpsetType::ip_port:
      return {true, false, holds_type<ipset_holds, IpsetType::ip_port>};
    case IpsetType::ip:
    case IpsetType::net:
      break;
  }
  return {false, false, nullptr};
}

}  // namespace

template <class T>
std::optional<TargetId> Publisher::known(const T& target) const {
  for (std::size_t i = 0; i < targets_.size(); ++i) {
    const auto* origin = std::get_if<T>(&targets_[i].origin);
    if (origin != nullptr && !targets_[i].dropped && *origin == target)
      return static_cast<TargetId>(i);
  }
  return std::nullopt;
}

Result<TargetId> Publisher::add_target(const IpsetTarget& target) {
  if (const auto id = known(target)) return *id;
  const std::string object = "ipset " + target.spec.name;
  if (!target.extras.comment.empty() && !target.spec.comment)
    return Error{"use", object, 0, "comments need the set's option comment"};
  if (target.extras.skbinfo && !target.spec.skbinfo)
    return Error{"use", object, 0, "mark, class id and queue need the set's option skbinfo"};
  auto pair = ipset_pair(target.spec);
  if (!pair.ok()) return pair.error();
  if (!ipset_) {
    auto opened = Ipset::open();
    if (!opened.ok()) return opened.error();
    ipset_ = std::make_unique<Ipset>(std::move(*opened));
  }
  Target made;
  made.slots[0].sink = make_ipset_sink(*ipset_, pair->first, target.extras);
  made.slots[1].sink = make_ipset_sink(*ipset_, pair->second, target.extras);
  made.shape = shape_of(target.spec.type);
  made.policy = {target.spec.timeout, target.remove_at_end};
  made.origin = target;
  return place(std::move(made));
}

Result<TargetId> Publisher::add_target(const NftTarget& target) {
  if (const auto id = known(target)) return *id;
  auto specs = nft_pair(target.spec);
  if (!specs.ok()) return specs.error();
  if (!nft_) {
    auto opened = Nft::open();
    if (!opened.ok()) return opened.error();
    nft_ = std::make_unique<Nft>(std::move(*opened));
  }
  Target made;
  for (const NftSpec& spec : *specs)
    made.slots[spec.ipv6 ? 1 : 0].sink = make_nft_sink(*nft_, spec);
  made.shape = {true, true, nft_holds};
  made.policy = {target.spec.timeout, target.remove_at_end};
  made.origin = target;
  return place(std::move(made));
}

Result<TargetId> Publisher::add_target(std::unique_ptr<EntrySink> ipv4,
                                       std::unique_ptr<EntrySink> ipv6, TargetShape shape,
                                       TargetPolicy policy) {
  Target made;
  made.slots[0].sink = std::move(ipv4);
  made.slots[1].sink = std::move(ipv6);
  made.shape = shape;
  made.policy = policy;
  return place(std::move(made));
}

bool Publisher::shared(TargetId target, const std::string& name) const {
  for (std::size_t i = 0; i < targets_.size(); ++i) {
    if (i == target || targets_[i].dropped) continue;
    for (const Slot& slot : targets_[i].slots)
      if (slot.sink && slot.sink->name() == name) return true;
  }
  return false;
}

Result<TargetId> Publisher::place(Target target) {
  if (targets_.size() >= std::numeric_limits<TargetId>::max())
    return Error{"add", "publishing target", 0, "there are 65535 already: restart l7markd"};
  const auto id = static_cast<TargetId>(targets_.size());
  for (std::size_t i = 0; i < 2; ++i) {
    EntrySink* sink = target.slots[i].sink.get();
    if (sink == nullptr) continue;
    const auto ensured = sink->ensure();
    if (ensured.ok()) {
      log_debug("{} {}", *ensured == Ensured::created ? "created" : "adopted", sink->name());
      continue;
    }
    EntrySink* first = i == 1 ? target.slots[0].sink.get() : nullptr;
    if (first != nullptr && first->created() && !shared(id, first->name())) {
      const Status undone = first->withdraw({}, false);
      if (!undone.ok()) log_warning("{}", undone.error().message());
    }
    return ensured.error();
  }
  registry_.set_target(id, target.policy);
  targets_.push_back(std::move(target));
  return id;
}

EntryId Publisher::on_flow(TargetId target, const FlowFacts& facts, Milliseconds now) {
  if (target >= targets_.size()) return kNoEntry;
  const Target& to = targets_[target];
  const bool ipv6 = !facts.server.is_v4();
  if (to.dropped || !to.slots[ipv6 ? 1 : 0].sink ||
      (to.shape.holds != nullptr && !to.shape.holds(facts.protocol))) {
    ++counters_.unsupported;
    return kNoEntry;
  }
  SetEntry entry;
  entry.server = facts.server;
  if (to.shape.client) {
    entry.client = facts.client;
  } else if (!ipv6) {
    entry.client = Address::v4(0);
  }
  if (to.shape.port) {
    entry.port = facts.server_port;
    entry.protocol = facts.protocol;
  }
  return registry_.acquire(target, entry, now);
}

void Publisher::seen(EntryId id, Milliseconds when, Milliseconds now) {
  if (id != kNoEntry) registry_.seen(id, when, now);
}

void Publisher::on_end(EntryId id) {
  if (id != kNoEntry) registry_.release(id);
}

void Publisher::flush(Milliseconds now) {
  deltas_.clear();
  registry_.take(deltas_, now);
  if (!deltas_.empty()) write(now);
}

void Publisher::write(Milliseconds now) {
  // Removals first: they make room. Within one take() an entry comes once only, so that the order
  // is free.
  constexpr std::size_t kKinds = 3;
  std::vector<std::vector<const EntryDelta*>> groups(targets_.size() * 2 * kKinds);
  for (const EntryDelta& delta : deltas_) {
    const std::size_t slot = delta.target * std::size_t{2} + (delta.entry.server.is_v4() ? 0 : 1);
    groups[slot * kKinds + static_cast<std::size_t>(delta.kind)].push_back(&delta);
  }
  for (std::size_t slot = 0; slot < targets_.size() * 2; ++slot)
    for (const auto kind :
         {EntryDelta::Kind::remove, EntryDelta::Kind::refresh, EntryDelta::Kind::add})
      write_group(static_cast<TargetId>(slot / 2), slot % 2 == 1, kind,
                  groups[slot * kKinds + static_cast<std::size_t>(kind)], now);
}

void Publisher::write_group(TargetId target, bool ipv6, EntryDelta::Kind kind,
                            std::span<const EntryDelta* const> deltas, Milliseconds now) {
  if (deltas.empty()) return;
  Slot& slot = targets_[target].slots[ipv6 ? 1 : 0];
  if (slot.broken) {
    for (const EntryDelta* delta : deltas)
      if (delta->id != kNoEntry) registry_.failed(delta->id, now, kRetryOther);
    return;
  }
  std::vector<SetEntry> entries;
  entries.reserve(deltas.size());
  for (const EntryDelta* delta : deltas) entries.push_back(delta->entry);
  WriteOutcome outcome;
  switch (kind) {
    case EntryDelta::Kind::remove:
      outcome = slot.sink->remove(entries);
      counters_.removed += outcome.written;
      break;
    case EntryDelta::Kind::refresh:
      outcome = slot.sink->refresh(entries);
      counters_.refreshed += outcome.written;
      break;
    case EntryDelta::Kind::add:
      outcome = slot.sink->add(entries);
      counters_.added += outcome.written;
      break;
  }
  counters_.resyncs += outcome.resyncs;
  bool any_full = false;
  for (const WriteFailure& failure : outcome.failures) {
    ++counters_.failed;
    if (failure.trouble == WriteTrouble::full) {
      ++counters_.full;
      any_full = true;
    }
    const EntryId id = deltas[failure.index]->id;
    if (id != kNoEntry) registry_.failed(id, now, retry_after(failure.trouble));
  }
  switch (outcome.trouble()) {
    case WriteTrouble::none:
      slot.reported = false;
      break;
    case WriteTrouble::gone:
    case WriteTrouble::wrong_type:
      slot.broken = true;
      cure(target, ipv6, now);
      break;
    case WriteTrouble::full:
      if (!slot.full) log_warning("{}; new entries wait", outcome.error->message());
      break;
    default:
      if (!slot.reported) log_warning("{}; tried again later", outcome.error->message());
      slot.reported = true;
      break;
  }
  if (kind == EntryDelta::Kind::add) slot.full = any_full;
}

void Publisher::cure(TargetId target, bool ipv6, Milliseconds now) {
  Slot& slot = targets_[target].slots[ipv6 ? 1 : 0];
  if (now < slot.retry_at) return;
  const auto ensured = slot.sink->ensure();
  if (!ensured.ok()) {
    if (!slot.reported) log_error("{}", ensured.error().message());
    slot.reported = true;
    slot.broken = true;
    slot.retry_at = now + kRetryEnsure;
    return;
  }
  const std::size_t count = registry_.rewrite(target, ipv6, now);
  counters_.rewritten += count;
  log_warning("{} was emptied or destroyed by someone else: {} entries are written again",
              slot.sink->name(), count);
  slot.broken = false;
  slot.reported = false;
  slot.retry_at = now + kRetryOther;
}

void Publisher::check(Milliseconds now) {
  for (std::size_t i = 0; i < targets_.size(); ++i) {
    if (targets_[i].dropped) continue;
    const auto target = static_cast<TargetId>(i);
    for (const bool ipv6 : {false, true}) {
      Slot& slot = targets_[i].slots[ipv6 ? 1 : 0];
      if (!slot.sink) continue;
      if (slot.broken) {
        cure(target, ipv6, now);
        continue;
      }
      const std::size_t written = registry_.written(target, ipv6);
      if (written == 0) continue;
      const auto sample = registry_.sample(target, ipv6, kSample, now);
      const auto intact = slot.sink->intact(written, sample);
      if (intact.ok() ? !*intact : intact.error().code == ENOENT) {
        slot.sink->disown();
        cure(target, ipv6, now);
      } else if (!intact.ok() && !slot.reported) {
        log_warning("{}", intact.error().message());
        slot.reported = true;
      }
    }
  }
}

void Publisher::tick(Milliseconds now) {
  registry_.advance(now);
  flush(now);
  if (now < next_check_) return;
  next_check_ = now + kCheckEvery;
  check(now);
  flush(now);
}

Milliseconds Publisher::sweep_interval() const {
  std::uint32_t shortest = 0;
  for (const Target& target : targets_)
    if (!target.dropped && target.policy.timeout != 0 &&
        (shortest == 0 || target.policy.timeout < shortest))
      shortest = target.policy.timeout;
  return Milliseconds{shortest} * 1000 / 4;
}

Status Publisher::drop_target(TargetId target) {
  if (target >= targets_.size() || targets_[target].dropped) return success();
  deltas_.clear();
  registry_.withdraw(target, deltas_);
  Status first = success();
  for (const bool ipv6 : {false, true}) {
    Slot& slot = targets_[target].slots[ipv6 ? 1 : 0];
    if (!slot.sink) continue;
    std::vector<SetEntry> entries;
    for (const EntryDelta& delta : deltas_)
      if (delta.entry.server.is_v4() != ipv6) entries.push_back(delta.entry);
    const Status status = slot.sink->withdraw(entries, shared(target, slot.sink->name()));
    if (!status.ok() && first.ok()) first = status;
    slot.sink.reset();
  }
  targets_[target].dropped = true;
  return first;
}

Status Publisher::withdraw() {
  Status first = success();
  for (std::size_t i = 0; i < targets_.size(); ++i) {
    const Status status = drop_target(static_cast<TargetId>(i));
    if (!status.ok() && first.ok()) first = status;
  }
  return first;
}

std::vector<std::string> Publisher::created() const {
  std::vector<std::string> out;
  for (const Target& target : targets_)
    for (const Slot& slot : target.slots)
      if (slot.sink && slot.sink->created()) out.push_back(slot.sink->name());
  return out;
}

}  // namespace l7mark
