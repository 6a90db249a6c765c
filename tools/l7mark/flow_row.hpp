// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace l7mark {

// A flow's record as a row for people, and what stands above such rows.
[[nodiscard]] std::string flow_row_header();
[[nodiscard]] std::string flow_row(const nlohmann::ordered_json& record);

}  // namespace l7mark
