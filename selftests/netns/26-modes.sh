#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Native XDP, generic XDP, TC, and the choice of l7mark's own: marks, sets and drops are the same.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start modes
need ipset openssl socat ssh dropbear
serve_tls_echo 443 us04web.zoom.us
serve_ssh 22
# policy MODE
policy() {
	write_policy "$1" <<END
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "$1" } ],
  "vlan": "ignore",
  "classes": [
    { "name": "zoom", "match": { "applications": ["Zoom"] }, "mark": "0x85/0xff", "ipset": { "name": "ZOOM_$1" } },
    { "name": "shells", "match": { "applications": ["SSH"] }, "drop": true, "ipset": { "name": "SHELLS_$1" } }
  ]
}
END
}
for family in 4 6; do witness $family mangle PREROUTING by-tc -p tcp --dport 443 -m mark --mark 0x85/0xff; done
marked_back=$(mark_class lan0 0x85 0xff)
attached() { in_ns gateway ip link show dev lan0; }

# try MODE 4|6 SERVER CLIENT
try() {
	local mode=$1 family=$2 suffix=${2#4} server=$3 client=$4 before back word
	open_tls "$mode$family" us04web.zoom.us "$server" 443
	talk "$mode$family" hello || fail "$mode, IPv$family: the connection does not work"
	expect_soon "$mode, IPv$family: the flow has its entry" 10 entry "ZOOM_$mode$suffix" "$server,tcp:443,$client"
	before=$(hits "$family" mangle by-tc)
	back=$(class_packets lan0 "$marked_back")
	for word in one two three four five; do talk "$mode$family" $word || fail "$mode, IPv$family: the connection broke"; done
	at_least "$mode, IPv$family: marked packets" $(($(hits "$family" mangle by-tc) - before)) 5
	at_least "$mode, IPv$family: marked packets on the way back" $(($(class_packets lan0 "$marked_back") - back)) 5
	close_line "$mode$family"
}

expect "unblocked, ssh gets as far as its login" talk_ssh $SERVER4 22
for mode in native generic tc auto; do
	start_daemon "$(policy $mode)"
	case $mode in
	native) expect "native: ip link shows XDP in the driver" grep -qw 'xdp' <<<"$(attached)" ;;
	generic) expect "generic: ip link shows generic XDP" grep -qw 'xdpgeneric' <<<"$(attached)" ;;
	*) refuse "$mode: no XDP on a veth" grep -qE 'xdp(generic)?\b' <<<"$(attached)" ;;
	esac
	try $mode 4 $SERVER4 $CLIENT4
	try $mode 6 $SERVER6 $CLIENT6
	refuse "$mode: a dropped class does not get through" talk_ssh $SERVER4 22
	expect_soon "$mode: and it is in its set" 10 entry "SHELLS_$mode" "$SERVER4,tcp:22,$CLIENT4"
	stop_daemon
	expect_nothing_left
done
expect "unblocked again, ssh gets as far as its login" talk_ssh $SERVER4 22
