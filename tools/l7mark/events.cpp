// SPDX-License-Identifier: GPL-2.0-only
// `l7mark events`: follows the daemon's stream.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "commands.hpp"
#include "daemon/client.hpp"
#include "flow_row.hpp"
#include "util/log.hpp"

namespace l7mark {
namespace {

using Json = nlohmann::ordered_json;

int run(const Globals& globals, bool json) {
  auto client = ControlClient::connect(globals.instance);
  if (!client) {
    log_error("{}", client.error().message());
    return kExitFailure;
  }
  if (!json) std::printf("%-7s %s\n", "EVENT", flow_row_header().c_str());
  const auto done = client->follow([json](const Json& event) {
    if (json) {
      std::printf("%s\n", event.dump().c_str());
    } else if (const auto type = event.value("type", ""); type == "lost") {
      std::printf("%-7s %s events, because they were not read fast enough\n", "lost",
                  event.value("count", Json()).dump().c_str());
    } else {
      std::printf("%-7s %s\n", type.c_str(), flow_row(event).c_str());
    }
    return std::fflush(stdout) == 0;
  });
  log_error("{}", done.ok() ? error_from_errno("write", "standard output").message()
                            : done.error().message());
  return kExitFailure;
}

}  // namespace

void register_events(CLI::App& app, const Globals& globals, Action& chosen) {
  CLI::App* command = app.add_subcommand("events", "Follow what happens to flows");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "One JSON object a line");
  command->footer(
      "\"flow\" when a flow has its first answer, \"update\" when that changes, \"end\" when the "
      "flow\n"
      "does, with its counters. Goes on until Ctrl-C or the daemon's end.\n\n"
      "Examples:\n"
      "  l7mark events\n"
      "  l7mark events --json | jq -c 'select(.log) | [.class, .src, .hostname, .risks]'");
  command->callback(
      [json, &globals, &chosen] { chosen = [json, &globals] { return run(globals, *json); }; });
}

}  // namespace l7mark
