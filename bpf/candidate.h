/* SPDX-License-Identifier: GPL-2.0-only */
/* Flows without a verdict: begun, provisionally marked, sampled. Nothing here is on the hot path.
 */
#ifndef L7MARK_BPF_CANDIDATE_H
#define L7MARK_BPF_CANDIDATE_H

#include <l7mark/candidates.h>
#include <l7mark/ring.h>
#include <l7mark/sampling.h>
#include "export.h"
#include "maps.h"
#include "packet.h"

/* A candidate this old was left over: what comes now is another flow. */
#define L7M_CANDIDATE_LIFE 120000 /* jiffies: at least 120 s at any HZ */

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
	return (__u8)l7m_ring_of(p, l7m_is_inside(p->saddr), l7m_is_inside(p->daddr), s->rings);
}

static __always_inline const struct l7m_promise *l7m_find_service(const struct l7m_packet *p,
								  int server_sent)
{
	struct l7m_service_key key;

	__builtin_memcpy(key.server, server_sent ? p->saddr : p->daddr, sizeof(key.server));
	__builtin_memcpy(key.client, server_sent ? p->daddr : p->saddr, sizeof(key.client));
	key.port = server_sent ? p->sport : p->dport;
	key.protocol = p->protocol;
	key.reserved = 0;
	return bpf_map_lookup_elem(&services, &key);
}

static __always_inline const struct l7m_promise *l7m_find_hint(const __be32 *server)
{
	struct l7m_hint_key key;

	__builtin_memcpy(key.server, server, sizeof(key.server));
	return bpf_map_lookup_elem(&hints, &key);
}

/* Of a promise that holds, as one number: its action, the state that it gives, and who told. */
#define L7M_PROMISED(action, told)                                                                 \
	((__u64)(action) | (__u64)L7M_STATE_PROVISIONAL << 32 | (__u64)(told) << 40)

/*
 * What is known of a flow before any byte of it was looked at, 0 for nothing. Who is the server is
 * plain for a SYN; for anything else the other way round is tried too.
 */
static __always_inline __u64 l7m_find_promise(const struct l7m_packet *p,
					      const struct l7m_settings *s)
{
	int known = (p->tcp_flags & (L7M_TCP_SYN | L7M_TCP_ACK)) == L7M_TCP_SYN;
	const struct l7m_promise *promise;
	__u64 now = bpf_jiffies64();

	if (s->flags & L7M_SET_SERVICES) {
		promise = l7m_find_service(p, 0);
		if (!promise && !known)
			promise = l7m_find_service(p, 1);
		if (promise && promise->expires > now) {
			l7m_count(L7M_COUNT_BY_SERVICE, 1);
			return L7M_PROMISED(promise->action, L7M_FLOW_SERVICE);
		}
	}
	if (s->flags & L7M_SET_HINTS) {
		promise = l7m_find_hint(p->daddr);
		if (!promise && !known)
			promise = l7m_find_hint(p->saddr);
		if (promise && promise->expires > now) {
			l7m_count(L7M_COUNT_BY_HINT, 1);
			return L7M_PROMISED(promise->action, L7M_FLOW_HINT);
		}
	}
	return 0;
}

static __always_inline void l7m_count_packet(struct l7m_counters *count, const struct l7m_met *met)
{
	__u32 sender = met->sender & 1;

	count->packets[sender] += met->segments;
	count->bytes[sender] += met->bytes;
}

/* Where a flow is among the candidates, or would be. */
struct l7m_spot {
	struct l7m_candidate_set *set;
	__u32 tag; /* without the number of a place */
};

static __always_inline int l7m_find_spot(__u64 hash, struct l7m_spot *spot)
{
	__u32 index = l7m_candidate_set_of(hash, l7m_config.sets);

	spot->tag = l7m_candidate_tag(hash);
	spot->set = bpf_map_lookup_elem(&candidates, &index);
	return spot->set != 0;
}

static __always_inline int l7m_same_key(const struct l7m_key *a, const struct l7m_key *b)
{
	const __u32 *x = (const __u32 *)(const void *)a, *y = (const __u32 *)(const void *)b;
	__u32 differ = 0;
	int i;

#pragma unroll
	for (i = 0; i < 10; i++)
		differ |= x[i] ^ y[i];
	return differ == 0;
}

/*
 * Has the processor fetch the line of a set that a look-up reads, while it still waits for that of
 * the verdicts: a flow that is not there is a candidate. Returns 0 if there is no such set.
 */
static __always_inline int l7m_fetch_set(__u64 hash)
{
	struct l7m_spot spot;

	if (!l7m_find_spot(hash, &spot))
		return 0;
	(void)*(volatile __u32 *)&spot.set->tag[0];
	return 1;
}

/* Of its own: both families' ways through it end in one state for the verifier. */
static __noinline __u64 l7m_hash_of(const struct l7m_key *key, __u32 seed)
{
	return key ? l7m_candidate_hash(key, seed) : 0;
}

/*
 * The flow's place, 0 if it has none. The place's number comes out of its tag, not out of the loop:
 * what is loaded is just a number to the verifier, and all ways out of here are one.
 */
static __noinline struct l7m_candidate_place *l7m_find_place(struct l7m_candidate_set *set,
							     __u32 tag, const struct l7m_key *key)
{
	struct l7m_candidate_place *place;
	__u32 i, found;

	if (!set)
		return 0;
#pragma unroll
	for (i = 0; i < L7M_WAYS; i++) {
		found = *(volatile __u32 *)&set->tag[i];
		if ((found & ~L7M_TAG_PLACE) != tag)
			continue;
		place = &set->place[found & L7M_TAG_PLACE];
		if (l7m_same_key(&place->key, key))
			return place;
	}
	return 0;
}

static __always_inline struct l7m_candidate *l7m_find_candidate(const struct l7m_key *key,
								__u64 hash)
{
	struct l7m_candidate_place *place;
	struct l7m_spot spot;

	if (!l7m_find_spot(hash, &spot))
		return 0;
	place = l7m_find_place(spot.set, spot.tag, key);
	return place ? &place->value : 0;
}

/*
 * Gives the flow a place: its own if it has one, else a free one, else that of the flow which came
 * first. The caller has looked without the lock; another CPU may have been faster.
 */
static __noinline struct l7m_candidate *l7m_put_candidate(struct l7m_candidate_set *set, __u32 tag,
							  const struct l7m_key *key,
							  const struct l7m_candidate *value)
{
	struct l7m_candidate_place *place;
	__u32 i, at, found, evicted = 0;

	if (!set)
		return 0;
	bpf_spin_lock(&set->lock);
	at = *(volatile __u32 *)&set->next;
	evicted = 1;
#pragma unroll
	for (i = 0; i < L7M_WAYS; i++) {
		found = *(volatile __u32 *)&set->tag[i];
		if (!found) {
			at = i;
			evicted = 0;
		} else if ((found & ~L7M_TAG_PLACE) == tag &&
			   l7m_same_key(&set->place[i].key, key)) {
			at = i;
			evicted = 0;
			break;
		}
	}
	at &= L7M_TAG_PLACE;
	if (evicted)
		set->next = at + 1;
	place = &set->place[at];
	/* No packet finds a place that is half written. */
	*(volatile __u32 *)&set->tag[at] = 0;
	if (evicted)
		evicted = value->last_seen - place->value.last_seen <= L7M_CANDIDATE_LIFE;
	place->key = *key;
	place->value = *value;
	*(volatile __u32 *)&set->tag[at] = tag | at;
	bpf_spin_unlock(&set->lock);
	if (evicted)
		l7m_count(L7M_COUNT_CANDIDATE_EVICTED, 1);
	return &place->value;
}

/* The candidate as it is, and its place given back. Returns 1 if there was one. */
static __noinline int l7m_take_candidate(struct l7m_candidate_set *set, __u32 tag,
					 const struct l7m_key *key, struct l7m_candidate *out)
{
	int taken = 0;
	__u32 i;

	if (!set)
		return 0;
	bpf_spin_lock(&set->lock);
#pragma unroll
	for (i = 0; i < L7M_WAYS; i++) {
		if ((set->tag[i] & ~L7M_TAG_PLACE) == tag &&
		    l7m_same_key(&set->place[i].key, key)) {
			*out = set->place[i].value;
			set->tag[i] = 0;
			taken = 1;
			break;
		}
	}
	bpf_spin_unlock(&set->lock);
	return taken;
}

static __always_inline struct l7m_verdict *l7m_find_verdict(struct l7m_met *met)
{
	if (met->packet.version == 4) {
		struct l7m_key4 key;

		met->sender = (__u32)l7m_make_key4(&met->packet, &key);
		return bpf_map_lookup_elem(&flows4, &key);
	} else {
		struct l7m_key key;

		met->sender = (__u32)l7m_make_key(&met->packet, &key);
		return bpf_map_lookup_elem(&flows6, &key);
	}
}

static __always_inline struct l7m_verdict *l7m_verdict_of(const struct l7m_key *key)
{
	struct l7m_key4 key4;

	if (!l7m_key_is_v4(key))
		return bpf_map_lookup_elem(&flows6, key);
	l7m_key_to_v4(key, &key4);
	return bpf_map_lookup_elem(&flows4, &key4);
}

static __always_inline void l7m_count_verdict(struct l7m_verdict *v, const struct l7m_met *met)
{
	l7m_count_packet(&v->count, met);
	v->last_seen = (__u32)bpf_jiffies64();
}

/* The flow's first packet. Returns the index of its action. */
static __noinline __u32 l7m_new_flow(void *ctx, struct l7m_met *met, struct l7m_export *what,
				     const struct l7m_settings *s, const struct l7m_spot *spot)
{
	const struct l7m_packet *p = &met->packet;
	struct l7m_candidate fresh = {};
	struct l7m_candidate *c;
	__u64 number;

	l7m_begin_candidate(&fresh, p, (int)met->sender, s);
	fresh.last_seen = (__u32)bpf_jiffies64();
	fresh.id = bpf_get_prandom_u32();
	fresh.ring = l7m_choose_ring(p, s);
	fresh.flags |= l7m_closing_flags(p, (int)met->sender);
	number = l7m_forget_by(met, l7m_find_promise(p, s));
	fresh.action = (__u32)number;
	fresh.state = (__u8)(number >> 32);
	fresh.flags |= (__u8)(number >> 40);
	l7m_count_packet(&fresh.count, met);
	what->length = l7m_sample_length(&fresh, p, s);
	what->flags |= L7M_SAMPLE_FIRST;
	/* As if the copy had gone out: it nearly always does, and a second look-up is saved. */
	l7m_count_sample(&fresh, p, s);
	number = l7m_forget_by(met, (__u64)fresh.sampled << 8 | fresh.whole);
	fresh.whole = (__u8)number;
	fresh.sampled = (__u8)(number >> 8);
	what->sampled = fresh.sampled;
	if (fresh.sampled >= fresh.packets)
		what->flags |= L7M_SAMPLE_LAST;
	c = l7m_put_candidate(spot->set, spot->tag, &what->key, &fresh);
	l7m_count(L7M_COUNT_NEW_FLOW, 1);
	if (s->flags & L7M_SET_PAUSED)
		l7m_count(L7M_COUNT_PAUSED, 1);
	else if (!l7m_export(ctx, what, met, &fresh))
		return fresh.action;
	if (c) {
		c->first_sent = 0;
		c->sampled = 0;
	}
	return fresh.action;
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
	struct l7m_spot spot;
	struct l7m_verdict *v;
	struct l7m_export what = {.type = L7M_RECORD_SAMPLE};
	__u32 zero = 0, now = (__u32)bpf_jiffies64();
	__u8 closing;

	s = bpf_map_lookup_elem(&settings, &zero);
	if (!s || !met)
		return 0;
	p = &met->packet;
	met->sender = (__u32)l7m_make_key(p, &what.key);
	if (p->tcp_flags & L7M_TCP_FIN)
		what.flags |= L7M_SAMPLE_FIN;
	if (p->tcp_flags & L7M_TCP_RST)
		what.flags |= L7M_SAMPLE_RST;

	if (!l7m_find_spot(met->hash, &spot))
		return 0;
	place = l7m_find_place(spot.set, spot.tag, &what.key);
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
		v = p->tcp_flags & L7M_TCP_SYN ? 0 : l7m_verdict_of(&what.key);
		if (v) {
			l7m_count_verdict(v, met);
			return v->action;
		}
		return l7m_new_flow(ctx, met, &what, s, &spot);
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
	what.length = l7m_sample_length(c, p, s);
	if (what.length == 0) {
		if (!closing || !l7m_is_closed(c->flags) || (c->flags & L7M_FLOW_BARRED))
			return c->action;
		what.type = L7M_RECORD_NOTICE;
	}
	if (s->flags & L7M_SET_PAUSED) {
		l7m_count(L7M_COUNT_PAUSED, 1);
		return c->action;
	}
	if (what.type == L7M_RECORD_SAMPLE) {
		/* Two CPUs may both pass here for one flow: a packet more is copied, no harm. */
		if (!c->first_sent)
			what.flags |= L7M_SAMPLE_FIRST;
		what.sampled = l7m_sampled_with(c, p);
		if (what.sampled >= c->packets)
			what.flags |= L7M_SAMPLE_LAST;
		if (!l7m_export(ctx, &what, met, c))
			l7m_count_sample(c, p, s);
		return c->action;
	}
	what.sampled = c->sampled;
	l7m_export(ctx, &what, met, c);
	return c->action;
}

#endif /* L7MARK_BPF_CANDIDATE_H */
