/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where a flow is in map `candidates`: shared by the programs in the kernel and by userspace, which
 * reads a set by its number.
 */
#ifndef L7MARK_CANDIDATES_H
#define L7MARK_CANDIDATES_H

#include <l7mark/maps.h>
#include <l7mark/parse.h>

/* A key is also read as words. */
typedef __u32 __attribute__((may_alias)) l7m_key_word;

/* Two words of a key. The seed keeps others from choosing keys that share a set. */
static __always_inline __u64 l7m_candidate_mix(__u64 h, __u32 first, __u32 second)
{
	h ^= (__u64)first << 32 | second;
	h *= 0xff51afd7ed558ccdULL;
	return h ^ h >> 32;
}

static __always_inline __u64 l7m_candidate_hash4(const struct l7m_key4 *key, __u32 seed)
{
	const l7m_key_word *words = (const l7m_key_word *)(const void *)key;
	__u64 h = 0x9e3779b97f4a7c15ULL ^ seed;

	h = l7m_candidate_mix(h, words[0], words[1]);
	return l7m_candidate_mix(h, words[2], words[3]);
}

static __always_inline __u64 l7m_candidate_hash6(const struct l7m_key *key, __u32 seed)
{
	const l7m_key_word *words = (const l7m_key_word *)(const void *)key;
	__u64 h = 0x9e3779b97f4a7c15ULL ^ seed;
	int i;

#if defined(__clang__)
#pragma unroll
#endif
	for (i = 0; i < 10; i += 2)
		h = l7m_candidate_mix(h, words[i], words[i + 1]);
	return h;
}

static __always_inline __u64 l7m_candidate_hash(const struct l7m_key *key, __u32 seed)
{
	struct l7m_key4 key4;

	if (!l7m_key_is_v4(key))
		return l7m_candidate_hash6(key, seed);
	l7m_key_to_v4(key, &key4);
	return l7m_candidate_hash4(&key4, seed);
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
