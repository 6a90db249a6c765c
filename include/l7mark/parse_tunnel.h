/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* From behind an IP header to the one inside, where that is a tunnel to open. */
#ifndef L7MARK_PARSE_TUNNEL_H
#define L7MARK_PARSE_TUNNEL_H

#include <l7mark/parse_cursor.h>

/* Tunnels among the options of l7m_parse(). */
#define L7M_PARSE_IPIP	0x01 /* open IPv4 and IPv6 in IPv4 or IPv6 (RFC 2003, 4213) */
#define L7M_PARSE_GRE	0x02 /* open GRE (RFC 2784, 2890) */
#define L7M_PARSE_GTPU	0x04 /* open GTP-U on UDP port 2152 (3GPP TS 29.281) */
#define L7M_PARSE_VXLAN 0x08 /* open VXLAN on UDP port 4789 (RFC 7348) */

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
 * A tunnel behind an IP header as one number, as a global BPF function takes and gives it: in, the
 * offset, the protocol and the options of l7m_parse(); out, the offset and version of the IP header
 * inside, version 0 for none.
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

#endif /* L7MARK_PARSE_TUNNEL_H */
