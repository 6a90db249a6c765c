#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# One instance in two network namespaces that have an interface of the same name and index: each has its
# own programs, which come off each by itself, or all by `unload --all`. What a namespace leaves that is
# gone is forgotten, and a daemon that starts in another one takes off what the one before attached.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start namespaces
need bpftool
# there SUBCOMMAND ARGS...: in the second namespace.
there() {
	local subcommand=$1
	shift
	"$L7MARK" "$subcommand" --netns "$(ns_of server)" --instance "$INSTANCE" "$@"
}
# loaded WHERE...: attaches to twin0 there.
loaded() {
	local where
	for where; do
		"$where" load twin0 --mode tc >>"$LAB_DIR/load.log" 2>&1 || fail "load fails: $(tail -n 1 "$LAB_DIR/load.log")"
	done
	FLOWS_MAP=$(flows_map)
}
links() { bpftool -j link show | jq --argjson programs "$(bpftool -j prog show)" --argjson map "$FLOWS_MAP" \
	'[.[] | .prog_id as $id | select(any($programs[]; .id == $id and ((.map_ids // []) | index($map))))] | length'; }
filters() { in_ns "$1" tc filter show dev twin0 "$2" 2>/dev/null | grep -c 'l7mark_' || true; }

twins() {
	local role
	for role; do
		in_ns "$role" ip link add twin0 index 77 type veth peer name twin1
		in_ns "$role" ip link set twin0 up
	done
}
twins gateway server

for way in tcx clsact; do
	if [ $way = tcx ]; then
		if ! "$L7MARK" features --json | jq -e '.features[] | select(.name == "tcx").present' >/dev/null; then continue; fi
		present() { links; }
		each=2 both=4
	else
		export L7MARK_WITHOUT=tcx
		present() { echo $(($(filters gateway ingress) + $(filters gateway egress))); }
		each=2 both=2
	fi
	loaded l7mark
	equal "$way: programs of one namespace" "$(present)" $each
	loaded there
	equal "$way: programs when the other has its own" "$(present)" $both
	if [ $way = clsact ]; then equal "clsact: in the other" "$(filters server ingress)" 1; fi
	there unload twin0 >>"$LAB_DIR/load.log" 2>&1 || fail "unload fails"
	equal "$way: programs when the other has unloaded" "$(present)" $each
	if [ $way = clsact ]; then equal "clsact: in the other" "$(filters server ingress)" 0; fi
	expect "$way: the maps stay" test -e "/sys/fs/bpf/l7mark/$INSTANCE"
	loaded there
	l7mark unload twin0 >>"$LAB_DIR/load.log" 2>&1 || fail "unload fails"
	expect "$way: they stay for the other, too" test -e "/sys/fs/bpf/l7mark/$INSTANCE"
	loaded l7mark
	l7mark unload --all >>"$LAB_DIR/load.log" 2>&1 || fail "unload --all fails"
	equal "$way: programs after unload --all" "$(present)" 0
	equal "$way: filters in the other" "$(filters server ingress)" 0
	expect_nothing_left
done
unset L7MARK_WITHOUT

# policy INTERFACE
policy() {
	write_policy "$1" <<END
{
  "version": 1,
  "interfaces": [ { "name": "$1", "mode": "tc" } ],
  "classes": [ { "name": "zoom", "match": { "applications": ["Zoom"] }, "mark": "0x85/0xff" } ]
}
END
}
attached() { l7mark status --json | jq -c '[.interfaces[] | [.name, .attached, .by]]'; }
start_daemon "$(policy twin0)"
loaded there
equal "the daemon tells of its own namespace" "$(attached)" '[["twin0",true,"daemon"]]'
stop_daemon
expect "the maps stay when it ends" test -e "/sys/fs/bpf/l7mark/$INSTANCE"
there unload --all >>"$LAB_DIR/load.log" 2>&1 || fail "unload --all fails"
expect_nothing_left

start_daemon "$(policy twin0)"
crash_daemon
detached "$L7MARKD" --policy "$(policy up0)" --netns "$(ns_of server)" --instance "$INSTANCE" \
	</dev/null >>"$LAB_DIR/l7markd.log" 2>&1 &
DAEMON_PID=$!
disown "$DAEMON_PID"
there status --wait 30 >"$LAB_DIR/status.log" 2>&1 || fail "l7markd did not become ready in the other namespace"
equal "a daemon in the other namespace has its interface" "$(attached)" '[["up0",true,"daemon"]]'
equal "the killed one's programs are off" "$(in_ns gateway tc filter show dev twin0 ingress; links)" 2
stop_daemon
expect_nothing_left

# A namespace's end.
if "$L7MARK" features --json | jq -e '.features[] | select(.name == "tcx").present' >/dev/null; then
	loaded l7mark there
	for pid in $(ip netns pids "$(ns_of server)"); do kill -9 "$pid"; done
	ip netns del "$(ns_of server)"
	gone() { ! in_ns gateway ip link show wan0; }
	expect_soon "the other namespace is gone, with the other end of wan0" 20 gone
	loaded l7mark
	equal "what it left is forgotten" "$(links)" 2
	l7mark unload twin0 >>"$LAB_DIR/load.log" 2>&1 || fail "unload fails"
	expect_nothing_left
fi
