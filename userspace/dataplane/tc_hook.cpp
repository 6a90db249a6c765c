// SPDX-License-Identifier: GPL-2.0-only
#include "dataplane/tc_hook.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

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

// Ours among the filters: early, because others may match on the mark. Instances and foreign
// filters that hold the first handle are stepped over.
constexpr std::uint32_t kFilterPriority = 7;
constexpr std::uint32_t kFirstHandle = 0x4c37;
constexpr std::uint32_t kHandles = 16;

const char* direction_name(TcDirection direction) {
  return direction == TcDirection::ingress ? "ingress" : "egress";
}
std::string link_pin(const std::string& pins, TcDirection direction) {
  return pins + "/" + direction_name(direction) + "-link";
}
std::string program_pin(const std::string& pins, TcDirection direction) {
  return pins + "/" + direction_name(direction) + "-program";
}
std::string hook_name(const TcPlace& place) {
  return place.name + " (TC " + direction_name(place.direction) + ")";
}

bpf_tc_hook make_hook(unsigned ifindex, TcDirection direction) {
  bpf_tc_hook hook{};
  hook.sz = sizeof(hook);
  hook.ifindex = static_cast<int>(ifindex);
  hook.attach_point = direction == TcDirection::ingress ? BPF_TC_INGRESS : BPF_TC_EGRESS;
  return hook;
}

bpf_tc_opts make_filter(std::uint32_t handle) {
  bpf_tc_opts filter{};
  filter.sz = sizeof(filter);
  filter.handle = handle;
  filter.priority = kFilterPriority;
  return filter;
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

struct Slot {
  std::uint32_t handle = 0;  // 0: none free
  bool ours = false;
};

Slot find_slot(const bpf_tc_hook& hook, const std::vector<std::uint32_t>& ours) {
  Slot free;
  for (std::uint32_t handle = kFirstHandle; handle < kFirstHandle + kHandles; ++handle) {
    bpf_tc_opts filter = make_filter(handle);
    if (bpf_tc_query(&hook, &filter) != 0) {
      if (free.handle == 0) free.handle = handle;
    } else if (std::find(ours.begin(), ours.end(), filter.prog_id) != ours.end()) {
      return {handle, true};
    }
  }
  return free;
}

int remove_filter(unsigned ifindex, TcDirection direction, std::uint32_t handle) {
  const bpf_tc_hook hook = make_hook(ifindex, direction);
  const bpf_tc_opts filter = make_filter(handle);
  return -bpf_tc_detach(&hook, &filter);
}

Status take_off_filter(const std::string& pin, TcDirection direction,
                       const std::vector<unsigned>& ifindexes) {
  if (!exists(pin)) return success();
  const Fd program(bpf_obj_get(pin.c_str()));
  if (!program) return attach_error("open", pin, errno);
  const std::vector<std::uint32_t> ids = {program_facts(program.get()).id};
  for (const unsigned ifindex : ifindexes) {
    const Slot slot = find_slot(make_hook(ifindex, direction), ids);
    if (!slot.ours) continue;
    if (const int code = remove_filter(ifindex, direction, slot.handle); code != 0)
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
  if (old.fd && old.ifindex == ifindex) {
    const SharedFd before = share(bpf_prog_get_fd_by_id(old.program));
    const SharedFd link = share(old.fd.release());
    if (const int code = bpf_link_update(link->get(), program_fd, nullptr); code != 0)
      return attach_error("replace our program on", hook_name(place), -code);
    transaction.on_failure([link, before] {
      if (before->valid()) bpf_link_update(link->get(), before->get(), nullptr);
    });
  } else {
    L7MARK_TRY(put_aside(pin, transaction));
    const int attach_type =
        direction == TcDirection::ingress ? kAttachTcxIngress : kAttachTcxEgress;
    const int fd = bpf_link_create(program_fd, static_cast<int>(ifindex),
                                   static_cast<bpf_attach_type>(attach_type), nullptr);
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
  const auto ids = pinned_ids(pin);
  const Slot slot = find_slot(hook, ids);
  if (slot.handle == 0)
    return Error{"attach to", hook_name(place), 0,
                 "all our filter handles are taken by other instances or tools"};

  bpf_tc_opts filter = make_filter(slot.handle);
  SharedFd before;
  if (slot.ours) {
    bpf_tc_opts present = make_filter(slot.handle);
    if (bpf_tc_query(&hook, &present) == 0) before = share(bpf_prog_get_fd_by_id(present.prog_id));
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
  transaction.on_failure([ifindex, direction, handle = slot.handle, before] {
    if (!before || !before->valid()) {
      remove_filter(ifindex, direction, handle);
      return;
    }
    const bpf_tc_hook there = make_hook(ifindex, direction);
    bpf_tc_opts back = make_filter(handle);
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

TcFound find_tc(const std::string& pins, TcDirection direction,
                const std::vector<unsigned>& ifindexes) {
  TcFound found;
  if (const TcxLink link = open_link(link_pin(pins, direction)); link.fd) {
    found.way = "tcx";
    found.ifindex = link.ifindex;
    const Fd program(bpf_prog_get_fd_by_id(link.program));
    found.program = program_facts(program.get()).name;
    return found;
  }
  const std::string pin = program_pin(pins, direction);
  const Fd program(bpf_obj_get(pin.c_str()));
  if (!program) return found;
  found.way = "clsact";
  found.program = program_facts(program.get()).name;
  const auto ids = pinned_ids(pin);
  for (const unsigned ifindex : ifindexes)
    if (find_slot(make_hook(ifindex, direction), ids).ours) found.ifindex = ifindex;
  return found;
}

}  // namespace l7mark
