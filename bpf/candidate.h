/* SPDX-License-Identifier: GPL-2.0-only */
/* Packets of flows without a verdict: a flow is begun, or goes on being sampled. Nothing here is on
 * the hot path.
 */
#ifndef L7MARK_BPF_CANDIDATE_H
#define L7MARK_BPF_CANDIDATE_H

#include "candidate_table.h"
#include "export.h"
#include "header_class.h"
#include "maps.h"
#include "packet.h"
#include "sample.h"
#include "verdict_table.h"
#include <l7mark/handshake_time.h>
#include <l7mark/sampling.h>

static __always_inline __u64 l7m_new_life(void)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&lives, &zero);

	if (!count)
		return 0;
	return (__u64)bpf_get_smp_processor_id() << L7M_LIFE_CPU_SHIFT | ++*count;
}

static __always_inline void l7m_count_candidate(struct l7m_candidate *c, const struct l7m_met *met)
{
	__u32 sender = met->sender & 1;

	c->count.packets[sender] += met->segments;
	c->count.bytes[sender] += met->bytes;
}

/* Low 32 bits of when the packet was met, in microseconds. */
static __always_inline __u32 l7m_met_us(struct l7m_met *met)
{
	return (__u32)(l7m_met_time(met) / 1000);
}

/*
 * Fills met->candidate for a flow that begins with the packet, with all that the packet says of it:
 * what is written to a place in parts and read back at once would wait for its cache line.
 * Global in XDP too, because it takes no context, and so verified once.
 */
__attribute__((noinline)) int l7m_new_flow(void)
{
	struct l7m_met *met = l7m_scratch();
	struct l7m_candidate *fresh;
	const struct l7m_settings *s;
	const struct l7m_packet *p;
	__u32 zero = 0;
	__u64 number;

	s = bpf_map_lookup_elem(&settings, &zero);
	if (!s || !met)
		return -1;
	p = &met->packet;
	fresh = &met->candidate;
	__builtin_memset(fresh, 0, sizeof(*fresh));
	l7m_begin_candidate(fresh, p, (int)met->sender, s);
	l7m_fetch_budget(met, s);
	fresh->flow_id = l7m_new_life();
	fresh->last_seen = (__u32)bpf_jiffies64();
	fresh->ring = l7m_choose_ring(p, s);
	if (s->outside_budget && !l7m_is_inside(met->out.key.addr[met->sender & 1]))
		fresh->flags |= L7M_FLOW_OUTSIDE;
	number = met->kept ? L7M_PROMISED(met->kept, L7M_FLOW_KEPT) : l7m_first_promise(met, s);
	number = l7m_forget_by(met, number);
	fresh->action = (__u32)number;
	fresh->state = (__u8)(number >> 32);
	fresh->flags |= (__u16)(number >> 40);
	l7m_count_candidate(fresh, met);
	l7m_note_origin(fresh, p, met->sender, l7m_met_side(met));
	if (!(l7m_config.flags & L7M_CFG_REPLAY) && l7m_times_handshake(fresh, p, met->sender))
		l7m_begin_handshake(fresh, l7m_met_us(met));
	/* Of a flow's first packet so much is wanted, whatever it is. */
	met->wanted.length = s->whole_snaplen;
	met->wanted.charge = 0;
	return 0;
}

/* l7m_put_candidate() by the hash of the key. Global as l7m_new_flow() is. */
__attribute__((noinline)) __u32 l7m_give_place(__u32 hash)
{
	struct l7m_met *met = l7m_scratch();
	struct l7m_spot spot;

	if (!met || !l7m_find_spot(hash, &spot))
		return L7M_NO_PLACE;
	return l7m_put_candidate(spot.set, spot.tag, met);
}

/* Has the record tell of the candidate as it is. */
static __always_inline void l7m_tell_candidate(struct l7m_met *met, const struct l7m_candidate *c)
{
	met->candidate = *c;
	met->out.count.packets[0] = c->count.packets[0];
	met->out.count.packets[1] = c->count.packets[1];
	met->out.count.bytes[0] = c->count.bytes[0];
	met->out.count.bytes[1] = c->count.bytes[1];
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
	struct l7m_candidate *c;
	struct l7m_flight *f;
	struct l7m_spot spot;
	struct l7m_verdict *v;
	struct l7m_export *what;
	__u32 zero = 0, at, now = (__u32)bpf_jiffies64();
	__u16 closing;
	int begun = 0;

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
	/* Signed: another CPU may have stamped it a tick later than our `now`. In a replay time
	 * does not pass as it did in the capture.
	 */
	if (!place || ((__s32)(now - place->value.last_seen) > L7M_CANDIDATE_LIFE &&
		       !(l7m_config.flags & L7M_CFG_REPLAY))) {
		/* A later fragment begins no flow: it has no ports of its own. */
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
		l7m_new_flow();
		l7m_pay();
		at = l7m_give_place(met->hash);
		if (at == L7M_NO_PLACE)
			return met->candidate.action;
		place = &spot.set->place[at & L7M_TAG_PLACE];
		/* Another CPU may have begun it. */
		begun = place->value.flow_id == met->candidate.flow_id;
	}
	c = &place->value;
	if (!begun) {
		c->last_seen = now;
		if (!c->count.packets[met->sender & 1] && met->sender != c->initiator)
			l7m_note_two_way(spot.set, place);
		if (p->fragment == L7M_FRAGMENT_LATER) {
			if (!(l7m_config.flags & L7M_CFG_REPLAY))
				l7m_count_candidate(c, met);
			return c->action;
		}
		l7m_count_candidate(c, met);
		if (!(l7m_config.flags & L7M_CFG_REPLAY) && l7m_times_handshake(c, p, met->sender))
			l7m_time_handshake(c, p, met->sender, l7m_met_us(met));
	}
	closing = l7m_close_candidate(c, p, met->sender, l7m_met_side(met));
	/* What follows is verified once, and not for each flag. */
	closing = (__u16)l7m_forget_by(met, closing);
	if (closing & L7M_FLOW_FORGED)
		l7m_count(L7M_COUNT_FORGED, 1);
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
	if (met->wanted.length && (met->payment != L7M_PAID || met->wanted.charge)) {
		met->candidate.initiator = c->initiator;
		met->candidate.flags = c->flags;
		l7m_pay();
	}
	what->wanted = met->wanted.length;
	if (what->wanted == 0) {
		if (!(closing & L7M_FLOW_CLOSING) || !l7m_has_ended(c->flags))
			return c->action;
		what->type = L7M_RECORD_NOTICE;
	}
	if (s->flags & L7M_SET_PAUSED) {
		l7m_count(L7M_COUNT_PAUSED, 1);
		return c->action;
	}
	l7m_tell_candidate(met, c);
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
