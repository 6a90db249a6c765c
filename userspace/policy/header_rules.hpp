// SPDX-License-Identifier: GPL-2.0-only
// The part of a policy that a flow's first packet can tell: classes by addresses, server ports,
// transports and interfaces, compiled into rules that the kernel looks up as bits of a mask.
#pragma once

#include <l7mark/types.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "policy/matcher.hpp"
#include "policy/policy.hpp"
#include "policy/prefix_set.hpp"
#include "policy/schedule.hpp"
#include "util/address.hpp"

namespace l7mark {

// By table of the kernel's map `header_prefixes`.
enum class HeaderTable : std::uint8_t {
  client = L7M_HEADER_CLIENT,
  server = L7M_HEADER_SERVER,
  port = L7M_HEADER_PORT,
  transport = L7M_HEADER_TRANSPORT,
  interface = L7M_HEADER_INTERFACE,
};

// What a rule is looked up by.
struct HeaderPoint {
  Address client{};
  Address server{};
  std::uint16_t server_port = 0;
  std::uint8_t protocol = 0;  // IPPROTO_*
  std::uint32_t ifindex = 0;
};
[[nodiscard]] HeaderPoint header_point(const FlowFacts& facts);

using HeaderMask = std::array<std::uint64_t, L7M_HEADER_WORDS>;  // a bit a rule

// Rules that hold within this prefix of the table's keys and within no longer one.
struct HeaderEntry {
  HeaderTable table = HeaderTable::client;
  std::uint8_t length = 0;  // bits of key
  std::array<std::uint8_t, 16> key{};
  HeaderMask rules{};
};

// A product of conditions; a flow has the lowest exact rule that holds.
struct HeaderRule {
  // Exact: these are the flow's classes, none if it is exempt, unless a rule in front that is not
  // exact comes true. Not exact: an exemption or a class that detection may still find.
  bool exact = false;
  ClassList classes;
  // Numbers of conditions, ascending: twice a condition's index, and one more where it must fail.
  std::vector<std::uint16_t> literals;
};

struct HeaderMatch {
  ClassList classes;
  bool certain = false;  // whatever detection finds
};

class HeaderRules {
 public:
  // `in_schedule` by class, as PolicyMatcher::in_schedule() tells it: the others are left out.
  HeaderRules(const Policy& policy, const std::vector<bool>& in_schedule);

  [[nodiscard]] const std::vector<HeaderRule>& rules() const { return rules_; }
  // False: no first packet tells anything, and there is nothing to look up.
  [[nodiscard]] bool any_exact() const;
  [[nodiscard]] bool uses_interfaces() const;

  // As the kernel does it. Nothing: no exact rule holds.
  [[nodiscard]] std::optional<HeaderMatch> find(const HeaderPoint& point) const;

  // A name that is not given matches nothing. Call it again when interfaces come and go.
  void set_interfaces(const std::vector<std::pair<std::string, std::uint32_t>>& indexes);

  // For the kernel's map: the longest entry of each table that holds a packet's key has the mask
  // of the rules that the table leaves. Each table has one of length 0.
  [[nodiscard]] std::vector<HeaderEntry> entries() const;

  // Classes that could act on the first packet, but were too much for the rules, and why.
  [[nodiscard]] const std::vector<std::pair<std::uint16_t, std::string>>& left_out() const {
    return left_out_;
  }

 private:
  class Compiler;

  // One condition of a match, on the key of one table.
  struct Condition {
    HeaderTable table = HeaderTable::client;
    std::vector<Prefix> prefixes{};
    std::vector<PortRange> ports{};
    std::vector<std::uint8_t> transports{};
    std::uint8_t ip_version = 0;
    std::vector<std::string> interfaces{};
    PrefixSet prefix_set{{}};  // of `prefixes`
    std::vector<std::uint32_t> ifindexes{};
    [[nodiscard]] bool same_as(const Condition& other) const;
    [[nodiscard]] bool holds(const HeaderPoint& point) const;
  };
  using Truths = std::vector<bool>;  // by condition

  [[nodiscard]] HeaderMask mask(HeaderTable table, const Truths& truths) const;
  void add_prefixes(HeaderTable table, std::vector<HeaderEntry>& out) const;
  void add_ports(std::vector<HeaderEntry>& out) const;
  void add_transports(std::vector<HeaderEntry>& out) const;
  void add_interfaces(std::vector<HeaderEntry>& out) const;

  std::vector<Condition> conditions_;
  std::vector<HeaderRule> rules_;
  std::vector<std::pair<std::uint16_t, std::string>> left_out_;
  std::vector<std::pair<std::string, std::uint32_t>> interfaces_;
};

}  // namespace l7mark
