// SPDX-License-Identifier: GPL-2.0-only
// A worker: reads one ring buffer, lets nDPI look at what is in it, and sends what it finds to the
// main process. It has no privileges, because nDPI parses what anybody may send.
#pragma once

#include <l7mark/types.h>
#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

#include "dpi/classifier.hpp"
#include "util/fd.hpp"
#include "util/result.hpp"

namespace l7mark {

inline constexpr std::size_t kBarredFlows = 16;

// A page that a worker and the main process share, and that outlives the worker: what it was doing
// when it died, and its figures. The worker writes, except for `barred`.
struct WorkerPage {
  // The flow whose record is in nDPI's hands, valid while `busy` is 1.
  l7m_key current{};
  std::atomic<std::uint32_t> busy{0};
  // Flows that killed an earlier worker: their records are skipped. Written before the fork.
  std::array<l7m_key, kBarredFlows> barred{};
  std::uint32_t barred_count = 0;

  std::atomic<std::uint64_t> samples{0};
  std::atomic<std::uint64_t> notices{0};
  std::atomic<std::uint64_t> malformed{0};
  std::atomic<std::uint64_t> answers{0};
  std::atomic<std::uint64_t> evicted{0};
  std::atomic<std::uint64_t> dns_answers{0};
  std::atomic<std::uint64_t> dns_unasked{0};
  std::atomic<std::uint64_t> skipped{0};  // records of barred flows
  std::atomic<std::uint64_t> flows{0};    // held now
};

struct WorkerOptions {
  std::uint32_t index = 0;
  int ring_fd = -1;    // borrowed; read before privileges go
  int socket_fd = -1;  // borrowed; SOCK_SEQPACKET to the main process
  WorkerPage* page = nullptr;
  EngineOptions engine;
  ClassifierOptions classifier;
};

// Runs until the main process closes its end of the socket. Returns the process's exit status.
int run_worker(const WorkerOptions& options);

}  // namespace l7mark
