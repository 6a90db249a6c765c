// SPDX-License-Identifier: GPL-2.0-only
// `l7mark check`: reads a policy file as the daemon would, and needs no privileges for it.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "commands.hpp"
#include "dpi/engine.hpp"
#include "policy/policy.hpp"
#include "util/log.hpp"

namespace l7mark {
namespace {

Result<Policy> read(const std::string& file, UnknownApplications unknown) {
  auto protocols = load_protocols_file_setting(file);
  if (!protocols) return protocols.error();
  auto engine = Engine::make(EngineOptions{*protocols});
  if (!engine) return engine.error();
  Catalog catalog;
  engine->fill(catalog);
  return load_policy(file, catalog, unknown);
}

int run(const std::string& file, bool json, UnknownApplications unknown) {
  const auto policy = read(file, unknown);
  if (json) {
    nlohmann::ordered_json out = {{"file", file}, {"ok", policy.ok()}};
    if (!policy.ok()) out["error"] = policy.error().message();
    out["warnings"] = policy ? policy->warnings : std::vector<std::string>{};
    if (policy) out["classes"] = policy->classes.size();
    std::printf("%s\n", out.dump(2).c_str());
    return policy ? kExitOk : kExitFailure;
  }
  if (!policy) {
    log_error("{}", policy.error().message());
    return kExitFailure;
  }
  for (const std::string& warning : policy->warnings) log_warning("{}", warning);
  const MarkBits bits = policy->touched_mark_bits();
  std::printf("%s: %zu classes, %zu interfaces; mark bits 0x%x, conntrack mark bits 0x%x\n",
              file.c_str(), policy->classes.size(), policy->interfaces.size(), bits.packet,
              bits.conntrack);
  return kExitOk;
}

}  // namespace

void register_check(CLI::App& app, Action& chosen) {
  CLI::App* command = app.add_subcommand("check", "Check a policy file");
  auto file = std::make_shared<std::string>();
  auto json = std::make_shared<bool>(false);
  command->add_option("file", *file, "Policy file")->required()->type_name("FILE");
  auto strict = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "As JSON");
  command->add_flag("--strict", *strict,
                    "An application that this nDPI lacks is an error, not a warning");
  command->footer(
      "Mistakes are told with line and column. Needs no privileges.\n\n"
      "Examples:\n"
      "  l7mark check /etc/l7mark/policy.jsonc\n"
      "  l7mark check --strict policy-for-ndpi-5.jsonc");
  command->callback([file, json, strict, &chosen] {
    chosen = [file, json, strict] {
      return run(*file, *json, *strict ? UnknownApplications::fail : UnknownApplications::warn);
    };
  });
}

}  // namespace l7mark
