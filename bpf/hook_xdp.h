/* SPDX-License-Identifier: GPL-2.0-only */
/* A packet as it is met at XDP: its length, its headers, and what is not in the packet itself. */
#ifndef L7MARK_BPF_HOOK_XDP_H
#define L7MARK_BPF_HOOK_XDP_H

#include "maps.h"
#include "packet.h"

/* The frame with all its buffers. */
static __always_inline __u32 l7m_frame(struct xdp_md *ctx)
{
	if (l7m_config.flags & L7M_CFG_XDP_FRAGS)
		return (__u32)bpf_xdp_get_buff_len(ctx);
	return ctx->data_end - ctx->data;
}

/* Where the card takes tags off, the program is not attached with VLAN ids in the keys. */
static __always_inline __u32 l7m_taken_vlan(const struct xdp_md *ctx)
{
	(void)ctx;
	return 0;
}

/* What is not in the packet itself. */
static __always_inline void l7m_meet(struct xdp_md *ctx, __u32 hook, struct l7m_met *met)
{
	met->hook = hook;
	met->kept = 0;
	met->payment = L7M_NOT_ASKED;
	met->payer_hash = 0;
	met->time_ns = 0;
	met->frame = l7m_frame(ctx);
	met->readable = met->frame;
	met->bytes = met->frame;
	met->segments = 1;
	met->ifindex = ctx->ingress_ifindex;
}

/*
 * Fills the scratch entry. Returns an l7m_parse_result. For size, because clang otherwise lets the
 * end of a loop fall through to its begin, a way back that kernels up to 6.1 refuse.
 */
__attribute__((minsize)) L7M_FUNCTION int l7m_parse_packet(struct xdp_md *ctx, __u32 hook)
{
	struct l7m_met *met = l7m_scratch();
	struct l7m_cursor c;
	int result;

	if (!met)
		return L7M_PARSE_WRONG;
	__builtin_memset(&met->packet, 0, sizeof(met->packet));
	l7m_cursor_of(ctx, &c);
	result = l7m_parse(&c, &met->packet, 0, l7m_frame(ctx), l7m_config.parse);
	l7m_meet(ctx, hook, met);
	return result;
}

/* Drivers put all headers into the first buffer: there is nothing to pull. */
#define L7M_PULL     0
#define L7M_PULL_ALL 0

static __always_inline int l7m_pull(struct xdp_md *ctx, __u32 most)
{
	(void)ctx;
	(void)most;
	return -1;
}

#endif /* L7MARK_BPF_HOOK_XDP_H */
