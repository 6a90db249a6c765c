/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a frame to its five-tuple, for the programs in the kernel and, compiled for userspace, for
 * `l7mark classify --path user`: one parser, so that both see the same flows.
 *
 * Every function takes a cursor, checks its bounds before it reads, and touches no map. Loops have
 * fixed limits, for the verifier of 5.10 and against packets made to be slow.
 */
#ifndef L7MARK_PARSE_H
#define L7MARK_PARSE_H

#include <linux/types.h>
#include <l7mark/types.h>

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* Host to network order of a constant; both sides are little or big endian alike. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define L7M_BE16(x) ((__be16)__builtin_bswap16(x))
#define L7M_BE32(x) ((__be32)__builtin_bswap32(x))
#define L7M_BE64(x) ((__be64)__builtin_bswap64(x))
#else
#define L7M_BE16(x) ((__be16)(x))
#define L7M_BE32(x) ((__be32)(x))
#define L7M_BE64(x) ((__be64)(x))
#endif
/* A 32-bit word whose first byte in memory is x and whose others are 0. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define L7M_FIRST_BYTE(x) ((__u32)(x))
#else
#define L7M_FIRST_BYTE(x) ((__u32)(x) << 24)
#endif
#define L7M_NTOH16(x) ((__u16)L7M_BE16((__u16)(x)))
#define L7M_NTOH32(x) ((__u32)L7M_BE32((__u32)(x)))
#define L7M_NTOH64(x) ((__u64)L7M_BE64((__u64)(x)))

/* IANA numbers; <linux/in.h> and <netinet/in.h> cannot both be included. */
enum {
	L7M_PROTO_HOPOPTS = 0,
	L7M_PROTO_ICMP = 1,
	L7M_PROTO_IPIP = 4,
	L7M_PROTO_TCP = 6,
	L7M_PROTO_UDP = 17,
	L7M_PROTO_DCCP = 33,
	L7M_PROTO_IPV6 = 41,
	L7M_PROTO_ROUTING = 43,
	L7M_PROTO_FRAGMENT = 44,
	L7M_PROTO_GRE = 47,
	L7M_PROTO_AH = 51,
	L7M_PROTO_ICMPV6 = 58,
	L7M_PROTO_NONE = 59,
	L7M_PROTO_DSTOPTS = 60,
	L7M_PROTO_SCTP = 132,
	L7M_PROTO_MOBILITY = 135,
	L7M_PROTO_UDPLITE = 136,
	L7M_PROTO_HIP = 139,
	L7M_PROTO_SHIM6 = 140,
};

#define L7M_TCP_FIN 0x01
#define L7M_TCP_SYN 0x02
#define L7M_TCP_RST 0x04
#define L7M_TCP_ACK 0x10

/* Options of l7m_parse(). */
#define L7M_PARSE_IPIP	    0x01 /* open IPv4 and IPv6 in IPv4 or IPv6 (RFC 2003, 4213) */
#define L7M_PARSE_GRE	    0x02 /* open GRE (RFC 2784, 2890) */
#define L7M_PARSE_GTPU	    0x04 /* open GTP-U on UDP port 2152 (3GPP TS 29.281) */
#define L7M_PARSE_VXLAN	    0x08 /* open VXLAN on UDP port 4789 (RFC 7348) */
#define L7M_PARSE_TWO_PORTS 0x10 /* ports for TCP and UDP only, as nDPI's own tools key flows */

enum l7m_parse_result {
	L7M_PARSE_OK = 0,
	L7M_PARSE_NOT_IP,
	L7M_PARSE_SHORT, /* a header goes beyond the end of what is readable */
	L7M_PARSE_WRONG, /* a field contradicts another */
};

#define L7M_FRAGMENT_NONE  0
#define L7M_FRAGMENT_FIRST 1
#define L7M_FRAGMENT_LATER 2

struct l7m_packet {
	__be32 saddr[4]; /* IPv4: only [3] is set; see l7m_make_key() */
	__be32 daddr[4];
	__be16 sport; /* 0 where the protocol has none, and in later fragments */
	__be16 dport;
	__u8 version; /* 4 or 6 */
	__u8 protocol;
	__u8 tcp_flags; /* the lower 8 flag bits, 0 unless TCP */
	__u8 fragment;	/* L7M_FRAGMENT_* */
	__be32 fragment_id;
	__u16 l3_offset; /* of the innermost IP header that was opened, from the frame's start */
	__u16 vlan;	 /* outermost tag in the frame, 0 for none */
	__u32 l3_length; /* bytes of that IP packet, by its header */
	__u32 payload;	 /* bytes after the transport header, 0 for later fragments */
	__u32 handshake; /* 1 if the payload may begin a TLS, DTLS or QUIC handshake */
	__u32 sequence;	 /* TCP: sequence number of the first byte of payload, host order */
};

/*
 * A place in a frame. It is kept as a number and made a pointer anew for every header: the number
 * is masked first, so that the verifier sees one state of a loop and not one for each way there.
 */
struct l7m_cursor {
	const __u8 *start; /* of the frame */
	const __u8 *end;   /* of what is readable */
	__u32 offset;
	void *context; /* BPF: the program's context */
};

/* No stack of headers that we open is longer; what goes on behind it is refused as short. */
#define L7M_OFFSET_MASK 0x7ff

/* The next `size` bytes, or 0 if they are not all readable. */
static __always_inline const __u8 *l7m_header(const struct l7m_cursor *c, __u32 size)
{
	const __u8 *h = c->start + (c->offset & L7M_OFFSET_MASK);

	return h + size <= c->end ? h : (const __u8 *)0; /* NOLINT: C has no nullptr */
}

/* Makes the offset's range the same on every way to here. */
static __always_inline void l7m_settle(struct l7m_cursor *c)
{
	__asm__ volatile("" : "+r"(c->offset));
	c->offset &= L7M_OFFSET_MASK;
}

/*
 * Loads as on the wire: the packet's headers need not be aligned. In BPF a copy of unknown
 * alignment becomes one load a byte; the verifier lets words be loaded from anywhere in a packet
 * where the machine can do that, and from where the IP header of an Ethernet frame stands on any
 * other.
 */
#ifdef __bpf__
#define L7M_LOADER(name, type)                                                                     \
	static __always_inline type name(const __u8 *p)                                            \
	{                                                                                          \
		return *(const type *)p;                                                           \
	}
#else
#define L7M_LOADER(name, type)                                                                     \
	static __always_inline type name(const __u8 *p)                                            \
	{                                                                                          \
		type v;                                                                            \
		__builtin_memcpy(&v, p, sizeof(v));                                                \
		return v;                                                                          \
	}
#endif
L7M_LOADER(l7m_load_be16, __be16)
L7M_LOADER(l7m_load_be32, __be32)
L7M_LOADER(l7m_load_be64, __be64)
#undef L7M_LOADER

/* In host order. */
static __always_inline __u16 l7m_load16(const __u8 *p)
{
	return L7M_NTOH16(l7m_load_be16(p));
}

static __always_inline void l7m_load_address(__be32 *to, const __u8 *p)
{
	to[0] = l7m_load_be32(p);
	to[1] = l7m_load_be32(p + 4);
	to[2] = l7m_load_be32(p + 8);
	to[3] = l7m_load_be32(p + 12);
}

/*
 * Link layer: Ethernet (also with RFC 1042 SNAP), up to three VLAN tags, MPLS labels, a PPPoE
 * session. Leaves the cursor on the IP header and returns its version, or a negative
 * l7m_parse_result.
 */
static __always_inline int l7m_parse_ethernet(struct l7m_cursor *c, struct l7m_packet *p)
{
	const __u8 *h = l7m_header(c, 14);
	__u16 type;
	int i;

	if (!h)
		return -L7M_PARSE_SHORT;
	type = l7m_load16(h + 12);
	c->offset += 14;
	if (type == 0x0800)
		return 4;
	if (type == 0x86dd)
		return 6;
	if (type <= 1500) {
		h = l7m_header(c, 8);
		if (!h || h[0] != 0xaa || h[1] != 0xaa)
			return -L7M_PARSE_NOT_IP;
		type = l7m_load16(h + 6);
		c->offset += 8;
	}
	for (i = 0; i < 3; i++) {
		if (type != 0x8100 && type != 0x88a8 && type != 0x9100)
			break;
		h = l7m_header(c, 4);
		if (!h)
			return -L7M_PARSE_SHORT;
		if (i == 0)
			p->vlan = l7m_load16(h) & 0x0fff;
		type = l7m_load16(h + 2);
		c->offset += 4;
	}
	if (type == 0x0800)
		return 4;
	if (type == 0x86dd)
		return 6;
	if (type == 0x8864) { /* RFC 2516: 6 bytes of PPPoE, then the PPP protocol */
		h = l7m_header(c, 8);
		if (!h)
			return -L7M_PARSE_SHORT;
		type = l7m_load16(h + 6);
		c->offset += 8;
		if (type == 0x0021)
			return 4;
		if (type == 0x0057)
			return 6;
		return -L7M_PARSE_NOT_IP;
	}
	if (type == 0x8847 || type == 0x8848) { /* RFC 3032: the label with the S bit is the last */
		for (i = 0; i < 6; i++) {
			l7m_settle(c);
			h = l7m_header(c, 4);
			if (!h)
				return -L7M_PARSE_SHORT;
			c->offset += 4;
			if (h[2] & 1)
				break;
		}
		l7m_settle(c);
		h = l7m_header(c, 1);
		if (!h)
			return -L7M_PARSE_SHORT;
		if ((h[0] >> 4) == 4)
			return 4;
		if ((h[0] >> 4) == 6)
			return 6;
	}
	return -L7M_PARSE_NOT_IP;
}

/* Link layer as one number, for the same reason: result, version, offset and VLAN. */
#define L7M_LINK_OFFSET(l)  ((__u32)((l)&0xffff))
#define L7M_LINK_VLAN(l)    ((__u16)((l) >> 16))
#define L7M_LINK_VERSION(l) ((int)((l) >> 32 & 0xff))
#define L7M_LINK_RESULT(l)  ((int)((l) >> 40 & 0xff))

static __always_inline __u64 l7m_link(struct l7m_cursor *c)
{
	struct l7m_packet p;
	int version;

	p.vlan = 0; /* nothing else of it is touched */
	version = l7m_parse_ethernet(c, &p);

	if (version < 0)
		return (__u64)-version << 40;
	return (__u64)version << 32 | (__u64)p.vlan << 16 | c->offset;
}

#ifndef L7M_LINK
#define L7M_LINK(c) l7m_link(c)
#endif

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
#define L7M_WALK_ID(w)		((__be32)((w) >> 32))
#define L7M_WALK_BEGIN(at, nxt) ((__u64)(at) | (__u64)(nxt) << 16)

static __always_inline __u64 l7m_walk_step(struct l7m_cursor *c, __u64 walk)
{
	__u8 next = L7M_WALK_NEXT(walk), fragment = L7M_WALK_FRAGMENT(walk);
	__u32 id = (__u32)(walk >> 32), length;
	const __u8 *h;

	if (next != L7M_PROTO_FRAGMENT && next != L7M_PROTO_AH && next != L7M_PROTO_HOPOPTS &&
	    next != L7M_PROTO_ROUTING && next != L7M_PROTO_DSTOPTS && next != L7M_PROTO_MOBILITY &&
	    next != L7M_PROTO_HIP && next != L7M_PROTO_SHIM6)
		return walk | L7M_WALK_DONE;
	c->offset = L7M_WALK_OFFSET(walk);
	h = l7m_header(c, 8);
	if (!h)
		return walk | L7M_WALK_SHORT;
	length = ((__u32)h[1] + 1) * 8;
	if (next == L7M_PROTO_AH)
		length = ((__u32)h[1] + 2) * 4; /* RFC 4302: in words, less two */
	if (next == L7M_PROTO_FRAGMENT) {
		__u16 offset = l7m_load16(h + 2);

		length = 8;
		id = l7m_load_be32(h + 4);
		/* Neither offset nor more to come: an "atomic" fragment, RFC 6946. */
		if (offset & 0xfff8)
			fragment = L7M_FRAGMENT_LATER;
		else if (offset & 1)
			fragment = L7M_FRAGMENT_FIRST;
	}
	length += L7M_WALK_OFFSET(walk);
	if (length > L7M_OFFSET_MASK)
		return walk | L7M_WALK_SHORT;
	walk = L7M_WALK_BEGIN(length, h[0]) | (__u64)fragment << 24 | (__u64)id << 32;
	/* What follows in a later fragment is not a header. */
	return fragment == L7M_FRAGMENT_LATER ? walk | L7M_WALK_DONE : walk;
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
	c->offset += 40;
	p->protocol = next;
	if (next == L7M_PROTO_TCP || next == L7M_PROTO_UDP || next == L7M_PROTO_ICMPV6)
		return L7M_PARSE_OK;

	walk = L7M_WALK_BEGIN(c->offset, next);
#if defined(__clang__)
#pragma clang loop unroll(disable)
#endif
	for (i = 0; i < 8; i++) {
		if (walk & (L7M_WALK_DONE | L7M_WALK_SHORT))
			break;
		walk = L7M_STEP(c, walk);
	}
	if (walk & L7M_WALK_SHORT)
		return L7M_PARSE_SHORT;
	p->protocol = L7M_WALK_NEXT(walk);
	p->fragment = L7M_WALK_FRAGMENT(walk);
	p->fragment_id = L7M_WALK_ID(walk);
	c->offset = L7M_WALK_OFFSET(walk);
	l7m_settle(c);
	return L7M_PARSE_OK;
}

/*
 * RFC 2784 and 2890, and Ethernet inside of it (RFC 7637). Like the other tunnels: returns the
 * version of the IP header inside, with the cursor on it, or 0 with the cursor where it was.
 */
static __always_inline int l7m_parse_gre(struct l7m_cursor *c)
{
	const __u8 *h = l7m_header(c, 4);
	__u32 before = c->offset;
	__u16 flags, type;

	if (!h)
		return 0;
	flags = l7m_load16(h);
	type = l7m_load16(h + 2);
	if (flags & 0x4f07)
		return 0; /* routing present, or a version other than 0 */
	if (type != 0x0800 && type != 0x86dd && type != 0x6558)
		return 0;
	c->offset += 4;
	if (flags & 0x8000)
		c->offset += 4; /* checksum */
	if (flags & 0x2000)
		c->offset += 4; /* key */
	if (flags & 0x1000)
		c->offset += 4; /* sequence number */
	if (type == 0x6558) {
		h = l7m_header(c, 14);
		type = h ? l7m_load16(h + 12) : 0;
		c->offset += 14;
	}
	if (type == 0x0800)
		return 4;
	if (type == 0x86dd)
		return 6;
	c->offset = before;
	return 0;
}

/*
 * 3GPP TS 29.281. Of extension headers two are skipped: 5G puts one, the PDU session container
 * (TS 38.415), before every packet. Each begins with its length in words and ends with the type of
 * the next.
 */
static __always_inline int l7m_parse_gtpu(struct l7m_cursor *c)
{
	const __u8 *h = l7m_header(c, 8 + 8); /* behind UDP */
	__u32 before = c->offset;
	__u8 next = 0, version = 0;
	int i;

	if (!h)
		return 0;
	h += 8;
	/* Version 1, protocol type GTP, message T-PDU. */
	if ((h[0] & 0xf0) != 0x30 || h[1] != 0xff)
		return 0;
	c->offset += 8 + 8;
	if (h[0] & 0x07) {
		int extended = h[0] & 0x04;

		h = l7m_header(c, 4);
		if (h && extended)
			next = h[3];
		c->offset += 4;
	}
#if defined(__clang__)
#pragma unroll
#endif
	for (i = 0; i < 2; i++) {
		__u32 length;

		if (!next)
			break;
		h = l7m_header(c, 1);
		if (!h || !h[0])
			goto closed;
		length = h[0] * 4U;
		c->offset += length - 1;
		l7m_settle(c);
		h = l7m_header(c, 1);
		if (!h)
			goto closed;
		next = h[0];
		c->offset += 1;
	}
	h = l7m_header(c, 1);
	if (h && !next)
		version = h[0] >> 4;
	if (version == 4 || version == 6)
		return version;
closed:
	c->offset = before;
	return 0;
}

static __always_inline int l7m_parse_vxlan(struct l7m_cursor *c)
{
	const __u8 *h = l7m_header(c, 8 + 8 + 14);
	__u16 type;

	if (!h)
		return 0;
	if (!(h[8] & 0x08))
		return 0; /* no valid network identifier */
	type = l7m_load16(h + 8 + 8 + 12);
	if (type != 0x0800 && type != 0x86dd)
		return 0;
	c->offset += 8 + 8 + 14;
	return type == 0x0800 ? 4 : 6;
}

/*
 * What is behind an IP header, if it is a tunnel to open, as one number for the same reason: in,
 * the offset, the protocol and the options of l7m_parse(); out, the offset and version of the IP
 * header inside, version 0 for none.
 */
#define L7M_TUNNEL_OFFSET(t)  ((__u32)((t)&0xffff))
#define L7M_TUNNEL_VERSION(t) ((int)((t) >> 16 & 0xff))
#define L7M_TUNNEL_SHORT      ((__u64)1 << 24)
#define L7M_TUNNEL_BEHIND(offset, protocol, options)                                               \
	((__u64)(offset) | (__u64)(protocol) << 16 | (__u64)(options) << 32)

static __always_inline __u64 l7m_tunnel(struct l7m_cursor *c, __u64 behind)
{
	__u8 protocol = (__u8)(behind >> 16);
	__u32 options = (__u32)(behind >> 32);
	int inner = 0;

	c->offset = L7M_TUNNEL_OFFSET(behind);
	l7m_settle(c);
	if (options & L7M_PARSE_IPIP) {
		if (protocol == L7M_PROTO_IPIP)
			inner = 4;
		else if (protocol == L7M_PROTO_IPV6)
			inner = 6;
	}
	if ((options & L7M_PARSE_GRE) && protocol == L7M_PROTO_GRE)
		inner = l7m_parse_gre(c);
	if ((options & (L7M_PARSE_GTPU | L7M_PARSE_VXLAN)) && protocol == L7M_PROTO_UDP) {
		const __u8 *h = l7m_header(c, 8);
		__be16 dport;

		if (!h)
			return L7M_TUNNEL_SHORT;
		dport = l7m_load_be16(h + 2);
		if ((options & L7M_PARSE_GTPU) && dport == L7M_BE16(2152))
			inner = l7m_parse_gtpu(c);
		else if ((options & L7M_PARSE_VXLAN) && dport == L7M_BE16(4789))
			inner = l7m_parse_vxlan(c);
	}
	return (__u64)inner << 16 | (c->offset & L7M_OFFSET_MASK);
}

#ifndef L7M_TUNNEL
#define L7M_TUNNEL(c, behind) l7m_tunnel(c, behind)
#endif

/*
 * The first byte of payload, on the cursor: a handshake record of TLS or DTLS (RFC 8446, 5.1), or
 * over UDP a long header of QUIC (RFC 9000, 17.2). What can't be read may be one.
 */
static __always_inline __u32 l7m_may_be_handshake(struct l7m_cursor *c, __u8 protocol)
{
	const __u8 *h;

	l7m_settle(c);
	h = l7m_header(c, 1);
	return !h || h[0] == 0x16 || (protocol == L7M_PROTO_UDP && (h[0] & 0xc0) == 0xc0);
}

/* Where the payload behind a TCP header begins in its stream: a SYN takes a number of its own. */
static __always_inline __u32 l7m_tcp_sequence(const __u8 *tcp)
{
	return L7M_NTOH32(l7m_load_be32(tcp + 4)) + (tcp[13] & L7M_TCP_SYN ? 1 : 0);
}

/* Transport header on the cursor; `length` is what the IP header leaves for it. */
static __always_inline int l7m_parse_transport(struct l7m_cursor *c, struct l7m_packet *p,
					       __u32 length, __u32 options)
{
	const __u8 *h;

	if (p->protocol == L7M_PROTO_TCP) {
		__u32 header;

		if (length < 20)
			return L7M_PARSE_WRONG;
		h = l7m_header(c, 20);
		if (!h)
			return L7M_PARSE_SHORT;
		p->sport = l7m_load_be16(h);
		p->dport = l7m_load_be16(h + 2);
		p->tcp_flags = h[13];
		p->sequence = l7m_tcp_sequence(h);
		header = (__u32)(h[12] >> 4) * 4;
		p->payload = header <= length ? length - header : 0;
		c->offset += header;
		if (p->payload)
			p->handshake = l7m_may_be_handshake(c, L7M_PROTO_TCP);
		return L7M_PARSE_OK;
	}
	if (p->protocol == L7M_PROTO_UDP) {
		if (length < 8)
			return L7M_PARSE_WRONG;
		h = l7m_header(c, 8);
		if (!h)
			return L7M_PARSE_SHORT;
		p->sport = l7m_load_be16(h);
		p->dport = l7m_load_be16(h + 2);
		p->payload = length - 8;
		c->offset += 8;
		if (p->payload)
			p->handshake = l7m_may_be_handshake(c, L7M_PROTO_UDP);
		return L7M_PARSE_OK;
	}
	if (!(options & L7M_PARSE_TWO_PORTS) &&
	    (p->protocol == L7M_PROTO_SCTP || p->protocol == L7M_PROTO_UDPLITE ||
	     p->protocol == L7M_PROTO_DCCP)) {
		if (length < 4)
			return L7M_PARSE_WRONG;
		h = l7m_header(c, 4);
		if (!h)
			return L7M_PARSE_SHORT;
		p->sport = l7m_load_be16(h);
		p->dport = l7m_load_be16(h + 2);
	}
	p->payload = length;
	return L7M_PARSE_OK;
}

/*
 * A capture that is replayed: a program run is told of at most so many bytes (skb->wire_len;
 * net/bpf/test_run.c: GSO_LEGACY_MAX_SIZE), which may be a few headers less than the frame had.
 */
#define L7M_REPLAY_MAX 65536
static __always_inline __u32 l7m_replayed_frame(__u32 told)
{
	return told < L7M_REPLAY_MAX ? told : L7M_REPLAY_MAX + 256;
}

/*
 * The whole way. The cursor stands on the frame's start and ends anywhere. `version` is 0 for a
 * frame with an Ethernet header, else that of the IP header it begins with. `frame` is the length
 * of the frame in bytes, which may be more than what the cursor can read. The packet must be
 * zeroed.
 */
static __always_inline int l7m_parse(struct l7m_cursor *c, struct l7m_packet *p, int version,
				     __u32 frame, __u32 options)
{
	__u32 used;
	int result, depth;

	if (version == 0) {
		__u64 link = L7M_LINK(c);

		if (L7M_LINK_RESULT(link))
			return L7M_LINK_RESULT(link);
		version = L7M_LINK_VERSION(link);
		p->vlan = L7M_LINK_VLAN(link);
		c->offset = L7M_LINK_OFFSET(link);
		l7m_settle(c);
	}
	/* Three IP headers: a tunnel in a tunnel. */
	for (depth = 0; depth < 3; depth++) {
		__u64 tunnel;

		if (version == 4)
			result = l7m_parse_ipv4(c, p);
		else
			result = l7m_parse_ipv6(c, p);
		if (result != L7M_PARSE_OK)
			return result;
		if (p->fragment == L7M_FRAGMENT_LATER || depth == 2)
			break;
		if (p->protocol == L7M_PROTO_TCP || !options)
			break;
		tunnel = L7M_TUNNEL(c, L7M_TUNNEL_BEHIND(c->offset, p->protocol, options));
		if (tunnel & L7M_TUNNEL_SHORT)
			return L7M_PARSE_SHORT;
		if (!L7M_TUNNEL_VERSION(tunnel))
			break;
		version = L7M_TUNNEL_VERSION(tunnel);
		c->offset = L7M_TUNNEL_OFFSET(tunnel);
		l7m_settle(c);
		p->fragment = L7M_FRAGMENT_NONE;
	}
	if (p->l3_length == 0) {
		if (frame < p->l3_offset)
			return L7M_PARSE_WRONG;
		p->l3_length = frame - p->l3_offset;
	} else if (p->l3_offset + p->l3_length > frame) {
		return L7M_PARSE_WRONG;
	}
	if (p->fragment == L7M_FRAGMENT_LATER)
		return L7M_PARSE_OK;
	used = c->offset - p->l3_offset;
	if (used > p->l3_length)
		return L7M_PARSE_WRONG;
	return l7m_parse_transport(c, p, p->l3_length - used, options);
}

/* Fills the upper 96 bits of IPv4 addresses, so that both families have one form. */
static __always_inline void l7m_map_ipv4(struct l7m_packet *p)
{
	if (p->version != 4)
		return;
	p->saddr[0] = p->saddr[1] = 0;
	p->daddr[0] = p->daddr[1] = 0;
	p->saddr[2] = p->daddr[2] = L7M_BE32(0xffff);
}

/* Order of two endpoints as in struct l7m_key: negative if a comes first. */
static __always_inline int l7m_compare_endpoints(const __be32 *a, __be16 aport, const __be32 *b,
						 __be16 bport)
{
	int i;

#if defined(__clang__)
#pragma unroll
#endif
	for (i = 0; i < 4; i++) {
		if (a[i] != b[i])
			return L7M_NTOH32(a[i]) < L7M_NTOH32(b[i]) ? -1 : 1;
	}
	if (aport != bport)
		return L7M_NTOH16(aport) < L7M_NTOH16(bport) ? -1 : 1;
	return 0;
}

/*
 * The canonical keys. Returns the endpoint that sent the packet: 0 or 1. For IPv4 call
 * l7m_map_ipv4() first if the 40-byte key is wanted.
 */
static __always_inline int l7m_make_key(const struct l7m_packet *p, struct l7m_key *key)
{
	int sender = l7m_compare_endpoints(p->saddr, p->sport, p->daddr, p->dport) > 0;

	__builtin_memcpy(key->addr[0], sender ? p->daddr : p->saddr, 16);
	__builtin_memcpy(key->addr[1], sender ? p->saddr : p->daddr, 16);
	key->port[0] = sender ? p->dport : p->sport;
	key->port[1] = sender ? p->sport : p->dport;
	key->protocol = p->protocol;
	key->reserved[0] = key->reserved[1] = key->reserved[2] = 0;
	return sender;
}

static __always_inline int l7m_make_key4(const struct l7m_packet *p, struct l7m_key4 *key)
{
	__u32 s = L7M_NTOH32(p->saddr[3]), d = L7M_NTOH32(p->daddr[3]);
	int sender = s > d || (s == d && L7M_NTOH16(p->sport) > L7M_NTOH16(p->dport));

	key->addr[sender] = p->saddr[3];
	key->addr[sender ^ 1] = p->daddr[3];
	key->port[sender] = p->sport;
	key->port[sender ^ 1] = p->dport;
	key->protocol = p->protocol;
	key->reserved[0] = key->reserved[1] = key->reserved[2] = 0;
	return sender;
}

static __always_inline int l7m_key_is_v4(const struct l7m_key *key)
{
	return l7m_is_mapped(key->addr[0]);
}

static __always_inline void l7m_key_to_v4(const struct l7m_key *key, struct l7m_key4 *out)
{
	out->addr[0] = key->addr[0][3];
	out->addr[1] = key->addr[1][3];
	out->port[0] = key->port[0];
	out->port[1] = key->port[1];
	out->protocol = key->protocol;
	out->reserved[0] = out->reserved[1] = out->reserved[2] = 0;
}

static __always_inline void l7m_key_from_v4(const struct l7m_key4 *key, struct l7m_key *out)
{
	int i;

#if defined(__clang__)
#pragma unroll
#endif
	for (i = 0; i < 2; i++) {
		out->addr[i][0] = out->addr[i][1] = 0;
		out->addr[i][2] = L7M_BE32(0xffff);
		out->addr[i][3] = key->addr[i];
		out->port[i] = key->port[i];
	}
	out->protocol = key->protocol;
	out->reserved[0] = out->reserved[1] = out->reserved[2] = 0;
}

#endif /* L7MARK_PARSE_H */
