/* SPDX-License-Identifier: GPL-2.0-only */
/* Knowledge of a flow before its first byte was looked at: service memory and DNS hints. */
#ifndef L7MARK_BPF_PROMISE_H
#define L7MARK_BPF_PROMISE_H

#include "maps.h"
#include "packet.h"

static __always_inline struct l7m_promise *l7m_find_service(const struct l7m_packet *p,
							    int server_sent)
{
	struct l7m_service_key key;

	__builtin_memcpy(key.server, server_sent ? p->saddr : p->daddr, sizeof(key.server));
	__builtin_memcpy(key.client, server_sent ? p->daddr : p->saddr, sizeof(key.client));
	key.port = server_sent ? p->sport : p->dport;
	key.protocol = p->protocol;
	key.reserved = 0;
	return bpf_map_lookup_elem(&services, &key);
}

static __always_inline struct l7m_promise *l7m_find_hint(const __be32 *server, const __be32 *client,
							 const struct l7m_settings *s)
{
	struct l7m_hint_key key = {};

	__builtin_memcpy(key.server, server, sizeof(key.server));
	if (s->flags & L7M_SET_CLIENT_HINTS)
		__builtin_memcpy(key.client, client, sizeof(key.client));
	return bpf_map_lookup_elem(&hints, &key);
}

/* Of a promise that holds, as one number: its action, the state that it gives, and who told. */
#define L7M_PROMISED(action, told)                                                                 \
	((__u64)(action) | (__u64)L7M_STATE_PROVISIONAL << 32 | (__u64)(told) << 40)

/*
 * A service that is dropped has nobody left who could tell that it has become another: now and then
 * one flow passes until its own answer. Another packet than a SYN would begin no whole flow of TCP.
 * Two CPUs at once may let two flows pass, or let one pass that the other CPU then has dropped: to
 * tell which came first, an atomic compare would be needed, which 5.10 lacks.
 */
static __always_inline int l7m_passes(struct l7m_promise *promise, const struct l7m_packet *p,
				      const struct l7m_settings *s, __u64 now, int syn)
{
	if (!promise->next_pass || promise->next_pass > now || !s->recheck)
		return 0;
	if (p->protocol == L7M_PROTO_TCP && !syn)
		return 0;
	promise->next_pass = now + s->recheck;
	l7m_count(L7M_COUNT_PROBED, 1);
	return 1;
}

/*
 * What is known of a flow before any byte of it was looked at, 0 for nothing. Who is the server is
 * plain for a SYN; for anything else the other way round is tried too.
 */
static __always_inline __u64 l7m_find_promise(const struct l7m_packet *p,
					      const struct l7m_settings *s)
{
	int known = (p->tcp_flags & (L7M_TCP_SYN | L7M_TCP_ACK)) == L7M_TCP_SYN;
	struct l7m_promise *promise;
	__u64 now = bpf_jiffies64();

	if (s->flags & L7M_SET_SERVICES) {
		promise = l7m_find_service(p, 0);
		if (!promise && !known)
			promise = l7m_find_service(p, 1);
		if (promise && promise->expires > now) {
			if (l7m_passes(promise, p, s, now, known))
				return (__u64)(L7M_FLOW_SERVICE | L7M_FLOW_PROBE) << 40;
			l7m_count(L7M_COUNT_BY_SERVICE, 1);
			return L7M_PROMISED(promise->action, L7M_FLOW_SERVICE);
		}
	}
	if (s->flags & L7M_SET_HINTS) {
		promise = l7m_find_hint(p->daddr, p->saddr, s);
		if (!promise && !known)
			promise = l7m_find_hint(p->saddr, p->daddr, s);
		if (promise && promise->expires > now) {
			l7m_count(L7M_COUNT_BY_HINT, 1);
			return L7M_PROMISED(promise->action, L7M_FLOW_HINT);
		}
	}
	return 0;
}

#endif /* L7MARK_BPF_PROMISE_H */
