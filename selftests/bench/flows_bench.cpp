// SPDX-License-Identifier: GPL-2.0-only
#include "flows_bench.hpp"

#include <fmt/format.h>
#include <unistd.h>
#include <ctime>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <sstream>

#include "dpi/engine.hpp"
#include "lab.hpp"
#include "made_capture.hpp"
#include "sample_feed.hpp"
#include "worker_run.hpp"

namespace l7mark::bench {

namespace {

constexpr double kPatience = 300;  // seconds that a contender may take

bool find_program(const char* name) {
  const char* path = std::getenv("PATH");
  if (path == nullptr) return false;
  std::istringstream folders(path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string file = fmt::format("{}/{}", folder, name);
    if (access(file.c_str(), X_OK) == 0) return true;
  }
  return false;
}

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

class FlowsBench {
 public:
  explicit FlowsBench(const FlowsBenchOptions& options) : options_(options) {}

  Result<Table> run() {
    L7MARK_TRY(prepare());
    std::vector<Contender> contenders;
    // Each with its run on nothing, whose CPU seconds are taken off.
    contenders.push_back({"ndpiReader", [this] { return reader(); }});
    contenders.push_back({"one worker", [this] { return workers(1, one_); }});
    contenders.push_back({"two workers", [this] { return workers(2, two_); }});
    contenders.push_back(
        {"nDPI alone, called as the worker calls it", [this] { return ndpi_alone(); }});
    if (!has_reader_) contenders.erase(contenders.begin());
    if (!run_rounds(contenders, options_.rounds)) return failure_;
    return report(contenders);
  }

 private:
  // What the contender told besides its CPU time, a value a round.
  struct Pace {
    std::vector<double> flows_a_second = {};
    std::uint64_t evicted = 0;
  };

  Status prepare() {
    if (options_.captures.empty()) {
      source_ = PacketSource::made_up();
    } else {
      auto read = PacketSource::read(options_.captures);
      if (!read) return read.error();
      source_ = std::move(*read);
    }
    copies_ = std::max<std::size_t>(1, (options_.flows + source_.flows() - 1) / source_.flows());
    auto samples = collect(source_, copies_);
    if (!samples) return samples.error();
    samples_ = std::move(*samples);

    has_reader_ = find_program("ndpiReader");
    if (!has_reader_) return success();
    auto full = TemporaryFile::make(".pcap");
    if (!full) return full.error();
    auto empty = TemporaryFile::make(".pcap");
    if (!empty) return empty.error();
    L7MARK_TRY(write_capture(source_, copies_, full->path()));
    L7MARK_TRY(write_capture(source_, 0, empty->path()));
    full_ = std::make_unique<TemporaryFile>(std::move(*full));
    empty_ = std::make_unique<TemporaryFile>(std::move(*empty));
    return success();
  }

  double fail(const Error& error) {
    failure_ = error;
    return -1;
  }

  [[nodiscard]] double rate(double cpu_seconds) const {
    return static_cast<double>(samples_.flows) / std::max(cpu_seconds, 1e-9);
  }

  Result<double> reader_seconds(const std::string& capture) {
    auto process = Process::start({"ndpiReader", "-q", "-i", capture}, {}, "/dev/null");
    if (!process) return process.error();
    const auto ended = process->wait(kPatience);
    if (!ended) return ended.error();
    if (ended->status != 0) return Error{"run", "ndpiReader", 0, "it failed"};
    return ended->cpu_seconds;
  }

  // Flows a CPU second.
  double reader() {
    const auto start = reader_seconds(empty_->path());
    if (!start) return fail(start.error());
    const auto spent = reader_seconds(full_->path());
    if (!spent) return fail(spent.error());
    return rate(*spent - *start);
  }

  double workers(std::uint32_t count, Pace& pace) {
    const auto done = run_workers(source_, copies_, samples_, count);
    if (!done) return fail(done.error());
    pace.flows_a_second.push_back(static_cast<double>(samples_.flows) /
                                  std::max(done->seconds, 1e-9));
    pace.evicted += done->evicted;
    return rate(done->cpu_seconds);
  }

  // The calls of nDPI that the worker makes for these samples, and nothing else.
  double ndpi_alone() {
    auto engine = Engine::make();
    if (!engine) return fail(engine.error());
    struct State {
      EngineFlow flow;
      const NdpiInput* put_by = nullptr;
      bool done = false;
    };
    std::vector<State> states(samples_.flows);
    std::uint64_t time_ms = 1'700'000'000'000;
    const auto give = [&](State& state, const NdpiInput& input) {
      const Detection found =
          engine->process(state.flow, samples_.bytes.data() + input.offset, input.length, time_ms);
      if (found.application != 0 && !engine->wants_more(state.flow)) {
        state.done = true;
        state.flow = EngineFlow();
      }
    };
    const double begin = thread_seconds();
    for (const NdpiInput& input : samples_.inputs) {
      State& state = states[input.flow];
      if (input.put_by) state.put_by = &input;
      if (state.done || input.put_by) continue;
      if (!state.flow) state.flow = engine->new_flow();
      if (state.put_by != nullptr) give(state, *std::exchange(state.put_by, nullptr));
      if (!state.done) give(state, input);
    }
    for (State& state : states) {
      if (state.done) continue;
      if (!state.flow) state.flow = engine->new_flow();
      if (state.put_by != nullptr) give(state, *state.put_by);
      if (!state.done) (void)engine->give_up(state.flow);
      state.flow = EngineFlow();
    }
    return rate(thread_seconds() - begin);
  }

  Table report(const std::vector<Contender>& contenders) const {
    Table table;
    table.columns = {"contender",     "flows a CPU second", "lowest", "highest",
                     "by ndpiReader", "flows a second",     "evicted"};
    if (!has_reader_) table.rows.push_back({"ndpiReader", "not found", "", "", "", "", ""});
    const Contender* worker = nullptr;
    for (const Contender& c : contenders) {
      const auto [low, high] = std::minmax_element(c.values.begin(), c.values.end());
      const Pace* pace = c.name == "one worker" ? &one_ : c.name == "two workers" ? &two_ : nullptr;
      if (pace == &one_) worker = &c;
      table.rows.push_back({c.name, number(median(c.values), 0), number(*low, 0), number(*high, 0),
                            has_reader_ ? number(ratio(c, contenders[0]), 2) : "",
                            pace != nullptr ? number(median(pace->flows_a_second), 0) : "",
                            pace != nullptr ? fmt::format("{}", pace->evicted) : ""});
    }
    table.rows.push_back({"nDPI's share of one worker, %",
                          number(100 * ratio(*worker, contenders.back()), 0), "", "", "", "", ""});
    table.rows.push_back(
        {"flows", number(static_cast<double>(samples_.flows), 0), "", "", "", "", ""});
    return table;
  }

  const FlowsBenchOptions& options_;
  PacketSource source_;
  std::size_t copies_ = 1;
  Samples samples_;
  bool has_reader_ = false;
  std::unique_ptr<TemporaryFile> full_, empty_;
  Pace one_, two_;
  Error failure_;
};

}  // namespace

Result<Table> run_flows_bench(const FlowsBenchOptions& options) {
  return FlowsBench(options).run();
}

}  // namespace l7mark::bench
