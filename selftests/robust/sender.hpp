// SPDX-License-Identifier: GPL-2.0-only
// Sends an attack's frames on a device, at a rate or as fast as it can.
#pragma once

#include <cstdint>
#include <string>

#include "attack.hpp"
#include "packet.hpp"
#include "util/fd.hpp"
#include "util/result.hpp"

namespace l7mark::robust {

[[nodiscard]] double now_seconds();
void nap(double seconds);

struct Sent {
  std::uint64_t frames = 0;
  double seconds = 0;
};

class Sender {
 public:
  // `device` is looked for in the network namespace of the caller, who may leave it then.
  static Result<Sender> open(const std::string& device, const std::string& gateway);

  // Until `seconds` are over, or `end` becomes true. A rate of 0 is the highest possible one.
  Result<Sent> run(Attack& attack, double rate, double seconds, const volatile bool* end = nullptr);

 private:
  Sender(Fd fd, const Mac& to) : fd_(std::move(fd)), to_(to), random_(1) {}

  Fd fd_;
  Mac to_;
  Random random_;
};

}  // namespace l7mark::robust
