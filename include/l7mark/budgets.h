/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where a source is in map `budgets`: shared by the programs in the kernel and their tests. */
#ifndef L7MARK_BUDGETS_H
#define L7MARK_BUDGETS_H

#include <l7mark/hash.h>
#include <l7mark/maps.h>

/* Also the source's tag. */
static __always_inline __u32 l7m_source_hash(const struct l7m_source_key *key,
					     const struct l7m_secrets *secrets)
{
	const l7m_key_word *words = (const l7m_key_word *)(const void *)key;

	return l7m_spread(l7m_pair_multiply(words, 4, secrets->source));
}

static __always_inline __u32 l7m_budget_set_of(__u32 hash)
{
	return hash / (0xffffffffU / L7M_BUDGET_SETS + 1);
}
#endif /* L7MARK_BUDGETS_H */
