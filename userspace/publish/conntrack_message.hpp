// SPDX-License-Identifier: GPL-2.0-only
// ctnetlink's messages (linux/netfilter/nfnetlink_conntrack.h), as bytes: no socket in here.
#pragma once

#include <linux/netlink.h>

#include <cstdint>
#include <optional>

#include "publish/conntrack.hpp"

namespace l7mark::conntrack_message {

// Most bytes of a message that put_change() makes.
inline constexpr std::size_t kChangeBytes = 320;

[[nodiscard]] ConntrackTuple reversed(const ConntrackTuple& tuple);
[[nodiscard]] bool is_icmp(std::uint8_t protocol);
// The tracker of this protocol tells flows apart by ports as l7mark does.
[[nodiscard]] bool has_ports(std::uint8_t protocol);

nlmsghdr* put_change(void* at, std::uint32_t sequence, const ConntrackTuple& tuple,
                     const ConntrackChange& change);
// Asks for the entries whose original direction is between these two addresses with this protocol.
// The kernel filters coarsely (CTA_FILTER, Linux 5.8): others may come too.
nlmsghdr* put_dump(void* at, std::uint32_t sequence, const ConntrackTuple& tuple);
// Nothing if a direction is missing.
[[nodiscard]] std::optional<ConntrackEntry> parse_entry(const nlmsghdr* message);
// The event that an entry is gone.
[[nodiscard]] bool is_destroyed(const nlmsghdr* message);

}  // namespace l7mark::conntrack_message
