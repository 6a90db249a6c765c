#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# The benches of packets, flows, memory and scale run with little to do, have their rows, and leave nothing
# behind. What they measure is not looked at.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start tables
need jq
bench=$BUILD/bin/l7mark-bench
[ -x "$bench" ] || skip "$bench is not built"
export TMPDIR=$LAB_DIR/tmp
mkdir "$TMPDIR"

# measure NAME ARGS...: the table as JSON in $LAB_DIR/NAME.json.
measure() {
	local name=$1
	shift
	"$bench" --json --rounds 1 "$name" "$@" >"$LAB_DIR/$name.json" 2>"$LAB_DIR/bench.log" &
	bench_pid=$!
	expect "bench $name runs" wait "$bench_pid"
	equal "$name: namespaces left" "$(ip netns list | awk '{ print $1 }' | grep -xE "l7mb-$bench_pid-.*" | xargs)" ""
	equal "$name: pins left" "$(compgen -G "/sys/fs/bpf/l7mark/bench-$bench_pid*" | xargs)" ""
	equal "$name: files left" "$(compgen -G "/run/l7mark/bench-$bench_pid*" | xargs)$(ls -A "$TMPDIR")" ""
	equal "$name: processes left" "$(pgrep -P "$bench_pid" | xargs)$(pgrep -f "l7markd .*bench-$bench_pid" | xargs)" ""
}

table_has() { jq -e "$2" "$LAB_DIR/$1.json" >/dev/null; }
column_has() { table_has "$1" "[.[] | select($2)[\"$3\"] | tonumber > 0] | length == $4 and all"; }

measure packet --flows 1 --repeat 1000
for hook in TC XDP; do
	expect "packet: rows of $hook" table_has packet "[.[] | select(.hook == \"$hook\")] | length > 10"
done

measure flows --flows 400
if command -v ndpiReader >/dev/null; then
	expect "flows: ndpiReader has its row" column_has flows '.contender == "ndpiReader"' "flows a CPU second" 1
else
	expect "flows: ndpiReader is said to be missing" table_has flows \
		'any(.[]; .contender == "ndpiReader" and ."flows a CPU second" == "not found")'
fi
expect "flows: workers classify by the second" column_has flows '.contender | test("^(one|two) worker")' "flows a second" 2
expect "flows: nDPI has a share" column_has flows '.contender | test("^nDPI.s share")' "flows a CPU second" 1
expect "flows: as many as were asked for" column_has flows '.contender == "flows"' "flows a CPU second" 1

# A capture that is given: its flows, and no others.
measure flows --flows 1 --capture "$REPO/selftests/accuracy/captures/gateway.pcap"
expect "flows of a capture" column_has flows '.contender == "one worker"' "flows a CPU second" 1
refuse "a file that is no capture is refused" "$bench" flows --rounds 1 --capture "$bench" 2>"$LAB_DIR/refused"
equal "with one line" "$(wc -l <"$LAB_DIR/refused")" 1

measure memory --flows 2000,4000
for column in "start-up, ms" "kernel, MB" "daemon, MB" "workers, MB" "B/flow kernel" "B/flow processes"; do
	expect "memory: $column" column_has memory true "$column" 2
done
equal "memory: all flows are tracked" "$(jq -r '[.[].tracked] | join(" ")' "$LAB_DIR/memory.json")" "2000 4000"
measure memory --ipv6 --flows 2000
equal "memory: flows of IPv6, too" "$(jq -r '.[0].tracked' "$LAB_DIR/memory.json")" 2000

measure scale --repeat 1000 --flows 2,64 --classes 1,8 --hosts 5,20 --workers 1,2 --worker-flows 400
for row in "floor's packet over an empty program, ns 2" "policy's match of a flow, ns 3" \
	"workers' flows a CPU second 2" "workers' flows a second 2"; do
	expect "scale: ${row% *}, in ${row##* } rows" column_has scale ".what == \"${row% *}\"" median "${row##* }"
done
expect "scale: packets by flows and by policy" table_has scale \
	'[.[] | select(.what == "packet over an empty program, ns")] | length == 5'
expect "scale: policies are loaded" table_has scale '[.[] | select(.what == "load of a policy, ms")] | length == 3'
