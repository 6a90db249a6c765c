// SPDX-License-Identifier: GPL-2.0-only
// `l7mark status`: what the daemon does, at a glance.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "commands.hpp"
#include "daemon/client.hpp"
#include "dataplane/attach.hpp"
#include "util/log.hpp"

namespace l7mark {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

// A daemon of another version may leave out what this one tells: a missing key reads as empty.

const Json& child(const Json& json, const char* key) {
  static const Json nothing = Json::object();
  const auto found = json.find(key);
  return found != json.end() && found->is_structured() ? *found : nothing;
}

std::uint64_t number(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number() ? found->get<std::uint64_t>() : 0;
}

bool is_set(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_boolean() && found->get<bool>();
}

std::string text(const Json& json, const char* key, const char* otherwise = "?") {
  const auto found = json.find(key);
  if (found == json.end()) return otherwise;
  return found->is_string() ? found->get<std::string>() : found->dump();
}

std::string bytes_text(std::uint64_t bytes) {
  constexpr const char* units[] = {"kB", "MB", "GB", "TB", "PB"};
  if (bytes < 1000) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1000;
  std::size_t unit = 0;
  // 999.95 would be shown as "1000.0".
  for (; value >= 999.95 && unit + 1 < std::size(units); ++unit) value /= 1000;
  return fmt::format("{:.1f} {}", value, units[unit]);
}

std::string duration_text(std::uint64_t seconds) {
  if (seconds < 60) return fmt::format("{} s", seconds);
  if (seconds < 3600) return fmt::format("{} min {} s", seconds / 60, seconds % 60);
  if (seconds < 86400) return fmt::format("{} h {} min", seconds / 3600, seconds / 60 % 60);
  return fmt::format("{} d {} h", seconds / 86400, seconds / 3600 % 24);
}

std::string actions_text(const Json& entry) {
  std::string out;
  for (const auto& [key, value] : entry.items()) {
    if (key == "name" || key == "action" || key == "flows" || key == "live_flows" ||
        key == "packets" || key == "bytes")
      continue;
    if (!out.empty()) out += ", ";
    out += key;
    if (!value.is_boolean()) out += " " + text(entry, key.c_str());
  }
  return out.empty() ? "-" : out;
}

void print_classes(const Json& classes) {
  if (classes.empty()) return;
  std::size_t width = 16;
  for (const Json& entry : classes) width = std::max(width, text(entry, "name").size());
  fmt::print("\n{:<{}} {:>8} {:>9} {:>12} {:>10}  {}\n", "CLASS", width, "LIVE", "FLOWS", "PACKETS",
             "BYTES", "ACTIONS");
  for (const Json& entry : classes)
    fmt::print("{:<{}} {:>8} {:>9} {:>12} {:>10}  {}\n", text(entry, "name"), width,
               number(entry, "live_flows"), number(entry, "flows"), number(entry, "packets"),
               bytes_text(number(entry, "bytes")), actions_text(entry));
}

// Those that are not 0, by name.
void print_figures(const char* title, const Json& figures) {
  std::size_t width = 16;
  for (const auto& [name, value] : figures.items()) width = std::max(width, name.size());
  bool first = true;
  for (const auto& [name, value] : figures.items()) {
    if (!value.is_number() || value.get<double>() == 0) continue;
    if (std::exchange(first, false)) fmt::print("\n{}\n", title);
    fmt::print("{:<{}} {:>12}\n", name, width, value.dump());
  }
}

void print_interface(const Json& there) {
  fmt::print("interface  {}: {}{}{}, {}{}\n", text(there, "name"), text(there, "mode"),
             there.contains("xdp") ? ", " + text(there, "xdp") + " XDP" : "",
             is_set(there, "multi_buffer") ? " (multi-buffer)" : "", text(there, "tc"),
             is_set(there, "attached") ? "" : "; not attached");
  for (const Json& one : child(there, "ahead")) {
    ProgramAhead ahead;
    ahead.name = text(one, "name");
    ahead.id = static_cast<std::uint32_t>(number(one, "program"));
    ahead.preference = static_cast<std::uint32_t>(number(one, "preference"));
    fmt::print("           before l7mark at {}: {}\n", text(one, "hook"), describe(ahead));
  }
}

void print_budgets(const Json& budgets) {
  const auto line = [](const std::string& from, const Json& refused) {
    const auto lasted = number(refused, "last") - number(refused, "since");
    fmt::print("budget     {}: {} packets, {} not looked at in {}\n", from,
               number(refused, "packets"), bytes_text(number(refused, "bytes")),
               duration_text(lasted + 1));
  };
  for (const Json& one : child(budgets, "named")) line(text(one, "source"), one);
  const auto named = child(budgets, "named").size();
  if (number(budgets, "above") > named)
    fmt::print("budget     {} sources more\n", number(budgets, "above") - named);
  if (budgets.contains("outside")) line("flows begun from outside", child(budgets, "outside"));
}

void print(const Json& status) {
  const Json& policy = child(status, "policy");
  fmt::print("l7markd {}, nDPI {}, instance {}, pid {}, up {}: {}\n", text(status, "version"),
             text(status, "ndpi"), text(status, "instance"), text(status, "pid"),
             duration_text(number(status, "uptime_seconds")),
             is_set(status, "ready") ? "ready" : "workers not ready");
  fmt::print("policy     {}; touches mark bits {}, conntrack mark bits {}\n", text(policy, "file"),
             text(policy, "mark_bits"), text(policy, "conntrack_bits"));
  for (const Json& there : child(status, "interfaces")) print_interface(there);
  fmt::print("classid    tc filter add dev DEV parent 1: bpf da pinned {} classid 1:\n",
             text(status, "classid_program"));
  for (const Json& worker : child(status, "workers"))
    fmt::print("worker     pid {}: {} flows held, {} samples, {} answers, {} restarts\n",
               text(worker, "pid"), number(worker, "flows"), number(worker, "samples"),
               number(worker, "answers"), number(worker, "restarts"));
  const auto seen = number(status, "packets_seen");
  const auto sampled = number(status, "packets_sampled");
  fmt::print("packets    {} seen, {} sampled ({:.2f}%)\n", seen, sampled,
             seen == 0 ? 0 : 100.0 * static_cast<double>(sampled) / static_cast<double>(seen));
  fmt::print("bytes      {} seen, {} sampled\n", bytes_text(number(status, "bytes_seen")),
             bytes_text(number(status, "bytes_sampled")));
  for (const auto& [name, sources] : child(status, "blocked").items()) {
    std::string by;
    for (const auto& [source, count] : sources.items())
      by += fmt::format("{}{} by {}", by.empty() ? "" : ", ", count.get<std::uint64_t>(), source);
    fmt::print("blocked    {}: {}\n", name, by);
  }
  for (const Json& service : child(child(status, "services"), "mixed_first"))
    fmt::print("mixed      {} to {} {} port {}: its flows had different classes\n",
               text(service, "client"), text(service, "server"), text(service, "proto"),
               number(service, "port"));
  print_budgets(child(status, "budgets"));
  const Json& flows = child(status, "flows");
  fmt::print("flows      {} live ({} final, {} guessed, {} provisional), {} candidates, {} ended\n",
             number(flows, "live"), number(flows, "final"), number(flows, "guessed"),
             number(flows, "provisional"), number(flows, "candidates"), number(flows, "ended"));
  print_classes(child(policy, "classes"));
  print_figures("KERNEL COUNTER", child(status, "counters"));
  print_figures("SETS", child(status, "publish"));
  print_figures("CONNTRACK", child(status, "conntrack"));
}

Result<Json> ask(const std::string& instance, std::chrono::milliseconds patience) {
  auto client = ControlClient::connect(instance, patience);
  if (!client) return client.error();
  return client->request("status", Json::object());
}

int run(const Globals& globals, bool json, double wait) {
  using std::chrono::milliseconds;
  const auto until = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                        std::chrono::duration<double>(wait));
  for (;;) {
    // Zero would wait without end.
    const auto left =
        std::max(milliseconds(1), std::chrono::duration_cast<milliseconds>(until - Clock::now()));
    const auto status = ask(globals.instance, wait > 0 ? left : milliseconds(0));
    if (status && (wait <= 0 || is_set(*status, "ready"))) {
      if (json)
        fmt::print("{}\n", status->dump(2, ' ', false, Json::error_handler_t::replace));
      else
        print(*status);
      return kExitOk;
    }
    if (Clock::now() >= until) {
      log_error("{}", status ? "l7markd is there but its workers are not ready"
                             : status.error().message());
      return kExitFailure;
    }
    std::this_thread::sleep_for(milliseconds(50));
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
      "Fails if no daemon answers. Counters that are 0 are left out, except in JSON.\n\n"
      "Examples:\n"
      "  l7mark status\n"
      "  l7mark status --wait 10 --json | jq .sampled_share");
  command->callback([json, wait, &globals, &chosen] {
    chosen = [json, wait, &globals] { return run(globals, *json, *wait); };
  });
}

}  // namespace l7mark
