// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a packet costs at the least: nothing at all, and the floor of any classifier that keeps
 * flows: parse Ethernet, IPv4 and TCP, make the canonical key, look it up once in an LRU hash,
 * count.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <l7mark/parse.h>
#include <l7mark/types.h>

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024 * 1024);
	__type(key, struct l7m_key4);
	__type(value, struct l7m_counters);
} floor_flows SEC(".maps");

static __always_inline int l7m_floor(const __u8 *h, const __u8 *end)
{
	struct l7m_packet packet;
	struct l7m_counters *count;
	struct l7m_key4 key;
	__u32 sender;

	if (h + 14 + 20 + 20 > end)
		return 0;
	if (l7m_load_be16(h + 12) != L7M_BE16(0x0800) || h[14] != 0x45 || h[23] != L7M_PROTO_TCP)
		return 0;
	packet.saddr[3] = l7m_load_be32(h + 26);
	packet.daddr[3] = l7m_load_be32(h + 30);
	packet.sport = l7m_load_be16(h + 34);
	packet.dport = l7m_load_be16(h + 36);
	packet.protocol = L7M_PROTO_TCP;
	sender = (__u32)l7m_make_key4(&packet, &key) & 1;
	count = bpf_map_lookup_elem(&floor_flows, &key);
	if (!count)
		return 0;
	count->packets[sender] += 1;
	count->bytes[sender] += (__u64)(end - h);
	return 1;
}

/* The same for IPv6, whose key is more than twice as long to hash and to compare. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024 * 1024);
	__type(key, struct l7m_key);
	__type(value, struct l7m_counters);
} floor_flows6 SEC(".maps");

static __always_inline int l7m_floor6(const __u8 *h, const __u8 *end)
{
	struct l7m_packet packet;
	struct l7m_counters *count;
	struct l7m_key key;
	__u32 sender;

	if (h + 14 + 40 + 20 > end)
		return 0;
	if (l7m_load_be16(h + 12) != L7M_BE16(0x86dd) || h[20] != L7M_PROTO_TCP)
		return 0;
	l7m_load_address(packet.saddr, h + 22);
	l7m_load_address(packet.daddr, h + 38);
	packet.sport = l7m_load_be16(h + 54);
	packet.dport = l7m_load_be16(h + 56);
	packet.protocol = L7M_PROTO_TCP;
	sender = (__u32)l7m_make_key(&packet, &key) & 1;
	count = bpf_map_lookup_elem(&floor_flows6, &key);
	if (!count)
		return 0;
	count->packets[sender] += 1;
	count->bytes[sender] += (__u64)(end - h);
	return 1;
}

/* A new flow at the least: a look-up that misses, and an insertion into an LRU that is full. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, L7M_DEFAULT_CANDIDATES);
	__type(key, struct l7m_key4);
	__type(value, struct l7m_candidate);
} floor_new SEC(".maps");

static __always_inline void l7m_floor_new(const __u8 *h, const __u8 *end)
{
	struct l7m_candidate fresh = {};
	struct l7m_packet packet;
	struct l7m_key4 key;

	if (h + 14 + 20 + 20 > end)
		return;
	if (l7m_load_be16(h + 12) != L7M_BE16(0x0800) || h[14] != 0x45 || h[23] != L7M_PROTO_TCP)
		return;
	packet.saddr[3] = l7m_load_be32(h + 26);
	packet.daddr[3] = l7m_load_be32(h + 30);
	packet.sport = l7m_load_be16(h + 34);
	packet.dport = l7m_load_be16(h + 36);
	packet.protocol = L7M_PROTO_TCP;
	fresh.initiator = (__u8)l7m_make_key4(&packet, &key);
	if (!bpf_map_lookup_elem(&floor_new, &key))
		bpf_map_update_elem(&floor_new, &key, &fresh, BPF_ANY);
}

SEC("tc")
int bench_tc_empty(struct __sk_buff *skb)
{
	(void)skb;
	return TC_ACT_UNSPEC;
}

SEC("tc")
int bench_tc_floor(struct __sk_buff *skb)
{
	l7m_floor((const __u8 *)(long)skb->data, (const __u8 *)(long)skb->data_end);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int bench_tc_floor6(struct __sk_buff *skb)
{
	l7m_floor6((const __u8 *)(long)skb->data, (const __u8 *)(long)skb->data_end);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int bench_tc_floor_new(struct __sk_buff *skb)
{
	l7m_floor_new((const __u8 *)(long)skb->data, (const __u8 *)(long)skb->data_end);
	return TC_ACT_UNSPEC;
}

SEC("xdp")
int bench_xdp_empty(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

SEC("xdp")
int bench_xdp_floor(struct xdp_md *ctx)
{
	l7m_floor((const __u8 *)(long)ctx->data, (const __u8 *)(long)ctx->data_end);
	return XDP_PASS;
}

/*
 * Packets of many flows in one run: writes the next source address into the packet, in an order
 * that no prefetcher follows, and goes on to the program that is measured. What this costs is
 * measured by itself, with the empty program behind it.
 */
struct {
	__u32 at;     /* packets so far */
	__u32 mask;   /* flows, less one; flows are a power of two */
	__u32 shift;  /* half of the bits of mask */
	__u32 offset; /* of the address's last four bytes in the frame */
} bench_walk;

#define BENCH_FIRST_ADDRESS 0x0a000000

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} tc_target SEC(".maps"), xdp_target SEC(".maps");

static __always_inline void bench_next(__u8 *h, const __u8 *end)
{
	__u32 mask = bench_walk.mask, shift = bench_walk.shift & 31;
	__u32 x = bench_walk.at++ & mask;

	/* Each step is a permutation of 0 to mask. */
	x = x * 0x9e3779b1 & mask;
	x ^= x >> shift;
	x = x * 0x85ebca6b & mask;
	x ^= x >> shift;
	h += bench_walk.offset & 63;
	if (h + 4 > end)
		return;
	x = L7M_NTOH32(BENCH_FIRST_ADDRESS + x);
	__builtin_memcpy(h, &x, sizeof(x));
}

SEC("tc")
int bench_tc_walk(struct __sk_buff *skb)
{
	bench_next((__u8 *)(long)skb->data, (const __u8 *)(long)skb->data_end);
	bpf_tail_call_static(skb, &tc_target, 0);
	return TC_ACT_UNSPEC;
}

SEC("xdp")
int bench_xdp_walk(struct xdp_md *ctx)
{
	__u32 ahead = ctx->data - ctx->data_meta;

	/* A run begins with what the one before it left: metadata in front of the packet. */
	if (ahead && bpf_xdp_adjust_meta(ctx, (int)ahead))
		return XDP_ABORTED;
	bench_next((__u8 *)(long)ctx->data, (const __u8 *)(long)ctx->data_end);
	bpf_tail_call_static(ctx, &xdp_target, 0);
	return XDP_PASS;
}

/* Metadata put in front of the packet in one call and in two: their difference is a call. */
SEC("xdp")
int bench_xdp_meta(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_meta(ctx, -16) ? XDP_ABORTED : XDP_PASS;
}

SEC("xdp")
int bench_xdp_meta_twice(struct xdp_md *ctx)
{
	if (bpf_xdp_adjust_meta(ctx, -8) || bpf_xdp_adjust_meta(ctx, -8))
		return XDP_ABORTED;
	return XDP_PASS;
}

SEC("xdp")
int bench_xdp_floor_new(struct xdp_md *ctx)
{
	l7m_floor_new((const __u8 *)(long)ctx->data, (const __u8 *)(long)ctx->data_end);
	return XDP_PASS;
}

SEC("xdp")
int bench_xdp_floor6(struct xdp_md *ctx)
{
	l7m_floor6((const __u8 *)(long)ctx->data, (const __u8 *)(long)ctx->data_end);
	return XDP_PASS;
}

char bench_license[] SEC("license") = "GPL";
