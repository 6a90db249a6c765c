// SPDX-License-Identifier: GPL-2.0-only
// `latency`: how long after the packet that decides a flow the kernel knows its class, and the
// ipset has its entry.
#pragma once

#include <vector>

#include "lab.hpp"
#include "measure.hpp"
#include "util/result.hpp"

namespace l7mark::bench {

struct LatencyBenchOptions {
  unsigned rounds = 11;
  double seconds = 6;                                // of each rate, each round
  std::vector<double> rates = {100, 1'000, 10'000};  // new flows a second, evenly spaced
};

// In a lab; needs the tools ip and sysctl, l7markd beside this program, and ipset in the kernel.
[[nodiscard]] Result<Table> run_latency_bench(const Lab& lab, const LatencyBenchOptions& options);

}  // namespace l7mark::bench
