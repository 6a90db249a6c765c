/* SPDX-License-Identifier: GPL-2.0-only */
/* How much of a candidate's packet is copied, and which ring it goes to. */
#ifndef L7MARK_BPF_SAMPLE_H
#define L7MARK_BPF_SAMPLE_H

#include "budget.h"
#include "export.h"
#include "maps.h"
#include "packet.h"
#include <l7mark/ring.h>
#include <l7mark/sampling.h>

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

/*
 * What is to be copied of a packet that may belong to a first flight: from met->candidate and
 * met->flight to met->wanted, and the flight's new state.
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
	return 0;
}

#endif /* L7MARK_BPF_SAMPLE_H */
