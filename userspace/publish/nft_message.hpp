// SPDX-License-Identifier: GPL-2.0-only
// nf_tables' netlink messages (linux/netfilter/nf_tables.h), by libnftnl: no socket in here.
#pragma once

#include <linux/netlink.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "publish/netlink.hpp"
#include "publish/nft.hpp"

namespace l7mark::nft_message {

// Errors of the kernel; `text` is its extended acknowledgement.
[[nodiscard]] Error error(std::string operation, const std::string& object, int code,
                          const std::string& text);

// The key as in the kernel's registers: each field is padded to four bytes.
struct Key {
  std::array<std::uint8_t, 40> bytes{};
  std::uint32_t length = 0;  // 16 or 40
};
[[nodiscard]] Key key_of(const SetEntry& entry, bool ipv6);
// nft(8)'s number of `ipv4_addr . inet_proto . inet_service . ipv4_addr` or its sibling.
[[nodiscard]] std::uint32_t key_type(bool ipv6);
[[nodiscard]] std::uint8_t family_number(NftFamily family);  // NFPROTO_*

// A transaction: begin, changes, end. With `generation` it fails (ERESTART) if anything in the
// ruleset has changed since that one.
void begin(NetlinkBatch& batch, std::uint32_t sequence, std::optional<std::uint32_t> generation);
void end(NetlinkBatch& batch, std::uint32_t sequence);

void new_table(NetlinkBatch& batch, std::uint32_t sequence, const NftSpec& spec);
void delete_table(NetlinkBatch& batch, std::uint32_t sequence, const NftSpec& spec);
void new_set(NetlinkBatch& batch, std::uint32_t sequence, const NftSpec& spec);
// By handle, so that a set of the same name that someone made since is safe.
void delete_set(NetlinkBatch& batch, std::uint32_t sequence, const NftSpec& spec,
                std::uint64_t handle);
void flush_set(NetlinkBatch& batch, std::uint32_t sequence, const NftSpec& spec);

// Most elements that one message holds: a nested attribute ends at 64 KB.
inline constexpr std::size_t kElementsPerMessage = 512;
inline constexpr std::size_t kElementBytes = 112;
// The elements entries[chosen[…]]; at most kElementsPerMessage.
void elements(NetlinkBatch& batch, std::uint32_t sequence, bool deletion, const NftSpec& spec,
              std::span<const SetEntry> entries, std::span<const std::size_t> chosen);

// Questions, answered without a transaction.
void get_set(NetlinkBatch& batch, std::uint32_t sequence, const NftSpec& spec);
void get_table(NetlinkBatch& batch, std::uint32_t sequence, const NftSpec& spec);
void get_element(NetlinkBatch& batch, std::uint32_t sequence, const NftSpec& spec,
                 const SetEntry& entry);
void get_generation(NetlinkBatch& batch, std::uint32_t sequence);

struct Table {
  std::uint64_t handle = 0;  // never given twice in a network namespace, unlike that of a set
  std::uint32_t use = 0;     // chains, sets, objects and flow tables in it
};
[[nodiscard]] std::optional<NftHeader> parse_set(const nlmsghdr* reply);
[[nodiscard]] std::optional<Table> parse_table(const nlmsghdr* reply);
[[nodiscard]] std::optional<std::uint32_t> parse_generation(const nlmsghdr* reply);

}  // namespace l7mark::nft_message
