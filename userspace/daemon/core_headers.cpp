// SPDX-License-Identifier: GPL-2.0-only
// Classes that need nothing but headers: the kernel is given their rules, and flows that it marked
// by them are told at once.
#include <utility>
#include <vector>

#include "daemon/core.hpp"
#include "dpi/client.hpp"
#include "util/clock.hpp"
#include "util/log.hpp"

namespace l7mark {

namespace {

// Whatever more than the kernel's action happens to a flow of these classes.
bool has_more(const EffectiveAction& effective) {
  return !effective.ipsets.empty() || !effective.nftsets.empty() || effective.log ||
         effective.conntrack_labels.any() ||
         effective.conntrack_mark[L7M_STATE_PROVISIONAL].mask != 0;
}

std::vector<HeaderPrefix> prefixes_of(const HeaderRules& rules) {
  std::vector<HeaderPrefix> out;
  for (const HeaderEntry& entry : rules.entries()) {
    HeaderPrefix& prefix = out.emplace_back();
    prefix.table = static_cast<l7m_header_table>(entry.table);
    prefix.length = entry.length;
    prefix.key = entry.key;
    for (std::size_t i = 0; i < entry.rules.size(); ++i) prefix.mask.rules[i] = entry.rules[i];
  }
  return out;
}

}  // namespace

// By the policy, the schedules and the interfaces as they are now. Rules that cannot be given a
// number or a place are left to the flows' answers.
void Core::write_headers() {
  headers_.emplace(*policy_, matcher_->in_schedule(wall_now()));
  headers_->set_interfaces(interfaces_);
  l7m_header_rules rules{};
  const auto failed = [this](const Error& error) {
    log_warning("no class acts on first packets by their headers: {}", error.message());
    headers_.reset();
  };
  for (std::size_t i = 0; i < headers_->rules().size(); ++i) {
    const HeaderRule& rule = headers_->rules()[i];
    if (!rule.exact) continue;
    const auto id = actions_.intern(rule.classes);
    if (!id) {
      failed(id.error());
      rules = {};
      break;
    }
    const EffectiveAction& effective = actions_.effective(*id);
    const std::uint64_t bit = std::uint64_t{1} << (i % 64);
    rules.exact[i / 64] |= bit;
    if (effective.drop) rules.drops[i / 64] |= bit;
    if (has_more(effective)) rules.tells[i / 64] |= bit;
    rules.action[i] = rule.classes.empty() ? ActionTable::index(0, FlowState::undecided)
                                           : ActionTable::index(*id, FlowState::provisional);
  }
  write_actions();
  const auto prefixes = headers_ ? prefixes_of(*headers_) : std::vector<HeaderPrefix>{};
  if (const auto status = dataplane_.write_headers(prefixes, rules); !status.ok())
    failed(status.error());
}

// The number of the class that the rules give the flow now, 0 for none.
std::uint32_t Core::headers_action(const FlowFacts& facts) {
  if (!headers_) return 0;
  const auto found = headers_->find(header_point(facts));
  if (!found) return 0;
  const auto id = actions_.intern(found->classes);
  if (!id || (!found->certain && actions_.effective(*id).drop)) return 0;
  return *id;
}

// The same for a flow that is known to the kernel only, which does not keep its interface: where
// that counts, there is no class.
std::uint32_t Core::headers_action(const FlowKey& key, const l7m_candidate& candidate) {
  if (!headers_ || headers_->uses_interfaces()) return 0;
  const int client = client_of(key, candidate.initiator & 1, candidate.flags, policy_->inside) & 1;
  FlowFacts facts;
  facts.client = key.address(client);
  facts.server = key.address(client ^ 1);
  facts.server_port = key.port(client ^ 1);
  facts.protocol = key.raw.protocol;
  return headers_action(facts);
}

}  // namespace l7mark
