#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# The second look: a client that says nothing for longer than the worker waits, before its request or in the
# middle of its talk, is known by a guess meanwhile, and blocked by what it says in the end. The flow is the
# same one all the time.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start pauses
need socat
policy() { # LOOK-AGAIN
	write_policy "pauses$1" <<END
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "first_packet": { "services": false, "hints": false },
  "sampling": { "idle_timeout": 2, "look_again": $1 },
  "classes": [
    { "name": "bad", "match": { "hostnames": ["*.bad.test"] }, "drop": true },
    { "name": "web", "match": { "applications": ["HTTP"], "confidence": ["port"] }, "mark": "0x20/0xf0" }
  ]
}
END
}
for port in 80 7777; do
	spawn server "echo-$port" socat "TCP4-LISTEN:$port,fork,reuseaddr" EXEC:cat
	serving server tcp $port echo
done

# talk PORT PAUSE FIRST...: a connection that sends FIRST at once, pauses, asks for the blocked name, and goes on.
talk() {
	local port=$1 pause=$2 first=${3-}
	detached ip netns exec "$(ns_of client)" timeout 60 bash -c "
		exec 3<>/dev/tcp/$SERVER4/$port
		[ -z '$first' ] || printf '%s' '$first' >&3
		sleep $pause
		printf 'GET / HTTP/1.1\r\nHost: www.bad.test\r\nUser-Agent: lab\r\n\r\n' >&3
		while sleep 0.2; do printf 'more\r\n' >&3; done" </dev/null >/dev/null 2>&1 &
	disown $!
}
# flow FILTER: a flow of which it is true is listed.
flow() { l7mark flows --json | jq -es "any(.[]; $1)"; }
id_of() { l7mark flows --json | jq -rs "[.[] | select(.dport == $1)][0].flow_id"; }
figure() { l7mark status --json | jq ".counters.$1 // 0"; }

start_daemon "$(policy 1024)"
talk 80 8
expect_soon "before its request it is known by its port" 6 \
	flow '.dport == 80 and .state == "guessed" and .class == "web" and .confidence == "port"'
before=$(id_of 80)
expect_soon "its request blocks it, though it came late" 15 flow '.dport == 80 and .class == "bad" and .state == "final"'
equal "it is the same flow" "$(id_of 80)" "$before"
some_dropped() { [ "$(figure dropped)" -gt 0 ]; }
expect_soon "its next packets are dropped" 5 some_dropped

talk 7777 8 "hello there"
expect_soon "in the middle of its talk nothing is known of it" 6 flow '.dport == 7777 and .state == "guessed"'
before=$(id_of 7777)
expect_soon "what it goes on to say blocks it" 15 flow '.dport == 7777 and .class == "bad"'
equal "it is the same flow" "$(id_of 7777)" "$before"
at_least "flows looked at again" "$(figure looked_again)" 2
stop_daemon

start_daemon "$(policy 0)"
talk 7777 6 "hello there"
expect_soon "without a second look nothing is known of it" 6 flow '.dport == 7777 and .state == "guessed"'
sleep 6
refuse "nor is it blocked later" flow '.class == "bad"'
equal "flows looked at again" "$(figure looked_again)" 0
stop_daemon
