// SPDX-License-Identifier: GPL-2.0-only
// The servers of the honest flows: HTTP on port 80, and on port 443 what looks like TLS.
#pragma once

#include "util/result.hpp"

namespace l7mark::robust {

// Until SIGTERM. Prints "ready" when it listens.
Status serve();

}  // namespace l7mark::robust
