// SPDX-License-Identifier: GPL-2.0-only
#include "util/netns.hpp"

#include <fcntl.h>
#include <sched.h>

#include "util/fd.hpp"

namespace l7mark {

Status enter_network_namespace(const std::string& name) {
  const bool is_path = name.find('/') != std::string::npos;
  const std::string path = is_path ? name : "/run/netns/" + name;
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return error_from_errno("enter network namespace", name, "`ip netns list` shows them");
  if (setns(fd.get(), CLONE_NEWNET) != 0)
    return error_from_errno("enter network namespace", name, "needs root or CAP_SYS_ADMIN");
  return success();
}

}  // namespace l7mark
