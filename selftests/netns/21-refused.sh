#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# What is wrong is told in one line, with a status that is not 0, and nothing stays attached.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start refused
need ipset
need_build

# refused TEXT PATTERN COMMAND...: the command ends by itself, fails, and its one line matches.
refused() {
	local text=$1 pattern=$2 status=0
	shift 2
	timeout 20 "$@" </dev/null >"$LAB_DIR/refused.log" 2>&1 || status=$?
	if [ $status -eq 0 ] || [ $status -ge 124 ]; then
		miss "$text: status $status"
	elif ! grep -qE -- "$pattern" "$LAB_DIR/refused.log"; then
		miss "$text: no '$pattern' in: $(cat "$LAB_DIR/refused.log")"
	elif [ "$(wc -l <"$LAB_DIR/refused.log")" -ne 1 ]; then
		miss "$text: more than a line: $(cat "$LAB_DIR/refused.log")"
	else
		pass "$text: $(cat "$LAB_DIR/refused.log")"
	fi
	expect_nothing_left
}

# policy NAME INTERFACE CLASS
policy() {
	write_policy "$1" <<END
{
  "version": 1,
  "interfaces": [ { "name": "$2", "mode": "tc" } ],
  "classes": [ $3 ]
}
END
}
here=(--netns "$(ns_of gateway)" --instance "$INSTANCE")
run_daemon() { refused "$1" "$2" "$L7MARKD" --policy "$3" "${here[@]}"; }

good='{ "name": "zoom", "match": { "applications": ["Zoom"] }, "mark": "0x85/0xff" }'
run_daemon "unknown interface" 'lan7' "$(policy interface lan7 "$good")"
run_daemon "one good interface and an unknown one" 'lan7' "$(
	write_policy interfaces <<END
{ "version": 1, "interfaces": [ { "name": "lan0", "mode": "tc" }, { "name": "lan7", "mode": "tc" } ],
  "classes": [ $good ] }
END
)"
run_daemon "unknown category, with the nearest name" 'Vidio.*Video' \
	"$(policy category lan0 '{ "name": "z", "match": { "categories": ["Vidio"] }, "mark": "0x1/0xff" }')"
run_daemon "unknown key, with place" ':[0-9]+:[0-9]+.*markk' \
	"$(policy key lan0 '{ "name": "z", "match": { "applications": ["Zoom"] }, "markk": "0x1/0xff" }')"
run_daemon "mark outside its mask" '0x1ff' \
	"$(policy mask lan0 '{ "name": "z", "match": { "applications": ["Zoom"] }, "mark": "0x1ff/0xff" }')"
run_daemon "malformed JSON, with line and column" 'broken.jsonc:3:[0-9]+' "$(
	write_policy broken <<'END'
{ "version": 1,
  "interfaces": [ { "name": "lan0" } ],
  "classes": [ { "name" "zoom" } ] }
END
)"
run_daemon "no such file" 'missing.jsonc' "$LAB_DIR/missing.jsonc"

chmod 755 "$LAB_DIR"
good_policy=$(policy good lan0 "$good")
chmod 644 "$good_policy"
refused "missing privileges" 'root|privilege|CAP_' nsenter --net="/run/netns/$(ns_of gateway)" -- setpriv --reuid=65534 --regid=65534 --clear-groups \
	--inh-caps=-all --bounding-set=-all "$L7MARKD" --policy "$good_policy" --instance "$INSTANCE"
refused "unknown namespace" 'no-such-namespace' \
	"$L7MARKD" --policy "$good_policy" --netns no-such-namespace --instance "$INSTANCE"
refused "load of an unknown interface" 'lan7' "$L7MARK" load lan7 "${here[@]}"
refused "check of a bad policy" ':3:' "$L7MARK" check "$LAB_DIR/broken.jsonc"
refused "status without a daemon" "$INSTANCE" "$L7MARK" status "${here[@]}"

# The good policy that all the bad ones were made from does start.
start_daemon "$good_policy"
at_least "programs attached by the good policy" "$(ours_attached | wc -l)" 2
refused_second() {
	timeout 20 "$L7MARKD" --policy "$good_policy" "${here[@]}" \
		>"$LAB_DIR/second.log" 2>&1
}
refuse "a second daemon of the same instance" refused_second
expect "its message names the instance" grep -q "$INSTANCE" "$LAB_DIR/second.log"
expect "the first goes on" l7mark status
stop_daemon
expect_nothing_left
