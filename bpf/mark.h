/* SPDX-License-Identifier: GPL-2.0-only */
/* What a class does to a packet at TC. */
#ifndef L7MARK_BPF_MARK_H
#define L7MARK_BPF_MARK_H

#include <linux/pkt_cls.h>
#include "flow.h"
#include "hook.h"
#include "maps.h"
#include "packet.h"

/* The outermost IP header is still to be found. */
#define L7M_ANYWHERE 0xffffffffU

/*
 * Where the outermost IP header begins in the frame as it is now: since XDP saw it, the kernel has
 * taken a VLAN tag off. Negative if there is none.
 */
static __always_inline int l7m_outer_header(struct __sk_buff *skb)
{
	struct l7m_cursor c;
	__u64 link;

	l7m_pull(skb, L7M_PULL);
	l7m_cursor_of(skb, &c);
	link = L7M_LINK(&c);
	return L7M_LINK_RESULT(link) ? -1 : (int)L7M_LINK_OFFSET(link);
}

/*
 * RFC 2474: the upper six bits of the TOS or traffic class octet; the lower two are ECN's and stay.
 * Only written if it differs: a write makes the header private to this skb, which is a copy. In a
 * tunnel the outer header is what the way ahead acts on, and no checksum of the tunnel's covers it.
 */
static __noinline int l7m_write_dscp(struct __sk_buff *skb, __u32 offset, __u8 dscp)
{
	__u8 bytes[2], version, class, was;
	__u64 flags = 0;

	if (offset == L7M_ANYWHERE)
		offset = (__u32)l7m_outer_header(skb);
	if (bpf_skb_load_bytes(skb, offset, bytes, sizeof(bytes)))
		goto failed;
	version = bytes[0] >> 4;
	if (version == 4) {
		was = bytes[1];
		class = (__u8)(dscp << 2 | (was & 3));
		if (class == was)
			return 0;
		/* With the header's own checksum the sum of the packet stays what it was. */
		if (bpf_l3_csum_replace(skb, offset + 10, L7M_BE16(bytes[0] << 8 | was),
					L7M_BE16(bytes[0] << 8 | class), 2))
			goto failed;
		bytes[1] = class;
	} else if (version == 6) {
		/* Version, traffic class and flow label share two octets: 4, 8, 4 bits. */
		was = (__u8)(bytes[0] << 4 | bytes[1] >> 4);
		class = (__u8)(dscp << 2 | (was & 3));
		if (class == was)
			return 0;
		bytes[0] = (__u8)(0x60 | class >> 4);
		bytes[1] = (__u8)((bytes[1] & 0x0f) | class << 4);
		flags = BPF_F_RECOMPUTE_CSUM;
	} else {
		goto failed;
	}
	if (bpf_skb_store_bytes(skb, offset, bytes, sizeof(bytes), flags))
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
