// SPDX-License-Identifier: GPL-2.0-only
// What a daemon put into the system, for the one after it: only that is taken out again. Needed
// after a crash or --keep, when what is there could as well be the user's.
#pragma once

#include <set>
#include <string>

#include "util/result.hpp"

namespace l7mark {

struct DaemonState {
  std::string netns;                 // network_namespace_id() of where it worked
  std::set<std::string> interfaces;  // attached by a daemon, not by `l7mark load`
  std::set<std::string> sets;        // created by one
};

// /run/l7mark/INSTANCE.state.json
[[nodiscard]] std::string state_path(const std::string& instance);
// Empty if there is none; one that cannot be read is logged and taken for none.
[[nodiscard]] DaemonState read_state(const std::string& path);
// Replaces the file as a whole.
Status write_state(const std::string& path, const DaemonState& state);

}  // namespace l7mark
