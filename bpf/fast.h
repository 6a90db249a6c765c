/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The hot path: the usual headers (Ethernet, at most one VLAN tag, IPv4 without options or IPv6
 * without extensions, TCP or UDP), and one look-up. All else goes the slow way, which parses again,
 * and so does what begins or ends a flow that has a verdict, or is to be looked at again; the two
 * must agree on every key.
 */
#ifndef L7MARK_BPF_FAST_H
#define L7MARK_BPF_FAST_H

#include "candidate.h"
#include "candidate_table.h"
#include "flow.h"
#include "hook.h"
#include "maps.h"
#include "packet.h"

struct l7m_fast {
	struct l7m_verdict *verdict; /* 0: not found, or not looked for */
	__u32 hash;		     /* l7m_candidate_hash(), if missed */
	__u32 missed;		     /* looked for and not found: l7m_missed() goes on */
	__u32 event;		     /* SYN, FIN or RST: a verdict's state may change */
	__u32 sender;
	__u32 l3_offset;
	__u32 headers; /* bytes up to the transport's payload */
};

/* Ports and what the slow way must see; `room` is what IP leaves for it. Returns 0 to go there. */
static __always_inline int l7m_fast_transport(const __u8 *h, const __u8 *end, __u8 protocol,
					      __u32 room, struct l7m_fast *out)
{
	if (protocol == L7M_PROTO_TCP) {
		if (h + 20 > end || room < 20)
			return 0;
		out->event = h[13] & (L7M_TCP_SYN | L7M_TCP_FIN | L7M_TCP_RST);
		out->headers += (__u32)(h[12] >> 4) * 4;
		return 1;
	}
	if (protocol == L7M_PROTO_UDP) {
		__be16 dport;

		if (h + 8 > end || room < 8)
			return 0;
		dport = l7m_load_be16(h + 2);
		if ((l7m_config.parse & L7M_PARSE_GTPU) && dport == L7M_BE16(2152))
			return 0;
		if ((l7m_config.parse & L7M_PARSE_VXLAN) && dport == L7M_BE16(4789))
			return 0;
		out->event = 0;
		out->headers += 8;
		return 1;
	}
	return 0;
}

/* 1 if the source's port, first of the two in `ports`, is the higher one. */
static __always_inline __u32 l7m_fast_port_order(const __u8 *ports)
{
	return L7M_NTOH16(l7m_load_be16(ports)) > L7M_NTOH16(l7m_load_be16(ports + 2));
}

/* Lower address first, as in l7m_make_key4(); the ports go with the addresses. */
static __always_inline void l7m_fast_look_up4(const __u8 *h, __be32 tags, struct l7m_fast *out)
{
	__u32 saddr = l7m_load_be32(h + 12), daddr = l7m_load_be32(h + 16);
	__u32 ports = l7m_load_be32(h + 20), zero = 0;
	const struct l7m_settings *s;
	struct l7m_key4 key;

	if (L7M_NTOH32(saddr) < L7M_NTOH32(daddr))
		out->sender = 0;
	else if (saddr != daddr)
		out->sender = 1;
	else
		out->sender = l7m_fast_port_order(h + 20);
	if (out->sender) {
		key.addr[0] = daddr;
		key.addr[1] = saddr;
		ports = ports << 16 | ports >> 16;
	} else {
		key.addr[0] = saddr;
		key.addr[1] = daddr;
	}
	__builtin_memcpy(key.port, &ports, sizeof(ports));
	/* One store for the protocol and the VLAN ids behind it. */
	*(__u32 *)&key.protocol = L7M_FIRST_BYTE(h[9]) | tags;
	out->verdict = bpf_map_lookup_elem(&flows4, &key);
	if (l7m_unlikely(!out->verdict)) {
		s = bpf_map_lookup_elem(&settings, &zero);
		if (s) {
			out->hash = l7m_candidate_hash4(&key, &s->secrets);
			out->missed = l7m_fetch_set(out->hash);
		}
	}
}

/* The same by halves of addresses, as in l7m_make_key(). */
static __always_inline void l7m_fast_look_up6(const __u8 *h, __be32 tags, struct l7m_fast *out)
{
	__u64 s0 = l7m_load_be64(h + 8), s1 = l7m_load_be64(h + 16);
	__u64 d0 = l7m_load_be64(h + 24), d1 = l7m_load_be64(h + 32);
	__u32 ports = l7m_load_be32(h + 40), zero = 0;
	const struct l7m_settings *s;
	union {
		struct l7m_key key;
		__u64 halves[5];
	} u;

	if (s0 != d0)
		out->sender = L7M_NTOH64(s0) > L7M_NTOH64(d0);
	else if (s1 != d1)
		out->sender = L7M_NTOH64(s1) > L7M_NTOH64(d1);
	else
		out->sender = l7m_fast_port_order(h + 40);
	if (out->sender) {
		u.halves[0] = d0;
		u.halves[1] = d1;
		u.halves[2] = s0;
		u.halves[3] = s1;
		ports = ports << 16 | ports >> 16;
	} else {
		u.halves[0] = s0;
		u.halves[1] = s1;
		u.halves[2] = d0;
		u.halves[3] = d1;
	}
	__builtin_memcpy(u.key.port, &ports, sizeof(ports));
	*(__u32 *)&u.key.protocol = L7M_FIRST_BYTE(h[6]) | tags;
	out->verdict = bpf_map_lookup_elem(&flows6, &u.key);
	if (l7m_unlikely(!out->verdict)) {
		s = bpf_map_lookup_elem(&settings, &zero);
		if (s) {
			out->hash = l7m_candidate_hash6(&u.key, &s->secrets);
			out->missed = l7m_fetch_set(out->hash);
		}
	}
}

/* With one tag in the frame, and perhaps another one taken off. */
static __always_inline __be32 l7m_fast_tags(__u32 taken, __u32 id)
{
	return taken ? L7M_TAGS(taken, id) : L7M_TAGS(id, 0);
}

/* `taken` is as from l7m_taken_vlan(), or 0 if the keys have no ids. */
static __always_inline void l7m_fast_path(const __u8 *start, const __u8 *end, __u32 frame, int l2,
					  __u32 taken, struct l7m_fast *out)
{
	const __u8 *h = start;
	__be32 tags = 0;
	__be16 type;
	__u32 room;

	out->verdict = 0;
	out->hash = 0;
	out->missed = 0;
	if (l2) {
		if (h + 14 + 20 > end)
			return;
		type = l7m_load_be16(h + 12);
		h += 14;
		out->l3_offset = 14;
		if (l7m_config.parse & L7M_PARSE_VLAN_KEY)
			tags = L7M_TAGS(taken, 0);
		if (type == L7M_BE16(0x8100)) {
			if (h + 4 + 20 > end)
				return;
			type = l7m_load_be16(h + 2);
			if (l7m_config.parse & L7M_PARSE_VLAN_KEY)
				tags = l7m_fast_tags(taken, l7m_load16(h) & 0x0fff);
			h += 4;
			out->l3_offset = 18;
		}
	} else {
		if (h + 20 > end)
			return;
		type = h[0] >> 4 == 4 ? L7M_BE16(0x0800) : L7M_BE16(0x86dd);
		out->l3_offset = 0;
	}
	if (type == L7M_BE16(0x0800)) {
		/* Version 4 and five words of header; any fragment goes the slow way. */
		if (h[0] != 0x45 || (l7m_load_be16(h + 6) & L7M_BE16(0x3fff)))
			return;
		/* What the header says of its length must be in the frame; less than 20 wraps. */
		room = l7m_load16(h + 2) - 20U;
		if (room > frame - out->l3_offset - 20)
			return;
		out->headers = out->l3_offset + 20;
		if (!l7m_fast_transport(h + 20, end, h[9], room, out))
			return;
		l7m_fast_look_up4(h, tags, out);
	} else if (type == L7M_BE16(0x86dd)) {
		if (h + 40 + 8 > end || h[0] >> 4 != 6)
			return;
		room = l7m_load16(h + 4);
		if (room > frame - out->l3_offset - 40)
			return;
		out->headers = out->l3_offset + 40;
		if (!l7m_fast_transport(h + 40, end, h[6], room, out))
			return;
		l7m_fast_look_up6(h, tags, out);
	} else {
		return;
	}
	if (out->event || (out->verdict && l7m_is_due(out->verdict, out->sender)))
		out->verdict = 0;
}

static __always_inline void l7m_fast_count(struct l7m_verdict *v, __u32 sender, __u32 segments,
					   __u64 bytes)
{
	sender &= 1;
	v->count.packets[sender] += segments;
	v->count.bytes[sender] += bytes;
	v->last_seen = (__u32)bpf_jiffies64();
}

/*
 * What the hot path has parsed and found no verdict for: fills the scratch entry from the headers
 * that are known to be there, as the whole parser would. Returns as l7m_slow_path() does.
 */
L7M_FUNCTION __u32 l7m_missed(l7m_ctx *ctx, __u32 hook, __u32 l3_offset, __u32 hash)
{
	struct l7m_met *met = l7m_scratch();
	__u32 room, header = 8, id;
	struct l7m_packet *p;
	struct l7m_cursor c;
	const __u8 *h, *t;

	l7m_cursor_of(ctx, &c);
	l3_offset &= 31;
	h = c.start + l3_offset;
	if (!met || h + 28 > c.end)
		return L7M_NO_ACTION;
	p = &met->packet;
	id = 0;
	if (l3_offset == 18 && c.start + 18 <= c.end)
		id = l7m_load16(c.start + 14) & 0x0fff;
	p->tags = 0;
	l7m_put_ids(p, hook & L7M_HOOK_L2 ? l7m_taken_vlan(ctx) : 0, id << 12, l7m_config.parse);
	p->l3_offset = (__u16)l3_offset;
	p->fragment = L7M_FRAGMENT_NONE;
	p->fragment_id = 0;
	p->tcp_flags = 0;
	p->handshake = 0;
	p->sequence = 0;
	if (h[0] >> 4 == 4) {
		t = h + 20;
		room = l7m_load16(h + 2) - 20U;
		p->version = 4;
		p->protocol = h[9];
		p->hop_limit = h[8];
		p->l3_length = room + 20;
		p->saddr[3] = l7m_load_be32(h + 12);
		p->daddr[3] = l7m_load_be32(h + 16);
		l7m_map_ipv4(p);
	} else {
		t = h + 40;
		if (t + 8 > c.end)
			return L7M_NO_ACTION;
		room = l7m_load16(h + 4);
		p->version = 6;
		p->protocol = h[6];
		p->hop_limit = h[7];
		p->l3_length = room + 40;
		l7m_load_address(p->saddr, h + 8);
		l7m_load_address(p->daddr, h + 24);
		/* As l7m_parse_ipv6() does; no verdict has such a key. */
		if (l7m_is_mapped(p->saddr) || l7m_is_mapped(p->daddr)) {
			if (hook & L7M_HOOK_COUNT)
				l7m_count(L7M_COUNT_MALFORMED, 1);
			return L7M_NO_ACTION;
		}
	}
	p->sport = l7m_load_be16(t);
	p->dport = l7m_load_be16(t + 2);
	if (p->protocol == L7M_PROTO_TCP) {
		if (t + 20 > c.end)
			return L7M_NO_ACTION;
		p->tcp_flags = t[13];
		p->sequence = l7m_tcp_sequence(t);
		header = (__u32)(t[12] >> 4) * 4;
	}
	p->payload = header <= room ? room - header : 0;
	c.offset = l3_offset + p->l3_length - room + header;
	if (p->payload)
		p->handshake = l7m_may_be_handshake(&c, p->protocol);
	l7m_meet(ctx, hook, met);
	met->hash = hash;
	return L7M_CANDIDATE;
}

/*
 * The index of the action of a packet that the hot path found no answer for. The candidates come
 * behind both ways to them, in one place: in XDP the verifier walks through every call anew.
 */
static __always_inline __u32 l7m_not_fast(l7m_ctx *ctx, __u32 hook, const struct l7m_fast *fast)
{
	__u32 index;

	if (fast->missed)
		index = l7m_missed(ctx, hook, fast->l3_offset, fast->hash);
	else
		index = l7m_slow_path(ctx, hook);
	index = L7M_INDEX(index);
	if (index == L7M_CANDIDATE)
		index = l7m_candidate_packet(ctx);
	if (l7m_has_rest()) {
		index = L7M_INDEX(index);
		l7m_export_rest(ctx);
	}
	return index;
}

#endif /* L7MARK_BPF_FAST_H */
