/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which endpoint of a flow is the client, by its first packet: the programs in the kernel and
 * userspace must agree on it, because classes speak of clients and servers.
 */
#ifndef L7MARK_CLIENT_H
#define L7MARK_CLIENT_H

#include <l7mark/maps.h>
#include <l7mark/parse_cursor.h>

enum l7m_client {
	L7M_CLIENT_SENT,     /* the sender of the first packet */
	L7M_CLIENT_RECEIVED, /* its receiver */
	L7M_CLIENT_INSIDE,   /* its receiver if that alone is inside, else its sender */
};

/*
 * System ports, registered ports, and those that clients are given: RFC 6335, section 6, but from
 * where Linux begins (net.ipv4.ip_local_port_range). A service's port is the lower.
 */
static __always_inline __u32 l7m_port_rank(__u16 port)
{
	/* 1 from 1024 on, and 1 from 32768 on: branches would each be a way to verify. */
	return (((__u32)port >> 10) + 63) / 64 + ((__u32)port >> 15);
}

/*
 * `flags` are the candidate's or verdict's, the ports in host order.
 *
 * A SYN or SYN-ACK tells. A TCP flow that was under way is judged by its ports, and by who is
 * inside where they tell nothing. UDP has no such flag, and who sends first is the client, but for
 * one case: what comes in from a port of a service to one that only clients have is an answer.
 */
static __always_inline enum l7m_client l7m_client_by_ports(__u8 protocol, __u16 flags, __u16 from,
							   __u16 to)
{
	int udp = protocol == L7M_PROTO_UDP;
	__u32 sender = l7m_port_rank(from), receiver = l7m_port_rank(to);

	if (flags & L7M_FLOW_ANSWER)
		return L7M_CLIENT_RECEIVED;
	if (!udp && !(flags & L7M_FLOW_MIDSTREAM))
		return L7M_CLIENT_SENT;
	if (udp)
		return sender < receiver && receiver == 2 ? L7M_CLIENT_INSIDE : L7M_CLIENT_SENT;
	if (sender != receiver)
		return sender < receiver ? L7M_CLIENT_RECEIVED : L7M_CLIENT_SENT;
	return L7M_CLIENT_INSIDE;
}

#endif /* L7MARK_CLIENT_H */
