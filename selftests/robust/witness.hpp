// SPDX-License-Identifier: GPL-2.0-only
// Programs of the harness's own on the gateways: the witness behind the classifier, and on the bare
// gateway an empty program in its place.
#pragma once

#include <string>
#include <vector>

#include "bpf/token.h"
#include "util/fd.hpp"
#include "util/result.hpp"

namespace l7mark::robust {

// On the way out of `devices` of the caller's network namespace, behind whatever is there, until
// the namespace goes. Its counts are pinned at `pin`.
Status put_witness(const std::vector<std::string>& devices, const std::string& pin);

// In both directions, by the way that the classifier is attached, until `instance` is taken away.
Status put_empty(const std::string& device, const std::string& instance);
Status take_empty(const std::string& device, const std::string& instance);

class Counts {
 public:
  static Result<Counts> open(const std::string& pin);
  [[nodiscard]] robust_count of(unsigned flow) const;
  Status clear() const;

 private:
  explicit Counts(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

}  // namespace l7mark::robust
