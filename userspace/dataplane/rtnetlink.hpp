// SPDX-License-Identifier: GPL-2.0-only
// Questions about interfaces that no library of ours answers, by rtnetlink in the current network
// namespace.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace l7mark {

// IFLA_INFO_KIND: "veth", "tun", "wireguard"; empty for hardware, for the loopback, and on failure.
[[nodiscard]] std::string link_kind(unsigned ifindex);

// Whether the interface's clsact holds filters, of whomever, at ingress or egress. True on failure:
// the answer decides whether the clsact may be removed.
[[nodiscard]] bool has_tc_filters(unsigned ifindex);

struct TcFilter {
  std::uint32_t preference = 0;
  std::uint16_t protocol = 0;  // ETH_P_*, in host order
  std::string kind;            // "bpf", "u32"
  std::uint32_t handle = 0;    // 0: stands for all filters of that preference
  std::uint32_t program = 0;   // id of a bpf filter's program; 0: none, or classic BPF
};

// The filters of the interface's clsact, in the order in which packets meet them. Chains that only
// another filter leads to are left out. Nothing on failure; empty where there is no clsact.
[[nodiscard]] std::optional<std::vector<TcFilter>> tc_filters(unsigned ifindex, bool egress);

}  // namespace l7mark
