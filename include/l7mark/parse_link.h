/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* From the start of a frame to its IP header. */
#ifndef L7MARK_PARSE_LINK_H
#define L7MARK_PARSE_LINK_H

#include <l7mark/parse_cursor.h>

/* One more id behind those of the tags before it: outer and inner, and no third. */
static __always_inline __u32 l7m_add_id(__u32 ids, __u32 id)
{
	if (!ids)
		return id << 12;
	return ids & 0x0fff ? ids : ids | id;
}

/*
 * Link layer: Ethernet (also with RFC 1042 SNAP), up to three VLAN tags, MPLS labels, a PPPoE
 * session. Leaves the cursor on the IP header and returns its version, or a negative
 * l7m_parse_result. Of tags with an id the first two are kept, as 12 bits each: id 0 is none, for
 * it is put in front of a priority only (IEEE 802.1Q, 9.6).
 */
static __always_inline int l7m_parse_ethernet(struct l7m_cursor *c, __u32 *ids)
{
	const __u8 *h = l7m_header(c, 14);
	__u16 type;
	int i;

	if (!h)
		return -L7M_PARSE_SHORT;
	type = l7m_load16(h + 12);
	c->offset += 14;
	if (type == 0x0800)
		return 4;
	if (type == 0x86dd)
		return 6;
	if (type <= 1500) {
		h = l7m_header(c, 8);
		if (!h || h[0] != 0xaa || h[1] != 0xaa)
			return -L7M_PARSE_NOT_IP;
		type = l7m_load16(h + 6);
		c->offset += 8;
	}
	for (i = 0; i < 3; i++) {
		if (type != 0x8100 && type != 0x88a8 && type != 0x9100)
			break;
		h = l7m_header(c, 4);
		if (!h)
			return -L7M_PARSE_SHORT;
		*ids = l7m_add_id(*ids, l7m_load16(h) & 0x0fff);
		type = l7m_load16(h + 2);
		c->offset += 4;
	}
	if (type == 0x0800)
		return 4;
	if (type == 0x86dd)
		return 6;
	if (type == 0x8864) { /* RFC 2516: 6 bytes of PPPoE, then the PPP protocol */
		h = l7m_header(c, 8);
		if (!h)
			return -L7M_PARSE_SHORT;
		type = l7m_load16(h + 6);
		c->offset += 8;
		if (type == 0x0021)
			return 4;
		if (type == 0x0057)
			return 6;
		return -L7M_PARSE_NOT_IP;
	}
	if (type == 0x8847 || type == 0x8848) { /* RFC 3032: the label with the S bit is the last */
		for (i = 0; i < 6; i++) {
			l7m_settle(c);
			h = l7m_header(c, 4);
			if (!h)
				return -L7M_PARSE_SHORT;
			c->offset += 4;
			if (h[2] & 1)
				break;
		}
		l7m_settle(c);
		h = l7m_header(c, 1);
		if (!h)
			return -L7M_PARSE_SHORT;
		if ((h[0] >> 4) == 4)
			return 4;
		if ((h[0] >> 4) == 6)
			return 6;
	}
	return -L7M_PARSE_NOT_IP;
}

/* Link layer as one number, as a global BPF function gives it: result, version, offset, VLAN ids.
 */
#define L7M_LINK_OFFSET(l)  ((__u32)((l)&0xffff))
#define L7M_LINK_IDS(l)	    ((__u32)((l) >> 16 & 0xffffff))
#define L7M_LINK_VERSION(l) ((int)((l) >> 40 & 0xff))
#define L7M_LINK_RESULT(l)  ((int)((l) >> 48 & 0xff))

static __always_inline __u64 l7m_link(struct l7m_cursor *c)
{
	__u32 ids = 0;
	int version = l7m_parse_ethernet(c, &ids);

	if (version < 0)
		return (__u64)-version << 48;
	return (__u64)version << 40 | (__u64)ids << 16 | c->offset;
}

#ifndef L7M_LINK
#define L7M_LINK(c) l7m_link(c)
#endif

#endif /* L7MARK_PARSE_LINK_H */
