// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <string>

#include "util/result.hpp"

namespace l7mark {

// Moves the calling thread into a network namespace, named as by ip-netns(8) or by a path such as
// /proc/PID/ns/net. Nothing else changes: files, bpffs included, stay the same.
Status enter_network_namespace(const std::string& name);

}  // namespace l7mark
