/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which ring buffer, and so which worker, a flow's samples go to: shared by the programs in the
 * kernel and `l7mark classify --path user`.
 *
 * All flows of a client go to one worker, because what nDPI remembers across flows is the client's.
 * The client is the endpoint inside; if both or neither are, the one that sent first.
 */
#ifndef L7MARK_RING_H
#define L7MARK_RING_H

#include <l7mark/parse.h>

/* Addresses in the form of struct l7m_key. Returns a number below `rings`. */
static __always_inline __u32 l7m_ring_of(const struct l7m_packet *p, int source_inside,
					 int destination_inside, __u32 rings)
{
	const __be32 *client = p->saddr;
	__u32 h;

	if (rings <= 1)
		return 0;
	if (source_inside != destination_inside) {
		if (destination_inside)
			client = p->daddr;
	} else if ((p->tcp_flags & (L7M_TCP_SYN | L7M_TCP_ACK)) == (L7M_TCP_SYN | L7M_TCP_ACK)) {
		client = p->daddr; /* a SYN-ACK answers a SYN that we missed */
	}
	h = client[0] ^ client[1] ^ client[2] ^ client[3];
	h ^= h >> 16;
	h *= 0x85ebca6b;
	h ^= h >> 13;
	h *= 0xc2b2ae35;
	return (h ^ h >> 16) % rings;
}

#endif /* L7MARK_RING_H */
