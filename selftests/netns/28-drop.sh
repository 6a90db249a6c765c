#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# A dropped class gets through in neither direction, in every mode, while both ends go on sending: read
# from iptables' counters before and behind us, on the gateway and the client. A flow beside it goes on.
# The flows are older than the daemon: a new one of such a class is dropped from its first packet on, and
# its server would have nobody to send to.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start drop
need socat iptables
# policy MODE
policy() {
	write_policy "$1" <<END
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "$1" } ],
  "vlan": "ignore",
  "classes": [ { "name": "ticks", "match": { "server_ports": [5300], "transports": ["udp"] }, "drop": true } ]
}
END
}

# Each service says something 20 times a second for as long as it is asked, whether it is heard or not.
serve_ticks() { # 4|6 ADDRESS PORT
	spawn server "ticks-$3-$1" socat "UDP$1-LISTEN:$3,bind=$(bracket "$2"),fork,reuseaddr" \
		SYSTEM:'while echo tick; do sleep 0.05; done'
	serving server udp "$3" ticks
}
# ask 4|6 ADDRESS PORT: asks as often; the client's, until it is told to stop.
ask() {
	spawn client "ask-$3-$1" socat "SYSTEM:while echo ask; do sleep 0.05; done" "UDP$1:$(bracket "$2"):$3"
}
stop_asking() {
	local pid
	for pid in $(ip netns pids "$(ns_of client)") $(in_ns server ss -Hulpn 'sport = :5300 or sport = :5301' |
		grep -o 'pid=[0-9]*' | cut -d= -f2 | sort -u); do kill "$pid" 2>/dev/null || true; done
}

for family in 4 6; do
	for port in 5300 5301; do
		# Behind our ingress, and before our egress.
		witness $family mangle PREROUTING in-$port -i lan0 -p udp --dport $port
		witness $family mangle FORWARD out-$port -o lan0 -p udp --sport $port
		in_ns client "$(ipt $family)" -w -t mangle -A PREROUTING -p udp --sport $port -m comment --comment client-$port
	done
done
# passed ROLE 4|6 NAME: packets that the rule counts within a second.
passed() {
	count_of "$@" >"$LAB_DIR/before"
	sleep 1
	echo $(($(count_of "$@") - $(<"$LAB_DIR/before")))
}
count_of() {
	in_ns "$1" "$(ipt "$2")" -w -t mangle -nvxL | awk -v name="/* $3 */" 'index($0, name) { print $1 }'
}
none_passes() { [ "$(passed "$@")" -eq 0 ]; }
some_pass() { [ "$(passed "$@")" -gt 0 ]; }
# heard 4|6 ADDRESS PORT: asks, once more if nothing comes: a service that is about to fork refuses a packet,
# and who is refused ends.
heard() {
	ask "$@"
	some_pass client "$1" "client-$3"
}
silent() { [ -z "$(ip netns pids "$(ns_of client)")$(in_ns server ss -Hulpn 'sport = :5300 or sport = :5301')" ]; }
# A service that forks meanwhile is missed by the first try.
stopped() {
	stop_asking
	silent
}

for mode in native generic tc; do
	for family in 4 6; do
		server=SERVER$family
		for port in 5300 5301; do
			serve_ticks $family "${!server}" $port
			wait_for 10 heard $family "${!server}" $port || fail "no tick from port $port, IPv$family"
		done
	done
	start_daemon "$(policy $mode)"
	for family in 4 6; do
		server=SERVER$family
		expect_soon "$mode, IPv$family: what the client sends is dropped" 15 none_passes gateway $family in-5300
		at_least "$mode, IPv$family: the server still sends" "$(passed gateway $family out-5300)" 5
		equal "$mode, IPv$family: none of it comes to the client" "$(passed client $family client-5300)" 0
		at_least "$mode, IPv$family: the flow beside it, from the client" "$(passed gateway $family in-5301)" 5
		at_least "$mode, IPv$family: the flow beside it, at the client" "$(passed client $family client-5301)" 5
		# As of the first packet, so that the server hears nothing of a flow that is new.
		before=$(count_of gateway $family in-5300)
		ask $family "${!server}" 5300
		sleep 1
		equal "$mode, IPv$family: none of a new flow comes to the server" \
			"$(count_of gateway $family in-5300)" "$before"
	done
	dropped=$(l7mark status --json | jq .counters.dropped)
	at_least "$mode: packets that status counts as dropped" "$dropped" 40
	stop_daemon
	for family in 4 6; do
		at_least "$mode, IPv$family: without us it goes on" "$(passed client $family client-5300)" 5
	done
	wait_for 10 stopped || fail "the services go on"
done
