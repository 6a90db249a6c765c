// SPDX-License-Identifier: GPL-2.0-only
// The daemon's own workers on samples that are in their ring buffers already.
#pragma once

#include <cstddef>
#include <cstdint>

#include "made_capture.hpp"
#include "sample_feed.hpp"
#include "util/result.hpp"

namespace l7mark::bench {

struct WorkerRun {
  double cpu_seconds = 0;  // of all workers, less what they take to start
  double seconds = 0;      // by the clock, from when they are ready until they have read all
  std::uint64_t evicted = 0;
};

// All copies of the source's packets go into the rings of `workers` workers, and then these take
// them, flat out, and give up what they could not answer.
Result<WorkerRun> run_workers(const PacketSource& source, std::size_t copies,
                              const Samples& samples, std::uint32_t workers);

}  // namespace l7mark::bench
