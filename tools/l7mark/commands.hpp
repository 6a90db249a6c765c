// SPDX-License-Identifier: GPL-2.0-only
// The subcommands of `l7mark`, one file each. A file's register function declares the options and
// sets `chosen` when its subcommand is on the command line; main() runs it.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace l7mark {

// Exit statuses of every subcommand.
enum ExitCode : int {
  kExitOk = 0,
  kExitFailure = 1,  // said why on stderr
  kExitUsage = 2,    // wrong command line
};

using Action = std::function<int()>;

void register_classify(CLI::App& app, Action& chosen);
void register_features(CLI::App& app, Action& chosen);

}  // namespace l7mark
