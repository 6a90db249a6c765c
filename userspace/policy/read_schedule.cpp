// SPDX-License-Identifier: GPL-2.0-only
// The "schedule" objects of a policy.
#include "policy/reader.hpp"
#include "policy/values.hpp"
#include "util/text.hpp"

namespace l7mark {

namespace {

// By tm_wday.
constexpr std::pair<std::string_view, std::uint8_t> kDays[] = {
    {"mon", 1}, {"tue", 2}, {"wed", 3}, {"thu", 4}, {"fri", 5}, {"sat", 6}, {"sun", 0},
};

void read_days(PolicyReader& reader, const JsonNode& node, Schedule& schedule) {
  schedule.days = 0;
  for (const JsonNode* element : reader.elements(node)) {
    const unsigned day = reader.one_of<std::uint8_t>(*element, "day", kDays);
    schedule.days = static_cast<std::uint8_t>(schedule.days | 1U << day);
  }
}

std::uint16_t read_clock(PolicyReader& reader, const JsonNode& node) {
  const auto minutes = parse_clock(reader.text(node));
  if (!minutes) reader.fail(node, "must be a time from \"00:00\" to \"24:00\"");
  return minutes.value_or(0);
}

void read_timezone(PolicyReader& reader, const JsonNode& node, Schedule& schedule) {
  const std::string wanted = reader.text(node);
  if (equal_ignoring_case(wanted, "local")) return;
  schedule.utc_offset = parse_utc_offset(wanted);
  if (!schedule.utc_offset)
    reader.fail(node,
                fmt::format("unknown time zone \"{}\": must be \"local\" (set TZ for another), "
                            "\"UTC\", or an offset as in \"+02:00\"",
                            wanted));
}

constexpr Field<Schedule> kScheduleFields[] = {
    {"days", read_days},
    {"from", [](PolicyReader& r, const JsonNode& n, Schedule& s) { s.from = read_clock(r, n); }},
    {"to", [](PolicyReader& r, const JsonNode& n, Schedule& s) { s.to = read_clock(r, n); }},
    {"timezone", read_timezone},
};

}  // namespace

Schedule read_schedule(PolicyReader& reader, const JsonNode& node) {
  Schedule schedule;
  reader.object<Schedule>(node, kScheduleFields, schedule);
  if (schedule.from == schedule.to)
    reader.fail(node, "\"from\" and \"to\" are the same time: leave both out for whole days");
  return schedule;
}

void add_schedule_keys(std::vector<KeyTable>& out) {
  out.push_back(key_table<Schedule>("schedule", kScheduleFields));
}

}  // namespace l7mark
