// SPDX-License-Identifier: GPL-2.0-only
/*
 * The XDP program: the same steps before an skb exists. It drops what a class drops, and hands any
 * other answer to TC in front of the packet, because only an skb can carry a mark.
 */
#define L7M_XDP 1
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <xdp/xdp_helpers.h>
#include <l7mark/maps.h>
#include "fast.h"
#include "flow.h"
#include "hook_xdp.h"
#include "packet.h"

/* Early among the programs of a dispatcher, and any of the others may go on after a pass. */
struct {
	__uint(priority, 20);
	__uint(XDP_PASS, 1);
} XDP_RUN_CONFIG(l7mark_xdp);

struct {
	__uint(priority, 20);
	__uint(XDP_PASS, 1);
} XDP_RUN_CONFIG(l7mark_xdp_only);

static __always_inline int l7m_hand_to_tc(struct xdp_md *ctx, __u32 index)
{
	struct l7m_meta *meta;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*meta))) {
		l7m_count(L7M_COUNT_META_FAILED, 1);
		return XDP_PASS;
	}
	meta = (void *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return XDP_PASS;
	meta->magic = L7M_META_MAGIC;
	meta->action = index;
	return XDP_PASS;
}

static __always_inline int l7m_xdp(struct xdp_md *ctx, int hand_over)
{
	const struct l7m_action *action;
	struct l7m_fast fast;
	/* The first buffer: a packet that goes on in others goes the slow way, by its length. */
	__u32 frame = ctx->data_end - ctx->data, index;

	l7m_fast_path((const __u8 *)(long)ctx->data, (const __u8 *)(long)ctx->data_end, frame, 1, 0,
		      &fast);
	if (fast.verdict) {
		l7m_fast_count(fast.verdict, fast.sender, 1, frame);
		index = fast.verdict->action;
	} else {
		index = l7m_not_fast(ctx, L7M_HOOK_L2 | L7M_HOOK_COUNT, &fast);
	}
	if (index == L7M_NO_ACTION)
		return hand_over ? l7m_hand_to_tc(ctx, index) : XDP_PASS;
	action = bpf_map_lookup_elem(&actions, &index);
	if (action ? action->flags & L7M_ACT_DROP : index == L7M_HIDDEN) {
		l7m_count(L7M_COUNT_DROPPED, 1);
		return XDP_DROP;
	}
	return hand_over ? l7m_hand_to_tc(ctx, index) : XDP_PASS;
}

SEC("xdp")
int l7mark_xdp(struct xdp_md *ctx)
{
	return l7m_xdp(ctx, 1);
}

/*
 * For libxdp's dispatcher where the kernel refuses to replace a function by one that moves the
 * packet's data and the dispatcher of libxdp 1.3 does not: 6.14, and stable kernels after it. TC
 * looks the flow up again.
 */
SEC("xdp")
int l7mark_xdp_only(struct xdp_md *ctx)
{
	return l7m_xdp(ctx, 0);
}

char l7mark_license[] SEC("license") = "GPL";
