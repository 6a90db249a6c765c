#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Help, man pages and completion say the same, and exit statuses are as documented.
# Usage: help.sh BIN-DIRECTORY
set -uo pipefail
bin=${1:?directory of the binaries}
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
failed=0
miss() {
	echo "NOT OK  $*"
	failed=1
}

# options_of COMMAND...: the long options of its help.
options_of() { "$@" --help | grep -oE '^  (-[a-z],)?--[a-z-]+' | grep -oE -- '--[a-z-]+' | sort -u; }
# in_man PAGE OPTION
in_man() { sed 's/[\]//g' "$repo/packaging/man/$1" | grep -F -e "$2" >/dev/null; }

commands=(load unload status flows events reload check classify features)
for command in "${commands[@]}"; do
	help=$("$bin/l7mark" "$command" --help) || miss "$command --help fails"
	grep -qE '^  l7mark ' <<<"$help" || miss "$command --help has no example"
	grep -qE "(^|[ \"])$command( |\$)" "$repo/packaging/man/l7mark.1" || miss "$command is not in l7mark.1"
	grep -qw "$command" "$repo/packaging/completion/l7mark.bash" || miss "$command is not completed"
	while read -r option; do
		in_man l7mark.1 "$option" || miss "$command $option is not in l7mark.1"
	done < <(options_of "$bin/l7mark" "$command")
done
while read -r option; do
	in_man l7mark.1 "$option" || miss "$option is not in l7mark.1"
done < <(options_of "$bin/l7mark")
while read -r option; do
	in_man l7markd.8 "$option" || miss "l7markd $option is not in l7markd.8"
done < <(options_of "$bin/l7markd")
for command in packet publish path latency flows memory scale; do
	"$bin/l7mark-bench" "$command" --help >/dev/null || miss "l7mark-bench $command --help fails"
	grep -qx "\.B $command" "$repo/packaging/man/l7mark-bench.8" || miss "$command is not in l7mark-bench.8"
	while read -r option; do
		in_man l7mark-bench.8 "$option" || miss "l7mark-bench $command $option is not in l7mark-bench.8"
	done < <(options_of "$bin/l7mark-bench" "$command")
done

# Every key of the policy, of its schema, is in l7mark-policy.5 and docs/policy.md.
while read -r key; do
	grep -wF -e "$key" "$repo/packaging/man/l7mark-policy.5" >/dev/null || miss "key $key is not in l7mark-policy.5"
	grep -wF -e "$key" "$repo/docs/policy.md" >/dev/null || miss "key $key is not in docs/policy.md"
done < <(jq -r "[.. | objects | .properties? | objects | keys[]] | unique[]" "$repo/packaging/l7mark-policy.schema.json")

# status WANTED COMMAND...
status() {
	local wanted=$1 got=0
	shift
	"$@" >/dev/null 2>&1 || got=$?
	[ "$got" -eq "$wanted" ] || miss "status $got, not $wanted: $*"
}
status 0 "$bin/l7mark" --version
status 0 "$bin/l7markd" --version
status 2 "$bin/l7mark"
status 2 "$bin/l7mark" statsu
status 2 "$bin/l7mark" load
status 2 "$bin/l7mark" load lan0 --mode fast
status 2 "$bin/l7mark" --instance ../x status
status 2 "$bin/l7mark" classify --json --format table /nonexistent.pcap
status 2 "$bin/l7markd"
status 1 "$bin/l7mark" --instance nobody-here status
status 1 "$bin/l7mark" check /nonexistent/policy.jsonc
policy=$(mktemp)
echo '{ "version": 1, "classes": [ { "name": "a", "match": { "applications": ["SkypeCall9"] } } ] }' >"$policy"
status 0 "$bin/l7mark" check "$policy"
status 1 "$bin/l7mark" check --strict "$policy"
status 1 "$bin/l7mark" check --strict --json "$policy"
rm "$policy"
for example in "$repo"/examples/*.jsonc "$repo"/packaging/policy.jsonc; do
	status 0 "$bin/l7mark" check "$example"
done
[ $failed -eq 0 ] && echo "ok"
exit $failed
