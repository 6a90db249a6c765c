// SPDX-License-Identifier: GPL-2.0-only
// The subcommands of `l7mark`, one file each. A file's register function declares the options and
// sets `chosen` when its subcommand is on the command line; main() runs it.
#pragma once

#include <functional>
#include <string>

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

// Options that every subcommand takes.
struct Globals {
  std::string instance = "default";
  std::string netns;  // empty: the one we are in; entered before the subcommand runs
};

void register_classify(CLI::App& app, Action& chosen);
void register_features(CLI::App& app, Action& chosen);
void register_load(CLI::App& app, const Globals& globals, Action& chosen);
void register_unload(CLI::App& app, const Globals& globals, Action& chosen);
void register_status(CLI::App& app, const Globals& globals, Action& chosen);
void register_flows(CLI::App& app, const Globals& globals, Action& chosen);
void register_events(CLI::App& app, const Globals& globals, Action& chosen);
void register_reload(CLI::App& app, const Globals& globals, Action& chosen);
void register_check(CLI::App& app, Action& chosen);

}  // namespace l7mark
