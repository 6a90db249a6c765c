/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Records of the ring buffers: packets that the programs copy, and events without a packet. */
#ifndef L7MARK_RECORDS_H
#define L7MARK_RECORDS_H

#include <l7mark/maps.h>

/* First member of every ring-buffer record. */
enum l7m_record_type {
	L7M_RECORD_SAMPLE = 1, /* struct l7m_sample, with bytes of a packet */
	L7M_RECORD_NOTICE = 2, /* struct l7m_sample without bytes: a candidate has closed */
	L7M_RECORD_REOPEN = 3, /* struct l7m_sample without bytes: a SYN began a closed flow anew;
				* flow_id is the old one's, count what its verdict counted */
};

/* Bits of l7m_sample.flags. */
#define L7M_SAMPLE_FIRST  0x01 /* the flow's first packet */
#define L7M_SAMPLE_FIN	  0x02
#define L7M_SAMPLE_RST	  0x04
#define L7M_SAMPLE_LAST	  0x08 /* N is reached: no more will come */
#define L7M_SAMPLE_EGRESS 0x10 /* it left by the interface */
/* The flow's headers gave it a class that has sets, marks in conntrack or a log. */
#define L7M_SAMPLE_BEGUN 0x20

struct l7m_sample {
	__u16 type; /* enum l7m_record_type */
	__u16 flags;
	__u32 captured; /* bytes in data[] */
	__u64 time_ns;	/* CLOCK_MONOTONIC */
	struct l7m_key key;
	struct l7m_counters count; /* the candidate's, this packet included */
	__u64 flow_id;
	__u32 ifindex;
	__u32 wire_length;     /* bytes of the frame as it was */
	__u16 l3_offset;       /* of the (inner) IP header in data[] */
	__u16 l4_payload;      /* bytes of transport payload on the wire, at most 65535 */
	__u32 l3_length;       /* bytes of the (inner) IP packet on the wire */
	__u16 candidate_flags; /* L7M_FLOW_* */
	__u8 direction;	       /* endpoint that sent it: 0 or 1 */
	__u8 initiator;
	__u8 sampled; /* payload packets copied, this one included */
	__u8 l2;      /* 1 if data[] begins with an Ethernet header */
	__u16 vlan;   /* outermost VLAN id in the frame, 0 for none */
	/*
	 * A packet of which more than L7M_MAX_SNAPLEN bytes are wanted comes in several records.
	 * They follow each other, but for records of other CPUs; a later one may be missing.
	 */
	__u16 offset;	/* of data[] in the frame */
	__u16 wanted;	/* bytes of the frame in all records of this packet */
	__u32 sequence; /* TCP: sequence number of the first byte of payload, host order */
	__u8 data[];	/* the frame from `offset` on */
};
L7M_ASSERT_SIZE(struct l7m_sample, 128);

#endif /* L7MARK_RECORDS_H */
