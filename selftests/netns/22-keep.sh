#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# With --keep the daemon's end changes nothing: programs stay, marks go on, and the next daemon takes
# over maps and flows. Unloading leaves nothing, and touches nothing of anyone else's.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start keep
need ipset openssl socat bpftool
policy=$(
	write_policy keep <<'END'
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
witness 4 mangle PREROUTING by-tc -p tcp --dport 443 -m mark --mark 0x85/0xff
witness 4 mangle PREROUTING seen -p tcp --dport 443

# A program of the user's on the same interface (classic BPF that does nothing).
in_ns gateway tc qdisc add dev lan0 clsact
in_ns gateway tc filter add dev lan0 ingress protocol all prio 77 bpf bytecode '1,6 0 0 0'
users_own() { in_ns gateway tc filter show dev lan0 ingress | grep 'pref 77' >/dev/null; }
ours() { [ -n "$(ours_attached)" ]; }

grows() {
	local before word
	before=$(hits 4 mangle by-tc)
	for word in one two three four five; do
		talk "$2" "$word $RANDOM" || fail "$1: traffic no longer flows"
	done
	at_least "$1" $(($(hits 4 mangle by-tc) - before)) 5
}

start_daemon "$policy" --keep
open_tls old us04web.zoom.us $SERVER4 443
talk old hello || fail "the connection does not work"
expect_soon "the flow has its entry" 10 entry NETIFY_ZOOM "$SERVER4,tcp:443,$CLIENT4"
grows "marked packets" old
map_before=$(flows_map)
programs_before=$(ours_attached | wc -l)
at_least "programs attached" "$programs_before" 2
stop_daemon

expect "programs are still attached" ours
expect "pins are still there" test -e "/sys/fs/bpf/l7mark/$INSTANCE"
grows "marked packets with the daemon gone" old

start_daemon "$policy" --keep
equal "the map of flows is the same" "$(flows_map)" "$map_before"
grows "marked packets with the next daemon" old
flow_known() { l7mark flows --json | jq -se --arg c "$CLIENT4" '[.. | objects | select(.src? == $c and .dport? == 443)] | length > 0'; }
expect_soon "the next daemon shows the flow" 10 flow_known
open_tls new us04web.zoom.us $SERVER4 443
talk new hello || fail "a new connection does not work"
grows "marked packets of a new flow" new
equal "programs attached, none twice" "$(ours_attached | wc -l)" "$programs_before"
stop_daemon

l7mark unload --all >"$LAB_DIR/unload.log" 2>&1 || fail "unload fails"
refuse "no program of ours is attached" ours
refuse "no pins are left" test -e "/sys/fs/bpf/l7mark/$INSTANCE"
equal "files left in /run/l7mark" "$(compgen -G "/run/l7mark/$INSTANCE.*" | xargs)" ""
expect "the user's program is still attached" users_own
before=$(hits 4 mangle by-tc) seen=$(hits 4 mangle seen)
for word in one two three; do talk old "end $word" || fail "traffic does not flow after unload"; done
equal "marked packets after unload" $(($(hits 4 mangle by-tc) - before)) 0
at_least "packets of the flow after unload" $(($(hits 4 mangle seen) - seen)) 3

# load and unload without a daemon.
l7mark load lan0 wan0 --mode tc >"$LAB_DIR/load.log" 2>&1 || fail "load fails: $(cat "$LAB_DIR/load.log")"
FLOWS_MAP=$(flows_map)
equal "programs that load attaches to two interfaces" "$(ours_attached | wc -l)" $((2 * programs_before))
l7mark unload lan0 >>"$LAB_DIR/load.log" 2>&1 || fail "unload of an interface fails"
equal "programs left after unload of one of them" "$(ours_attached | wc -l)" "$programs_before"
expect "and the user's program" users_own
l7mark unload --all >>"$LAB_DIR/load.log" 2>&1 || fail "unload --all fails"
refuse "unload --all takes the rest" ours
refuse "and the pins" test -e "/sys/fs/bpf/l7mark/$INSTANCE"
equal "and the files in /run/l7mark" "$(compgen -G "/run/l7mark/$INSTANCE.*" | xargs)" ""
