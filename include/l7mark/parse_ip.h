/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* From an IP header, of either version, to what is behind it and its extensions. */
#ifndef L7MARK_PARSE_IP_H
#define L7MARK_PARSE_IP_H

#include <l7mark/parse_cursor.h>

/* RFC 791. Leaves the cursor behind the header and its options. */
static __always_inline int l7m_parse_ipv4(struct l7m_cursor *c, struct l7m_packet *p)
{
	const __u8 *h = l7m_header(c, 20);
	__u32 header;
	__u16 fragment;

	if (!h)
		return L7M_PARSE_SHORT;
	header = (__u32)(h[0] & 0x0f) * 4;
	p->version = 4;
	p->l3_offset = (__u16)c->offset;
	p->l3_length = l7m_load16(h + 2);
	p->protocol = h[9];
	p->hop_limit = h[8];
	p->saddr[3] = l7m_load_be32(h + 12);
	p->daddr[3] = l7m_load_be32(h + 16);
	fragment = l7m_load16(h + 6) & 0x3fff;
	if ((h[0] >> 4) != 4 || header < 20)
		return L7M_PARSE_WRONG;
	if (fragment) {
		p->fragment = fragment & 0x1fff ? L7M_FRAGMENT_LATER : L7M_FRAGMENT_FIRST;
		p->fragment_id = (__be32)l7m_load_be16(h + 4);
	}
	c->offset += header;
	/* 0 is what segmentation offload leaves in a packet too long for the field. */
	if (p->l3_length && p->l3_length < header)
		return L7M_PARSE_WRONG;
	return L7M_PARSE_OK;
}

/*
 * A walk over IPv6 extension headers as one number, because that is all that a global BPF function
 * takes and gives on every kernel; a step in a function of its own keeps the verifier's work linear
 * in their number.
 */
#define L7M_WALK_OFFSET(w)	((__u32)((w)&0xffff))
#define L7M_WALK_NEXT(w)	((__u8)((w) >> 16))
#define L7M_WALK_FRAGMENT(w)	((__u8)((w) >> 24 & 3))
#define L7M_WALK_DONE		((__u64)1 << 26)
#define L7M_WALK_SHORT		((__u64)1 << 27)
#define L7M_WALK_LONG		((__u64)1 << 28)
#define L7M_WALK_ID(w)		((__be32)((w) >> 32))
#define L7M_WALK_BEGIN(at, nxt) ((__u64)(at) | (__u64)(nxt) << 16)

/* A set of protocols below 64, or of those from 128 to 191, as bits. */
#define L7M_PROTO_BIT(protocol) ((__u64)1 << ((protocol)&63))
#define L7M_EXTENSIONS_LOW                                                                         \
	(L7M_PROTO_BIT(L7M_PROTO_HOPOPTS) | L7M_PROTO_BIT(L7M_PROTO_ROUTING) |                     \
	 L7M_PROTO_BIT(L7M_PROTO_FRAGMENT) | L7M_PROTO_BIT(L7M_PROTO_AH) |                         \
	 L7M_PROTO_BIT(L7M_PROTO_DSTOPTS))
#define L7M_EXTENSIONS_HIGH                                                                        \
	(L7M_PROTO_BIT(L7M_PROTO_MOBILITY) | L7M_PROTO_BIT(L7M_PROTO_HIP) |                        \
	 L7M_PROTO_BIT(L7M_PROTO_SHIM6))

/* 1 for an extension header that another header may follow. */
static __always_inline __u32 l7m_is_extension(__u32 protocol)
{
	__u32 high = protocol >> 7 & 1, bit = protocol & 63;

	return ((__u32)(L7M_EXTENSIONS_LOW >> bit & (high ^ 1)) |
		(__u32)(L7M_EXTENSIONS_HIGH >> bit & high)) &
	       ~protocol >> 6;
}

/* 1 if two numbers below 2^31 are the same. */
static __always_inline __u32 l7m_same(__u32 a, __u32 b)
{
	return ((a ^ b) - 1) >> 31;
}

/*
 * By arithmetic where it can be: each branch is a way of its own for the verifier, which walks
 * through them all for every header that a packet may have.
 */
static __always_inline __u64 l7m_walk_step(struct l7m_cursor *c, __u64 walk)
{
	__u32 next = L7M_WALK_NEXT(walk), first = L7M_WALK_FRAGMENT(walk), id, length;
	__u32 is_fragment = l7m_same(next, L7M_PROTO_FRAGMENT), is_ah, later, field;
	const __u8 *h;

	if (!l7m_is_extension(next))
		return walk | L7M_WALK_DONE;
	c->offset = L7M_WALK_OFFSET(walk);
	h = l7m_header(c, 8);
	if (!h)
		return walk | L7M_WALK_SHORT;
	/* In units of 8 bytes beyond the first; RFC 4302: of 4, beyond the second. */
	is_ah = l7m_same(next, L7M_PROTO_AH);
	length = ((h[1] & (is_fragment - 1)) + 1 + is_ah) << (3 - is_ah);
	length += L7M_WALK_OFFSET(walk);
	if (length > L7M_OFFSET_MASK)
		return walk | L7M_WALK_LONG;
	/* Neither offset nor more to come: an "atomic" fragment, RFC 6946. */
	field = l7m_load16(h + 2);
	later = is_fragment & (0 - (field >> 3)) >> 31;
	first |= is_fragment & field;
	id = (__u32)(walk >> 32);
	id ^= (id ^ l7m_load_be32(h + 4)) & (0 - is_fragment);
	/* What follows in a later fragment is not a header. */
	return L7M_WALK_BEGIN(length, h[0]) |
	       (__u64)((first & 1 & (later ^ 1)) | later << 1) << 24 | (__u64)later << 26 |
	       (__u64)id << 32;
}

/* BPF programs put a global function of their own in this place. */
#ifndef L7M_STEP
#define L7M_STEP(c, walk) l7m_walk_step(c, walk)
#endif

/* ::ffff:a.b.c.d, RFC 4291 2.5.5.2: a form of writing an IPv4 address, none to send from or to. */
static __always_inline int l7m_is_mapped(const __be32 *address)
{
	return (address[0] | address[1] | (address[2] ^ L7M_BE32(0xffff))) == 0;
}

/*
 * Extension headers that are followed. RFC 8200, 4.1, knows an order in which no more than seven
 * may stand, and asks receivers to take them in any order and number; more than these are no use
 * to anybody but one who hides what comes behind them.
 */
#define L7M_MAX_EXTENSIONS 16

/*
 * RFC 8200, with the extension headers that may stand before a transport. An address in IPv4-mapped
 * form is refused, or its flow would have the key of another, of IPv4. So does Linux with a source
 * (net/ipv6/ip6_input.c).
 */
static __always_inline int l7m_parse_ipv6(struct l7m_cursor *c, struct l7m_packet *p)
{
	const __u8 *h = l7m_header(c, 40);
	__u64 walk;
	__u8 next;
	int i;

	if (!h)
		return L7M_PARSE_SHORT;
	if ((h[0] >> 4) != 6)
		return L7M_PARSE_WRONG;
	p->version = 6;
	p->l3_offset = (__u16)c->offset;
	p->l3_length = l7m_load16(h + 4);
	if (p->l3_length)
		p->l3_length += 40;
	l7m_load_address(p->saddr, h + 8);
	l7m_load_address(p->daddr, h + 24);
	if (l7m_is_mapped(p->saddr) || l7m_is_mapped(p->daddr))
		return L7M_PARSE_WRONG;
	next = h[6];
	p->hop_limit = h[7];
	c->offset += 40;
	p->protocol = next;
	if (next == L7M_PROTO_TCP || next == L7M_PROTO_UDP || next == L7M_PROTO_ICMPV6)
		return L7M_PARSE_OK;

	walk = L7M_WALK_BEGIN(c->offset, next);
#if defined(__clang__)
#pragma clang loop unroll(disable)
#endif
	for (i = 0; i <= L7M_MAX_EXTENSIONS; i++) {
		if (walk & (L7M_WALK_DONE | L7M_WALK_SHORT | L7M_WALK_LONG))
			break;
		walk = L7M_STEP(c, walk);
	}
	p->fragment = L7M_WALK_FRAGMENT(walk);
	if (walk & L7M_WALK_SHORT)
		return L7M_PARSE_SHORT;
	if (!(walk & L7M_WALK_DONE))
		return L7M_PARSE_HIDDEN;
	p->protocol = L7M_WALK_NEXT(walk);
	p->fragment_id = L7M_WALK_ID(walk);
	c->offset = L7M_WALK_OFFSET(walk);
	l7m_settle(c);
	return L7M_PARSE_OK;
}

#endif /* L7MARK_PARSE_IP_H */
