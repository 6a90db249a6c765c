#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# A software flowtable whose "flow add" waits for the final state, by the packet's mark (IPv4) and by the
# conntrack mark (IPv6): what is not final is never offloaded, and of what is, later packets pass by the
# forward chain with marks and l7mark's counters still right.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start flowtable
need conntrack jq nft openssl socat
# Only the flowtable itself: where the kernel has none, this is what it refuses.
if ! in_ns gateway nft -f - 2>"$LAB_DIR/nft.log" <<'END'
table inet lab {
	flowtable f0 {
		hook ingress priority 0
		devices = { lan0, wan0 }
	}
}
END
then
	if grep 'syntax error' "$LAB_DIR/nft.log" >/dev/null; then fail "nft does not understand the flowtable"; fi
	skip "this kernel has no flowtable (CONFIG_NF_FLOW_TABLE): $(sed -n "s/.*Error: //p" "$LAB_DIR/nft.log" | head -n 1)"
fi
policy=$(
	write_policy flowtable <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "sampling": { "packets": 40, "idle_timeout": 60 },
  "first_packet": { "services": false, "hints": false },
  "state_marks": { "mask": "0xf00", "undecided": "0x100", "provisional": "0x200", "guessed": "0x300",
                   "final": "0x400", "conntrack_mask": "0xf00" },
  "classes": [ { "name": "zoom", "match": { "applications": ["Zoom"] }, "mark": "0x85/0xff" } ]
}
END
)
in_ns gateway nft -f - <<'END' || fail "nft refuses the rules"
table inet lab {
	chain forward {
		type filter hook forward priority 0; policy accept;
		meta nfproto ipv4 meta l4proto tcp meta mark & 0xf00 == 0x400 flow add @f0
		meta nfproto ipv6 meta l4proto tcp ct mark & 0xf00 == 0x400 flow add @f0
	}
}
END
serve_tls_echo 443 us04web.zoom.us
for port in 3306 9000; do
	spawn server echo-$port socat TCP6-LISTEN:$port,ipv6only=0,fork,reuseaddr EXEC:cat
	serving server tcp $port echo
done
for family in 4 6; do
	for port in 443 3306 9000; do witness $family mangle FORWARD slow-$port -p tcp --dport $port; done
	witness $family mangle PREROUTING undecided -p tcp --dport 9000 -m mark --mark 0x100/0xf00
done
up=$(mark_class wan0 0x485 0xfff)
down=$(mark_class lan0 0x485 0xfff)
start_daemon "$policy"

# offloaded 4|6 PORT: conntrack names a flow to it as offloaded.
offloaded() {
	in_ns gateway conntrack -L -f "ipv$1" -p tcp --dport "$2" 2>/dev/null | grep -F '[OFFLOAD]' >/dev/null
}

not_offloaded() { ! offloaded "$@"; }

# flow_of ADDRESS PORT FIELD: of the one flow to it, from flows --json.
flow_of() {
	l7mark flows --json | jq -r --arg dst "$1" --argjson port "$2" "select(.dst == \$dst and .dport == \$port) | .$3"
}

# becomes_offloaded NAME 4|6 PORT: with something to say, for it is packets that "flow add" sees.
becomes_offloaded() {
	talk "$1" "word $RANDOM$RANDOM"
	offloaded "$2" "$3"
}

# has_state NAME ADDRESS PORT STATE: with something to say, for look-ups come with packets.
has_state() {
	talk "$1" "word $RANDOM"
	[ "$(flow_of "$2" "$3" state)" = "$4" ]
}

# counted: packets that the two classes of marked packets have sent.
counted() { echo $(($(class_packets wan0 "$up") + $(class_packets lan0 "$down"))); }

# agree ADDRESS: l7mark has counted as many packets since the start of the comparison as the classes.
agree() { [ $(($(flow_of "$1" 443 packets) - flow_before)) -eq $(($(counted) - counted_before)) ]; }

settled() {
	local before
	before=$(counted)
	sleep 0.5
	[ "$(counted)" -eq "$before" ]
}

for family in 4 6; do
	server=$SERVER4
	[ $family = 4 ] || server=$SERVER6

	# No payload that nDPI knows: undecided until the sample is complete, then guessed ("Unknown" is no answer).
	open_line plain$family socat - "TCP:$(bracket $server):9000"
	for number in {1..12}; do talk plain$family "word $number" || fail "IPv$family: the plain connection does not work"; done
	at_least "IPv$family: packets of an undecided flow" "$(hits $family mangle undecided)" 12
	expect "IPv$family: it is not offloaded" not_offloaded $family 9000
	at_least "IPv$family: its packets pass the forward chain" "$(hits $family mangle slow-9000)" 12
	for number in {13..30}; do talk plain$family "word $number" || fail "IPv$family: the plain connection broke"; done
	expect_soon "IPv$family: its state without an answer" 20 has_state plain$family $server 9000 guessed
	expect "IPv$family: without an answer it is not offloaded" not_offloaded $family 9000

	# The same on a well-known port is only a guess, and stays one.
	open_line guess$family socat - "TCP:$(bracket $server):3306"
	for number in {1..30}; do talk guess$family "word $number" || fail "IPv$family: the connection to 3306 does not work"; done
	equal "IPv$family: state of a flow that is known by its port only" "$(flow_of $server 3306 state)" guessed
	for number in {31..35}; do talk guess$family "word $number" || fail "IPv$family: the connection to 3306 broke"; done
	expect "IPv$family: it is not offloaded" not_offloaded $family 3306
	at_least "IPv$family: its packets pass the forward chain" "$(hits $family mangle slow-3306)" 35

	open_tls zoom$family us04web.zoom.us $server 443
	expect_soon "IPv$family: the Zoom flow is offloaded" 20 becomes_offloaded zoom$family $family 443
	equal "IPv$family: then it is" "$(flow_of $server 443 state)" final
	at_least "IPv$family: its first packets passed the forward chain" "$(hits $family mangle slow-443)" 3

	wait_for 15 settled || fail "IPv$family: packets come by themselves"
	slow_before=$(hits $family mangle slow-443)
	up_before=$(class_packets wan0 "$up")
	down_before=$(class_packets lan0 "$down")
	counted_before=$(counted)
	flow_before=$(flow_of $server 443 packets)
	for word in one two three four five six seven eight nine ten; do
		talk zoom$family "again $word" || fail "IPv$family: the offloaded connection broke"
	done
	equal "IPv$family: later packets in the forward chain" $(($(hits $family mangle slow-443) - slow_before)) 0
	at_least "IPv$family: later packets up with class and state in their mark" $(($(class_packets wan0 "$up") - up_before)) 10
	at_least "IPv$family: later packets down with the same" $(($(class_packets lan0 "$down") - down_before)) 10
	expect_soon "IPv$family: l7mark has counted as many" 10 agree $server
	expect "IPv$family: the guessed flow is still not offloaded" not_offloaded $family 3306
	close_line zoom$family
	close_line plain$family
	close_line guess$family
done
