// SPDX-License-Identifier: GPL-2.0-only
// Samples as the kernel makes them, for the workers: packets run through the program of TC ingress.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "dataplane/dataplane.hpp"
#include "made_capture.hpp"
#include "util/result.hpp"

namespace l7mark::bench {

// What nDPI is given of a sample: an IP packet, zero-padded to its length on the wire.
struct NdpiInput {
  std::uint32_t flow = 0;  // number of the flow, from 0
  std::uint32_t offset = 0;
  std::uint32_t length = 0;
  bool put_by = false;  // without payload, and first of its flow: only given with the next
};

// A pass over the packets that keeps all of it in memory.
struct Samples {
  std::size_t flows = 0;
  std::size_t count = 0;       // samples
  std::size_t ring_bytes = 0;  // that they take in a ring buffer, notices included
  std::vector<NdpiInput> inputs;
  std::vector<std::uint8_t> bytes;
};

// `ring_bytes` of each of the rings; a power of two.
Result<Dataplane> open_for_samples(std::size_t flows, std::uint32_t rings, std::size_t ring_bytes);

// Copies `first` and on through the program of TC ingress with that descriptor.
Status feed(int program, const PacketSource& source, std::size_t first, std::size_t copies);

// An error if a ring buffer was too small for its samples.
Status check_rings(const Dataplane& dataplane);

Result<Samples> collect(const PacketSource& source, std::size_t copies);

}  // namespace l7mark::bench
