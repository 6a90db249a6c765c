// SPDX-License-Identifier: GPL-2.0-only
// Service memory, and how promises compare with answers. A service is a client, a server, its port
// and the protocol; what its flows were, by their own answers, is promised to the next one's first
// packet.
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "daemon/core.hpp"
#include "util/clock.hpp"
#include "util/keyed_hash.hpp"
#include "util/log.hpp"

namespace l7mark {

namespace {

// DNS, DNS over TLS, multicast DNS. One flow there names many servers, none of which it is.
constexpr std::uint16_t kDnsPorts[] = {53, 853, 5353};
// Mixed services that `status` names at most.
constexpr std::size_t kMixedNamed = 16;

bool is_dns_port(std::uint16_t port) {
  return std::find(std::begin(kDnsPorts), std::end(kDnsPorts), port) != std::end(kDnsPorts);
}

l7m_service_key service_key(const FlowKey& key, int client) {
  l7m_service_key out{};
  const int server = client ^ 1;
  std::memcpy(out.server, key.raw.addr[server], sizeof(out.server));
  std::memcpy(out.client, key.raw.addr[client], sizeof(out.client));
  out.port = key.raw.port[server];
  out.protocol = key.raw.protocol;
  return out;
}

Address address_of(const __be32 (&bytes)[4]) {
  Address out;
  std::memcpy(out.bytes.data(), bytes, out.bytes.size());
  return out;
}

}  // namespace

std::size_t Core::ServiceHash::operator()(const l7m_service_key& key) const {
  return keyed_hash({reinterpret_cast<const char*>(&key), sizeof(key)});
}

bool Core::SameService::operator()(const l7m_service_key& a,
                                   const l7m_service_key& b) const noexcept {
  return std::memcmp(&a, &b, sizeof(a)) == 0;
}

bool Core::is_dns(const FlowKey& key, const Flow& flow) const {
  if (is_dns_port(key.port(0)) || is_dns_port(key.port(1))) return true;
  const Finding& found = flow.found();
  for (const std::uint16_t application : {found.application, found.master}) {
    const std::string name = names_.catalog.application_name(application);
    if (name == "DNS" || name == "MDNS" || name == "LLMNR") return true;
  }
  return false;
}

// A flow that has spoken for itself teaches its service once. Packets both ways, because anybody
// can send one packet in another's name; a connection that was reset may be the answer to such a
// one.
void Core::teach_service(const FlowKey& key, Flow& flow) {
  if (flow.taught || !flow.own_answer() || flow.state != FlowState::final) return;
  if (!policy_->first_packet.services || policy_->classes.empty()) return;
  if (flow.total.packets[0] == 0 || flow.total.packets[1] == 0) return;
  flow.taught = true;
  if ((flow.flags & L7M_FLOW_RST) != 0 || is_dns(key, flow)) return;
  const l7m_service_key name = service_key(key, flow.client);
  const std::uint64_t ms = now_ms();
  auto known = service_index_.find(name);
  if (known == service_index_.end()) {
    while (service_list_.size() >= policy_->limits.services) forget_service(service_list_.begin());
    service_list_.emplace_back();
    known = service_index_.emplace(name, std::prev(service_list_.end())).first;
    Service& fresh = *known->second;
    fresh.key = name;
    fresh.action = flow.action;
  } else {
    // By the time of the last answer, the oldest first.
    service_list_.splice(service_list_.end(), service_list_, known->second);
  }
  Service& service = *known->second;
  if (service.action != flow.action) service.mixed_until_ms = ms + service_life_ms();
  service.action = flow.action;
  service.taught_ms = ms;
  service.ifindex = flow.ifindex;
  service.vlan = flow.vlan;
  std::copy(std::begin(flow.client_mac), std::end(flow.client_mac), service.client_mac);
  flows_.share_finding(service.finding, flow.finding);
  promise_service(service);
}

std::uint64_t Core::service_life_ms() const {
  return std::uint64_t{policy_->first_packet.timeout} * 1000;
}

// Tells the kernel what the service promises now, unless it was told the same a moment ago.
void Core::promise_service(Service& service) {
  const std::uint64_t ms = now_ms();
  const bool promises = service.action != 0 && ms >= service.mixed_until_ms;
  const std::uint32_t action = promises ? service.action : 0;
  // A tenth of its life: then it is to live longer.
  const bool recent = ms < service.written_ms + service_life_ms() / 10;
  if (action == service.written_action && (action == 0 || recent)) return;
  const auto now = recent_clock();
  if (!now) return;
  l7m_promise promise{};
  promise.action = ActionTable::index(action, FlowState::provisional);
  if (service.finding != nullptr) {
    promise.application = service.finding->application;
    promise.master = service.finding->master;
  }
  const std::uint64_t until = service.taught_ms + service_life_ms();
  promise.expires = promises && until > ms ? jiffies_.later(*now, until - ms) : 0;
  const std::uint64_t recheck_ms = std::uint64_t{policy_->first_packet.recheck} * 1000;
  if (actions_.effective(action).drop)
    promise.next_pass = jiffies_.later(
        *now, service.taught_ms + recheck_ms > ms ? service.taught_ms + recheck_ms - ms : 0);
  services_.push_back({service.key, promise});
  service.written_action = action;
  service.written_ms = ms;
}

void Core::forget_service(std::list<Service>::iterator service) {
  if (service->written_action != 0) {
    service->action = 0;
    promise_service(*service);
  }
  flows_.share_finding(service->finding, nullptr);
  service_index_.erase(service->key);
  service_list_.erase(service);
}

// Only an answer keeps a service: neither silence nor a promise does.
void Core::age_services() {
  const std::uint64_t ms = now_ms();
  while (!service_list_.empty() && service_list_.front().taught_ms + service_life_ms() <= ms)
    forget_service(service_list_.begin());
}

// By the policy as it is now. The kernel's promises have other numbers, or none.
void Core::rematch_services() {
  if (!policy_->first_packet.services || policy_->classes.empty()) {
    while (!service_list_.empty()) forget_service(service_list_.begin());
    return;
  }
  for (Service& service : service_list_) {
    FlowFacts facts;
    facts.client = address_of(service.key.client);
    facts.server = address_of(service.key.server);
    facts.server_port = __builtin_bswap16(service.key.port);
    facts.protocol = service.key.protocol;
    if (service.finding != nullptr) service.finding->tell(facts);
    facts.ifindex = service.ifindex;
    facts.vlan = service.vlan;
    std::copy(std::begin(service.client_mac), std::end(service.client_mac), facts.client_mac);
    const auto id = actions_.intern(matcher_->match(facts, FlowState::final, wall_now()));
    service.action = id ? *id : 0;
    service.written_ms = 0;
    promise_service(service);
  }
}

std::uint32_t Core::service_action(const FlowKey& key, const Flow& flow) const {
  const auto known = service_index_.find(service_key(key, flow.client));
  if (known == service_index_.end()) return 0;
  const Service& service = *known->second;
  return now_ms() < service.mixed_until_ms ? 0 : service.action;
}

// --- promises and answers --------------------------------------------------------------------

Source Core::promised_by(const Flow& flow) {
  // The last flow of the same ports was one of the service, too.
  if ((flow.flags & (L7M_FLOW_SERVICE | L7M_FLOW_KEPT)) != 0) return Source::service;
  if ((flow.flags & L7M_FLOW_HINT) != 0) return Source::dns;
  if ((flow.flags & L7M_FLOW_HEADERS) != 0) return Source::headers;
  return Source::none;
}

// What the flow's first packet was given, as long as nothing of it has been edited.
void Core::note_promise(const FlowKey& key, Flow& flow) {
  const auto candidate = dataplane_.candidate(key);
  if (!candidate || candidate->flow_id != flow.id) return;
  constexpr std::uint16_t kTold =
      L7M_FLOW_SERVICE | L7M_FLOW_HINT | L7M_FLOW_HEADERS | L7M_FLOW_PROBE | L7M_FLOW_KEPT;
  flow.flags |= static_cast<std::uint16_t>(candidate->flags & kTold);
  if (promised_by(flow) == Source::none) return;
  const std::uint32_t id = ActionTable::id_of_index(candidate->action);
  if (actions_.effective(id).classes.empty())
    renew_promise(key, flow);  // let through to look again, or met before the policy changed
  else
    flow.promised = static_cast<std::uint16_t>(id);
}

void Core::renew_promise(const FlowKey& key, Flow& flow) {
  flow.promised = 0;
  if (promised_by(flow) == Source::service)
    flow.promised = static_cast<std::uint16_t>(service_action(key, flow));
  if (promised_by(flow) == Source::headers)
    flow.promised = static_cast<std::uint16_t>(headers_action(facts_of(key, flow)));
}

// Compares the flow's own answer with what was promised. Where a second look finds one, the flow
// was counted as without before.
void Core::weigh_promise(const FlowKey& key, const Flow& flow, FlowState before) {
  if (flow.promised == 0) return;
  const Source source = promised_by(flow);
  PromiseCounters& count = counters_.promises[static_cast<std::size_t>(source)];
  if (flow.state == FlowState::guessed) ++count.absent;
  if (flow.state != FlowState::final) return;
  if (before == FlowState::guessed) --count.absent;
  const bool same =
      actions_.effective(flow.promised).classes == actions_.effective(flow.action).classes;
  ++(same ? count.confirmed : count.corrected);
  if (!same && source == Source::dns)
    hint_contradicted(key.address(flow.client ^ 1), key.address(flow.client));
}

void Core::tell_services(nlohmann::ordered_json& out) const {
  const std::uint64_t ms = now_ms();
  std::size_t promising = 0, mixed = 0;
  nlohmann::ordered_json named = nlohmann::ordered_json::array();
  for (const Service& service : service_list_) {
    if (ms >= service.mixed_until_ms) {
      promising += service.action != 0 ? 1 : 0;
      continue;
    }
    if (++mixed > kMixedNamed) continue;
    named.push_back({{"client", address_of(service.key.client).to_string()},
                     {"server", address_of(service.key.server).to_string()},
                     {"port", __builtin_bswap16(service.key.port)},
                     {"proto", protocol_name(service.key.protocol)}});
  }
  out["known"] = service_list_.size();
  out["promising"] = promising;
  out["mixed"] = mixed;
  out["mixed_first"] = std::move(named);
}

}  // namespace l7mark
