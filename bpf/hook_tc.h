/* SPDX-License-Identifier: GPL-2.0-only */
/* A packet as it is met at TC: its length, its headers, and what is not in the packet itself. */
#ifndef L7MARK_BPF_HOOK_TC_H
#define L7MARK_BPF_HOOK_TC_H

#include "maps.h"
#include "packet.h"

static __always_inline __u64 l7m_skb_bytes(const struct __sk_buff *skb, __u32 hook, __u32 segments,
					   __u32 headers)
{
	/* wire_len has each segment's headers in it, but only where a qdisc comes next. */
	if ((hook & L7M_HOOK_EGRESS) || (l7m_config.flags & L7M_CFG_REPLAY))
		return skb->wire_len;
	if (segments > 1)
		return skb->len + (__u64)(segments - 1) * headers;
	return skb->len;
}

/* The id of the VLAN tag that the card or the kernel has taken off the frame, 0 for none. */
static __always_inline __u32 l7m_taken_vlan(const struct __sk_buff *skb)
{
	return skb->vlan_present ? skb->vlan_tci & 0x0fff : 0;
}

/* What is not in the packet itself; the parsed headers are in the scratch entry already. */
static __always_inline void l7m_meet(struct __sk_buff *skb, __u32 hook, struct l7m_met *met)
{
	const struct l7m_packet *p = &met->packet;

	met->hook = hook;
	met->kept = 0;
	met->payment = L7M_NOT_ASKED;
	met->payer_hash = 0;
	met->time_ns = 0;
	met->readable = skb->len;
	met->frame = met->readable;
	if (l7m_config.flags & L7M_CFG_REPLAY)
		met->frame = l7m_replayed_frame(skb->wire_len);
	met->ifindex = skb->ifindex;
	met->segments = skb->gso_segs ? skb->gso_segs : 1;
	met->bytes =
		l7m_skb_bytes(skb, hook, met->segments, p->l3_offset + p->l3_length - p->payload);
}

/*
 * Fills the scratch entry. Returns an l7m_parse_result. For size, because clang otherwise lets the
 * end of a loop fall through to its begin, a way back that kernels up to 6.1 refuse.
 */
__attribute__((minsize)) L7M_FUNCTION int l7m_parse_packet(struct __sk_buff *skb, __u32 hook)
{
	struct l7m_met *met = l7m_scratch();
	struct l7m_cursor c;
	__u32 frame = skb->len;
	int version = 0, result;

	if (!met)
		return L7M_PARSE_WRONG;
	__builtin_memset(&met->packet, 0, sizeof(met->packet));
	l7m_cursor_of(skb, &c);
	c.vlan = l7m_taken_vlan(skb);
	if (!(hook & L7M_HOOK_L2)) {
		if (c.start + 1 > c.end)
			return L7M_PARSE_NOT_IP;
		version = c.start[0] >> 4;
		if (version != 4 && version != 6)
			return L7M_PARSE_NOT_IP;
	}
	/* A run takes a page of a packet at most; its length is told beside it. The barrier keeps
	 * the two loads apart: the verifier refuses one load from a chosen offset of the context.
	 */
	asm volatile("" : "+r"(frame));
	if (l7m_config.flags & L7M_CFG_REPLAY)
		frame = l7m_replayed_frame(skb->wire_len);
	result = l7m_parse(&c, &met->packet, version, frame, l7m_config.parse);
	l7m_meet(skb, hook, met);
	return result;
}

/*
 * Headers beyond the linear part are pulled in: as many as packets have, and if that is too little,
 * as many as the parser reads.
 */
#define L7M_PULL     256
#define L7M_PULL_ALL (L7M_OFFSET_MASK + 64)

static __always_inline int l7m_pull(struct __sk_buff *skb, __u32 most)
{
	__u32 length = skb->len;

	if (length > most)
		length = most;
	if ((__u64)(skb->data_end - skb->data) >= length)
		return -1;
	return (int)bpf_skb_pull_data(skb, length);
}

#endif /* L7MARK_BPF_HOOK_TC_H */
