// SPDX-License-Identifier: GPL-2.0-only
// `l7mark flows`: the flows that the daemon knows now.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "commands.hpp"
#include "daemon/control.hpp"
#include "flow_row.hpp"
#include "util/log.hpp"
#include "util/text.hpp"

namespace l7mark {
namespace {

using Json = nlohmann::ordered_json;

struct Filter {
  std::string application;
  std::string class_name;
  std::string client;

  [[nodiscard]] bool keeps(const Json& record) const {
    const auto is = [&record](const char* key, const std::string& wanted) {
      return wanted.empty() || equal_ignoring_case(record.value(key, ""), wanted);
    };
    return is("application", application) && is("class", class_name) && is("src", client);
  }
};

int run(const Globals& globals, bool json, const Filter& filter) {
  auto client = ControlClient::connect(globals.instance);
  if (!client) {
    log_error("{}", client.error().message());
    return kExitFailure;
  }
  if (!json) std::printf("%s\n", flow_row_header().c_str());
  const auto done = client->request("flows", Json::object(), [&](const Json& record) {
    if (!filter.keeps(record)) return;
    std::printf("%s\n", json ? record.dump().c_str() : flow_row(record).c_str());
  });
  if (done) return kExitOk;
  log_error("{}", done.error().message());
  return kExitFailure;
}

}  // namespace

void register_flows(CLI::App& app, const Globals& globals, Action& chosen) {
  CLI::App* command = app.add_subcommand("flows", "List the flows that the daemon knows");
  auto json = std::make_shared<bool>(false);
  auto filter = std::make_shared<Filter>();
  command->add_flag("--json", *json, "One JSON object a line");
  command->add_option("--application", filter->application, "Only this application");
  command->add_option("--class", filter->class_name, "Only this class");
  command->add_option("--client", filter->client, "Only flows that this address began");
  command->footer(
      "Examples:\n"
      "  l7mark flows --application Zoom\n"
      "  l7mark flows --json | jq -r 'select(.class == \"vpn\") | .src' | sort | uniq -c");
  command->callback([json, filter, &globals, &chosen] {
    chosen = [json, filter, &globals] { return run(globals, *json, *filter); };
  });
}

}  // namespace l7mark
