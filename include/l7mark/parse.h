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
#else
#define L7M_BE16(x) ((__be16)(x))
#define L7M_BE32(x) ((__be32)(x))
#endif
#define L7M_NTOH16(x) ((__u16)L7M_BE16((__u16)(x)))
#define L7M_NTOH32(x) ((__u32)L7M_BE32((__u32)(x)))

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
};

struct l7m_cursor {
	const __u8 *start; /* of the frame */
	const __u8 *pos;
	const __u8 *end;
};

static __always_inline __u16 l7m_load16(const __u8 *p)
{
	return (__u16)(p[0] << 8 | p[1]);
}

/* As on the wire: the packet's headers need not be aligned. */
static __always_inline __be32 l7m_load_be32(const __u8 *p)
{
	__be32 v;

	__builtin_memcpy(&v, p, sizeof(v));
	return v;
}

static __always_inline __be16 l7m_load_be16(const __u8 *p)
{
	__be16 v;

	__builtin_memcpy(&v, p, sizeof(v));
	return v;
}

/*
 * Link layer: Ethernet (also with RFC 1042 SNAP), up to three VLAN tags, MPLS labels, a PPPoE
 * session. Leaves the cursor on the IP header and returns its version, or a negative
 * l7m_parse_result.
 */
static __always_inline int l7m_parse_ethernet(struct l7m_cursor *c, struct l7m_packet *p)
{
	__u16 type;
	int i;

	if (c->pos + 14 > c->end)
		return -L7M_PARSE_SHORT;
	type = l7m_load16(c->pos + 12);
	c->pos += 14;
	if (type == 0x0800)
		return 4;
	if (type == 0x86dd)
		return 6;
	if (type <= 1500) {
		if (c->pos + 8 > c->end)
			return -L7M_PARSE_NOT_IP;
		if (c->pos[0] != 0xaa || c->pos[1] != 0xaa)
			return -L7M_PARSE_NOT_IP;
		type = l7m_load16(c->pos + 6);
		c->pos += 8;
	}
	for (i = 0; i < 3; i++) {
		if (type != 0x8100 && type != 0x88a8 && type != 0x9100)
			break;
		if (c->pos + 4 > c->end)
			return -L7M_PARSE_SHORT;
		if (i == 0)
			p->vlan = l7m_load16(c->pos) & 0x0fff;
		type = l7m_load16(c->pos + 2);
		c->pos += 4;
	}
	if (type == 0x8864) { /* RFC 2516: 6 bytes of PPPoE, then the PPP protocol */
		if (c->pos + 8 > c->end)
			return -L7M_PARSE_SHORT;
		type = l7m_load16(c->pos + 6);
		c->pos += 8;
		if (type == 0x0021)
			return 4;
		if (type == 0x0057)
			return 6;
		return -L7M_PARSE_NOT_IP;
	}
	if (type == 0x8847 || type == 0x8848) { /* RFC 3032: the label with the S bit is the last */
		for (i = 0; i < 6; i++) {
			__u8 bottom;

			if (c->pos + 4 > c->end)
				return -L7M_PARSE_SHORT;
			bottom = c->pos[2] & 1;
			c->pos += 4;
			if (bottom)
				break;
		}
		if (c->pos + 1 > c->end)
			return -L7M_PARSE_SHORT;
		type = c->pos[0] >> 4;
		if (type == 4 || type == 6)
			return type;
		return -L7M_PARSE_NOT_IP;
	}
	if (type == 0x0800)
		return 4;
	if (type == 0x86dd)
		return 6;
	return -L7M_PARSE_NOT_IP;
}

/* RFC 791. Leaves the cursor behind the header and its options. */
static __always_inline int l7m_parse_ipv4(struct l7m_cursor *c, struct l7m_packet *p)
{
	const __u8 *h = c->pos;
	__u32 header;
	__u16 fragment;

	if (h + 20 > c->end)
		return L7M_PARSE_SHORT;
	header = (__u32)(h[0] & 0x0f) * 4;
	p->version = 4;
	p->l3_offset = (__u16)(h - c->start);
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
	c->pos = h + header;
	/* 0 is what segmentation offload leaves in a packet too long for the field. */
	if (p->l3_length && p->l3_length < header)
		return L7M_PARSE_WRONG;
	return L7M_PARSE_OK;
}

/* RFC 8200, with the extension headers that may stand before a transport. */
static __always_inline int l7m_parse_ipv6(struct l7m_cursor *c, struct l7m_packet *p)
{
	const __u8 *h = c->pos;
	__u8 next;
	int i;

	if (h + 40 > c->end)
		return L7M_PARSE_SHORT;
	if ((h[0] >> 4) != 6)
		return L7M_PARSE_WRONG;
	p->version = 6;
	p->l3_offset = (__u16)(h - c->start);
	p->l3_length = l7m_load16(h + 4);
	if (p->l3_length)
		p->l3_length += 40;
	__builtin_memcpy(p->saddr, h + 8, 16);
	__builtin_memcpy(p->daddr, h + 24, 16);
	next = h[6];
	c->pos = h + 40;

	for (i = 0; i < 8; i++) {
		__u32 length;

		if (next == L7M_PROTO_TCP || next == L7M_PROTO_UDP)
			break;
		if (next == L7M_PROTO_FRAGMENT) {
			__u16 offset;

			if (c->pos + 8 > c->end)
				return L7M_PARSE_SHORT;
			offset = l7m_load16(c->pos + 2);
			p->fragment_id = l7m_load_be32(c->pos + 4);
			/* Neither offset nor more to come: an "atomic" fragment, RFC 6946. */
			if (offset & 0xfff8)
				p->fragment = L7M_FRAGMENT_LATER;
			else if (offset & 1)
				p->fragment = L7M_FRAGMENT_FIRST;
			next = c->pos[0];
			c->pos += 8;
			if (p->fragment == L7M_FRAGMENT_LATER)
				break;
			continue;
		}
		if (next == L7M_PROTO_AH) {
			if (c->pos + 8 > c->end)
				return L7M_PARSE_SHORT;
			length = ((__u32)c->pos[1] + 2) * 4; /* RFC 4302: in words, less two */
		} else if (next == L7M_PROTO_HOPOPTS || next == L7M_PROTO_ROUTING ||
			   next == L7M_PROTO_DSTOPTS || next == L7M_PROTO_MOBILITY ||
			   next == L7M_PROTO_HIP || next == L7M_PROTO_SHIM6) {
			if (c->pos + 8 > c->end)
				return L7M_PARSE_SHORT;
			length = ((__u32)c->pos[1] + 1) * 8;
		} else {
			break;
		}
		next = c->pos[0];
		c->pos += length;
	}
	p->protocol = next;
	return L7M_PARSE_OK;
}

/* Opens a tunnel header on the cursor. Returns the inner IP version, or 0: not one to open. */
static __always_inline int l7m_parse_gre(struct l7m_cursor *c)
{
	__u16 flags, type;

	if (c->pos + 4 > c->end)
		return 0;
	flags = l7m_load16(c->pos);
	type = l7m_load16(c->pos + 2);
	if ((flags & 0x4f07) || (type != 0x0800 && type != 0x86dd))
		return 0; /* routing present, or a version other than 0 */
	c->pos += 4;
	if (flags & 0x8000)
		c->pos += 4; /* checksum */
	if (flags & 0x2000)
		c->pos += 4; /* key */
	if (flags & 0x1000)
		c->pos += 4; /* sequence number */
	return type == 0x0800 ? 4 : 6;
}

static __always_inline int l7m_parse_gtpu(struct l7m_cursor *c)
{
	const __u8 *h = c->pos + 8; /* behind UDP */
	__u8 version;

	if (h + 20 > c->end)
		return 0;
	/* Version 1, protocol type GTP, message T-PDU. */
	if ((h[0] & 0xf0) != 0x30 || h[1] != 0xff)
		return 0;
	if (h[0] & 0x04)
		return 0; /* extension headers: rare on user traffic, left closed */
	h += h[0] & 0x03 ? 12 : 8;
	if (h + 1 > c->end)
		return 0;
	version = h[0] >> 4;
	if (version != 4 && version != 6)
		return 0;
	c->pos = h;
	return version;
}

static __always_inline int l7m_parse_vxlan(struct l7m_cursor *c)
{
	const __u8 *h = c->pos + 8;
	__u16 type;

	if (h + 8 + 14 > c->end)
		return 0;
	if (!(h[0] & 0x08))
		return 0; /* no valid network identifier */
	type = l7m_load16(h + 8 + 12);
	if (type != 0x0800 && type != 0x86dd)
		return 0;
	c->pos = h + 8 + 14;
	return type == 0x0800 ? 4 : 6;
}

/* Transport header on the cursor; `length` is what the IP header leaves for it. */
static __always_inline int l7m_parse_transport(struct l7m_cursor *c, struct l7m_packet *p,
					       __u32 length, __u32 options)
{
	const __u8 *h = c->pos;

	if (p->protocol == L7M_PROTO_TCP) {
		__u32 header;

		if (length < 20)
			return L7M_PARSE_WRONG;
		if (h + 20 > c->end)
			return L7M_PARSE_SHORT;
		p->sport = l7m_load_be16(h);
		p->dport = l7m_load_be16(h + 2);
		p->tcp_flags = h[13];
		header = (__u32)(h[12] >> 4) * 4;
		p->payload = header <= length ? length - header : 0;
		return L7M_PARSE_OK;
	}
	if (p->protocol == L7M_PROTO_UDP) {
		if (length < 8)
			return L7M_PARSE_WRONG;
		if (h + 8 > c->end)
			return L7M_PARSE_SHORT;
		p->sport = l7m_load_be16(h);
		p->dport = l7m_load_be16(h + 2);
		p->payload = length - 8;
		return L7M_PARSE_OK;
	}
	if (p->protocol == L7M_PROTO_SCTP || p->protocol == L7M_PROTO_UDPLITE ||
	    p->protocol == L7M_PROTO_DCCP) {
		if (!(options & L7M_PARSE_TWO_PORTS)) {
			if (length < 4)
				return L7M_PARSE_WRONG;
			if (h + 4 > c->end)
				return L7M_PARSE_SHORT;
			p->sport = l7m_load_be16(h);
			p->dport = l7m_load_be16(h + 2);
		}
	}
	p->payload = length;
	return L7M_PARSE_OK;
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
		version = l7m_parse_ethernet(c, p);
		if (version < 0)
			return -version;
	}
	/* Three IP headers: a tunnel in a tunnel. */
	for (depth = 0; depth < 3; depth++) {
		int inner = 0;

		if (version == 4)
			result = l7m_parse_ipv4(c, p);
		else
			result = l7m_parse_ipv6(c, p);
		if (result != L7M_PARSE_OK)
			return result;
		if (p->fragment == L7M_FRAGMENT_LATER || depth == 2)
			break;
		if (p->protocol == L7M_PROTO_TCP)
			break;
		if (options & L7M_PARSE_IPIP) {
			if (p->protocol == L7M_PROTO_IPIP)
				inner = 4;
			else if (p->protocol == L7M_PROTO_IPV6)
				inner = 6;
		}
		if ((options & L7M_PARSE_GRE) && p->protocol == L7M_PROTO_GRE)
			inner = l7m_parse_gre(c);
		if ((options & (L7M_PARSE_GTPU | L7M_PARSE_VXLAN)) && p->protocol == L7M_PROTO_UDP) {
			__be16 dport;

			if (c->pos + 8 > c->end)
				return L7M_PARSE_SHORT;
			dport = l7m_load_be16(c->pos + 2);
			if ((options & L7M_PARSE_GTPU) && dport == L7M_BE16(2152))
				inner = l7m_parse_gtpu(c);
			else if ((options & L7M_PARSE_VXLAN) && dport == L7M_BE16(4789))
				inner = l7m_parse_vxlan(c);
		}
		if (!inner)
			break;
		version = inner;
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
	used = (__u32)(c->pos - c->start) - p->l3_offset;
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
	return key->addr[0][0] == 0 && key->addr[0][1] == 0 &&
	       key->addr[0][2] == L7M_BE32(0xffff);
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
