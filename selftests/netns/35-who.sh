#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Who a flow belongs to, and when: classes by MAC, client address, interface and schedule, exceptions of a
# class and of the whole policy. Each is read from iptables' counters of the mark.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start who
need date socat
# One host with several addresses and two network cards.
link_ns client eth1 10.77.2.2/24 fd77:2::2/64 gateway lan1 10.77.2.1/24 fd77:2::1/64
in_ns client ip route add default via 10.77.2.1 dev eth1 table 2
in_ns client ip rule add from 10.77.2.2 table 2
mac=$(in_ns client ip -j link show dev eth0 | jq -r '.[0].address')
guest=10.77.1.3 admin=10.77.1.4 boss=10.77.1.5
for address in $guest $admin $boss; do in_ns client ip addr add "$address/24" dev eth0; done
for port in 7001 7002 7003 7004 7005; do
	spawn server echo-$port socat TCP6-LISTEN:$port,ipv6only=0,fork,reuseaddr EXEC:cat
	serving server tcp $port echo
done
hour=$(date -u +%-H)
in_an_hour=$(printf '%02d:00' $(((hour + 2) % 24)))
an_hour_ago=$(printf '%02d:00' $(((hour + 23) % 24)))
policy=$(
	write_policy who <<END
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" }, { "name": "lan1", "mode": "tc" } ],
  "exemptions": [ { "clients": ["$boss"] } ],
  "classes": [
    { "name": "card", "match": { "server_ports": [7001], "client_macs": ["$mac"] }, "mark": "0x11/0xff" },
    { "name": "guests", "match": { "server_ports": [7002], "clients": ["10.77.1.0/24", "fd77:1::/64"] },
      "except": { "clients": ["$admin"] }, "mark": "0x12/0xff" },
    { "name": "second-segment", "match": { "server_ports": [7003], "interfaces": ["lan1"] }, "mark": "0x13/0xff" },
    { "name": "now", "match": { "server_ports": [7004] }, "mark": "0x14/0xff",
      "schedule": { "from": "$an_hour_ago", "to": "$in_an_hour", "timezone": "UTC" } },
    { "name": "later", "match": { "server_ports": [7005] }, "mark": "0x15/0xff",
      "schedule": { "from": "$in_an_hour", "to": "$an_hour_ago", "timezone": "UTC" } }
  ]
}
END
)
start_daemon "$policy"

# try TEXT ADDRESS-OF-THE-CLIENT PORT MARK: packets of such a flow have that mark once they are known.
number=0
try() {
	local server=$SERVER4 family=4
	number=$((number + 1))
	case $2 in *:*) server=$SERVER6 family=6 ;; esac
	witness $family mangle PREROUTING "try-$number" -p tcp --dport "$3" -s "$2" -m mark --mark "$4/0xff"
	witness $family mangle PREROUTING "other-$number" -p tcp --dport "$3" -s "$2" -m mark ! --mark "$4/0xff"
	open_line "line-$number" socat - "TCP:$(bracket $server):$3,bind=$(bracket "$2")"
	for word in {1..12}; do talk "line-$number" "word $word" || fail "$1: the connection does not work"; done
	expect_soon "$1: mark $4" 15 only "$number" $family
	close_line "line-$number"
}
# Packets that come now have the mark and no other.
only() {
	local have other
	have=$(hits "$2" mangle "try-$1") other=$(hits "$2" mangle "other-$1")
	talk "line-$1" "word $RANDOM$RANDOM" && talk "line-$1" "word $RANDOM$RANDOM"
	[ $(($(hits "$2" mangle "try-$1") - have)) -ge 2 ] && [ "$(hits "$2" mangle "other-$1")" -eq "$other" ]
}
try "a card by its MAC" $CLIENT4 7001 0x11
try "the same by IPv6" $CLIENT6 7001 0x11
try "another card" 10.77.2.2 7001 0x0
try "a client by its network" $guest 7002 0x12
try "the same by IPv6" $CLIENT6 7002 0x12
try "one that the class excepts" $admin 7002 0x0
try "one that the policy exempts" $boss 7002 0x0
try "one of another network" 10.77.2.2 7002 0x0
try "an interface" 10.77.2.2 7003 0x13
try "another interface" $CLIENT4 7003 0x0
try "a schedule that is now" $CLIENT4 7004 0x14
try "a schedule that is not" $CLIENT4 7005 0x0
