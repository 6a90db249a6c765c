/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The contract between the programs in the kernel and userspace, all of it: maps, records of the
 * ring buffers, and what userspace asks of programs. Headers for BPF C, C11 and C++20;
 * selftests/unit/contract* compiles them in all three.
 */
#ifndef L7MARK_TYPES_H
#define L7MARK_TYPES_H

#include <l7mark/control.h>
#include <l7mark/maps.h>
#include <l7mark/records.h>

#endif /* L7MARK_TYPES_H */
