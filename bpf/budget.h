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
#include <l7mark/sampling.h>

/* Bytes that a record takes in the ring beside what is copied. */
#define L7M_RECORD_COST ((__u32)sizeof(struct l7m_sample))

static __always_inline int l7m_is_inside(const __be32 *address)
{
	struct l7m_prefix_key key = {.length = 128};

	__builtin_memcpy(key.addr, address, sizeof(key.addr));
	return bpf_map_lookup_elem(&inside, &key) != 0;
}

/* 1 if the two are not the same. Without a branch: each would double the verifier's states. */
static __always_inline __u32 l7m_differ(__u32 a, __u32 b)
{
	__u64 differ = a ^ b;

	differ += 0xffffffffU;
	asm volatile("" : "+r"(differ));
	return (__u32)(differ >> 32);
}

/* Who pays: not the packet's sender, for all clients of a server would share what it has. */
static __always_inline void l7m_find_payer(struct l7m_met *met)
{
	const __be32 *from = met->out.key.addr[met->candidate.initiator & 1];
	__u32 host = l7m_differ(met->packet.version, 4) - 1;

	met->payer.addr[0] = from[0];
	met->payer.addr[1] = from[1];
	met->payer.addr[2] = from[2] & host;
	met->payer.addr[3] = from[3] & host;
}

/* The hash of who pays, once for a packet. */
static __always_inline __u32 l7m_payer_hash(struct l7m_met *met, const struct l7m_settings *s)
{
	if (!met->payer_hash) {
		l7m_find_payer(met);
		met->payer_hash = l7m_source_hash(&met->payer, &s->secrets);
	}
	return met->payer_hash;
}

/* Has the processor fetch the set of who pays: taking a lock later would wait for it. */
static __always_inline void l7m_fetch_budget(struct l7m_met *met, const struct l7m_settings *s)
{
	__u32 index = l7m_budget_set_of(l7m_payer_hash(met, s));
	struct l7m_budget_set *set = bpf_map_lookup_elem(&budgets, &index);

	if (set)
		(void)*(volatile __u32 *)&set->place[0].tag;
}

static __always_inline __u32 l7m_this_second(const struct l7m_settings *s)
{
	return (__u32)bpf_jiffies64() / s->hz;
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

/* For `l7mark status`. In the scratch entry, because the stack is short. */
static __always_inline void l7m_name_source(struct l7m_met *met, __u32 second, __u32 bytes)
{
	struct l7m_source *source, *fresh = &met->refused;

	if (met->payment == L7M_UNPAID_OUTSIDE)
		__builtin_memset(&met->payer, 0, sizeof(met->payer));
	source = bpf_map_lookup_elem(&sources, &met->payer);
	if (!source || (__s32)(second - source->last) > L7M_SOURCE_FORGOTTEN) {
		fresh->since = fresh->last = second;
		fresh->packets = 1;
		fresh->bytes = bytes;
		bpf_map_update_elem(&sources, &met->payer, fresh, BPF_ANY);
		return;
	}
	source->last = second;
	source->packets++;
	source->bytes += bytes;
}

/* The first flight has a budget of its own: above it the packet is copied as others are. */
static __always_inline void l7m_pay_flight(struct l7m_met *met, const struct l7m_settings *s,
					   struct l7m_budget *budget, __u32 second)
{
	__u32 spent = l7m_spent(budget, second, L7M_BUDGET_FLIGHTS) + met->wanted.charge;

	if (spent > s->flight_budget) {
		l7m_count(L7M_COUNT_FLIGHT_REFUSED, 1);
		l7m_refuse_flight(&met->candidate, &met->packet, s, &met->wanted);
		return;
	}
	l7m_note_spent(budget, second, L7M_BUDGET_FLIGHTS, spent);
}

static __always_inline enum l7m_payment l7m_pay_sample(const struct l7m_met *met,
						       const struct l7m_settings *s,
						       struct l7m_budget *budget, __u32 second,
						       __u32 bytes)
{
	__u32 spent = l7m_spent(budget, second, L7M_BUDGET_SAMPLES) + bytes;
	__u32 all, index = L7M_BUDGET_SETS;
	struct l7m_budget_set *outside;

	if (s->source_budget && spent > s->source_budget)
		return L7M_UNPAID_SOURCE;
	if ((met->candidate.flags & L7M_FLOW_OUTSIDE) && s->outside_budget) {
		outside = bpf_map_lookup_elem(&budgets, &index);
		if (!outside)
			return L7M_PAID;
		all = l7m_spent(&outside->place[0], second, L7M_BUDGET_SAMPLES) + bytes;
		if (all > s->outside_budget)
			return L7M_UNPAID_OUTSIDE;
		l7m_note_spent(&outside->place[0], second, L7M_BUDGET_SAMPLES, all);
	}
	l7m_note_spent(budget, second, L7M_BUDGET_SAMPLES, spent);
	return L7M_PAID;
}

/*
 * Has who began the flow of met->candidate pay for the packet as met->wanted says, and cuts that to
 * what is paid for; met->payment tells the result, and once a packet has one it keeps it. In a
 * replay time does not pass as it did in the capture, and without a worker nothing is copied.
 * Global in XDP too, because it takes no context, and so verified once.
 */
__attribute__((noinline)) int l7m_pay(void)
{
	struct l7m_met *met = l7m_scratch();
	const struct l7m_settings *s;
	struct l7m_budget *budget;
	struct l7m_budget_set *set;
	__u32 zero = 0, tag, index, second, bytes;

	s = bpf_map_lookup_elem(&settings, &zero);
	if (!met || !s)
		return -1;
	if ((l7m_config.flags & L7M_CFG_REPLAY) || (s->flags & L7M_SET_PAUSED))
		return 0;
	tag = l7m_payer_hash(met, s);
	index = l7m_budget_set_of(tag);
	set = bpf_map_lookup_elem(&budgets, &index);
	if (!set)
		return -1;
	second = l7m_this_second(s);
	budget = l7m_budget_of(set, tag, second);
	budget->tag = tag;
	if (met->wanted.charge)
		l7m_pay_flight(met, s, budget, second);
	if (met->payment == L7M_NOT_ASKED && met->wanted.length) {
		bytes = met->wanted.length;
		if (bytes > met->frame)
			bytes = met->frame;
		bytes += L7M_RECORD_COST;
		met->payment = l7m_pay_sample(met, s, budget, second, bytes);
		if (met->payment > L7M_PAID) {
			l7m_count(L7M_COUNT_SOURCE_REFUSED + met->payment - L7M_UNPAID_SOURCE, 1);
			l7m_name_source(met, second, bytes);
		}
	}
	if (met->payment > L7M_PAID)
		met->wanted.length = 0;
	return 0;
}

#endif /* L7MARK_BPF_BUDGET_H */
