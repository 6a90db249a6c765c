// SPDX-License-Identifier: GPL-2.0-only
// How many packets of an attack a second go through the gateway, by how many go through one that
// has an empty program in the classifier's place.
#pragma once

#include <string>

#include "attack.hpp"
#include "util/result.hpp"

namespace l7mark::robust {

struct RateOptions {
  std::string attack;
  AttackOptions made;
  unsigned rounds = 3;
  double seconds = 0.25;  // of a measurement
  // Namespaces, and Ethernet addresses of the two gateways' interfaces.
  std::string client, server, gateway, bare;
  std::string lan0, wan0, bare_lan0, bare_wan0;
};

// Prints an object (JSON): rates of the empty program, and what part of them ours reaches, where
// the empty one loses nothing ("calm") and where more is sent than it can take ("full").
Status measure_rates(const RateOptions& options);

}  // namespace l7mark::robust
