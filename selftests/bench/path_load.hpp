// SPDX-License-Identifier: GPL-2.0-only
// What `path` sends through its gateway: two processes, one in the client's and one in the server's
// namespace, that do nothing but the work and count it.
#pragma once

#include <vector>

#include "lab.hpp"
#include "util/result.hpp"

namespace l7mark::bench {

struct LoadResult {
  double units = 0;        // arrived at the other end
  double seconds = 0;      // from the first to the last of them
  double cpu_seconds = 0;  // of both processes, all their life
};

struct Load {
  const char* name;       // as the option has it
  const char* rate_unit;  // of units a second times `scale`
  double scale;
  const char* unit;  // what CPU time is divided by: this many units
  double unit_size;
  // For about so many seconds. `number` differs from call to call: it is a port's, so that no two
  // calls share a flow.
  Result<LoadResult> (*run)(const Lab& lab, double seconds, unsigned number);
};

// tcp: one stream in segments as long as the devices take (GSO). tcp-mss: the same in segments of
// 1448 bytes. udp: one stream of datagrams of 64 bytes as IP packets, at most 128 of them under way
// (more than the queues hold would measure their overflow). connections: HTTP requests of a
// connection each, 16 at a time.
[[nodiscard]] const std::vector<Load>& path_loads();

}  // namespace l7mark::bench
