// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <functional>
#include <string>

#include "util/result.hpp"

namespace l7mark {

// Moves the calling thread into a network namespace, named as by ip-netns(8) or by a path such as
// /proc/PID/ns/net. Nothing else changes: files, bpffs included, stay the same.
Status enter_network_namespace(const std::string& name);

// Tells the calling thread's network namespace from all others: by its cookie, which is never given
// twice, or where the kernel has none (before 5.14), by inode and device, "4026531840-4".
[[nodiscard]] std::string network_namespace_id();

enum class NamespaceSearch {
  found,
  gone,    // no process is in it or has it open, and no mount holds it
  hidden,  // not found, but not all processes may be looked at
};
// Calls in the namespace of that id, on a thread of its own, if it is found.
NamespaceSearch in_network_namespace(const std::string& id, const std::function<void()>& call);

}  // namespace l7mark
