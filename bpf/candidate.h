/* SPDX-License-Identifier: GPL-2.0-only */
/* Packets of flows without a verdict: a flow is begun, or goes on being sampled. Nothing here is on
 * the hot path.
 */
#ifndef L7MARK_BPF_CANDIDATE_H
#define L7MARK_BPF_CANDIDATE_H

#include "candidate_table.h"
#include "export.h"
#include "maps.h"
#include "packet.h"
#include "promise.h"
#include "sample.h"
#include "verdict_table.h"
#include <l7mark/sampling.h>

/* The flow's first packet. Returns the index of its action. */
static __noinline __u32 l7m_new_flow(l7m_ctx *ctx, struct l7m_met *met,
				     const struct l7m_settings *s, const struct l7m_spot *spot)
{
	struct l7m_export *what = &met->out;
	const struct l7m_packet *p = &met->packet;
	struct l7m_candidate *fresh = &met->candidate;
	struct l7m_candidate_place *place;
	__u64 number;

	__builtin_memset(fresh, 0, sizeof(*fresh));
	__builtin_memset(&met->flight, 0, sizeof(met->flight));
	l7m_begin_candidate(fresh, p, (int)met->sender, s);
	fresh->last_seen = (__u32)bpf_jiffies64();
	fresh->id = bpf_get_prandom_u32();
	fresh->ring = l7m_choose_ring(p, s);
	fresh->flags |= l7m_closing_flags(p, (int)met->sender);
	number = l7m_forget_by(met, l7m_find_promise(p, s));
	fresh->action = (__u32)number;
	fresh->state = (__u8)(number >> 32);
	fresh->flags |= (__u8)(number >> 40);
	l7m_count_packet(&fresh->count, met);
	l7m_expect_flight(&met->flight, p);
	if (l7m_may_be_flight(&met->flight, p, s->flight))
		l7m_want(ctx);
	else
		l7m_refuse_flight(fresh, p, s, &met->wanted);
	what->wanted = met->wanted.length;
	what->flags |= L7M_SAMPLE_FIRST;
	/* As if the copy had gone out: it nearly always does, and a second look-up is saved. */
	l7m_count_sample(fresh, &met->flight, p, &met->wanted, s);
	number = l7m_forget_by(met, (__u64)fresh->sampled << 8 | fresh->whole);
	fresh->whole = (__u8)number;
	fresh->sampled = (__u8)(number >> 8);
	what->sampled = fresh->sampled;
	if (fresh->sampled >= fresh->packets)
		what->flags |= L7M_SAMPLE_LAST;
	place = l7m_put_candidate(spot->set, spot->tag, met);
	l7m_count(L7M_COUNT_NEW_FLOW, 1);
	if (s->flags & L7M_SET_PAUSED)
		l7m_count(L7M_COUNT_PAUSED, 1);
	else if (!l7m_export(ctx))
		return fresh->action;
	if (place) {
		place->value.first_sent = 0;
		place->value.sampled = 0;
		place->flight[met->sender & 1].copied = 0;
	}
	return fresh->action;
}

/*
 * The packet of the scratch entry, whose flow has no verdict and whose hash is known. Returns the
 * index of its action.
 */
L7M_FUNCTION __u32 l7m_candidate_packet(l7m_ctx *ctx)
{
	struct l7m_met *met = l7m_scratch();
	const struct l7m_packet *p;
	const struct l7m_settings *s;
	struct l7m_candidate_place *place;
	struct l7m_candidate *c = 0;
	struct l7m_flight *f;
	struct l7m_spot spot;
	struct l7m_verdict *v;
	struct l7m_export *what;
	__u32 zero = 0, now = (__u32)bpf_jiffies64();
	__u8 closing;

	s = bpf_map_lookup_elem(&settings, &zero);
	if (!s || !met)
		return 0;
	p = &met->packet;
	what = &met->out;
	what->type = L7M_RECORD_SAMPLE;
	what->flags = 0;
	met->sender = (__u32)l7m_make_key(p, &what->key);
	if (p->tcp_flags & L7M_TCP_FIN)
		what->flags |= L7M_SAMPLE_FIN;
	if (p->tcp_flags & L7M_TCP_RST)
		what->flags |= L7M_SAMPLE_RST;

	if (!l7m_find_spot(met->hash, &spot))
		return 0;
	place = l7m_find_place(spot.set, spot.tag, &what->key);
	if (place)
		c = &place->value;
	/* Signed: another CPU may have stamped it a tick later than our `now`. In a replay time
	 * does not pass as it did in the capture.
	 */
	if (!c || ((__s32)(now - c->last_seen) > L7M_CANDIDATE_LIFE &&
		   !(l7m_config.flags & L7M_CFG_REPLAY))) {
		/* A later fragment, or a stray end of a flow, is no reason to begin one. */
		if (p->fragment == L7M_FRAGMENT_LATER)
			return 0;
		/*
		 * Userspace writes the verdict before it takes the candidate out: where both were
		 * missed, it did so in between, and the flow is not new.
		 */
		v = p->tcp_flags & L7M_TCP_SYN ? 0 : l7m_verdict_of(&what->key);
		if (v) {
			l7m_count_verdict(v, met);
			return v->action;
		}
		return l7m_new_flow(ctx, met, s, &spot);
	}
	c->last_seen = now;
	if (p->fragment == L7M_FRAGMENT_LATER) {
		if (!(l7m_config.flags & L7M_CFG_REPLAY))
			l7m_count_packet(&c->count, met);
		return c->action;
	}
	l7m_count_packet(&c->count, met);
	closing = l7m_closing_flags(p, (int)met->sender) & (__u8)~c->flags;
	c->flags |= closing;
	f = &place->flight[met->sender & 1];
	l7m_expect_flight(f, p);
	if (l7m_may_be_flight(f, p, s->flight)) {
		met->candidate = *c;
		met->flight = *f;
		l7m_want(ctx);
		*f = met->flight;
	} else {
		l7m_refuse_flight(c, p, s, &met->wanted);
	}
	what->wanted = met->wanted.length;
	if (what->wanted == 0) {
		if (!closing || !l7m_is_closed(c->flags) || (c->flags & L7M_FLOW_BARRED))
			return c->action;
		what->type = L7M_RECORD_NOTICE;
	}
	if (s->flags & L7M_SET_PAUSED) {
		l7m_count(L7M_COUNT_PAUSED, 1);
		return c->action;
	}
	met->candidate = *c;
	if (what->type == L7M_RECORD_SAMPLE) {
		/* Two CPUs may both pass here for one flow: a packet more is copied, no harm. */
		if (!c->first_sent)
			what->flags |= L7M_SAMPLE_FIRST;
		what->sampled = l7m_sampled_with(c, p, &met->wanted);
		if (what->sampled >= c->packets)
			what->flags |= L7M_SAMPLE_LAST;
		if (!l7m_export(ctx))
			l7m_count_sample(c, f, p, &met->wanted, s);
		return c->action;
	}
	what->sampled = c->sampled;
	l7m_export(ctx);
	return c->action;
}

#endif /* L7MARK_BPF_CANDIDATE_H */
