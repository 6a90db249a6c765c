/* SPDX-License-Identifier: GPL-2.0-only */
/* Copies of packets to userspace: reserve, fill, submit, and one name for each way to fail. */
#ifndef L7MARK_BPF_EXPORT_H
#define L7MARK_BPF_EXPORT_H

#include "maps.h"
#include "packet.h"
#include <l7mark/records.h>

/*
 * Reservations have constant sizes, for the verifier; four of them keep waste low. With the ring's
 * header of 8 bytes and the sample's of 128, one of 568 fills whole cache lines.
 */
#define L7M_TIER_HEADERS 128
#define L7M_TIER_SMALL	 568
#define L7M_TIER_FRAME	 1600
#define L7M_TIER_MAX	 L7M_MAX_SNAPLEN

static __always_inline void l7m_fill_sample(struct l7m_sample *out, const struct l7m_met *met)
{
	const struct l7m_export *what = &met->out;
	const struct l7m_candidate *c = &met->candidate;
	const struct l7m_packet *p = &met->packet;

	out->type = what->type;
	out->flags = what->flags;
	if (met->hook & L7M_HOOK_EGRESS)
		out->flags |= L7M_SAMPLE_EGRESS;
	out->time_ns = met->time_ns;
	out->key = what->key;
	out->count = what->count;
	out->flow_id = c->flow_id;
	out->ifindex = met->ifindex;
	out->wire_length = (__u32)met->bytes;
	out->l3_offset = p->l3_offset;
	out->l4_payload = p->payload > 65535 ? 65535 : (__u16)p->payload;
	out->l3_length = p->l3_length;
	out->direction = (__u8)met->sender;
	out->initiator = c->initiator;
	out->candidate_flags = c->flags;
	out->sampled = (__u8)what->sampled;
	out->l2 = met->hook & L7M_HOOK_L2 ? 1 : 0;
	out->vlan = p->vlan;
	out->offset = (__u16)what->offset;
	out->wanted = (__u16)what->wanted;
	out->sequence = p->sequence;
}

/*
 * Copies `length` bytes, 1 to `most`, of the frame from `offset` on. XDP before 5.18 has no helper
 * that follows a variable length, but the bytes are in one piece there and may be read as kernel
 * memory: the caller has checked that they are in the frame.
 */
static __always_inline long l7m_copy(void *ctx, __u32 offset, void *to, __u32 length, __u32 most)
{
	/*
	 * The compiler knows the bound from the caller and would drop the check the verifier needs;
	 * and what is checked must be what is used, for 6.12 does not follow a copy that is
	 * decremented.
	 */
	__u32 last = length - 1;

	asm volatile("" : "+r"(last));
	if (last >= most)
		return -1;
	length = last + 1;
#ifdef L7M_XDP
	if (l7m_config.flags & L7M_CFG_XDP_LOAD_BYTES)
		return bpf_xdp_load_bytes(ctx, offset, to, length);
	return bpf_probe_read_kernel(to, length,
				     (void *)(long)((struct xdp_md *)ctx)->data + offset);
#else
	return bpf_skb_load_bytes(ctx, offset, to, length);
#endif
}

static __always_inline int l7m_export_tier(l7m_ctx *ctx, void *ring, const struct l7m_met *met,
					   __u32 most)
{
	const struct l7m_export *what = &met->out;
	struct l7m_sample *out = bpf_ringbuf_reserve(ring, sizeof(*out) + most, 0);

	if (!out)
		return L7M_COUNT_RING_FULL;
	l7m_fill_sample(out, met);
	out->captured = what->length;
	if (most && l7m_copy(ctx, what->offset, out->data, what->length, most)) {
		bpf_ringbuf_discard(out, 0);
		return L7M_COUNT_COPY_FAILED;
	}
	/* Flag 0: the kernel wakes the worker only if it had read everything and sleeps. */
	bpf_ringbuf_submit(out, 0);
	return -1;
}

/*
 * One record, as the scratch entry says: met->out.length bytes from met->out.offset on. Returns 0
 * if it is on its way.
 */
static __always_inline int l7m_export_record(l7m_ctx *ctx, const struct l7m_met *met)
{
	int failure;
	__u32 index, length;
	void *ring;

	index = met->candidate.ring;
	length = met->out.length;
	ring = bpf_map_lookup_elem(&rings, &index);
	if (!ring)
		failure = L7M_COUNT_RING_MISSING;
	else if (length == 0)
		failure = l7m_export_tier(ctx, ring, met, 0);
	else if (length <= L7M_TIER_HEADERS)
		failure = l7m_export_tier(ctx, ring, met, L7M_TIER_HEADERS);
	else if (length <= L7M_TIER_SMALL)
		failure = l7m_export_tier(ctx, ring, met, L7M_TIER_SMALL);
	else if (length <= L7M_TIER_FRAME)
		failure = l7m_export_tier(ctx, ring, met, L7M_TIER_FRAME);
	else
		failure = l7m_export_tier(ctx, ring, met, L7M_TIER_MAX);
	if (failure < 0)
		return 0;
	l7m_count((__u32)failure, 1);
	return -1;
}

/*
 * The records behind the first of a packet. If one finds no room, the packet is cut. They all
 * reserve as much, and they are made at the very end of the program: in XDP, where the verifier
 * walks through every call anew, one tier in one place costs a tenth of what it did elsewhere.
 */
L7M_FUNCTION int l7m_export_rest(l7m_ctx *ctx)
{
	struct l7m_met *met = l7m_scratch();
	__u32 i, index, length, end;
	void *ring;

	if (!met)
		return -1;
	end = met->out.rest;
	met->out.rest = 0;
	index = met->candidate.ring;
	ring = bpf_map_lookup_elem(&rings, &index);
	if (!ring)
		return -1;
#pragma clang loop unroll(disable)
	for (i = 1; i < L7M_MAX_PARTS; i++) {
		met->out.offset = i * L7M_MAX_SNAPLEN;
		if (end <= i * L7M_MAX_SNAPLEN)
			break;
		length = end - i * L7M_MAX_SNAPLEN;
		met->out.length = length < L7M_MAX_SNAPLEN ? length : L7M_MAX_SNAPLEN;
		if (l7m_export_tier(ctx, ring, met, L7M_TIER_MAX) >= 0) {
			l7m_count(L7M_COUNT_RING_FULL, 1);
			break;
		}
	}
	return 0;
}

/*
 * The packet of the scratch entry, or without a length a notice, for met->candidate. Returns 0 if
 * it is on its way.
 */
L7M_FUNCTION int l7m_export(l7m_ctx *ctx)
{
	struct l7m_met *met = l7m_scratch();
	struct l7m_export *what;
	__u32 end;

	if (!met)
		return -1;
	what = &met->out;
	if (what->wanted > met->frame)
		what->wanted = met->frame;
	end = what->wanted < met->readable ? what->wanted : met->readable;
	l7m_met_time(met);
	what->offset = 0;
	what->length = end < L7M_MAX_SNAPLEN ? end : L7M_MAX_SNAPLEN;
	if (l7m_export_record(ctx, met))
		return -1;
	if (what->type != L7M_RECORD_SAMPLE) {
		l7m_count(L7M_COUNT_NOTICES, 1);
		return 0;
	}
	if (end > L7M_MAX_SNAPLEN)
		what->rest = end;
	l7m_count(L7M_COUNT_SAMPLED_PACKETS, 1);
	l7m_count(L7M_COUNT_SAMPLED_BYTES, end);
	return 0;
}

static __always_inline int l7m_has_rest(void)
{
	const struct l7m_met *met = l7m_scratch();

	return met && met->out.rest;
}

#endif /* L7MARK_BPF_EXPORT_H */
