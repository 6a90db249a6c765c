/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The way of a packet that the hot path does not take: new flows and samples, SYN, FIN and RST,
 * fragments, tunnels, and whatever has more headers than the usual.
 */
#ifndef L7MARK_BPF_FLOW_H
#define L7MARK_BPF_FLOW_H

#include "candidate.h"
#include "candidate_table.h"
#include "export.h"
#include "fragment.h"
#include "hook.h"
#include "maps.h"
#include "packet.h"
#include "sample.h"
#include "verdict_table.h"

#define l7m_unlikely(x) __builtin_expect(!!(x), 0)

#define L7M_NO_ACTION 0xffffffffU /* not a flow: pass it untouched */
#define L7M_HIDDEN    0xfffffffeU /* it may be one that a class drops: drop it */
#define L7M_CANDIDATE 0xfffffffdU /* no verdict: l7m_candidate_packet() tells the action */

/* Of a packet whose flow can't be told: passed, unless that would be a way around a drop. */
static __always_inline __u32 l7m_untracked(__u32 hook)
{
	const struct l7m_settings *s;
	__u32 zero = 0;

	if (hook & L7M_HOOK_COUNT)
		l7m_count(L7M_COUNT_UNTRACKED, 1);
	s = bpf_map_lookup_elem(&settings, &zero);
	return s && (s->flags & L7M_SET_DROPS) ? L7M_HIDDEN : L7M_NO_ACTION;
}

/* How a verdict makes way for a candidate. */
enum {
	L7M_REOPEN_NOT = 0,
	L7M_REOPEN_NEW,	  /* a SYN on a closed flow's five-tuple begins another life */
	L7M_REOPEN_AGAIN, /* the same life, looked at again */
};

/* The candidate that goes on with the verdict's life. */
static __always_inline void l7m_look_again(struct l7m_met *met, const struct l7m_verdict *v,
					   const struct l7m_settings *s)
{
	struct l7m_candidate *c = &met->candidate;

	c->packets = (__u8)s->packets;
	c->whole = (__u8)s->whole;
	c->action = v->action;
	c->state = v->state;
	c->flags |= L7M_FLOW_AGAIN;
	c->hop_limit[0] = v->hop_limit[0];
	c->hop_limit[1] = v->hop_limit[1];
	c->sides = v->sides;
	c->last_seen = (__u32)bpf_jiffies64();
}

/*
 * Tells userspace what the verdict counted, and forgets it: the packet goes on as a candidate's.
 * Returns 0 if the verdict stays: userspace must not go on by one that is gone.
 */
static __noinline int l7m_reopen(l7m_ctx *ctx, struct l7m_met *met, const struct l7m_verdict *v,
				 __u32 how)
{
	struct l7m_export *what = &met->out;
	struct l7m_candidate *c = &met->candidate;
	const struct l7m_settings *s;
	__u32 zero = 0;

	s = bpf_map_lookup_elem(&settings, &zero);
	if (!s)
		return 0;
	what->type = L7M_RECORD_REOPEN;
	what->flags = 0;
	what->wanted = 0;
	what->sampled = 0;
	l7m_make_key(&met->packet, &what->key);
	__builtin_memset(c, 0, sizeof(*c));
	what->count = v->count;
	c->flow_id = v->flow_id;
	c->initiator = v->initiator;
	c->flags = v->flags;
	c->ring = l7m_choose_ring(&met->packet, s);
	if (how == L7M_REOPEN_AGAIN) {
		l7m_look_again(met, v, s);
		if (s->flags & L7M_SET_PAUSED || l7m_export(ctx) ||
		    l7m_give_place(l7m_hash_of(&what->key, s)) == L7M_NO_PLACE)
			return 0;
	} else {
		if (v->action >= L7M_STATES)
			met->kept = (v->action & ~(__u32)(L7M_STATES - 1)) | L7M_STATE_PROVISIONAL;
		if (!(s->flags & L7M_SET_PAUSED))
			l7m_export(ctx);
		l7m_count(L7M_COUNT_REOPENED, 1);
	}
	l7m_remove_verdict(&what->key);
	return 1;
}

/* FIN and RST of a decided flow, believed and not counted yet. */
static __always_inline void l7m_close_verdict(struct l7m_verdict *v, const struct l7m_met *met,
					      __u16 closing)
{
	if (!l7m_is_closing(v) && l7m_has_ended(v->flags))
		v->flags &= (__u16)~L7M_FLOW_CLOSING;
	v->flags |= closing;
	v->closing = (__u16)(v->count.packets[0] + v->count.packets[1] + met->segments);
}

/*
 * SYN, FIN and RST of a decided flow. Nobody else's may end it: one that is not from where its
 * sender is changes nothing but L7M_FLOW_FORGED. A SYN on an open flow is that of another only if
 * the other endpoint takes it: in the middle of a connection it does not (RFC 5961, 4).
 */
static __always_inline __u32 l7m_tcp_event(const struct l7m_met *met, struct l7m_verdict *v)
{
	const struct l7m_packet *p = &met->packet;
	__u16 closing = l7m_closing_flags(p, (int)met->sender);
	__u16 mine = met->sender ? L7M_FLOW_SYN1 : L7M_FLOW_SYN0;
	int syn = p->tcp_flags & L7M_TCP_SYN, ack = p->tcp_flags & L7M_TCP_ACK;

	if (syn && (l7m_config.flags & L7M_CFG_REPLAY || !v->flow_id))
		return L7M_REOPEN_NOT;
	if (syn && !ack && l7m_is_closing(v))
		return L7M_REOPEN_NEW;
	if (syn && ack && !(v->flags & (mine ^ (L7M_FLOW_SYN0 | L7M_FLOW_SYN1))))
		return L7M_REOPEN_NOT;
	if (!l7m_is_from(v->hop_limit, v->sides, p, met->sender, l7m_met_side(met))) {
		/* One that was believed may be met once more, on its way out. */
		if ((closing | (syn ? mine : 0)) & ~v->flags) {
			v->flags |= L7M_FLOW_FORGED;
			l7m_count(L7M_COUNT_FORGED, 1);
		}
		return L7M_REOPEN_NOT;
	}
	if (syn && ack)
		return L7M_REOPEN_NEW;
	if (syn)
		v->flags |= mine;
	else
		l7m_close_verdict(v, met, closing);
	return L7M_REOPEN_NOT;
}

static __noinline __u32 l7m_verdict_event(const struct l7m_met *met, struct l7m_verdict *v)
{
	const struct l7m_packet *p = &met->packet;

	if (p->tcp_flags & (L7M_TCP_SYN | L7M_TCP_FIN | L7M_TCP_RST))
		return l7m_tcp_event(met, v);
	/* A bare ACK tells nothing: the next packet with payload is looked at. */
	return p->payload && l7m_is_due(v, met->sender) ? L7M_REOPEN_AGAIN : L7M_REOPEN_NOT;
}

/* The action of the flow that has no VLAN and else this key; 0 if there is none. */
static __noinline __u32 l7m_without_vlan(struct l7m_key *key, const struct l7m_settings *s)
{
	const struct l7m_candidate *c;
	const struct l7m_verdict *v;

	if (!key || !s)
		return 0;
	l7m_copy_tags(key->vlan, 0);
	v = l7m_verdict_of(key);
	if (v)
		return v->action;
	c = l7m_find_candidate(key, l7m_hash_of(key, s));
	return c ? c->action : 0;
}

/* From a parsed packet to the index of its action, or L7M_CANDIDATE. */
static __noinline __u32 l7m_decide(l7m_ctx *ctx, struct l7m_met *met)
{
	int count = met->hook & L7M_HOOK_COUNT;
	const struct l7m_settings *s;
	const struct l7m_candidate *c;
	struct l7m_verdict *v;
	struct l7m_key key;
	__u32 zero = 0, how;

	l7m_map_ipv4(&met->packet);
	if (met->packet.fragment == L7M_FRAGMENT_FIRST)
		l7m_first_fragment(met);
	else if (met->packet.fragment == L7M_FRAGMENT_LATER && !l7m_later_fragment(met))
		return L7M_NO_ACTION;

	v = l7m_find_verdict(met);
	if (v && count) {
		/* One way for the verifier from here on, and not one for each reason. */
		how = (__u32)l7m_forget_by(met, l7m_verdict_event(met, v));
		if (how && l7m_reopen(ctx, met, v, how))
			v = 0;
	}
	if (v) {
		if (count && !(met->packet.fragment == L7M_FRAGMENT_LATER &&
			       (l7m_config.flags & L7M_CFG_REPLAY))) {
			l7m_count_verdict(v, met);
		}
		return v->action;
	}
	s = bpf_map_lookup_elem(&settings, &zero);
	if (!s)
		return 0;
	l7m_make_key(&met->packet, &key);
	met->hash = l7m_hash_of(&key, s);
	if (!count) {
		c = l7m_find_candidate(&key, met->hash);
		if (!c && (met->hook & L7M_HOOK_ROUTED) && met->packet.tags)
			return l7m_without_vlan(&key, s);
		return c ? c->action : 0;
	}
	return L7M_CANDIDATE;
}

/*
 * The entry to all that: an l7m_parse_packet() of the hook fills the scratch entry before. Returns
 * the index of the action, or L7M_CANDIDATE of a packet that is to be counted. Global in TC, so
 * that it is verified once and not with every program and state that calls it.
 */
L7M_FUNCTION __u32 l7m_slow_path(l7m_ctx *ctx, __u32 hook)
{
	struct l7m_met *met = l7m_scratch();
	int result;

	if (!met)
		return L7M_NO_ACTION;
	result = l7m_parse_packet(ctx, hook);
	if (result == L7M_PARSE_SHORT && !l7m_pull(ctx, L7M_PULL))
		result = l7m_parse_packet(ctx, hook);
	if (result == L7M_PARSE_SHORT && !l7m_pull(ctx, L7M_PULL_ALL))
		result = l7m_parse_packet(ctx, hook);
	if (result == L7M_PARSE_HIDDEN ||
	    (result == L7M_PARSE_SHORT && met->packet.fragment == L7M_FRAGMENT_FIRST))
		return l7m_untracked(hook);
	if (result != L7M_PARSE_OK) {
		/* What XDP has counted is not counted again behind it. */
		if (hook & L7M_HOOK_COUNT)
			l7m_count(result == L7M_PARSE_NOT_IP ? L7M_COUNT_NOT_IP
							     : L7M_COUNT_MALFORMED,
				  1);
		return L7M_NO_ACTION;
	}
	return l7m_decide(ctx, met);
}

#endif /* L7MARK_BPF_FLOW_H */
