#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Reload: a good file takes effect on flows under way and new ones; a bad file changes nothing and
# says why; by SIGHUP and by "l7mark reload".
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start reload
need ipset openssl socat
# policy MARK SET [APPLICATION]: always the same file, as an editor would change it.
policy() {
	write_policy reload <<END
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [
    { "name": "zoom", "match": { "applications": ["${3:-Zoom}"] },
      "mark": "$1/0xff", "ipset": { "name": "$2" } }
  ]
}
END
}
serve_tls_echo 443 us04web.zoom.us
witness 4 mangle PREROUTING old-mark -p tcp --dport 443 -m mark --mark 0x85/0xff
witness 4 mangle PREROUTING new-mark -p tcp --dport 443 -m mark --mark 0x86/0xff
witness 4 mangle PREROUTING newest-mark -p tcp --dport 443 -m mark --mark 0x87/0xff
start_daemon "$(policy 0x85 BEFORE)"

open_tls zoom us04web.zoom.us $SERVER4 443
talk zoom hello || fail "the connection does not work"
expect_soon "the flow has its entry" 10 entry BEFORE "$SERVER4,tcp:443,$CLIENT4"

# turns_to COUNTER: packets of the flow are counted there.
turns_to() {
	local before
	before=$(hits 4 mangle "$1")
	talk zoom "word $RANDOM$RANDOM"
	[ "$(hits 4 mangle "$1")" -gt "$before" ]
}
expect_soon "the flow has the first mark" 10 turns_to old-mark

policy 0x86 AFTER >/dev/null
kill -HUP "$DAEMON_PID"
expect_soon "after SIGHUP the same flow has the new mark" 15 turns_to new-mark
before=$(hits 4 mangle old-mark)
for word in one two three; do talk zoom $word || fail "the connection broke"; done
equal "packets with the old mark after that" $(($(hits 4 mangle old-mark) - before)) 0
expect_soon "the same flow is in the new set" 15 entry AFTER "$SERVER4,tcp:443,$CLIENT4"

policy 0x1999 NEVER Zoom >/dev/null
lines=$(wc -l <"$LAB_DIR/l7markd.log")
kill -HUP "$DAEMON_PID"
told() { tail -n "+$((lines + 1))" "$LAB_DIR/l7markd.log" | grep '0x1999' >/dev/null; }
expect_soon "SIGHUP with a bad file is refused in the log, with the reason" 10 told
expect "the daemon lives" kill -0 "$DAEMON_PID"
expect "the flow keeps its mark" turns_to new-mark
refuse "nothing of the bad file was done" in_ns gateway ipset list NEVER -name

if l7mark reload >"$LAB_DIR/reload.log" 2>&1; then
	miss "l7mark reload with a bad file fails"
else
	pass "l7mark reload with a bad file fails"
fi
expect "and says why" grep -q '0x1999' "$LAB_DIR/reload.log"
expect "the flow keeps its mark" turns_to new-mark

workers() { l7mark status --json | jq -c '[.workers[].pid]'; }
before=$(workers)
file=$(policy 0x87 AFTER)
expect "l7mark reload with a good file succeeds" l7mark reload
expect_soon "the same flow has the newest mark" 15 turns_to newest-mark
equal "the workers are the same" "$(workers)" "$before"
sed -i 's/"version": 1,/"version": 1, "inside": [ "10.0.0.0\/8" ],/' "$file"
expect "l7mark reload with other prefixes succeeds" l7mark reload
refuse "and starts workers that know them" test "$(workers)" = "$before"
expect "the flow keeps its mark" turns_to newest-mark
stop_daemon
expect_nothing_left
