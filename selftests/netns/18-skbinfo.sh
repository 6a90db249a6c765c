#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# An ipset with skbinfo carries mark and class id in its entries, for iptables' SET --map-set.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start skbinfo
need ipset openssl socat
policy=$(
	write_policy skbinfo <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [
    { "name": "zoom", "match": { "applications": ["Zoom"] }, "mark": "0x85/0xff", "tc_class": "1:20",
      "ipset": { "name": "ZOOM", "skbinfo": true, "counters": true, "comment": true } }
  ]
}
END
)
serve_tls_echo 443 us04web.zoom.us
in_ns gateway tc qdisc add dev wan0 root handle 1: htb default 10
in_ns gateway tc class add dev wan0 parent 1: classid 1:10 htb rate 1gbit quantum 60000
in_ns gateway tc class add dev wan0 parent 1: classid 1:20 htb rate 1gbit quantum 60000
start_daemon "$policy"

# The mark that TC set is taken away first, so that only the set's can be seen.
for family in 4 6; do
	set=ZOOM${family#4}
	witness $family mangle FORWARD clear -j MARK --set-mark 0
	witness $family mangle FORWARD map -j SET --map-set "$set" dst,dst,src --map-mark --map-prio
	witness $family mangle POSTROUTING mapped -p tcp --dport 443 -m mark --mark 0x85/0xff
done

listed() { in_ns gateway ipset list "$1" | grep -F "$2"; }
try() {
	local family=$1 server=$2 client=$3 set=ZOOM${1#4} word line before
	open_tls "zoom$family" us04web.zoom.us "$server" 443
	talk "zoom$family" hello || fail "the connection does not work"
	expect_soon "IPv$family: $set has the entry" 10 entry "$set" "$server,tcp:443,$client"
	line=$(listed "$set" "$server,tcp:443,$client")
	expect "IPv$family: with the mark" grep -q 'skbmark 0x85/0xff' <<<"$line"
	expect "IPv$family: with the class id" grep -q 'skbprio 1:20' <<<"$line"
	expect "IPv$family: with a comment" grep -q 'comment "' <<<"$line"
	before=$(class_packets wan0 1:20)
	for word in one two three four five; do talk "zoom$family" $word || fail "the connection broke"; done
	at_least "IPv$family: packets marked from the set" "$(hits "$family" mangle mapped)" 5
	at_least "IPv$family: packets that HTB put into the set's class" $(($(class_packets wan0 1:20) - before)) 5
	expect "IPv$family: the entry counts packets" \
		grep -qE 'packets [1-9]' <<<"$(listed "$set" "$server,tcp:443,$client")"
}
try 4 $SERVER4 $CLIENT4
try 6 $SERVER6 $CLIENT6
