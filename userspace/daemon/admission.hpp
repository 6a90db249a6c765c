// SPDX-License-Identifier: GPL-2.0-only
// Places in the tables by what a flow is worth: a flood of flows that a stranger makes at will has
// a share of the kernel's verdicts, and makes way for its own like and for all others.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>

#include "daemon/flow_table.hpp"
#include "policy/policy.hpp"

namespace l7mark {

// In the order of growing worth.
enum class Worth : std::uint8_t {
  one_way,         // only one endpoint has sent packets
  two_way,         // both have
  protected_flow,  // both have, and the class comes from the flow's own packets
};

[[nodiscard]] Worth worth_of(const Flow& flow);

// Flows in the order in which they were last heard of, as far as sweeps tell; approximate, and at a
// constant cost for each flow that comes and goes.
class WorthQueue {
 public:
  // Tells of a flow that is still there whether it has its place in this queue.
  using Belongs = std::function<bool(const Flow&)>;
  WorthQueue(FlowTable& flows, Belongs belongs);

  // `live` is how many flows belong here: what is left of others does not pile up.
  void push(const FlowKey& key, const Flow& flow, std::size_t live);
  // Takes out the flow of least worth that was quiet for longest; protected ones only if told so.
  [[nodiscard]] std::optional<FlowLife> pop(bool protected_too);
  [[nodiscard]] std::size_t size() const { return one_way_.size() + more_.size(); }

 private:
  struct Entry {
    FlowLife life;
    std::uint64_t last_ms = 0;
  };
  [[nodiscard]] Flow* flow_of(const Entry& entry);
  [[nodiscard]] std::optional<FlowLife> pop_from(std::deque<Entry>& queue, Worth highest);
  void trim(std::deque<Entry>& queue);

  FlowTable& flows_;
  Belongs belongs_;
  std::deque<Entry> one_way_;
  std::deque<Entry> more_;
};

class Admission {
 public:
  Admission(const Limits& limits, FlowTable& flows);

  struct Room {
    bool admitted = false;
    std::optional<FlowLife> victim;  // its verdict makes way: it is counted no longer
  };
  // For the verdict of a flow that has none. One that is admitted is counted from now on, and makes
  // way for no other before confirm().
  [[nodiscard]] Room make_room(const FlowKey& key, Flow& flow);
  void confirm(const FlowKey& key, Flow& flow);
  // An unprotected flow of the same family, whose verdict makes way.
  [[nodiscard]] std::optional<FlowLife> take_victim(const FlowKey& key);
  // Counts a flow that has a verdict: to be called whenever its answer or its packets have changed.
  void count(const FlowKey& key, Flow& flow);
  // It has no verdict any more.
  void forget(const FlowKey& key, Flow& flow);

  // A flow that stays a candidate for now.
  void wait(const FlowKey& key, const Flow& flow);
  // As many flows as the kernel has candidates are known here without a verdict.
  [[nodiscard]] bool waiting_full() const { return waiting() >= candidates_; }
  [[nodiscard]] std::optional<FlowLife> take_waiting() { return waiting_.pop(true); }

  [[nodiscard]] std::size_t verdicts(bool protected_flows) const;
  [[nodiscard]] std::size_t waiting() const;
  // Entries of all queues: for tests.
  [[nodiscard]] std::size_t queued() const;

 private:
  struct Table {
    std::size_t unprotected = 0;
    std::size_t protected_flows = 0;
    WorthQueue queue;  // of the unprotected ones
  };
  Table& table_of(const FlowKey& key) { return tables_[l7m_key_is_v4(&key.raw) != 0 ? 0 : 1]; }
  void reserve(Table& table, Flow& flow);

  FlowTable& flows_;
  std::size_t size_;   // of each table
  std::size_t share_;  // of it for unprotected flows
  std::size_t candidates_;
  std::array<Table, 2> tables_;  // as the kernel's: IPv4, IPv6
  WorthQueue waiting_;
};

}  // namespace l7mark
