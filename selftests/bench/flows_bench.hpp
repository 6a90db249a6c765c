// SPDX-License-Identifier: GPL-2.0-only
// `flows`: how many new flows a worker classifies, against ndpiReader with the same packets and the
// same nDPI.
//
// The packets go through the program of TC ingress by BPF_PROG_TEST_RUN, which leaves its samples
// in ring buffers large enough for all of them. Then the daemon's own workers are started on these
// and take what is there as fast as they can. Nothing stops the sampling of a flow that has its
// answer, so a worker reads rather more than it would at a gateway.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "measure.hpp"
#include "util/result.hpp"

namespace l7mark::bench {

struct FlowsBenchOptions {
  unsigned rounds = 11;
  std::size_t flows = 20'000;         // at least so many
  std::vector<std::string> captures;  // whose flows are copied; none: made up
};

// Needs root; touches no interface. CPU seconds are of the whole process, less those that it takes
// with no packet at all.
[[nodiscard]] Result<Table> run_flows_bench(const FlowsBenchOptions& options);

}  // namespace l7mark::bench
