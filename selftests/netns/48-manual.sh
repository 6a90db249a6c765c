#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# A verdict written by hand, as docs/troubleshooting.md shows it: it marks a flow under way, is listed as
# manual, outlives the flow's own answer, sweeps, reloads and a crash, and ends by being quiet.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start manual
need socat
# policy [FILMS]: what the class of films is called, if it is there; CLASSES stand before it, TIMEOUT is TCP's.
policy() {
	local films=
	[ -z "${1-films}" ] || films='{ "name": "'${1-films}'", "match": { "hostnames": ["films.test"] }, "mark": "0x20/0xf0" },'
	write_policy manual <<END
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "sampling": { "idle_timeout": 2 },
  "timeouts": { "tcp": ${TIMEOUT:-600} },
  "classes": [ ${CLASSES:-}
    $films
    { "name": "rest", "match": { "server_ports": [443], "states": ["guessed", "final"] }, "mark": "0x30/0xf0" }
  ]
}
END
}
before_films='{ "name": "meetings", "match": { "applications": ["Zoom"] }, "mark": "0x10/0xf0" },'
spawn server echo socat TCP4-LISTEN:443,fork,reuseaddr EXEC:cat
serving server tcp 443 echo
for mark in 0x10 0x20 0x30; do
	for port in 40000 40001; do
		witness 4 mangle PREROUTING $mark-$port -i lan0 -p tcp --sport $port -m mark --mark $mark/0xf0
	done
done

# connect PORT: a connection from that port, of no known application.
connect() {
	open_line "line-$1" socat -t 1 - "TCP4:$SERVER4:443,sourceport=$1,reuseaddr"
	talk "line-$1" "zgr $1 qlx" || fail "the connection does not work"
}
# marked PORT MARK: the next packets have it.
marked() {
	local before
	before=$(hits 4 mangle "$2-$1")
	talk "line-$1" "zgr $RANDOM$RANDOM"
	[ "$(hits 4 mangle "$2-$1")" -gt "$before" ]
}
# by_hand PORT: the document's own lines.
by_hand() {
	local lines port=$1
	lines=$(sed -n '/^## A verdict by hand/,/^- /s/^    //p' "$REPO/docs/troubleshooting.md" |
		sed -n "s,/l7mark/default/,/l7mark/$INSTANCE/,;/^action=/,/ 0 0 0 0\$/p")
	eval "$lines"
}
# recorded PORT FILTER: the record of the flow from that port fulfils it.
recorded() {
	l7mark flows --json | jq -es --argjson port "$1" \
		'[.[] | select(.sport == $port)] | length == 1 and (.[0] | '"$2"')' >/dev/null
}
manual='.source == "manual" and .confidence == null and .class == "films" and .state == "final" and
	(has("flow_id") or has("first_seen") | not)'
# gone PORT: there is no record of it as manual.
gone() { l7mark flows --json | jq -es --argjson port "$1" 'all(.[]; .sport != $port or .source != "manual")' >/dev/null; }
start_daemon "$(policy)" --keep

# --- a flow that has its own answer --------------------------------------------------------------
spawn gateway events "$L7MARK" events --instance "$INSTANCE" --json
connect 40000
expect_soon "a flow has the class of its own answer" 15 marked 40000 0x30
expect "bpftool writes a verdict for it" by_hand 40000
expect "its next packets have the mark of that" marked 40000 0x20
expect "it is listed as manual" recorded 40000 "$manual"
expect "with the counters of the verdict" recorded 40000 '.packets > 0 and .bytes > 0'
equal "and counted by status" "$(l7mark status --json | jq -c '[.flows.manual, (.policy.classes[] | select(.name == "films").live_flows)]')" "[1,1]"
own_ended() { jq -es 'any(.[]; .type == "end" and .reason == "manual" and .class == "rest")' "$LAB_DIR/events.log"; }
expect_soon "its own record has ended" 10 own_ended

# --- a flow that has none yet ----------------------------------------------------------------------
connect 40001
expect "bpftool writes a verdict for a flow without an answer" by_hand 40001
expect "its next packets have the mark" marked 40001 0x20
sleep 12 # sweeps, and the quiet flow's own answer
for port in 40000 40001; do
	expect "port $port: it is manual after sweeps" recorded $port "$manual"
	expect "port $port: it marks after sweeps" marked $port 0x20
done

# --- reloads -----------------------------------------------------------------------------------------
action() { l7mark status --json | jq '.policy.classes[] | select(.name == "films").action'; }
before=$(action)
CLASSES=$before_films policy >/dev/null
kill -HUP "$DAEMON_PID"
reloaded() { l7mark status --json | jq -e '.policy.classes[0].name == "meetings"'; }
expect_soon "SIGHUP loads a policy with a class before it" 10 reloaded
refuse "the class has another number" test "$(action)" = "$before"
expect "it has the mark of its class" marked 40000 0x20
expect "and is manual" recorded 40000 "$manual"

# --- restarts ------------------------------------------------------------------------------------------
crash_daemon
expect "it marks while no daemon is there" marked 40000 0x20
start_daemon "$LAB_DIR/manual.jsonc" --keep
expect "the next daemon leaves the mark" marked 40000 0x20
expect "and lists it" recorded 40000 "$manual"
stop_daemon
policy >/dev/null
start_daemon "$LAB_DIR/manual.jsonc" --keep
expect_soon "a restart with its class in another place takes it out" 10 gone 40000
refuse "it no longer has the mark" marked 40000 0x20

# --- a class that goes ------------------------------------------------------------------------------
expect "bpftool writes it again" by_hand 40000
expect "it marks" marked 40000 0x20
policy '' >/dev/null
expect "a policy without the class is loaded" l7mark reload
expect "the verdict is gone" gone 40000
refuse "and its mark" marked 40000 0x20
policy >/dev/null
expect "the class is back" l7mark reload

# --- quiet ---------------------------------------------------------------------------------------------
expect "bpftool writes it again" by_hand 40000
expect "it marks" marked 40000 0x20
TIMEOUT=20 policy >/dev/null
expect "a policy with a short timeout is loaded" l7mark reload
expect "packets keep it" marked 40000 0x20
expect_soon "when it is quiet, it goes" 60 gone 40000
refuse "from the kernel, too" bpftool map lookup pinned "/sys/fs/bpf/l7mark/$INSTANCE/v2/flows4" \
	key 10 77 1 2 198 51 100 10 $((40000 >> 8)) $((40000 & 255)) 1 187 6 0 0 0
# No packet ever comes on this one: its time begins when it is first seen.
expect "bpftool writes one for a flow that is not there" by_hand 40002
expect "it is listed" recorded 40002 "$manual and .packets == 0"
expect_soon "and goes like the others" 60 gone 40002
stop_daemon
