// SPDX-License-Identifier: GPL-2.0-only
// The clocks, in the units that we count in.
#pragma once

#include <chrono>
#include <cstdint>
#include <ctime>

namespace l7mark {

inline std::uint64_t clock_ns(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

// CLOCK_MONOTONIC, as the kernel stamps samples.
inline std::uint64_t now_ns() {
  return clock_ns(CLOCK_MONOTONIC);
}
inline std::uint64_t now_ms() {
  return now_ns() / 1'000'000;
}

inline std::chrono::system_clock::time_point wall_now() {
  return std::chrono::system_clock::now();
}

}  // namespace l7mark
