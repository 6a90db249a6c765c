// SPDX-License-Identifier: GPL-2.0-only
#include "policy/schedule.hpp"

#include <algorithm>
#include <ctime>

namespace l7mark {

Moment::Clock Moment::at_offset(int minutes) const {
  using namespace std::chrono;
  const auto shifted = floor<std::chrono::minutes>(now_) + std::chrono::minutes(minutes);
  const auto day = floor<days>(shifted);
  return {weekday(day).c_encoding(), static_cast<unsigned>((shifted - day).count())};
}

Moment::Clock Moment::local() {
  if (!local_) {
    const std::time_t seconds = std::chrono::system_clock::to_time_t(now_);
    std::tm parts{};
    local_ = localtime_r(&seconds, &parts) == nullptr
                 ? at_offset(0)
                 : Clock{static_cast<unsigned>(parts.tm_wday),
                         static_cast<unsigned>(parts.tm_hour * 60 + parts.tm_min)};
  }
  return *local_;
}

bool Moment::within(const Schedule& schedule) {
  const Clock clock = schedule.utc_offset ? at_offset(*schedule.utc_offset) : local();
  const bool today = (schedule.days >> clock.day & 1) != 0;
  if (schedule.from < schedule.to)
    return today && clock.minute >= schedule.from && clock.minute < schedule.to;
  // Past midnight, the day that counts is the one on which it began.
  const bool yesterday = (schedule.days >> ((clock.day + 6) % 7) & 1) != 0;
  return (today && clock.minute >= schedule.from) || (yesterday && clock.minute < schedule.to);
}

bool Moment::within_any(const std::vector<Schedule>& schedules) {
  return schedules.empty() ||
         std::any_of(schedules.begin(), schedules.end(),
                     [this](const Schedule& schedule) { return within(schedule); });
}

}  // namespace l7mark
