// SPDX-License-Identifier: GPL-2.0-only
#include <CLI/CLI.hpp>
#include <string>

#include "common/choice.hpp"
#include "daemon/daemon.hpp"
#include "dpi/engine.hpp"
#include "util/instance.hpp"
#include "util/log.hpp"

int main(int argc, char** argv) {
  l7mark::DaemonOptions options;
  auto level = l7mark::LogLevel::info;
  CLI::App app{"l7markd: classifies flows, marks them in the kernel, and keeps sets up to date",
               "l7markd"};
  app.set_version_flag("--version",
                       "l7markd " L7MARK_VERSION ", nDPI " + l7mark::Engine::version());
  app.add_option("--policy", options.policy, "Policy file; SIGHUP reads it again")
      ->type_name("FILE");
  app.add_option("--instance", options.instance, "Name of this one of several daemons")
      ->check(l7mark::check_instance_name)
      ->type_name("NAME")
      ->capture_default_str();
  app.add_option("--netns", options.netns, "Network namespace to work in")->type_name("NAME");
  app.add_flag("--keep", options.keep,
               "On exit leave programs, maps and sets in place: the kernel goes on marking");
  l7mark::add_log_level(app, level);
  app.footer(
      "Runs in the foreground, and takes out all that it put in when it ends.\n\n"
      "Examples:\n"
      "  l7markd --policy /etc/l7mark/policy.jsonc\n"
      "  l7markd --policy lab.jsonc --netns gateway --instance lab --log-level debug\n"
      "  l7mark check /etc/l7mark/policy.jsonc    # the file alone, without privileges");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  l7mark::set_log_level(level);
  // Not by required(): CLI11 would then tell of it and not of an option that it does not know.
  if (options.policy.empty()) {
    l7mark::log_error(
        "no policy was named: l7markd --policy FILE (installed: /etc/l7mark/policy.jsonc)");
    return 2;
  }
  return l7mark::run_daemon(options);
}
