// SPDX-License-Identifier: GPL-2.0-only
#include "publish/entries.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "util/keyed_hash.hpp"

namespace l7mark {

namespace {

constexpr std::uint32_t kSlabEntries = 4096;
// One turn of the timer wheel is nearly seven minutes; entries that are due later are looked at
// once a turn.
constexpr std::uint32_t kSlots = 4096;
constexpr std::uint32_t kSlotHead = 0x80000000;
constexpr std::uint32_t kUnarmed = 0xffffffff;
constexpr Milliseconds kTick = 100;
constexpr std::uint32_t kTicksPerSecond = 10;
constexpr std::size_t kFirstBuckets = 1024;

constexpr std::uint8_t kUsed = 1;
constexpr std::uint8_t kWritten = 2;
constexpr std::uint8_t kQueued = 4;

std::uint32_t ticks(Milliseconds time) {
  return static_cast<std::uint32_t>(time / kTick);
}

std::size_t family_index(const Address& address) {
  return address.is_v4() ? 0 : 1;
}

}  // namespace

EntryRegistry::EntryRegistry() : buckets_(kFirstBuckets, kNoEntry), slots_(kSlots, kNoEntry) {}

EntryRegistry::Entry& EntryRegistry::at(EntryId id) {
  return slabs_[id / kSlabEntries][id % kSlabEntries];
}

const EntryRegistry::Entry& EntryRegistry::at(EntryId id) const {
  return slabs_[id / kSlabEntries][id % kSlabEntries];
}

void EntryRegistry::set_target(TargetId target, TargetPolicy policy) {
  if (target >= targets_.size()) targets_.resize(target + std::size_t{1});
  targets_[target].policy = policy;
  targets_[target].withdrawn = false;
}

std::size_t EntryRegistry::bucket_of(TargetId target, const SetEntry& entry) const {
  std::uint64_t words[5];
  std::memcpy(&words[0], entry.server.bytes.data(), sizeof(entry.server.bytes));
  std::memcpy(&words[2], entry.client.bytes.data(), sizeof(entry.client.bytes));
  words[4] = std::uint64_t{target} << 32 | std::uint64_t{entry.protocol} << 16 | entry.port;
  return keyed_hash(words) & (buckets_.size() - 1);
}

EntryId EntryRegistry::find(TargetId target, const SetEntry& entry) const {
  for (EntryId id = buckets_[bucket_of(target, entry)]; id != kNoEntry;
       id = at(id).next_in_bucket) {
    const Entry& have = at(id);
    if (have.target == target && have.port == entry.port && have.protocol == entry.protocol &&
        have.server == entry.server && have.client == entry.client)
      return id;
  }
  return kNoEntry;
}

std::size_t EntryRegistry::longest_bucket() const {
  std::size_t longest = 0;
  for (EntryId id : buckets_) {
    std::size_t length = 0;
    for (; id != kNoEntry; id = at(id).next_in_bucket) ++length;
    longest = std::max(longest, length);
  }
  return longest;
}

void EntryRegistry::grow() {
  buckets_.assign(buckets_.size() * 2, kNoEntry);
  for (EntryId id = 0; id < allocated_; ++id) {
    Entry& entry = at(id);
    if ((entry.flags & kUsed) == 0) continue;
    EntryId& head = buckets_[bucket_of(
        entry.target, {entry.server, entry.client, entry.port, entry.protocol, 0})];
    entry.next_in_bucket = head;
    head = id;
  }
}

EntryId EntryRegistry::create(TargetId target, const SetEntry& key) {
  if (used_ >= buckets_.size()) grow();
  EntryId id = free_;
  if (id != kNoEntry) {
    free_ = at(id).next_in_slot;
  } else {
    id = allocated_;
    if (id / kSlabEntries == slabs_.size())
      slabs_.push_back(std::make_unique<Entry[]>(kSlabEntries));
    ++allocated_;
  }
  Entry& entry = at(id);
  entry = Entry{};
  entry.server = key.server;
  entry.client = key.client;
  entry.port = key.port;
  entry.protocol = key.protocol;
  entry.target = target;
  entry.flags = kUsed;
  entry.prev_in_slot = kUnarmed;
  EntryId& head = buckets_[bucket_of(target, key)];
  entry.next_in_bucket = head;
  head = id;
  ++used_;
  return id;
}

void EntryRegistry::destroy(EntryId id) {
  Entry& entry = at(id);
  disarm(id);
  set_written(entry, false);
  EntryId* link = &buckets_[bucket_of(entry.target,
                                      {entry.server, entry.client, entry.port, entry.protocol, 0})];
  while (*link != id) link = &at(*link).next_in_bucket;
  *link = entry.next_in_bucket;
  entry.flags = 0;
  entry.next_in_slot = free_;
  free_ = id;
  --used_;
}

void EntryRegistry::arm(EntryId id, std::uint32_t when) {
  disarm(id);
  // What is due already waits for the next slot: this one may have been run.
  if (static_cast<std::int32_t>(when - advanced_) <= 0) when = advanced_ + 1;
  const std::uint32_t slot = when % kSlots;
  Entry& entry = at(id);
  entry.next_in_slot = slots_[slot];
  entry.prev_in_slot = kSlotHead | slot;
  if (entry.next_in_slot != kNoEntry) at(entry.next_in_slot).prev_in_slot = id;
  slots_[slot] = id;
}

void EntryRegistry::disarm(EntryId id) {
  Entry& entry = at(id);
  if (entry.prev_in_slot == kUnarmed) return;
  if ((entry.prev_in_slot & kSlotHead) != 0)
    slots_[entry.prev_in_slot & ~kSlotHead] = entry.next_in_slot;
  else
    at(entry.prev_in_slot).next_in_slot = entry.next_in_slot;
  if (entry.next_in_slot != kNoEntry) at(entry.next_in_slot).prev_in_slot = entry.prev_in_slot;
  entry.prev_in_slot = kUnarmed;
}

void EntryRegistry::queue(EntryId id) {
  Entry& entry = at(id);
  if ((entry.flags & kQueued) != 0) return;
  entry.flags |= kQueued;
  queue_.push_back(id);
}

void EntryRegistry::set_written(Entry& entry, bool written) {
  if (((entry.flags & kWritten) != 0) == written) return;
  std::size_t& count = targets_[entry.target].written[family_index(entry.server)];
  if (written) {
    entry.flags |= kWritten;
    ++count;
  } else {
    entry.flags = static_cast<std::uint8_t>(entry.flags & ~kWritten);
    --count;
  }
}

EntryId EntryRegistry::acquire(TargetId target, const SetEntry& key, Milliseconds now) {
  if (!started_) {
    started_ = true;
    advanced_ = ticks(now);
  }
  EntryId id = find(target, key);
  if (id == kNoEntry) id = create(target, key);
  ++at(id).flows;
  seen(id, now, now);
  return id;
}

void EntryRegistry::release(EntryId id) {
  Entry& entry = at(id);
  if (entry.flows > 0) --entry.flows;
  if (entry.flows > 0) return;
  const Target& target = targets_[entry.target];
  const bool remove = target.policy.remove_at_end || target.policy.timeout == 0;
  if (target.withdrawn || remove || (entry.flags & kWritten) == 0) queue(id);
}

void EntryRegistry::seen(EntryId id, Milliseconds when, Milliseconds now) {
  Entry& entry = at(id);
  const std::uint32_t time = ticks(when);
  if (entry.seen == 0 || static_cast<std::int32_t>(time - entry.seen) > 0) entry.seen = time;
  review(id, ticks(now));
}

// Decides what an entry needs now and when it must be looked at again.
void EntryRegistry::review(EntryId id, std::uint32_t now) {
  Entry& entry = at(id);
  const Target& target = targets_[entry.target];
  if (target.withdrawn) return;
  const std::uint32_t timeout = target.policy.timeout * kTicksPerSecond;
  const bool written = (entry.flags & kWritten) != 0;
  if (timeout == 0) {
    if (!written && entry.flows > 0) queue(id);
    return;
  }
  const std::uint32_t wanted = entry.seen + timeout;
  const bool lively = static_cast<std::int32_t>(wanted - now) > 0;
  if (!written) {
    // In silence beyond the timeout there is nothing to write until seen() says otherwise.
    if (lively || entry.flows == 0) queue(id);
    return;
  }
  const auto left = static_cast<std::int32_t>(entry.expires - now);
  if (left <= 0) {
    set_written(entry, false);
    disarm(id);
    // After the last flow an element is not brought back, though packets came after it was written.
    if (entry.flows == 0) entry.seen = now - timeout;
    if (lively || entry.flows == 0) queue(id);
    return;
  }
  const bool late = static_cast<std::uint32_t>(left) < timeout / 2;
  const bool longer = static_cast<std::int32_t>(wanted - entry.expires) > 0;
  if (late && longer && entry.flows > 0)
    queue(id);
  else
    arm(id, late ? entry.expires : entry.expires - timeout / 2);
}

void EntryRegistry::advance(Milliseconds now) {
  const std::uint32_t until = ticks(now);
  if (!started_) {
    started_ = true;
    advanced_ = until;
    return;
  }
  std::uint32_t steps = until - advanced_;
  if (static_cast<std::int32_t>(steps) <= 0) return;
  steps = std::min(steps, kSlots);
  advanced_ = until;
  for (std::uint32_t step = 0; step < steps; ++step) {
    // The list is taken out first: review() arms entries again, perhaps in this slot.
    EntryId id = std::exchange(slots_[(until - step) % kSlots], kNoEntry);
    while (id != kNoEntry) {
      Entry& entry = at(id);
      const EntryId next = entry.next_in_slot;
      if (next != kNoEntry) at(next).prev_in_slot = kUnarmed;
      entry.prev_in_slot = kUnarmed;
      entry.next_in_slot = kNoEntry;
      review(id, until);
      id = next;
    }
  }
}

void EntryRegistry::settle(EntryId id, std::uint32_t now, std::vector<EntryDelta>& out) {
  Entry& entry = at(id);
  const Target& target = targets_[entry.target];
  const bool written = (entry.flags & kWritten) != 0;
  EntryDelta delta;
  delta.id = id;
  delta.target = entry.target;
  delta.entry = {entry.server, entry.client, entry.port, entry.protocol, 0};
  const bool ends = target.policy.remove_at_end || target.policy.timeout == 0;
  if (entry.flows == 0 && (ends || target.withdrawn)) {
    if (written && !target.withdrawn) {
      delta.kind = EntryDelta::Kind::remove;
      delta.id = kNoEntry;
      out.push_back(delta);
    }
    destroy(id);
    return;
  }
  if (target.withdrawn) return;
  if (target.policy.timeout == 0) {
    if (written) return;
    set_written(entry, true);
    out.push_back(delta);
    return;
  }
  const std::uint32_t wanted = entry.seen + target.policy.timeout * kTicksPerSecond;
  const auto left = static_cast<std::int32_t>(wanted - now);
  if (left <= 0) {
    if (entry.flows == 0 && !written) destroy(id);
    return;
  }
  // The kernel counts whole seconds: up, since an element must not expire too early.
  delta.entry.timeout = (static_cast<std::uint32_t>(left) + kTicksPerSecond - 1) / kTicksPerSecond;
  const std::uint32_t expires = now + delta.entry.timeout * kTicksPerSecond;
  if (written) {
    if (entry.flows == 0 || static_cast<std::int32_t>(expires - entry.expires) <= 0) return;
    delta.kind = EntryDelta::Kind::refresh;
  }
  set_written(entry, true);
  entry.expires = expires;
  out.push_back(delta);
  const std::uint32_t half = target.policy.timeout * kTicksPerSecond / 2;
  arm(id, static_cast<std::uint32_t>(left) > half ? expires - half : expires);
}

void EntryRegistry::take(std::vector<EntryDelta>& out, Milliseconds now) {
  const std::uint32_t time = ticks(now);
  // settle() never queues, but keep the list apart all the same.
  std::vector<EntryId> work;
  work.swap(queue_);
  for (const EntryId id : work) {
    Entry& entry = at(id);
    entry.flags = static_cast<std::uint8_t>(entry.flags & ~kQueued);
    settle(id, time, out);
  }
  work.clear();
  if (queue_.empty()) queue_.swap(work);
}

void EntryRegistry::failed(EntryId id, Milliseconds now, Milliseconds retry_after) {
  Entry& entry = at(id);
  if ((entry.flags & kUsed) == 0) return;
  set_written(entry, false);
  if (entry.flows == 0) {
    entry.seen = ticks(now) - targets_[entry.target].policy.timeout * kTicksPerSecond;
    queue(id);
  } else {
    arm(id, ticks(now + retry_after));
  }
}

std::size_t EntryRegistry::rewrite(TargetId target, bool ipv6, Milliseconds now) {
  std::size_t count = 0;
  for (EntryId id = 0; id < allocated_; ++id) {
    Entry& entry = at(id);
    if ((entry.flags & kUsed) == 0 || entry.target != target || entry.server.is_v4() == ipv6 ||
        (entry.flags & kWritten) == 0)
      continue;
    set_written(entry, false);
    disarm(id);
    review(id, ticks(now));
    if ((entry.flags & kQueued) != 0) ++count;
  }
  return count;
}

void EntryRegistry::withdraw(TargetId target, std::vector<EntryDelta>& out) {
  if (target >= targets_.size()) return;
  for (EntryId id = 0; id < allocated_; ++id) {
    Entry& entry = at(id);
    if ((entry.flags & kUsed) == 0 || entry.target != target) continue;
    if ((entry.flags & kWritten) != 0) {
      EntryDelta delta;
      delta.kind = EntryDelta::Kind::remove;
      delta.target = target;
      delta.entry = {entry.server, entry.client, entry.port, entry.protocol, 0};
      out.push_back(delta);
    }
    set_written(entry, false);
    disarm(id);
    if (entry.flows == 0) queue(id);
  }
  targets_[target].withdrawn = true;
}

std::size_t EntryRegistry::written(TargetId target, bool ipv6) const {
  return target < targets_.size() ? targets_[target].written[ipv6 ? 1 : 0] : 0;
}

std::vector<SetEntry> EntryRegistry::sample(TargetId target, bool ipv6, std::size_t count,
                                            Milliseconds now) const {
  std::vector<SetEntry> out;
  if (allocated_ == 0 || count == 0) return out;
  // A stride spreads the sample, and a start that moves with time finds others each time. Where the
  // target has few entries among many, all are looked through.
  const std::uint32_t time = ticks(now);
  const EntryId wide = std::max<EntryId>(1, allocated_ / static_cast<EntryId>(count * 64));
  for (const EntryId stride : {wide, EntryId{1}}) {
    for (EntryId step = 0, id = time % allocated_; step < allocated_ && out.size() < count;
         step += stride, id = (id + stride) % allocated_) {
      const Entry& entry = at(id);
      if ((entry.flags & kWritten) == 0 || entry.target != target || entry.server.is_v4() == ipv6)
        continue;
      if (targets_[target].policy.timeout != 0 &&
          static_cast<std::int32_t>(entry.expires - time) < 2 * static_cast<int>(kTicksPerSecond))
        continue;
      out.push_back({entry.server, entry.client, entry.port, entry.protocol, 0});
    }
    if (!out.empty() || written(target, ipv6) == 0) break;
  }
  return out;
}

std::size_t EntryRegistry::memory_bytes() const {
  return slabs_.size() * kSlabEntries * sizeof(Entry) +
         (buckets_.capacity() + slots_.capacity() + queue_.capacity()) * sizeof(EntryId);
}

}  // namespace l7mark
