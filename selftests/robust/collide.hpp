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

// IPv6 tuples (TCP) that met in one bucket whatever the seed was, while the seed was added to what
// was hashed and was no key: a flipped top bit goes through an odd multiplication unchanged, and
// the next words' bits undo it.
[[nodiscard]] std::vector<Tuple> collide_always(const Flow& flow);

// `count` tuples (UDP) that meet in one bucket of `buckets` under one seed, which is not the
// instance's: that one is secret.
[[nodiscard]] std::vector<Tuple> collide_for_a_seed(const Flow& flow, std::uint32_t buckets,
                                                    unsigned count);

}  // namespace l7mark::robust
