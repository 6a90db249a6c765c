/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where a flow is in map `candidates`: shared by the programs in the kernel and by userspace, which
 * reads a set by its number.
 */
#ifndef L7MARK_CANDIDATES_H
#define L7MARK_CANDIDATES_H

#include <l7mark/hash.h>
#include <l7mark/maps.h>
#include <l7mark/parse.h>

static __always_inline __u32 l7m_candidate_hash4(const struct l7m_key4 *key,
						 const struct l7m_secrets *secrets)
{
	const l7m_key_word *words = (const l7m_key_word *)(const void *)key;

	return l7m_spread(l7m_pair_multiply(words, 4, secrets->candidate));
}

static __always_inline __u32 l7m_candidate_hash6(const struct l7m_key *key,
						 const struct l7m_secrets *secrets)
{
	const l7m_key_word *words = (const l7m_key_word *)(const void *)key;

	return l7m_spread(l7m_pair_multiply(words, 10, secrets->candidate));
}

static __always_inline __u32 l7m_candidate_hash(const struct l7m_key *key,
						const struct l7m_secrets *secrets)
{
	struct l7m_key4 key4;

	if (!l7m_key_is_v4(key))
		return l7m_candidate_hash6(key, secrets);
	l7m_key_to_v4(key, &key4);
	return l7m_candidate_hash4(&key4, secrets);
}

static __always_inline __u32 l7m_candidate_set_of(__u32 hash, __u32 sets)
{
	return l7m_bucket_of(hash, sets);
}

/* As in l7m_candidate_set.tag, without the number of the place; never 0. */
static __always_inline __u32 l7m_candidate_tag(__u32 hash)
{
	return hash << 4 | L7M_TAG_TAKEN;
}

#endif /* L7MARK_CANDIDATES_H */
