// SPDX-License-Identifier: GPL-2.0-only
// Which endpoint of a flow is the client, where its first packet was not its first.
#pragma once

#include <cstdint>
#include <span>

#include "flow.hpp"
#include "util/address.hpp"

namespace l7mark {

// The endpoint, 0 or 1, that opened the flow, as far as can be told. `initiator` sent the first
// packet that was seen, `flags` are the candidate's or verdict's (L7M_FLOW_*), `inside` has the
// prefixes of the clients' side. l7m_client_by_ports() has the rules.
[[nodiscard]] int client_of(const FlowKey& key, int initiator, std::uint16_t flags,
                            std::span<const Prefix> inside);

}  // namespace l7mark
