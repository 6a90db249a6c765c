#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# The main job: a TLS flow to a Zoom name gets its server, port and client into the ipset that an
# iptables rule matches, and its packets carry the mark by themselves; another flow gets neither.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start zoom
need ipset openssl socat jq
policy=$(
	write_policy zoom <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [
    { "name": "zoom", "match": { "applications": ["Zoom"] }, // and its IPv6 sibling NETIFY_ZOOM6
      "mark": "0x85/0xff", "ipset": { "name": "NETIFY_ZOOM", "timeout": 600 } }
  ]
}
END
)
serve_tls_echo 443 us04web.zoom.us
serve_tls_echo 8443 www.example.org
start_daemon "$policy"

expect "the set is made" in_ns gateway ipset list NETIFY_ZOOM -name
expect "its IPv6 sibling is made" in_ns gateway ipset list NETIFY_ZOOM6 -name

class=$(mark_class lan0 0x85 0xff)

# try 4|6 CLIENT SERVER OTHER SET
try() {
	local family=$1 client=$2 server=$3 other=$4 set=$5 word

	# PREROUTING comes after TC and before any rule that marks: what is counted there, TC has marked.
	witness "$family" mangle PREROUTING by-tc -d "$server" -m mark --mark 0x85/0xff
	witness "$family" mangle PREROUTING other-by-tc -d "$other" -m mark ! --mark 0
	witness "$family" mangle FORWARD other-seen -d "$other"
	witness "$family" mangle FORWARD other-by-set -d "$other" -m set --match-set "$set" dst,dst,src
	witness "$family" mangle FORWARD by-set -m set --match-set "$set" dst,dst,src -j MARK --set-mark 0x85

	open_tls "zoom$family" us04web.zoom.us "$server" 443
	expect "IPv$family: the Zoom connection works" talk "zoom$family" hello
	expect_soon "IPv$family: $set holds $server,tcp:443,$client" 10 entry "$set" "$server,tcp:443,$client"
	equal "IPv$family: entries in $set" "$(set_size "$set")" 1

	local by_set by_tc back
	by_set=$(hits "$family" mangle by-set)
	by_tc=$(hits "$family" mangle by-tc)
	back=$(class_packets lan0 "$class")
	for word in one two three four five; do talk "zoom$family" "$word" || fail "the Zoom connection broke"; done
	at_least "IPv$family: packets that the iptables rule matched by the set" $(($(hits "$family" mangle by-set) - by_set)) 5
	at_least "IPv$family: packets that carried the mark from TC" $(($(hits "$family" mangle by-tc) - by_tc)) 5
	at_least "IPv$family: marked packets on the way back" $(($(class_packets lan0 "$class") - back)) 5

	open_tls "other$family" www.example.org "$other" 8443
	for word in one two three four five six; do
		talk "other$family" "$word" || fail "the other connection broke"
	done
	at_least "IPv$family: packets of the other flow" "$(hits "$family" mangle other-seen)" 6
	equal "IPv$family: of the other flow, marked by TC" "$(hits "$family" mangle other-by-tc)" 0
	equal "IPv$family: of the other flow, matched by the set" "$(hits "$family" mangle other-by-set)" 0
	close_line "zoom$family"
	close_line "other$family"
}

try 4 $CLIENT4 $SERVER4 $OTHER4 NETIFY_ZOOM
try 6 $CLIENT6 $SERVER6 $OTHER6 NETIFY_ZOOM6

# Sampling ends with the verdict: what goes on afterwards stays in the kernel.
sampled() { l7mark status --json | jq "[.. | .sampled_packets? // empty] | max // 0"; }
open_tls long us04web.zoom.us $SERVER4 443
for word in 1 2 3 4 5 6 7 8 9 10; do talk long "word $word" || fail "the long connection broke"; done
before=$(sampled)
at_least "packets copied for the verdicts" "$before" 1
for word in 1 2 3 4 5 6 7 8 9 10; do talk long "again $word" || fail "the long connection broke"; done
equal "packets copied after the verdict" "$(($(sampled) - before))" 0

stop_daemon
expect_nothing_left
expect "the user's rule still stands" in_ns gateway iptables -t mangle -C FORWARD \
	-m set --match-set NETIFY_ZOOM dst,dst,src -j MARK --set-mark 0x85 -m comment --comment by-set
