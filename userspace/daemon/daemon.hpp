// SPDX-License-Identifier: GPL-2.0-only
// l7markd's main process: puts the parts together, and runs them on one loop.
#pragma once

#include <string>

namespace l7mark {

struct DaemonOptions {
  std::string policy;
  std::string instance = "default";
  std::string netns;  // empty: the one we are in
  bool keep = false;  // leave programs, maps and sets in place on exit
};

// Until SIGTERM or SIGINT. Returns the exit status: 0 after a clean end, 1 if it could not start.
int run_daemon(const DaemonOptions& options);

}  // namespace l7mark
