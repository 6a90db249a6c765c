// SPDX-License-Identifier: GPL-2.0-only
// `l7mark status`: what the daemon does, at a glance.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "commands.hpp"
#include "daemon/control.hpp"
#include "util/log.hpp"

namespace l7mark {
namespace {

using Json = nlohmann::ordered_json;

std::uint64_t number(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number() ? found->get<std::uint64_t>() : 0;
}

std::string text(const Json& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end()) return {};
  return found->is_string() ? found->get<std::string>() : found->dump();
}

void print_class(const Json& entry) {
  std::string acts;
  for (const char* key :
       {"mark", "dscp", "priority", "tc_class", "drop", "log", "ipset", "nftset", "conntrack_mark"})
    if (entry.contains(key))
      acts += std::string(acts.empty() ? "" : ", ") + key + " " + text(entry, key);
  std::printf("  %-20s %8llu flows (%llu live) %12llu packets %14llu bytes   %s\n",
              text(entry, "name").c_str(), static_cast<unsigned long long>(number(entry, "flows")),
              static_cast<unsigned long long>(number(entry, "live_flows")),
              static_cast<unsigned long long>(number(entry, "packets")),
              static_cast<unsigned long long>(number(entry, "bytes")), acts.c_str());
}

void print(const Json& status) {
  std::printf("l7markd %s, nDPI %s, instance %s, pid %s, up %s s%s\n",
              text(status, "version").c_str(), text(status, "ndpi").c_str(),
              text(status, "instance").c_str(), text(status, "pid").c_str(),
              text(status, "uptime_seconds").c_str(),
              status.value("ready", false) ? "" : " (workers not ready)");
  const Json& policy = status.at("policy");
  std::printf("policy     %s; mark bits %s, conntrack mark bits %s\n", text(policy, "file").c_str(),
              text(policy, "mark_bits").c_str(), text(policy, "conntrack_bits").c_str());
  for (const Json& there : status.at("interfaces"))
    std::printf("interface  %s: %s%s by %s%s\n", text(there, "name").c_str(),
                text(there, "mode").c_str(),
                there.contains("xdp") ? (" (XDP " + text(there, "xdp") + ")").c_str() : "",
                text(there, "tc").c_str(), there.value("attached", false) ? "" : ", not attached");
  for (const Json& worker : status.at("workers"))
    std::printf("worker     pid %s: %s flows held, %s samples, %s answers, %s restarts\n",
                text(worker, "pid").c_str(), text(worker, "flows").c_str(),
                text(worker, "samples").c_str(), text(worker, "answers").c_str(),
                text(worker, "restarts").c_str());
  std::printf("packets    %llu seen, %llu sampled (%.2f%%)\n",
              static_cast<unsigned long long>(number(status, "packets_seen")),
              static_cast<unsigned long long>(number(status, "packets_sampled")),
              100.0 * status.value("sampled_share", 0.0));
  const Json& flows = status.at("flows");
  std::printf(
      "flows      %s live (%s final, %s guessed, %s provisional), %s candidates, %s ended\n",
      text(flows, "live").c_str(), text(flows, "final").c_str(), text(flows, "guessed").c_str(),
      text(flows, "provisional").c_str(), text(flows, "candidates").c_str(),
      text(flows, "ended").c_str());
  std::printf("classes\n");
  for (const Json& entry : policy.at("classes")) print_class(entry);
  std::printf("counters  ");
  for (const auto& [name, value] : status.at("counters").items())
    if (value.is_number() && value.get<std::uint64_t>() != 0)
      std::printf(" %s %s", name.c_str(), value.dump().c_str());
  const Json& publish = status.at("publish");
  std::printf("\npublish   ");
  for (const auto& [name, value] : publish.items())
    std::printf(" %s %s", name.c_str(), value.dump().c_str());
  std::printf("\n");
}

Result<Json> ask(const std::string& instance) {
  auto client = ControlClient::connect(instance);
  if (!client) return client.error();
  return client->request("status", Json::object());
}

int run(const Globals& globals, bool json, double wait) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(wait);
  for (;;) {
    auto status = ask(globals.instance);
    if (status && (status->value("ready", false) || wait <= 0)) {
      if (json)
        std::printf("%s\n", status->dump(2).c_str());
      else
        print(*status);
      return kExitOk;
    }
    if (std::chrono::steady_clock::now() >= until) {
      log_error("{}", status ? "l7markd is there but its workers are not ready"
                             : status.error().message());
      return kExitFailure;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace

void register_status(CLI::App& app, const Globals& globals, Action& chosen) {
  CLI::App* command = app.add_subcommand("status", "Show what the daemon does");
  auto json = std::make_shared<bool>(false);
  auto wait = std::make_shared<double>(0);
  command->add_flag("--json", *json, "As JSON");
  command->add_option("--wait", *wait, "Wait so long for the daemon to be ready")
      ->check(CLI::Range(0.0, 86400.0))
      ->type_name("SECONDS");
  command->footer(
      "Fails if no daemon answers.\n\n"
      "Examples:\n"
      "  l7mark status\n"
      "  l7mark status --wait 10 --json | jq .sampled_share");
  command->callback([json, wait, &globals, &chosen] {
    chosen = [json, wait, &globals] { return run(globals, *json, *wait); };
  });
}

}  // namespace l7mark
