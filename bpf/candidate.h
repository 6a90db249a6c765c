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
 * Gives the flow of the scratch entry a place: its own if it has one, else a free one, else that of
 * the flow which came first. The caller has looked without the lock; another CPU may have been
 * faster.
 */
static __noinline struct l7m_candidate_place *l7m_put_candidate(struct l7m_candidate_set *set,
								__u32 tag, struct l7m_met *met)
{
	const struct l7m_key *key = &met->out.key;
	const struct l7m_candidate *value = &met->candidate;
	struct l7m_candidate_place *place;
	__u32 i, at, found, evicted = 0;
	__u64 number;

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
	/*
	 * Reloaded from a map the two are unknown to the verifier. It would otherwise follow each
	 * of the eight places that the loop can end with up to the program's end.
	 */
	number = l7m_forget_by(met, (__u64)evicted << 32 | at);
	evicted = (__u32)(number >> 32);
	at = (__u32)number & L7M_TAG_PLACE;
	if (evicted)
		set->next = at + 1;
	place = &set->place[at];
	/* No packet finds a place that is half written. */
	*(volatile __u32 *)&set->tag[at] = 0;
	if (evicted)
		evicted = value->last_seen - place->value.last_seen <= L7M_CANDIDATE_LIFE;
	place->key = *key;
	place->value = *value;
	/* The other endpoint has sent nothing yet. */
	place->flight[value->initiator & 1] = met->flight;
	place->flight[~value->initiator & 1] = (struct l7m_flight){};
	*(volatile __u32 *)&set->tag[at] = tag | at;
	bpf_spin_unlock(&set->lock);
	if (evicted)
		l7m_count(L7M_COUNT_CANDIDATE_EVICTED, 1);
	return place;
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
