// SPDX-License-Identifier: GPL-2.0-only
#include "plan.hpp"

#include <array>

namespace l7mark::robust {

namespace {

constexpr std::array<ClassFacts, 4> kFacts = {{
    {"www.alpha.test", 1, "198.51.100.130", "2001:db8:5::a0"},
    {"www.beta.test", 2, "198.51.100.140", "2001:db8:5::b0"},
    {"www.plain.test", 0, "198.51.100.150", "2001:db8:5::c0"},
    {"www.banned.test", 0, "198.51.100.160", "2001:db8:5::d0"},
}};

Address plus(const char* first, unsigned number) {
  Address out = *Address::parse(first);
  out.bytes[15] = static_cast<std::uint8_t>(out.bytes[15] + number);
  return out;
}

}  // namespace

const ClassFacts& facts(Class which) {
  return kFacts[static_cast<std::size_t>(which)];
}

Class false_class(Class which, unsigned server) {
  if (which == Class::alpha) return server % 2 == 0 ? Class::banned : Class::beta;
  if (which == Class::banned) return server % 2 == 0 ? Class::beta : Class::alpha;
  return server % 2 == 0 ? Class::banned : Class::alpha;
}

Address server_address(Class which, unsigned number, bool v4) {
  return plus(v4 ? facts(which).servers4 : facts(which).servers6, number % kServers);
}

Address client_address(unsigned number, bool v4) {
  return plus(v4 ? "10.77.1.11" : "fd77:1::11", number % kClients);
}

std::vector<Flow> make_plan(const PlanOptions& options) {
  std::vector<Flow> out;
  const auto add = [&](Class which, unsigned clients) -> Flow& {
    Flow flow;
    flow.number = static_cast<unsigned>(out.size());
    flow.which = which;
    const bool v4 = flow.number / clients % 2 == 0;
    flow.tls = flow.number / clients / 2 % 3 == 2;
    flow.client = {client_address(flow.number % clients, v4),
                   static_cast<std::uint16_t>(options.first_port + flow.number)};
    // A service that is dropped lets no second flow begin: each of the old ones has its own.
    flow.server = {server_address(which, flow.number / clients, v4),
                   static_cast<std::uint16_t>(flow.tls ? 443 : 80)};
    return out.emplace_back(flow);
  };
  for (unsigned i = 0; i < options.old_flows; ++i) add(static_cast<Class>(i % 3), kOldClients);
  for (unsigned i = 0; i < options.old_banned; ++i) add(Class::banned, kOldClients);
  for (unsigned i = 0; i < options.fresh_flows; ++i) {
    const bool banned = i % 6 == 5;
    Flow& flow = add(banned ? Class::banned : static_cast<Class>(i % 3), kClients);
    flow.fresh = true;
    const unsigned old = banned ? options.old_banned : options.old_flows;
    if (old == 0 || (!banned && i % 2 != 0)) continue;
    const Flow& taught = out[(banned ? options.old_flows : 0) + i % old];
    flow.which = taught.which;
    flow.tls = taught.tls;
    flow.client.address = taught.client.address;
    flow.server = taught.server;
  }
  return out;
}

}  // namespace l7mark::robust
