/* SPDX-License-Identifier: GPL-2.0-only */
/* How much of a candidate's packet is copied, who pays for it, and which ring it goes to. */
#ifndef L7MARK_BPF_SAMPLE_H
#define L7MARK_BPF_SAMPLE_H

#include "export.h"
#include "maps.h"
#include "packet.h"
#include <l7mark/ring.h>
#include <l7mark/sampling.h>

static __always_inline int l7m_is_inside(const __be32 *address)
{
	struct l7m_prefix_key key = {.length = 128};

	__builtin_memcpy(key.addr, address, sizeof(key.addr));
	return bpf_map_lookup_elem(&inside, &key) != 0;
}

static __always_inline __u8 l7m_choose_ring(const struct l7m_packet *p,
					    const struct l7m_settings *s)
{
	if (s->rings <= 1)
		return 0;
	return (__u8)l7m_ring_of(p, l7m_is_inside(p->saddr), l7m_is_inside(p->daddr), s->rings,
				 &s->secrets);
}

/* The first bytes of the packet's payload, for l7m_flight_wants(). */
static __noinline void l7m_read_head(l7m_ctx *ctx, struct l7m_met *met)
{
	const struct l7m_packet *p = &met->packet;
	__u32 offset = p->l3_offset + p->l3_length - p->payload, length = p->payload;

	met->head.length = 0;
	if (offset >= met->readable)
		return;
	if (length > met->readable - offset)
		length = met->readable - offset;
	if (length > L7M_HEAD)
		length = L7M_HEAD;
	if (length && !l7m_copy(ctx, offset, met->head.bytes, length, L7M_HEAD))
		met->head.length = length;
}

/* Has the packet's source pay for its handshake. Returns 0 if it has used up its budget. */
static __noinline int l7m_charge_source(const struct l7m_packet *p, __u32 bytes, __u32 budget)
{
	struct l7m_source fresh = {.bytes = bytes};
	struct l7m_source_key key = {};
	struct l7m_source *source;

	/* In a replay time does not pass as it did in the capture. */
	if (l7m_config.flags & L7M_CFG_REPLAY)
		return 1;
	key.addr[0] = p->saddr[0];
	key.addr[1] = p->saddr[1];
	if (p->version == 4) {
		key.addr[2] = p->saddr[2];
		key.addr[3] = p->saddr[3];
	}
	fresh.second = (__u32)(bpf_ktime_get_ns() >> 30);
	source = bpf_map_lookup_elem(&sources, &key);
	if (!source || source->second != fresh.second) {
		if (bytes > budget)
			return 0;
		bpf_map_update_elem(&sources, &key, &fresh, BPF_ANY);
		return 1;
	}
	if (source->bytes + bytes > budget)
		return 0;
	source->bytes += bytes;
	return 1;
}

/*
 * What is to be copied of a packet that may belong to a first flight, with what its source has left
 * to spend: from met->candidate and met->flight to met->wanted, and the flight's new state.
 */
L7M_FUNCTION int l7m_want(l7m_ctx *ctx)
{
	struct l7m_met *met = l7m_scratch();
	const struct l7m_settings *s;
	const struct l7m_packet *p;
	__u32 zero = 0;

	s = bpf_map_lookup_elem(&settings, &zero);
	if (!s || !met)
		return -1;
	p = &met->packet;
	if (l7m_flight_asks(&met->flight, p))
		l7m_read_head(ctx, met);
	l7m_packet_wanted(&met->candidate, &met->flight, p, &met->head, s, &met->wanted);
	if (met->wanted.charge && !l7m_charge_source(p, met->wanted.charge, s->flight_budget)) {
		l7m_count(L7M_COUNT_FLIGHT_REFUSED, 1);
		l7m_refuse_flight(&met->candidate, p, s, &met->wanted);
	}
	return 0;
}

#endif /* L7MARK_BPF_SAMPLE_H */
