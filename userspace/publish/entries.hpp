// SPDX-License-Identifier: GPL-2.0-only
// Which elements the sets should hold. Several flows may stand behind one element (parallel
// connections to one server): their number is counted, the first adds the element, the kernel's
// last-seen times keep it alive, and only after the last one it goes. No system call in here.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "publish/outcome.hpp"

namespace l7mark {

using EntryId = std::uint32_t;
using TargetId = std::uint16_t;
inline constexpr EntryId kNoEntry = 0xffffffff;

// Milliseconds of CLOCK_MONOTONIC, or of any clock that never goes back.
using Milliseconds = std::uint64_t;

struct TargetPolicy {
  std::uint32_t timeout = 0;   // seconds; 0: elements never expire, so the last flow deletes them
  bool remove_at_end = false;  // delete with the last flow instead of letting it time out
};

struct EntryDelta {
  enum class Kind : std::uint8_t { add, refresh, remove };
  Kind kind = Kind::add;
  EntryId id = kNoEntry;  // kNoEntry in a removal: the entry is gone from here
  TargetId target = 0;
  SetEntry entry;
};

// At most 72 bytes an entry, the hash table included. Not thread-safe.
//
// An element's life is that of the conversation: it is written to expire `timeout` after the last
// packet known, written again when less than half of that is left and packets have come since, and
// never when there were none.
class EntryRegistry {
 public:
  EntryRegistry();

  void set_target(TargetId target, TargetPolicy policy);

  // A flow begins, or its class does. Fields that the target's sets lack must be zeroed by the
  // caller; entry.timeout is ignored. The id is valid until the matching release().
  EntryId acquire(TargetId target, const SetEntry& entry, Milliseconds now);
  // A flow has ended.
  void release(EntryId id);
  // The kernel saw a packet of one of the entry's flows at `when`. Best called for every live flow
  // at least four times within the target's timeout. Pass `now` for a flow that is to keep its
  // entry in silence.
  void seen(EntryId id, Milliseconds when, Milliseconds now);

  // Runs what is due.
  void advance(Milliseconds now);
  // Appends what must be written, and takes it as written from then on.
  void take(std::vector<EntryDelta>& out, Milliseconds now);
  // The add or refresh of take() did not succeed: it comes again after `retry_after`, if still
  // wanted.
  void failed(EntryId id, Milliseconds now, Milliseconds retry_after);
  // The set has lost its elements: all wanted ones of this family are to be written again.
  std::size_t rewrite(TargetId target, bool ipv6, Milliseconds now);
  // Appends removals of all that is written, and writes nothing more to this target. Ids stay
  // valid.
  void withdraw(TargetId target, std::vector<EntryDelta>& out);

  // Elements that the kernel should hold now.
  [[nodiscard]] std::size_t written(TargetId target, bool ipv6) const;
  // Up to `count` of them that will not expire within two seconds, spread over the table.
  [[nodiscard]] std::vector<SetEntry> sample(TargetId target, bool ipv6, std::size_t count,
                                             Milliseconds now) const;
  [[nodiscard]] std::size_t size() const { return used_; }
  [[nodiscard]] std::size_t memory_bytes() const;
  // Entries in it: for tests.
  [[nodiscard]] std::size_t longest_bucket() const;

 private:
  // Times are tenths of a second, which 32 bits count for 13 years.
  struct Entry {
    Address server;
    Address client;
    std::uint16_t port;
    TargetId target;
    std::uint8_t protocol;
    std::uint8_t flags;
    std::uint16_t reserved;
    std::uint32_t flows;
    std::uint32_t expires;  // in the kernel, if written
    std::uint32_t seen;
    EntryId next_in_bucket;
    EntryId next_in_slot;
    std::uint32_t prev_in_slot;  // an EntryId, or kSlotHead | slot
  };
  static_assert(sizeof(Entry) == 64, "one cache line");
  struct Target {
    TargetPolicy policy;
    std::size_t written[2] = {0, 0};
    bool withdrawn = false;
  };

  [[nodiscard]] Entry& at(EntryId id);
  [[nodiscard]] const Entry& at(EntryId id) const;
  [[nodiscard]] std::size_t bucket_of(TargetId target, const SetEntry& entry) const;
  [[nodiscard]] EntryId find(TargetId target, const SetEntry& entry) const;
  [[nodiscard]] EntryId create(TargetId target, const SetEntry& entry);
  void destroy(EntryId id);
  void grow();
  void arm(EntryId id, std::uint32_t when);
  void disarm(EntryId id);
  void queue(EntryId id);
  void set_written(Entry& entry, bool written);
  void review(EntryId id, std::uint32_t now);
  void settle(EntryId id, std::uint32_t now, std::vector<EntryDelta>& out);

  std::vector<std::unique_ptr<Entry[]>> slabs_;
  std::vector<EntryId> buckets_;
  std::vector<EntryId> slots_;
  std::vector<EntryId> queue_;
  std::vector<Target> targets_;
  EntryId free_ = kNoEntry;
  EntryId allocated_ = 0;
  std::size_t used_ = 0;
  std::uint32_t advanced_ = 0;
  bool started_ = false;
};

}  // namespace l7mark
