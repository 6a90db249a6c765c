// SPDX-License-Identifier: GPL-2.0-only
// Contenders take turns, round by round, so that what else the machine does falls on all alike;
// medians and the spread are reported, and ratios within a round.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace l7mark::bench {

struct Contender {
  std::string name;
  std::function<double()> measure;  // one round's value; negative: it failed
  std::vector<double> values = {};
};

[[nodiscard]] double median(std::vector<double> values);
// Rounds of all contenders in turn; false if one failed.
[[nodiscard]] bool run_rounds(std::vector<Contender>& contenders, unsigned rounds);
// Median of value(a) / value(b) over the rounds.
[[nodiscard]] double ratio(const Contender& a, const Contender& b);

struct Table {
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
};
[[nodiscard]] std::string format_table(const Table& table);
[[nodiscard]] nlohmann::ordered_json to_json(const Table& table);
void print(const Table& table, bool json);

[[nodiscard]] std::string number(double value, int digits = 1);

}  // namespace l7mark::bench
