// SPDX-License-Identifier: GPL-2.0-only
#include "plan.hpp"

#include <array>

namespace l7mark::robust {

namespace {

constexpr std::array<ClassFacts, 4> kFacts = {{
    {"www.alpha.test", 1, "198.51.100.10", "2001:db8:5::10"},
    {"www.beta.test", 2, "198.51.100.11", "2001:db8:5::11"},
    {"www.plain.test", 0, "198.51.100.12", "2001:db8:5::12"},
    {"www.banned.test", 0, "198.51.100.13", "2001:db8:5::13"},
}};

Flow make_flow(unsigned number, Class which, bool fresh, unsigned first_port) {
  Flow flow;
  flow.number = number;
  flow.which = which;
  flow.fresh = fresh;
  const bool v4 = number / 4 % 2 == 0;
  flow.tls = number / 8 % 3 == 2;
  flow.client = {client_address(number / 2 % kClients, v4),
                 static_cast<std::uint16_t>(first_port + number)};
  const ClassFacts& of = facts(which);
  flow.server = {*Address::parse(v4 ? of.server4 : of.server6),
                 static_cast<std::uint16_t>(flow.tls ? 443 : 80)};
  return flow;
}

}  // namespace

const ClassFacts& facts(Class which) {
  return kFacts[static_cast<std::size_t>(which)];
}

Address client_address(unsigned number, bool v4) {
  const std::string last = std::to_string(11 + number);
  return *Address::parse((v4 ? "10.77.1." : "fd77:1::") + last);
}

std::vector<Flow> make_plan(const PlanOptions& options) {
  std::vector<Flow> out;
  const auto add = [&](Class which, bool fresh) {
    out.push_back(make_flow(static_cast<unsigned>(out.size()), which, fresh, options.first_port));
  };
  for (unsigned i = 0; i < options.old_flows; ++i) add(static_cast<Class>(i % 3), false);
  for (unsigned i = 0; i < options.old_banned; ++i) add(Class::banned, false);
  for (unsigned i = 0; i < options.fresh_flows; ++i)
    add(i % 6 == 5 ? Class::banned : static_cast<Class>(i % 3), true);
  return out;
}

}  // namespace l7mark::robust
