// SPDX-License-Identifier: GPL-2.0-only
// What may sit on the gateway of `path`, each put there and taken away by its own means.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lab.hpp"
#include "util/result.hpp"

namespace l7mark::bench {

// Packets that a tool should have seen, and those of them that it did not.
struct Captured {
  double wanted = 0;
  double lost = 0;
};

class PathContender {
 public:
  PathContender() = default;
  PathContender(const PathContender&) = delete;
  PathContender& operator=(const PathContender&) = delete;
  virtual ~PathContender() = default;

  // As the option and the table have it.
  [[nodiscard]] virtual const char* name() const = 0;
  // Name of the contender whose figures are the floor of this one, if it has one.
  [[nodiscard]] virtual const char* floor() const { return nullptr; }
  // Why this machine can't run it; nothing if it can.
  virtual std::optional<std::string> missing(const Lab&) { return std::nullopt; }
  // Puts it onto lan0. The caller is in the gateway's namespace.
  virtual Status begin(const Lab& lab) = 0;
  // Takes it off. What it lost is known by then at the latest; nothing for what captures nothing.
  virtual Result<std::optional<Captured>> end(const Lab& lab) = 0;
  // The process whose CPU time, with its children's, is the tool's; -1 for none.
  [[nodiscard]] virtual pid_t process() const { return -1; }
};

// none, tc-empty, l7mark-tc, xdp-empty, l7mark-xdp, ndpiReader, nfqueue-20.
[[nodiscard]] std::vector<std::unique_ptr<PathContender>> path_contenders();

// In nfqueue.cpp: accepts whatever comes to the queue, until it is killed. Returns an exit status.
[[nodiscard]] int accept_queue(std::uint16_t queue);

}  // namespace l7mark::bench
