// SPDX-License-Identifier: GPL-2.0-only
// ipset over netlink. Many elements go into one message (IPSET_ATTR_ADT), which costs a tenth of
// one message each.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "publish/netlink.hpp"
#include "publish/outcome.hpp"

namespace l7mark {

enum class IpsetType : std::uint8_t { ip_port_ip, ip_port, ip, net };
[[nodiscard]] std::string_view to_string(IpsetType type);  // "hash:ip,port,ip", …
[[nodiscard]] std::optional<IpsetType> parse_ipset_type(std::string_view text);

inline constexpr std::size_t kIpsetNameMax = 31;  // IPSET_MAXNAMELEN without the NUL

struct IpsetSpec {
  std::string name;
  IpsetType type = IpsetType::ip_port_ip;
  bool ipv6 = false;
  std::uint32_t timeout = 0;   // seconds, the set's default; 0: a set without timeouts
  std::uint32_t maxelem = 0;   // 0: the kernel's default, 65536
  std::uint32_t hashsize = 0;  // 0: by maxelem, see ipset_hashsize()
  bool counters = false;
  bool comment = false;
  bool skbinfo = false;
  bool ours = false;  // an earlier run of ours made it (state kept by the caller): not adopted

  friend bool operator==(const IpsetSpec&, const IpsetSpec&) = default;
};

// Buckets that a set is created with, where the policy does not say. The kernel's own default of
// 1024 is enlarged before 5,000 elements, again at each doubling, and holds all writers meanwhile.
// A bucket costs 8 bytes; the kernel rounds up to a power of two.
[[nodiscard]] std::uint32_t ipset_hashsize(const IpsetSpec& spec);

// The two kernel sets behind a name of the policy: IPv4 under the name itself, IPv6 with "6"
// appended. Fails if either name is empty or longer than 31 characters, or timeout or maxelem is
// out of range.
Result<std::pair<IpsetSpec, IpsetSpec>> ipset_pair(const IpsetSpec& spec);

// For `-j SET --map-set`: skb->mark = (skb->mark & ~mark_mask) ^ mark.
struct SkbInfo {
  std::uint32_t mark = 0;
  std::uint32_t mark_mask = 0;
  std::uint32_t classid = 0;  // major << 16 | minor, into skb->priority
  std::uint16_t queue = 0;

  friend bool operator==(const SkbInfo&, const SkbInfo&) = default;
};

// What all elements of one call carry besides their key and timeout. Each needs the set's option.
struct IpsetExtras {
  std::string comment;  // at most 255 bytes; empty for none
  std::optional<SkbInfo> skbinfo;

  friend bool operator==(const IpsetExtras&, const IpsetExtras&) = default;
};

// A set as the kernel describes it.
struct IpsetHeader {
  std::string type;  // "hash:ip,port,ip"
  bool ipv6 = false;
  bool with_timeout = false;
  std::uint32_t timeout = 0;  // seconds; may be 0 in a set with timeouts
  std::uint32_t maxelem = 0;
  std::uint32_t references = 0;  // rules and sets that use it
  std::uint32_t elements = 0;    // not counting expired ones
  bool counters = false;
  bool comment = false;
  bool skbinfo = false;
};

// In words, how `found` differs from what `spec` needs; empty if it can be used.
[[nodiscard]] std::string ipset_difference(const IpsetSpec& spec, const IpsetHeader& found);

// True if a set of this type can hold flows of the protocol. With ports: TCP, UDP, UDPLITE and SCTP
// with theirs, others with port 0 as ipset(8) has it, but not ICMP, whose type and code stand in
// the port's place and differ between the directions of one flow.
[[nodiscard]] bool ipset_holds(IpsetType type, std::uint8_t protocol);

class Ipset {
 public:
  // Opens a netlink socket and agrees on a protocol version.
  static Result<Ipset> open();

  // Creates the set, or adopts one that differs from `spec` in nothing that matters; else an Error
  // that names the difference.
  Result<Ensured> ensure(const IpsetSpec& spec);

  // Adds; elements that exist get the new timeout and extras, and keep their counters. A refused
  // element does not keep the others from being written. Refreshing is adding.
  WriteOutcome add(const IpsetSpec& spec, std::span<const SetEntry> entries,
                   const IpsetExtras& extras = {});
  // Deletes; elements that do not exist are no failure.
  WriteOutcome remove(const IpsetSpec& spec, std::span<const SetEntry> entries);
  Result<bool> contains(const IpsetSpec& spec, const SetEntry& entry);

  // Nothing if there is no such set.
  Result<std::optional<IpsetHeader>> header(const std::string& name);

  // Refused for a set that ensure() did not create.
  Status flush(const std::string& name);
  // Likewise; also if a rule still refers to it (EBUSY).
  Status destroy(const std::string& name);
  [[nodiscard]] bool created(const std::string& name) const { return created_.contains(name); }
  // The set of this name may be someone else's by now; ipset has no number that would tell.
  void disown(const std::string& name) { created_.erase(name); }

  [[nodiscard]] NetlinkSocket& socket() { return socket_; }

 private:
  explicit Ipset(NetlinkSocket socket) : socket_(std::move(socket)) {}
  WriteOutcome write(std::uint8_t command, const IpsetSpec& spec, std::span<const SetEntry> entries,
                     const IpsetExtras& extras);
  Status create(const IpsetSpec& spec);
  Status command(std::uint8_t command, const std::string& name, const char* operation);
  Result<std::uint8_t> revision(const IpsetSpec& spec);

  NetlinkSocket socket_;
  std::uint8_t protocol_ = 0;
  std::set<std::string> created_;
};

}  // namespace l7mark
