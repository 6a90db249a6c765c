// SPDX-License-Identifier: GPL-2.0-only
#include "dataplane/xdp_hook.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <unistd.h>
#include <xdp/libxdp.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <utility>

#include "dataplane/hook_pins.hpp"
#include "dataplane/verifier_log.hpp"
#include "util/fd.hpp"
#include "util/log.hpp"

namespace l7mark {

namespace {

constexpr const char* kProgram = "l7mark_xdp";
// The same without metadata for TC, for dispatchers of libxdp below which the kernel refuses that.
constexpr const char* kProgramOnly = "l7mark_xdp_only";
// Where libxdp pins what is below its dispatchers, one directory each.
constexpr const char* kDispatchers = "/sys/fs/bpf/xdp";

using Object = std::unique_ptr<bpf_object, decltype(&bpf_object__close)>;
using Program = std::unique_ptr<xdp_program, decltype(&xdp_program__close)>;
using Multiprog = std::unique_ptr<xdp_multiprog, decltype(&xdp_multiprog__close)>;

std::string pin_of(const std::string& pins) {
  return pins + "/xdp-program";
}

const char* mode_word(AttachMode mode) {
  return mode == AttachMode::native ? "native" : "generic";
}
xdp_attach_mode to_libxdp(AttachMode mode) {
  return mode == AttachMode::native ? XDP_MODE_NATIVE : XDP_MODE_SKB;
}
std::uint32_t to_flags(AttachMode mode) {
  return mode == AttachMode::native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
}

// What is on an interface.
struct Present {
  bool any = false;
  bool single = false;  // no dispatcher, or none that can be read
  bool frags = false;   // of a dispatcher
  AttachMode mode = AttachMode::native;
  ProgramFacts main;                    // the dispatcher, or the program itself
  std::vector<std::uint32_t> programs;  // ids of those below the dispatcher

  [[nodiscard]] bool holds(const std::vector<std::uint32_t>& ids) const {
    const auto listed = [&](std::uint32_t id) {
      return std::find(ids.begin(), ids.end(), id) != ids.end();
    };
    return any &&
           (single ? listed(main.id) : std::any_of(programs.begin(), programs.end(), listed));
  }
};

Present look_at(unsigned ifindex) {
  Present out;
  xdp_multiprog* raw = xdp_multiprog__get_from_ifindex(static_cast<int>(ifindex));
  if (raw == nullptr || libxdp_get_error(raw) != 0) return out;
  const Multiprog multiprog(raw, xdp_multiprog__close);
  const xdp_program* main = xdp_multiprog__main_prog(raw);
  if (main == nullptr) return out;  // offloaded to the card only: not in our way
  out.any = true;
  out.single = xdp_multiprog__is_legacy(raw);
  out.frags = xdp_multiprog__xdp_frags_support(raw);
  out.mode =
      xdp_multiprog__attach_mode(raw) == XDP_MODE_SKB ? AttachMode::generic : AttachMode::native;
  out.main = {xdp_program__id(main), xdp_program__name(main)};
  const xdp_program* program = nullptr;
  while (!out.single && (program = xdp_multiprog__next_prog(program, raw)) != nullptr)
    out.programs.push_back(xdp_program__id(program));
  return out;
}

// `old_fd` < 0: only where nothing is; else only in the place of that program. `fd` < 0: takes off.
int set_single(unsigned ifindex, int fd, int old_fd, AttachMode mode) {
  bpf_xdp_attach_opts options{};
  options.sz = sizeof(options);
  std::uint32_t flags = to_flags(mode);
  if (old_fd >= 0) {
    options.old_prog_fd = old_fd;
    flags |= XDP_FLAGS_REPLACE;
  } else {
    flags |= XDP_FLAGS_UPDATE_IF_NOEXIST;
  }
  return bpf_xdp_attach(static_cast<int>(ifindex), fd, flags, &options);
}

int take_off_dispatcher(unsigned ifindex, int fd, AttachMode mode) {
  const Program program(xdp_program__from_fd(fd), xdp_program__close);
  if (const long code = libxdp_get_error(program.get()); code != 0) return static_cast<int>(code);
  return xdp_program__detach(program.get(), static_cast<int>(ifindex), to_libxdp(mode), 0);
}

// Takes one program off if it is there; whatever else is there stays.
int take_off(unsigned ifindex, int fd) {
  const std::uint32_t id = program_facts(fd).id;
  const Present present = look_at(ifindex);
  if (id == 0 || !present.holds({id})) return 0;
  return present.single ? set_single(ifindex, -1, fd, present.mode)
                        : take_off_dispatcher(ifindex, fd, present.mode);
}

Status take_off_ours(unsigned ifindex, int fd) {
  if (const int code = take_off(ifindex, fd); code != 0)
    return attach_error("take our XDP program off interface", std::to_string(ifindex),
                        std::abs(code));
  return success();
}

void take_off_or_warn(unsigned ifindex, int fd) {
  if (const Status taken = take_off_ours(ifindex, fd); !taken.ok())
    log_warning("{}", taken.error().message());
}

// The kernel drops a dispatcher with its interface, but libxdp's pins go on holding what was below
// it. Only directories that hold the program are taken out.
void clean_dispatchers(std::uint32_t id) {
  for (const std::string& directory : list_directory(kDispatchers)) {
    const std::string path = fmt::format("{}/{}", kDispatchers, directory);
    std::vector<std::string> files = list_directory(path);
    for (std::string& file : files) file = fmt::format("{}/{}", path, file);
    const bool ours = std::any_of(files.begin(), files.end(), [&](const std::string& file) {
      if (!file.ends_with("-prog")) return false;
      const Fd program(bpf_obj_get(file.c_str()));
      return program_facts(program.get()).id == id;
    });
    if (!ours) continue;
    for (const std::string& file : files) unpin(file);
    ::rmdir(path.c_str());
  }
}

// `frags`: what was refused takes frames of several buffers.
Error refused(const XdpPlace& place, int code, bool frags) {
  constexpr unsigned kOneBuffer = 3000;  // drivers begin to refuse a little above it
  std::string detail;
  if (code == EOPNOTSUPP || code == EINVAL || code == ERANGE || code == E2BIG || code == ENOSPC) {
    if (place.mode != AttachMode::native)
      detail = "use mode tc";
    else if (!frags && place.mtu > kOneBuffer)
      detail = fmt::format(
          "its MTU of {} needs multi-buffer XDP, which Linux has since 5.18, and all programs on "
          "the interface must take; lower the MTU, or use mode generic or tc",
          place.mtu);
    else
      detail = fmt::format(
          "its driver has no native XDP, or not with its MTU of {}, queues and offloads; use mode "
          "generic or tc",
          place.mtu);
  } else if (code == EBUSY || code == EEXIST)
    detail = "another XDP program is there; take it off, or use mode tc";
  return attach_error(std::string("attach ") + mode_word(place.mode) + " XDP to", place.name, code,
                      std::move(detail));
}

Error in_the_way(const XdpPlace& place, const Present& present) {
  return Error{std::string("attach ") + mode_word(place.mode) + " XDP to", place.name, EBUSY,
               std::string("the ") + mode_word(present.mode) + " XDP program " + present.main.name +
                   " (id " + std::to_string(present.main.id) +
                   ") is there and can't be shared with; take it off, or use mode tc"};
}

Error load_error(const XdpPlace& place, int code, const std::string& reason) {
  // The verifier refuses with EACCES too, which is not about privileges then.
  if (!reason.empty())
    return Error{"load the XDP program for", place.name, code, "the kernel refuses " + reason};
  return attach_error("load the XDP program for", place.name, code, "see `l7mark features`");
}

struct Loaded {
  SharedFd fd;
  std::string way;
  bool frags = false;
};

bool takes_frags(const bpf_program* program) {
  return program != nullptr && (bpf_program__flags(program) & BPF_F_XDP_HAS_FRAGS) != 0;
}

// Generic XDP refuses no MTU: the kernel makes packets linear for a program of one buffer. For
// others it copies what is not, from 6.9 on, and 6.18 was seen to lose what XDP hands to TC by
// that.
void take_one_buffer(bpf_object* object) {
  bpf_program* program = nullptr;
  while ((program = bpf_object__next_program(object, program)) != nullptr)
    bpf_program__set_flags(program, bpf_program__flags(program) & ~__u32{BPF_F_XDP_HAS_FRAGS});
}

// Leaves only one of the object's programs to be loaded.
bpf_program* choose_program(bpf_object* object, const char* name) {
  bpf_program* chosen = nullptr;
  bpf_program* program = nullptr;
  while ((program = bpf_object__next_program(object, program)) != nullptr) {
    const bool wanted = std::string_view(bpf_program__name(program)) == name;
    bpf_program__set_autoload(program, wanted);
    if (wanted) chosen = program;
  }
  return chosen;
}

Result<Loaded> put_single(const XdpPlace& place, Object object, int old_fd) {
  const bpf_program* program = choose_program(object.get(), kProgram);
  if (program == nullptr) return load_error(place, ENOENT, {});
  const bool frags = takes_frags(program);
  const VerifierLog log(object.get());
  if (const int code = bpf_object__load(object.get()); code != 0)
    return load_error(place, std::abs(code), log.reason());
  const SharedFd fd = share(::dup(bpf_program__fd(program)));
  if (const int code = set_single(place.ifindex, fd->get(), old_fd, place.mode); code != 0)
    return refused(place, std::abs(code), frags);
  return Loaded{fd, "single", frags};
}

// Adds it to the dispatcher there, or makes one. libxdp loads the object, as an extension of the
// dispatcher, or falls back by itself to a single program.
Result<Loaded> put_dispatched(const XdpPlace& place, Object object, const char* name) {
  const bpf_program* chosen = choose_program(object.get(), name);
  const bool frags = takes_frags(chosen);
  const VerifierLog log(object.get());
  xdp_program_opts options{};
  options.sz = sizeof(options);
  options.obj = object.get();
  options.prog_name = name;
  const Program program(xdp_program__create(&options), xdp_program__close);
  if (const long code = libxdp_get_error(program.get()); code != 0)
    return load_error(place, static_cast<int>(std::abs(code)), {});
  if (const int code = xdp_program__attach(program.get(), static_cast<int>(place.ifindex),
                                           to_libxdp(place.mode), 0);
      code != 0) {
    const bool loaded = xdp_program__fd(program.get()) >= 0;
    return loaded ? refused(place, std::abs(code), frags)
                  : load_error(place, std::abs(code), log.reason());
  }
  const SharedFd fd = share(::dup(xdp_program__fd(program.get())));
  const Present present = look_at(place.ifindex);
  if (present.single) return Loaded{fd, "single", frags};
  if (frags && !present.frags)
    log_warning(
        "{}: another XDP program there takes frames of one buffer only, so libxdp's dispatcher "
        "does too: the driver will refuse a large MTU",
        place.name);
  return Loaded{fd, "dispatcher", present.frags};
}

// Puts a program that was taken off back; of the two ways, the one that it was loaded for.
void put_back(unsigned ifindex, int fd, AttachMode mode, bool single) {
  int code = 0;
  if (single) {
    code = set_single(ifindex, fd, -1, mode);
  } else {
    const Program program(xdp_program__from_fd(fd), xdp_program__close);
    code = libxdp_get_error(program.get()) != 0
               ? EINVAL
               : xdp_program__attach(program.get(), static_cast<int>(ifindex), to_libxdp(mode), 0);
  }
  if (code != 0)
    log_warning("{}", attach_error("put the earlier XDP program back on interface",
                                   std::to_string(ifindex), std::abs(code))
                          .message());
}

Status take_off_pinned(const std::string& pin, const std::vector<unsigned>& ifindexes) {
  if (!exists(pin)) return success();
  const Fd program(bpf_obj_get(pin.c_str()));
  if (!program) return attach_error("open", pin, errno);
  for (const unsigned ifindex : ifindexes) L7MARK_TRY(take_off_ours(ifindex, program.get()));
  clean_dispatchers(program_facts(program.get()).id);
  unpin(pin);
  return success();
}

SharedFd open_ours(const std::string& pin, const Present& present) {
  for (const std::string& path : {pin, aside(pin)}) {
    SharedFd fd = share(bpf_obj_get(path.c_str()));
    if (const auto id = program_facts(fd->get()).id; id != 0 && present.holds({id})) return fd;
  }
  return {};
}

}  // namespace

Result<XdpPut> put_xdp(const XdpPlace& place, const XdpFactory& make_xdp, const Features& features,
                       Transaction& transaction) {
  const std::string pin = pin_of(place.pins);
  const unsigned ifindex = place.ifindex;
  const Present present = look_at(ifindex);
  const SharedFd ours = present.any ? open_ours(pin, present) : SharedFd();
  const bool alone = ours && (present.single || present.programs.size() == 1);
  const bool other_mode = present.any && present.mode != place.mode;
  const bool dispatchers = features.has(FeatureId::freplace);
  if (present.any && !alone && (present.single || !dispatchers || other_mode))
    return in_the_way(place, present);

  auto made = make_xdp();
  if (!made) return made.error();
  Object object(*made, bpf_object__close);
  if (place.mode != AttachMode::native) take_one_buffer(object.get());
  L7MARK_TRY(put_aside(pin, transaction));
  if (ours && other_mode) {  // the kernel has only one of the two at a time
    if (const int code = take_off(ifindex, ours->get()); code != 0)
      return refused(place, std::abs(code), present.frags);
    transaction.on_failure([ifindex, ours, mode = present.mode, single = present.single] {
      put_back(ifindex, ours->get(), mode, single);
    });
  }
  const bool in_place = ours && !other_mode && present.single;
  const auto loaded =
      in_place || !dispatchers
          ? put_single(place, std::move(object), in_place ? ours->get() : -1)
          : put_dispatched(place, std::move(object),
                           features.has(FeatureId::shared_metadata) ? kProgram : kProgramOnly);
  if (!loaded) return loaded.error();
  const SharedFd fd = loaded->fd;
  transaction.on_failure([ifindex, fd, ours, in_place, mode = place.mode] {
    if (in_place)
      set_single(ifindex, ours->get(), fd->get(), mode);
    else
      take_off_or_warn(ifindex, fd->get());
  });
  L7MARK_TRY(pin_object(fd->get(), pin, transaction));
  transaction.on_success([pin, ifindexes = place.ifindexes] {
    if (const Status taken = take_off_pinned(aside(pin), ifindexes); !taken.ok())
      log_warning("{}", taken.error().message());
  });
  return XdpPut{loaded->way, loaded->frags};
}

Status take_off_xdp(const std::string& pins, const std::vector<unsigned>& ifindexes) {
  const std::string pin = pin_of(pins);
  for (const std::string& path : {pin, aside(pin)}) L7MARK_TRY(take_off_pinned(path, ifindexes));
  return success();
}

XdpFound find_xdp(const std::string& pins, const std::vector<unsigned>& ifindexes) {
  XdpFound found;
  const std::string pin = pin_of(pins);
  const auto ids = pinned_ids(pin);
  found.pinned = !ids.empty();
  for (const unsigned ifindex : ifindexes) {
    if (!found.pinned) break;
    const Present present = look_at(ifindex);
    if (!present.holds(ids)) continue;
    found.ifindex = ifindex;
    found.mode = present.mode;
    found.way = present.single ? "single" : "dispatcher";
    found.frags = present.frags;
  }
  return found;
}

}  // namespace l7mark
