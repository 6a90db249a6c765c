/* SPDX-License-Identifier: GPL-2.0-only */
/* The keys of one packet, by every way that the programs have to make them: map `found`. */
#ifndef L7MARK_SELFTESTS_KEYS_H
#define L7MARK_SELFTESTS_KEYS_H

#include <l7mark/maps.h>
#include <l7mark/parse.h>

struct keys_found {
	/* The hot path's parser: did it look up, and by what. */
	__u32 fast;
	__u32 fast_sender;
	struct l7m_key fast_key; /* IPv4: a struct l7m_key4 at its begin */
	__u32 fast_version;
	/* What follows on a miss of that: does it refuse the packet; and the headers it read. */
	__u32 refused;
	struct l7m_packet missed_packet;
	/* The whole parser: an l7m_parse_result, and its headers. */
	__u32 slow;
	__u32 slow_sender;
	struct l7m_key slow_key;
	struct l7m_packet slow_packet;
};

#endif /* L7MARK_SELFTESTS_KEYS_H */
