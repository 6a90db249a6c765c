#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Fourth job: low-latency applications leave by one WAN and the rest by the other. A connection can't
# change its WAN: NAT gives it another address there, and each provider drops what comes from another's
# addresses, as BCP 38 asks. So a rule on the mark alone kills the first connection; the lines of docs/routing.md, run here as they stand there,
# choose by the first packet, which has its mark by service memory from the second flow on, and by
# the resolver's answer from the first.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start wans two-wans
need dig dnsmasq nft openssl socat tcpdump
policy=$(
	write_policy two-wans <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [ { "name": "low-latency", "match": { "applications": ["Zoom", "BitTorrent"] }, "mark": "0x85/0xff" } ]
}
END
)

# documented SECTION: the commands of that section of docs/routing.md, with this lab's next hops.
documented() {
	awk -v section="## $1" '/^## / { inside = $0 == section } inside && /^    / { print substr($0, 5) }' \
		"$REPO/docs/routing.md" | sed 's/203\.0\.113\.1/100.64.2.2/; s/2001:db8:1::1/fd64:2::2/'
}

# provider 4|6 DEVICE PREFIX: it drops what comes from addresses that are not the uplink's.
provider() {
	local protocol
	for protocol in tcp udp; do
		in_ns server "$(ipt "$1")" -w -t raw -A PREROUTING -i "$2" -p $protocol ! -s "$3" -j DROP
	done
}

# provider_dropped 4|6: packets of either provider.
provider_dropped() {
	in_ns server "$(ipt "$1")" -w -t raw -nvxL PREROUTING | awk '$3 == "DROP" { n += $1 } END { print n + 0 }'
}

for family in 4 6; do
	for wan in wan0 wan1; do
		in_ns gateway "$(ipt $family)" -w -t nat -A POSTROUTING -o $wan -j MASQUERADE
		witness $family mangle POSTROUTING syn-$wan -o $wan -p tcp --syn
		witness $family mangle POSTROUTING udp-$wan -o $wan -p udp --dport 6881:6882
	done
	witness $family mangle POSTROUTING moved -o wan1 -p tcp --dport 441
done
provider 4 up0 100.64.1.0/24
provider 4 up1 100.64.2.0/24
provider 6 up0 fd64:1::/64
provider 6 up1 fd64:2::/64
serve_dns us05web.zoom.us=$OTHER4 us05web.zoom.us=$OTHER6 host.lab.test=$SERVER4
for port in 441 443 445; do serve_tls_echo $port us04web.zoom.us; done
serve_tls_echo 8443 www.example.org
for port in 6881 6882; do
	spawn server silent-$port socat -u UDP6-RECV:$port,ipv6only=0 OPEN:/dev/null
	serving server udp $port silent
done
start_daemon "$policy"

# --- a rule on the mark alone ------------------------------------------------------------------

# dies 4|6 ADDRESS: the first connection to Zoom.
dies() {
	in_ns gateway ip -"$1" rule add fwmark 0x85/0xff table 101 priority 1001
	open_tls "alone$1" us04web.zoom.us "$2" 441
	say_on "alone$1" hello
	refuse "IPv$1: with a rule on the mark alone the first connection dies" wait_for 3 hears "alone$1" hello
	at_least "IPv$1: packets of it that left by the other WAN" "$(hits "$1" mangle moved)" 1
	in_ns gateway ip -"$1" rule del fwmark 0x85/0xff table 101
	close_line "alone$1"
}
in_ns gateway ip route add default via 100.64.2.2 table 101
in_ns gateway ip -6 route add default via fd64:2::2 table 101
dies 4 $SERVER4
dies 6 $SERVER6
in_ns gateway ip route flush table 101
in_ns gateway ip -6 route flush table 101

# --- the first packet's choice -----------------------------------------------------------------

# leaves_by WAN TEXT NAME SERVER-NAME ADDRESS PORT: a new connection works, and by that WAN it goes.
leaves_by() {
	local wan=$1 text=$2 name=$3 family=4 word before
	case $5 in *:*) family=6 ;; esac
	before=$(hits $family mangle "syn-$wan")
	open_tls "$name" "$4" "$5" "$6"
	for word in one two three four five six; do talk "$name" "$word" || fail "$text: the connection does not work"; done
	equal "$text: connections begun by $wan" $(($(hits $family mangle "syn-$wan") - before)) 1
}

# stays TEXT 4|6 ADDRESS PORT: a UDP flow without a reply, every packet of which is NEW to conntrack, is
# known after its first packet and stays on wan0.
stays() {
	local text=$1 family=$2 by_wan0 by_wan1
	by_wan0=$(hits "$family" mangle udp-wan0)
	by_wan1=$(hits "$family" mangle udp-wan1)
	# shellcheck disable=SC2016 # for the inner shell
	in_ns client bash -c 'exec 3>"/dev/udp/$1/$2"
		for i in 1 2 3 4 5; do
			printf "d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe" >&3
			sleep 0.5
		done' - "$3" "$4"
	equal "$text: packets by wan0" $(($(hits "$family" mangle udp-wan0) - by_wan0)) 5
	equal "$text: packets by wan1" $(($(hits "$family" mangle udp-wan1) - by_wan1)) 0
}

spawn server tcpdump-up1 tcpdump -Z root --immediate-mode -ni up1 -U -w "$LAB_DIR/up1.pcap" tcp
on_up1=$SPAWNED
wait_for 10 test -s "$LAB_DIR/up1.pcap" || fail "tcpdump does not start"

documented "With iptables" >"$LAB_DIR/iptables.sh"
in_ns gateway bash -e "$LAB_DIR/iptables.sh" || fail "a line of docs/routing.md is refused"
dropped=$(($(provider_dropped 4) + $(provider_dropped 6)))
leaves_by wan0 "a first, unknown flow to Zoom" first us04web.zoom.us $SERVER4 443
leaves_by wan1 "the next flow to the same service" second us04web.zoom.us $SERVER4 443
leaves_by wan1 "and another" third us04web.zoom.us $SERVER4 443
leaves_by wan0 "a flow of another kind to the same host" other www.example.org $SERVER4 8443
leaves_by wan0 "IPv6: a first flow to Zoom" first6 us04web.zoom.us $SERVER6 443
leaves_by wan1 "IPv6: the next flow" second6 us04web.zoom.us $SERVER6 443
leaves_by wan0 "IPv6: a flow of another kind" other6 www.example.org $SERVER6 8443
stays "UDP without a reply" 4 $SERVER4 6881
stays "IPv6: UDP without a reply" 6 $SERVER6 6881
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

# --- the same by nft ---------------------------------------------------------------------------

in_ns gateway iptables -w -t mangle -F PREROUTING
in_ns gateway ip6tables -w -t mangle -F PREROUTING
documented "With nft" >"$LAB_DIR/nft.sh"
in_ns gateway bash -e "$LAB_DIR/nft.sh" || fail "a line of docs/routing.md is refused"
for family in 4 6; do
	address=SERVER$family
	leaves_by wan0 "nft, IPv$family: a first flow to Zoom" "nft-first$family" us04web.zoom.us "${!address}" 445
	leaves_by wan1 "nft, IPv$family: the next flow" "nft-second$family" us04web.zoom.us "${!address}" 445
	stays "nft, IPv$family: UDP without a reply" $family "${!address}" 6882
done
equal "packets that a provider refused since" $(($(provider_dropped 4) + $(provider_dropped 6) - dropped)) 0
