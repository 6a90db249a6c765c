// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <cstddef>
#include <vector>

#include "measure.hpp"
#include "util/result.hpp"

namespace l7mark::bench {

struct PacketBenchOptions {
  unsigned rounds = 11;
  unsigned repeat = 300'000;
  std::vector<std::size_t> flows = {1, 16'384};  // established at a time; powers of two
};

// Needs root; touches no interface.
[[nodiscard]] Result<Table> run_packet_bench(const PacketBenchOptions& options);

}  // namespace l7mark::bench
