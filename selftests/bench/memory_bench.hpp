// SPDX-License-Identifier: GPL-2.0-only
// `memory`: what a daemon at work takes for the flows that it tracks, in the kernel and in its
// processes, and how long it takes to start.
#pragma once

#include <cstddef>
#include <vector>

#include "lab.hpp"
#include "measure.hpp"
#include "util/result.hpp"

namespace l7mark::bench {

struct MemoryBenchOptions {
  std::vector<std::size_t> flows = {10'000, 100'000, 1'000'000};  // tracked at a time
  bool ipv6 = false;                                              // flows of IPv6, and no other
};

// The packets of flows that do not end run through the daemon's own program by BPF_PROG_TEST_RUN,
// no faster than its worker takes the samples. Megabytes are of 1,000,000 bytes.
[[nodiscard]] Result<Table> run_memory_bench(const Lab& lab, const MemoryBenchOptions& options);

}  // namespace l7mark::bench
