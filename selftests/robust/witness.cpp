// SPDX-License-Identifier: GPL-2.0-only
#include "witness.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <l7mark_robust.skel.h>
#include <net/if.h>

#include <cerrno>
#include <memory>

#include "dataplane/attach.hpp"
#include "dataplane/features.hpp"
#include "dataplane/interface.hpp"
#include "dataplane/pins.hpp"

namespace l7mark::robust {

namespace {

constexpr unsigned kLast = 65000;  // behind every other filter

struct Destroy {
  void operator()(l7mark_robust* skeleton) const { l7mark_robust__destroy(skeleton); }
};
using Skeleton = std::unique_ptr<l7mark_robust, Destroy>;

Result<Skeleton> load() {
  Skeleton skeleton(l7mark_robust__open_and_load());
  if (!skeleton) return error_from_errno("load", "the witness");
  return skeleton;
}

}  // namespace

Status put_witness(const std::vector<std::string>& devices, const std::string& pin) {
  auto skeleton = load();
  if (!skeleton) return skeleton.error();
  for (const std::string& device : devices) {
    bpf_tc_hook hook{};
    hook.sz = sizeof(hook);
    hook.ifindex = static_cast<int>(if_nametoindex(device.c_str()));
    hook.attach_point = BPF_TC_EGRESS;
    int code = bpf_tc_hook_create(&hook);
    bpf_tc_opts options{};
    options.sz = sizeof(options);
    options.prog_fd = bpf_program__fd((*skeleton)->progs.robust_witness);
    options.priority = kLast;
    if (code == 0 || code == -EEXIST) code = bpf_tc_attach(&hook, &options);
    if (code != 0) return Error{"put the witness on", device, -code, {}};
  }
  if (bpf_map__pin((*skeleton)->maps.witness_counts, pin.c_str()) != 0)
    return error_from_errno("pin", pin);
  return success();
}

Status put_empty(const std::string& device, const std::string& instance) {
  auto skeleton = load();
  if (!skeleton) return skeleton.error();
  const auto features = probe_features();
  if (!features) return features.error();
  const PinPaths pins{instance};
  L7MARK_TRY(mount_bpffs());
  L7MARK_TRY(prepare_pins(pins));
  InterfaceConfig config;
  config.name = device;
  config.mode = AttachMode::tc;
  const auto facts = describe_interface(device);
  if (!facts) return facts.error();
  const int fd = bpf_program__fd((*skeleton)->progs.robust_empty);
  const auto attached = attach(
      config, *facts, ProgramSet{fd, fd, fd, fd, fd},
      []() -> Result<bpf_object*> {
        return Error{"attach", "XDP", ENOTSUP, {}};
      },
      *features, attach_paths(pins));
  if (!attached) return attached.error();
  return success();
}

Status take_empty(const std::string& device, const std::string& instance) {
  const PinPaths pins{instance};
  L7MARK_TRY(detach(device, attach_paths(pins)));
  return remove_pins(pins);
}

Result<Counts> Counts::open(const std::string& pin) {
  Fd fd(bpf_obj_get(pin.c_str()));
  if (!fd) return error_from_errno("open", pin);
  return Counts(std::move(fd));
}

robust_count Counts::of(unsigned flow) const {
  robust_count out{};
  bpf_map_lookup_elem(fd_.get(), &flow, &out);
  return out;
}

Status Counts::clear() const {
  const robust_count none{};
  for (unsigned flow = 0; flow < ROBUST_FLOWS; ++flow)
    if (bpf_map_update_elem(fd_.get(), &flow, &none, BPF_ANY) != 0)
      return error_from_errno("clear", "the counts");
  return success();
}

}  // namespace l7mark::robust
