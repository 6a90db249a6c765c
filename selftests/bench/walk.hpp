// SPDX-License-Identifier: GPL-2.0-only
// Runs of TC programs over packets of ever other flows, by the bench's own program in front of
// them: what that costs is measured as well, and taken off by the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "flow.hpp"
#include "util/result.hpp"

struct l7mark_bench;

namespace l7mark::bench {

class Walk {
 public:
  // With room for so many flows in the floor's table.
  static Result<Walk> load(std::size_t flows);

  // A packet of flow `flow`: TCP over IPv4, no flags but ACK, 512 bytes of payload.
  [[nodiscard]] static FlowKey key(std::uint32_t flow);
  // Puts so many flows into the floor's table.
  Status fill_floor(std::size_t flows);

  [[nodiscard]] int empty() const;  // program that does nothing
  [[nodiscard]] int floor() const;  // parses, looks up once, counts

  // Mean nanoseconds of a packet over `repeat` runs, the walk included; negative if the run failed.
  // `flows` is a power of two.
  double run(int program, std::size_t flows, unsigned repeat);

 private:
  struct Destroy {
    void operator()(l7mark_bench* object) const;
  };
  explicit Walk(l7mark_bench* object);
  std::unique_ptr<l7mark_bench, Destroy> bench_;
};

// Mean nanoseconds over `repeat` runs of a program; negative if they failed. From 100,000 runs on,
// of the thread's CPU time: the kernel tells whole nanoseconds only, which are 3 % of what an
// established flow's packet costs. Of fewer, the kernel's: what precedes the first run, for XDP a
// patch of the dispatcher's text, would be as much as 100 ns of each.
[[nodiscard]] double run_ns(int program, std::span<const std::uint8_t> packet, unsigned repeat);

}  // namespace l7mark::bench
