#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Fourth job: by "ip rule fwmark" the low-latency application leaves by one WAN and the rest by the
# other. A flow can't change its WAN, so the mark must be on its first packet: by service memory from
# the second flow on, and by the resolver's answer from the first.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start wans two-wans
need dig dnsmasq openssl socat tcpdump
policy=$(
	write_policy two-wans <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [ { "name": "low-latency", "match": { "applications": ["Zoom"] }, "mark": "0x10/0xf0" } ]
}
END
)
in_ns gateway ip route add default via 100.64.2.2 table 101
in_ns gateway ip -6 route add default via fd64:2::2 table 101
for family in 4 6; do
	in_ns gateway ip -$family rule add fwmark 0x10/0xf0 table 101 priority 1000
	for wan in wan0 wan1; do in_ns gateway "$(ipt $family)" -w -t nat -A POSTROUTING -o $wan -j MASQUERADE; done
	# A flow stays on the WAN of its first packet, whatever is learnt about it later.
	witness $family mangle PREROUTING keep -i lan0 -m conntrack --ctstate NEW -j CONNMARK --save-mark --mask 0xf0
	witness $family mangle PREROUTING keep -i lan0 -m conntrack ! --ctstate NEW -j CONNMARK --restore-mark --mask 0xf0
	for wan in wan0 wan1; do witness $family mangle POSTROUTING syn-$wan -o $wan -p tcp --syn; done
done
serve_dns us05web.zoom.us=$OTHER4 us05web.zoom.us=$OTHER6 host.lab.test=$SERVER4
serve_tls_echo 443 us04web.zoom.us
serve_tls_echo 8443 www.example.org
start_daemon "$policy"

# leaves_by WAN TEXT NAME SERVER-NAME ADDRESS PORT: a new connection works, and by that WAN it goes.
leaves_by() {
	local wan=$1 text=$2 name=$3 family=4 word before
	case $5 in *:*) family=6 ;; esac
	before=$(hits $family mangle "syn-$wan")
	open_tls "$name" "$4" "$5" "$6"
	for word in one two three four five six; do talk "$name" "$word" || fail "$text: the connection does not work"; done
	equal "$text: connections begun by $wan" $(($(hits $family mangle "syn-$wan") - before)) 1
}

spawn server tcpdump-up1 tcpdump -Z root --immediate-mode -ni up1 -U -w "$LAB_DIR/up1.pcap" tcp
on_up1=$SPAWNED
wait_for 10 test -s "$LAB_DIR/up1.pcap" || fail "tcpdump does not start"

leaves_by wan0 "a first, unknown flow to Zoom" first us04web.zoom.us $SERVER4 443
leaves_by wan1 "the next flow to the same service" second us04web.zoom.us $SERVER4 443
leaves_by wan1 "and another" third us04web.zoom.us $SERVER4 443
leaves_by wan0 "a flow of another kind to the same host" other www.example.org $SERVER4 8443
leaves_by wan0 "IPv6: a first flow to Zoom" first6 us04web.zoom.us $SERVER6 443
leaves_by wan1 "IPv6: the next flow" second6 us04web.zoom.us $SERVER6 443
leaves_by wan0 "IPv6: a flow of another kind" other6 www.example.org $SERVER6 8443
talk first "still here" || fail "the first flow broke when its application was known"
pass "the first flow goes on where it began"

[ "$(in_ns client dig +short @$SERVER4 us05web.zoom.us A)" = $OTHER4 ] || fail "the resolver does not answer"
[ "$(in_ns client dig +short @$SERVER4 us05web.zoom.us AAAA)" = $OTHER6 ] || fail "the resolver does not answer"
sleep 1
leaves_by wan1 "the very first flow to an address that DNS gave for Zoom" hinted us05web.zoom.us $OTHER4 443
leaves_by wan1 "IPv6: the same" hinted6 us05web.zoom.us $OTHER6 443

hang_up "$on_up1"
syns() { tcpdump -nr "$LAB_DIR/up1.pcap" "dst port $1 and (tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn)" 2>/dev/null | wc -l; }
equal "on the wire of the second WAN: IPv4 connections to 443" "$(syns 443)" 3
equal "on the wire of the second WAN: IPv4 connections to 8443" "$(syns 8443)" 0
