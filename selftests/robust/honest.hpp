// SPDX-License-Identifier: GPL-2.0-only
// The honest client: flows that were there before the attack, of classes that are marked and of one
// that is dropped, and flows that begin while it goes on.
#pragma once

#include <string>

#include "attack.hpp"
#include "plan.hpp"
#include "util/result.hpp"

namespace l7mark::robust {

struct HonestOptions {
  PlanOptions plan;
  Probe probe = Probe::plain;
  double fresh_rate = 20;  // flows begun a second
  std::string pin;         // of the witness's counts
  std::string lan0, wan0;  // Ethernet addresses of the gateway's interfaces
  std::string server_netns;
};

// Prints "ready" when every flow that is there beforehand has its mark or is dropped, and, ended by
// SIGTERM, an object (JSON) with what became of all.
Status be_honest(const HonestOptions& options);

}  // namespace l7mark::robust
