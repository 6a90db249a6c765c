// SPDX-License-Identifier: GPL-2.0-only
#include "dataplane/attach.hpp"

#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>
#include <system_error>

#include "dataplane/attach_state.hpp"
#include "dataplane/hook_pins.hpp"
#include "dataplane/tc_hook.hpp"
#include "dataplane/transaction.hpp"
#include "dataplane/xdp_hook.hpp"
#include "util/log.hpp"
#include "util/netns.hpp"

namespace l7mark {

namespace {

std::string namespace_pins(const AttachPaths& paths) {
  return paths.links + "/" + paths.netns;
}
std::string pins_of(const AttachPaths& paths, const std::string& name) {
  return interface_pins(namespace_pins(paths), name);
}

// The interface now, and where its programs were put: it may have been renamed or made anew since.
std::vector<unsigned> indexes_of(const std::string& name, const AttachRecords& records) {
  std::set<unsigned> indexes;
  if (const auto record = records.find(name); record != records.end())
    indexes.insert(record->second.ifindex);
  indexes.insert(if_nametoindex(name.c_str()));
  indexes.erase(0);
  return {indexes.begin(), indexes.end()};
}

Status make_pin_directory(const AttachPaths& paths, const std::string& name,
                          Transaction& transaction) {
  const std::string pins = pins_of(paths, name);
  std::error_code error;
  const bool made = std::filesystem::create_directories(pins, error);
  if (error) return attach_error("make directory", pins, error.value());
  if (made)
    transaction.on_failure([pins, all = namespace_pins(paths)] {
      ::rmdir(pins.c_str());
      ::rmdir(all.c_str());  // not with another interface's pins in it
    });
  return success();
}

// Takes out what is pinned and remembered for a namespace that nobody can enter any more. Links
// come off wherever they are: a card goes back to the first namespace when its own ends.
Status forget_namespace(const std::string& netns, const AttachPaths& paths) {
  AttachPaths there = paths;
  there.netns = netns;
  for (const std::string& directory : list_directory(namespace_pins(there))) {
    const std::string pins = namespace_pins(there) + "/" + directory;
    L7MARK_TRY(take_off_xdp(pins, {}));
    L7MARK_TRY(take_off_tc(pins, {}));
    if (::rmdir(pins.c_str()) != 0) return attach_error("remove", pins, errno);
  }
  ::rmdir(namespace_pins(there).c_str());
  NamespaceRecords all = read_records(paths.state);
  if (all.erase(netns) == 0) return success();
  return write_records(paths.state, all);
}

// By the links, which end with their interfaces; where there are only filters and XDP, by looking
// for the namespace.
bool is_gone(const std::string& netns, const AttachPaths& paths) {
  AttachPaths there = paths;
  there.netns = netns;
  bool told = false;
  for (const std::string& directory : list_directory(namespace_pins(there))) {
    switch (look_at_links(namespace_pins(there) + "/" + directory)) {
      case PinnedLinks::elsewhere:
        return false;
      case PinnedLinks::none:
        return in_network_namespace(netns, [] {}) == NamespaceSearch::gone;
      case PinnedLinks::gone:
        told = true;
    }
  }
  return told || in_network_namespace(netns, [] {}) == NamespaceSearch::gone;
}

// What one attach() works on.
struct Job {
  const InterfaceConfig& config;
  const InterfaceFacts& facts;
  const ProgramSet& programs;
  const XdpFactory& make_xdp;
  const Features& features;
  std::string pins;
  std::vector<unsigned> ifindexes;
};

Status put_at_xdp(const Job& job, AttachMode mode, Transaction& transaction, Attachment& out) {
  if (mode == AttachMode::native && job.facts.hardware)
    log_info("{}: some drivers lose the link for seconds while native XDP is attached",
             job.facts.name);
  const XdpPlace place{job.facts.name, job.facts.ifindex, mode,
                       job.pins,       job.ifindexes,     job.facts.mtu};
  const auto put = put_xdp(place, job.make_xdp, job.features, transaction);
  if (!put) return put.error();
  out.mode = mode;
  out.xdp = put->way;
  out.frags = put->frags;
  return success();
}

// Native XDP or nothing: a refusal leaves `out` at TC.
void try_native(const Job& job, Transaction& transaction, Attachment& out) {
  Transaction attempt;
  if (const Status put = put_at_xdp(job, AttachMode::native, attempt, out); !put.ok()) {
    log_info("{}: falling back to TC: {}", job.facts.name, put.error().message());
    return;
  }
  transaction.absorb(attempt);
}

Status choose_and_put_xdp(const Job& job, Transaction& transaction, Attachment& out) {
  const std::string& name = job.facts.name;
  const AttachMode wanted = job.config.mode;
  if (wanted == AttachMode::tc) return success();
  if (!job.facts.link_layer) {
    if (wanted == AttachMode::automatic) return success();
    return Error{
        "attach XDP to", name, 0,
        "packets have no link-layer header there (" + job.facts.driver + "); use mode tc or auto"};
  }
  if (job.programs.vlan_key && strips_vlan_tags(job.facts.ifindex) &&
      (job.facts.hardware || wanted != AttachMode::automatic)) {
    const std::string why = fmt::format(
        "its VLAN tags are taken off before XDP sees them, and the keys of flows have VLAN ids; "
        "'ethtool -K {} rxvlan off rx-vlan-stag-hw-parse off' leaves the tags there, "
        "\"vlan\": \"ignore\" the ids out",
        name);
    if (wanted != AttachMode::automatic) return Error{"attach XDP to", name, 0, why};
    log_info("{}: taking TC: {}", name, why);
    return success();
  }
  if (wanted == AttachMode::automatic) {
    if (job.facts.hardware)
      try_native(job, transaction, out);
    else
      log_info("{}: taking TC, XDP costs more than it gains on an interface of kind {}", name,
               job.facts.driver.empty() ? "loopback" : job.facts.driver);
    return success();
  }
  return put_at_xdp(job, wanted, transaction, out);
}

Status put_at_tc(const Job& job, bool made_clsact, Transaction& transaction, Attachment& out) {
  const bool l2 = job.facts.link_layer;
  const bool tcx = job.features.has(FeatureId::tcx);
  int ingress = l2 ? job.programs.ingress : job.programs.ingress_l3;
  if (out.mode != AttachMode::tc) ingress = job.programs.after_xdp;
  const int egress = l2 ? job.programs.egress : job.programs.egress_l3;

  out.tc = tcx ? "tcx" : "clsact";
  out.made_clsact = made_clsact;
  if (!tcx) {
    const auto made = ensure_clsact(job.facts.name, job.facts.ifindex, transaction);
    if (!made) return made.error();
    out.made_clsact = out.made_clsact || *made;
  }
  const auto put = [&](TcDirection direction, int program) {
    const TcPlace place{job.facts.name, job.facts.ifindex, direction, job.pins, job.ifindexes};
    return tcx ? put_tcx(place, program, transaction) : put_clsact(place, program, transaction);
  };
  L7MARK_TRY(put(TcDirection::ingress, ingress));
  return put(TcDirection::egress, egress);
}

std::string ways_of(const Attachment& attachment) {
  std::string text;
  if (attachment.mode != AttachMode::tc)
    text = fmt::format("{} XDP ({}{}) and ", attach_mode_name(attachment.mode), attachment.xdp,
                       attachment.frags ? ", multi-buffer" : "");
  text += "TC (" + attachment.tc + ")";
  if (!attachment.link_layer) text += ", without link-layer header";
  return text;
}

}  // namespace

AttachPaths attach_paths(const PinPaths& pins) {
  return {pins.links(), "/run/l7mark/" + pins.instance + ".attach.json", network_namespace_id()};
}

std::string_view attach_mode_name(AttachMode mode) {
  switch (mode) {
    case AttachMode::automatic:
      return "auto";
    case AttachMode::native:
      return "native";
    case AttachMode::generic:
      return "generic";
    case AttachMode::tc:
      return "tc";
  }
  return "tc";
}

Result<Attachment> attach(const InterfaceConfig& config, const InterfaceFacts& facts,
                          const ProgramSet& programs, const XdpFactory& make_xdp,
                          const Features& features, const AttachPaths& paths) {
  route_library_logs();
  NamespaceRecords all = read_records(paths.state);
  AttachRecords& records = all[paths.netns];
  const auto record = records.find(facts.name);
  const Attachment before = record != records.end() ? record->second : Attachment{};
  const bool same_interface = before.ifindex == facts.ifindex;
  const Job job{config,
                facts,
                programs,
                make_xdp,
                features,
                pins_of(paths, facts.name),
                indexes_of(facts.name, records)};

  Attachment out;
  out.name = facts.name;
  out.ifindex = facts.ifindex;
  out.requested = config.mode;
  out.link_layer = facts.link_layer;

  Transaction transaction;
  L7MARK_TRY(make_pin_directory(paths, facts.name, transaction));
  L7MARK_TRY(choose_and_put_xdp(job, transaction, out));
  L7MARK_TRY(put_at_tc(job, same_interface && before.made_clsact, transaction, out));
  // By TCX, a clsact that was made for our filters has no use any more.
  const bool drop_clsact = out.tc == "tcx" && out.made_clsact;
  if (drop_clsact) out.made_clsact = false;
  records.insert_or_assign(facts.name, out);
  L7MARK_TRY(write_records(paths.state, all));
  transaction.commit();

  if (out.mode == AttachMode::tc) {
    // Too late to fail: the pin stays, and the next attach() or detach() tries again.
    const Status taken = take_off_xdp(job.pins, job.ifindexes);
    if (!taken.ok()) log_warning("{}", taken.error().message());
  }
  if (drop_clsact) remove_empty_clsact(facts.ifindex);
  if (!same_interface && before.made_clsact) remove_empty_clsact(before.ifindex);
  log_info("{}: attached by {}", facts.name, ways_of(out));
  out.present = true;
  out.ahead = programs_ahead(facts.name, facts.ifindex, paths);
  warn_of_ahead(facts.name, out.ahead);
  return out;
}

Status detach(const std::string& name, const AttachPaths& paths) {
  route_library_logs();
  NamespaceRecords all = read_records(paths.state);
  AttachRecords& records = all[paths.netns];
  const std::string pins = pins_of(paths, name);
  const auto indexes = indexes_of(name, records);
  const bool pinned = exists(pins);
  if (!pinned && errno != ENOENT) return attach_error("read", pins, errno);
  if (pinned) {
    L7MARK_TRY(take_off_xdp(pins, indexes));
    L7MARK_TRY(take_off_tc(pins, indexes));
    if (::rmdir(pins.c_str()) != 0) return attach_error("remove", pins, errno);
    ::rmdir(namespace_pins(paths).c_str());  // not with another interface's pins in it
  }
  const auto record = records.find(name);
  if (record == records.end()) {
    if (pinned) log_info("{}: detached", name);
    return success();
  }
  if (record->second.made_clsact) remove_empty_clsact(record->second.ifindex);
  records.erase(record);
  log_info("{}: detached", name);
  return write_records(paths.state, all);
}

std::vector<std::string> other_namespaces(const AttachPaths& paths) {
  route_library_logs();
  std::set<std::string> found;
  for (std::string& netns : list_directory(paths.links)) found.insert(std::move(netns));
  for (const auto& [netns, records] : read_records(paths.state)) found.insert(netns);
  found.erase(paths.netns);
  std::vector<std::string> others;
  for (const std::string& netns : found) {
    if (!is_gone(netns, paths)) {
      others.push_back(netns);
    } else if (const Status forgotten = forget_namespace(netns, paths); !forgotten.ok()) {
      log_warning("{}", forgotten.error().message());
      others.push_back(netns);
    } else {
      log_info("network namespace {} is gone: its interfaces are forgotten", netns);
    }
  }
  return others;
}

Status detach_elsewhere(const std::string& netns, const std::set<std::string>& names,
                        const AttachPaths& paths) {
  AttachPaths there = paths;
  there.netns = netns;
  Status done = success();
  const NamespaceSearch search = in_network_namespace(netns, [&] {
    for (const Attachment& attachment : list_attachments(there)) {
      if (!names.empty() && !names.contains(attachment.name)) continue;
      if (Status one = detach(attachment.name, there); !one.ok()) done = std::move(one);
    }
  });
  if (search == NamespaceSearch::found) return done;
  if (search == NamespaceSearch::hidden)
    log_warning(
        "network namespace {} is not found, and not all processes may be looked at: if it is "
        "there, "
        "filters and XDP programs of l7mark stay in it",
        netns);
  return forget_namespace(netns, paths);
}

std::vector<Attachment> list_attachments(const AttachPaths& paths) {
  route_library_logs();
  NamespaceRecords all = read_records(paths.state);
  AttachRecords& records = all[paths.netns];
  for (const std::string& directory : list_directory(namespace_pins(paths))) {
    const std::string name = interface_of_pins(directory);
    records.try_emplace(name, Attachment{}).first->second.name = name;
  }
  std::vector<Attachment> out;
  for (auto& [name, attachment] : records) {
    const std::string pins = pins_of(paths, name);
    const auto indexes = indexes_of(name, records);
    const TcFound ingress = find_tc(pins, TcDirection::ingress, indexes);
    const TcFound egress = find_tc(pins, TcDirection::egress, indexes);
    const XdpFound xdp = find_xdp(pins, indexes);
    attachment.ahead = ingress.ahead;
    attachment.ahead.insert(attachment.ahead.end(), egress.ahead.begin(), egress.ahead.end());
    attachment.tc = ingress.way;
    attachment.xdp = xdp.way;
    if (xdp.way != "single") attachment.frags = xdp.frags;
    attachment.mode = xdp.pinned ? xdp.mode : AttachMode::tc;
    if (attachment.ifindex == 0) attachment.ifindex = ingress.ifindex;
    // "l7mark_egress_l3", as far as the kernel keeps names.
    if (!egress.program.empty())
      attachment.link_layer = !egress.program.starts_with("l7mark_egress_");
    attachment.present = ingress.ifindex != 0 && egress.ifindex == ingress.ifindex &&
                         (!xdp.pinned || xdp.ifindex == ingress.ifindex);
    out.push_back(std::move(attachment));
  }
  return out;
}

std::string_view tc_direction_name(TcDirection direction) {
  return direction == TcDirection::ingress ? "ingress" : "egress";
}

std::string describe(const ProgramAhead& ahead) {
  if (ahead.preference == 0) return fmt::format("program {} (id {})", ahead.name, ahead.id);
  if (ahead.id == 0) return fmt::format("filter {} (preference {})", ahead.name, ahead.preference);
  return fmt::format("filter {} (id {}, preference {})", ahead.name, ahead.id, ahead.preference);
}

std::vector<ProgramAhead> programs_ahead(const std::string& name, unsigned ifindex,
                                         const AttachPaths& paths) {
  std::vector<ProgramAhead> ahead;
  for (const auto direction : {TcDirection::ingress, TcDirection::egress}) {
    TcFound found = find_tc(pins_of(paths, name), direction, {ifindex});
    std::move(found.ahead.begin(), found.ahead.end(), std::back_inserter(ahead));
  }
  return ahead;
}

void warn_of_ahead(const std::string& name, const std::vector<ProgramAhead>& ahead,
                   const std::vector<ProgramAhead>& known) {
  for (const ProgramAhead& one : ahead) {
    if (std::find(known.begin(), known.end(), one) != known.end()) continue;
    log_warning(
        "{}: {} is before l7mark at TC {}: packets that it does not hand on (by TC_ACT_UNSPEC) are "
        "pass l7mark by",
        name, describe(one), tc_direction_name(one.direction));
  }
}

}  // namespace l7mark
