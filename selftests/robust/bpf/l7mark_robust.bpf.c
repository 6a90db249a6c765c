// SPDX-License-Identifier: GPL-2.0-only
/*
 * The witness of selftests/robust: stands behind the classifier, on the way out of both of the
 * gateway's interfaces, and compares the mark of each packet that ends in a token with what the
 * token says. What is not there to be compared has been dropped.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include "token.h"

#define ROBUST_MARK_MASK 0xff

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ROBUST_FLOWS);
	__type(key, __u32);
	__type(value, struct robust_count);
} witness_counts SEC(".maps");

SEC("tc")
int robust_witness(struct __sk_buff *skb)
{
	struct robust_token token;
	struct robust_count *count;
	__u32 length = skb->len, mark = skb->mark & ROBUST_MARK_MASK, flow;

	if (length < sizeof(token) + 34 || length > 0xffff)
		return TC_ACT_UNSPEC;
	if (bpf_skb_load_bytes(skb, length - sizeof(token), &token, sizeof(token)))
		return TC_ACT_UNSPEC;
	if (token.magic != ROBUST_MAGIC)
		return TC_ACT_UNSPEC;
	flow = token.flow;
	count = bpf_map_lookup_elem(&witness_counts, &flow);
	if (!count)
		return TC_ACT_UNSPEC;
	if (token.flags & ROBUST_BARRED)
		__sync_fetch_and_add(token.flags & ROBUST_MUST ? &count->passed : &count->early, 1);
	else if (mark == token.mark)
		__sync_fetch_and_add(&count->right, 1);
	else if (mark)
		__sync_fetch_and_add(&count->wrong, 1);
	else if (token.flags & ROBUST_MUST)
		__sync_fetch_and_add(&count->lost, 1);
	else
		__sync_fetch_and_add(&count->early, 1);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int robust_empty(struct __sk_buff *skb)
{
	(void)skb;
	return TC_ACT_UNSPEC;
}

char robust_license[] SEC("license") = "GPL";
