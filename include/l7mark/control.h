/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Input and output of the programs that only userspace runs: edits, settlements, the clock. */
#ifndef L7MARK_CONTROL_H
#define L7MARK_CONTROL_H

#include <l7mark/maps.h>

/*
 * Bytes in front of a batch of edits or settlements. A program run takes its input for a frame, and
 * looks into the IP header that the frame's type tells of: an Ethernet header of type 0, and two
 * bytes that keep the entries aligned.
 */
#define L7M_BATCH_HEADER 16

/*
 * One edit of program `l7mark_edit`, which userspace runs over an array of them in order to change
 * entries in place: a map update from userspace would lose what is counted meanwhile.
 */
enum l7m_edit_result {
	L7M_EDIT_NONE = 0,	/* the key is in neither table */
	L7M_EDIT_VERDICT = 1,	/* changed in `flows*` */
	L7M_EDIT_CANDIDATE = 2, /* changed in `candidates` */
	L7M_EDIT_STALE = 3,	/* nothing changed: the key has another life */
};

/* Bits of l7m_edit.what: the fields to set. */
#define L7M_EDIT_ACTION	     0x01
#define L7M_EDIT_STATE	     0x02
#define L7M_EDIT_APPLICATION 0x04 /* application and master; verdicts only */
#define L7M_EDIT_PACKETS     0x08 /* candidates only */
#define L7M_EDIT_WHOLE	     0x10 /* candidates only */

struct l7m_edit {
	struct l7m_key key;
	__u64 flow_id; /* the life that is meant; 0: a verdict written by hand */
	__u32 action;
	__u16 application;
	__u16 master;
	__u8 what;
	__u8 state;
	__u8 packets;
	__u8 whole;
	__u8 result; /* out: enum l7m_edit_result */
	__u8 reserved[3];
};
L7M_ASSERT_SIZE(struct l7m_edit, 64);
#define L7M_EDIT_BATCH 48 /* fits the 3.5 KB that a program run takes on every kernel */

/*
 * One step of program `l7mark_settle`, which userspace runs over an array of them: flows come and
 * go by the batch, and no packet falls between the two tables. A step is for the life `flow_id`: if
 * the key has another one, it changes nothing.
 */
enum l7m_settle_step {
	/* Write the verdict, with the candidate's flags added, and take the candidate. A life that
	 * has its verdict gets what the step decides, and keeps its counts. */
	L7M_SETTLE_DECIDE = 1,
	/* Take the candidate. */
	L7M_SETTLE_TAKE = 2,
	/* Take the verdict if it has counted no packet since it was read: `verdict` is as read. */
	L7M_SETTLE_END = 3,
	/* Take the verdict. */
	L7M_SETTLE_REMOVE = 4,
	/* Take the candidate if it has counted no packet since it was read: `candidate` has its
	 * count as read. */
	L7M_SETTLE_TAKE_QUIET = 5,
	/* Leave the flow a candidate, with the verdict's action and state; copy no more of it. A
	 * life that has a verdict is decided. */
	L7M_SETTLE_WAIT = 6,
};

/* Bits of l7m_settlement.result; 0: nothing was there, or for DECIDE no room for a verdict. */
#define L7M_SETTLE_WROTE  0x01 /* the verdict is in its table */
#define L7M_SETTLE_TOOK	  0x02 /* what was taken is in the union, as it was at last */
#define L7M_SETTLE_MANUAL 0x04 /* not written: the verdict there was written by hand */
#define L7M_SETTLE_STALE  0x08 /* neither table has this life of the flow */
#define L7M_SETTLE_BUSY                                                                            \
	0x10 /* not taken: it has counted since; in the union it is as it is now                   \
	      */
/* Not written: the kernel had no memory, the table has room. */
#define L7M_SETTLE_NO_MEMORY 0x20
#define L7M_SETTLE_WAITS     0x40 /* the candidate stays, and is in the union as it is now */

struct l7m_settlement {
	struct l7m_key key;
	__u64 flow_id; /* 0: a verdict written by hand, for END and REMOVE only */
	union {
		struct l7m_verdict verdict; /* its flow_id need not be filled in */
		struct l7m_candidate candidate;
	};
	__u8 step;   /* enum l7m_settle_step */
	__u8 result; /* out: L7M_SETTLE_* */
	__u8 reserved[6];
};
L7M_ASSERT_SIZE(struct l7m_settlement, 120);
#define L7M_SETTLE_BATCH 29 /* as L7M_EDIT_BATCH */

/* What program `l7mark_clock` writes over its input. */
struct l7m_clock {
	__u64 jiffies;
	__u64 time_ns; /* CLOCK_MONOTONIC */
};
L7M_ASSERT_SIZE(struct l7m_clock, 16);

#endif /* L7MARK_CONTROL_H */
