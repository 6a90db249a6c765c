// SPDX-License-Identifier: GPL-2.0-only
// A flow's name that l7mark's record and what ndpiReader prints have in common.
#pragma once

#include <string>

namespace l7mark {

// ndpiReader 4.2 prints "::" for the first ":0:" of an IPv6 address whether or not there is one
// already, so some of its addresses are none. Both sides go through the same change.
[[nodiscard]] std::string plain_address(const std::string& address);

// One for both directions, so that a flow is found whoever is shown first.
[[nodiscard]] std::string flow_key(unsigned protocol, const std::string& src, unsigned sport,
                                   const std::string& dst, unsigned dport);

}  // namespace l7mark
