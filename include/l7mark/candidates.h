/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where a flow is in map `candidates`: shared by the programs in the kernel and by userspace, which
 * reads a set by its number.
 */
#ifndef L7MARK_CANDIDATES_H
#define L7MARK_CANDIDATES_H

#include <l7mark/types.h>

/* The key's ten words, two by two; the seed keeps others from choosing keys that share a set. */
static __always_inline __u64 l7m_candidate_hash(const struct l7m_key *key, __u32 seed)
{
	const __u32 *words = (const __u32 *)(const void *)key;
	__u64 h = 0x9e3779b97f4a7c15ULL ^ seed;
	int i;

#if defined(__clang__)
#pragma unroll
#endif
	for (i = 0; i < 10; i += 2) {
		h ^= (__u64)words[i] << 32 | words[i + 1];
		h *= 0xff51afd7ed558ccdULL;
		h ^= h >> 32;
	}
	return h;
}

static __always_inline __u32 l7m_candidate_set_of(__u64 hash, __u32 sets)
{
	return (__u32)(((hash & 0xffffffffU) * sets) >> 32);
}

/* As in l7m_candidate_set.tag, without the number of the place; never 0. */
static __always_inline __u32 l7m_candidate_tag(__u64 hash)
{
	return (__u32)(hash >> 32) << 4 | L7M_TAG_TAKEN;
}

#endif /* L7MARK_CANDIDATES_H */
