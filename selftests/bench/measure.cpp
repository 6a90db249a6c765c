// SPDX-License-Identifier: GPL-2.0-only
#include "measure.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace l7mark::bench {

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

bool run_rounds(std::vector<Contender>& contenders, unsigned rounds) {
  for (unsigned round = 0; round < rounds; ++round) {
    for (Contender& contender : contenders) {
      const double value = contender.measure();
      if (value < 0) return false;
      contender.values.push_back(value);
    }
  }
  return true;
}

double ratio(const Contender& a, const Contender& b) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < a.values.size() && i < b.values.size(); ++i)
    if (b.values[i] > 0) ratios.push_back(a.values[i] / b.values[i]);
  return median(std::move(ratios));
}

std::string number(double value, int digits) {
  return fmt::format("{:.{}f}", value, digits);
}

std::string format_table(const Table& table) {
  std::vector<std::size_t> widths;
  for (const std::string& column : table.columns) widths.push_back(column.size());
  for (const auto& row : table.rows)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string out;
  const auto line = [&](const std::vector<std::string>& cells) {
    for (std::size_t i = 0; i < cells.size(); ++i)
      out += i == 0 ? fmt::format("{:<{}}", cells[i], widths[i])
                    : fmt::format("  {:>{}}", cells[i], widths[i]);
    out += '\n';
  };
  line(table.columns);
  for (const auto& row : table.rows) line(row);
  return out;
}

nlohmann::ordered_json to_json(const Table& table) {
  auto out = nlohmann::ordered_json::array();
  for (const auto& row : table.rows) {
    nlohmann::ordered_json entry;
    for (std::size_t i = 0; i < row.size(); ++i) entry[table.columns[i]] = row[i];
    out.push_back(std::move(entry));
  }
  return out;
}

void print(const Table& table, bool json) {
  const std::string text = json ? to_json(table).dump(2) + "\n" : format_table(table);
  std::fputs(text.c_str(), stdout);
}

}  // namespace l7mark::bench
