// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <chrono>
#include <optional>
#include <vector>

#include "policy/policy.hpp"

namespace l7mark {

using WallTime = std::chrono::system_clock::time_point;

// A moment as schedules see it; local time is worked out once, and only if asked for.
class Moment {
 public:
  explicit Moment(WallTime now) : now_(now) {}
  [[nodiscard]] bool within(const Schedule& schedule);
  // True for no schedules at all.
  [[nodiscard]] bool within_any(const std::vector<Schedule>& schedules);

 private:
  struct Clock {
    unsigned day = 0;     // 0 is Sunday
    unsigned minute = 0;  // since midnight
  };
  [[nodiscard]] Clock at_offset(int minutes) const;
  [[nodiscard]] Clock local();

  WallTime now_;
  std::optional<Clock> local_;
};

}  // namespace l7mark
