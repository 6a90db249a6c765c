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
  const char* host;      // of every request
  std::uint8_t mark;     // 0: none
  const char* servers4;  // the first of its servers; the others follow, and are of no other class
  const char* servers6;
};

[[nodiscard]] const ClassFacts& facts(Class which);

// Somebody else's name for a server of that class: one that is dropped, or has another mark or one
// at all; the same for the same server.
[[nodiscard]] Class false_class(Class which, unsigned server);

constexpr unsigned kServers = 10;    // addresses of a class's servers
constexpr unsigned kClients = 16;    // and of the client's
constexpr unsigned kOldClients = 8;  // of them those that the flows before the attack have
[[nodiscard]] Address server_address(Class which, unsigned number, bool v4);
[[nodiscard]] Address client_address(unsigned number, bool v4);

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
  unsigned fresh_flows = 120;  // begun during the attack
  unsigned first_port = 20000;
};

// The same for everybody who gives the same options. Numbers count from 0. Every second new flow,
// and each that is dropped, is of a service that an old flow has taught.
[[nodiscard]] std::vector<Flow> make_plan(const PlanOptions& options);

}  // namespace l7mark::robust
