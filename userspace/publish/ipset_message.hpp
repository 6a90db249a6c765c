// SPDX-License-Identifier: GPL-2.0-only
// ipset's netlink messages (linux/netfilter/ipset/ip_set.h), as bytes: no socket in here.
#pragma once

#include <linux/netfilter/ipset/ip_set.h>
#include <linux/netlink.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "publish/ipset.hpp"

namespace l7mark::ipset_message {

// Errors of the kernel are named "cannot OPERATION ipset NAME: …". From 4096 on they are ipset's
// own and mean nothing to strerror().
[[nodiscard]] Error error(std::string operation, const std::string& name, int code);

struct Context {
  std::uint8_t protocol = IPSET_PROTOCOL;  // agreed version
  std::uint32_t sequence = 0;
};

// A message for `command` that names a set; more attributes may follow.
nlmsghdr* put_header(void* at, const Context& context, std::uint8_t command, std::uint16_t flags,
                     std::string_view name);
nlmsghdr* put_protocol(void* at, std::uint32_t sequence);
nlmsghdr* put_type(void* at, const Context& context, IpsetType type, bool ipv6);
nlmsghdr* put_create(void* at, const Context& context, const IpsetSpec& spec,
                     std::uint8_t revision);
// Asks for the header of one set (a dump).
nlmsghdr* put_list(void* at, const Context& context, std::string_view name);

// Most bytes that one element takes, and most that a message of elements may have.
inline constexpr std::size_t kElementBytes = 512;
inline constexpr std::size_t kMessageBytes = 32 * 1024;
inline constexpr std::size_t kElementsPerMessage = 256;

// One message with the elements from `first` on that are among `chosen` (indices into entries), as
// many as fit; `count` says how many. Each carries its place in `chosen` plus one as line number.
nlmsghdr* put_elements(void* at, const Context& context, std::uint8_t command,
                       const IpsetSpec& spec, std::span<const SetEntry> entries,
                       std::span<const std::size_t> chosen, std::size_t first,
                       const IpsetExtras& extras, std::size_t& count);
// A message about a single element, without a line number (IPSET_CMD_TEST).
nlmsghdr* put_element(void* at, const Context& context, std::uint8_t command, const IpsetSpec& spec,
                      const SetEntry& entry);

// The line number in the request that an error echoes, 0 if there is none.
[[nodiscard]] std::uint32_t error_line(const nlmsghdr* error);

struct Versions {
  std::uint8_t newest = 0;
  std::uint8_t oldest = 0;
};
// Of the replies to put_protocol() and put_type().
[[nodiscard]] std::optional<Versions> parse_versions(const nlmsghdr* reply, bool of_type);
[[nodiscard]] std::optional<IpsetHeader> parse_header(const nlmsghdr* reply);

}  // namespace l7mark::ipset_message
