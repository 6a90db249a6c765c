// SPDX-License-Identifier: GPL-2.0-only
#include "policy/host_index.hpp"

#include <algorithm>

namespace l7mark {

namespace {

// An HTTP Host header may have a port behind the name (RFC 9110, 7.2).
std::string_view bare_name(std::string_view name) {
  const auto colon = name.find(':');
  if (colon != std::string_view::npos && name.find(':', colon + 1) == std::string_view::npos)
    name = name.substr(0, colon);
  if (name.ends_with('.')) name.remove_suffix(1);
  return name;
}

}  // namespace

std::uint32_t HostIndex::add(const std::vector<HostPattern>& patterns) {
  const std::uint32_t set = sets_++;
  for (const auto& pattern : patterns)
    (pattern.suffix ? below_ : exact_)[pattern.name].push_back(set);
  return set;
}

std::vector<std::uint32_t> HostIndex::find(std::string_view name) const {
  name = bare_name(name);
  std::vector<std::uint32_t> out;
  const auto take = [&out](const Table& table, std::string_view key) {
    const auto found = table.find(key);
    if (found != table.end()) out.insert(out.end(), found->second.begin(), found->second.end());
  };
  take(exact_, name);
  for (auto dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.', dot + 1))
    take(below_, name.substr(dot + 1));
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace l7mark
