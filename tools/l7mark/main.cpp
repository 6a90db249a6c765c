// SPDX-License-Identifier: GPL-2.0-only
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

#include "commands.hpp"
#include "util/log.hpp"

int main(int argc, char** argv) {
  using namespace l7mark;
  try {
    CLI::App app{"Layer-7 marks for the Linux network stack", "l7mark"};
    app.set_version_flag("--version", L7MARK_VERSION);
    app.set_help_all_flag("--help-all", "Help for all subcommands");
    app.require_subcommand(1);

    Action chosen;
    register_classify(app, chosen);
    register_features(app, chosen);

    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      return app.exit(error) == 0 ? kExitOk : kExitUsage;
    }
    return chosen();
  } catch (const std::exception& error) {
    log_error("{}", error.what());
    return kExitFailure;
  }
}
