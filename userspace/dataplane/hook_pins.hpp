// SPDX-License-Identifier: GPL-2.0-only
// The pins of one interface, and what they hold. Internal to attach.cpp and its hooks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/transaction.hpp"
#include "util/fd.hpp"
#include "util/result.hpp"

namespace l7mark {

// std::function must be copyable, an Fd is not.
using SharedFd = std::shared_ptr<Fd>;
[[nodiscard]] inline SharedFd share(int fd) {
  return std::make_shared<Fd>(fd);
}

// Directory of an interface's pins and back.
[[nodiscard]] std::string interface_pins(const std::string& links, const std::string& name);
[[nodiscard]] std::string interface_of_pins(const std::string& directory);

// The pin that a replacement is put aside under until all hooks are done.
[[nodiscard]] std::string aside(const std::string& pin);
// Renames `pin`, if it is there, to aside(pin); back if the transaction fails.
Status put_aside(const std::string& pin, Transaction& transaction);
// Pins; unpins if the transaction fails.
Status pin_object(int fd, const std::string& pin, Transaction& transaction);

[[nodiscard]] bool exists(const std::string& pin);
void unpin(const std::string& pin);

struct ProgramFacts {
  std::uint32_t id = 0;  // 0: none
  std::string name;      // up to 15 characters
};
[[nodiscard]] ProgramFacts program_facts(int program_fd);
// Ids of the programs pinned under `pin` and aside(pin).
[[nodiscard]] std::vector<std::uint32_t> pinned_ids(const std::string& pin);

// `code` is a positive errno; adds the remedy for missing privileges to `detail`.
[[nodiscard]] Error attach_error(std::string operation, std::string object, int code,
                                 std::string detail = {});

// Words of libbpf and libxdp go to our log at level debug from here on.
void route_library_logs();

}  // namespace l7mark
