/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Input and output of the programs that only userspace runs: edits, settlements, the clock. */
#ifndef L7MARK_CONTROL_H
#define L7MARK_CONTROL_H

#include <l7mark/maps.h>

/*
 * One edit of program `l7mark_edit`, which userspace runs over an array of them in order to change
 * entries in place: a map update from userspace would lose what is counted meanwhile.
 */
enum l7m_edit_result {
	L7M_EDIT_NONE = 0,	/* the key is in neither table */
	L7M_EDIT_VERDICT = 1,	/* changed in `flows*` */
	L7M_EDIT_CANDIDATE = 2, /* changed in `candidates` */
};

/* Bits of l7m_edit.what: the fields to set. */
#define L7M_EDIT_ACTION	     0x01
#define L7M_EDIT_STATE	     0x02
#define L7M_EDIT_APPLICATION 0x04 /* application and master; verdicts only */
#define L7M_EDIT_PACKETS     0x08 /* candidates only */
#define L7M_EDIT_WHOLE	     0x10 /* candidates only */
#define L7M_EDIT_MANUAL	     0x20 /* for a verdict written by hand; without it, all others */

struct l7m_edit {
	struct l7m_key key;
	__u32 action;
	__u16 application;
	__u16 master;
	__u8 what;
	__u8 state;
	__u8 packets;
	__u8 whole;
	__u8 result; /* out: enum l7m_edit_result */
	__u8 reserved[11];
};
L7M_ASSERT_SIZE(struct l7m_edit, 64);
#define L7M_EDIT_BATCH 48 /* fits the 3.5 KB that a program run takes on every kernel */

/*
 * One step of program `l7mark_settle`, which userspace runs over an array of them: flows come and
 * go by the batch, and no packet falls between the two tables.
 */
enum l7m_settle_step {
	L7M_SETTLE_DECIDE =
		1, /* write the verdict, with the candidate's flags added; take the candidate */
	L7M_SETTLE_TAKE = 2, /* take the candidate */
	L7M_SETTLE_END = 3,  /* take the verdict, if it has the id given in `verdict` */
};

/* Bits of l7m_settlement.result. */
#define L7M_SETTLE_WROTE  0x01 /* the verdict is in its table; without: the table is full */
#define L7M_SETTLE_TOOK	  0x02 /* what was taken is in the union, as it was at last */
#define L7M_SETTLE_MANUAL 0x04 /* not written: the verdict there was written by hand */

struct l7m_settlement {
	struct l7m_key key;
	union {
		struct l7m_verdict verdict;
		struct l7m_candidate candidate;
	};
	__u8 step;   /* enum l7m_settle_step */
	__u8 result; /* out: L7M_SETTLE_* */
	__u8 reserved[6];
};
L7M_ASSERT_SIZE(struct l7m_settlement, 104);
#define L7M_SETTLE_BATCH 32

/* What program `l7mark_clock` writes over its input. */
struct l7m_clock {
	__u64 jiffies;
	__u64 time_ns; /* CLOCK_MONOTONIC */
};
L7M_ASSERT_SIZE(struct l7m_clock, 16);

#endif /* L7MARK_CONTROL_H */
