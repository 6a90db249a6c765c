// SPDX-License-Identifier: GPL-2.0-only
/*
 * The TC programs: a complete data plane by themselves (ingress, egress), their forms for
 * interfaces without a link-layer header (_l3), the one behind our XDP program (after_xdp), and the
 * classifier for a qdisc (classid).
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <l7mark/maps.h>
#include "fast.h"
#include "flow.h"
#include "hook_tc.h"
#include "mark.h"

static __always_inline int l7m_tc(struct __sk_buff *skb, __u32 hook)
{
	struct l7m_fast fast;
	__u32 index, taken = 0;

	if ((hook & L7M_HOOK_L2) && (l7m_config.parse & L7M_PARSE_VLAN_KEY))
		taken = l7m_taken_vlan(skb);
	l7m_fast_path((const __u8 *)(long)skb->data, (const __u8 *)(long)skb->data_end, skb->len,
		      hook & L7M_HOOK_L2, taken, &fast);
	if (fast.verdict) {
		__u32 segments = skb->gso_segs;

		if (segments == 0)
			segments = 1;
		l7m_fast_count(fast.verdict, fast.sender, segments,
			       l7m_skb_bytes(skb, hook, segments, fast.headers));
		return l7m_apply(skb, fast.verdict->action, fast.l3_offset);
	}
	index = l7m_not_fast(skb, hook, &fast);
	if (index == L7M_NO_ACTION)
		return TC_ACT_UNSPEC;
	return l7m_apply(skb, index, hook & L7M_HOOK_L2 ? L7M_ANYWHERE : 0);
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
	__u32 index;

	if ((const void *)(meta + 1) <= (const void *)(long)skb->data &&
	    meta->magic == L7M_META_MAGIC) {
		if (meta->action == L7M_NO_ACTION)
			return TC_ACT_UNSPEC;
		return l7m_apply(skb, meta->action, L7M_ANYWHERE);
	}
	index = l7m_slow_path(skb, L7M_HOOK_L2);
	if (index == L7M_NO_ACTION)
		return TC_ACT_UNSPEC;
	return l7m_apply(skb, index, L7M_ANYWHERE);
}

/* The shortest header of IP. */
#define L7M_IP_BYTES 20

/*
 * On ppp, wireguard and tun a packet has no link-layer header. No program is told the kind of its
 * interface, and that would be wrong of a packet that a filter has sent from ppp0 to an ifb. But
 * the kernel knows where the IP header is: at the begin of the packet, if the bytes are the same.
 */
static __noinline int l7m_begins_with_ip(struct __sk_buff *skb)
{
	__u32 first[L7M_IP_BYTES / 4], header[L7M_IP_BYTES / 4];
	__u32 i, differ = 0;

	if (bpf_skb_load_bytes(skb, 0, first, sizeof(first)) ||
	    bpf_skb_load_bytes_relative(skb, 0, header, sizeof(header), BPF_HDR_START_NET))
		return 0;
#pragma unroll
	for (i = 0; i < L7M_IP_BYTES / 4; i++)
		differ |= first[i] ^ header[i];
	return !differ;
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
	__u32 index, *by_mark = 0, mark, zero = 0, hook = L7M_HOOK_EGRESS | L7M_HOOK_ROUTED;

	s = bpf_map_lookup_elem(&settings, &zero);
	if (!s)
		return TC_ACT_UNSPEC;
	mark = skb->mark & s->mark_mask;
	if (mark)
		by_mark = bpf_map_lookup_elem(&marks, &mark);
	if (by_mark) {
		index = *by_mark;
	} else {
		if (!l7m_begins_with_ip(skb))
			hook |= L7M_HOOK_L2;
		/* Without L7M_HOOK_COUNT nothing is counted: an attached program has done so. */
		index = l7m_slow_path(skb, hook);
		if (index == L7M_NO_ACTION)
			return TC_ACT_UNSPEC;
	}
	action = bpf_map_lookup_elem(&actions, &index);
	if (!action || !(action->flags & L7M_ACT_CLASSID))
		return TC_ACT_UNSPEC;
	skb->tc_classid = action->classid & 0xffff;
	return TC_ACT_OK;
}

char l7mark_license[] SEC("license") = "GPL";
