// SPDX-License-Identifier: GPL-2.0-only
#include "publish/conntrack_marks.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <tuple>

#include "publish/conntrack_message.hpp"
#include "util/keyed_hash.hpp"

namespace l7mark {

namespace {

// Requests of one run().
constexpr std::size_t kRequests = 4096;
// Buckets of the table that a tick looks at: some milliseconds' work at most, the writes included.
constexpr std::size_t kBuckets = 8192;
// conntrack makes a connection's entry known only when its first packet leaves the machine.
constexpr std::array<std::uint32_t, 4> kRetryMs = {50, 200, 700, 2000};
// An entry that was destroyed comes back with the flow's next packet. A flow that goes on sending
// has sent one by then; the others are looked after by on_seen().
constexpr std::uint32_t kAfterDestroyMs = 200;
constexpr std::array<std::uint32_t, 2> kDestroyedRetryMs = {800, 2000};
constexpr std::uint32_t kShortestWaitMs = 5000;
constexpr std::uint32_t kLongestWaitMs = 640'000;

bool is_none(const ConntrackChange& change) {
  return change.mark_mask == 0 && change.labels_mask.none();
}

bool same_bits(const ConntrackChange& a, const ConntrackChange& b) {
  return a.mark == b.mark && a.mark_mask == b.mark_mask && a.labels == b.labels &&
         a.labels_mask == b.labels_mask;
}

std::array<std::uint64_t, 4> words_of(const ConntrackChange& change) {
  const auto half = [](const ConntrackLabels& labels, unsigned shift) {
    return (labels >> shift & ConntrackLabels(UINT64_MAX)).to_ullong();
  };
  return {half(change.labels, 0), half(change.labels, 64), half(change.labels_mask, 0),
          half(change.labels_mask, 64)};
}

}  // namespace

bool ConntrackMarks::Change::operator<(const Change& other) const {
  const auto tie = [](const ConntrackChange& c) {
    return std::tuple(c.mark, c.mark_mask, words_of(c));
  };
  const auto left = tie(bits);
  const auto right = tie(other.bits);
  return left != right ? left < right : owner < other.owner;
}

// --- keys ----------------------------------------------------------------------------------------

std::size_t ConntrackMarks::KeyHash::operator()(const Key& key) const {
  std::uint64_t words[5];
  std::memcpy(words, key.low.bytes.data(), 16);
  std::memcpy(words + 2, key.high.bytes.data(), 16);
  words[4] = std::uint64_t{key.low_port} << 48 | std::uint64_t{key.high_port} << 32 |
             std::uint64_t{key.zone} << 16 | key.protocol;
  return keyed_hash(words);
}

ConntrackMarks::Key ConntrackMarks::key_of(const ConntrackTuple& tuple, bool& sender) {
  // One flow is all of ICMP between two addresses; the ports of GRE's keys are none of ours.
  const bool ports = conntrack_message::has_ports(tuple.protocol);
  const std::uint16_t from = ports ? tuple.source_port : std::uint16_t{0};
  const std::uint16_t to = ports ? tuple.destination_port : std::uint16_t{0};
  sender = std::tie(tuple.source.bytes, from) > std::tie(tuple.destination.bytes, to);
  Key key;
  key.low = sender ? tuple.destination : tuple.source;
  key.high = sender ? tuple.source : tuple.destination;
  key.low_port = sender ? to : from;
  key.high_port = sender ? from : to;
  key.zone = tuple.zone;
  key.protocol = tuple.protocol;
  return key;
}

ConntrackTuple ConntrackMarks::tuple_of(const Key& key, const Entry& entry) {
  ConntrackTuple out;
  out.source = key.low;
  out.destination = key.high;
  out.source_port = key.low_port;
  out.destination_port = key.high_port;
  out.protocol = key.protocol;
  out.zone = key.zone;
  return entry.sender ? conntrack_message::reversed(out) : out;
}

// --- what entries have, and what they should -----------------------------------------------------

ConntrackMarks::Held ConntrackMarks::hold(const ConntrackChange& bits, const std::string& owner) {
  if (is_none(bits)) return nullptr;
  auto& held = *changes_.try_emplace(Change{bits, owner}, 0).first;
  ++held.second;
  return &held;
}

void ConntrackMarks::let_go(Held& held) {
  if (held != nullptr && --held->second == 0) changes_.erase(changes_.find(held->first));
  held = nullptr;
}

ConntrackChange ConntrackMarks::change_of(const Entry& entry) {
  ConntrackChange out;
  if (entry.wanted != nullptr) out = entry.wanted->first.bits;
  if (entry.written == nullptr) return out;
  out.mark_mask |= entry.written->first.bits.mark_mask;
  out.labels_mask |= entry.written->first.bits.labels_mask;
  return out;
}

void ConntrackMarks::set_absent(Entry& entry, bool absent) {
  if (entry.absent == absent) return;
  entry.absent = absent;
  absent ? ++absent_ : --absent_;
}

void ConntrackMarks::erase(Entries::iterator at) {
  Entry& entry = at->second;
  set_absent(entry, false);
  let_go(entry.wanted);
  let_go(entry.written);
  entries_.erase(at);
}

bool ConntrackMarks::queue(const Key& key, Entry& entry, Ms due) {
  if (entry.queued) return true;
  if (queue_.size() >= kQueue) {
    ++counters_.full;
    begin_walk();
    return false;
  }
  entry.queued = true;
  queue_.push({key, due});
  return true;
}

void ConntrackMarks::want(const ConntrackTuple& tuple, const ConntrackChange& change,
                          const std::string& owner, Ms now) {
  bool sender = false;
  const Key key = key_of(tuple, sender);
  auto at = entries_.find(key);
  if (at == entries_.end()) {
    if (is_none(change)) return;
    if (entries_.size() >= limit_) {
      ++counters_.full;
      return;
    }
    at = entries_.try_emplace(key).first;
    at->second.generation = generation_;
  }
  Entry& entry = at->second;
  entry.live = true;
  entry.sender = sender;
  Held before = std::exchange(entry.wanted, hold(change, owner));
  const bool same = before == entry.wanted;
  let_go(before);
  if (entry.wanted == nullptr && entry.written == nullptr) {
    erase(at);
    return;
  }
  if (entry.wanted != nullptr && entry.written != nullptr &&
      same_bits(entry.wanted->first.bits, entry.written->first.bits)) {
    // The class may be another.
    ++entry.wanted->second;
    Held old = std::exchange(entry.written, entry.wanted);
    let_go(old);
    return;
  }
  if (entry.absent || (same && entry.queued)) return;
  entry.tries = 0;
  entry.expected = true;
  queue(key, entry, now);
}

void ConntrackMarks::assume(const ConntrackTuple& tuple, const ConntrackChange& bits) {
  bool sender = false;
  const Key key = key_of(tuple, sender);
  if (is_none(bits) || entries_.size() >= limit_) return;
  const auto [at, fresh] = entries_.try_emplace(key);
  if (!fresh) return;
  at->second.sender = sender;
  at->second.live = true;
  at->second.generation = generation_;
  at->second.written = hold(bits, {});
}

void ConntrackMarks::end(const ConntrackTuple& tuple) {
  bool sender = false;
  const auto at = entries_.find(key_of(tuple, sender));
  if (at == entries_.end()) return;
  Entry& entry = at->second;
  entry.live = false;
  // A quarter of the table is for flows that live.
  if (!entry.queued && (entry.written == nullptr || entries_.size() > limit_ / 4 * 3)) erase(at);
}

void ConntrackMarks::release(const std::function<bool(const std::string& owner)>& gone, Ms now) {
  for (auto at = entries_.begin(); at != entries_.end();) {
    const auto here = at++;
    Entry& entry = here->second;
    const Held held = entry.wanted != nullptr ? entry.wanted : entry.written;
    if (entry.live || held == nullptr || !gone(held->first.owner)) continue;
    let_go(entry.wanted);
    if (entry.written == nullptr) {
      erase(here);
      continue;
    }
    entry.tries = 0;
    queue(here->first, entry, now);
  }
}

// --- what the kernel tells -----------------------------------------------------------------------

void ConntrackMarks::on_destroyed(const ConntrackTuple& original, const ConntrackTuple& reply,
                                  Ms now) {
  bool sender = false;
  const Key keys[] = {key_of(original, sender), key_of(reply, sender)};
  for (const Key& key : std::span(keys).first(keys[0] == keys[1] ? 1 : 2)) {
    const auto at = entries_.find(key);
    if (at == entries_.end()) continue;
    Entry& entry = at->second;
    let_go(entry.written);
    if (!entry.live || entry.wanted == nullptr) {
      erase(at);
      continue;
    }
    set_absent(entry, true);
    entry.absent_since = now;
    entry.wait_ms = 0;
    entry.again = true;
    entry.expected = false;
    entry.tries = 0;
    queue(key, entry, now + kAfterDestroyMs);
  }
}

void ConntrackMarks::on_lost_events() {
  ++counters_.lost_events;
  ++generation_;
  begin_walk();
}

void ConntrackMarks::on_seen(const ConntrackTuple& tuple, Ms last, Ms now) {
  if (absent_ == 0) return;
  bool sender = false;
  const auto at = entries_.find(key_of(tuple, sender));
  if (at == entries_.end()) return;
  Entry& entry = at->second;
  if (!entry.absent || entry.queued || last <= entry.absent_since ||
      now < entry.absent_since + entry.wait_ms)
    return;
  entry.tries = 0;
  entry.expected = true;
  queue(at->first, entry, now);
}

void ConntrackMarks::begin_walk() {
  if (walking_) {
    walk_again_ = true;
    return;
  }
  walking_ = true;
  bucket_ = 0;
}

void ConntrackMarks::tick(Ms now) {
  if (!walking_) return;
  const std::size_t buckets = entries_.bucket_count();
  for (std::size_t i = 0; i < kBuckets && bucket_ < buckets; ++i, ++bucket_) {
    if (queue_.size() > kQueue / 2) return;
    for (auto at = entries_.begin(bucket_); at != entries_.end(bucket_); ++at) {
      Entry& entry = at->second;
      const bool doubtful = std::exchange(entry.generation, generation_) != generation_;
      if (entry.queued || entry.absent || (!doubtful && entry.wanted == entry.written)) continue;
      entry.tries = 0;
      entry.again = entry.again || doubtful;
      entry.expected = !doubtful;
      queue(at->first, entry, now);
    }
  }
  if (bucket_ < buckets) return;
  walking_ = false;
  if (std::exchange(walk_again_, false)) begin_walk();
}

// --- writing -------------------------------------------------------------------------------------

void ConntrackMarks::run(const Write& write, Ms now) {
  std::vector<Key> keys;
  std::vector<ConntrackRequest> requests;
  while (!queue_.empty() && queue_.top().due <= now && requests.size() < kRequests) {
    const Key key = queue_.top().key;
    queue_.pop();
    const auto at = entries_.find(key);
    // Not in the queue any more: an earlier place of this key has been worked off.
    if (at == entries_.end() || !at->second.queued) continue;
    at->second.queued = false;
    keys.push_back(key);
    requests.push_back({tuple_of(key, at->second), change_of(at->second)});
  }
  if (requests.empty()) return;
  const ConntrackOutcome outcome = write(requests);
  std::vector<WriteTrouble> trouble(requests.size(), WriteTrouble::none);
  for (const std::size_t index : outcome.missing) trouble[index] = WriteTrouble::gone;
  for (const WriteFailure& failure : outcome.failures) trouble[failure.index] = failure.trouble;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const auto at = entries_.find(keys[i]);
    if (trouble[i] == WriteTrouble::none)
      on_written(at);
    else if (trouble[i] == WriteTrouble::gone)
      on_missing(at, now);
    else
      on_failed(at, trouble[i], now);
  }
}

void ConntrackMarks::on_written(Entries::iterator at) {
  Entry& entry = at->second;
  if (entry.wanted == nullptr) {
    ++counters_.cleared;
    erase(at);
    return;
  }
  ++(entry.again ? counters_.rewritten : counters_.written);
  ++entry.wanted->second;
  let_go(entry.written);
  entry.written = entry.wanted;
  entry.again = false;
  entry.generation = generation_;
  set_absent(entry, false);
}

void ConntrackMarks::on_missing(Entries::iterator at, Ms now) {
  Entry& entry = at->second;
  let_go(entry.written);
  if (entry.wanted == nullptr || !entry.live) {
    if (entry.expected && entry.wanted != nullptr) ++counters_.missing;
    erase(at);
    return;
  }
  const std::span<const std::uint32_t> delays =
      entry.expected ? std::span<const std::uint32_t>(kRetryMs)
                     : std::span<const std::uint32_t>(kDestroyedRetryMs);
  if (entry.tries < delays.size() && queue(at->first, entry, now + delays[entry.tries])) {
    ++entry.tries;
    return;
  }
  if (entry.expected) {
    ++counters_.missing;
    entry.wait_ms = std::clamp(entry.wait_ms * 2, kShortestWaitMs, kLongestWaitMs);
    entry.absent_since = now;
  } else if (!entry.absent) {
    entry.absent_since = now;
  }
  set_absent(entry, true);
}

void ConntrackMarks::on_failed(Entries::iterator at, WriteTrouble trouble, Ms now) {
  Entry& entry = at->second;
  if (trouble == WriteTrouble::lost && entry.tries < kRetryMs.size() &&
      queue(at->first, entry, now + kRetryMs[entry.tries])) {
    ++entry.tries;
    return;
  }
  ++counters_.errors;
  if (entry.wanted == nullptr) {
    erase(at);
    return;
  }
  // A mark is set even where the entry has no room for labels.
  ++entry.wanted->second;
  let_go(entry.written);
  entry.written = entry.wanted;
  set_absent(entry, false);
}

void ConntrackMarks::clear_all(const Write& write) {
  std::vector<ConntrackRequest> requests;
  const auto flush = [&] {
    const ConntrackOutcome outcome = write(requests);
    counters_.cleared += requests.size() - outcome.missing.size() - outcome.failures.size();
    counters_.errors += outcome.failures.size();
    requests.clear();
  };
  while (!entries_.empty()) {
    const auto at = entries_.begin();
    let_go(at->second.wanted);
    if (at->second.written != nullptr)
      requests.push_back({tuple_of(at->first, at->second), change_of(at->second)});
    erase(at);
    if (requests.size() == kRequests) flush();
  }
  if (!requests.empty()) flush();
  queue_ = {};
  walking_ = walk_again_ = false;
}

}  // namespace l7mark
