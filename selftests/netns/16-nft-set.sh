#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# A named set of nftables, for who has no ipset: made with its table, or found in the user's.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start nft
need nft openssl socat
policy=$(
	write_policy nft <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [
    { "name": "zoom", "match": { "applications": ["Zoom"] }, "continue": true,
      "nftset": { "name": "zoom", "timeout": 600 } },
    { "name": "own", "match": { "applications": ["Zoom"] },
      "nftset": { "family": "inet", "table": "firewall", "name": "meetings", "create_table": false } }
  ]
}
END
)
nft() { in_ns gateway nft "$@"; }
counted() { nft list chain inet "$1" watch | sed -n "s/.*@$2 counter packets \([0-9]*\) .*/\1/p"; }

serve_tls_echo 443 us04web.zoom.us
nft add table inet firewall
nft add set inet firewall meetings '{ type ipv4_addr . inet_proto . inet_service . ipv4_addr ; flags timeout ; }'
nft add set inet firewall meetings6 '{ type ipv6_addr . inet_proto . inet_service . ipv6_addr ; flags timeout ; }'
start_daemon "$policy"

for pair in l7mark:zoom firewall:meetings; do
	table=${pair%:*} set=${pair#*:}
	nft add chain inet "$table" watch '{ type filter hook forward priority 0 ; }'
	nft add rule inet "$table" watch ip daddr . meta l4proto . th dport . ip saddr "@$set" counter
	nft add rule inet "$table" watch ip6 daddr . meta l4proto . th dport . ip6 saddr "@${set}6" counter
done

try() {
	local family=$1 suffix=${1#4} client=$2 server=$3 pair table set word before
	open_tls "zoom$family" us04web.zoom.us "$server" 443
	talk "zoom$family" hello || fail "the connection does not work"
	for pair in l7mark:zoom firewall:meetings; do
		table=${pair%:*} set=${pair#*:}$suffix
		expect_soon "IPv$family: the element is in $table $set" 10 \
			nft get element inet "$table" "$set" "{ $server . tcp . 443 . $client }"
		before=$(counted "$table" "$set")
		for word in one two three four five; do talk "zoom$family" "$set $word" || fail "the connection broke"; done
		at_least "IPv$family: packets that a rule matched by $set" $(($(counted "$table" "$set") - before)) 5
	done
}
try 4 $CLIENT4 $SERVER4
try 6 $CLIENT6 $SERVER6

stop_daemon
expect "the user's set outlives the daemon" nft list set inet firewall meetings
