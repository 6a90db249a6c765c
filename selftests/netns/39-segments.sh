#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Hellos of Chromium, Firefox and OpenSSL in 1, 2, 3 and 40 TCP segments and in segments of a byte, in order and
# out of order, over IPv4 and IPv6, with sequence numbers that wrap in the hello and with offloads: a real
# server answers each, and each has its host name, application and class.
#
#     39-segments.sh [CLIENT...]   openssl, chromium, firefox; all by default
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=browsers.sh
. "$(dirname "${BASH_SOURCE[0]}")/browsers.sh"

[ $# -gt 0 ] || set -- openssl chromium firefox
lab_start segments
need ethtool openssl socat
segments=$BUILD/bin/segments
[ -x "$segments" ] || fail "$segments is missing: build with tools/build"
hellos=$REPO/selftests/accuracy/captures # recorded by selftests/captures/browsers
policy=$(
	write_policy segments <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [ { "name": "meetings", "match": { "applications": ["Zoom"] }, "mark": "0x1/0xff" } ]
}
END
)
offloads off
# One segment holds a whole hello, as one that GRO made.
for end in "client eth0" "gateway lan0" "gateway wan0" "server up0"; do
	in_ns "${end% *}" ip link set dev "${end#* }" mtu 9000
done
# Segments of a byte take the room of whole packets.
in_ns server sysctl -qw net.ipv4.tcp_rmem="4096 16777216 16777216"
serve_tls 443 us04web.zoom.us

# The sender's addresses are nobody's: no stack resets its connections, and nobody answers for them.
sender4=10.77.1.3 sender6=fd77:1::3
client_mac=$(in_ns client ip -j link show dev eth0 | jq -r '.[0].address')
gateway_mac=$(in_ns gateway ip -j link show dev lan0 | jq -r '.[0].address')
for address in $sender4 $sender6; do
	in_ns gateway ip neigh add "$address" lladdr "$client_mac" dev lan0 nud permanent
done
start_daemon "$policy"
: >"$LAB_DIR/events.json"
l7mark events --json >"$LAB_DIR/events.json" 2>"$LAB_DIR/events.log" &

# send CLIENT 4|6 PIECES ORDER [ARGS...]: as a connection of its own, whose port is the key to its line in sent.tsv.
port=20000
declare -A segments_sent=([4]=0 [6]=0)
witness 4 mangle PREROUTING segments -s $sender4 -p tcp --dport 443
witness 6 mangle PREROUTING segments -s $sender6 -p tcp --dport 443
send() {
	local from=$sender4 to=$SERVER4
	[ "$2" = 4 ] || from=$sender6 to=$SERVER6
	port=$((port + 1))
	segments_sent[$2]=$((segments_sent[$2] + ($3 > 0 ? $3 : $(stat -c %s "$hellos/hello-$1.bin"))))
	printf '%s\t%s\t%s\t%s\t%s\n' $port "$1" "$2" "$3" "$4${5:+, ${5#--} $6}" >>"$LAB_DIR/sent.tsv"
	in_ns client "$segments" --device eth0 --gateway "$gateway_mac" --from $from --from-port $port --to $to \
		--pieces "$3" --order "$4" "${@:5}" "$hellos/hello-$1.bin" ||
		miss "the server takes the hello of $1, IPv$2, $3 segments, $4"
}

for client; do
	for family in 4 6; do
		send "$client" $family 1 in
		for pieces in 2 3 40 0; do
			for order in in swapped reversed shuffled; do send "$client" $family $pieces $order; done
			send "$client" $family $pieces in --sequence 4294967000
		done
	done
done
for family in 4 6; do
	at_least "IPv$family: packets at the gateway, for ${segments_sent[$family]} segments" \
		"$(hits $family mangle segments)" "${segments_sent[$family]}"
done
# Merged again by the gateway's GRO.
in_ns gateway ethtool -K lan0 gro on >/dev/null 2>&1 || fail "GRO of lan0 can't be turned on"
for client; do
	for pieces in 2 3 40; do send "$client" 4 $pieces in; done
done
sent=$(wc -l <"$LAB_DIR/sent.tsv")

# The last record of each flow; most are over.
all_final() {
	jq -sc 'map(select(.flow_id and .dport == 443)) | group_by(.flow_id) | map(last)' "$LAB_DIR/events.json" >"$LAB_DIR/flows.json"
	[ "$(jq 'map(select(.state == "final")) | length' "$LAB_DIR/flows.json")" -ge "$sent" ]
}
wait_for 8 all_final || true
jq -Rn --slurpfile flows "$LAB_DIR/flows.json" '
	($flows[0] | map({ key: "\(.sport)", value: . }) | from_entries) as $by_port
	| [ inputs / "\t" | { port: .[0], client: .[1], ip: "IPv\(.[2])", pieces: (if .[3] == "0" then "bytes" else .[3] end),
	    order: .[4] } + ($by_port[.[0]] // {} | { hostname, ndpi, class })
	  | .right = (.hostname == "us04web.zoom.us" and .ndpi == "TLS.Zoom" and .class == "meetings") ]' \
	<"$LAB_DIR/sent.tsv" >"$LAB_DIR/judged.json"
say "client    IP    segments  right, of sent"
jq -r 'group_by([.client, .ip, .pieces])[]
	| [.[0].client, .[0].ip, .[0].pieces, (map(select(.right)) | length), length,
	   (map(select(.right | not) | "\(.order): \(.ndpi // "no record") \(.hostname // "" | tojson)") | join("; "))] | @tsv' \
	"$LAB_DIR/judged.json" | awk -F'\t' '{ printf "%-9s %-5s %-9s %d of %d  %s\n", $1, $2, $3, $4, $5, $6 }'
# count CLIENT ORDER RIGHT: how many of these are right, or not.
count() {
	jq --arg client "$1" --arg order "$2" --argjson right "$3" \
		'map(select(.client == $client and .order == $order and .right == $right)) | length' "$LAB_DIR/judged.json"
}
for client; do
	for order in in "in, sequence 4294967000" swapped reversed shuffled; do
		at_least "hellos of $client, order $order: named, with application and class" "$(count "$client" "$order" true)" 8
		equal "hellos of $client, order $order: not so" "$(count "$client" "$order" false)" 0
	done
done
at_least "connections" "$sent" $(($# * 45))
stop_daemon
expect_nothing_left
