// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <algorithm>
#include <string>

namespace l7mark {

// An instance's name becomes part of paths. Empty if it will do, else what is wrong, as CLI11 wants
// it.
[[nodiscard]] inline std::string check_instance_name(const std::string& name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  };
  if (name.empty() || name.size() > 64 || !std::all_of(name.begin(), name.end(), allowed))
    return "an instance's name is 1 to 64 letters, digits, '-' and '_'";
  return {};
}

}  // namespace l7mark
