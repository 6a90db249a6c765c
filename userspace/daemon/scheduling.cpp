// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/scheduling.hpp"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "util/log.hpp"

namespace l7mark {

namespace {

// struct sched_attr of linux/sched/types.h, in its first size (48 bytes): that header and the C
// library's sched.h define the same names.
struct SchedulingAttributes {
  std::uint32_t size;
  std::uint32_t policy;
  std::uint64_t flags;
  std::int32_t nice;
  std::uint32_t priority;
  std::uint64_t runtime;  // SCHED_OTHER: the slice, ns
  std::uint64_t deadline;
  std::uint64_t period;
};
static_assert(sizeof(SchedulingAttributes) == 48);

}  // namespace

void ask_for_short_slices() {
  // The least that the kernel takes; its own choice is a few milliseconds, which is what an answer
  // would wait for on a CPU that somebody else keeps busy.
  constexpr std::uint64_t kSliceNs = 100'000;
  SchedulingAttributes attributes{};
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) != 0) return;
  // A real-time policy is the administrator's choice, and better.
  if (attributes.policy != SCHED_OTHER) return;
  attributes.runtime = kSliceNs;
  if (syscall(SYS_sched_setattr, 0, &attributes, 0) != 0)
    log_debug("no short time slices: {}", std::strerror(errno));
}

}  // namespace l7mark
