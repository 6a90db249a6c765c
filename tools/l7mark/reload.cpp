// SPDX-License-Identifier: GPL-2.0-only
#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "commands.hpp"
#include "daemon/client.hpp"
#include "util/log.hpp"

namespace l7mark {

void register_reload(CLI::App& app, const Globals& globals, Action& chosen) {
  CLI::App* command = app.add_subcommand("reload", "Let the daemon read its policy again");
  command->footer(
      "A file with a mistake changes nothing, and is said to be one.\n\n"
      "Example:\n"
      "  l7mark check /etc/l7mark/policy.jsonc && l7mark reload");
  command->callback([&globals, &chosen] {
    chosen = [&globals]() -> int {
      auto client = ControlClient::connect(globals.instance);
      if (!client) {
        log_error("{}", client.error().message());
        return kExitFailure;
      }
      const auto done = client->request("reload", nlohmann::ordered_json::object());
      if (!done) {
        log_error("{}", done.error().message());
        return kExitFailure;
      }
      std::printf("%s\n", done->value("message", "reloaded").c_str());
      return kExitOk;
    };
  });
}

}  // namespace l7mark
