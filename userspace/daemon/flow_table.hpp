// SPDX-License-Identifier: GPL-2.0-only
// The flows that the main process knows: what was found, what was done, and who stands behind it.
#pragma once

#include <l7mark/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "flow.hpp"
#include "publish/entries.hpp"

namespace l7mark {

// Kept small: there may be a million. What is rare is behind a pointer.
struct Flow {
  std::uint64_t id = 0;
  std::uint64_t first_ns = 0;  // CLOCK_MONOTONIC
  std::uint64_t last_ms = 0;   // likewise, of the last packet known
  l7m_counters base{};         // counted before the verdict
  l7m_counters count{};        // counted by the verdict, as last seen
  std::uint64_t risks = 0;
  std::unique_ptr<FlowDetails> details;           // null if all are empty
  std::unique_ptr<std::vector<EntryId>> entries;  // in the publisher's registry; null for none
  const std::string* name = nullptr;              // interned: "TLS.Zoom"
  std::string hostname;
  std::uint64_t sampled_bytes = 0;
  std::uint32_t sampled_packets = 0;
  std::uint32_t candidate_id = 0;
  std::uint32_t action = 0;  // number in the action table
  std::uint32_t risk_score = 0;
  std::uint32_t ifindex = 0;
  std::uint32_t service_s = 0;  // CLOCK_MONOTONIC seconds when its service was last remembered
  std::uint16_t application = 0;
  std::uint16_t master = 0;
  std::uint16_t category = 0;
  std::uint16_t confidence = 0;
  std::uint16_t vlan = 0;
  std::uint8_t client_mac[6] = {0, 0, 0, 0, 0, 0};
  std::uint8_t initiator = 0;
  std::uint8_t client = 0;  // endpoint of the key
  FlowState state = FlowState::undecided;
  std::uint8_t flags = 0;  // L7M_FLOW_*
  bool decided = false;    // has a verdict in the kernel
  bool midstream = false;

  [[nodiscard]] std::uint64_t packets() const;
  [[nodiscard]] std::uint64_t bytes() const;
  [[nodiscard]] l7m_counters total() const;
};

class FlowTable {
 public:
  [[nodiscard]] Flow* find(const FlowKey& key);
  // The flow, made with a fresh id if it is not there.
  Flow& at(const FlowKey& key);
  void erase(const FlowKey& key) { flows_.erase(key); }
  [[nodiscard]] std::size_t size() const { return flows_.size(); }
  [[nodiscard]] auto begin() { return flows_.begin(); }
  [[nodiscard]] auto end() { return flows_.end(); }
  [[nodiscard]] const std::string* intern(const std::string& name);
  // Ids of flows that were found in the kernel must not be given again.
  void reserve_id(std::uint64_t id);

 private:
  std::unordered_map<FlowKey, Flow> flows_;
  std::unordered_set<std::string> names_;
  std::uint64_t next_id_ = 1;
};

// Takes over what the answer says; counters only where the flow has none of its own.
void update_flow(Flow& flow, const FlowKey& key, const Answer& answer, FlowTable& table);

// For matching and for showing.
[[nodiscard]] FlowFacts facts_of(const FlowKey& key, const Flow& flow);
[[nodiscard]] Answer answer_of(const FlowKey& key, const Flow& flow);

}  // namespace l7mark
