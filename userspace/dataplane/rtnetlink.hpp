// SPDX-License-Identifier: GPL-2.0-only
// The two questions about interfaces that no library of ours answers, by rtnetlink in the current
// network namespace.
#pragma once

#include <string>

namespace l7mark {

// IFLA_INFO_KIND: "veth", "tun", "wireguard"; empty for hardware, for the loopback, and on failure.
[[nodiscard]] std::string link_kind(unsigned ifindex);

// Whether the interface's clsact holds filters, of whomever, at ingress or egress. True on failure:
// the answer decides whether the clsact may be removed.
[[nodiscard]] bool has_tc_filters(unsigned ifindex);

}  // namespace l7mark
