// SPDX-License-Identifier: GPL-2.0-only
// Flows that had their last word a moment ago, so that what of them is still under way is ignored.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "flow.hpp"
#include "util/keyed_hash.hpp"

namespace l7mark {

// Remembers the last 32,768 or so by a fingerprint each: 256 KB, which a CPU's cache holds. One
// that is forgotten too early is classified once more; one that is taken for another is as likely
// as two random numbers of 64 bits being the same.
class AnsweredFlows {
 public:
  AnsweredFlows() : sets_(kSets) {}

  void add(const FlowKey& key, std::uint64_t id) {
    const std::uint64_t print = print_of(key, id);
    Set& set = sets_[print % kSets];
    // The oldest of a set is its last.
    std::copy_backward(set.begin(), set.end() - 1, set.end());
    set.front() = print;
  }

  [[nodiscard]] bool contains(const FlowKey& key, std::uint64_t id) const {
    const std::uint64_t print = print_of(key, id);
    const Set& set = sets_[print % kSets];
    return std::find(set.begin(), set.end(), print) != set.end();
  }

 private:
  static constexpr std::size_t kSets = 4096;
  struct alignas(64) Set : std::array<std::uint64_t, 8> {};

  // The five-tuple's next life has another id.
  static std::uint64_t print_of(const FlowKey& key, std::uint64_t id) {
    const std::uint64_t print = keyed_hash({std::hash<FlowKey>()(key), id});
    return print == 0 ? 1 : print;  // 0 is a free place
  }

  std::vector<Set> sets_;
};

}  // namespace l7mark
