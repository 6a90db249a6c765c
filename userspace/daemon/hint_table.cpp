// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/hint_table.hpp"

#include <algorithm>

namespace l7mark {

HintTable::Told HintTable::tell(const HintKey& key, std::uint32_t action, std::uint16_t application,
                                std::uint64_t now_ms, std::uint64_t expires_ms) {
  Told out;
  auto at = hints_.find(key);
  if (at != hints_.end() && at->second.expires_ms <= now_ms) {
    erase(at);
    at = hints_.end();
  }
  if (at == hints_.end()) {
    if (hints_.size() >= limit_) {
      const auto [first_ms, first] = *by_expiry_.begin();
      if (first_ms > now_ms) out.gone = first;
      erase(hints_.find(first));
    }
    at = hints_.emplace(key, Hint{expires_ms, action, application, false}).first;
    by_expiry_.emplace(expires_ms, key);
    out.hint = at->second;
    return out;
  }
  Hint& hint = at->second;
  // Shared hosting: names of one address that promise different things promise nothing.
  if (hint.action != action && !hint.mixed) out.became_mixed = hint.mixed = true;
  if (expires_ms > hint.expires_ms) {
    by_expiry_.erase({hint.expires_ms, key});
    by_expiry_.emplace(expires_ms, key);
    hint.expires_ms = expires_ms;
  }
  out.hint = hint;
  return out;
}

bool HintTable::contradict(const HintKey& key) {
  const auto at = hints_.find(key);
  if (at == hints_.end() || at->second.mixed) return false;
  at->second.mixed = true;
  return true;
}

std::vector<HintKey> HintTable::expire(std::uint64_t now_ms) {
  std::vector<HintKey> out;
  while (!by_expiry_.empty() && by_expiry_.begin()->first <= now_ms) {
    out.push_back(by_expiry_.begin()->second);
    erase(hints_.find(out.back()));
  }
  return out;
}

void HintTable::clear() {
  hints_.clear();
  by_expiry_.clear();
}

std::vector<Address> HintTable::mixed(std::size_t most) const {
  std::vector<Address> out;
  for (const auto& [key, hint] : hints_) {
    if (out.size() == most) break;
    // Entries of one address follow each other.
    if (hint.mixed && (out.empty() || out.back() != key.server)) out.push_back(key.server);
  }
  return out;
}

void HintTable::erase(std::map<HintKey, Hint>::iterator at) {
  by_expiry_.erase({at->second.expires_ms, at->first});
  hints_.erase(at);
}

}  // namespace l7mark
