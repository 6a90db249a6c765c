// SPDX-License-Identifier: GPL-2.0-only
#include "dpi/client.hpp"

#include <l7mark/client.h>

#include <algorithm>

namespace l7mark {
namespace {

bool holds(std::span<const Prefix> prefixes, const Address& address) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](const Prefix& prefix) { return prefix.contains(address); });
}

}  // namespace

int client_of(const FlowKey& key, int initiator, std::uint16_t flags,
              std::span<const Prefix> inside) {
  const int other = 1 - initiator;
  switch (l7m_client_by_ports(key.raw.protocol, flags, key.port(initiator), key.port(other))) {
    case L7M_CLIENT_SENT:
      return initiator;
    case L7M_CLIENT_RECEIVED:
      return other;
    case L7M_CLIENT_INSIDE:
      break;
  }
  return !holds(inside, key.address(initiator)) && holds(inside, key.address(other)) ? other
                                                                                     : initiator;
}

}  // namespace l7mark
