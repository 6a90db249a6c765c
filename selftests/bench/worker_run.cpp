// SPDX-License-Identifier: GPL-2.0-only
#include "worker_run.hpp"

#include <poll.h>
#include <sys/wait.h>

#include <bit>
#include <vector>

#include "daemon/workers.hpp"
#include "lab.hpp"

namespace l7mark::bench {

namespace {

constexpr double kPatience = 300;  // seconds

// `samples` are in the rings; there may be none.
Result<WorkerRun> run_pool(const Dataplane& dataplane, std::size_t samples) {
  std::vector<int> rings;
  for (std::uint32_t i = 0; i < dataplane.rings(); ++i) rings.push_back(dataplane.ring_fd(i));
  ClassifierOptions classifier;
  classifier.idle_ns = 1'000'000;  // looked at when the ring is empty
  WorkerPool pool(rings, {}, classifier, {[](auto&&) {}, [](auto, auto) {}});
  L7MARK_TRY(pool.start());
  const double deadline = now_seconds() + kPatience;
  double ready_at = 0;
  double read_at = 0;
  while (now_seconds() < deadline) {
    pollfd wait{pool.fd(), POLLIN, 0};
    poll(&wait, 1, 1);
    pool.process(1024);
    if (ready_at == 0 && pool.all_ready()) ready_at = now_seconds();
    std::uint64_t read = 0, held = 0;
    for (const WorkerFigures& figures : pool.figures()) {
      if (figures.pid > 0 && waitpid(figures.pid, nullptr, WNOHANG) != 0)
        return Error{"run", "a worker", 0, "it ended"};
      read += figures.samples;
      held += figures.flows;
    }
    if (read_at == 0 && read >= samples) read_at = now_seconds();
    if (ready_at == 0 || read < samples || held != 0) continue;
    WorkerRun out;
    out.seconds = read_at - ready_at;
    for (const WorkerFigures& figures : pool.figures()) {
      out.cpu_seconds += cpu_seconds(figures.pid);
      out.evicted += figures.evicted;
    }
    return out;
  }
  return Error{"run", "the workers", 0, "they did not come to an end"};
}

}  // namespace

Result<WorkerRun> run_workers(const PacketSource& source, std::size_t copies,
                              const Samples& samples, std::uint32_t workers) {
  auto dataplane =
      open_for_samples(samples.flows, workers, std::bit_ceil(samples.ring_bytes + 4096));
  if (!dataplane) return dataplane.error();
  const auto start = run_pool(*dataplane, 0);
  if (!start) return start.error();
  L7MARK_TRY(feed(dataplane->program_fd("l7mark_ingress"), source, 0, copies));
  L7MARK_TRY(check_rings(*dataplane));
  auto out = run_pool(*dataplane, samples.count);
  if (out) out->cpu_seconds -= start->cpu_seconds;
  return out;
}

}  // namespace l7mark::bench
