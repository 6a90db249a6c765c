// SPDX-License-Identifier: GPL-2.0-only
#include "path_bench.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <thread>

#include "path_contender.hpp"
#include "path_load.hpp"
#include "util/log.hpp"
#include "util/netns.hpp"

namespace l7mark::bench {

namespace {

// What one contender showed under one load, a value a round.
struct Series {
  std::vector<double> rate;  // units a second
  std::vector<double> cpu;   // seconds a unit: load, tool and softirq threads
  std::vector<double> tool;  // seconds a unit: the tool's processes
  std::optional<Captured> captured;
};

bool chosen(const std::vector<std::string>& names, const char* name) {
  return names.empty() || std::find(names.begin(), names.end(), name) != names.end();
}

std::vector<double> ratios(const std::vector<double>& values, const std::vector<double>& others) {
  std::vector<double> out;
  for (std::size_t i = 0; i < values.size() && i < others.size(); ++i)
    if (others[i] > 0) out.push_back(values[i] / others[i]);
  return out;
}

// "0.985 (0.970 to 1.004)": the median, and the quarters of the rounds beyond which lie the rest.
std::string with_quartiles(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  return fmt::format("{:.3f} ({:.3f} to {:.3f})", median(values), values[values.size() / 4],
                     values[values.size() * 3 / 4]);
}

class PathBench {
 public:
  PathBench(const Lab& lab, const PathBenchOptions& options) : lab_(lab), options_(options) {}

  Status prepare() {
    L7MARK_TRY(make_path(lab_));
    // Neither ports nor TIME_WAIT may run out: both would show up as a change over the rounds.
    L7MARK_TRY(
        run(lab_, {"sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535"}, lab_.ns("client")));
    L7MARK_TRY(run(lab_, {"sysctl", "-qw", "net.ipv4.tcp_max_tw_buckets=1000"}, lab_.ns("server")));
    L7MARK_TRY(enter_network_namespace(lab_.ns("gateway")));
    for (auto& contender : path_contenders()) {
      const std::string name = contender->name();
      bool wanted = name == "none" || chosen(options_.contenders, contender->name());
      // Nothing is said of ours without its floor.
      for (const auto& other : path_contenders())
        if (other->floor() != nullptr && other->floor() == name &&
            chosen(options_.contenders, other->name()))
          wanted = true;
      if (!wanted) continue;
      if (auto why = contender->missing(lab_))
        missing_[name] = *why;
      else
        running_.push_back(contender.get());
      contenders_.push_back(std::move(contender));
    }
    // Neighbours become known, caches warm.
    for (const Load& load : path_loads()) {
      if (!chosen(options_.loads, load.name)) continue;
      if (const auto warm = load.run(lab_, 0.1, number_++); !warm) return warm.error();
    }
    return success();
  }

  Status measure() {
    for (unsigned round = 0; round < options_.rounds; ++round) {
      for (const Load& load : path_loads()) {
        if (!chosen(options_.loads, load.name)) continue;
        for (std::size_t i = 0; i < running_.size(); ++i)
          L7MARK_TRY(measure_one(load, *running_[(i + round) % running_.size()]));
      }
    }
    return success();
  }

  [[nodiscard]] Table table() {
    Table out;
    out.columns = {"load",        "on the gateway", "rate",          "lowest",
                   "highest",     "rate by none",   "rate by empty", "CPU",
                   "CPU by none", "CPU by empty",   "tool's CPU",    "lost"};
    for (const Load& load : path_loads()) {
      if (!chosen(options_.loads, load.name)) continue;
      const Series& none = series_[{load.name, "none"}];
      for (const auto& contender : contenders_) {
        const std::string name = contender->name();
        if (const auto why = missing_.find(name); why != missing_.end()) {
          out.rows.push_back({load.name, name, "skipped: " + why->second});
          out.rows.back().resize(out.columns.size());
          continue;
        }
        out.rows.push_back(row(load, *contender, none));
      }
    }
    return out;
  }

 private:
  Status measure_one(const Load& load, PathContender& contender) {
    L7MARK_TRY(contender.begin(lab_));
    const auto tool_seconds = [&] {
      return contender.process() < 0 ? 0.0 : cpu_seconds(contender.process());
    };
    const double tool_before = tool_seconds();
    const double softirq_before = softirq_seconds();
    const auto result = load.run(lab_, options_.seconds, number_++);
    // A tool may be behind; what it has yet to do is part of the cost.
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const double tool = tool_seconds() - tool_before;
    const double softirq = softirq_seconds() - softirq_before;
    const auto captured = contender.end(lab_);
    if (!result) return result.error();
    if (!captured) return captured.error();
    Series& series = series_[{load.name, contender.name()}];
    series.rate.push_back(result->units / result->seconds);
    series.cpu.push_back((result->cpu_seconds + tool + softirq) / result->units);
    series.tool.push_back(tool / result->units);
    if (*captured) {
      if (!series.captured) series.captured.emplace();
      series.captured->wanted += (*captured)->wanted;
      series.captured->lost += (*captured)->lost;
    }
    return success();
  }

  std::vector<std::string> row(const Load& load, const PathContender& contender,
                               const Series& none) {
    const Series& mine = series_[{load.name, contender.name()}];
    const Series* floor =
        contender.floor() == nullptr ? nullptr : &series_[{load.name, contender.floor()}];
    const auto [low, high] = std::minmax_element(mine.rate.begin(), mine.rate.end());
    const int digits = load.scale < 1e-6 ? 2 : 0;
    std::vector<std::string> out = {
        load.name,
        contender.name(),
        number(median(mine.rate) * load.scale, digits) + " " + load.rate_unit,
        number(*low * load.scale, digits),
        number(*high * load.scale, digits),
        number(median(ratios(mine.rate, none.rate)), 3),
        floor == nullptr ? std::string() : with_quartiles(ratios(mine.rate, floor->rate)),
        number(median(mine.cpu) * load.unit_size * 1e6, 2) + " us/" + load.unit,
        number(median(ratios(mine.cpu, none.cpu)), 3),
        floor == nullptr ? std::string() : with_quartiles(ratios(mine.cpu, floor->cpu)),
        contender.process() == -1 && !mine.captured
            ? std::string()
            : number(median(ratios(mine.tool, mine.cpu)) * 100, 2) + "%",
        {},
    };
    if (mine.captured)
      out.back() = fmt::format("{:.0f} of {:.0f}", mine.captured->lost, mine.captured->wanted);
    return out;
  }

  const Lab& lab_;
  const PathBenchOptions& options_;
  std::vector<std::unique_ptr<PathContender>> contenders_;
  std::vector<PathContender*> running_;
  std::map<std::string, std::string> missing_;
  std::map<std::pair<std::string, std::string>, Series> series_;
  unsigned number_ = 0;
};

}  // namespace

Result<Table> run_path_bench(const Lab& lab, const PathBenchOptions& options) {
  PathBench bench(lab, options);
  L7MARK_TRY(bench.prepare());
  L7MARK_TRY(bench.measure());
  return bench.table();
}

std::vector<std::string> path_load_names() {
  std::vector<std::string> out;
  for (const Load& load : path_loads()) out.emplace_back(load.name);
  return out;
}

std::vector<std::string> path_contender_names() {
  std::vector<std::string> out;
  for (const auto& contender : path_contenders()) out.emplace_back(contender->name());
  return out;
}

}  // namespace l7mark::bench
