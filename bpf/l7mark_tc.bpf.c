// SPDX-License-Identifier: GPL-2.0-only
/*
 * The TC programs: a complete data plane by themselves (ingress, egress), their forms for
 * interfaces without a link-layer header (_l3), the one behind our XDP program (after_xdp), the
 * classifier for a qdisc (classid), and what userspace runs over entries (edit, settle).
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <l7mark/types.h>
#include "packet.h"

static __always_inline __u64 l7m_skb_bytes(const struct __sk_buff *skb, __u32 hook, __u32 segments,
					   __u32 headers)
{
	/* wire_len has each segment's headers in it, but only where a qdisc comes next. */
	if ((hook & L7M_HOOK_EGRESS) || (l7m_config.flags & L7M_CFG_REPLAY))
		return skb->wire_len;
	if (segments > 1)
		return skb->len + (__u64)(segments - 1) * headers;
	return skb->len;
}

/* What is not in the packet itself; the parsed headers are in the scratch entry already. */
static __always_inline void l7m_meet(struct __sk_buff *skb, __u32 hook, struct l7m_met *met)
{
	const struct l7m_packet *p = &met->packet;

	met->hook = hook;
	met->readable = skb->len;
	met->frame = met->readable;
	if (l7m_config.flags & L7M_CFG_REPLAY)
		met->frame = l7m_replayed_frame(skb->wire_len);
	met->ifindex = skb->ifindex;
	met->segments = skb->gso_segs ? skb->gso_segs : 1;
	met->bytes =
		l7m_skb_bytes(skb, hook, met->segments, p->l3_offset + p->l3_length - p->payload);
}

/*
 * Fills the scratch entry. Returns an l7m_parse_result. For size, because clang otherwise lets the
 * end of a loop fall through to its begin, a way back that kernels up to 6.1 refuse.
 */
__attribute__((minsize)) L7M_FUNCTION int l7m_parse_packet(struct __sk_buff *skb, __u32 hook)
{
	struct l7m_met *met = l7m_scratch();
	struct l7m_packet packet = {};
	struct l7m_cursor c;
	__u32 frame = skb->len;
	int version = 0, result;

	if (!met)
		return L7M_PARSE_WRONG;
	l7m_cursor_of(skb, &c);
	if (!(hook & L7M_HOOK_L2)) {
		if (c.start + 1 > c.end)
			return L7M_PARSE_NOT_IP;
		version = c.start[0] >> 4;
		if (version != 4 && version != 6)
			return L7M_PARSE_NOT_IP;
	}
	/* A run takes a page of a packet at most; its length is told beside it. The barrier keeps
	 * the two loads apart: the verifier refuses one load from a chosen offset of the context.
	 */
	asm volatile("" : "+r"(frame));
	if (l7m_config.flags & L7M_CFG_REPLAY)
		frame = l7m_replayed_frame(skb->wire_len);
	result = l7m_parse(&c, &packet, version, frame, l7m_config.parse);
	met->packet = packet;
	l7m_meet(skb, hook, met);
	return result;
}

/* Headers beyond the linear part are pulled in; no sane stack of headers is longer. */
#define L7M_PULL 256

static __always_inline int l7m_pull(struct __sk_buff *skb)
{
	if ((__u64)(skb->data_end - skb->data) >= skb->len)
		return -1;
	return (int)bpf_skb_pull_data(skb, skb->len < L7M_PULL ? skb->len : L7M_PULL);
}

#include "flow.h"
#include "fast.h"
#include "mark.h"

static __always_inline int l7m_tc(struct __sk_buff *skb, __u32 hook)
{
	struct l7m_fast fast;
	__u64 slow;

	l7m_fast_path((const __u8 *)(long)skb->data, (const __u8 *)(long)skb->data_end, skb->len,
		      hook & L7M_HOOK_L2, &fast);
	if (fast.verdict) {
		__u32 segments = skb->gso_segs;

		if (segments == 0)
			segments = 1;
		l7m_fast_count(fast.verdict, fast.sender, segments,
			       l7m_skb_bytes(skb, hook, segments, fast.headers));
		return l7m_apply(skb, fast.verdict->action, fast.l3_offset);
	}
	slow = fast.missed ? l7m_missed(skb, hook, fast.l3_offset, fast.hash)
			   : l7m_slow_path(skb, hook);
	if (l7m_has_rest())
		l7m_export_rest(skb);
	if ((__u32)slow == L7M_NO_ACTION)
		return TC_ACT_UNSPEC;
	return l7m_apply(skb, (__u32)slow, (__u32)(slow >> 32));
}

SEC("tc")
int l7mark_ingress(struct __sk_buff *skb)
{
	return l7m_tc(skb, L7M_HOOK_COUNT | L7M_HOOK_L2);
}

SEC("tc")
int l7mark_egress(struct __sk_buff *skb)
{
	return l7m_tc(skb, L7M_HOOK_COUNT | L7M_HOOK_L2 | L7M_HOOK_EGRESS);
}

SEC("tc")
int l7mark_ingress_l3(struct __sk_buff *skb)
{
	return l7m_tc(skb, L7M_HOOK_COUNT);
}

SEC("tc")
int l7mark_egress_l3(struct __sk_buff *skb)
{
	return l7m_tc(skb, L7M_HOOK_COUNT | L7M_HOOK_EGRESS);
}

/* Behind our XDP program: it has counted and sampled; take its answer, or look it up again. */
SEC("tc")
int l7mark_after_xdp(struct __sk_buff *skb)
{
	const struct l7m_meta *meta = (const void *)(long)skb->data_meta;
	__u64 slow;

	if ((const void *)(meta + 1) <= (const void *)(long)skb->data &&
	    meta->magic == L7M_META_MAGIC) {
		if (meta->action == L7M_NO_ACTION)
			return TC_ACT_UNSPEC;
		return l7m_apply(skb, meta->action, meta->l3_offset);
	}
	slow = l7m_slow_path(skb, L7M_HOOK_L2);
	if ((__u32)slow == L7M_NO_ACTION)
		return TC_ACT_UNSPEC;
	return l7m_apply(skb, (__u32)slow, (__u32)(slow >> 32));
}

/*
 * For `tc filter add dev wan0 parent 1: bpf da pinned PATH classid 1:`: gives the qdisc the flow's
 * class. By five-tuple, or behind NAT, where that is another, by the mark that the flow carries.
 */
SEC("tc")
int l7mark_classid(struct __sk_buff *skb)
{
	const struct l7m_settings *s;
	const struct l7m_action *action;
	__u32 index, *by_mark = 0, mark, zero = 0;

	s = bpf_map_lookup_elem(&settings, &zero);
	if (!s)
		return TC_ACT_UNSPEC;
	mark = skb->mark & s->mark_mask;
	if (mark)
		by_mark = bpf_map_lookup_elem(&marks, &mark);
	if (by_mark) {
		index = *by_mark;
	} else {
		/* Without L7M_HOOK_COUNT nothing is counted: an attached program has done so. */
		index = (__u32)l7m_slow_path(skb, L7M_HOOK_L2 | L7M_HOOK_EGRESS);
		if (index == L7M_NO_ACTION)
			return TC_ACT_UNSPEC;
	}
	action = bpf_map_lookup_elem(&actions, &index);
	if (!action || !(action->flags & L7M_ACT_CLASSID))
		return TC_ACT_UNSPEC;
	skb->tc_classid = action->classid & 0xffff;
	return TC_ACT_OK;
}

static __noinline int l7m_edit_one(struct l7m_edit *edit)
{
	struct l7m_verdict *v = l7m_verdict_of(&edit->key);
	int manual = edit->what & L7M_EDIT_MANUAL;
	const struct l7m_settings *s;
	struct l7m_candidate *c;
	__u32 zero = 0;

	if (v && !v->flow_id == !!manual) {
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
	if (manual)
		return L7M_EDIT_NONE;
	s = bpf_map_lookup_elem(&settings, &zero);
	if (!s)
		return L7M_EDIT_NONE;
	c = l7m_find_candidate(&edit->key, l7m_hash_of(&edit->key, s->seed));
	if (!c)
		return L7M_EDIT_NONE;
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
	at = (void *)(long)skb->data + i * sizeof(*at);
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

static __noinline int l7m_settle_end(struct l7m_settlement *step)
{
	struct l7m_verdict *v = l7m_verdict_of(&step->key);

	/* The id asked for: another life of the five-tuple stays. */
	if (!v || v->flow_id != step->verdict.flow_id)
		return 0;
	step->verdict = *v;
	if (l7m_key_is_v4(&step->key)) {
		struct l7m_key4 key4;

		l7m_key_to_v4(&step->key, &key4);
		bpf_map_delete_elem(&flows4, &key4);
	} else {
		bpf_map_delete_elem(&flows6, &step->key);
	}
	return L7M_SETTLE_TOOK;
}

static __always_inline long l7m_write_verdict(const struct l7m_settlement *step)
{
	struct l7m_key4 key4;

	if (!l7m_key_is_v4(&step->key))
		return bpf_map_update_elem(&flows6, &step->key, &step->verdict, BPF_ANY);
	l7m_key_to_v4(&step->key, &key4);
	return bpf_map_update_elem(&flows4, &key4, &step->verdict, BPF_ANY);
}

static __noinline int l7m_settle_one(struct l7m_settlement *step)
{
	struct l7m_candidate_place *place;
	const struct l7m_settings *s;
	const struct l7m_verdict *v;
	struct l7m_spot spot;
	__u32 zero = 0;
	int result = 0;

	s = bpf_map_lookup_elem(&settings, &zero);
	if (!s || !l7m_find_spot(l7m_hash_of(&step->key, s->seed), &spot))
		return 0;
	if (step->step == L7M_SETTLE_DECIDE) {
		/* A FIN that no sample told of is on the candidate only. */
		place = l7m_find_place(spot.set, spot.tag, &step->key);
		if (place)
			step->verdict.flags |= place->value.flags;
		/* One written by hand stays, even if userspace has not seen it yet. */
		v = step->verdict.flow_id ? l7m_verdict_of(&step->key) : 0;
		if (v && !v->flow_id)
			result = L7M_SETTLE_MANUAL;
		else if (l7m_write_verdict(step))
			return 0;
		else
			result = L7M_SETTLE_WROTE;
	}
	if (l7m_take_candidate(spot.set, spot.tag, &step->key, &step->candidate))
		result |= L7M_SETTLE_TOOK;
	return result;
}

L7M_FUNCTION int l7m_settle_at(struct __sk_buff *skb, __u32 i)
{
	struct l7m_settlement *at;
	struct l7m_settlement step;

	if (i >= L7M_SETTLE_BATCH)
		return 0;
	at = (void *)(long)skb->data + i * sizeof(*at);
	if ((void *)(at + 1) > (void *)(long)skb->data_end)
		return 0;
	step = *at;
	step.result =
		(__u8)(step.step == L7M_SETTLE_END ? l7m_settle_end(&step) : l7m_settle_one(&step));
	*at = step;
	return 1;
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
	at = (void *)(long)skb->data + i * sizeof(*at);
	if ((void *)(at + 1) > (void *)(long)skb->data_end)
		return 0;
	s = bpf_map_lookup_elem(&settings, &zero);
	if (!s)
		return 0;
	if (at->step != L7M_SETTLE_END)
		l7m_fetch_set(l7m_hash_of(&at->key, s->seed));
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
		if (!l7m_settle_at(skb, i))
			break;
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
