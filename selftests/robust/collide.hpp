// SPDX-License-Identifier: GPL-2.0-only
// Five-tuples that share a bucket of the table of candidates with a given one.
#pragma once

#include <cstdint>
#include <vector>

#include "plan.hpp"

namespace l7mark::robust {

struct Tuple {
  Endpoint from, to;
};

// IPv6 tuples (TCP) whose hash was one whatever the seed, by a hash that joined each pair of words
// to its state by XOR and then multiplied it with a constant (l7m_candidate_hash6() before layout
// 2). A flipped top bit goes through an odd multiplication unchanged, and the next pair's bits undo
// it.
[[nodiscard]] std::vector<Tuple> collide_always(const Flow& flow);

// `count` tuples (UDP) that meet in one bucket of `buckets` under secrets that are not the
// instance's.
[[nodiscard]] std::vector<Tuple> collide_for_a_seed(const Flow& flow, std::uint32_t buckets,
                                                    unsigned count);

}  // namespace l7mark::robust
