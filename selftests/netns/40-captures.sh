#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# What the lab's clients say, recorded (captures/make), is classified as what it is: through the
# programs in the kernel, and without them.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_root
need_build
need jq
captures=$(mktemp -d)
trap 'rm -rf "$captures"' EXIT
"$REPO/selftests/captures/make" "$captures" >"$captures/make.log" 2>&1 || {
	cat "$captures/make.log"
	fail "no captures"
}

# answers PATH CAPTURE TRANSPORT PORT: the applications of its flows to that port, each once.
answers() {
	"$L7MARK" classify --path "$1" "$captures/$2" |
		jq -r --arg proto "$3" --argjson port "$4" 'select(.proto == $proto and .dport == $port) | .ndpi' | sort -u | xargs
}

while IFS=$'\t' read -r capture transport port; do
	wanted=$(awk -F'\t' -v c="$capture" -v t="$transport" -v p="$port" '$1 == c && $2 == t && $3 == p { print $4 }' \
		"$captures/expected.tsv" | sort -u | xargs)
	for path in kernel user; do
		equal "$capture, $transport port $port, $path" "$(answers $path "$capture" "$transport" "$port")" "$wanted"
	done
done < <(cut -f 1-3 "$captures/expected.tsv" | sort -u)
[ "$FAILURES" -eq 0 ]
