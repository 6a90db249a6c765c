/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which packets of a new flow are copied, and how much of each: shared by the programs in the
 * kernel and `l7mark classify --path user`.
 *
 * nDPI needs the flow's first packet, whatever it is, and then packets with payload; bare ACKs tell
 * it nothing. The first few are wanted whole: certificates span segments, and QUIC's first datagram
 * is authenticated to its last byte. A handshake's first flight is wanted whole by rules of its own
 * (flight.h).
 */
#ifndef L7MARK_SAMPLING_H
#define L7MARK_SAMPLING_H

#include <l7mark/flight.h>
#include <l7mark/parse.h>

/* A fresh candidate for the packet that begins a flow; `count` stays at zero. */
static __always_inline void l7m_begin_candidate(struct l7m_candidate *c, const struct l7m_packet *p,
						int sender, const struct l7m_settings *s)
{
	c->initiator = (__u8)sender;
	c->packets = (__u8)s->packets;
	c->whole = (__u8)s->whole;
	if (p->protocol == L7M_PROTO_TCP) {
		if (!(p->tcp_flags & L7M_TCP_SYN))
			c->flags |= L7M_FLOW_MIDSTREAM;
		else if (p->tcp_flags & L7M_TCP_ACK)
			c->flags |= L7M_FLOW_ANSWER;
	}
}

/* Flag bits that a TCP segment sets on its flow. */
static __always_inline __u16 l7m_closing_flags(const struct l7m_packet *p, int sender)
{
	__u16 flags = 0;

	if (p->tcp_flags & L7M_TCP_FIN)
		flags |= sender ? L7M_FLOW_FIN1 : L7M_FLOW_FIN0;
	if (p->tcp_flags & L7M_TCP_RST)
		flags |= L7M_FLOW_RST;
	return flags;
}

/* Of flow flags: both sides have said their last, or one has reset. Half closed is open. */
static __always_inline int l7m_has_ended(__u16 flags)
{
	const __u16 both = L7M_FLOW_FIN0 | L7M_FLOW_FIN1;

	return (flags & L7M_FLOW_RST) || (flags & both) == both;
}

/* Packets that may follow both FINs: ACKs of what was under way. */
#define L7M_LAST_ACKS 16

/*
 * 1 if a flow has ended and nothing came since that says otherwise: it may be forgotten soon, and a
 * SYN begins another. Anybody may try to send its last packet, so any later one restores it.
 */
static __always_inline int l7m_is_closing(const struct l7m_verdict *v)
{
	__u16 since = (__u16)(v->count.packets[0] + v->count.packets[1] - v->closing);

	if (!l7m_has_ended(v->flags))
		return 0;
	return since <= (v->flags & L7M_FLOW_RST ? 0 : L7M_LAST_ACKS);
}

/* The interface and the direction in which a packet is met, as a number from 1 to 14. */
static __always_inline __u32 l7m_side_of(__u32 ifindex, __u32 egress)
{
	return 1 + ifindex % 7 * 2 + (egress ? 1 : 0);
}

static __always_inline __u32 l7m_known_side(__u8 sides, __u32 sender)
{
	return sides >> (sender & 1) * 4 & 15;
}

/* The first packet of an endpoint tells where its others come from. */
static __always_inline void l7m_note_origin(struct l7m_candidate *c, const struct l7m_packet *p,
					    __u32 sender, __u32 side)
{
	if (l7m_known_side(c->sides, sender))
		return;
	c->hop_limit[sender & 1] = (__u8)p->hop_limit;
	c->sides |= (__u8)(side << (sender & 1) * 4);
}

/*
 * 1 if a packet was met where its sender's first one was, with as many hops left. Who is elsewhere
 * and sends in its name would have to know both.
 */
static __always_inline int l7m_is_from(const __u8 *hop_limit, __u8 sides,
				       const struct l7m_packet *p, __u32 sender, __u32 side)
{
	return l7m_known_side(sides, sender) == side && hop_limit[sender & 1] == p->hop_limit;
}

/*
 * The candidate's closing flags by a segment that is not counted yet. Returns those that are new.
 * One that is not believed changes nothing but L7M_FLOW_FORGED, and what is no end takes back one
 * that was believed.
 */
static __always_inline __u16 l7m_close_candidate(struct l7m_candidate *c,
						 const struct l7m_packet *p, __u32 sender,
						 __u32 side)
{
	__u16 closing = l7m_closing_flags(p, (int)sender) & (__u16)~c->flags;

	l7m_note_origin(c, p, sender, side);
	if (!closing) {
		if (l7m_has_ended(c->flags) && !(p->tcp_flags & (L7M_TCP_FIN | L7M_TCP_RST)) &&
		    (p->payload || (c->flags & L7M_FLOW_RST)))
			c->flags &= (__u16)~L7M_FLOW_CLOSING;
		return 0;
	}
	if (!l7m_is_from(c->hop_limit, c->sides, p, sender, side)) {
		c->flags |= L7M_FLOW_FORGED;
		return L7M_FLOW_FORGED;
	}
	c->flags |= closing;
	return closing;
}

/*
 * How many packets of the flow are wanted whole. Its first payload tells: a TLS certificate comes
 * in the third or fourth packet, QUIC's ClientHello may be spread over as many datagrams, and all
 * else is known by its first two or by the first bytes of more.
 */
static __always_inline __u8 l7m_wanted_whole(const struct l7m_candidate *c,
					     const struct l7m_packet *p,
					     const struct l7m_settings *s)
{
	if (c->sampled || p->handshake || c->whole <= s->whole_plain)
		return c->whole;
	return (__u8)s->whole_plain;
}

/* Answers are read for the names that they tell of addresses: none may be cut. */
static __always_inline int l7m_is_dns(const struct l7m_packet *p)
{
	const __be16 dns = L7M_BE16(53);

	return p->protocol == L7M_PROTO_UDP && (p->sport == dns || p->dport == dns);
}

/*
 * How many bytes of the frame to copy: 0 for a packet that is not wanted. The caller counts the
 * packet by l7m_count_sample() only if the copy went out, so that a full ring costs a flow a packet
 * and not its answer.
 */
static __always_inline __u32 l7m_sample_length(const struct l7m_candidate *c,
					       const struct l7m_packet *p,
					       const struct l7m_settings *s)
{
	if (p->payload == 0)
		return c->first_sent ? 0 : s->whole_snaplen;
	if (c->sampled >= c->packets)
		return 0;
	if (c->sampled < l7m_wanted_whole(c, p, s) || !c->first_sent || l7m_is_dns(p))
		return s->whole_snaplen;
	return s->snaplen;
}

/* How much of a packet is to be copied, and who pays for it. */
struct l7m_wanted {
	__u32 length;	 /* bytes of the frame, 0 for none; may be more than the frame has */
	__u32 flight;	 /* bytes of payload that belong to the sender's first flight */
	__u32 continued; /* 1: it goes on with a flight, and is no packet of the flow's number */
	__u32 charge;	 /* bytes of `length` that the source's budget pays for */
};

/* The same packet without its part in a flight: the source's budget is used up. */
static __always_inline void l7m_refuse_flight(const struct l7m_candidate *c,
					      const struct l7m_packet *p,
					      const struct l7m_settings *s, struct l7m_wanted *out)
{
	out->length = l7m_sample_length(c, p, s);
	out->flight = 0;
	out->continued = 0;
	out->charge = 0;
}

/*
 * By both rules: those of l7m_sample_length(), and of the sender's first flight all that is wanted,
 * of which only the first packet counts. So a hello cut into forty segments leaves the others of
 * the flow's packets for the server's answer.
 */
static __always_inline void l7m_packet_wanted(const struct l7m_candidate *c, struct l7m_flight *f,
					      const struct l7m_packet *p,
					      const struct l7m_head *head,
					      const struct l7m_settings *s, struct l7m_wanted *out)
{
	__u32 reach, flight;

	l7m_refuse_flight(c, p, s, out);
	if (!s->flight)
		return;
	flight = l7m_flight_wants(f, p, head, s->flight);
	if (!flight)
		return;
	reach = p->l3_offset + p->l3_length - p->payload + flight;
	out->flight = flight;
	if (f->copied) {
		out->continued = 1;
		out->charge = out->length = reach;
	} else if (reach > out->length) {
		out->charge = reach - out->length;
		out->length = reach;
	}
}

/* What `sampled` will be once this packet has been copied. */
static __always_inline __u8 l7m_sampled_with(const struct l7m_candidate *c,
					     const struct l7m_packet *p,
					     const struct l7m_wanted *wanted)
{
	return p->payload && !wanted->continued && c->sampled < L7M_MAX_PACKETS ? c->sampled + 1
										: c->sampled;
}

static __always_inline void l7m_count_sample(struct l7m_candidate *c, struct l7m_flight *f,
					     const struct l7m_packet *p,
					     const struct l7m_wanted *wanted,
					     const struct l7m_settings *s)
{
	c->first_sent = 1;
	f->copied += (__u16)wanted->flight;
	if (!p->payload || wanted->continued)
		return;
	c->whole = l7m_wanted_whole(c, p, s);
	c->sampled = l7m_sampled_with(c, p, wanted);
}

#endif /* L7MARK_SAMPLING_H */
