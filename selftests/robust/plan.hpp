// SPDX-License-Identifier: GPL-2.0-only
// Which flows the honest client has, known beforehand to those who attack them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "util/address.hpp"

namespace l7mark::robust {

enum class Class : std::uint8_t { alpha, beta, plain, banned };

struct ClassFacts {
  const char* host;     // of every request
  std::uint8_t mark;    // 0: none
  const char* server4;  // one class's, so that nobody's address is of two
  const char* server6;
};

[[nodiscard]] const ClassFacts& facts(Class which);

struct Endpoint {
  Address address;
  std::uint16_t port = 0;
};

struct Flow {
  unsigned number = 0;
  Class which = Class::alpha;
  bool tls = false;
  bool fresh = false;  // begun during the attack
  Endpoint client, server;

  [[nodiscard]] bool banned() const { return which == Class::banned; }
  [[nodiscard]] bool v4() const { return client.address.is_v4(); }
};

struct PlanOptions {
  unsigned old_flows = 200;    // of classes that pass
  unsigned old_banned = 50;    // of the class that is dropped
  unsigned fresh_flows = 600;  // the most that can be begun
  unsigned first_port = 20000;
};

// The same for everybody who gives the same options. Numbers count from 0.
[[nodiscard]] std::vector<Flow> make_plan(const PlanOptions& options);

constexpr unsigned kClients = 8;  // addresses of the client's
[[nodiscard]] Address client_address(unsigned number, bool v4);

}  // namespace l7mark::robust
