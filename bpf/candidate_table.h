/* SPDX-License-Identifier: GPL-2.0-only */
/* The table of candidates: sets of places, in which a flow is found, put and taken out. */
#ifndef L7MARK_BPF_CANDIDATE_TABLE_H
#define L7MARK_BPF_CANDIDATE_TABLE_H

#include "maps.h"
#include "packet.h"
#include <l7mark/candidates.h>
#include <l7mark/control.h>

/* A candidate this old was left over: what comes now is another flow. */
#define L7M_CANDIDATE_LIFE 120000 /* jiffies: at least 120 s at any HZ */

#define L7M_NO_PLACE 0xffffffffU /* a flow that gets none */

/* How a flow comes to its place. */
enum { L7M_PUT_FREE, L7M_PUT_FOUND, L7M_PUT_EVICTS, L7M_PUT_EVICTS_TWO_WAY };

/* Where a flow is among the candidates, or would be. */
struct l7m_spot {
	struct l7m_candidate_set *set;
	__u32 tag; /* without the number of a place */
};

static __always_inline int l7m_find_spot(__u32 hash, struct l7m_spot *spot)
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
static __always_inline int l7m_fetch_set(__u32 hash)
{
	struct l7m_spot spot;

	if (!l7m_find_spot(hash, &spot))
		return 0;
	(void)*(volatile __u32 *)&spot.set->tag[0];
	return 1;
}

/* Of its own: both families' ways through it end in one state for the verifier. */
static __noinline __u32 l7m_hash_of(const struct l7m_key *key, const struct l7m_settings *s)
{
	return l7m_candidate_hash(key, &s->secrets);
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
								__u32 hash)
{
	struct l7m_candidate_place *place;
	struct l7m_spot spot;

	if (!l7m_find_spot(hash, &spot))
		return 0;
	place = l7m_find_place(spot.set, spot.tag, key);
	return place ? &place->value : 0;
}

/* The other endpoint has answered. A byte of its own: no lock, and no harm if the place has just
 * been given to another flow.
 */
static __always_inline void l7m_note_two_way(struct l7m_candidate_set *set,
					     const struct l7m_candidate_place *place)
{
	set->two_way[(place - set->place) & L7M_TAG_PLACE] = 1;
}

/*
 * The place that makes way: the first from `next` on whose flow is one-way, `next` itself if there
 * is none. Without a branch: each would be another state for the verifier to follow.
 */
static __always_inline __u32 l7m_choose_victim(const struct l7m_candidate_set *set)
{
	const __u64 ones = 0x0101010101010101ULL;
	__u32 i, next = set->next & L7M_TAG_PLACE;
	__u64 one_way = 0;

#pragma unroll
	for (i = 0; i < L7M_WAYS; i++)
		one_way |= (__u64)(set->two_way[i] ^ 1) << (8 * i);
	one_way = one_way >> (8 * next) | one_way << (-8 * next & 63);
	/* The bytes below the first that is set, counted: all eight if none is. */
	one_way &= -one_way;
	return next + (__u32)(((one_way - 1) & ones) * ones >> 56);
}

/*
 * Gives the flow of the scratch entry a place, and returns its number: a free one, else that of a
 * left-over or of the flow that l7m_choose_victim() finds. For a flow above a budget none makes
 * way, unless its class is known nowhere else any more: returns L7M_NO_PLACE then. The caller has
 * looked without the lock. If another CPU was faster the flow has a place already, with an id and
 * an action that a record may have told: that one is returned as it is.
 */
static __always_inline __u32 l7m_put_candidate(struct l7m_candidate_set *set, __u32 tag,
					       struct l7m_met *met)
{
	const struct l7m_key *key = &met->out.key;
	const struct l7m_candidate *value = &met->candidate;
	struct l7m_candidate_place *place;
	__u32 i, at, aged, found, how;
	__u64 number;

	bpf_spin_lock(&set->lock);
	at = l7m_choose_victim(set);
	how = L7M_PUT_EVICTS;
#pragma unroll
	for (i = 0; i < L7M_WAYS; i++) {
		found = *(volatile __u32 *)&set->tag[i];
		if (!found) {
			at = i;
			how = L7M_PUT_FREE;
		} else if ((found & ~L7M_TAG_PLACE) == tag &&
			   l7m_same_key(&set->place[i].key, key)) {
			at = i;
			how = L7M_PUT_FOUND;
			break;
		}
	}
	/*
	 * Reloaded from a map the two are unknown to the verifier. It would otherwise follow each
	 * of the eight places that the loop can end with up to the program's end.
	 */
	number = l7m_forget_by(met, (__u64)how << 32 | at);
	how = (__u32)(number >> 32);
	at = (__u32)number & L7M_TAG_PLACE;
	place = &set->place[at];
	if (how == L7M_PUT_FOUND &&
	    (__s32)(value->last_seen - place->value.last_seen) <= L7M_CANDIDATE_LIFE) {
		bpf_spin_unlock(&set->lock);
		return at;
	}
	if (how == L7M_PUT_EVICTS) {
		/* A two-way flow that nobody ended must not stay for ever: all ages get a look. */
		aged = set->aged++ & L7M_TAG_PLACE;
		if ((__s32)(value->last_seen - set->place[aged].value.last_seen) >
		    L7M_CANDIDATE_LIFE)
			at = aged;
		else
			set->next = at + 1;
		place = &set->place[at];
		how += set->two_way[at] & 1;
		if ((__s32)(value->last_seen - place->value.last_seen) > L7M_CANDIDATE_LIFE)
			how = L7M_PUT_FREE;
	}
	if (how >= L7M_PUT_EVICTS && met->payment > L7M_PAID && !met->kept) {
		bpf_spin_unlock(&set->lock);
		l7m_count(L7M_COUNT_CANDIDATE_REFUSED, 1);
		return L7M_NO_PLACE;
	}
	/* No packet finds a place that is half written. */
	*(volatile __u32 *)&set->tag[at] = 0;
	/* One that had a verdict may be known to be two-way. */
	set->two_way[at] = l7m_known_side(value->sides, 0) && l7m_known_side(value->sides, 1);
	place->key = *key;
	place->value = *value;
	place->flight[0] = (struct l7m_flight){};
	place->flight[1] = (struct l7m_flight){};
	/*
	 * Where stores may be seen in another order (arm64), a packet on another CPU that finds the
	 * tag must find the place whole. Unlocking is a release and locking an acquire, so what is
	 * stored before the two is seen before what is stored behind them; on the finding side the
	 * place's address depends on the tag. Meanwhile the place is free, and may be taken.
	 */
	if (l7m_config.flags & L7M_CFG_WEAK_ORDER) {
		bpf_spin_unlock(&set->lock);
		bpf_spin_lock(&set->lock);
		found = *(volatile __u32 *)&set->tag[at];
		if (!l7m_same_key(&place->key, key)) {
			/* Another flow has it: ours begins with its next packet. */
			bpf_spin_unlock(&set->lock);
			return L7M_NO_PLACE;
		}
		if (found) {
			bpf_spin_unlock(&set->lock);
			return at;
		}
	}
	*(volatile __u32 *)&set->tag[at] = tag | at;
	bpf_spin_unlock(&set->lock);
	if (how >= L7M_PUT_EVICTS)
		l7m_count(how == L7M_PUT_EVICTS ? L7M_COUNT_CANDIDATE_EVICTED_ONE_WAY
						: L7M_COUNT_CANDIDATE_EVICTED_TWO_WAY,
			  1);
	l7m_count(value->flags & L7M_FLOW_AGAIN ? L7M_COUNT_LOOKED_AGAIN : L7M_COUNT_NEW_FLOW, 1);
	return at;
}

static __always_inline int l7m_has_counted(const struct l7m_candidate *now,
					   const struct l7m_candidate *then)
{
	return now->count.packets[0] != then->count.packets[0] ||
	       now->count.packets[1] != then->count.packets[1];
}

/*
 * The candidate of the step's life as it is, and its place given back. With `unchanged` only if it
 * has counted as many packets as the step's; what it has counted then goes there. Returns
 * L7M_SETTLE_TOOK, _STALE or _BUSY, or 0 if there is none.
 */
static __noinline int l7m_take_candidate(struct l7m_candidate_set *set, __u32 tag,
					 struct l7m_settlement *step, int unchanged)
{
	struct l7m_candidate_place *place = 0;
	__u32 i, found, at = 0;
	int result;

	if (!set || !step)
		return 0;
	bpf_spin_lock(&set->lock);
	/* The place's number comes out of its tag, as in l7m_find_place(). */
#pragma unroll
	for (i = 0; i < L7M_WAYS; i++) {
		found = *(volatile __u32 *)&set->tag[i];
		if ((found & ~L7M_TAG_PLACE) != tag)
			continue;
		at = found & L7M_TAG_PLACE;
		if (l7m_same_key(&set->place[at].key, &step->key)) {
			place = &set->place[at];
			break;
		}
	}
	if (!place) {
		result = 0;
	} else if (place->value.flow_id != step->flow_id) {
		result = L7M_SETTLE_STALE;
	} else if (unchanged && l7m_has_counted(&place->value, &step->candidate)) {
		step->candidate = place->value;
		result = L7M_SETTLE_BUSY;
	} else {
		step->candidate = place->value;
		set->tag[at] = 0;
		result = L7M_SETTLE_TOOK;
	}
	bpf_spin_unlock(&set->lock);
	return result;
}

#endif /* L7MARK_BPF_CANDIDATE_TABLE_H */
