// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace l7mark {

// Groups of the summary table that a flow with this answer of ndpiReader counts in; "all" is one.
[[nodiscard]] std::vector<std::string> groups_of(std::string_view ndpi);

}  // namespace l7mark
