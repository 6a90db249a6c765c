/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a frame to its five-tuple, for the programs in the kernel and, compiled for userspace, for
 * `l7mark classify --path user`: one parser, so that both see the same flows. Here are the whole
 * way, the transport at its end, and the keys that are made of what was found.
 */
#ifndef L7MARK_PARSE_H
#define L7MARK_PARSE_H

#include <l7mark/parse_cursor.h>
#include <l7mark/parse_ip.h>
#include <l7mark/parse_link.h>
#include <l7mark/parse_tunnel.h>
#include <l7mark/types.h>

/* Options of l7m_parse(), beside those of parse_tunnel.h. */
#define L7M_PARSE_TWO_PORTS 0x10 /* ports for TCP and UDP only, as nDPI's own tools key flows */
#define L7M_PARSE_VLAN_KEY  0x20 /* VLAN ids in the keys */

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

/* A packet that ends before its ports: wrong, but a first fragment leaves them to a later one. */
static __always_inline int l7m_without_ports(const struct l7m_packet *p)
{
	return p->fragment == L7M_FRAGMENT_FIRST ? L7M_PARSE_HIDDEN : L7M_PARSE_WRONG;
}

/*
 * A first fragment that ends within the TCP header. Fragments are cut at multiples of 8 bytes, so
 * it has the ports, and flags are left to the connection's other packets.
 */
static __always_inline int l7m_parse_tiny_fragment(struct l7m_cursor *c, struct l7m_packet *p,
						   __u32 length)
{
	const __u8 *h;

	if (length < 8)
		return L7M_PARSE_HIDDEN;
	h = l7m_header(c, 8);
	if (!h)
		return L7M_PARSE_SHORT;
	p->sport = l7m_load_be16(h);
	p->dport = l7m_load_be16(h + 2);
	return L7M_PARSE_OK;
}

/* Transport header on the cursor; `length` is what the IP header leaves for it. */
static __always_inline int l7m_parse_transport(struct l7m_cursor *c, struct l7m_packet *p,
					       __u32 length, __u32 options)
{
	const __u8 *h;

	if (p->protocol == L7M_PROTO_TCP) {
		__u32 header;

		if (length < 20 && p->fragment == L7M_FRAGMENT_FIRST)
			return l7m_parse_tiny_fragment(c, p, length);
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
			return l7m_without_ports(p);
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
			return l7m_without_ports(p);
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

/* A tag that was taken off was the outermost one. */
static __always_inline void l7m_put_ids(struct l7m_packet *p, __u32 taken, __u32 ids, __u32 options)
{
	if (taken)
		ids = taken << 12 | ids >> 12;
	p->vlan = (__u16)(ids >> 12);
	p->inner_vlan = (__u16)(ids & 0x0fff);
	if (options & L7M_PARSE_VLAN_KEY)
		p->tags = L7M_BE32(ids);
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
		l7m_put_ids(p, c->vlan, L7M_LINK_IDS(link), options);
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
		return l7m_without_ports(p);
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

static __always_inline void l7m_copy_tags(__u8 *vlan, __be32 tags)
{
	__builtin_memcpy(vlan, (const __u8 *)&tags + 1, 3);
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
	l7m_copy_tags(key->vlan, p->tags);
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
	l7m_copy_tags(key->vlan, p->tags);
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
	__builtin_memcpy(out->vlan, key->vlan, sizeof(out->vlan));
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
	__builtin_memcpy(out->vlan, key->vlan, sizeof(out->vlan));
}

#endif /* L7MARK_PARSE_H */
