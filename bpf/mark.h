/* SPDX-License-Identifier: GPL-2.0-only */
/* What a class does to a packet at TC. */
#ifndef L7MARK_BPF_MARK_H
#define L7MARK_BPF_MARK_H

#include <linux/pkt_cls.h>
#include "flow.h"
#include "maps.h"
#include "packet.h"

/*
 * RFC 2474: the upper six bits of the TOS or traffic class octet; the lower two are ECN's and stay.
 * Only written if it differs: a write makes the header private to this skb, which is a copy.
 */
static __noinline int l7m_write_dscp(struct __sk_buff *skb, __u32 offset, __u8 dscp)
{
	__u8 bytes[2];

	if (bpf_skb_load_bytes(skb, offset, bytes, sizeof(bytes)))
		goto failed;
	if (bytes[0] >> 4 == 4) {
		__u8 tos = (__u8)(dscp << 2 | (bytes[1] & 3));

		if (tos == bytes[1])
			return 0;
		if (bpf_l3_csum_replace(skb, offset + 10, L7M_BE16(bytes[0] << 8 | bytes[1]),
					L7M_BE16(bytes[0] << 8 | tos), 2))
			goto failed;
		bytes[1] = tos;
	} else {
		/* Version, traffic class and flow label share the first two octets: 4, 8, 4 bits.
		 */
		__u8 class = (__u8)(dscp << 2 | (bytes[1] >> 4 & 3));
		__u8 first = (__u8)((bytes[0] & 0xf0) | class >> 4);
		__u8 second = (__u8)((bytes[1] & 0x0f) | class << 4);

		if (first == bytes[0] && second == bytes[1])
			return 0;
		bytes[0] = first;
		bytes[1] = second;
	}
	if (bpf_skb_store_bytes(skb, offset, bytes, sizeof(bytes), 0))
		goto failed;
	return 0;
failed:
	l7m_count(L7M_COUNT_DSCP_FAILED, 1);
	return -1;
}

static __always_inline int l7m_drop(const struct __sk_buff *skb)
{
	__u32 segments = skb->gso_segs;

	l7m_count(L7M_COUNT_DROPPED, segments ? segments : 1);
	return TC_ACT_SHOT;
}

/* Returns the program's TC action: what other filters do next is theirs to say. */
static __always_inline int l7m_apply(struct __sk_buff *skb, __u32 index, __u32 l3_offset)
{
	const struct l7m_action *action = bpf_map_lookup_elem(&actions, &index);
	__u8 flags;

	if (!action)
		return index == L7M_HIDDEN ? l7m_drop(skb) : TC_ACT_UNSPEC;
	flags = action->flags;
	if (flags & L7M_ACT_MARK)
		skb->mark = (skb->mark & ~action->mark_mask) | action->mark;
	if (!(flags & ~L7M_ACT_MARK))
		return TC_ACT_UNSPEC;
	if (flags & L7M_ACT_DROP)
		return l7m_drop(skb);
	/* A classful qdisc takes its class from the priority before it asks a filter. */
	if (flags & L7M_ACT_PRIORITY)
		skb->priority = action->priority;
	else if (flags & L7M_ACT_CLASSID)
		skb->priority = action->classid;
	if (flags & L7M_ACT_DSCP)
		l7m_write_dscp(skb, l3_offset, action->dscp);
	return TC_ACT_UNSPEC;
}

#endif /* L7MARK_BPF_MARK_H */
