/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One packet off the hot path: what was parsed, and where it was met. It lies in a per-CPU map and
 * not on the stack, because what is loaded from a map is just a number to the verifier: the
 * parser's many ways end in one state there, and what follows is verified once.
 */
#ifndef L7MARK_BPF_PACKET_H
#define L7MARK_BPF_PACKET_H

#include "maps.h"

#ifdef L7MARK_PARSE_H
#error "packet.h comes before any header that has the parser: it puts functions of its own into it"
#endif

#ifdef L7M_XDP
typedef struct xdp_md l7m_ctx;
#else
typedef struct __sk_buff l7m_ctx;
#endif

/*
 * Parts of the parser with many ways through are functions of their own: global ones, which are
 * verified once. Not in XDP: 5.10 refuses global functions with a context in what libxdp's
 * dispatcher takes. There the verifier is made to forget what it knows of their results instead, so
 * that the ways end in one state again; 7.2 would count a million instructions otherwise.
 */
#ifdef L7M_XDP
#define L7M_FUNCTION	      static __noinline
#define L7M_STEP(c, walk)     l7m_forget(l7m_parser_step((c)->context, l7m_forget(walk)))
#define L7M_LINK(c)	      l7m_forget(l7m_parser_link((c)->context))
#define L7M_TUNNEL(c, behind) l7m_forget(l7m_parser_tunnel((c)->context, l7m_forget(behind)))
#define L7M_INDEX(index)      ((__u32)l7m_forget(index))
static __always_inline __u64 l7m_forget(__u64 number);
#else
#define L7M_FUNCTION	      __attribute__((noinline))
#define L7M_STEP(c, walk)     l7m_parser_step((c)->context, walk)
#define L7M_LINK(c)	      l7m_parser_link((c)->context)
#define L7M_TUNNEL(c, behind) l7m_parser_tunnel((c)->context, behind)
#define L7M_INDEX(index)      (index)
#endif
L7M_FUNCTION __u64 l7m_parser_step(l7m_ctx *ctx, __u64 walk);
L7M_FUNCTION __u64 l7m_parser_link(l7m_ctx *ctx);
L7M_FUNCTION __u64 l7m_parser_tunnel(l7m_ctx *ctx, __u64 behind);
#include <l7mark/parse.h>
#include <l7mark/records.h>
#include <l7mark/sampling.h>

static __always_inline void l7m_cursor_of(l7m_ctx *ctx, struct l7m_cursor *c)
{
	c->start = (const __u8 *)(long)ctx->data;
	c->end = (const __u8 *)(long)ctx->data_end;
	c->offset = 0;
	c->context = ctx;
	c->vlan = 0;
}

L7M_FUNCTION __u64 l7m_parser_step(l7m_ctx *ctx, __u64 walk)
{
	struct l7m_cursor c;

	l7m_cursor_of(ctx, &c);
	return l7m_walk_step(&c, walk);
}

L7M_FUNCTION __u64 l7m_parser_link(l7m_ctx *ctx)
{
	struct l7m_cursor c;

	l7m_cursor_of(ctx, &c);
	return l7m_link(&c);
}

L7M_FUNCTION __u64 l7m_parser_tunnel(l7m_ctx *ctx, __u64 behind)
{
	struct l7m_cursor c;

	l7m_cursor_of(ctx, &c);
	return l7m_tunnel(&c, behind);
}

/* Where a packet is met; a number, because global functions take no pointers before 5.12. */
#define L7M_HOOK_L2	0x01 /* the frame begins with an Ethernet header */
#define L7M_HOOK_EGRESS 0x02
#define L7M_HOOK_COUNT	0x04 /* count and sample; not set where it has been done before */
#define L7M_HOOK_ROUTED 0x08 /* behind the routing: the flow may have come without this VLAN */

/* A record that goes to userspace: in the scratch entry, because the stack of 512 bytes is short.
 */
struct l7m_export {
	struct l7m_key key;
	struct l7m_counters count;
	__u16 type;
	__u16 flags;
	__u32 wanted;  /* bytes of the frame to copy, 0 for none */
	__u32 offset;  /* of them in this record: where they begin... */
	__u32 length;  /* ...and how many */
	__u32 sampled; /* payload packets copied with this one */
	__u32 rest;    /* where what l7m_export_rest() is to copy ends; 0: nothing */
};

/* May the packet be copied? budget.h tells. */
enum l7m_payment {
	L7M_NOT_ASKED = 0,
	L7M_PAID,
	L7M_UNPAID_SOURCE,
	L7M_UNPAID_OUTSIDE,
};

struct l7m_met {
	struct l7m_packet packet;
	__u64 cell;	/* of l7m_forget_by() */
	__u32 hash;	/* l7m_candidate_hash() of the key, where there is no verdict */
	__u64 bytes;	/* of frame, with each segment's headers */
	__u32 segments; /* that a GRO packet holds, else 1 */
	__u32 frame;	/* bytes of the frame */
	__u32 readable; /* of them those that are there: in a replay long packets are cut */
	__u32 ifindex;
	__u32 hook;	  /* L7M_HOOK_* */
	__u32 sender;	  /* endpoint 0 or 1 */
	__u32 kept;	  /* action of the five-tuple's last life, 0 for none */
	__u32 payment;	  /* enum l7m_payment */
	__u32 payer_hash; /* of `payer`, 0 as long as nobody has asked */
	__u64 time_ns;	  /* l7m_met_time(), 0 as long as nobody has asked */
	struct l7m_source_key payer;
	struct l7m_source refused;
	struct l7m_head head;	  /* of the payload, once it was asked for */
	struct l7m_wanted wanted; /* what is copied of it... */
	struct l7m_export out;	  /* ...and how it is told */
	/* The flow's state, as it was found: what goes to global functions goes this way. */
	struct l7m_candidate candidate;
	struct l7m_flight flight;
};

/* Programs do not nest on a CPU: softirqs are off at every hook. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct l7m_met);
} scratch SEC(".maps");

static __always_inline struct l7m_met *l7m_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

static __always_inline __u32 l7m_met_side(const struct l7m_met *met)
{
	return l7m_side_of(met->ifindex, met->hook & L7M_HOOK_EGRESS);
}

/* When the packet was met, by CLOCK_MONOTONIC: the clock is read once. */
static __always_inline __u64 l7m_met_time(struct l7m_met *met)
{
	if (!met->time_ns)
		met->time_ns = bpf_ktime_get_ns();
	return met->time_ns;
}

/* The same number, of which the verifier knows nothing any more: ways that differ in it are one. */
static __always_inline __u64 l7m_forget_by(struct l7m_met *met, __u64 number)
{
	volatile __u64 *cell = &met->cell;

	*cell = number;
	return *cell;
}

#ifdef L7M_XDP
static __always_inline __u64 l7m_forget(__u64 number)
{
	struct l7m_met *met = l7m_scratch();

	return met ? l7m_forget_by(met, number) : 0;
}
#endif

#endif /* L7MARK_BPF_PACKET_H */
