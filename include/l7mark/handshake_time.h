/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Round-trip times that a flow's handshake tells to whoever sees it pass: from us to the server and
 * back (SYN to SYN-ACK; with UDP, the first datagram to the first answer), and from us to the
 * client and back (SYN-ACK to ACK). A handshake packet that is repeated makes its time void,
 * because nobody can tell which of the two was answered (Karn's algorithm: RFC 6298, section 3).
 */
#ifndef L7MARK_HANDSHAKE_TIME_H
#define L7MARK_HANDSHAKE_TIME_H

#include <l7mark/maps.h>
#include <l7mark/parse.h>

/* Of l7m_candidate.rtt_*_us: it will not be known. */
#define L7M_RTT_VOID 0xffffffffU

/*
 * A hello in several datagrams is sent at once, a repeated one after a timeout: DNS and QUIC (RFC
 * 9002, 6.2.2) wait for longer than this.
 */
#define L7M_REPEATED_US 200000

/*
 * 1 if l7m_time_handshake() has something to do with a packet that is counted already: to read the
 * clock costs more than to ask.
 */
static __always_inline int l7m_times_handshake(const struct l7m_candidate *c,
					       const struct l7m_packet *p, __u32 sender)
{
	if (c->flags & L7M_FLOW_MIDSTREAM)
		return 0;
	/* A flow that is looked at again is past its first datagrams. */
	if (p->protocol == L7M_PROTO_UDP)
		return p->payload && !c->rtt_server_us && !(c->flags & L7M_FLOW_AGAIN);
	if (p->protocol != L7M_PROTO_TCP)
		return 0;
	if (p->tcp_flags & L7M_TCP_SYN)
		return 1;
	/* The server's SYN-ACK has been seen, and this is the other endpoint's ACK of it. */
	return c->rtt_server_us && !c->rtt_client_us &&
	       (sender == c->initiator) == !(c->flags & L7M_FLOW_ANSWER);
}

/* Never 0, which stands for "not known"; the stamp's 32 bits wrap after 71 minutes. */
static __always_inline __u32 l7m_time_since(__u32 stamp_us, __u32 now_us)
{
	return now_us == stamp_us ? 1 : now_us - stamp_us;
}

/* Of the packet that begins the flow, as l7m_time_handshake() has it. */
static __always_inline void l7m_begin_handshake(struct l7m_candidate *c, __u32 now_us)
{
	c->stamp_us = now_us;
	if (c->flags & L7M_FLOW_ANSWER)
		c->rtt_server_us = L7M_RTT_VOID;
}

static __always_inline void l7m_time_handshake(struct l7m_candidate *c, const struct l7m_packet *p,
					       __u32 sender, __u32 now_us)
{
	int first = c->count.packets[sender & 1] == 1;

	if (p->protocol == L7M_PROTO_UDP) {
		if (!c->stamp_us)
			c->stamp_us = now_us;
		else if (sender != c->initiator)
			c->rtt_server_us = l7m_time_since(c->stamp_us, now_us);
		else if (now_us - c->stamp_us > L7M_REPEATED_US)
			c->rtt_server_us = L7M_RTT_VOID;
	} else if (!(p->tcp_flags & L7M_TCP_SYN)) {
		c->rtt_client_us = l7m_time_since(c->stamp_us, now_us);
	} else if (!(p->tcp_flags & L7M_TCP_ACK)) {
		if (first)
			c->stamp_us = now_us;
		else if (!c->rtt_server_us)
			c->rtt_server_us = L7M_RTT_VOID;
	} else if (first) {
		if (c->flags & L7M_FLOW_ANSWER)
			c->rtt_server_us = L7M_RTT_VOID;
		else if (!c->rtt_server_us)
			c->rtt_server_us = l7m_time_since(c->stamp_us, now_us);
		c->stamp_us = now_us;
	} else if (!c->rtt_client_us) {
		c->rtt_client_us = L7M_RTT_VOID;
	}
}

#endif /* L7MARK_HANDSHAKE_TIME_H */
