// SPDX-License-Identifier: GPL-2.0-only
#include "policy/prefix_set.hpp"

#include <algorithm>

namespace l7mark {

namespace {

constexpr unsigned kMappedBits = 96;  // of ::ffff:0:0/96, where IPv4 lives

Address cut(const Address& address, unsigned length) {
  Address out = address;
  for (unsigned byte = length / 8; byte < out.bytes.size(); ++byte) {
    const unsigned kept = byte == length / 8 ? length % 8 : 0;
    out.bytes[byte] &= static_cast<std::uint8_t>(0xff00U >> kept);
  }
  return out;
}

}  // namespace

PrefixSet::PrefixSet(const std::vector<Prefix>& prefixes) {
  for (const auto& prefix : prefixes) {
    const unsigned length = prefix.length128();
    auto group = std::find_if(groups_.begin(), groups_.end(),
                              [length](const Group& g) { return g.length == length; });
    if (group == groups_.end()) group = groups_.insert(groups_.end(), Group{length, {}});
    group->addresses.insert(prefix.address);
  }
}

bool PrefixSet::contains(const Address& address) const {
  const bool v4 = address.is_v4();
  return std::any_of(groups_.begin(), groups_.end(), [&](const Group& group) {
    // An IPv6 block such as ::/0 does not hold the mapped addresses inside it.
    if (v4 && group.length < kMappedBits) return false;
    return group.addresses.contains(cut(address, group.length));
  });
}

}  // namespace l7mark
