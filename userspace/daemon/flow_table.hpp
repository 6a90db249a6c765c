// SPDX-License-Identifier: GPL-2.0-only
// The flows that the main process knows: what was found, what was done, and who stands behind it.
#pragma once

#include <l7mark/parse.h>
#include <l7mark/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "daemon/finding.hpp"
#include "flow.hpp"
#include "publish/entries.hpp"
#include "util/keyed_hash.hpp"

namespace l7mark {

// Values of Flow::counted.
inline constexpr std::uint8_t kUncounted = 0, kUnprotected = 1, kProtected = 2;

// Kept small: there may be a million. What is rare, or the same in many, is behind a pointer.
struct Flow {
  std::uint64_t id = 0;                           // the kernel's, from its first packet on
  std::uint64_t first_ns = 0;                     // CLOCK_MONOTONIC
  std::uint64_t last_ms = 0;                      // likewise, of the last packet known
  l7m_counters total{};                           // as last seen
  std::uint32_t before[4] = {0, 0, 0, 0};         // of them, what keep_count() had
  const Finding* finding = nullptr;               // of the table's; null for nothing yet
  std::unique_ptr<std::vector<EntryId>> entries;  // in the publisher's registry; null for none
  std::uint32_t sampled_bytes = 0;
  std::uint32_t action = 0;  // number in the action table
  std::uint32_t ifindex = 0;
  std::uint32_t rtt_server_us = 0;  // by the handshake; 0: not known
  std::uint32_t rtt_client_us = 0;
  std::uint16_t sampled_packets = 0;
  std::uint16_t vlan = 0;
  std::uint16_t promised = 0;  // number in the action table: what the first packet was given
  std::uint8_t client_mac[6] = {0, 0, 0, 0, 0, 0};
  std::uint16_t flags = 0;  // L7M_FLOW_*
  std::uint8_t sweep = 0;   // the last one that saw its verdict
  std::uint8_t initiator : 1 = 0;
  std::uint8_t client : 1 = 0;  // endpoint of the key
  FlowState state : 2 = FlowState::undecided;
  bool decided : 1 = false;  // has a verdict in the kernel
  bool midstream : 1 = false;
  bool followed : 1 = false;  // has its answer, and stays a candidate: its DNS messages are read
  bool taught : 1 = false;    // its service has learned from it, or may not
  bool blocked : 1 = false;   // counted as dropped
  bool heard : 1 = false;     // payload was sampled before the second look at it began
  bool retried : 1 = false;   // one packet when it was answered, and a second later
  std::uint8_t counted : 2 = kUncounted;  // by the admission, among the verdicts

  // The class comes from the flow's own packets.
  [[nodiscard]] bool own_answer() const {
    return (found().application != 0 || found().master != 0) && is_own(found().confidence);
  }
  [[nodiscard]] const Finding& found() const;
  [[nodiscard]] std::uint64_t packets() const { return total.packets[0] + total.packets[1]; }
  [[nodiscard]] std::uint64_t bytes() const { return total.bytes[0] + total.bytes[1]; }
  // Counted by the flow's entry in the kernel, a candidate or a verdict, since keep_count().
  void set_since(const l7m_counters& count);
  [[nodiscard]] l7m_counters since() const;
  // The flow's next entry counts from zero. No more than 32 bits of each figure are kept.
  void keep_count();
  // Takes over the handshake's times, as far as the candidate has them.
  void set_times(const l7m_candidate& candidate);
};
static_assert(sizeof(Flow) <= 128);

// A five-tuple may have another life by the time it is looked at again.
struct FlowLife {
  FlowKey key;
  std::uint64_t id = 0;
};

class FlowTable {
 public:
  FlowTable() = default;
  FlowTable(const FlowTable&) = delete;
  FlowTable& operator=(const FlowTable&) = delete;

  [[nodiscard]] Flow* find(const FlowKey& key);
  // Has the CPU fetch what find() will read. One look-up after the other waits for memory twice
  // each in a big table; all of a batch wait together.
  void prefetch(std::span<const FlowKey> keys);
  // The flow, made without an id if it is not there, which `made` tells. Pointers stay good until
  // the flow is erased.
  Flow& at(const FlowKey& key, bool* made = nullptr);
  void erase(const FlowKey& key);
  [[nodiscard]] std::size_t size() const { return v4_.size() + v6_.size(); }
  // Slots that find() reads for it: for tests.
  [[nodiscard]] std::size_t probes(const FlowKey& key);

  // Calls with every flow, which may be changed; none may be made or erased meanwhile.
  template <class F>
  void for_each(F&& call) {
    v4_.for_each([&](const l7m_key4& key, Flow& flow) {
      FlowKey full;
      l7m_key_from_v4(&key, &full.raw);
      call(std::as_const(full), flow);
    });
    v6_.for_each([&](const FlowKey& key, Flow& flow) { call(key, flow); });
  }

  [[nodiscard]] const std::string* intern(const std::string& name);
  // Instead of what was found before.
  void set_finding(Flow& flow, Finding&& finding);
  // Has `held` refer to another finding of the table; null for none.
  void share_finding(const Finding*& held, const Finding* other);

 private:
  // A hash table over numbered places, which lie in pieces of memory that never move: no allocation
  // a flow, and those of erased flows are used again. Linear probing over hashes beside numbers:
  // what is not there is found missing without a look at a place, which would be a wait for memory.
  template <class Key>
  class Arena {
   public:
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] Flow* find(const Key& key);
    [[nodiscard]] std::size_t probes(const Key& key);
    void prefetch_slot(const Key& key) const;
    void prefetch_place(const Key& key);
    Flow& insert(const Key& key);
    void erase(const Key& key, FindingTable& findings);
    template <class F>
    void for_each(F&& call) {
      for (std::uint32_t i = 0; i < made_; ++i)
        if (Place& place = at(i); place.used) call(std::as_const(place.key), place.flow);
    }

   private:
    static constexpr std::uint32_t kNone = UINT32_MAX;
    static constexpr std::uint32_t kPiece = 1024;
    struct Place {
      Key key{};                   // first: what a look-up reads is one cache line
      std::uint32_t next = kNone;  // free
      bool used = false;
      Flow flow;
    };
    struct Slot {
      std::uint32_t hash = 0;
      std::uint32_t number = kNone;  // of the place; kNone where the slot is free
    };

    Place& at(std::uint32_t number) { return pieces_[number / kPiece][number % kPiece]; }
    // The slot of the key, or the free one where it would go. There must be a free one.
    [[nodiscard]] std::size_t slot_of(const Key& key, std::uint32_t hash);
    [[nodiscard]] std::size_t next_of(std::size_t slot) const {
      return (slot + 1) & (slots_.size() - 1);
    }
    void grow();

    std::vector<std::unique_ptr<Place[]>> pieces_;
    std::vector<Slot> slots_;  // a power of two, a quarter of them free at least
    std::uint32_t made_ = 0;   // places that were ever used
    std::uint32_t free_ = kNone;
    std::size_t size_ = 0;
  };

  Arena<l7m_key4> v4_;
  Arena<FlowKey> v6_;
  FindingTable findings_;
  std::unordered_set<std::string, KeyedTextHash> names_;
};

// Takes over what the answer says; counters only where the flow has none of its own. What is no
// answer of the flow's own leaves one that the flow has.
void update_flow(Flow& flow, const FlowKey& key, const Answer& answer, FlowTable& table);

// What was found before stays, because it is the flow's own answer and this is none, or because a
// second look has found no more.
[[nodiscard]] bool keeps_finding(const Flow& flow, const Answer& answer);

// For matching and for showing.
[[nodiscard]] FlowFacts facts_of(const FlowKey& key, const Flow& flow);
[[nodiscard]] Answer answer_of(const FlowKey& key, const Flow& flow);

}  // namespace l7mark
