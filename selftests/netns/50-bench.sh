#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# The benches that send real packets run, and leave nothing behind, interrupted or not. What they
# measure is not looked at.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start bench
need jq
bench=$BUILD/bin/l7mark-bench
[ -x "$bench" ] || skip "$bench is not built"
export TMPDIR=$LAB_DIR

# measure NAME ARGS...: the table as JSON in $LAB_DIR/NAME.json.
measure() {
	local name=$1
	shift
	"$bench" --json --rounds 1 "$name" "$@" >"$LAB_DIR/$name.json" 2>"$LAB_DIR/bench.log" &
	bench_pid=$!
	expect "bench $name runs" wait "$bench_pid"
}

# nothing_left: of the last bench.
nothing_left() {
	equal "namespaces left" "$(ip netns list | awk '{ print $1 }' | grep -xE "l7mb-$bench_pid-.*" | xargs)" ""
	equal "pins left" "$(compgen -G "/sys/fs/bpf/l7mark/bench-$bench_pid*" | xargs)" ""
	equal "files left" "$(compgen -G "/run/l7mark/bench-$bench_pid*" | xargs)$(compgen -G "$LAB_DIR/l7mb-*" | xargs)" ""
	equal "processes left" "$(pgrep -f "l7markd .*bench-$bench_pid" | xargs)" ""
}

table_has() { jq -e "$2" "$LAB_DIR/$1.json" >/dev/null; }

measure path --seconds 0.1 --load udp,connections
for load in udp connections; do
	for contender in none tc-empty l7mark-tc xdp-empty l7mark-xdp ndpiReader nfqueue-20; do
		expect "$load on $contender has a rate, or a reason" table_has path "
			any(.[]; .load == \"$load\" and .[\"on the gateway\"] == \"$contender\"
				and (.rate | test(\"^([1-9][0-9]* |skipped: .)\")))"
	done
done
expect "what l7mark saw is counted" table_has path '
	[.[] | select(."on the gateway" == "l7mark-tc") | .lost | test("^[0-9]+ of [1-9]")] | length == 2 and all'
nothing_left

measure latency --seconds 0.3 --rate 50,500
for place in map ipset; do
	expect "flows were seen in the $place" table_has latency "
		[.[] | select(.[\"readable in\"] == \"$place\") | .seen | tonumber > 0] | length == 2 and all"
done
nothing_left

for name in path latency; do
	"$bench" "$name" --seconds 1 >/dev/null 2>"$LAB_DIR/bench.log" &
	bench_pid=$!
	wait_for 10 test -e "/run/netns/l7mb-$bench_pid-server" || fail "bench $name makes no namespaces"
	sleep 1
	kill -TERM "$bench_pid"
	status=0
	wait "$bench_pid" || status=$?
	equal "bench $name ends by SIGTERM with status" "$status" 143
	nothing_left
done
