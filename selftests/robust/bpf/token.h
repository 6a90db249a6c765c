/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The last bytes of every packet with payload that an honest flow, or a probe of a blocked one,
 * sends: by them the program that stands behind the classifier knows which mark the packet must
 * carry.
 */
#ifndef L7MARK_ROBUST_TOKEN_H
#define L7MARK_ROBUST_TOKEN_H

#include <linux/types.h>

#define ROBUST_MAGIC 0x6272374c /* "L7rb" */
#define ROBUST_FLOWS 16384	/* numbers of flows are below */

/* Bits of robust_token.flags. */
#define ROBUST_MUST   0x01 /* no time is left to find an answer: the mark must be there */
#define ROBUST_BARRED 0x02 /* the flow's class is dropped: with ROBUST_MUST it must not pass */

struct robust_token {
	__u32 magic;
	__u8 mark; /* 0: of a class without one */
	__u8 flags;
	__u16 reserved;
	__u32 flow;
	__u32 serial;
};

/* Packets of one flow. */
struct robust_count {
	__u32 right;
	__u32 early; /* without the mark, or not dropped, while that was allowed */
	__u32 lost;
	__u32 wrong;
	__u32 passed; /* though it must not */
};

#endif /* L7MARK_ROBUST_TOKEN_H */
