/* SPDX-License-Identifier: GPL-2.0-only */
/* The tables of verdicts, one for each family, for whoever has a packet or a key of any family. */
#ifndef L7MARK_BPF_VERDICT_TABLE_H
#define L7MARK_BPF_VERDICT_TABLE_H

#include "maps.h"
#include "packet.h"

static __always_inline struct l7m_verdict *l7m_find_verdict(struct l7m_met *met)
{
	if (met->packet.version == 4) {
		struct l7m_key4 key;

		met->sender = (__u32)l7m_make_key4(&met->packet, &key);
		return bpf_map_lookup_elem(&flows4, &key);
	} else {
		struct l7m_key key;

		met->sender = (__u32)l7m_make_key(&met->packet, &key);
		return bpf_map_lookup_elem(&flows6, &key);
	}
}

static __always_inline struct l7m_verdict *l7m_verdict_of(const struct l7m_key *key)
{
	struct l7m_key4 key4;

	if (!l7m_key_is_v4(key))
		return bpf_map_lookup_elem(&flows6, key);
	l7m_key_to_v4(key, &key4);
	return bpf_map_lookup_elem(&flows4, &key4);
}

/* 1 if the sender's next packet is to be looked at again. A number of 0 wraps to never. */
static __always_inline int l7m_is_due(const struct l7m_verdict *v, __u32 sender)
{
	return (__u64)v->next_look - 1 <= v->count.packets[sender & 1];
}

static __always_inline void l7m_remove_verdict(const struct l7m_key *key)
{
	struct l7m_key4 key4;

	if (l7m_key_is_v4(key)) {
		l7m_key_to_v4(key, &key4);
		bpf_map_delete_elem(&flows4, &key4);
	} else {
		bpf_map_delete_elem(&flows6, key);
	}
}

static __always_inline void l7m_count_verdict(struct l7m_verdict *v, const struct l7m_met *met)
{
	__u32 sender = met->sender & 1;

	v->count.packets[sender] += met->segments;
	v->count.bytes[sender] += met->bytes;
	v->last_seen = (__u32)bpf_jiffies64();
}

#endif /* L7MARK_BPF_VERDICT_TABLE_H */
