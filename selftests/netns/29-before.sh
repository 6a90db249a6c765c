#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# A filter that comes before ours while the daemon runs ends the chain, and with it all marks: the log and
# `status` name it, once, until it is gone. By clsact, because no tool of Debian's puts programs at TCX.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start before
need tc socat openssl
policy=$(
	write_policy before <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [ { "name": "zoom", "match": { "applications": ["Zoom"] }, "mark": "0x85/0xff" } ]
}
END
)
foreign() { in_ns gateway tc filter "$1" dev lan0 "$2" protocol all pref 1 handle 9 bpf "${@:3}"; }
ahead() { l7mark status --json | jq -c '.interfaces[0].ahead'; }
ahead_is() { [ "$(ahead)" = "$1" ]; }
told() { grep -c "lan0: filter bpf (preference 1) is before l7mark at TC $1: packets that it does not hand on" \
	"$LAB_DIR/l7markd.log" || true; }

serve_tls_echo 443 us04web.zoom.us
witness 4 mangle PREROUTING marked -p tcp --dport 443 -m mark --mark 0x85/0xff
export L7MARK_WITHOUT=tcx
start_daemon "$policy"
equal "nobody is before ours" "$(ahead)" '[]'
refuse "the log names nobody" grep -F 'is before l7mark' "$LAB_DIR/l7markd.log"
open_tls zoom us04web.zoom.us $SERVER4 443
marked() { talk zoom "word $RANDOM" && hits_at_least 4 mangle marked 1; }
expect_soon "packets are marked" 15 marked

foreign add ingress bytecode '1,6 0 0 4294967295' classid 1:1
expect_soon "status tells who came before ours" 10 ahead_is '[{"hook":"ingress","name":"bpf","preference":1}]'
expect "status for people, too" grep -F 'before l7mark at ingress: filter bpf (preference 1)' <(l7mark status)
log_tells() { [ "$(told ingress)" -ge 1 ]; }
expect_soon "the log tells it" 10 log_tells
before=$(hits 4 mangle marked)
for word in one two three; do talk zoom "$word" || fail "the connection broke"; done
equal "packets marked behind it" $(($(hits 4 mangle marked) - before)) 0
sleep 2.5
equal "times that the log told it" "$(told ingress)" 1

foreign del ingress
expect_soon "status shows that it is gone" 10 ahead_is '[]'
first_again() { grep -F 'lan0: l7mark is first at TC again' "$LAB_DIR/l7markd.log"; }
expect_soon "the log tells it, too" 10 first_again
before=$(hits 4 mangle marked)
for word in one two three; do talk zoom "$word" || fail "the connection broke"; done
at_least "packets marked again" $(($(hits 4 mangle marked) - before)) 3

# One that is there before the start: ours is put before it.
stop_daemon
in_ns gateway tc qdisc replace dev lan0 clsact
foreign add ingress bytecode '1,6 0 0 4294967295' classid 1:1
foreign add egress bytecode '1,6 0 0 4294967295' classid 1:1
start_daemon "$policy"
equal "nobody is before ours after a start" "$(ahead)" '[]'
stop_daemon
