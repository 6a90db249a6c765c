#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# A policy of 200 classes and 5,000 host names: checked, loaded, reloaded, and its last class acts like its
# first.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start large
need openssl socat
# policy FIRST: class N has mark FIRST + N and names hM.cN.test, every fifth of them as *.hM.cN.test.
policy() {
	{
		echo '{ "version": 1, "interfaces": [ { "name": "lan0", "mode": "tc" } ], "classes": ['
		awk -v first="$1" 'BEGIN {
			for (c = 1; c <= 200; c++) {
				printf "%s{ \"name\": \"class-%d\", \"mark\": \"0x%x/0xffff\", \"match\": { \"hostnames\": [",
					(c > 1 ? ",\n" : ""), c, first + c
				for (h = 1; h <= 25; h++)
					printf "%s\"%sh%d.c%d.test\"", (h > 1 ? ", " : ""), (h % 5 ? "" : "*."), h, c
				printf "] } }"
			}
			print ""
		}'
		echo '] }'
	} | write_policy large
}
file=$(policy 0)
equal "host names" "$(grep -o '"[*.]*h[0-9]*\.c[0-9]*\.test"' "$file" | wc -l)" 5000
expect "l7mark check accepts it" "$L7MARK" check "$file"
sed 's/"class-200", "mark"/"class-200", "marc"/' "$file" >"$LAB_DIR/wrong.jsonc"
if said=$("$L7MARK" check "$LAB_DIR/wrong.jsonc" 2>&1); then miss "a mistake in its last class is refused"; else pass "a mistake in its last class is refused"; fi
expect "by line and name" grep -qE ':201:.*marc' <<<"$said"

serve_tls_echo 443 any.test
start_daemon "$file"
equal "classes in status" "$(l7mark status --json | jq '.policy.classes | length')" 200
# try HOST-NAME MARK: later packets of a connection that names it have that mark.
number=0
try() {
	number=$((number + 1))
	witness 4 mangle PREROUTING "try-$number" -p tcp --dport 443 -m mark --mark "$2/0xffff"
	open_tls "line-$number" "$1" $SERVER4 443
	expect_soon "$1 has mark $2" 15 more "$number"
	close_line "line-$number"
}
more() {
	talk "line-$1" "word $RANDOM$RANDOM"
	hits_at_least 4 mangle "try-$1" 3
}
try h1.c1.test 0x1
try h24.c200.test 0xc8
try www.h25.c200.test 0xc8
try h13.c100.test 0x64
try h26.c200.test 0x0 # no such name

policy 4096 >/dev/null
expect "it is reloaded with other marks" l7mark reload
try h1.c1.test 0x1001
try www.h25.c200.test 0x10c8
