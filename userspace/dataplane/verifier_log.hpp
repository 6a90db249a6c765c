// SPDX-License-Identifier: GPL-2.0-only
// Why the kernel refused a program, in its own words. Internal to what loads objects.
#pragma once

#include <string>
#include <utility>
#include <vector>

struct bpf_object;
struct bpf_program;

namespace l7mark {

// Asks for the verifier's errors only (BPF_LOG_STATS), never for its trace: that has gigabytes for
// a program that explodes, and before 6.4 keeps the begin of them. Also spares libbpf's second
// attempt, which would ask for the trace.
class VerifierLog {
 public:
  // For all programs of an object that is opened and not loaded. Must outlive the load.
  explicit VerifierLog(bpf_object* object);
  VerifierLog(VerifierLog&&) = default;
  VerifierLog& operator=(VerifierLog&&) = default;

  // After a failed load, before the object is closed: "l7mark_xdp: invalid func unknown#189". The
  // last lines, in one of at most 300 bytes; empty where the verifier was not asked or said
  // nothing.
  [[nodiscard]] std::string reason() const;

 private:
  std::vector<std::pair<std::string, std::vector<char>>> logs_;  // in the order of loading
};

// The errors in a verifier's log: without its statistics, the last lines in one. For reason().
[[nodiscard]] std::string last_words(const std::string& log);

}  // namespace l7mark
