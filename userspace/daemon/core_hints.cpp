// SPDX-License-Identifier: GPL-2.0-only
// DNS hints: from the answers that clients got, what is promised of a server before its first byte.
#include <ifaddrs.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>

#include "daemon/core.hpp"
#include "util/clock.hpp"
#include "util/log.hpp"

namespace l7mark {

namespace {

// Promises of a name are believed so long at most, however long DNS lets them live.
constexpr std::uint64_t kLongestHintMs = 3'600'000;
constexpr std::uint64_t kShortestHintMs = 60'000;
// This machine's addresses are asked for so often at most.
constexpr std::uint64_t kOwnAddressesMs = 10'000;
// Mixed addresses that `status` names.
constexpr std::size_t kMixedShown = 8;

// Addresses that mean another host in every network, or no host. Anybody can have a name point
// there.
bool is_private(const Address& address) {
  static const std::vector<Prefix> prefixes = [] {
    std::vector<Prefix> out;
    for (const char* text : {"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8",
                             "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16",
                             "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4", "::/128", "::1/128",
                             "64:ff9b:1::/48", "100::/64", "fc00::/7", "fe80::/9", "ff00::/8"})
      if (const auto prefix = Prefix::parse(text)) out.push_back(*prefix);
    return out;
  }();
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](const Prefix& prefix) { return prefix.contains(address); });
}

std::set<Address> addresses_of_this_machine() {
  std::set<Address> out;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return out;
  for (const ifaddrs* each = list; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr) continue;
    if (each->ifa_addr->sa_family == AF_INET) {
      sockaddr_in four{};
      std::memcpy(&four, each->ifa_addr, sizeof(four));
      out.insert(Address::v4(four.sin_addr.s_addr));
    } else if (each->ifa_addr->sa_family == AF_INET6) {
      sockaddr_in6 six{};
      std::memcpy(&six, each->ifa_addr, sizeof(six));
      Address address;
      std::memcpy(address.bytes.data(), &six.sin6_addr, address.bytes.size());
      out.insert(address);
    }
  }
  freeifaddrs(list);
  return out;
}

l7m_hint_key kernel_key(const HintKey& key) {
  l7m_hint_key out{};
  std::memcpy(out.server, key.server.bytes.data(), sizeof(out.server));
  std::memcpy(out.client, key.client.bytes.data(), sizeof(out.client));
  return out;
}

}  // namespace

bool Core::may_have_hints(const Address& server) {
  const std::vector<Prefix>& allowed = policy_->first_packet.private_hints;
  if (std::any_of(allowed.begin(), allowed.end(),
                  [&](const Prefix& prefix) { return prefix.contains(server); }))
    return true;
  if (is_private(server)) return false;
  if (const std::uint64_t ms = now_ms(); ms >= own_addresses_until_ms_) {
    own_addresses_ = addresses_of_this_machine();
    own_addresses_until_ms_ = ms + kOwnAddressesMs;
  }
  return !own_addresses_.contains(server);
}

// Its DNS messages are worth reading on: they never are where its packets are dropped.
bool Core::wants_names(const Flow& flow) const {
  return policy_->first_packet.hints && !policy_->classes.empty() &&
         !actions_.effective(flow.action).drop;
}

HintKey Core::hint_key(const Address& server, const Address& client) const {
  return {server, policy_->depends_on_client() ? client : Address{}};
}

void Core::on_hint(const DnsHint& hint) {
  if (!policy_->first_packet.hints || policy_->classes.empty()) return;
  const auto now = recent_clock();
  if (!now) return;
  FlowFacts facts;
  facts.client = hint.answer.client;
  std::copy(hint.answer.client_mac.begin(), hint.answer.client_mac.end(), facts.client_mac);
  facts.ifindex = hint.answer.ifindex;
  facts.hostname = hint.answer.name;
  facts.application = hint.application;
  facts.category = names_.catalog.application_category(hint.application);
  const std::uint64_t life = std::clamp<std::uint64_t>(std::uint64_t{hint.answer.ttl} * 1000,
                                                       kShortestHintMs, kLongestHintMs);
  const std::uint64_t ms = now_ms();
  for (const Address& server : hint.answer.addresses) {
    if (!may_have_hints(server)) {
      ++counters_.hints_private;
      continue;
    }
    facts.server = server;
    const auto id = actions_.intern(matcher_->match(facts, FlowState::provisional, wall_now()));
    if (!id) continue;
    const HintKey key = hint_key(server, facts.client);
    // A name of no class is kept as well: it tells that an address is shared.
    const auto told = hints_.tell(key, *id, hint.application, ms, ms + life);
    if (told.became_mixed) ++counters_.hints_mixed;
    if (told.gone) {
      ++counters_.hints_replaced;
      dataplane_.remove_hint(kernel_key(*told.gone));
    }
    if (told.hint.mixed) {
      dataplane_.remove_hint(kernel_key(key));
      continue;
    }
    // A name is no reason to drop: the flow's own answer is.
    if (told.hint.action == 0 || actions_.effective(told.hint.action).drop) continue;
    l7m_promise promise{};
    promise.application = told.hint.application;
    promise.action = ActionTable::index(told.hint.action, FlowState::provisional);
    promise.expires = jiffies_.later(*now, told.hint.expires_ms - ms);
    write_actions();
    if (const auto status = dataplane_.put_hint(kernel_key(key), promise); !status.ok())
      log_debug("{}", status.error().message());
  }
}

// A flow that a hint marked has an answer of its own, and it is of another class.
void Core::hint_contradicted(const Address& server, const Address& client) {
  const HintKey key = hint_key(server, client);
  // Also where it was left by an earlier run, of which the table knows nothing.
  dataplane_.remove_hint(kernel_key(key));
  if (hints_.contradict(key)) ++counters_.hints_mixed;
}

void Core::expire_hints(std::uint64_t ms) {
  for (const HintKey& key : hints_.expire(ms)) dataplane_.remove_hint(kernel_key(key));
}

nlohmann::ordered_json Core::hints_status() const {
  nlohmann::ordered_json out;
  out["entries"] = hints_.size();
  out["limit"] = hints_.limit();
  out["replaced"] = counters_.hints_replaced;
  out["private"] = counters_.hints_private;
  out["mixed"] = counters_.hints_mixed;
  out["mixed_addresses"] = nlohmann::ordered_json::array();
  for (const Address& address : hints_.mixed(kMixedShown))
    out["mixed_addresses"].push_back(address.to_string());
  return out;
}

}  // namespace l7mark
