// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include "util/result.hpp"

namespace l7mark {

// For the calling process, for ever: no user, no group, no capability, no new privileges, no core
// dumps of users' packets, and only the system calls that a worker needs once it has its ring. All
// others fail with EPERM. A process that has no root to give up only does what it still can.
Status enter_sandbox();

}  // namespace l7mark
