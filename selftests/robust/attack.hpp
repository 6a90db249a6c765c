// SPDX-License-Identifier: GPL-2.0-only
// What the attackers send: each attack is an endless sequence of frames.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "packet.hpp"
#include "plan.hpp"

namespace l7mark::robust {

enum class Side : std::uint8_t { lan, wan };

struct AttackOptions {
  std::vector<Flow> flows;    // whose five-tuples are known to the attacker
  std::uint32_t buckets = 0;  // of the table of candidates
};

class Attack {
 public:
  Attack() = default;
  Attack(const Attack&) = delete;
  Attack& operator=(const Attack&) = delete;
  virtual ~Attack() = default;
  // Appends a frame behind its Ethernet addresses.
  virtual void next(Frame& frame, Random& random) = 0;
};

// How the honest client sends the probes of its blocked flows, besides plainly.
enum class Probe : std::uint8_t { plain, short_fragment, extensions };

struct AttackFacts {
  const char* name;
  const char* text;
  bool lan, wan;  // who sends: a neighbour of the client's, somebody on the other side
  Probe probe;
  std::unique_ptr<Attack> (*make)(const AttackOptions& options, Side side);
};

[[nodiscard]] const std::vector<AttackFacts>& attacks();
[[nodiscard]] const AttackFacts* find_attack(const std::string& name);

}  // namespace l7mark::robust
