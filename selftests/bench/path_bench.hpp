// SPDX-License-Identifier: GPL-2.0-only
// `path`: what a gateway forwards, and what that costs, with one tool or another on it.
#pragma once

#include <string>
#include <vector>

#include "lab.hpp"
#include "measure.hpp"
#include "util/result.hpp"

namespace l7mark::bench {

struct PathBenchOptions {
  unsigned rounds = 11;
  double seconds = 0.7;                 // of each load, each round
  std::vector<std::string> loads;       // by name; empty: all
  std::vector<std::string> contenders;  // by name; empty: all. "none" always runs
};

// In a lab; needs the tools ip and sysctl, and l7markd beside this program. What a contender lacks
// is said in its row.
[[nodiscard]] Result<Table> run_path_bench(const Lab& lab, const PathBenchOptions& options);

// Names for the options.
[[nodiscard]] std::vector<std::string> path_load_names();
[[nodiscard]] std::vector<std::string> path_contender_names();

}  // namespace l7mark::bench
