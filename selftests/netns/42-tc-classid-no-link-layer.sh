#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# The pinned program as the qdisc's filter on an interface without a link-layer header: a flow's class of
# HTB by its five-tuple, as there is no mark. The interface is a tun, the way to the server a tunnel of
# socat's over UDP.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start classid-l3
need openssl socat tc
[ -c /dev/net/tun ] || skip "there is no /dev/net/tun"
policy=$(
	write_policy classid <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [ { "name": "zoom", "match": { "applications": ["Zoom"] }, "tc_class": "1:85" } ]
}
END
)

# tunnel ROLE LOCAL PEER: packets of tun0 travel by UDP.
tunnel() {
	spawn "$1" "tunnel-$1" socat "TUN,tun-type=tun,iff-no-pi,iff-up,tun-name=tun0" \
		"UDP4-DATAGRAM:$3:5555,bind=$2:5555"
	wait_for 5 in_ns "$1" ip link show tun0 || fail "no tunnel in the $1"
	in_ns "$1" ip link set tun0 mtu 1400
}
tunnel gateway 100.64.1.1 100.64.1.2
tunnel server 100.64.1.2 100.64.1.1
in_ns gateway ip route add $SERVER4/32 dev tun0
in_ns gateway ip -6 route add $SERVER6/128 dev tun0
in_ns server ip route replace 10.77.0.0/16 dev tun0
in_ns server ip -6 route replace fd77::/16 dev tun0
expect_soon "the tunnel works" 10 in_ns client ping -c 1 -W 1 $SERVER4

# A number that no priority names, so that the class is the program's.
in_ns gateway tc qdisc replace dev tun0 root handle 2: htb default 30
in_ns gateway tc class add dev tun0 parent 2: classid 2:30 htb rate 10gbit quantum 60000
in_ns gateway tc class add dev tun0 parent 2: classid 2:85 htb rate 10gbit quantum 60000
serve_tls_echo 443 us04web.zoom.us
start_daemon "$policy"
program=$(echo "/sys/fs/bpf/l7mark/$INSTANCE"/v*/programs/classid)
equal "status tells the path" "$(l7mark status --json | jq -r .classid_program)" "$program"
expect "and prints it" grep -F "bpf da pinned $program classid" <(l7mark status)
in_ns gateway tc filter add dev tun0 parent 2: bpf da pinned "$program" classid 2:

for family in 4 6; do
	server=$SERVER4
	[ $family = 4 ] || server=$SERVER6
	before=$(class_packets tun0 2:85)
	open_tls zoom$family us04web.zoom.us $server 443
	# in_class: what is said leaves by the class.
	in_class() { talk "zoom$family" "word $RANDOM" && [ "$(class_packets tun0 2:85)" -ge $((before + 5)) ]; }
	expect_soon "IPv$family: packets leave tun0 in 2:85" 20 in_class
done
at_least "those before the flow was known left in the default class" "$(class_packets tun0 2:30)" 2
stop_daemon
