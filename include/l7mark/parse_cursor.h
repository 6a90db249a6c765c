/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A place in a frame, the loads from it, and what a parser finds: what its parts for links
 * (parse_link.h), IP (parse_ip.h) and tunnels (parse_tunnel.h) have in common.
 *
 * Every function of the parser takes a cursor, checks its bounds before it reads, and touches no
 * map. Loops have fixed limits, for the verifier of 5.10 and against packets made to be slow.
 */
#ifndef L7MARK_PARSE_CURSOR_H
#define L7MARK_PARSE_CURSOR_H

#include <linux/types.h>

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* Host to network order of a constant; both sides are little or big endian alike. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define L7M_BE16(x) ((__be16)__builtin_bswap16(x))
#define L7M_BE32(x) ((__be32)__builtin_bswap32(x))
#define L7M_BE64(x) ((__be64)__builtin_bswap64(x))
#else
#define L7M_BE16(x) ((__be16)(x))
#define L7M_BE32(x) ((__be32)(x))
#define L7M_BE64(x) ((__be64)(x))
#endif
/* A 32-bit word whose first byte in memory is x and whose others are 0. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define L7M_FIRST_BYTE(x) ((__u32)(x))
#else
#define L7M_FIRST_BYTE(x) ((__u32)(x) << 24)
#endif
#define L7M_NTOH16(x) ((__u16)L7M_BE16((__u16)(x)))
#define L7M_NTOH32(x) ((__u32)L7M_BE32((__u32)(x)))
#define L7M_NTOH64(x) ((__u64)L7M_BE64((__u64)(x)))

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

enum l7m_parse_result {
	L7M_PARSE_OK = 0,
	L7M_PARSE_NOT_IP,
	L7M_PARSE_SHORT, /* a header goes beyond the end of what is readable */
	L7M_PARSE_WRONG, /* a field contradicts another */
	/* The transport is behind more headers than are followed, or in a later fragment. */
	L7M_PARSE_HIDDEN,
};

#define L7M_FRAGMENT_NONE  0
#define L7M_FRAGMENT_FIRST 1
#define L7M_FRAGMENT_LATER 2

/* What the keys have behind the protocol, with that as 0: 12 bits of each id, as on the wire. */
#define L7M_TAGS(outer, inner) L7M_BE32((__u32)(outer) << 12 | (inner))

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
	__u16 l3_offset;  /* of the innermost IP header that was opened, from the frame's start */
	__u16 vlan;	  /* id of the outermost VLAN tag, 0 for none */
	__u16 inner_vlan; /* of the next one */
	__u16 hop_limit;  /* of that IP header */
	__u32 l3_length;  /* bytes of that IP packet, by its header */
	__u32 payload;	  /* bytes after the transport header, 0 for later fragments */
	__be32 tags;	  /* both ids as the keys have them, see L7M_TAGS(); 0 to leave them out */
	__u32 handshake;  /* 1 if the payload may begin a TLS, DTLS or QUIC handshake */
	__u32 sequence;	  /* TCP: sequence number of the first byte of payload, host order */
};

/*
 * A place in a frame. It is kept as a number and made a pointer anew for every header: the number
 * is masked first, so that the verifier sees one state of a loop and not one for each way there.
 */
struct l7m_cursor {
	const __u8 *start; /* of the frame */
	const __u8 *end;   /* of what is readable */
	__u32 offset;
	void *context; /* BPF: the program's context */
	__u32 vlan;    /* id of a tag that was taken off the frame and is kept beside it, or 0 */
};

/* No stack of headers that we open is longer; what goes on behind it is refused as short. */
#define L7M_OFFSET_MASK 0x7ff

/* The next `size` bytes, or 0 if they are not all readable. */
static __always_inline const __u8 *l7m_header(const struct l7m_cursor *c, __u32 size)
{
	const __u8 *h = c->start + (c->offset & L7M_OFFSET_MASK);

	return h + size <= c->end ? h : (const __u8 *)0; /* NOLINT: C has no nullptr */
}

/* Makes the offset's range the same on every way to here. */
static __always_inline void l7m_settle(struct l7m_cursor *c)
{
	__asm__ volatile("" : "+r"(c->offset));
	c->offset &= L7M_OFFSET_MASK;
}

/*
 * Loads as on the wire: the packet's headers need not be aligned. In BPF a copy of unknown
 * alignment becomes one load a byte; the verifier lets words be loaded from anywhere in a packet
 * where the machine can do that, and from where the IP header of an Ethernet frame stands on any
 * other.
 */
#ifdef __bpf__
#define L7M_LOADER(name, type)                                                                     \
	static __always_inline type name(const __u8 *p)                                            \
	{                                                                                          \
		return *(const type *)p;                                                           \
	}
#else
#define L7M_LOADER(name, type)                                                                     \
	static __always_inline type name(const __u8 *p)                                            \
	{                                                                                          \
		type v;                                                                            \
		__builtin_memcpy(&v, p, sizeof(v));                                                \
		return v;                                                                          \
	}
#endif
L7M_LOADER(l7m_load_be16, __be16)
L7M_LOADER(l7m_load_be32, __be32)
L7M_LOADER(l7m_load_be64, __be64)
#undef L7M_LOADER

/* In host order. */
static __always_inline __u16 l7m_load16(const __u8 *p)
{
	return L7M_NTOH16(l7m_load_be16(p));
}

static __always_inline void l7m_load_address(__be32 *to, const __u8 *p)
{
	to[0] = l7m_load_be32(p);
	to[1] = l7m_load_be32(p + 4);
	to[2] = l7m_load_be32(p + 8);
	to[3] = l7m_load_be32(p + 12);
}

#endif /* L7MARK_PARSE_CURSOR_H */
