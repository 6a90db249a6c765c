#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Whatever process of ours is killed, traffic flows and the kernel goes on marking what it knows; a
# dead worker is replaced, and a daemon that died is started anew over what it left.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start crash
need ipset openssl socat pgrep
policy=$(
	write_policy crash <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [
    { "name": "zoom", "match": { "applications": ["Zoom"] },
      "mark": "0x85/0xff", "ipset": { "name": "NETIFY_ZOOM", "timeout": 600 } }
  ]
}
END
)
serve_tls_echo 443 us04web.zoom.us
serve_tls_echo 8443 www.example.org
witness 4 mangle PREROUTING by-tc -p tcp --dport 443 -m mark --mark 0x85/0xff
witness 4 mangle PREROUTING other-marked -p tcp --dport 8443 -m mark --mark 0x85/0xff
start_daemon "$policy"
witness 4 mangle FORWARD by-set -p tcp --dport 443 -m set --match-set NETIFY_ZOOM dst,dst,src

# grows TEXT COUNTER CONNECTION: five words over the connection, five packets on the counter.
grows() {
	local before word
	before=$(hits 4 mangle "$2")
	for word in one two three four five; do
		talk "$3" "$word $RANDOM" || fail "$1: traffic no longer flows"
	done
	at_least "$1" $(($(hits 4 mangle "$2") - before)) 5
}

marked_more() { talk "$1" "more $RANDOM" && hits_at_least 4 mangle by-tc $((before + 3)); }

# classified NAME: a new Zoom connection of that name is marked.
classified() {
	before=$(hits 4 mangle by-tc)
	open_tls "$1" us04web.zoom.us $SERVER4 443
	talk "$1" hello || fail "a new connection does not work"
	wait_for 15 marked_more "$1"
}

open_tls old us04web.zoom.us $SERVER4 443
talk old hello || fail "the connection does not work"
expect_soon "the flow has its entry" 10 entry NETIFY_ZOOM "$SERVER4,tcp:443,$CLIENT4"

worker=$(workers | head -n 1)
[ -n "$worker" ] || fail "the daemon has no worker process"
kill -9 "$worker"
replaced() { workers | grep -vx "$worker" >/dev/null; }
expect_soon "a killed worker is replaced" 15 replaced
expect "the main process lives" kill -0 "$DAEMON_PID"
grows "marks of the old flow after a worker's death" by-tc old
expect "a new flow is classified by the new worker" classified after-worker

crash_daemon
grows "marks of the old flow with no process of ours" by-tc old
grows "set matches of the old flow with no process of ours" by-set old
open_tls stranger www.example.org $OTHER4 8443
for word in one two three; do talk stranger $word || fail "with no process of ours a new flow does not pass"; done
pass "new flows pass with no process of ours"

start_daemon "$policy"
grows "marks of the old flow with a new daemon" by-tc old
expect "a new flow is classified by the new daemon" classified after-crash
equal "packets of the stranger that were marked" "$(hits 4 mangle other-marked)" 0
stop_daemon
expect_nothing_left
talk old "last words" || fail "traffic does not flow after the end"
