// SPDX-License-Identifier: GPL-2.0-only
// `scale`: what becomes dearer when flows, classes, host names or workers become more.
#pragma once

#include <cstddef>
#include <vector>

#include "measure.hpp"
#include "util/result.hpp"

namespace l7mark::bench {

struct ScaleBenchOptions {
  unsigned rounds = 11;
  unsigned repeat = 300'000;                                            // runs of a program a round
  std::vector<std::size_t> flows = {1024, 16'384, 131'072, 1'048'576};  // powers of two
  std::vector<std::size_t> classes = {1, 16, 64, 200};
  std::vector<std::size_t> hosts = {10, 1000, 5000};  // in all classes together
  std::vector<unsigned> workers = {1, 2, 4};
  std::size_t worker_flows = 10'000;
};

// Needs root; touches no interface. "by smallest" is the ratio to the first row of its kind.
[[nodiscard]] Result<Table> run_scale_bench(const ScaleBenchOptions& options);

}  // namespace l7mark::bench
