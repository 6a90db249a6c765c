/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Keys and values of every map, the settings and the counters. Byte order is in the type: __be16
 * and __be32 are as on the wire, all else is the host's.
 *
 * After a release a change of any layout here needs a new L7M_LAYOUT_VERSION: it is part of the pin
 * path, so that maps of another layout are never misread.
 */
#ifndef L7MARK_MAPS_H
#define L7MARK_MAPS_H

#include <linux/bpf.h>
#include <linux/types.h>

#ifdef __cplusplus
#define L7M_ASSERT_SIZE(type, size) static_assert(sizeof(type) == (size), #type)
#else
#define L7M_ASSERT_SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)
#endif

#define L7M_LAYOUT_VERSION 2

/* Map sizes when nothing else is configured. */
#define L7M_DEFAULT_FLOWS      (256 * 1024)
#define L7M_DEFAULT_CANDIDATES (64 * 1024)
#define L7M_DEFAULT_SERVICES   (64 * 1024)
#define L7M_DEFAULT_HINTS      (32 * 1024)
#define L7M_DEFAULT_RING_BYTES (8 * 1024 * 1024)
#define L7M_MAX_ACTIONS	       16384
#define L7M_MAX_RINGS	       64

/* Longest part of a frame in one record of a ring buffer, bytes. */
#define L7M_MAX_SNAPLEN 4096

/*
 * Longest part of a side's first flight that is ever copied, bytes of payload: one TLS record's
 * limit (RFC 8446, 5.1). A packet of that many bytes and its headers takes so many records.
 */
#define L7M_MAX_FLIGHT 16384
#define L7M_MAX_PARTS  5

/* Sources above their budget that are named at a time. */
#define L7M_SOURCES 4096

/*
 * A five-tuple in canonical form: both directions of a flow have one key. Endpoint 0 is the one
 * with the lower address (compared as 16 bytes), or on equal addresses the lower port. IPv4
 * addresses are ::ffff:a.b.c.d. Ports are 0 for protocols without any. The VLAN ids are those of
 * the outer and the inner tag, 12 bits each in that order as on the wire; 0 for no tag.
 */
struct l7m_key {
	__be32 addr[2][4];
	__be16 port[2];
	__u8 protocol; /* IPPROTO_* of the transport */
	__u8 vlan[3];
};
L7M_ASSERT_SIZE(struct l7m_key, 40);

/* The same for IPv4: a quarter of the hashing, and IPv4 is most of what a gateway sees. */
struct l7m_key4 {
	__be32 addr[2];
	__be16 port[2];
	__u8 protocol;
	__u8 vlan[3];
};
L7M_ASSERT_SIZE(struct l7m_key4, 16);

/* How far a flow's answer has come. Userspace and rules see these names. */
enum l7m_state {
	L7M_STATE_UNDECIDED = 0, /* being sampled, no answer yet */
	L7M_STATE_PROVISIONAL,	 /* marked by service memory, by a DNS hint, or by a first answer */
	L7M_STATE_GUESSED,	 /* the last word, without an answer of the flow's own */
	L7M_STATE_FINAL,	 /* the last word: the flow's own answer */
	L7M_STATES,
};

/*
 * Counters of a flow. Index 0 counts what endpoint 0 sent. Packets are segments (a GRO packet
 * counts those it holds), bytes are frames as at the hook. Plain increments: receive steering puts
 * a direction on one CPU, and a rare lost count costs less than an atomic on every packet.
 */
struct l7m_counters {
	__u64 packets[2];
	__u64 bytes[2];
};
L7M_ASSERT_SIZE(struct l7m_counters, 32);

/* Bits of l7m_verdict.flags, l7m_candidate.flags and l7m_sample.candidate_flags. */
#define L7M_FLOW_FIN0	   0x0001 /* endpoint 0 sent a FIN */
#define L7M_FLOW_FIN1	   0x0002 /* endpoint 1 sent a FIN */
#define L7M_FLOW_RST	   0x0004 /* either sent a RST */
#define L7M_FLOW_CLOSING   (L7M_FLOW_FIN0 | L7M_FLOW_FIN1 | L7M_FLOW_RST)
#define L7M_FLOW_MIDSTREAM 0x0008 /* TCP, and the first packet seen was no SYN */
#define L7M_FLOW_SERVICE   0x0010 /* provisional by service memory */
#define L7M_FLOW_HINT	   0x0020 /* provisional by a DNS hint */
#define L7M_FLOW_HEADERS   0x0040 /* provisional by a class that needs nothing but headers */
#define L7M_FLOW_ANSWER	   0x0080 /* the first packet seen was a SYN-ACK: its sender is the server */
#define L7M_FLOW_FORGED	   0x0100 /* a SYN, FIN or RST was not believed */
#define L7M_FLOW_AGAIN	   0x0200 /* has had a verdict, and is being looked at again */
#define L7M_FLOW_PROBE	   0x0400 /* let through in order to look at its service again */
#define L7M_FLOW_KEPT	   0x0800 /* provisional by the class of the five-tuple's last life */
#define L7M_FLOW_SYN0	   0x1000 /* endpoint 0 sent a SYN on this verdict: the other may answer */
#define L7M_FLOW_SYN1	   0x2000 /* endpoint 1 did */
#define L7M_FLOW_OUTSIDE   0x4000 /* who sent the first packet is not in `inside` */

/*
 * Map `lives`, per CPU: how many flows this CPU has begun. With the CPU's number it makes an id
 * that no other flow has or had. It is pinned as all are, so a restart goes on counting. An id of 0
 * belongs to verdicts that were written by hand.
 */
#define L7M_LIFE_CPU_SHIFT 48

/* Maps `flows4` and `flows6`: flows that have an answer, "unknown" included. One cache line. */
struct l7m_verdict {
	struct l7m_counters count; /* since the verdict; what came before is userspace's */
	__u32 last_seen;	   /* jiffies, low 32 bits */
	__u32 action;		   /* index into map `actions` */
	__u64 flow_id;		   /* the life that it belongs to; 0: written by hand */
	__u16 application;	   /* nDPI's protocol numbers, 0 for unknown */
	__u16 master;
	__u16 next_look;   /* the sender's packet of that number is looked at again; 0: none */
	__u16 closing;	   /* packets[0] + packets[1], low 16 bits, with the last FIN or RST */
	__u16 flags;	   /* L7M_FLOW_* */
	__u8 state;	   /* enum l7m_state */
	__u8 initiator;	   /* endpoint that sent the first packet seen: 0 or 1 */
	__u8 ring;	   /* as the candidate's */
	__u8 hop_limit[2]; /* by endpoint, of its first packet... */
	__u8 sides;	   /* ...and 4 bits each where that was met: l7m_side_of(); 0: not seen */
};
L7M_ASSERT_SIZE(struct l7m_verdict, 64);

/* As struct l7m_counters; no candidate lives for 2^32 packets. */
struct l7m_candidate_counters {
	__u64 bytes[2];
	__u32 packets[2];
};
L7M_ASSERT_SIZE(struct l7m_candidate_counters, 24);

/*
 * Most packets with payload that can be wanted of a flow. `sampled` counts no further, so that a
 * flow of which L7M_NO_LIMIT are wanted, one with a resolver, is sampled as long as it lives.
 */
#define L7M_MAX_PACKETS 254
#define L7M_NO_LIMIT	255

/* A flow that is still being sampled. */
struct l7m_candidate {
	__u64 flow_id;
	__u32 action;	     /* index into map `actions` */
	__u32 rtt_server_us; /* from us to the server and back; 0: not known (yet) */
	__u8 state;	     /* L7M_STATE_UNDECIDED or L7M_STATE_PROVISIONAL */
	__u8 initiator;	     /* endpoint that sent the first packet seen: 0 or 1 */
	__u8 ring;	     /* which ring buffer its samples go to */
	__u8 packets;	     /* payload packets wanted; from the settings, userspace may raise it */
	__u8 whole;	     /* of them, how many whole */
	__u8 hop_limit[2];   /* as in l7m_verdict */
	__u8 sides;
	/* What every packet writes: in a place of the table, a cache line of its own. */
	struct l7m_candidate_counters count;
	__u32 last_seen;     /* jiffies, low 32 bits */
	__u16 flags;	     /* L7M_FLOW_* */
	__u8 sampled;	     /* payload packets copied so far */
	__u8 first_sent;     /* the first packet has been copied */
	__u32 stamp_us;	     /* CLOCK_MONOTONIC, low 32 bits, of the handshake's last step */
	__u32 rtt_client_us; /* from us to the client and back; handshake_time.h has both */
};
L7M_ASSERT_SIZE(struct l7m_candidate, 64);

/*
 * How far one endpoint's first flight is copied: sampling.h has the rules. In the place of a
 * candidate, beside its value, because userspace never asks for it.
 */
enum l7m_flight_state {
	L7M_FLIGHT_NONE = 0, /* no payload yet, and no SYN that tells where it begins */
	L7M_FLIGHT_EXPECTED, /* the SYN was seen: `begin` is known */
	L7M_FLIGHT_OPEN,     /* a handshake: copied up to `length` */
	L7M_FLIGHT_DONE,     /* TCP, and no TLS handshake */
};

struct l7m_flight {
	__u32 begin;  /* TCP: sequence number of the first byte of payload, host order */
	__u16 length; /* TCP, once open: bytes from `begin` that are wanted */
	__u16 copied; /* bytes of payload copied so far, repeated ones too */
	__u8 state;   /* enum l7m_flight_state */
	__u8 reserved[3];
};
L7M_ASSERT_SIZE(struct l7m_flight, 12);

/*
 * An entry of map `candidates`, an array: a flow has its set by its key's hash (candidates.h), and
 * takes any of the places there; if none is free, that of a flow which only one endpoint has sent
 * packets of: a stranger makes such flows at will. They make way in turn, and so do the others once
 * there is none. No list is kept in order for that, as an LRU hash does: that was about half of
 * what a new flow cost. The lock is for taking and giving back a place; what a packet counts in its
 * own is written without, and so is `two_way`.
 */
#define L7M_WAYS      8
#define L7M_TAG_PLACE 0x07U /* number of the place */
#define L7M_TAG_TAKEN 0x08U /* set in every taken place's tag */
struct l7m_candidate_place {
	/* One cache line that packets only read, so that both directions' CPUs have it... */
	struct l7m_key key;
	/* ...and, from value.count on, one that they write. */
	struct l7m_candidate value;
	struct l7m_flight flight[2]; /* by endpoint */
};
L7M_ASSERT_SIZE(struct l7m_candidate_place, 128);

struct l7m_candidate_set {
	struct bpf_spin_lock lock;
	__u32 next;		/* place that makes way when none is free: they take turns */
	__u32 tag[L7M_WAYS];	/* 0: free; else 28 bits of the hash, L7M_TAG_TAKEN, its number */
	__u8 two_way[L7M_WAYS]; /* 1: both endpoints have sent packets of it */
	__u32 aged;		/* place whose age is looked at next when none is free */
	__u32 reserved[3];	/* all that a look-up reads is one cache line */
	struct l7m_candidate_place place[L7M_WAYS];
};
L7M_ASSERT_SIZE(struct l7m_candidate_set, 1088);

/* Bits of l7m_action.flags. */
#define L7M_ACT_MARK	 0x01
#define L7M_ACT_PRIORITY 0x02
#define L7M_ACT_CLASSID	 0x04
#define L7M_ACT_DSCP	 0x08
#define L7M_ACT_DROP	 0x10

/*
 * Map `actions`: what a class does to a packet. Entries 0 to 3 are those of flows without a class,
 * by enum l7m_state; a class has four entries likewise, so that one look-up gives class and state.
 */
struct l7m_action {
	__u32 mark; /* skb->mark = (skb->mark & ~mask) | mark */
	__u32 mark_mask;
	__u32 priority; /* skb->priority */
	__u32 classid;	/* tc class, major << 16 | minor */
	__u8 dscp;	/* 0 to 63 */
	__u8 flags;	/* L7M_ACT_* */
	__u16 class_id; /* for people who read the map: number of the class, 0 for none */
	__u32 reserved;
};
L7M_ASSERT_SIZE(struct l7m_action, 24);

/*
 * Map `services`: what earlier flows with the same (server, port, protocol, client) were, for the
 * first packet of the next: the tuple of an ipset of type hash:ip,port,ip.
 */
struct l7m_service_key {
	__be32 server[4];
	__be32 client[4];
	__be16 port; /* the server's */
	__u8 protocol;
	__u8 reserved;
};
L7M_ASSERT_SIZE(struct l7m_service_key, 36);

/* Map `hints`: what a server's name, seen in a DNS answer, promises. */
struct l7m_hint_key {
	__be32 server[4];
	__be32 client[4]; /* 0 without L7M_SET_CLIENT_HINTS: it holds for every client */
};
L7M_ASSERT_SIZE(struct l7m_hint_key, 32);

/* Value of `services` and `hints`. */
struct l7m_promise {
	__u64 expires; /* jiffies, 64 bits: from then on it says nothing */
	__u32 action;  /* index into map `actions` */
	__u16 application;
	__u16 master;
	__u64 next_pass; /* jiffies, 64 bits: from then on one flow may pass that would be dropped
			  */
};
L7M_ASSERT_SIZE(struct l7m_promise, 24);

/* Map `fragments`: ports of a datagram whose first fragment has been seen. */
struct l7m_fragment_key {
	__be32 saddr[4];
	__be32 daddr[4];
	__be32 id;     /* IPv4: the 16 bits of the header, in the upper half */
	__u8 protocol; /* 0 in IPv6 */
	__u8 vlan[3];  /* as l7m_key.vlan */
};
L7M_ASSERT_SIZE(struct l7m_fragment_key, 40);

struct l7m_fragment {
	__be16 sport;
	__be16 dport;
	__u32 last_seen; /* jiffies, low 32 bits */
	__u8 protocol;	 /* the transport */
	__u8 reserved[3];
};
L7M_ASSERT_SIZE(struct l7m_fragment, 12);

/* Map `inside`: prefixes of the clients' side; chooses the ring so that a client's flows meet. */
struct l7m_prefix_key {
	__u32 length; /* bits of the 128 */
	__be32 addr[4];
};
L7M_ASSERT_SIZE(struct l7m_prefix_key, 20);

/*
 * Classes that need nothing but headers, compiled into rules: a flow's first packet has the masks
 * of rules of five tables, each by the longest prefix that holds its key there, and the rules whose
 * bits all five have are those that hold. There are two generations of it all, of which the
 * settings name the one in use: what a packet reads is never half written.
 */
#define L7M_HEADER_WORDS       4
#define L7M_HEADER_RULES       (64 * L7M_HEADER_WORDS)
#define L7M_HEADER_GENERATIONS 2
#define L7M_HEADER_PREFIXES    (256 * 1024) /* of both generations */

enum l7m_header_table {
	L7M_HEADER_CLIENT = 0, /* address */
	L7M_HEADER_SERVER,     /* address */
	L7M_HEADER_PORT,       /* the server's */
	L7M_HEADER_TRANSPORT,  /* the IP version in one byte, IPPROTO_* in the next */
	L7M_HEADER_INTERFACE,  /* its index */
	L7M_HEADER_TABLES,
};

/* Map `header_prefixes`. */
struct l7m_header_key {
	__u32 length; /* bits of what follows: 32, and the prefix's */
	__u32 table;  /* generation * L7M_HEADER_TABLES + enum l7m_header_table */
	__be32 key[4];
};
L7M_ASSERT_SIZE(struct l7m_header_key, 24);

struct l7m_header_mask {
	__u64 rules[L7M_HEADER_WORDS];
};
L7M_ASSERT_SIZE(struct l7m_header_mask, 32);

/* Map `header_rules`, an entry a generation: the lowest rule of `exact` that holds is the flow's.
 */
struct l7m_header_rules {
	__u64 exact[L7M_HEADER_WORDS];	/* the others: a class that detection may find, or not */
	__u64 drops[L7M_HEADER_WORDS];	/* by a class that drops, if none in front can come true */
	__u64 tells[L7M_HEADER_WORDS];	/* userspace is told at once: the class has sets or a log */
	__u32 action[L7M_HEADER_RULES]; /* index into map `actions` */
};
L7M_ASSERT_SIZE(struct l7m_header_rules, 1120);

/* Bits of l7m_settings.flags. */
#define L7M_SET_SERVICES     0x01 /* consult `services` on a flow's first packet */
#define L7M_SET_HINTS	     0x02 /* consult `hints` likewise */
#define L7M_SET_PAUSED	     0x04 /* sample nothing: no worker is there to read */
#define L7M_SET_DROPS	     0x08 /* a class drops: so is what hides its ports */
#define L7M_SET_CLIENT_HINTS 0x10 /* `hints` are by client: its address may decide the class */
#define L7M_SET_HEADERS	     0x20 /* consult `header_rules` and `header_prefixes` likewise */
#define L7M_SET_HEADERS_ODD  0x40 /* by the second of their generations */

/*
 * Random numbers for the hashes in hash.h, which nobody who sends packets may learn. Candidates are
 * found by them, so they stay as they are for as long as the maps do.
 */
struct l7m_secrets {
	__u64 candidate[11]; /* for each word of struct l7m_key, and one more */
	__u64 ring[5];	     /* for each word of an address, and one more */
	__u64 source[5];     /* the same */
};
L7M_ASSERT_SIZE(struct l7m_secrets, 168);

/* Map `settings`, one entry: what may change while programs run. Read off the hot path only. */
struct l7m_settings {
	__u32 packets;	     /* payload packets copied of a new flow: 1 to L7M_MAX_PACKETS */
	__u32 whole;	     /* the first so many of them up to whole_snaplen */
	__u32 snaplen;	     /* the rest, bytes of frame */
	__u32 whole_snaplen; /* bytes of frame, at most L7M_MAX_SNAPLEN */
	__u32 rings;	     /* ring buffers in use, 1 to L7M_MAX_RINGS */
	__u32 flags;	     /* L7M_SET_* */
	__u32 mark_mask;     /* bits of skb->mark that any class sets: key of map `marks` */
	__u32 whole_plain;   /* as `whole`, of flows that begin with no TLS or QUIC handshake */
	__u32 flight; /* bytes of a side's first flight, at most L7M_MAX_FLIGHT; 0: as other packets
		       */
	__u32 flight_budget; /* bytes a second of one source's flights beyond what `whole` copies */
	__u32 source_budget; /* bytes a second of the flows that one source begins; 0: no limit */
	__u32 outside_budget; /* and of those that all sources outside begin; 0: no limit */
	__u32 hz;	      /* jiffies a second */
	__u32 recheck; /* jiffies between two flows that pass a service's drop; 0: none does */
	struct l7m_secrets secrets; /* userspace writes them once */
};
L7M_ASSERT_SIZE(struct l7m_settings, 224);

/* What a source has spent in one second. */
enum l7m_budget_kind {
	L7M_BUDGET_SAMPLES =
		0,	    /* everything that was copied of its flows, and the records around it */
	L7M_BUDGET_FLIGHTS, /* of that the first flights beyond what is copied of any flow */
	L7M_BUDGET_KINDS,
};

struct l7m_budget {
	__u32 tag;    /* the hash of the source that was here last */
	__u32 second; /* jiffies / hz, low 32 bits */
	__u32 spent[L7M_BUDGET_KINDS];
};
L7M_ASSERT_SIZE(struct l7m_budget, 16);

/*
 * An entry of map `budgets`, an array: a source has its set by the keyed hash of its address, and
 * any place in it. If none has its tag it takes the one of which the least was spent, and what was
 * spent there it has spent itself (Metwally et al., "Efficient Computation of Frequent and Top-k
 * Elements", 2005). So nobody ever has more than its budget, whatever sources somebody forges, and
 * a source has less only if it shares its set with four others that spend much. A hash table would
 * cost a look-up and an insertion for most new flows. The set behind the last is that of all flows
 * begun from outside.
 */
#define L7M_BUDGET_SETS 16384
#define L7M_BUDGET_WAYS 4
struct l7m_budget_set {
	struct l7m_budget place[L7M_BUDGET_WAYS];
};
L7M_ASSERT_SIZE(struct l7m_budget_set, 64);

/* Map `sources`: those that were above their budget of late. All bits 0: the flows from outside. */
struct l7m_source_key {
	__be32 addr[4]; /* IPv6: the upper 64 bits, because a host has a whole /64 to send from */
};
L7M_ASSERT_SIZE(struct l7m_source_key, 16);

struct l7m_source {
	__u32 since; /* second of the first packet that was refused... */
	__u32 last;  /* ...and of the last */
	__u64 packets;
	__u64 bytes; /* that would have been copied of them */
};
L7M_ASSERT_SIZE(struct l7m_source, 24);

/* A source that was refused nothing for so many seconds begins a new line. */
#define L7M_SOURCE_FORGOTTEN 60

/* Bits of l7m_config.flags. */
#define L7M_CFG_XDP_LOAD_BYTES 0x01 /* bpf_xdp_load_bytes() is there: 5.18 */
#define L7M_CFG_XDP_FRAGS      0x02 /* loaded for multi-buffer XDP: 5.18 */
#define L7M_CFG_WEAK_ORDER     0x08 /* CPUs may see each other's stores in another order */
#define L7M_CFG_REPLAY                                                                             \
	0x04 /* a capture is replayed: skb->wire_len is the frame's length,                        \
	      * a five-tuple is one flow whatever its flags, and later                             \
	      * fragments are not counted, as ndpiReader does it */

/* Read-only data of each object, set between open and load. */
struct l7m_config {
	__u32 parse; /* L7M_PARSE_* */
	__u32 flags; /* L7M_CFG_* */
	__u32 sets;  /* entries of map `candidates` */
};

/* Data in front of a packet by which XDP tells TC what it found. */
#define L7M_META_MAGIC 0x4c374d32 /* "L7M2" */
struct l7m_meta {
	__u32 magic;
	__u32 action; /* index into map `actions`, or ~0: leave the packet alone */
};
L7M_ASSERT_SIZE(struct l7m_meta, 8);

/*
 * Map `counters`, per CPU: every outcome off the hot path has a name. X(symbol, "name", "help").
 * Established packets are counted in their flow only.
 */
#define L7M_COUNTERS(X)                                                                            \
	X(NEW_FLOW, "new_flows", "flows that became candidates")                                   \
	X(SAMPLED_PACKETS, "sampled_packets", "packets copied to a ring buffer")                   \
	X(SAMPLED_BYTES, "sampled_bytes", "bytes of them copied")                                  \
	X(NOTICES, "notices", "closed flows without a verdict that a worker was told of")          \
	X(RING_FULL, "ring_full", "samples not taken: ring buffer full")                           \
	X(RING_MISSING, "ring_missing", "samples not taken: no such ring buffer")                  \
	X(PAUSED, "paused", "samples not taken: no worker attached")                               \
	X(COPY_FAILED, "copy_failed", "samples not taken: the packet's bytes could not be read")   \
	X(FLIGHT_REFUSED, "flights_refused",                                                       \
	  "handshake packets copied in part: the source's budget was used up")                     \
	X(SOURCE_REFUSED, "sources_refused",                                                       \
	  "samples not taken: the budget of who began the flow was used up")                       \
	X(OUTSIDE_REFUSED, "outside_refused",                                                      \
	  "samples not taken: the budget of flows begun from outside was used up")                 \
	X(CANDIDATE_REFUSED, "candidates_refused",                                                 \
	  "packets of flows above a budget that found no free place among the candidates")         \
	X(CANDIDATE_EVICTED_ONE_WAY, "candidates_evicted_one_way",                                 \
	  "candidates that made way for newer flows: packets of one endpoint only")                \
	X(CANDIDATE_EVICTED_TWO_WAY, "candidates_evicted_two_way",                                 \
	  "candidates that made way for newer flows: packets both ways")                           \
	X(BY_SERVICE, "provisional_by_service", "flows marked at once by service memory")          \
	X(PROBED, "services_probed", "flows let through to look at a blocked service again")       \
	X(BY_HINT, "provisional_by_hint", "flows marked at once by a DNS hint")                    \
	X(BY_HEADERS, "provisional_by_headers", "flows marked at once by nothing but headers")     \
	X(REOPENED, "reopened", "closed flows begun anew by a SYN")                                \
	X(LOOKED_AGAIN, "looked_again", "flows with a verdict that became candidates again")       \
	X(FORGED, "forged_closings",                                                               \
	  "SYN, FIN and RST not believed: not from where the sender is")                           \
	X(NOT_IP, "not_ip", "frames passed: neither IPv4 nor IPv6")                                \
	X(MALFORMED, "malformed", "packets passed: header cut short or wrong")                     \
	X(FRAGMENT_FOLLOWED, "fragments_followed", "later fragments given their flow's class")     \
	X(FRAGMENT_UNKNOWN, "fragments_unknown", "later fragments passed: first one not seen")     \
	X(UNTRACKED, "untracked", "packets that hide their ports: dropped if any class drops")     \
	X(DROPPED, "dropped", "packets dropped by a class")                                        \
	X(META_FAILED, "meta_failed", "XDP could not hand its result to TC: looked up again")      \
	X(DSCP_FAILED, "dscp_failed", "DSCP not written: header not found or not writable")

enum l7m_counter {
#define L7M_COUNTER_ENUM(symbol, name, help) L7M_COUNT_##symbol,
	L7M_COUNTERS(L7M_COUNTER_ENUM)
#undef L7M_COUNTER_ENUM
		L7M_COUNTER_COUNT,
};

#endif /* L7MARK_MAPS_H */
