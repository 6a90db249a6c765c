// SPDX-License-Identifier: GPL-2.0-only
// nftables sets `ipv4_addr . inet_proto . inet_service . ipv4_addr` and their IPv6 siblings:
//   nft add rule inet fw forward ip daddr . meta l4proto . th dport . ip saddr @zoom …
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "publish/netlink.hpp"
#include "publish/outcome.hpp"

namespace l7mark {

enum class NftFamily : std::uint8_t { inet, ip, ip6 };
[[nodiscard]] std::string_view to_string(NftFamily family);
[[nodiscard]] std::optional<NftFamily> parse_nft_family(std::string_view text);

struct NftSpec {
  NftFamily family = NftFamily::inet;
  std::string table;
  std::string set;
  bool ipv6 = false;
  std::uint32_t timeout = 0;  // seconds, the set's default; 0: a set without timeouts
  std::uint32_t size = 0;     // most elements; 0: no limit
  bool create_table = false;  // make the table if it is missing
  bool ours = false;          // an earlier run of ours made the set (state kept by the caller)

  friend bool operator==(const NftSpec&, const NftSpec&) = default;
  [[nodiscard]] std::string full_name() const;  // "inet fw zoom"
};

// The sets behind a name of the policy: IPv4 under the name, IPv6 with "6" appended. A table of
// family ip or ip6 has only its own.
Result<std::vector<NftSpec>> nft_pair(const NftSpec& spec);

// A set as the kernel describes it.
struct NftHeader {
  std::uint32_t key_type = 0;  // as nft(8) numbers types, 6 bits a field
  std::uint32_t key_length = 0;
  std::uint32_t flags = 0;       // NFT_SET_*
  std::uint64_t handle = 0;      // unique within its table
  std::uint64_t timeout_ms = 0;  // default of its elements
};
[[nodiscard]] std::string nft_difference(const NftSpec& spec, const NftHeader& found);

// Only protocols with ports where `th dport` looks for them: TCP, UDP, UDPLITE, SCTP, DCCP.
[[nodiscard]] bool nft_holds(std::uint8_t protocol);

class Nft {
 public:
  static Result<Nft> open();

  // As Ipset::ensure, for table and set.
  Result<Ensured> ensure(const NftSpec& spec);

  // In transactions of many elements; if one is refused, the transaction is split until the rest
  // is in. An element that exists keeps its timeout: see refresh().
  WriteOutcome add(const NftSpec& spec, std::span<const SetEntry> entries);
  // Gives elements a new timeout, adding those that are missing. Kernels before 6.12 cannot change
  // a timeout in place: so add (makes sure that it exists), delete and add, in one transaction, and
  // a packet sees the element at any time. Its counters begin anew.
  WriteOutcome refresh(const NftSpec& spec, std::span<const SetEntry> entries);
  // Elements that do not exist are no failure.
  WriteOutcome remove(const NftSpec& spec, std::span<const SetEntry> entries);
  Result<bool> contains(const NftSpec& spec, const SetEntry& entry);
  Result<std::optional<NftHeader>> header(const NftSpec& spec);

  // Both are refused for a set that ensure() did not create. destroy() also takes the table away,
  // if ensure() made it and nothing else is in it.
  Status flush(const NftSpec& spec);
  Status destroy(const NftSpec& spec);
  [[nodiscard]] bool created(const NftSpec& spec) const {
    return created_.contains(spec.full_name());
  }

  [[nodiscard]] NetlinkSocket& socket() { return socket_; }

 private:
  enum class Change : std::uint8_t { add, refresh, remove };
  explicit Nft(NetlinkSocket socket) : socket_(std::move(socket)) {}
  WriteOutcome write(Change change, const NftSpec& spec, std::span<const SetEntry> entries);
  int transact(Change change, const NftSpec& spec, std::span<const SetEntry> entries,
               std::span<const std::size_t> chosen, std::string& text, bool& lost);
  Status transact_one(NetlinkBatch& batch, const char* operation, const std::string& object);
  Result<std::uint32_t> generation();
  Status destroy_set(const NftSpec& spec);
  Status destroy_table_if_empty(const NftSpec& spec);

  NetlinkSocket socket_;
  // A set of ours is known by its handle and its table's, so that what someone else made under the
  // same name is not taken for it.
  struct Made {
    std::uint64_t table = 0;
    std::uint64_t set = 0;
    friend bool operator==(const Made&, const Made&) = default;
  };
  std::map<std::string, Made> created_;                  // by full name
  std::map<std::string, std::uint64_t> created_tables_;  // "inet fw" to handle
};

}  // namespace l7mark
