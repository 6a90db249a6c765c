// SPDX-License-Identifier: GPL-2.0-only
// TCP that looks like nothing from its first byte on, by the rules that Wu and others found ("How
// the Great Firewall of China Detects and Blocks Fully Encrypted Traffic", USENIX Security 2023):
// Shadowsocks, VMess, obfs4 and their like, and some other encrypted protocols as well. A hint, not
// an application: it is told as a risk (dpi/own_risks.hpp).
#pragma once

#include <cstdint>
#include <span>

namespace l7mark {

// Of a flow's first payload from the client, as far as it was copied: false if one of the paper's
// exemptions holds. A payload of a few bytes says nothing, and is exempt.
[[nodiscard]] bool is_fully_encrypted(std::span<const std::uint8_t> payload);

}  // namespace l7mark
