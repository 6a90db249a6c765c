#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Sets that the user made are adopted and never flushed; one of another kind is refused with the
# difference named; a set that is full or destroyed while we run stops nothing.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start sets
need ipset openssl socat
policy=$(
	write_policy sets <<'END'
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
for port in 443 444 445 446; do serve_tls_echo $port us04web.zoom.us; done
# zoom_to PORT: a Zoom flow to that port.
zoom_to() {
	open_tls "to-$1" us04web.zoom.us $SERVER4 "$1"
	for word in one two three; do talk "to-$1" $word || fail "the connection to port $1 broke"; done
}
sets() { in_ns gateway ipset "$@"; }

# Of another kind.
sets create NETIFY_ZOOM hash:ip
if timeout 20 "$L7MARKD" --policy "$policy" --netns "$(ns_of gateway)" --instance "$INSTANCE" >"$LAB_DIR/refused.log" 2>&1; then
	miss "a set of another type is refused"
else
	pass "a set of another type is refused"
fi
expect "the message names the set" grep -q 'NETIFY_ZOOM' "$LAB_DIR/refused.log"
expect "the message names what it is" grep -q 'hash:ip\b' "$LAB_DIR/refused.log"
expect "the message names what it should be" grep -q 'hash:ip,port,ip' "$LAB_DIR/refused.log"
expect_nothing_left
sets destroy NETIFY_ZOOM

# The user's own, with an entry of the user's.
sets create NETIFY_ZOOM hash:ip,port,ip timeout 600
sets add NETIFY_ZOOM 192.0.2.1,tcp:1,192.0.2.2
start_daemon "$policy"
zoom_to 443
expect_soon "the user's set is used" 10 entry NETIFY_ZOOM "$SERVER4,tcp:443,$CLIENT4"
expect "the user's entry is still there" entry NETIFY_ZOOM 192.0.2.1,tcp:1,192.0.2.2

sets destroy NETIFY_ZOOM
zoom_to 444
expect_soon "a set destroyed while we run comes back" 20 entry NETIFY_ZOOM "$SERVER4,tcp:444,$CLIENT4"
stop_daemon
in_ns gateway ipset destroy NETIFY_ZOOM 2>/dev/null || true

# Full: one entry is all that fits. The flow is marked all the same, and room is used when there is some.
sets create NETIFY_ZOOM hash:ip,port,ip timeout 600 maxelem 1 hashsize 64
sets add NETIFY_ZOOM 192.0.2.1,tcp:1,192.0.2.2
witness 4 mangle PREROUTING by-tc -p tcp --dport 445 -m mark --mark 0x85/0xff
start_daemon "$policy"
zoom_to 445
marked() {
	talk to-445 "more $RANDOM"
	hits_at_least 4 mangle by-tc 3
}
expect_soon "with a full set the flow is still marked" 20 marked
expect "the daemon lives" kill -0 "$DAEMON_PID"
expect "the user's entry is still there" entry NETIFY_ZOOM 192.0.2.1,tcp:1,192.0.2.2
sets del NETIFY_ZOOM 192.0.2.1,tcp:1,192.0.2.2
zoom_to 446
expect_soon "an entry goes in when there is room" 20 entry NETIFY_ZOOM "$SERVER4,tcp:446,$CLIENT4"
stop_daemon
expect "the user's set outlives the daemon" in_ns gateway ipset list NETIFY_ZOOM -name
