#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# What a user reads: status, flows and events of a daemon at work, and its socket under hands that
# do not ask as l7mark does.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start control
need ipset openssl socat jq
policy=$(
	write_policy control <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [
    { "name": "zoom", "match": { "applications": ["Zoom"] }, "mark": "0x85/0xff" },
    { "name": "seen", "match": { "categories": ["Web"] } }
  ]
}
END
)
serve_tls_echo 443 us04web.zoom.us
socket=/run/l7mark/$INSTANCE.sock
start_daemon "$policy"
equal "only root may use the socket" "$(stat -c '%a %U' "$socket")" "600 root"

# ask LINES...: raw requests, and the end of the input behind them.
ask() { printf '%s\n' "$@" | timeout 20 socat -t 10 - "UNIX-CONNECT:$socket"; }

l7mark events --json >"$LAB_DIR/events.json" 2>"$LAB_DIR/events.err" &
events=$!
l7mark events >"$LAB_DIR/events.txt" 2>/dev/null &
events_text=$!
# A reader that never reads holds up nobody.
spawn client mute bash -c "{ echo '{\"command\":\"events\"}'; sleep 100; } | socat -u - UNIX-CONNECT:'$socket'"
wait_for 10 test -s "$LAB_DIR/events.txt" || fail "l7mark events does not begin"

open_tls zoom us04web.zoom.us $SERVER4 443
talk zoom hello || fail "the connection does not work"
open_tls zoom6 us04web.zoom.us $SERVER6 443
talk zoom6 hello || fail "the connection does not work"

events_hold() { jq -s -e "$1" "$LAB_DIR/events.json" >/dev/null; }
zoom_flows() { events_hold '[.[] | select(.type == "flow" and .application == "Zoom")] | length == 2'; }
expect_soon "events tells of both flows" 10 zoom_flows
expect "an event has time, class and name" events_hold '
	any(.[]; .type == "flow" and .class == "zoom" and .hostname == "us04web.zoom.us" and .time > 1e9)'
expect "events for people is a table" grep -qE '^flow +tcp +10\.77\.1\.2:[0-9]+ .* TLS\.Zoom +zoom ' "$LAB_DIR/events.txt"
expect "with IPv6 addresses in brackets" grep -qF "[$SERVER6]:443" "$LAB_DIR/events.txt"

count() { "$@" | jq -s length; }
equal "flows --application" "$(count l7mark flows --json --application zoom)" 2
equal "flows --class" "$(count l7mark flows --json --class zoom)" 2
equal "flows --client" "$(count l7mark flows --json --class zoom --client $CLIENT4)" 1
equal "flows --client with a network" "$(count l7mark flows --json --class zoom --client fd77::/16)" 1
equal "flows --client with another" "$(count l7mark flows --json --client 192.0.2.0/24)" 0
equal "flows for people: header and flows" "$(l7mark flows --class zoom | awk '{ print $1 }' | sort | xargs)" "PROTO tcp tcp"

l7mark status >"$LAB_DIR/status.txt"
expect "status says that it is ready" grep -qE '^l7markd .*instance .*: ready$' "$LAB_DIR/status.txt"
expect "status names the mark bits" grep -qF 'mark bits 0xff' "$LAB_DIR/status.txt"
expect "status names interface and hook" grep -qE '^interface +lan0: tc' "$LAB_DIR/status.txt"
expect "status shows the share that was sampled" grep -qE '^packets .* seen, .* sampled \([0-9.]+%\)' "$LAB_DIR/status.txt"
expect "status shows a class with its action" grep -qE '^zoom +2 +2 +[0-9]+ .*mark 0x85/0xff' "$LAB_DIR/status.txt"
expect "status shows a class without one" grep -qE '^seen .* -$' "$LAB_DIR/status.txt"
status_holds() { l7mark status --json | jq -e "$1" >/dev/null; }
expect "status --json agrees" status_holds '.ready and .packets_seen > .packets_sampled and .packets_sampled > 0'

equal "requests by hand are answered in order" \
	"$(ask '{"command":"flows"}' '{"command":"status"}' | jq -s -c '[(.[0:-1] | map(has("flow_id") or .ok) | all), .[-1].ready]')" "[true,true]"
equal "a request that is none gets an error" "$(ask 'hello' | jq -r .ok)" false
equal "so does an unknown command" "$(ask '{"command":"dance"}' | jq -r .error)" "unknown command dance"
equal "so does a request without end" "$(head -c 65600 /dev/zero | tr '\0' x | timeout 20 socat -t 10 - "UNIX-CONNECT:$socket" 2>/dev/null | jq -r .ok)" false
expect "the daemon lives" l7mark status

full_disk() { l7mark flows --json >/dev/full 2>"$LAB_DIR/full.log"; }
refuse "a full disk is a failure" full_disk
expect "and said to be one" grep -qF "No space left" "$LAB_DIR/full.log"
status=0
l7mark statsu 2>"$LAB_DIR/slip.log" || status=$?
equal "an unknown command's status" $status 2
expect "and the nearest name" grep -qF 'did you mean status?' "$LAB_DIR/slip.log"

# The daemon dies: whoever follows is told.
crash_daemon
wait_for 10 process_gone $events || fail "l7mark events outlives the daemon"
status=0
wait $events || status=$?
equal "events ends with the daemon: status" $status 1
expect "and says so" grep -qF 'l7markd has ended' "$LAB_DIR/events.err"
wait $events_text || true
refuse "status finds no daemon behind the socket that is left" l7mark status
start_daemon "$policy"
pass "the next daemon takes the socket over"
stop_daemon
expect_nothing_left
