#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# The conntrack mark and label are set on the flow's entry, so that both directions have them behind
# a masquerading gateway.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start conntrack
need conntrack openssl socat
policy=$(
	write_policy conntrack <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [
    { "name": "zoom", "match": { "applications": ["Zoom"] },
      "conntrack": { "mark": "0x85/0xff", "label": 3 } }
  ]
}
END
)
serve_tls_echo 443 us04web.zoom.us
serve_tls_echo 8443 www.example.org

for family in 4 6; do
	in_ns gateway "$(ipt $family)" -w -t nat -A POSTROUTING -o wan0 -j MASQUERADE
	# A user's own bits of the mark, outside our mask, must stay.
	witness $family mangle PREROUTING user-bits -i lan0 -p tcp --syn -j CONNMARK --set-xmark 0x4000/0x4000
	witness $family mangle PREROUTING restore -j CONNMARK --restore-mark
	witness $family mangle PREROUTING from-lan -i lan0 -p tcp --dport 443 -m mark --mark 0x4085
	witness $family mangle PREROUTING from-wan -i wan0 -p tcp --sport 443 -m mark --mark 0x4085
	witness $family mangle PREROUTING label -p tcp -m connlabel --label 3
	witness $family mangle PREROUTING other -p tcp -m multiport --ports 8443 -m mark --mark 0x85/0xff
done
start_daemon "$policy"

# marked 4|6: conntrack shows the mark on the flow's entry.
marked() { in_ns gateway conntrack -L -f "ipv$1" -p tcp --dport 443 --mark 0x85/0xff 2>/dev/null | grep ESTABLISHED >/dev/null; }

try() {
	local family=$1 server=$2 other=$3 word
	open_tls "zoom$family" us04web.zoom.us "$server" 443
	open_tls "other$family" www.example.org "$other" 8443
	talk "zoom$family" hello || fail "the Zoom connection does not work"
	expect_soon "IPv$family: conntrack shows the mark" 10 marked "$family"
	for word in one two three four five; do
		talk "zoom$family" $word || fail "the Zoom connection broke"
		talk "other$family" $word || fail "the other connection broke"
	done
	at_least "IPv$family: packets from the client with the restored mark" "$(hits "$family" mangle from-lan)" 5
	at_least "IPv$family: packets to the masqueraded address with it" "$(hits "$family" mangle from-wan)" 5
	at_least "IPv$family: packets with the label" "$(hits "$family" mangle label)" 5
	equal "IPv$family: packets of the other flow with the mark" "$(hits "$family" mangle other)" 0
}
try 4 $SERVER4 $OTHER4
try 6 $SERVER6 $OTHER6
