/* SPDX-License-Identifier: GPL-2.0-only */
/* The class of a flow by nothing but the headers of its first packet. */
#ifndef L7MARK_BPF_HEADER_CLASS_H
#define L7MARK_BPF_HEADER_CLASS_H

#include "maps.h"
#include "packet.h"
#include "promise.h"
#include "sample.h"
#include <l7mark/client.h>

/* Beside what L7M_PROMISED() holds. */
#define L7M_PROMISE_CERTAIN (1ULL << 56) /* no other promise is asked */
#define L7M_PROMISE_TELLS   (1ULL << 57) /* userspace is told at once */

static __always_inline __u32 l7m_count_bits(__u64 bits)
{
	bits -= bits >> 1 & 0x5555555555555555ULL;
	bits = (bits & 0x3333333333333333ULL) + (bits >> 2 & 0x3333333333333333ULL);
	bits = (bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return (__u32)(bits * 0x0101010101010101ULL >> 56);
}

/* 1 if the server sent the first packet, as client_of() in userspace has it. */
static __always_inline int l7m_server_sent(const struct l7m_met *met)
{
	const struct l7m_packet *p = &met->packet;
	enum l7m_client client;

	client = l7m_client_by_ports(p->protocol, met->candidate.flags, L7M_NTOH16(p->sport),
				     L7M_NTOH16(p->dport));
	if (client == L7M_CLIENT_INSIDE)
		return !l7m_is_inside(p->saddr) && l7m_is_inside(p->daddr);
	return client == L7M_CLIENT_RECEIVED;
}

/* Takes from `left` the rules that a table rules out. Returns 0 if none is left. */
static __always_inline int l7m_narrow(__u64 *left, const struct l7m_header_key *key)
{
	const struct l7m_header_mask *mask = bpf_map_lookup_elem(&header_prefixes, key);
	__u64 any = 0;
	int i;

	if (!mask)
		return 0;
#pragma unroll
	for (i = 0; i < L7M_HEADER_WORDS; i++) {
		left[i] &= mask->rules[i];
		any |= left[i];
	}
	return any != 0;
}

/* 1 if there is a bit, else 0: by reckoning, where a branch would be a way of its own to verify. */
static __always_inline __u64 l7m_any_bit(__u64 bits)
{
	__u64 negative = -bits;

	asm volatile("" : "+r"(negative));
	return (bits | negative) >> 63;
}

/*
 * The lowest exact rule of those in `left`, as a promise; 0 for none, or if it drops and a rule in
 * front of it may come true.
 */
static __always_inline __u64 l7m_lowest_rule(struct l7m_met *met, const __u64 *left,
					     const struct l7m_header_rules *rules)
{
	__u64 found = 0, open = 0, drops = 0, tells = 0, rule = 0, bit, none;
	__u32 action;
	int i;

#pragma unroll
	for (i = 0; i < L7M_HEADER_WORDS; i++) {
		none = l7m_any_bit(found) - 1;
		bit = left[i] & rules->exact[i] & none;
		bit &= -bit;
		open |= left[i] & (bit - 1) & none;
		rule |= (__u64)(i * 64 + l7m_count_bits(bit - 1)) & -l7m_any_bit(bit);
		drops |= rules->drops[i] & bit;
		tells |= rules->tells[i] & bit;
		found |= bit;
	}
	if (!found || (l7m_any_bit(drops) & l7m_any_bit(open)))
		return 0;
	action = rules->action[l7m_forget_by(met, rule) & (L7M_HEADER_RULES - 1)];
	if (!action)
		return L7M_PROMISE_CERTAIN;
	return L7M_PROMISED(action, L7M_FLOW_HEADERS) |
	       L7M_PROMISE_CERTAIN * (l7m_any_bit(open) ^ 1) |
	       L7M_PROMISE_TELLS * l7m_any_bit(tells);
}

/*
 * The promise by headers for the flow of the scratch entry, by the tables of a generation; 0 for
 * none. Global in XDP too, because it takes no context, and so verified once.
 */
__attribute__((noinline)) __u64 l7m_header_class(__u32 generation)
{
	struct l7m_met *met = l7m_scratch();
	struct l7m_header_key key = {};
	const struct l7m_header_rules *rules;
	const struct l7m_packet *p;
	__u64 left[L7M_HEADER_WORDS];
	__u32 first = generation * L7M_HEADER_TABLES, version, server;
	int i;

	if (!met)
		return 0;
	p = &met->packet;
	/* Endpoints by number, 0 for the sender: a choice by branches would be verified twice. */
	server = (__u32)l7m_forget_by(met, (__u64)!l7m_server_sent(met)) & 1;
	version = (__u32)p->version;
#pragma unroll
	for (i = 0; i < L7M_HEADER_WORDS; i++)
		left[i] = ~0ULL;

	key.length = 32 + 16;
	key.table = first + L7M_HEADER_PORT;
	key.key[0] = L7M_BE32((__u32)L7M_NTOH16((&p->sport)[server]) << 16);
	if (!l7m_narrow(left, &key))
		return 0;
	key.table = first + L7M_HEADER_TRANSPORT;
	key.key[0] = L7M_BE32(version << 24 | (__u32)p->protocol << 16);
	if (!l7m_narrow(left, &key))
		return 0;
	key.length = 32 + 32;
	key.table = first + L7M_HEADER_INTERFACE;
	key.key[0] = L7M_BE32(met->ifindex);
	if (!l7m_narrow(left, &key))
		return 0;
	key.length = 32 + 128;
	key.table = first + L7M_HEADER_SERVER;
	__builtin_memcpy(key.key, p->saddr + (__u64)server * 4, sizeof(key.key));
	if (!l7m_narrow(left, &key))
		return 0;
	key.table = first + L7M_HEADER_CLIENT;
	__builtin_memcpy(key.key, p->saddr + (__u64)(server ^ 1) * 4, sizeof(key.key));
	if (!l7m_narrow(left, &key))
		return 0;
	rules = bpf_map_lookup_elem(&header_rules, &generation);
	return rules ? l7m_lowest_rule(met, left, rules) : 0;
}

/*
 * What is known of the flow of the scratch entry before any byte of it was looked at, 0 for
 * nothing. A class by headers that another class may take the flow from is the last to be asked.
 */
static __always_inline __u64 l7m_first_promise(struct l7m_met *met, const struct l7m_settings *s)
{
	__u64 headers = 0, number = 0;

	if (s->flags & L7M_SET_HEADERS)
		headers = l7m_forget_by(met,
					l7m_header_class(s->flags & L7M_SET_HEADERS_ODD ? 1 : 0));
	if (!(headers & L7M_PROMISE_CERTAIN))
		number = l7m_forget_by(met, l7m_find_promise(&met->packet, s));
	if (number || !(__u32)headers)
		return number;
	l7m_count(L7M_COUNT_BY_HEADERS, 1);
	if (headers & L7M_PROMISE_TELLS)
		met->out.flags |= L7M_SAMPLE_BEGUN;
	return headers;
}

#endif /* L7MARK_BPF_HEADER_CLASS_H */
