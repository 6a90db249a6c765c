/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The hot path: the usual headers (Ethernet, at most one VLAN tag, IPv4 without options or IPv6
 * without extensions, TCP or UDP) of a packet that neither begins nor ends a flow, and one look-up.
 * All else says so and goes the slow way, which parses again; the two must agree on every key.
 */
#ifndef L7MARK_BPF_FAST_H
#define L7MARK_BPF_FAST_H

#include "maps.h"
#include "packet.h"

struct l7m_fast {
	struct l7m_verdict *verdict; /* 0: go the slow way */
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
		if (h[13] & (L7M_TCP_SYN | L7M_TCP_FIN | L7M_TCP_RST))
			return 0;
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
		out->headers += 8;
		return 1;
	}
	return 0;
}

static __always_inline void l7m_fast_path(const __u8 *start, const __u8 *end, __u32 frame, int l2,
					  struct l7m_fast *out)
{
	const __u8 *h = start;
	__u32 room;
	__u16 type;

	out->verdict = 0;
	if (l2) {
		if (h + 14 + 20 > end)
			return;
		type = l7m_load_be16(h + 12);
		h += 14;
		out->l3_offset = 14;
		if (type == L7M_BE16(0x8100)) {
			if (h + 4 + 20 > end)
				return;
			type = l7m_load_be16(h + 2);
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
		struct l7m_key4 key;
		__u32 saddr, daddr, ports;

		/* Version 4 and five words of header; any fragment goes the slow way. */
		if (h[0] != 0x45 || (l7m_load_be16(h + 6) & L7M_BE16(0x3fff)))
			return;
		/* What the header says of its length must be in the frame; one less than 20 wraps.
		 */
		room = l7m_load16(h + 2) - 20U;
		if (room > frame - out->l3_offset - 20)
			return;
		out->headers = out->l3_offset + 20;
		if (!l7m_fast_transport(h + 20, end, h[9], room, out))
			return;
		saddr = l7m_load_be32(h + 12);
		daddr = l7m_load_be32(h + 16);
		ports = l7m_load_be32(h + 20);
		/* Lower address first, as in l7m_make_key4(); the ports go with the addresses. */
		if (L7M_NTOH32(saddr) < L7M_NTOH32(daddr)) {
			out->sender = 0;
		} else if (saddr != daddr) {
			out->sender = 1;
		} else {
			out->sender = L7M_NTOH16(l7m_load_be16(h + 20)) >
				      L7M_NTOH16(l7m_load_be16(h + 22));
		}
		if (out->sender) {
			key.addr[0] = daddr;
			key.addr[1] = saddr;
			ports = ports << 16 | ports >> 16;
		} else {
			key.addr[0] = saddr;
			key.addr[1] = daddr;
		}
		__builtin_memcpy(key.port, &ports, sizeof(ports));
		/* One store for the protocol and the reserved bytes behind it. */
		*(__u32 *)&key.protocol = L7M_FIRST_BYTE(h[9]);
		out->verdict = bpf_map_lookup_elem(&flows4, &key);
	} else if (type == L7M_BE16(0x86dd)) {
		struct l7m_packet packet;
		struct l7m_key key;

		if (h + 40 + 8 > end || h[0] >> 4 != 6)
			return;
		room = l7m_load16(h + 4);
		if (room > frame - out->l3_offset - 40)
			return;
		out->headers = out->l3_offset + 40;
		if (!l7m_fast_transport(h + 40, end, h[6], room, out))
			return;
		__builtin_memcpy(packet.saddr, h + 8, 16);
		__builtin_memcpy(packet.daddr, h + 24, 16);
		packet.sport = l7m_load_be16(h + 40);
		packet.dport = l7m_load_be16(h + 42);
		packet.protocol = h[6];
		out->sender = (__u32)l7m_make_key(&packet, &key);
		out->verdict = bpf_map_lookup_elem(&flows6, &key);
	}
}

static __always_inline void l7m_fast_count(struct l7m_verdict *v, __u32 sender, __u32 segments,
					   __u64 bytes)
{
	sender &= 1;
	v->count.packets[sender] += segments;
	v->count.bytes[sender] += bytes;
	v->last_seen = (__u32)bpf_jiffies64();
}

#endif /* L7MARK_BPF_FAST_H */
