/* SPDX-License-Identifier: GPL-2.0-only */
/* Copies of packets to userspace: reserve, fill, submit, and one name for each way to fail. */
#ifndef L7MARK_BPF_EXPORT_H
#define L7MARK_BPF_EXPORT_H

#include "maps.h"
#include "packet.h"

/* Reservations have constant sizes, for the verifier; four of them keep waste low. */
#define L7M_TIER_HEADERS 128
#define L7M_TIER_SMALL	 512
#define L7M_TIER_FRAME	 1600
#define L7M_TIER_MAX	 L7M_MAX_SNAPLEN

struct l7m_export {
	struct l7m_key key;
	__u16 type;
	__u16 flags;
	__u32 length;  /* bytes of the frame to copy, 0 for none */
	__u32 sampled; /* payload packets copied with this one */
};

static __always_inline void l7m_fill_sample(struct l7m_sample *out, const struct l7m_export *what,
					    const struct l7m_met *met,
					    const struct l7m_candidate *c)
{
	const struct l7m_packet *p = &met->packet;

	out->type = what->type;
	out->flags = what->flags;
	out->time_ns = bpf_ktime_get_ns();
	out->key = what->key;
	out->count = c->count;
	out->id = c->id;
	out->action = c->action;
	out->ifindex = met->ifindex;
	out->wire_length = (__u32)met->bytes;
	out->l3_offset = p->l3_offset;
	out->l4_payload = p->payload > 65535 ? 65535 : (__u16)p->payload;
	out->l3_length = p->l3_length;
	out->direction = (__u8)met->sender;
	out->initiator = c->initiator;
	out->candidate_flags = c->flags;
	out->sampled = (__u8)what->sampled;
	out->egress = met->hook & L7M_HOOK_EGRESS ? 1 : 0;
	out->l2 = met->hook & L7M_HOOK_L2 ? 1 : 0;
	out->vlan = p->vlan;
}

/*
 * Copies `length` bytes, 1 to `most`, of the frame. XDP before 5.18 has no helper that follows a
 * variable length, but the bytes are in one piece there and may be read as kernel memory.
 */
static __always_inline long l7m_copy(void *ctx, void *to, __u32 length, __u32 most)
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
		return bpf_xdp_load_bytes(ctx, 0, to, length);
	return bpf_probe_read_kernel(to, length, (void *)(long)((struct xdp_md *)ctx)->data);
#else
	return bpf_skb_load_bytes(ctx, 0, to, length);
#endif
}

static __always_inline int l7m_export_tier(void *ctx, void *ring, const struct l7m_export *what,
					   const struct l7m_met *met, const struct l7m_candidate *c,
					   __u32 most)
{
	struct l7m_sample *out = bpf_ringbuf_reserve(ring, sizeof(*out) + most, 0);

	if (!out)
		return L7M_COUNT_RING_FULL;
	l7m_fill_sample(out, what, met, c);
	out->captured = what->length;
	if (most && l7m_copy(ctx, out->data, what->length, most)) {
		bpf_ringbuf_discard(out, 0);
		return L7M_COUNT_COPY_FAILED;
	}
	/* Flag 0: the kernel wakes the worker only if it had read everything and sleeps. */
	bpf_ringbuf_submit(out, 0);
	return -1;
}

/* Returns 0 if the record is on its way. */
static __noinline int l7m_export(void *ctx, struct l7m_export *what, const struct l7m_met *met,
				 const struct l7m_candidate *c)
{
	__u32 index = c->ring;
	void *ring = bpf_map_lookup_elem(&rings, &index);
	int failure;

	if (what->length > met->frame)
		what->length = met->frame;
	if (!ring)
		failure = L7M_COUNT_RING_MISSING;
	else if (what->length == 0)
		failure = l7m_export_tier(ctx, ring, what, met, c, 0);
	else if (what->length <= L7M_TIER_HEADERS)
		failure = l7m_export_tier(ctx, ring, what, met, c, L7M_TIER_HEADERS);
	else if (what->length <= L7M_TIER_SMALL)
		failure = l7m_export_tier(ctx, ring, what, met, c, L7M_TIER_SMALL);
	else if (what->length <= L7M_TIER_FRAME)
		failure = l7m_export_tier(ctx, ring, what, met, c, L7M_TIER_FRAME);
	else
		failure = l7m_export_tier(ctx, ring, what, met, c, L7M_TIER_MAX);
	if (failure >= 0) {
		l7m_count((__u32)failure, 1);
		return -1;
	}
	if (what->type == L7M_RECORD_SAMPLE) {
		l7m_count(L7M_COUNT_SAMPLED_PACKETS, 1);
		l7m_count(L7M_COUNT_SAMPLED_BYTES, what->length);
	} else {
		l7m_count(L7M_COUNT_NOTICES, 1);
	}
	return 0;
}

#endif /* L7MARK_BPF_EXPORT_H */
