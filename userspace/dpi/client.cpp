// SPDX-License-Identifier: GPL-2.0-only
#include "dpi/client.hpp"

#include <l7mark/types.h>
#include <netinet/in.h>

#include <algorithm>

namespace l7mark {
namespace {

// System ports, registered ports, and those that clients are given: RFC 6335, section 6, but from
// where Linux begins (net.ipv4.ip_local_port_range). A service's port is the lower.
int rank_of(std::uint16_t port) {
  if (port < 1024) return 0;
  return port < 32768 ? 1 : 2;
}

bool holds(std::span<const Prefix> prefixes, const Address& address) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](const Prefix& prefix) { return prefix.contains(address); });
}

}  // namespace

int client_of(const FlowKey& key, int initiator, std::uint16_t flags,
              std::span<const Prefix> inside) {
  const int other = 1 - initiator;
  if ((flags & L7M_FLOW_ANSWER) != 0) return other;
  const bool udp = key.raw.protocol == IPPROTO_UDP;
  if (!udp && (flags & L7M_FLOW_MIDSTREAM) == 0) return initiator;
  const int sender = rank_of(key.port(initiator));
  const int receiver = rank_of(key.port(other));
  if (udp && (sender >= receiver || receiver != 2)) return initiator;
  if (!udp && sender != receiver) return sender < receiver ? other : initiator;
  return !holds(inside, key.address(initiator)) && holds(inside, key.address(other)) ? other
                                                                                     : initiator;
}

}  // namespace l7mark
