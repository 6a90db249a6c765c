// SPDX-License-Identifier: GPL-2.0-only
// What the daemon asks of the scheduler.
#pragma once

namespace l7mark {

// Short time slices for the calling thread and what it starts: it is let on to a busy CPU sooner,
// for the same share of it. From Linux 6.12 on; without effect before, and where it is refused.
void ask_for_short_slices();

}  // namespace l7mark
