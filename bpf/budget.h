/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The endpoint that began a flow pays for what is copied of it, and flows begun from outside have a
 * budget together, so that nobody keeps the workers from looking at other flows. Above a budget
 * nothing is copied, and all else goes on.
 */
#ifndef L7MARK_BPF_BUDGET_H
#define L7MARK_BPF_BUDGET_H

#include "maps.h"
#include "packet.h"
#include <l7mark/budgets.h>

/* Bytes that a record takes in the ring beside what is copied. */
#define L7M_RECORD_COST ((__u32)sizeof(struct l7m_sample))

static __always_inline int l7m_is_inside(const __be32 *address)
{
	struct l7m_prefix_key key = {.length = 128};

	__builtin_memcpy(key.addr, address, sizeof(key.addr));
	return bpf_map_lookup_elem(&inside, &key) != 0;
}

/* Who pays: not the packet's sender, for all clients of a server would share what it has. */
static __always_inline void l7m_payer(const struct l7m_met *met, struct l7m_source_key *out)
{
	const __be32 *from = met->out.key.addr[met->candidate.initiator & 1];
	__u32 host = 0U - (met->packet.version == 4);

	out->addr[0] = from[0];
	out->addr[1] = from[1];
	out->addr[2] = from[2] & host;
	out->addr[3] = from[3] & host;
}

static __always_inline __u32 l7m_this_second(const struct l7m_settings *s)
{
	return (__u32)bpf_jiffies64() / s->hz;
}

/* 1 if the two are not the same. Without a branch: each would double the verifier's states. */
static __always_inline __u32 l7m_differ(__u32 a, __u32 b)
{
	__u64 differ = a ^ b;

	differ += 0xffffffffU;
	asm volatile("" : "+r"(differ));
	return (__u32)(differ >> 32);
}

static __always_inline __u32 l7m_spent(const struct l7m_budget *budget, __u32 second, __u32 kind)
{
	return budget->spent[kind & 1] & (l7m_differ(budget->second, second) - 1);
}

/* Two CPUs at once may count for one: what a source has copied is more by some packets then. */
static __always_inline void l7m_note_spent(struct l7m_budget *budget, __u32 second, __u32 kind,
					   __u32 spent)
{
	__u32 same = l7m_differ(budget->second, second) - 1;

	budget->spent[0] &= same;
	budget->spent[1] &= same;
	budget->spent[kind & 1] = spent;
	budget->second = second;
}

/* The place of the source with the tag, else that with the least spent. */
static __always_inline struct l7m_budget *l7m_budget_of(struct l7m_budget_set *set, __u32 tag,
							__u32 second)
{
	__u64 best = ~0ULL >> 1, worth, less;
	__u32 i;

#pragma unroll
	for (i = 0; i < L7M_BUDGET_WAYS; i++) {
		worth = l7m_spent(&set->place[i], second, L7M_BUDGET_SAMPLES) + 1;
		worth *= l7m_differ(set->place[i].tag, tag);
		worth = worth << 2 | i;
		/* The lower of the two, without a branch. */
		less = worth - best;
		asm volatile("" : "+r"(less));
		best += less & (__u64)((__s64)less >> 63);
	}
	return &set->place[best & (L7M_BUDGET_WAYS - 1)];
}

/*
 * Has who began the flow of met->candidate pay so many bytes. Returns 0 if they are not left of
 * `limit`. In a replay time does not pass as it did in the capture.
 */
static __noinline int l7m_spend(const struct l7m_met *met, const struct l7m_settings *s, __u32 kind,
				__u32 bytes, __u32 limit)
{
	struct l7m_source_key payer;
	struct l7m_budget *budget;
	struct l7m_budget_set *set;
	__u32 tag, index, second, spent;

	if (!met || !s || (l7m_config.flags & L7M_CFG_REPLAY))
		return 1;
	l7m_payer(met, &payer);
	tag = l7m_source_hash(&payer, &s->secrets);
	index = l7m_budget_set_of(tag);
	set = bpf_map_lookup_elem(&budgets, &index);
	if (!set)
		return 1;
	second = l7m_this_second(s);
	budget = l7m_budget_of(set, tag, second);
	spent = l7m_spent(budget, second, kind) + bytes;
	if (spent > limit)
		return 0;
	budget->tag = tag;
	l7m_note_spent(budget, second, kind, spent);
	return 1;
}

/* The same for all flows begun from outside. */
static __always_inline int l7m_spend_outside(const struct l7m_settings *s, __u32 bytes, __u32 limit)
{
	__u32 index = L7M_BUDGET_SETS, second, spent;
	struct l7m_budget_set *set;

	set = bpf_map_lookup_elem(&budgets, &index);
	if (!set || (l7m_config.flags & L7M_CFG_REPLAY))
		return 1;
	second = l7m_this_second(s);
	spent = l7m_spent(&set->place[0], second, L7M_BUDGET_SAMPLES) + bytes;
	if (spent > limit)
		return 0;
	l7m_note_spent(&set->place[0], second, L7M_BUDGET_SAMPLES, spent);
	return 1;
}

/* For `l7mark status`. */
static __always_inline void l7m_name_source(const struct l7m_met *met, const struct l7m_settings *s,
					    __u32 bytes)
{
	struct l7m_source fresh = {.packets = 1, .bytes = bytes};
	struct l7m_source_key key = {};
	struct l7m_source *source;

	if (met->payment == L7M_UNPAID_SOURCE)
		l7m_payer(met, &key);
	fresh.since = fresh.last = l7m_this_second(s);
	source = bpf_map_lookup_elem(&sources, &key);
	if (!source || (__s32)(fresh.last - source->last) > L7M_SOURCE_FORGOTTEN) {
		bpf_map_update_elem(&sources, &key, &fresh, BPF_ANY);
		return;
	}
	source->last = fresh.last;
	source->packets++;
	source->bytes += bytes;
}

/*
 * Has the packet of the scratch entry be paid for by who began the flow of met->candidate: up to
 * `most` bytes of it, and the record. met->payment tells the result.
 */
L7M_FUNCTION int l7m_pay(__u32 most)
{
	struct l7m_met *met = l7m_scratch();
	const struct l7m_settings *s;
	__u32 zero = 0, bytes, why;

	s = bpf_map_lookup_elem(&settings, &zero);
	if (!met || !s)
		return -1;
	/* Then nothing is copied anyway. */
	if (s->flags & L7M_SET_PAUSED)
		return 0;
	bytes = (met->frame < most ? met->frame : most) + L7M_RECORD_COST;
	why = L7M_PAID;
	if (s->source_budget && !l7m_spend(met, s, L7M_BUDGET_SAMPLES, bytes, s->source_budget))
		why = L7M_UNPAID_SOURCE;
	else if ((met->candidate.flags & L7M_FLOW_OUTSIDE) && s->outside_budget &&
		 !l7m_spend_outside(s, bytes, s->outside_budget))
		why = L7M_UNPAID_OUTSIDE;
	met->payment = why;
	if (why == L7M_PAID)
		return 0;
	l7m_count(why == L7M_UNPAID_SOURCE ? L7M_COUNT_SOURCE_REFUSED : L7M_COUNT_OUTSIDE_REFUSED,
		  1);
	l7m_name_source(met, s, bytes);
	return 0;
}

#endif /* L7MARK_BPF_BUDGET_H */
