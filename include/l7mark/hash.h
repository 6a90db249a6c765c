/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The keyed hash of candidates.h and of ring.h. */
#ifndef L7MARK_HASH_H
#define L7MARK_HASH_H

#include <l7mark/maps.h>

/* A key is also read as words. */
typedef __u32 __attribute__((may_alias)) l7m_key_word;

/*
 * Pair-multiply-shift (Thorup, "High Speed Hashing for Integers and Strings", 2015, 4.3): with a
 * secret of uniformly random words the upper half is strongly universal. Whatever two keys somebody
 * chooses, they share a bucket as seldom as two random numbers do; no pair does for many secrets.
 * `count` is even, and `secret` has one word more.
 */
static __always_inline __u64 l7m_pair_multiply(const l7m_key_word *words, int count,
					       const __u64 *secret)
{
	__u64 h = secret[count];
	int i;

#if defined(__clang__)
#pragma unroll
#endif
	for (i = 0; i < count; i += 2)
		h += (secret[i] + words[i + 1]) * (secret[i + 1] + words[i]);
	return h;
}

/*
 * Takes the upper half and spreads values at even distances. Keys in a row (ports, addresses) lie
 * at such distances, and one secret in ten would fill some buckets with them and leave others
 * empty. Different values stay different.
 */
static __always_inline __u32 l7m_spread(__u64 h)
{
	__u32 upper = (__u32)(h >> 32);

	return (upper ^ upper >> 16) * 0x9e3779b1U;
}

/* A bucket below `buckets`. */
static __always_inline __u32 l7m_bucket_of(__u32 hash, __u32 buckets)
{
	return (__u32)(((__u64)hash * buckets) >> 32);
}

#endif /* L7MARK_HASH_H */
