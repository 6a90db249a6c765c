// SPDX-License-Identifier: GPL-2.0-only
#include "dataplane/tc_hook.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_ether.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <optional>

#include "dataplane/hook_pins.hpp"
#include "dataplane/rtnetlink.hpp"
#include "util/fd.hpp"
#include "util/log.hpp"

namespace l7mark {

namespace {

// Newer than the kernel headers of Debian 12; from include/uapi/linux/bpf.h of Linux 6.6.
constexpr int kAttachTcxIngress = 46;
constexpr int kAttachTcxEgress = 47;
constexpr std::uint32_t kLinkTypeTcx = 11;
constexpr std::uint32_t kBefore = 1U << 3;  // BPF_F_BEFORE; with no other named, before all
constexpr std::size_t kMostAtTcx = 64;      // BPF_MPROG_MAX of include/linux/bpf_mprog.h

// Ours among the filters: first, because others may match on the mark, and end the chain. Instances
// and foreign filters that hold the first handle are stepped over.
constexpr std::uint32_t kFirstPreference = 1;
constexpr std::uint32_t kLastPreference = 0x7fff;  // tc(8) makes up those above for itself
constexpr std::uint32_t kFirstHandle = 0x4c37;
constexpr std::uint32_t kHandles = 16;

using Ids = std::vector<std::uint32_t>;

bool holds(const Ids& ids, std::uint32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

std::string link_pin(const std::string& pins, TcDirection direction) {
  return fmt::format("{}/{}-link", pins, tc_direction_name(direction));
}
std::string program_pin(const std::string& pins, TcDirection direction) {
  return fmt::format("{}/{}-program", pins, tc_direction_name(direction));
}
std::string hook_name(const TcPlace& place) {
  return fmt::format("{} (TC {})", place.name, tc_direction_name(place.direction));
}

bpf_tc_hook make_hook(unsigned ifindex, TcDirection direction) {
  bpf_tc_hook hook{};
  hook.sz = sizeof(hook);
  hook.ifindex = static_cast<int>(ifindex);
  hook.attach_point = direction == TcDirection::ingress ? BPF_TC_INGRESS : BPF_TC_EGRESS;
  return hook;
}

struct Slot {
  std::uint32_t preference = 0;
  std::uint32_t handle = 0;   // 0: none free
  std::uint32_t program = 0;  // ours that is there; 0: none
};

bpf_tc_opts make_filter(const Slot& slot) {
  bpf_tc_opts filter{};
  filter.sz = sizeof(filter);
  filter.handle = slot.handle;
  filter.priority = slot.preference;
  return filter;
}

bpf_attach_type tcx_type(TcDirection direction) {
  return static_cast<bpf_attach_type>(direction == TcDirection::ingress ? kAttachTcxIngress
                                                                        : kAttachTcxEgress);
}

// In their order; empty where the kernel has no TCX.
Ids tcx_programs(unsigned ifindex, TcDirection direction) {
  std::array<__u32, kMostAtTcx> ids{};
  __u32 count = ids.size();
  if (bpf_prog_query(static_cast<int>(ifindex), tcx_type(direction), 0, nullptr, ids.data(),
                     &count) != 0)
    return {};
  return {ids.begin(), ids.begin() + count};
}

std::string program_name(std::uint32_t id) {
  const Fd program(bpf_prog_get_fd_by_id(id));
  return program_facts(program.get()).name;
}

bool is_l7mark(const std::string& program) {
  return program.starts_with("l7mark_");
}

// Of others, before the program `ours` at TCX; all of them if it is not there.
std::vector<ProgramAhead> ahead_at_tcx(const Ids& chain, TcDirection direction,
                                       std::uint32_t ours) {
  std::vector<ProgramAhead> ahead;
  for (const auto id : chain) {
    if (id == ours) break;
    if (std::string name = program_name(id); !is_l7mark(name))
      ahead.push_back({direction, std::move(name), id, 0});
  }
  return ahead;
}

// Of others, before the filter in `ours`. The kernel tells of every preference once with handle 0.
std::vector<ProgramAhead> ahead_at_clsact(const std::vector<TcFilter>& filters,
                                          TcDirection direction, const Slot& ours) {
  std::vector<ProgramAhead> ahead;
  for (const TcFilter& filter : filters) {
    if (filter.preference == ours.preference && filter.handle == ours.handle) break;
    if (filter.handle == 0) continue;
    std::string name = filter.program != 0 ? program_name(filter.program) : filter.kind;
    if (is_l7mark(name)) continue;
    ProgramAhead one{direction, std::move(name), filter.program, filter.preference};
    // Filters of a kind share a preference by the hundred.
    if (ahead.empty() || ahead.back() != one) ahead.push_back(std::move(one));
  }
  return ahead;
}

struct TcxLink {
  Fd fd;
  std::uint32_t program = 0;
  unsigned ifindex = 0;  // 0: the interface is gone
};

// The link's place among the kinds of struct bpf_link_info is where XDP's interface is, too.
TcxLink open_link(const std::string& pin) {
  TcxLink out;
  Fd fd(bpf_obj_get(pin.c_str()));
  bpf_link_info info{};
  __u32 length = sizeof(info);
  if (!fd || bpf_obj_get_info_by_fd(fd.get(), &info, &length) != 0 || info.type != kLinkTypeTcx)
    return out;
  out.fd = std::move(fd);
  out.program = info.prog_id;
  out.ifindex = info.xdp.ifindex;
  return out;
}

// Detached before it is unpinned: the kernel frees an unpinned link some time later.
Status take_off_link(const std::string& pin) {
  if (!exists(pin)) return success();
  const Fd link(bpf_obj_get(pin.c_str()));
  if (!link) return attach_error("open", pin, errno);
  if (bpf_link_detach(link.get()) != 0) return attach_error("detach", pin, errno);
  unpin(pin);
  return success();
}

std::optional<Slot> find_ours(const std::vector<TcFilter>& filters, const Ids& ours) {
  for (const TcFilter& filter : filters)
    if (filter.program != 0 && holds(ours, filter.program))
      return Slot{filter.preference, filter.handle, filter.program};
  return std::nullopt;
}

// The kernel keeps one kind and one protocol for a preference. Of its bpf filters the last one that
// was added comes first.
Slot find_free(const std::vector<TcFilter>& filters) {
  for (auto preference = kFirstPreference; preference <= kLastPreference; ++preference) {
    bool ours_fits = true;
    Ids taken;
    for (const TcFilter& filter : filters) {
      if (filter.preference != preference) continue;
      ours_fits = ours_fits && filter.kind == "bpf" && filter.protocol == ETH_P_ALL;
      taken.push_back(filter.handle);
    }
    for (auto handle = kFirstHandle; ours_fits && handle < kFirstHandle + kHandles; ++handle)
      if (!holds(taken, handle)) return {preference, handle, 0};
  }
  return {};
}

std::optional<std::vector<TcFilter>> filters_of(unsigned ifindex, TcDirection direction) {
  return tc_filters(ifindex, direction == TcDirection::egress);
}

int remove_filter(unsigned ifindex, TcDirection direction, const Slot& slot) {
  const bpf_tc_hook hook = make_hook(ifindex, direction);
  const bpf_tc_opts filter = make_filter(slot);
  return -bpf_tc_detach(&hook, &filter);
}

Status take_off_filter(const std::string& pin, TcDirection direction,
                       const std::vector<unsigned>& ifindexes) {
  if (!exists(pin)) return success();
  const Fd program(bpf_obj_get(pin.c_str()));
  if (!program) return attach_error("open", pin, errno);
  const Ids ids = {program_facts(program.get()).id};
  for (const unsigned ifindex : ifindexes) {
    const auto filters = filters_of(ifindex, direction);
    if (!filters) return attach_error("look for the filter of", pin, errno);
    const auto slot = find_ours(*filters, ids);
    if (!slot) continue;
    if (const int code = remove_filter(ifindex, direction, *slot); code != 0)
      return attach_error("remove the filter of", pin, code);
  }
  unpin(pin);
  return success();
}

void warn(const Status& status) {
  if (!status.ok()) log_warning("{}", status.error().message());
}

}  // namespace

Status put_tcx(const TcPlace& place, int program_fd, Transaction& transaction) {
  const std::string pin = link_pin(place.pins, place.direction);
  const auto ifindex = place.ifindex;
  const auto direction = place.direction;
  TcxLink old = open_link(pin);
  const Ids chain = tcx_programs(ifindex, direction);
  const bool here = old.fd && old.ifindex == ifindex && holds(chain, old.program);
  // A link can't be moved: to come first takes a new one, beside which the old one counts packets
  // twice for as long as the transaction takes. TCX has no place for a program twice.
  const bool first = here && ahead_at_tcx(chain, direction, old.program).empty();
  if (here && (first || program_facts(program_fd).id == old.program)) {
    const SharedFd before = share(bpf_prog_get_fd_by_id(old.program));
    const SharedFd link = share(old.fd.release());
    if (const int code = bpf_link_update(link->get(), program_fd, nullptr); code != 0)
      return attach_error("replace our program on", hook_name(place), -code);
    transaction.on_failure([link, before] {
      if (before->valid()) bpf_link_update(link->get(), before->get(), nullptr);
    });
  } else {
    L7MARK_TRY(put_aside(pin, transaction));
    bpf_link_create_opts options{};
    options.sz = sizeof(options);
    options.flags = kBefore;
    const int fd =
        bpf_link_create(program_fd, static_cast<int>(ifindex), tcx_type(direction), &options);
    if (fd < 0) return attach_error("attach to", hook_name(place), -fd);
    const SharedFd link = share(fd);
    transaction.on_failure([link] { bpf_link_detach(link->get()); });
    L7MARK_TRY(pin_object(link->get(), pin, transaction));
  }
  transaction.on_success([pin, place] {
    warn(take_off_link(aside(pin)));
    const std::string filter = program_pin(place.pins, place.direction);
    for (const auto& path : {filter, aside(filter)})
      warn(take_off_filter(path, place.direction, place.ifindexes));
  });
  return success();
}

Status put_clsact(const TcPlace& place, int program_fd, Transaction& transaction) {
  const std::string pin = program_pin(place.pins, place.direction);
  const auto ifindex = place.ifindex;
  const auto direction = place.direction;
  const bpf_tc_hook hook = make_hook(ifindex, direction);
  const auto filters = filters_of(ifindex, direction);
  if (!filters) return attach_error("read the filters of", hook_name(place), errno);
  const auto ours = find_ours(*filters, pinned_ids(pin));
  const Slot slot = ours ? *ours : find_free(*filters);
  if (slot.handle == 0)
    return Error{"attach to", hook_name(place), 0,
                 "all our filter handles are taken by other instances or tools"};

  bpf_tc_opts filter = make_filter(slot);
  SharedFd before;
  if (ours) {
    before = share(bpf_prog_get_fd_by_id(slot.program));
    filter.flags = BPF_TC_F_REPLACE;
  }
  // Pinned first: a filter without a pin would never be recognised as ours.
  L7MARK_TRY(put_aside(pin, transaction));
  L7MARK_TRY(pin_object(program_fd, pin, transaction));
  filter.prog_fd = program_fd;
  if (const int code = bpf_tc_attach(&hook, &filter); code != 0)
    return attach_error(
        "attach to", hook_name(place), -code,
        "if it has an ingress qdisc, replace that: tc qdisc replace dev " + place.name + " clsact");
  transaction.on_failure([ifindex, direction, slot, before] {
    if (!before || !before->valid()) {
      remove_filter(ifindex, direction, slot);
      return;
    }
    const bpf_tc_hook there = make_hook(ifindex, direction);
    bpf_tc_opts back = make_filter(slot);
    back.flags = BPF_TC_F_REPLACE;
    back.prog_fd = before->get();
    bpf_tc_attach(&there, &back);
  });
  transaction.on_success([pin, place] {
    // Not here: it may be the very program, put again.
    std::vector<unsigned> elsewhere = place.ifindexes;
    std::erase(elsewhere, place.ifindex);
    warn(take_off_filter(aside(pin), place.direction, elsewhere));
    const std::string link = link_pin(place.pins, place.direction);
    for (const auto& path : {link, aside(link)}) warn(take_off_link(path));
  });
  return success();
}

Result<bool> ensure_clsact(const std::string& name, unsigned ifindex, Transaction& transaction) {
  bpf_tc_hook hook = make_hook(ifindex, TcDirection::ingress);
  hook.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS);
  const int code = bpf_tc_hook_create(&hook);
  if (code == -EEXIST) return false;
  if (code != 0)
    return attach_error(
        "make a clsact on", name, -code,
        code == -ENOENT ? "the kernel lacks sch_ingress (CONFIG_NET_SCH_INGRESS)" : std::string());
  transaction.on_failure([ifindex] { remove_empty_clsact(ifindex); });
  return true;
}

void remove_empty_clsact(unsigned ifindex) {
  if (has_tc_filters(ifindex)) return;
  bpf_tc_hook hook = make_hook(ifindex, TcDirection::ingress);
  hook.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS);
  if (const int code = bpf_tc_hook_destroy(&hook); code != 0)
    log_debug("removing the clsact of interface {}: {}", ifindex, -code);
}

Status take_off_tc(const std::string& pins, const std::vector<unsigned>& ifindexes) {
  for (const auto direction : {TcDirection::ingress, TcDirection::egress}) {
    const std::string link = link_pin(pins, direction);
    for (const auto& path : {link, aside(link)}) L7MARK_TRY(take_off_link(path));
    const std::string filter = program_pin(pins, direction);
    for (const auto& path : {filter, aside(filter)})
      L7MARK_TRY(take_off_filter(path, direction, ifindexes));
  }
  return success();
}

PinnedLinks look_at_links(const std::string& pins) {
  PinnedLinks found = PinnedLinks::none;
  for (const auto direction : {TcDirection::ingress, TcDirection::egress}) {
    const std::string pin = link_pin(pins, direction);
    for (const auto& path : {pin, aside(pin)}) {
      const TcxLink link = open_link(path);
      if (!link.fd) continue;
      found = PinnedLinks::gone;
      if (link.ifindex != 0 && !holds(tcx_programs(link.ifindex, direction), link.program))
        return PinnedLinks::elsewhere;
    }
  }
  return found;
}

TcFound find_tc(const std::string& pins, TcDirection direction,
                const std::vector<unsigned>& ifindexes) {
  TcFound found;
  if (const TcxLink link = open_link(link_pin(pins, direction)); link.fd) {
    found.way = "tcx";
    found.program = program_name(link.program);
    if (link.ifindex == 0) return found;
    const Ids chain = tcx_programs(link.ifindex, direction);
    // The interface may have been moved to another network namespace.
    if (!holds(chain, link.program)) return found;
    found.ifindex = link.ifindex;
    found.ahead = ahead_at_tcx(chain, direction, link.program);
    return found;
  }
  const std::string pin = program_pin(pins, direction);
  const Fd program(bpf_obj_get(pin.c_str()));
  if (!program) return found;
  found.way = "clsact";
  found.program = program_facts(program.get()).name;
  const auto ids = pinned_ids(pin);
  for (const unsigned ifindex : ifindexes) {
    const auto filters = filters_of(ifindex, direction);
    const auto slot = filters ? find_ours(*filters, ids) : std::nullopt;
    if (!slot) continue;
    found.ifindex = ifindex;
    // TCX is before every filter.
    found.ahead = ahead_at_tcx(tcx_programs(ifindex, direction), direction, 0);
    for (ProgramAhead& one : ahead_at_clsact(*filters, direction, *slot))
      found.ahead.push_back(std::move(one));
  }
  return found;
}

}  // namespace l7mark
