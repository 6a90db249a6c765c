/* SPDX-License-Identifier: GPL-2.0-only */
/* The hook that the object is for: XDP where L7M_XDP is defined before any header, else TC. */
#ifndef L7MARK_BPF_HOOK_H
#define L7MARK_BPF_HOOK_H

#ifdef L7M_XDP
#include "hook_xdp.h"
#else
#include "hook_tc.h"
#endif

#endif /* L7MARK_BPF_HOOK_H */
