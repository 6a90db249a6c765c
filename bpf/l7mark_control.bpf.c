// SPDX-License-Identifier: GPL-2.0-only
/*
 * The programs that only userspace runs, over an array of its own in place of a packet: changes of
 * entries (edit), flows that come and go by the batch (settle), and the kernel's clocks (clock). An
 * object of its own over the maps of the TC programs.
 */
#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <l7mark/control.h>
#include <l7mark/maps.h>
#include "candidate_table.h"
#include "maps.h"
#include "packet.h"
#include "verdict_table.h"

static __noinline int l7m_edit_one(struct l7m_edit *edit)
{
	struct l7m_verdict *v = l7m_verdict_of(&edit->key);
	const struct l7m_settings *s;
	struct l7m_candidate *c;
	__u32 zero = 0;

	if (v && v->flow_id == edit->flow_id) {
		if (edit->what & L7M_EDIT_ACTION)
			v->action = edit->action;
		if (edit->what & L7M_EDIT_STATE)
			v->state = edit->state;
		if (edit->what & L7M_EDIT_APPLICATION) {
			v->application = edit->application;
			v->master = edit->master;
		}
		return L7M_EDIT_VERDICT;
	}
	s = bpf_map_lookup_elem(&settings, &zero);
	c = s ? l7m_find_candidate(&edit->key, l7m_hash_of(&edit->key, s)) : 0;
	/* Looked up once more: remembered, it would double what the verifier walks through. */
	if (!c)
		return l7m_verdict_of(&edit->key) ? L7M_EDIT_STALE : L7M_EDIT_NONE;
	if (c->flow_id != edit->flow_id)
		return L7M_EDIT_STALE;
	if (edit->what & L7M_EDIT_ACTION)
		c->action = edit->action;
	if (edit->what & L7M_EDIT_STATE)
		c->state = edit->state;
	if (edit->what & L7M_EDIT_PACKETS)
		c->packets = edit->packets;
	if (edit->what & L7M_EDIT_WHOLE)
		c->whole = edit->whole;
	return L7M_EDIT_CANDIDATE;
}

/* Edit number `i` of the "packet"; 0 if there is none. Global: verified once, and not 48 times. */
L7M_FUNCTION int l7m_edit_at(struct __sk_buff *skb, __u32 i)
{
	struct l7m_edit *at;
	struct l7m_edit edit;

	if (i >= L7M_EDIT_BATCH)
		return 0;
	at = (void *)(long)skb->data + L7M_BATCH_HEADER + i * sizeof(*at);
	if ((void *)(at + 1) > (void *)(long)skb->data_end)
		return 0;
	edit = *at;
	at->result = (__u8)l7m_edit_one(&edit);
	return 1;
}

/* Run by userspace only, over a "packet" of edits; each is told what became of it. */
SEC("tc")
int l7mark_edit(struct __sk_buff *skb)
{
	__u32 i;

#pragma clang loop unroll(disable)
	for (i = 0; i < L7M_EDIT_BATCH; i++) {
		if (!l7m_edit_at(skb, i))
			break;
	}
	return TC_ACT_OK;
}

static __always_inline int l7m_verdict_counted(const struct l7m_verdict *now,
					       const struct l7m_verdict *then)
{
	return now->last_seen != then->last_seen ||
	       now->count.packets[0] != then->count.packets[0] ||
	       now->count.packets[1] != then->count.packets[1];
}

static __noinline int l7m_settle_end(struct l7m_settlement *step)
{
	struct l7m_verdict *v = l7m_verdict_of(&step->key);
	int busy;

	if (!v)
		return 0;
	if (v->flow_id != step->flow_id)
		return L7M_SETTLE_STALE;
	busy = step->step == L7M_SETTLE_END && l7m_verdict_counted(v, &step->verdict);
	step->verdict = *v;
	if (busy)
		return L7M_SETTLE_BUSY;
	if (l7m_key_is_v4(&step->key)) {
		struct l7m_key4 key4;

		l7m_key_to_v4(&step->key, &key4);
		bpf_map_delete_elem(&flows4, &key4);
	} else {
		bpf_map_delete_elem(&flows6, &step->key);
	}
	return L7M_SETTLE_TOOK;
}

/* Only where there is none: it may have been written by hand a moment ago. */
static __always_inline long l7m_write_verdict(const struct l7m_settlement *step)
{
	struct l7m_key4 key4;

	if (!l7m_key_is_v4(&step->key))
		return bpf_map_update_elem(&flows6, &step->key, &step->verdict, BPF_NOEXIST);
	l7m_key_to_v4(&step->key, &key4);
	return bpf_map_update_elem(&flows4, &key4, &step->verdict, BPF_NOEXIST);
}

/* A verdict that its life has already: what packets write into it stays. */
static __always_inline void l7m_decide_again(struct l7m_verdict *v, const struct l7m_verdict *now)
{
	v->action = now->action;
	v->application = now->application;
	v->master = now->master;
	v->next_look = now->next_look;
	v->state = now->state;
}

static __always_inline void l7m_from_candidate(struct l7m_verdict *v, const struct l7m_candidate *c)
{
	/* A FIN that no sample told of is on the candidate only. */
	v->flags |= c->flags & (__u16)~L7M_FLOW_AGAIN;
	v->ring = c->ring;
	v->hop_limit[0] = c->hop_limit[0];
	v->hop_limit[1] = c->hop_limit[1];
	v->sides = c->sides;
}

/* It has its answer: nothing more of it is copied. */
static __always_inline int l7m_settle_wait(struct l7m_settlement *step,
					   struct l7m_candidate_place *place)
{
	place->value.action = step->verdict.action;
	place->value.state = step->verdict.state;
	place->value.packets = place->value.sampled;
	place->flight[0].copied = L7M_MAX_FLIGHT;
	place->flight[1].copied = L7M_MAX_FLIGHT;
	step->candidate = place->value;
	return L7M_SETTLE_WAITS;
}

static __noinline int l7m_settle_decide(struct l7m_settlement *step)
{
	struct l7m_candidate_place *place;
	const struct l7m_settings *s;
	struct l7m_verdict *v;
	struct l7m_spot spot;
	__u32 zero = 0;
	long written;

	s = bpf_map_lookup_elem(&settings, &zero);
	if (!s || !l7m_find_spot(l7m_hash_of(&step->key, s), &spot))
		return 0;
	place = l7m_find_place(spot.set, spot.tag, &step->key);
	v = l7m_verdict_of(&step->key);
	/* One written by hand stays, even if userspace has not seen it yet. */
	if (v && !v->flow_id)
		return L7M_SETTLE_MANUAL;
	if (v && v->flow_id == step->flow_id) {
		l7m_decide_again(v, &step->verdict);
		return L7M_SETTLE_WROTE;
	}
	if (v || !place || place->value.flow_id != step->flow_id)
		return L7M_SETTLE_STALE;
	if (step->step == L7M_SETTLE_WAIT)
		return l7m_settle_wait(step, place);
	step->verdict.flow_id = step->flow_id;
	l7m_from_candidate(&step->verdict, &place->value);
	written = l7m_write_verdict(step);
	if (written)
		return written == -ENOMEM ? L7M_SETTLE_NO_MEMORY : 0;
	return L7M_SETTLE_WROTE;
}

/*
 * The step's candidate. By itself, so that the verifier does not walk through it for each of the
 * ways to decide.
 */
L7M_FUNCTION int l7m_settle_take(struct __sk_buff *skb, __u32 i)
{
	const struct l7m_settings *s;
	struct l7m_settlement *at;
	struct l7m_settlement step;
	struct l7m_spot spot;
	__u32 zero = 0;
	int took;

	if (i >= L7M_SETTLE_BATCH)
		return 0;
	at = (void *)(long)skb->data + L7M_BATCH_HEADER + i * sizeof(*at);
	if ((void *)(at + 1) > (void *)(long)skb->data_end)
		return 0;
	step = *at;
	s = bpf_map_lookup_elem(&settings, &zero);
	if (!s || !l7m_find_spot(l7m_hash_of(&step.key, s), &spot))
		return 0;
	took = l7m_take_candidate(spot.set, spot.tag, &step, step.step == L7M_SETTLE_TAKE_QUIET);
	if (step.step == L7M_SETTLE_DECIDE)
		took &= L7M_SETTLE_TOOK;
	step.result |= (__u8)took;
	*at = step;
	return 1;
}

/* Returns 0 if there is no step `i`, 2 if its candidate is to be taken now. */
L7M_FUNCTION int l7m_settle_at(struct __sk_buff *skb, __u32 i)
{
	struct l7m_settlement *at;
	struct l7m_settlement step;

	if (i >= L7M_SETTLE_BATCH)
		return 0;
	at = (void *)(long)skb->data + L7M_BATCH_HEADER + i * sizeof(*at);
	if ((void *)(at + 1) > (void *)(long)skb->data_end)
		return 0;
	step = *at;
	step.result = 0;
	if (step.step == L7M_SETTLE_END || step.step == L7M_SETTLE_REMOVE)
		step.result = (__u8)l7m_settle_end(&step);
	else if (step.step == L7M_SETTLE_DECIDE || step.step == L7M_SETTLE_WAIT)
		step.result = (__u8)l7m_settle_decide(&step);
	*at = step;
	if (step.step == L7M_SETTLE_DECIDE || step.step == L7M_SETTLE_WAIT)
		return step.result & (L7M_SETTLE_WROTE | L7M_SETTLE_MANUAL) ? 2 : 1;
	return step.step == L7M_SETTLE_TAKE || step.step == L7M_SETTLE_TAKE_QUIET ? 2 : 1;
}

/*
 * Has the processor fetch what step `i` will look at in its set. Packets have written there last,
 * on whichever CPU: all of a batch wait for that together, and not one after the other.
 */
L7M_FUNCTION int l7m_settle_fetch(struct __sk_buff *skb, __u32 i)
{
	const struct l7m_settlement *at;
	const struct l7m_settings *s;
	__u32 zero = 0;

	if (i >= L7M_SETTLE_BATCH)
		return 0;
	at = (void *)(long)skb->data + L7M_BATCH_HEADER + i * sizeof(*at);
	if ((void *)(at + 1) > (void *)(long)skb->data_end)
		return 0;
	s = bpf_map_lookup_elem(&settings, &zero);
	if (!s)
		return 0;
	if (at->step != L7M_SETTLE_END && at->step != L7M_SETTLE_REMOVE)
		l7m_fetch_set(l7m_hash_of(&at->key, s));
	return 1;
}

/* Run by userspace only, over a "packet" of steps; each is told what became of it. */
SEC("tc")
int l7mark_settle(struct __sk_buff *skb)
{
	__u32 i;

#pragma clang loop unroll(disable)
	for (i = 0; i < L7M_SETTLE_BATCH; i++) {
		if (!l7m_settle_fetch(skb, i))
			break;
	}
#pragma clang loop unroll(disable)
	for (i = 0; i < L7M_SETTLE_BATCH; i++) {
		int done = l7m_settle_at(skb, i);

		if (!done)
			break;
		if (done == 2)
			l7m_settle_take(skb, i);
	}
	return TC_ACT_OK;
}

/*
 * Run by userspace only: the two clocks that entries are stamped with, at one moment. What jiffies
 * are in seconds is not told to userspace in any other way.
 */
SEC("tc")
int l7mark_clock(struct __sk_buff *skb)
{
	struct l7m_clock *at = (void *)(long)skb->data;

	if ((void *)(at + 1) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	at->jiffies = bpf_jiffies64();
	at->time_ns = bpf_ktime_get_ns();
	return TC_ACT_OK;
}

char l7mark_license[] SEC("license") = "GPL";
