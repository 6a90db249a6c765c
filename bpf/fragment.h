/* SPDX-License-Identifier: GPL-2.0-only */
/* Later fragments have no ports: they take those that their first fragment left behind. */
#ifndef L7MARK_BPF_FRAGMENT_H
#define L7MARK_BPF_FRAGMENT_H

#include "maps.h"
#include "packet.h"

/* RFC 791 lets a datagram wait for its fragments for a minute at most; routers mean 30 seconds. */
#define L7M_FRAGMENT_LIFE 30000 /* jiffies: at least 30 s at any HZ */

static __always_inline void l7m_fragment_key_of(const struct l7m_packet *p,
						struct l7m_fragment_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	__builtin_memcpy(key->saddr, p->saddr, sizeof(key->saddr));
	__builtin_memcpy(key->daddr, p->daddr, sizeof(key->daddr));
	key->id = p->fragment_id;
	/* RFC 8200, 4.5: in IPv6 the protocol is no part of it, and the fragments name different
	 * ones where extension headers are among what was cut.
	 */
	key->protocol = p->version == 4 ? p->protocol : 0;
	l7m_copy_tags(key->vlan, p->tags);
}

static __noinline int l7m_first_fragment(const struct l7m_met *met)
{
	struct l7m_fragment value = {
		.sport = met->packet.sport,
		.dport = met->packet.dport,
		.last_seen = (__u32)bpf_jiffies64(),
		.protocol = met->packet.protocol,
	};
	struct l7m_fragment_key key;

	l7m_fragment_key_of(&met->packet, &key);
	return (int)bpf_map_update_elem(&fragments, &key, &value, BPF_ANY);
}

/* Returns 1 and fills ports and protocol in, or 0 if the first fragment was not seen. */
static __noinline int l7m_later_fragment(struct l7m_met *met)
{
	const struct l7m_fragment *value;
	struct l7m_fragment_key key;

	l7m_fragment_key_of(&met->packet, &key);
	value = bpf_map_lookup_elem(&fragments, &key);
	if (!value || (__s32)((__u32)bpf_jiffies64() - value->last_seen) > L7M_FRAGMENT_LIFE) {
		l7m_count(L7M_COUNT_FRAGMENT_UNKNOWN, 1);
		return 0;
	}
	met->packet.sport = value->sport;
	met->packet.dport = value->dport;
	met->packet.protocol = value->protocol;
	l7m_count(L7M_COUNT_FRAGMENT_FOLLOWED, 1);
	return 1;
}

#endif /* L7MARK_BPF_FRAGMENT_H */
