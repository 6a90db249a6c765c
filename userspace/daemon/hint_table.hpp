// SPDX-License-Identifier: GPL-2.0-only
// What DNS answers promise of addresses, as far as it is or may come into the kernel.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "util/address.hpp"

namespace l7mark {

struct HintKey {
  Address server;
  Address client;  // all zero: for every client
  friend auto operator<=>(const HintKey&, const HintKey&) = default;
};

struct Hint {
  std::uint64_t expires_ms = 0;
  std::uint32_t action = 0;  // number in the action table; 0 for a name of no class
  std::uint16_t application = 0;
  bool mixed = false;  // names with different classes: it promises nothing
};

// Never more than `limit` entries, whatever is in them: for a new one that which expires first
// goes. Trees, because who answers a question chooses the keys.
class HintTable {
 public:
  explicit HintTable(std::size_t limit) : limit_(limit) {}

  // One name at that address has this class, until `expires_ms` at the least.
  struct Told {
    Hint hint;                    // as it is now
    bool became_mixed = false;    // by this name
    std::optional<HintKey> gone;  // made way, and had not expired
  };
  Told tell(const HintKey& key, std::uint32_t action, std::uint16_t application,
            std::uint64_t now_ms, std::uint64_t expires_ms);

  // A flow's own answer has contradicted it. True if it promised something before.
  bool contradict(const HintKey& key);

  // Removes those that have expired and returns their keys.
  [[nodiscard]] std::vector<HintKey> expire(std::uint64_t now_ms);
  // Those of which `which` says so; they may be in the kernel still.
  template <class F>
  void forget(F&& which) {
    for (auto at = hints_.begin(); at != hints_.end();) {
      const auto here = at++;
      if (which(std::as_const(here->second))) erase(here);
    }
  }
  void clear();

  [[nodiscard]] std::size_t size() const { return hints_.size(); }
  [[nodiscard]] std::size_t limit() const { return limit_; }
  // Addresses that promise nothing because their names disagree, so many at the most.
  [[nodiscard]] std::vector<Address> mixed(std::size_t most) const;

 private:
  void erase(std::map<HintKey, Hint>::iterator at);

  std::size_t limit_;
  std::map<HintKey, Hint> hints_;
  std::set<std::pair<std::uint64_t, HintKey>> by_expiry_;
};

}  // namespace l7mark
