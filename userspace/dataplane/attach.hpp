// SPDX-License-Identifier: GPL-2.0-only
// How our programs get onto interfaces, stay there without us, are replaced, and come off again.
// Only programs of the same instance are ever replaced or taken off; those of others stay.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/features.hpp"
#include "dataplane/interface.hpp"
#include "dataplane/pins.hpp"
#include "policy/policy.hpp"
#include "util/result.hpp"

struct bpf_object;

namespace l7mark {

// Descriptors of loaded TC programs; the caller owns them, and may close them after attach().
struct ProgramSet {
  int ingress = -1;
  int egress = -1;
  int ingress_l3 = -1;
  int egress_l3 = -1;
  int after_xdp = -1;
  bool vlan_key = false;  // keys have VLAN ids: XDP must see the tags that TC sees
};

// Makes an XDP object over the TC programs' maps, opened and not loaded, with "l7mark_xdp" and
// "l7mark_xdp_only", of which one gets loaded. Called at most once per attach(), which owns and
// closes what is returned.
using XdpFactory = std::function<Result<bpf_object*>()>;

// Where attachments are remembered.
struct AttachPaths {
  // On bpffs. Holds NETNS/NAME/ and in it ingress-link and egress-link by TCX, ingress-program and
  // egress-program by clsact, and xdp-program, a dot of NAME written as a colon: bpffs has no dots,
  // interfaces no colons.
  std::string links;
  // What the kernel does not tell: how it was asked for, and whether the clsact is ours.
  std::string state;
  // network_namespace_id() of the namespace that is worked in: what has the same name and index in
  // another one is another interface.
  std::string netns;
};
// links(), /run/l7mark/INSTANCE.attach.json, and the caller's namespace.
[[nodiscard]] AttachPaths attach_paths(const PinPaths& pins);

enum class TcDirection { ingress, egress };
[[nodiscard]] std::string_view tc_direction_name(TcDirection direction);

// Of others, where packets meet it before our program: one that does not hand a packet on, and be
// it by TC_ACT_OK, hides it from us. Programs of other instances always hand on, and don't count.
struct ProgramAhead {
  TcDirection direction = TcDirection::ingress;
  std::string name;              // of the program; of a filter without one its kind: "u32"
  std::uint32_t id = 0;          // of the program; 0: none
  std::uint32_t preference = 0;  // of a filter; 0: at TCX

  bool operator==(const ProgramAhead&) const = default;
};
// "program NAME (id 12)", "filter NAME (id 12, preference 1)", "filter u32 (preference 1)".
[[nodiscard]] std::string describe(const ProgramAhead& ahead);

struct Attachment {
  std::string name;
  unsigned ifindex = 0;  // when it was attached
  AttachMode requested = AttachMode::automatic;
  AttachMode mode = AttachMode::tc;  // native, generic or tc
  std::string tc;                    // "tcx" or "clsact"
  std::string xdp;                   // "dispatcher" or "single"; empty in mode tc
  bool frags = false;                // frames of several buffers come to XDP: large MTUs
  bool link_layer = true;            // false: the programs are those for plain IP
  bool made_clsact = false;          // the clsact was made by us and may go with us
  bool present = false;              // the interface is there and our programs are on it
  std::vector<ProgramAhead> ahead;   // in their order, those at ingress first
};

// "auto", "native", "generic", "tc", as in policies.
[[nodiscard]] std::string_view attach_mode_name(AttachMode mode);

// Puts the programs onto an interface. Those of an earlier attach() with the same `paths` are
// replaced in place, whatever their mode was: no packet passes by in between. A failure leaves the
// interface as it was. The attachment outlives this process; see detach().
//
// At TC the programs come before those of others; a warning names who is before them nevertheless.
// Mode auto takes native XDP on hardware whose driver accepts it, else TC. Fails where the mode
// asked for is not possible, where another XDP program is in the way, and without CAP_BPF and
// CAP_NET_ADMIN.
[[nodiscard]] Result<Attachment> attach(const InterfaceConfig& config, const InterfaceFacts& facts,
                                        const ProgramSet& programs, const XdpFactory& make_xdp,
                                        const Features& features, const AttachPaths& paths);

// Takes our programs off, by what is pinned and remembered; the interface may be gone or have
// another index since. Success where nothing of ours is there.
Status detach(const std::string& name, const AttachPaths& paths);

// Every interface of this network namespace with something of ours pinned or remembered, by name.
[[nodiscard]] std::vector<Attachment> list_attachments(const AttachPaths& paths);

// Other network namespaces with something of ours pinned or remembered. What belongs to those that
// are gone is taken out before, pins and all.
[[nodiscard]] std::vector<std::string> other_namespaces(const AttachPaths& paths);
// Takes our programs off these interfaces of another namespace; off all of them if none is named,
// or if the namespace is not found.
Status detach_elsewhere(const std::string& netns, const std::set<std::string>& names,
                        const AttachPaths& paths);

// Attachment::ahead of one interface, at the price of a few calls.
[[nodiscard]] std::vector<ProgramAhead> programs_ahead(const std::string& name, unsigned ifindex,
                                                       const AttachPaths& paths);
// Warns of each; `known` has been warned of before.
void warn_of_ahead(const std::string& name, const std::vector<ProgramAhead>& ahead,
                   const std::vector<ProgramAhead>& known = {});

}  // namespace l7mark
