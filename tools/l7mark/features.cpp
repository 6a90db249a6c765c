// SPDX-License-Identifier: GPL-2.0-only
// `l7mark features`: what the running kernel has, and which paths are taken.
#include "dataplane/features.hpp"

#include <sys/utsname.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "commands.hpp"
#include "util/log.hpp"

namespace l7mark {
namespace {

int run(bool json) {
  const auto features = probe_features();
  if (!features.ok()) {
    log_error("{}", features.error().message());
    return kExitFailure;
  }
  utsname kernel{};
  ::uname(&kernel);
  const std::string text = json ? features_json(*features, kernel.release) + "\n"
                                : format_features(*features, kernel.release);
  if (std::fputs(text.c_str(), stdout) < 0 || std::fflush(stdout) != 0) {
    log_error("{}", error_from_errno("write", "standard output").message());
    return kExitFailure;
  }
  return features->check_required().ok() ? kExitOk : kExitFailure;
}

}  // namespace

void register_features(CLI::App& app, Action& chosen) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand(
      "features",
      "Show what this kernel's BPF can do, and the path taken where it lacks something");
  command->add_flag("--json", *json, "One JSON object instead of a table");
  command->footer(
      "Every feature is tried, on programs and maps that go away again; needs root.\n"
      "Exit status 1 if l7mark cannot work on this kernel.\n"
      "The environment variable L7MARK_WITHOUT=NAME,... makes every command do without these\n"
      "features.\n\n"
      "Examples:\n"
      "  l7mark features\n"
      "  l7mark features --json | jq '.features[] | select(.present | not).name'\n"
      "  L7MARK_WITHOUT=tcx l7mark load lan0 --mode tc    # clsact, even where TCX is known");
  command->callback([json, &chosen] { chosen = [json] { return run(*json); }; });
}

}  // namespace l7mark
