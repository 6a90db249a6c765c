// SPDX-License-Identifier: GPL-2.0-only
// A laboratory for the benches that send real packets: network namespaces and the processes in
// them, all of which are gone afterwards, however the bench ends.
//
//     client eth0 ---- lan0 gateway wan0 ---- eth0 server
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "util/result.hpp"

namespace l7mark::bench {

inline constexpr const char* kClientAddress = "10.77.1.2";
inline constexpr const char* kServerAddress = "198.51.100.10";

struct Lab {
  std::string prefix;    // of the namespaces' names: l7mb-PID
  std::string instance;  // of daemons in the gateway
  std::string folder;    // for policies and logs; goes with the lab

  [[nodiscard]] std::string ns(const std::string& role) const { return prefix + "-" + role; }
};

// Runs `work` in a process of its own; returns its exit status. When that has ended, by itself, by
// a crash, or because SIGINT, SIGTERM or SIGHUP came: ends every process that it started, and
// deletes namespaces, pins and files of the lab. Needs root.
[[nodiscard]] int in_lab(const std::function<int(const Lab&)>& work);

// The namespaces and links above; the gateway forwards IPv4.
Status make_path(const Lab& lab);

// A program in the background. Ends with its owner.
class Process {
 public:
  Process() = default;
  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) noexcept;
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() { stop(); }

  // Output goes to the file `log`, of which the beginning is overwritten. `netns` may be empty: the
  // caller's.
  static Result<Process> start(const std::vector<std::string>& words, const std::string& netns,
                               const std::string& log);
  // A copy of this process that calls `work` in the namespace, and exits with what it returns.
  static Result<Process> fork_off(const std::string& netns, const std::function<int()>& work);

  [[nodiscard]] pid_t pid() const { return pid_; }
  // False once it has ended by itself.
  [[nodiscard]] bool running();
  // Sends the signal and waits at most ten seconds, then kills. Does nothing the second time.
  void stop(int signal_number = 15);

  struct Ended {
    int status = -1;         // exit status; -1: ended by a signal
    double cpu_seconds = 0;  // user and system, of all its life
  };
  // Waits until it has ended by itself; after `seconds` it is killed, which is an error.
  Result<Ended> wait(double seconds);

 private:
  explicit Process(pid_t pid) : pid_(pid) {}
  pid_t pid_ = -1;
};

// To its end, and without an error.
Status run(const Lab& lab, const std::vector<std::string>& words, const std::string& netns = {});

// CPU seconds that a process, its threads and its children have used up to now; the scheduler's
// figure, in nanoseconds. What has ended is not in it.
[[nodiscard]] double cpu_seconds(pid_t pid);
// … of the kernel's softirq threads: the part of the network's work that no process is charged
// with.
[[nodiscard]] double softirq_seconds();

// The daemon as it is in production, in the gateway; returns when its workers are ready.
Result<Process> start_daemon(const Lab& lab, const std::string& policy);
// The named counters of the kernel, as the daemon's status has them; 0 for one that it lacks.
Result<std::vector<std::uint64_t>> daemon_counters(const Lab& lab,
                                                   const std::vector<std::string>& names);

// Monotonic seconds.
[[nodiscard]] double now_seconds();

}  // namespace l7mark::bench
