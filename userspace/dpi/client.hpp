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
// prefixes of the clients' side.
//
// A SYN or SYN-ACK tells. A TCP flow that was under way is judged by its ports, and by who is
// inside where they tell nothing. UDP has no such flag, and who sends first is the client, but for
// one case: what comes in from a port of a service to one that only clients have is an answer.
[[nodiscard]] int client_of(const FlowKey& key, int initiator, std::uint16_t flags,
                            std::span<const Prefix> inside);

}  // namespace l7mark
