// SPDX-License-Identifier: GPL-2.0-only
// CIDR blocks: a look-up costs as many hashes as there are different lengths.
#pragma once

#include <unordered_set>
#include <vector>

#include "util/address.hpp"

namespace l7mark {

class PrefixSet {
 public:
  // The prefixes have no address bits beyond their length.
  explicit PrefixSet(const std::vector<Prefix>& prefixes);
  [[nodiscard]] bool empty() const { return groups_.empty(); }
  [[nodiscard]] bool contains(const Address& address) const;

 private:
  struct Group {
    unsigned length = 0;  // of 128 bits
    std::unordered_set<Address> addresses;
  };
  std::vector<Group> groups_;
};

}  // namespace l7mark
