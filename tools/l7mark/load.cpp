// SPDX-License-Identifier: GPL-2.0-only
// `l7mark load` and `unload`: programs onto interfaces and off again, without a daemon. They mark
// what is in the maps; new flows are sampled once l7markd is there to look at them.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "commands.hpp"
#include "common/choice.hpp"
#include "daemon/client.hpp"
#include "daemon/state_file.hpp"
#include "dataplane/attach.hpp"
#include "dataplane/dataplane.hpp"
#include "dataplane/features.hpp"
#include "dataplane/programs.hpp"
#include "util/log.hpp"

namespace l7mark {
namespace {

int fail(const Error& error) {
  log_error("{}", error.message());
  return kExitFailure;
}

// A daemon may hold the settings that make the programs sample: they are not touched then.
Status pause_if_new(Dataplane& dataplane) {
  if (dataplane.adopted()) return success();
  Policy policy;
  l7m_settings settings = policy.settings();
  settings.rings = dataplane.rings();
  settings.flags |= L7M_SET_PAUSED;
  return dataplane.write_settings(settings);
}

int load(const Globals& globals, const std::vector<std::string>& names, AttachMode mode) {
  std::vector<InterfaceFacts> facts;
  for (const std::string& name : names) {
    auto found = describe_interface(name);
    if (!found) return fail(found.error());
    facts.push_back(*found);
  }
  const auto features = probe_features();
  if (!features) return fail(features.error());
  const PinPaths pins{globals.instance};
  const AttachPaths paths = attach_paths(pins);
  for (const std::string& netns : other_namespaces(paths))
    log_info("interfaces in network namespace {} stay attached, and share the maps", netns);
  auto dataplane = Dataplane::open(pins, DataplaneOptions{}, *features);
  const bool ours = dataplane.ok() && !dataplane->adopted();
  if (!dataplane) return fail(dataplane.error());
  Status done = pause_if_new(*dataplane);
  std::vector<std::string> attached;
  for (std::size_t i = 0; i < facts.size() && done.ok(); ++i) {
    auto attachment = attach(
        InterfaceConfig{names[i], mode}, facts[i], program_set(*dataplane),
        [&] { return dataplane->open_xdp(); }, *features, paths);
    if (!attachment) {
      done = attachment.error();
      break;
    }
    attached.push_back(names[i]);
    const std::string hooks =
        attachment->xdp.empty()
            ? attachment->tc
            : fmt::format("{} XDP{}, {}", attachment->xdp, attachment->frags ? " multi-buffer" : "",
                          attachment->tc);
    std::printf("%s: %s (%s)\n", names[i].c_str(),
                std::string(attach_mode_name(attachment->mode)).c_str(), hooks.c_str());
  }
  if (done.ok()) return kExitOk;
  for (const std::string& name : attached)
    if (const Status undone = detach(name, paths); !undone.ok())
      log_warning("{}", undone.error().message());
  if (ours)
    if (const Status undone = remove_pins(pins); !undone.ok())
      log_warning("{}", undone.error().message());
  return fail(done.error());
}

int unload(const Globals& globals, const std::vector<std::string>& names, bool all) {
  const PinPaths pins{globals.instance};
  const AttachPaths paths = attach_paths(pins);
  const auto there = list_attachments(paths);
  std::vector<std::string> chosen = names;
  if (all)
    for (const Attachment& attachment : there) chosen.push_back(attachment.name);
  int status = kExitOk;
  for (const std::string& name : chosen) {
    const bool known = std::any_of(there.begin(), there.end(),
                                   [&](const Attachment& a) { return a.name == name; });
    if (!known) {
      status = fail(Error{"unload", name, 0,
                          "nothing of instance " + globals.instance + " is attached there"});
      continue;
    }
    if (const Status done = detach(name, paths); !done.ok())
      status = fail(done.error());
    else
      std::printf("%s: unloaded\n", name.c_str());
  }
  if (all)
    for (const std::string& netns : other_namespaces(paths)) {
      if (const Status done = detach_elsewhere(netns, {}, paths); !done.ok())
        status = fail(done.error());
      else
        std::printf("network namespace %s: unloaded\n", netns.c_str());
    }
  // The maps go with the last interface, unless a daemon uses them.
  const bool running = ControlClient::connect(globals.instance).ok();
  if (status == kExitOk && !running && list_attachments(paths).empty() &&
      other_namespaces(paths).empty()) {
    std::remove(state_path(globals.instance).c_str());
    if (const Status done = remove_pins(pins); !done.ok()) status = fail(done.error());
  }
  return status;
}

}  // namespace

void register_load(CLI::App& app, const Globals& globals, Action& chosen) {
  CLI::App* command = app.add_subcommand("load", "Attach the programs to interfaces");
  auto names = std::make_shared<std::vector<std::string>>();
  auto mode = std::make_shared<AttachMode>(AttachMode::automatic);
  command->add_option("interface", *names, "Interfaces")->required()->type_name("IFACE");
  add_choice<AttachMode>(*command, "--mode", *mode,
                         {{"auto", AttachMode::automatic},
                          {"native", AttachMode::native},
                          {"generic", AttachMode::generic},
                          {"tc", AttachMode::tc}},
                         "Where: auto is native XDP where a hardware driver runs it, else TC");
  command->footer(
      "The maps are pinned under /sys/fs/bpf/l7mark/INSTANCE. A daemon that starts later takes\n"
      "them over, and leaves these interfaces attached when it ends.\n\n"
      "Examples:\n"
      "  l7mark load lan0 lan1\n"
      "  l7mark load eth0 --mode native --instance edge");
  command->callback([names, mode, &globals, &chosen] {
    chosen = [names, mode, &globals] { return load(globals, *names, *mode); };
  });
}

void register_unload(CLI::App& app, const Globals& globals, Action& chosen) {
  CLI::App* command = app.add_subcommand("unload", "Detach the programs from interfaces");
  auto names = std::make_shared<std::vector<std::string>>();
  auto all = std::make_shared<bool>(false);
  auto* list = command->add_option("interface", *names, "Interfaces")->type_name("IFACE");
  auto* flag = command->add_flag("--all", *all, "All of the instance, and its pinned maps");
  list->excludes(flag);
  command->footer(
      "Only programs of this instance are taken off; others on the interface stay. Interfaces are\n"
      "those of this network namespace; --all takes off those in others, too.\n\n"
      "Examples:\n"
      "  l7mark unload lan1\n"
      "  l7mark unload --all --instance edge");
  command->callback([names, all, &globals, &chosen] {
    if (names->empty() && !*all) throw CLI::RequiredError("an interface or --all");
    chosen = [names, all, &globals] { return unload(globals, *names, *all); };
  });
}

}  // namespace l7mark
