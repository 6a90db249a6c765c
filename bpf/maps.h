/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every map, with who writes it and what happens when it is full. Sizes that a policy can change
 * are defaults here; userspace sets them between open and load. The TC and the XDP object hold the
 * same maps: whichever is loaded second takes those of the first.
 */
#ifndef L7MARK_BPF_MAPS_H
#define L7MARK_BPF_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <l7mark/maps.h>

const volatile struct l7m_config l7m_config = {};

/*
 * Flows that have an answer. Userspace inserts and removes; programs count in place, and remove an
 * entry only when a SYN reuses a closed five-tuple. Full: userspace is told at insertion, and the
 * flow stays a candidate. Not an LRU: that would forget silently, under a flood first of all.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, L7M_DEFAULT_FLOWS);
	__type(key, struct l7m_key4);
	__type(value, struct l7m_verdict);
} flows4 SEC(".maps");

/* Memory as it fills: reserved for both families, a table for a million flows would take twice. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, L7M_DEFAULT_FLOWS);
	__type(key, struct l7m_key);
	__type(value, struct l7m_verdict);
} flows6 SEC(".maps");

/*
 * Flows being sampled, of both families; the places of a set are its flows'. Programs insert,
 * userspace has `l7mark_settle` take out with the verdict. Full: a flow makes way, one-way flows
 * first, is counted, and begins anew if it goes on.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); /* for its alignment: nobody maps it */
	__uint(max_entries, L7M_DEFAULT_CANDIDATES / L7M_WAYS);
	__type(key, __u32);
	__type(value, struct l7m_candidate_set);
} candidates SEC(".maps");

/* What classes do. Userspace writes, programs read. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, L7M_MAX_ACTIONS);
	__type(key, __u32);
	__type(value, struct l7m_action);
} actions SEC(".maps");

/* Class by server and client, from earlier flows. Userspace writes; the oldest goes when full. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, L7M_DEFAULT_SERVICES);
	__type(key, struct l7m_service_key);
	__type(value, struct l7m_promise);
} services SEC(".maps");

/*
 * Class by server address, and by client where that matters, from DNS answers. Userspace writes;
 * the oldest goes when full.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, L7M_DEFAULT_HINTS);
	__type(key, struct l7m_hint_key);
	__type(value, struct l7m_promise);
} hints SEC(".maps");

/* Flows begun, for their ids. Programs write. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lives SEC(".maps");

/* Ports by datagram, for fragments after the first. Programs write; the oldest goes when full. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct l7m_fragment_key);
	__type(value, struct l7m_fragment);
} fragments SEC(".maps");

/* Bytes copied by source, this second; a place is shared when there are more. Programs write. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); /* for its alignment: nobody maps it */
	__uint(max_entries, L7M_BUDGET_SETS + 1);
	__type(key, __u32);
	__type(value, struct l7m_budget_set);
} budgets SEC(".maps");

/* Sources above their budget, by name. Programs write; the oldest goes when full. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, L7M_SOURCES);
	__type(key, struct l7m_source_key);
	__type(value, struct l7m_source);
} sources SEC(".maps");

/* The clients' side. Userspace writes, programs read when a flow begins. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct l7m_prefix_key);
	__type(value, __u32);
} inside SEC(".maps");

/*
 * Masks of rules by prefix, and the rules: what a flow's headers alone promise. Userspace writes
 * the generation that is not in use, then the settings; the entries of the one before stay until
 * then.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, L7M_HEADER_PREFIXES);
	__type(key, struct l7m_header_key);
	__type(value, struct l7m_header_mask);
} header_prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, L7M_HEADER_GENERATIONS);
	__type(key, __u32);
	__type(value, struct l7m_header_rules);
} header_rules SEC(".maps");

/* Class by mark, for `l7mark_classid` behind NAT. Key: skb->mark without the bits of others. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, L7M_MAX_ACTIONS);
	__type(key, __u32);
	__type(value, __u32);
} marks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct l7m_settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, L7M_COUNTER_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* What a ring looks like; the rings themselves are made by userspace, with its size. */
struct l7m_ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, L7M_DEFAULT_RING_BYTES);
};

/* One ring buffer a worker. Full: the packet is counted and the flow's next one tries again. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, L7M_MAX_RINGS);
	__type(key, __u32);
	__array(values, struct l7m_ring);
} rings SEC(".maps");

static __always_inline void l7m_count(__u32 counter, __u64 amount)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	/* Per CPU, and programs of a CPU do not interrupt each other's increments. */
	if (value)
		*value += amount;
}

#endif /* L7MARK_BPF_MAPS_H */
