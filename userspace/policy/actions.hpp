// SPDX-License-Identifier: GPL-2.0-only
// From the classes of a flow to what is done to it: one set of fields for the kernel, the sets to
// publish to, and the numbers by which flows in the kernel refer to them.
#pragma once

#include <l7mark/types.h>

#include <array>
#include <bitset>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "flow.hpp"
#include "policy/matcher.hpp"
#include "policy/policy.hpp"

namespace l7mark {

// What a flow's classes come to. Of the single fields the first class that has one wins; marks
// combine by their masks, bit by bit, the first class winning; sets and labels add up.
struct EffectiveAction {
  ClassList classes;
  ClassList spared;                                      // of them, those whose drop is left out
  std::string class_name;                                // the first class's, empty for none
  std::array<l7m_action, L7M_STATES> kernel{};           // by l7m_state
  std::array<MaskedValue, L7M_STATES> conntrack_mark{};  // by l7m_state; mask 0 for none
  std::bitset<128> conntrack_labels;
  std::vector<IpsetAction> ipsets;    // each name once
  std::vector<NftsetAction> nftsets;  // each family, table and name once
  bool drop = false;
  bool log = false;
};

// The drop of a class in `spared` is left out: the flow is in it by what must not drop.
[[nodiscard]] EffectiveAction merge_classes(const Policy& policy, const ClassList& classes,
                                            const ClassList& spared = {});

// Numbers of distinct combinations of classes. Number 0 is "no class" in every generation. A number
// of the previous generation keeps its meaning until that generation is retired, so that flows not
// yet matched anew are still right.
class ActionTable {
 public:
  struct Write {
    std::uint32_t index = 0;  // into the kernel's map `actions`
    l7m_action action{};
  };

  explicit ActionTable(std::shared_ptr<const Policy> policy);

  // Makes `policy` the current one; fails while a previous generation is not retired. Flows without
  // a class follow the new policy's state marks with the next writes.
  Status begin_generation(std::shared_ptr<const Policy> policy);
  // Frees the previous generation's numbers. No flow, service or hint in the kernel may hold one.
  void retire_previous();
  [[nodiscard]] bool has_previous() const { return previous_ != nullptr; }

  // The number of a combination in the current generation. Fails when all numbers are taken.
  // `spared` as merge_classes() takes it; classes that drop nothing may be in it.
  [[nodiscard]] Result<std::uint32_t> intern(const ClassList& classes,
                                             const ClassList& spared = {});

  // What must be in the map before a number handed out since the last call is used.
  [[nodiscard]] std::vector<Write> take_writes();

  // Map `marks` for the current generation: class bits of skb->mark to the index of the class that
  // sets them, where it has a tc class; of several with one mark the first class.
  [[nodiscard]] std::map<std::uint32_t, std::uint32_t> marks() const;

  // Of either generation; number 0's for a number that is not in use. Valid until retire_previous()
  // frees it.
  [[nodiscard]] const EffectiveAction& effective(std::uint32_t id) const;
  // Numbers in use, 0 included.
  [[nodiscard]] std::size_t size() const { return effective_.size(); }

  [[nodiscard]] static constexpr std::uint32_t index(std::uint32_t id, FlowState state) {
    return id * L7M_STATES + static_cast<std::uint32_t>(state);
  }
  [[nodiscard]] static constexpr std::uint32_t id_of_index(std::uint32_t index) {
    return index / L7M_STATES;
  }

 private:
  using Generation = std::map<std::pair<ClassList, ClassList>, std::uint32_t>;

  void put(std::uint32_t id, EffectiveAction action);

  std::shared_ptr<const Policy> policy_;
  std::unique_ptr<Generation> current_;
  std::unique_ptr<Generation> previous_;
  std::map<std::uint32_t, EffectiveAction> effective_;
  std::uint32_t next_ = 1;  // where the search for a free number begins
  std::vector<Write> writes_;
};

}  // namespace l7mark
