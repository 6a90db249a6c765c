// SPDX-License-Identifier: GPL-2.0-only
// The main process's word on budgets: the sources whose flows are not looked at any more, because
// as much as the policy allows has been copied of them.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "daemon/core.hpp"
#include "util/clock.hpp"
#include "util/log.hpp"

namespace l7mark {

namespace {

constexpr std::size_t kNamed = 32;

struct Refused {
  Address address;
  l7m_source source{};
};

}  // namespace

void Core::tell_budgets(nlohmann::ordered_json& out) {
  out["source_budget"] = policy_->sampling.source_budget;
  out["outside_budget"] = policy_->sampling.outside_budget;
  const auto clock = recent_clock();
  if (!clock) return;
  const std::uint32_t second = static_cast<std::uint32_t>(clock->jiffies) / jiffies_.hz();
  const std::uint64_t wall = clock_ns(CLOCK_REALTIME) / 1'000'000'000;
  // The kernel may have gone on to the next since.
  const auto age = [&](std::uint32_t then) {
    const auto passed = static_cast<std::int32_t>(second - then);
    return static_cast<std::uint32_t>(std::max(passed, 0));
  };
  const auto line = [&](const l7m_source& source) {
    nlohmann::ordered_json one;
    one["packets"] = source.packets;
    one["bytes"] = source.bytes;
    one["since"] = wall - age(source.since);
    one["last"] = wall - age(source.last);
    return one;
  };
  std::vector<Refused> refused;
  std::optional<l7m_source> outside;
  const Status walked =
      dataplane_.for_each_source([&](const Address& address, const l7m_source& source) {
        if (age(source.last) > L7M_SOURCE_FORGOTTEN) return;
        if (address == Address{})
          outside = source;
        else
          refused.push_back({address, source});
      });
  if (!walked.ok()) log_error("{}", walked.error().message());
  const std::size_t named = std::min(refused.size(), kNamed);
  std::partial_sort(
      refused.begin(), refused.begin() + static_cast<std::ptrdiff_t>(named), refused.end(),
      [](const Refused& a, const Refused& b) { return a.source.bytes > b.source.bytes; });
  out["above"] = refused.size();
  out["named"] = nlohmann::ordered_json::array();
  for (std::size_t i = 0; i < named; ++i) {
    const Address& address = refused[i].address;
    nlohmann::ordered_json one;
    one["source"] = address.is_v4() ? address.to_string() : address.to_string() + "/64";
    one.update(line(refused[i].source));
    out["named"].push_back(std::move(one));
  }
  if (outside) out["outside"] = line(*outside);
}

}  // namespace l7mark
