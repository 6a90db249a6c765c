// SPDX-License-Identifier: GPL-2.0-only
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "commands.hpp"
#include "common/choice.hpp"
#include "dpi/engine.hpp"
#include "util/instance.hpp"
#include "util/log.hpp"
#include "util/netns.hpp"
#include "util/text.hpp"

namespace l7mark {
namespace {

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

// The word that stands where a command should, after a parse that failed; empty if that is not why.
std::string unknown_command(const CLI::App& app) {
  if (!app.get_subcommands().empty()) return {};
  const auto words = app.remaining();
  return words.empty() || words.front().starts_with("-") ? std::string() : words.front();
}

}  // namespace
}  // namespace l7mark

int main(int argc, char** argv) {
  using namespace l7mark;
  try {
    CLI::App app{"Layer-7 marks for the Linux network stack", "l7mark"};
    app.set_version_flag("--version", "l7mark " L7MARK_VERSION ", nDPI " + Engine::version());
    app.set_help_all_flag("--help-all", "Help for all subcommands");
    app.require_subcommand(1);

    app.fallthrough();  // the options here may stand behind the subcommand as well

    Globals globals;
    app.add_option("--instance", globals.instance, "Which l7markd, and whose pins")
        ->check(check_instance_name)
        ->type_name("NAME")
        ->capture_default_str();
    app.add_option("--netns", globals.netns, "Network namespace to work in")->type_name("NAME");
    auto level = LogLevel::info;
    add_log_level(app, level);
    app.footer(
        "Examples:\n"
        "  l7mark load lan0                    # programs onto an interface, without a daemon\n"
        "  l7mark status --wait 10             # what the daemon does\n"
        "  l7mark flows --instance lab\n"
        "  l7mark classify morning.pcapng      # flows of a capture\n"
        "`l7mark COMMAND --help` tells more of each. The daemon is l7markd(8).");

    Action chosen;
    register_load(app, globals, chosen);
    register_unload(app, globals, chosen);
    register_status(app, globals, chosen);
    register_flows(app, globals, chosen);
    register_events(app, globals, chosen);
    register_reload(app, globals, chosen);
    register_check(app, chosen);
    register_classify(app, chosen);
    register_features(app, chosen);

    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      if (const std::string word = unknown_command(app); !word.empty()) {
        log_error("there is no command {}{}; `l7mark --help` lists them", word,
                  did_you_mean(word, command_names(app)));
        return kExitUsage;
      }
      return app.exit(error) == 0 ? kExitOk : kExitUsage;
    }
    set_log_level(level);
    if (!globals.netns.empty()) {
      if (const Status entered = enter_network_namespace(globals.netns); !entered.ok()) {
        log_error("{}", entered.error().message());
        return kExitFailure;
      }
    }
    return chosen();
  } catch (const std::exception& error) {
    log_error("{}", error.what());
    return kExitFailure;
  }
}
