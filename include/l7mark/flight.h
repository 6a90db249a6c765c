/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How much of an endpoint's first flight is copied: shared by the programs in the kernel and
 * `l7mark classify --path user`.
 *
 * A ClientHello names the server, and is longer than a packet today: with a post-quantum key share
 * 1.7 to 1.9 kB, cut into segments by the sender or merged by GRO, and over QUIC spread over two
 * Initial packets or more. A burst of them is over before userspace has seen the first, so the
 * kernel decides from what the first bytes state.
 *
 *   TCP   a TLS record of a handshake (0x16) begins the stream: its bytes up to the length that
 *         the record and the ClientHello state, whichever segments they come in and in any order
 *   UDP   Initial and Retry packets of QUIC, and DTLS handshake records that are not encrypted
 *
 * All of that up to l7m_settings.flight bytes for each endpoint, and what is beyond the usual
 * samples up to l7m_settings.flight_budget bytes a second for each source address.
 */
#ifndef L7MARK_FLIGHT_H
#define L7MARK_FLIGHT_H

#include <l7mark/parse.h>

/* The first bytes of a payload, which decide. */
#define L7M_HEAD 12

struct l7m_head {
	__u8 bytes[L7M_HEAD];
	__u32 length; /* how many of them are the packet's */
};

/*
 * Bytes from the first one on that a TLS stream states to belong to its first handshake message
 * (RFC 8446, 4 and 5.1), 0 if it is no handshake, at most `limit`. A message may be spread over
 * several records; then each has a header of 5 bytes. Too little to tell: `limit`.
 */
static __always_inline __u32 l7m_tls_flight(const struct l7m_head *head, __u32 limit)
{
	const __u8 *b = head->bytes;
	__u32 record, message, length;

	if (head->length < 1 || b[0] != 0x16)
		return 0;
	if (head->length >= 2 && b[1] != 3)
		return 0;
	if (head->length < 9)
		return limit;
	record = (__u32)b[3] << 8 | b[4];
	length = record + 5;
	message = ((__u32)b[6] << 16 | (__u32)b[7] << 8 | b[8]) + 4;
	if (b[5] == 1 && message > record) {
		if (!record)
			return limit;
		length = message + 5 * (message / record + 1);
	}
	return length < limit ? length : limit;
}

/*
 * 1 for a datagram whose first packet tells of the handshake in the clear: QUIC's Initial, Retry
 * and version negotiation (RFC 9000, 17.2; the type bits of version 2 by RFC 9369, 3.2), and DTLS
 * handshake records of epoch 0 (RFC 6347, 4.1). Handshake and 0-RTT packets of QUIC are sealed by
 * keys that nobody on the way has.
 */
static __always_inline __u32 l7m_datagram_flight(const struct l7m_head *head)
{
	const __u8 *b = head->bytes;
	__u32 version, type;

	if (head->length < 5)
		return 0;
	if (b[0] == 0x16)
		return b[1] == 0xfe && !b[3] && !b[4];
	if (!(b[0] & 0x80))
		return 0;
	version = (__u32)b[1] << 24 | (__u32)b[2] << 16 | (__u32)b[3] << 8 | b[4];
	if (!version)
		return 1;
	if (!(b[0] & 0x40))
		return 0;
	type = b[0] >> 4 & 3;
	if (version == 0x6b3343cf)
		return type < 2;
	return type == 0 || type == 3;
}

/* A TCP flow begins with its SYN, or its server's side with the SYN-ACK. */
static __always_inline void l7m_expect_flight(struct l7m_flight *f, const struct l7m_packet *p)
{
	if (p->protocol != L7M_PROTO_TCP || !(p->tcp_flags & L7M_TCP_SYN) ||
	    f->state != L7M_FLIGHT_NONE)
		return;
	f->begin = p->sequence;
	f->state = L7M_FLIGHT_EXPECTED;
}

/* 1 if the packet may belong to its sender's first flight: l7m_flight_wants() tells. */
static __always_inline int l7m_may_be_flight(const struct l7m_flight *f, const struct l7m_packet *p,
					     __u32 limit)
{
	if (!p->payload || f->copied >= limit)
		return 0;
	if (p->protocol == L7M_PROTO_UDP)
		return p->handshake != 0;
	return p->protocol == L7M_PROTO_TCP && f->state != L7M_FLIGHT_DONE;
}

/* 1 if the payload's first bytes have to be looked at for l7m_flight_wants(). */
static __always_inline int l7m_flight_asks(const struct l7m_flight *f, const struct l7m_packet *p)
{
	if (!p->payload || !p->handshake)
		return 0;
	return p->protocol == L7M_PROTO_UDP ||
	       (p->protocol == L7M_PROTO_TCP && f->state < L7M_FLIGHT_OPEN);
}

/*
 * Bytes of the packet's payload, from its first on, that belong to its sender's first flight; 0 for
 * none. `head` holds them where l7m_flight_asks() said so. Changes the state of `f`, but not what
 * is copied: the caller counts that when the copy went out.
 */
static __always_inline __u32 l7m_flight_wants(struct l7m_flight *f, const struct l7m_packet *p,
					      const struct l7m_head *head, __u32 limit)
{
	__u32 length = p->payload, left, offset;

	if (!length || f->copied >= limit)
		return 0;
	left = limit - f->copied;
	if (p->protocol == L7M_PROTO_UDP) {
		if (!p->handshake || !l7m_datagram_flight(head))
			return 0;
		return length < left ? length : left;
	}
	if (p->protocol != L7M_PROTO_TCP || f->state == L7M_FLIGHT_DONE)
		return 0;
	offset = p->sequence - f->begin;
	if (f->state == L7M_FLIGHT_NONE || (f->state == L7M_FLIGHT_EXPECTED &&
					    (offset == 0 || (offset >= limit && p->handshake)))) {
		__u32 stated = p->handshake ? l7m_tls_flight(head, limit) : 0;

		if (!stated) {
			f->state = L7M_FLIGHT_DONE;
			return 0;
		}
		f->begin = p->sequence;
		f->length = (__u16)stated;
		f->state = L7M_FLIGHT_OPEN;
		offset = 0;
	} else if (f->state == L7M_FLIGHT_EXPECTED) {
		/* Before the first segment: what it will state is not known yet. */
		if (offset >= limit)
			return 0;
		return length < left ? length : left;
	}
	if (offset >= f->length)
		return 0;
	offset = f->length - offset;
	if (length > offset)
		length = offset;
	return length < left ? length : left;
}

#endif /* L7MARK_FLIGHT_H */
