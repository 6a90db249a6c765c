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

#include <l7mark/hash.h>
#include <l7mark/parse.h>

/* Addresses in the form of struct l7m_key. Returns a number below `rings`. */
static __always_inline __u32 l7m_ring_of(const struct l7m_packet *p, int source_inside,
					 int destination_inside, __u32 rings,
					 const struct l7m_secrets *secrets)
{
	const __be32 *client = p->saddr;

	if (rings <= 1)
		return 0;
	if (source_inside != destination_inside) {
		if (destination_inside)
			client = p->daddr;
	} else if ((p->tcp_flags & (L7M_TCP_SYN | L7M_TCP_ACK)) == (L7M_TCP_SYN | L7M_TCP_ACK)) {
		client = p->daddr; /* a SYN-ACK answers a SYN that we missed */
	}
	return l7m_bucket_of(
		l7m_spread(l7m_pair_multiply((const l7m_key_word *)client, 4, secrets->ring)),
		rings);
}

#endif /* L7MARK_RING_H */
