// SPDX-License-Identifier: GPL-2.0-only
// Which conntrack entries have bits of ours, and which should: so that the bits go with the class,
// and are written again to an entry that was made anew. Everything in here is bounded; no socket.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <queue>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "publish/conntrack.hpp"

namespace l7mark {

struct ConntrackMarksCounters {
  std::uint64_t written = 0;
  std::uint64_t rewritten = 0;  // to entries that were made anew
  std::uint64_t cleared = 0;
  std::uint64_t missing = 0;  // gave up: there was no entry, however often it was tried
  std::uint64_t full = 0;     // found the queue or the table full
  std::uint64_t lost_events = 0;
  std::uint64_t errors = 0;
};

class ConntrackMarks {
 public:
  using Ms = std::uint64_t;
  using Write = std::function<ConntrackOutcome(std::span<const ConntrackRequest>)>;

  static constexpr std::size_t kQueue = 32768;

  // Until it is called there is room for none. What finds no room is not written.
  void set_limit(std::size_t entries) { limit_ = entries; }

  // The bits that the entry of this connection is to have now, none if the masks are 0. Bits that
  // were written before and are in no mask any more are cleared. `owner` is the class.
  void want(const ConntrackTuple& tuple, const ConntrackChange& change, const std::string& owner,
            Ms now);
  // An entry that an earlier run may have written such bits to.
  void assume(const ConntrackTuple& tuple, const ConntrackChange& bits);
  // The flow has ended. Its entry keeps the bits until it goes itself, or until they are released.
  void end(const ConntrackTuple& tuple);
  // Clears the bits of ended flows whose owner `gone` knows to be gone.
  void release(const std::function<bool(const std::string& owner)>& gone, Ms now);

  // The kernel has destroyed the entry of these two directions.
  void on_destroyed(const ConntrackTuple& original, const ConntrackTuple& reply, Ms now);
  // Events were dropped: every entry is written again, some at each tick().
  void on_lost_events();
  // The connection's last packet was seen at `last`.
  void on_seen(const ConntrackTuple& tuple, Ms last, Ms now);
  // Of destroyed entries whose flow lives; while it is 0, on_seen() does nothing.
  [[nodiscard]] std::size_t absent() const { return absent_; }

  // Writes what is due.
  void run(const Write& write, Ms now);
  // About once a second: puts into the queue what found it full, and what lost events leave in
  // doubt.
  void tick(Ms now);
  // Clears all bits of ours and forgets everything.
  void clear_all(const Write& write);

  [[nodiscard]] std::size_t size() const { return entries_.size(); }
  [[nodiscard]] std::size_t queued() const { return queue_.size(); }
  [[nodiscard]] const ConntrackMarksCounters& counters() const { return counters_; }

 private:
  // Both directions of a connection have one key.
  struct Key {
    Address low;
    Address high;
    std::uint16_t low_port = 0;
    std::uint16_t high_port = 0;
    std::uint16_t zone = 0;
    std::uint8_t protocol = 0;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const;
  };
  struct Change {
    ConntrackChange bits;
    std::string owner;
    bool operator<(const Change& other) const;
  };
  // Few differ: each is kept once, with the number of its uses.
  using Changes = std::map<Change, std::size_t>;
  using Held = Changes::value_type*;  // null for no bits

  struct Entry {
    Held wanted = nullptr;
    Held written = nullptr;
    Ms absent_since = 0;
    std::uint32_t wait_ms = 0;    // from giving up to the next try
    std::uint8_t generation = 0;  // of the events that it is right by
    std::uint8_t tries = 0;
    std::uint8_t sender : 1 = 0;  // 1: the key's high end is the source
    bool live : 1 = false;
    bool queued : 1 = false;
    bool absent : 1 = false;
    bool again : 1 = false;     // what is written next was written before
    bool expected : 1 = false;  // there must be an entry: its lack counts
  };
  using Entries = std::unordered_map<Key, Entry, KeyHash>;
  struct Work {
    Key key;
    Ms due = 0;
    friend bool operator<(const Work& a, const Work& b) { return a.due > b.due; }  // next on top
  };

  static Key key_of(const ConntrackTuple& tuple, bool& sender);
  static ConntrackTuple tuple_of(const Key& key, const Entry& entry);
  static ConntrackChange change_of(const Entry& entry);
  Held hold(const ConntrackChange& bits, const std::string& owner);
  void let_go(Held& held);
  void erase(Entries::iterator at);
  void set_absent(Entry& entry, bool absent);
  bool queue(const Key& key, Entry& entry, Ms due);
  void begin_walk();
  void on_written(Entries::iterator at);
  void on_missing(Entries::iterator at, Ms now);
  void on_failed(Entries::iterator at, WriteTrouble trouble, Ms now);

  std::size_t limit_ = 0;
  Entries entries_;
  Changes changes_;
  std::priority_queue<Work> queue_;
  std::size_t absent_ = 0;
  std::uint8_t generation_ = 0;
  bool walking_ = false;
  bool walk_again_ = false;
  std::size_t bucket_ = 0;  // where the walk goes on
  ConntrackMarksCounters counters_;
};

}  // namespace l7mark
