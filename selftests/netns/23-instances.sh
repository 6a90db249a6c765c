#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Two instances on one machine know nothing of each other: own maps, own marks, own end.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start pair
need ipset openssl socat
# policy NAME INTERFACE MARK SET
policy() {
	write_policy "$1" <<END
{
  "version": 1,
  "interfaces": [ { "name": "$2", "mode": "tc" } ],
  "classes": [
    { "name": "zoom", "match": { "applications": ["Zoom"] }, "mark": "$3", "ipset": { "name": "$4" } }
  ]
}
END
}
serve_tls_echo 443 us04web.zoom.us
start_daemon "$(policy first lan0 0x1/0xf FIRST)"
first=$DAEMON_PID
first_instance=$INSTANCE
INSTANCE=$first_instance-b
start_daemon "$(policy second wan0 0x20/0xf0 SECOND)"
second=$DAEMON_PID
second_instance=$INSTANCE

in_ns gateway tc qdisc add dev wan0 root handle 1: htb default 1
in_ns gateway tc class add dev wan0 parent 1: classid 1:1 htb rate 10gbit quantum 60000
both=$(mark_class wan0 0x21 0xff)
only_first=$(mark_class wan0 0x01 0xff)
open_tls zoom us04web.zoom.us $SERVER4 443
talk zoom hello || fail "the connection does not work"
expect_soon "the first instance has the entry" 10 entry FIRST "$SERVER4,tcp:443,$CLIENT4"
expect_soon "the second has it too" 10 entry SECOND "$SERVER4,tcp:443,$CLIENT4"
before=$(class_packets wan0 "$both")
for word in one two three four five; do talk zoom $word || fail "the connection broke"; done
at_least "packets that leave with both marks" $(($(class_packets wan0 "$both") - before)) 5

kill "$second"
wait_for 20 process_gone "$second" || fail "the second instance does not end"
refuse "the second's pins are gone" test -e "/sys/fs/bpf/l7mark/$second_instance"
expect "the first's pins are there" test -e "/sys/fs/bpf/l7mark/$first_instance"
INSTANCE=$first_instance
DAEMON_PID=$first
FLOWS_MAP=$(flows_map)
expect "the first answers" l7mark status
before=$(class_packets wan0 "$only_first")
for word in 1 2 3 4 5; do talk zoom "again $word" || fail "the connection broke"; done
at_least "packets that leave with the first's mark alone" $(($(class_packets wan0 "$only_first") - before)) 5
stop_daemon
expect_nothing_left
