// SPDX-License-Identifier: GPL-2.0-only
// Host patterns of all classes in one hash: a name costs as many look-ups as it has labels, however
// many patterns there are.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "policy/policy.hpp"

namespace l7mark {

class HostIndex {
 public:
  // The number under which find() reports these patterns.
  std::uint32_t add(const std::vector<HostPattern>& patterns);

  // Numbers of all sets that have a pattern for the name, ascending. A dot or a port behind the
  // name does not count; the name is in lower case.
  [[nodiscard]] std::vector<std::uint32_t> find(std::string_view name) const;

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>{}(text);
    }
  };
  using Table = std::unordered_map<std::string, std::vector<std::uint32_t>, Hash, std::equal_to<>>;

  std::uint32_t sets_ = 0;
  Table exact_;
  Table below_;
};

}  // namespace l7mark
