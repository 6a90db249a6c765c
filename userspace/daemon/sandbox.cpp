// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/sandbox.hpp"

#include <cap-ng.h>
#include <grp.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

namespace l7mark {

namespace {

constexpr unsigned kNobody = 65534;  // the kernel's overflow user, "nobody" on Debian

// Memory, the ring's pages, the socket to the main process, time, and dying. No open, no socket,
// no exec. The sanitizers of a test build need more than that to report and are let off.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kFilter = false;
#else
constexpr bool kFilter = true;
#endif

constexpr int kAllowed[] = {
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(writev),
    SCMP_SYS(sendto),
    SCMP_SYS(sendmsg),
    SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg),
    SCMP_SYS(close),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(brk),
    SCMP_SYS(mmap),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(mprotect),
    SCMP_SYS(madvise),
    SCMP_SYS(futex),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(tgkill),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(getrandom),
    SCMP_SYS(sched_yield),
    SCMP_SYS(newfstatat),
    SCMP_SYS(fstat),
};

Status filter_system_calls() {
  const std::unique_ptr<void, decltype(&seccomp_release)> filter(
      seccomp_init(SCMP_ACT_ERRNO(EPERM)), &seccomp_release);
  if (!filter) return Error{"set up", "the seccomp filter", ENOMEM, {}};
  for (const int call : kAllowed) {
    // A call that this architecture does not have cannot be made either.
    const int code = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, 0);
    if (code != 0 && code != -EDOM) return Error{"set up", "the seccomp filter", -code, {}};
  }
  if (const int code = seccomp_load(filter.get()); code != 0)
    return Error{"load", "the seccomp filter", -code, {}};
  return success();
}

}  // namespace

Status enter_sandbox() {
  if (geteuid() == 0) {
    if (setgroups(0, nullptr) != 0) return error_from_errno("drop", "groups");
    if (setresgid(kNobody, kNobody, kNobody) != 0) return error_from_errno("drop", "group root");
    if (setresuid(kNobody, kNobody, kNobody) != 0) return error_from_errno("drop", "user root");
  }
  capng_clear(CAPNG_SELECT_ALL);
  if (capng_apply(CAPNG_SELECT_CAPS) != 0) return Error{"drop", "capabilities", EPERM, {}};
  const rlimit none{0, 0};
  if (setrlimit(RLIMIT_CORE, &none) != 0) return error_from_errno("forbid", "core dumps");
  if (prctl(PR_SET_DUMPABLE, 0) != 0) return error_from_errno("forbid", "tracing");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return error_from_errno("forbid", "new privileges");
  return kFilter ? filter_system_calls() : success();
}

}  // namespace l7mark
