// SPDX-License-Identifier: GPL-2.0-only
// A policy compiled for matching: one pass over the classes, with host names in a hash and
// applications in bit sets, so that thousands of names cost a flow no more than a few.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "flow.hpp"
#include "policy/policy.hpp"
#include "policy/schedule.hpp"

namespace l7mark {

// Indexes into Policy::classes, ascending. Empty: no class.
using ClassList = std::vector<std::uint16_t>;

class PolicyMatcher {
 public:
  explicit PolicyMatcher(std::shared_ptr<const Policy> policy);
  PolicyMatcher(PolicyMatcher&&) noexcept;
  PolicyMatcher& operator=(PolicyMatcher&&) noexcept;
  ~PolicyMatcher();

  // Tells which interface has which index now; a name that is not given matches nothing. Call it
  // again when interfaces come and go.
  void set_interfaces(const std::vector<std::pair<std::string, std::uint32_t>>& indexes);

  // Classes in order up to the first without "continue". While a flow is undecided, what detection
  // may still change counts neither as matching nor as not matching: matching stops at the first
  // class that depends on it.
  [[nodiscard]] ClassList match(const FlowFacts& facts, FlowState state, WallTime now) const;

  // Of these classes of match(): those that hold by a guess which they do not name. A guess is an
  // application, a master or a category by port, by address or by another flow of the same hosts;
  // a class names it by `confidence`. What a class rules out, it rules out by a guess as well.
  [[nodiscard]] ClassList by_guess(const FlowFacts& facts, FlowState state,
                                   const ClassList& classes) const;

  // The source of these classes of match(), or of having none of them. A class that matches by
  // what detection did not find, "Unknown" for instance, is decided by the answer too.
  [[nodiscard]] Source source(const FlowFacts& facts, const ClassList& classes) const;

  // Number of the policy's own application that the flow is, else facts.application. For showing
  // only: match() wants the facts as nDPI gave them.
  [[nodiscard]] std::uint16_t application(const FlowFacts& facts) const;

  // When a schedule next begins or ends, so that flows can be matched anew; nothing if none ever
  // does. Looks eight days ahead.
  [[nodiscard]] std::optional<WallTime> next_change(WallTime now) const;

  // By class: within its schedule, or without one.
  [[nodiscard]] std::vector<bool> in_schedule(WallTime now) const;

  [[nodiscard]] const Policy& policy() const;

 private:
  class Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace l7mark
