/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Both of the programs' ways to a flow's key, over one packet, from the headers that the programs
 * are made of. Included by an object for each hook.
 */
#ifndef L7MARK_SELFTESTS_KEYS_BPF_H
#define L7MARK_SELFTESTS_KEYS_BPF_H

#include "candidate.h"
#include "flow.h"
#include "hook.h"
#include "keys.h"
#include "maps.h"
#include "packet.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct keys_found);
} found SEC(".maps");

static __always_inline struct keys_found *keys_found(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&found, &zero);
}

static __always_inline void *keys_look_up(void *map, const void *key)
{
	struct keys_found *out = keys_found();

	if (!out)
		return 0;
	if (map == (void *)&flows4) {
		out->fast = 1;
		out->fast_version = 4;
		__builtin_memcpy(&out->fast_key, key, sizeof(struct l7m_key4));
	} else if (map == (void *)&flows6) {
		out->fast = 1;
		out->fast_version = 6;
		__builtin_memcpy(&out->fast_key, key, sizeof(struct l7m_key));
	}
	return bpf_map_lookup_elem(map, key);
}

/* The hot path's look-ups are told of. */
#define bpf_map_lookup_elem(map, key) keys_look_up(map, key)
#include "fast.h"
#undef bpf_map_lookup_elem

static __always_inline int keys_run(l7m_ctx *ctx, __u32 frame)
{
	const __u32 hook = L7M_HOOK_L2 | L7M_HOOK_COUNT;
	struct keys_found *out = keys_found();
	struct l7m_met *met = l7m_scratch();
	struct l7m_fast fast = {};

	if (!out || !met)
		return -1;
	out->fast = 0;
	l7m_fast_path((const __u8 *)(long)ctx->data, (const __u8 *)(long)ctx->data_end, frame, 1,
		      l7m_taken_vlan(ctx), &fast);
	if (out->fast) {
		out->fast_sender = fast.sender;
		out->refused = l7m_missed(ctx, hook, fast.l3_offset, 0) != L7M_CANDIDATE;
		out->missed_packet = met->packet;
	}
	out->slow = (__u32)l7m_parse_packet(ctx, hook);
	if (out->slow == L7M_PARSE_OK) {
		l7m_map_ipv4(&met->packet);
		out->slow_sender = (__u32)l7m_make_key(&met->packet, &out->slow_key);
		out->slow_packet = met->packet;
	}
	return 0;
}

#endif /* L7MARK_SELFTESTS_KEYS_BPF_H */
