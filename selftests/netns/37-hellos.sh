#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Recorded handshakes of browsers (selftests/captures/browsers), in packets as GRO and TSO merge them and in
# packets as on a wire: through the programs in the kernel, and without them, each connection has the server
# name that Caddy logged, and that name's application.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_root
need_build
need jq
captures=$REPO/selftests/accuracy/captures
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# Another nDPI may know other applications; the names are the server's own.
applications=true
case $("$L7MARK" --version | sed -n 's/.*nDPI //p') in
4.2*) ;;
*) applications=false && say "nDPI is not 4.2: applications are not compared" ;;
esac

# judge CAPTURE PATH: an array of its connections, each with what was found of it.
judge() {
	"$L7MARK" classify --path "$2" "$captures/$1" >"$out/flows.json"
	jq -Rn --arg capture "$1" --argjson applications $applications --slurpfile flows "$out/flows.json" '
		{ "6": "tcp", "17": "udp" } as $protocols
		| [ inputs / "\t" | select(.[0] == $capture)
		| { protocol: $protocols[.[1]], src: .[2], sport: (.[3] | tonumber), dst: .[4], dport: (.[5] | tonumber),
		    name: .[6], application: .[7] } as $want
		| ([ $flows[] | select(.proto == $want.protocol and .src == $want.src and .sport == $want.sport
			and .dst == $want.dst and .dport == $want.dport) ][0] // {}) as $flow
		| $want + { ndpi: $flow.ndpi, hostname: $flow.hostname, named: ($flow.hostname == $want.name),
		    right: ($flow.hostname == $want.name and ($flow.application == $want.application or ($applications | not))) } ]' \
		<"$captures/browsers.tsv"
}

mapfile -t files < <(tail -n +2 "$captures/browsers.tsv" | cut -f 1 | sort -u)
at_least "captures" ${#files[@]} 4
for capture in "${files[@]}"; do
	for path in kernel user; do
		judge "$capture" $path >"$out/judged.json"
		for protocol in tcp udp; do
			jq --arg protocol $protocol 'map(select(.protocol == $protocol))' "$out/judged.json" >"$out/part.json"
			jq -r 'map(select(.right | not) | "        \(.sport): \(.name), \(.application): \(.ndpi // "no flow") \(.hostname
				// "" | tojson)") | .[0:3][]' "$out/part.json"
			at_least "$capture, $protocol: connections" "$(jq length "$out/part.json")" 5
			equal "$capture, $protocol, $path: without their name" "$(jq 'map(select(.named | not)) | length' "$out/part.json")" 0
			equal "$capture, $protocol, $path: without their application" "$(jq 'map(select(.right | not)) | length' "$out/part.json")" 0
		done
	done
done
say "$((CHECKS - FAILURES)) of $CHECKS checks passed"
[ "$FAILURES" -eq 0 ]
