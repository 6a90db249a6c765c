// SPDX-License-Identifier: GPL-2.0-only
// How fast verdicts get into ipsets, nftables sets and conntrack, against `ipset restore` and
// `nft -f` with the same entries.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "util/result.hpp"

namespace l7mark {

struct PublishBenchOptions {
  std::size_t entries = 100'000;
  std::size_t connections = 20'000;  // conntrack entries to mark
  unsigned rounds = 5;               // each contender once a round, in turn
};

struct PublishContender {
  std::string name;
  // Entries a second over the rounds.
  double median = 0;
  double lowest = 0;
  double highest = 0;
};

struct PublishResult {
  std::vector<PublishContender> contenders;
  // Medians of the rounds' ratios: ours to the tool's rate.
  double ipset_ratio = 0;
  double nft_ratio = 0;
};

// Works in a network namespace of its own, made by a thread of its own. Needs root, and the tools
// ipset, nft and ip.
Result<PublishResult> run_publish_bench(const PublishBenchOptions& options);

}  // namespace l7mark
