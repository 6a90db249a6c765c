// SPDX-License-Identifier: GPL-2.0-only
// What a policy and a loaded data plane mean for loading and attaching.
#pragma once

#include "dataplane/attach.hpp"
#include "dataplane/dataplane.hpp"
#include "policy/policy.hpp"

namespace l7mark {

[[nodiscard]] DataplaneOptions dataplane_options(const Policy& policy);
// The descriptors are the data plane's.
[[nodiscard]] ProgramSet program_set(const Dataplane& dataplane);

}  // namespace l7mark
