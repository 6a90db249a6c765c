// SPDX-License-Identifier: GPL-2.0-only
// `l7mark flows`: the flows that the daemon knows now.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "commands.hpp"
#include "daemon/client.hpp"
#include "flow_row.hpp"
#include "util/address.hpp"
#include "util/log.hpp"
#include "util/text.hpp"

namespace l7mark {
namespace {

using Json = nlohmann::ordered_json;

struct Filter {
  std::string application;
  std::string class_name;
  std::optional<Prefix> client;

  [[nodiscard]] bool is_client(const Json& record) const {
    if (!client) return true;
    const auto address = Address::parse(record.value("src", ""));
    return address && client->contains(*address);
  }
  [[nodiscard]] bool keeps(const Json& record) const {
    const auto is = [&record](const char* key, const std::string& wanted) {
      return wanted.empty() || equal_ignoring_case(record.value(key, ""), wanted);
    };
    return is("application", application) && is("class", class_name) && is_client(record);
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
  if (!done) {
    log_error("{}", done.error().message());
    return kExitFailure;
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    log_error("{}", error_from_errno("write", "standard output").message());
    return kExitFailure;
  }
  return kExitOk;
}

}  // namespace

void register_flows(CLI::App& app, const Globals& globals, Action& chosen) {
  CLI::App* command = app.add_subcommand("flows", "List the flows that the daemon knows");
  auto json = std::make_shared<bool>(false);
  auto filter = std::make_shared<Filter>();
  command->add_flag("--json", *json, "One JSON object a line");
  command->add_option("--application", filter->application, "Only this application")
      ->type_name("NAME");
  command->add_option("--class", filter->class_name, "Only this class")->type_name("NAME");
  command
      ->add_option_function<std::string>(
          "--client", [filter](const std::string& word) { filter->client = Prefix::parse(word); },
          "Only flows that this address or network began")
      ->check([](const std::string& word) {
        return Prefix::parse(word) ? "" : word + " is no address and no network";
      })
      ->type_name("PREFIX");
  command->footer(
      "Examples:\n"
      "  l7mark flows --application Zoom\n"
      "  l7mark flows --client 192.168.7.0/24\n"
      "  l7mark flows --json | jq -r 'select(.class == \"vpn\") | .src' | sort | uniq -c");
  command->callback([json, filter, &globals, &chosen] {
    chosen = [json, filter, &globals] { return run(globals, *json, *filter); };
  });
}

}  // namespace l7mark
