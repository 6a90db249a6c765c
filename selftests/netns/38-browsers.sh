#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Today's browsers: Chromium and Firefox fetch 20 names by TLS and 20 by HTTP/3 through the gateway, over IPv4
# and IPv6, with offloads (one packet of many segments) and without. Each connection that sent a
# ClientHello, those that the browsers make by themselves too, has the server name that Caddy logged, and
# the application and class that belong to that name.
#
#     38-browsers.sh [BROWSER...]   chromium, firefox; both by default
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=browsers.sh
. "$(dirname "${BASH_SOURCE[0]}")/browsers.sh"

[ $# -gt 0 ] || set -- chromium firefox
browsers=("$@")
need_browsers
lab_start browsers
need openssl tcpdump
serve_browsers
policy=$(
	write_policy browsers <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [
    { "name": "meetings", "match": { "applications": ["Zoom", "Teams"] }, "mark": "0x1/0xff" },
    { "name": "video", "match": { "applications": ["NetFlix", "YouTube", "Twitch"] }, "mark": "0x2/0xff" },
    { "name": "lab", "match": { "hostnames": ["*.lab.test"] }, "mark": "0x3/0xff" }
  ]
}
END
)

# --- one visit ----------------------------------------------------------------------------------------

# all_settled: each connection of the visit has a flow with its last answer; the last record of each flow is in
# seen.json.
all_settled() {
	jq -sc 'map(select(.flow_id)) | group_by(.flow_id) | map(last)' "$LAB_DIR/events.json" >"$LAB_DIR/seen.json"
	jq -ne --slurpfile c "$LAB_DIR/connections.json" --slurpfile s "$LAB_DIR/seen.json" '
		($s[0] | map(select(.state == "final" or .state == "guessed") | { key: "\(.src) \(.sport)", value: true })
			| from_entries) as $have
		| all($c[0][]; $have["\(.address) \(.port)"])'
}

# fetched FILE tcp|udp: how many of the names for that were requested by it.
fetched() {
	local names=("${BROWSER_TLS[@]}")
	[ "$2" = tcp ] || names=("${BROWSER_H3[@]}")
	jq --arg transport "$2" '[.[] | select(.requested and .transport == $transport) | .name]
		| unique | map(select(. as $name | $ARGS.positional | index($name))) | length' "$1" --args "${names[@]}"
}

# run BROWSER 4|6 on|off: a visit with a daemon of its own, so that a port is one connection. Its
# connections with what was seen of them go into $LAB_DIR/visit-NAME.json.
run() {
	local name=$1-$2-$3 from out=$LAB_DIR/visit-$1-$2-$3.json
	offloads "$3"
	start_daemon "$policy"
	: >"$LAB_DIR/events.json"
	l7mark events --json >"$LAB_DIR/events.json" 2>"$LAB_DIR/events.log" &
	from=$(($(caddy_lines) + 1))
	visit "$1" "$2" "$name" || miss "$name: the browser ended with status $?"
	caddy_connections "$from" >"$LAB_DIR/connections.json"
	wait_for 10 all_settled || true
	# A connection without a request may be TCP or UDP: the flow tells.
	jq -n --arg browser "$1" --arg ip "IPv$2" --arg offloads "$3" \
		--slurpfile c "$LAB_DIR/connections.json" --slurpfile s "$LAB_DIR/seen.json" '
		[ $c[0][] as $c
		| [ $s[0][] | select(.src == $c.address and .sport == $c.port and .dport == 443
			and ($c.transport == "" or .proto == $c.transport)) ] as $flows
		| ([$flows[] | select(.hostname == $c.name)] + $flows + [{}])[0] as $flow
		| { browser: $browser, ip: $ip, offloads: $offloads, address: $c.address, port: $c.port, name: $c.name,
		    requested: ($c.transport != ""), transport: ($flow.proto // $c.transport), hostname: $flow.hostname,
		    ndpi: $flow.ndpi, application: $flow.application, class: $flow.class } ]' >"$out"
	equal "$1, IPv$2, offloads $3: names fetched by TLS" "$(fetched "$out" tcp)" ${#BROWSER_TLS[@]}
	equal "$1, IPv$2, offloads $3: names fetched by HTTP/3" "$(fetched "$out" udp)" ${#BROWSER_H3[@]}
	stop_daemon
}

for offload in on off; do
	for family in 4 6; do
		for browser in "${browsers[@]}"; do run "$browser" $family $offload; done
	done
done
jq -sc add "$LAB_DIR"/visit-*.json >"$LAB_DIR/all.json"
mapfile -t names < <(jq -r '.[].name' "$LAB_DIR/all.json" | sort -u)
known_applications "${names[@]}" >"$LAB_DIR/known.json"
equal "names without a record of their own" "$(jq -r --slurpfile known "$LAB_DIR/known.json" \
	'[.[].name] | unique | map(select($known[0][.] | not)) | join(" ")' "$LAB_DIR/all.json")" ""
for pair in www.zoom.us=Zoom us04web.zoom.us=Zoom www.netflix.com=NetFlix i.ytimg.com=YouTube a.lab.test=TLS; do
	equal "application of ${pair%=*}" "$(jq -r --arg name "${pair%=*}" '.[$name]' "$LAB_DIR/known.json")" "${pair#*=}"
done

# Each connection with what is wanted: a name without an application leaves the protocol's.
jq --slurpfile known "$LAB_DIR/known.json" '
	{ Zoom: "meetings", Teams: "meetings", NetFlix: "video", YouTube: "video", Twitch: "video" } as $classes
	| map((if .transport == "udp" then "QUIC" else "TLS" end) as $protocol
		| ($known[0][.name] // "TLS") as $application
		| .protocol = $protocol
		| .named = (.hostname == .name)
		| .wanted = (if $application == "TLS" then $protocol else $application end)
		| .wanted_class = ($classes[$application] // (if .name | endswith(".lab.test") then "lab" else "" end))
		| .right = (.named and .application == .wanted and .class == .wanted_class))' \
	"$LAB_DIR/all.json" >"$LAB_DIR/judged.json"

say "browser   IP    offloads  protocol  connections  named  right"
jq -r 'group_by([.browser, .ip, .offloads, .protocol])[]
	| [.[0].browser, .[0].ip, .[0].offloads, .[0].protocol, length, (map(select(.named)) | length),
	   (map(select(.right)) | length)] | @tsv' "$LAB_DIR/judged.json" |
	awk -F'\t' '{ printf "%-9s %-5s %-9s %-9s %11d %6d %6d\n", $1, $2, $3, $4, $5, $6, $7 }'
say "the first of each kind that is not right:"
jq -r 'map(select(.right | not)) | group_by([.browser, .offloads, .protocol, .ndpi, .class])[]
	| "  \(length) of \(.[0].browser), offloads \(.[0].offloads), \(.[0].protocol): \(.[0].name | .[0:40]): have \(
		.[0].ndpi // "no record") \(.[0].hostname // "" | .[0:40] | tojson) \(.[0].class // "" | tojson), want \(
		.[0].wanted) \(.[0].wanted_class | tojson)"' "$LAB_DIR/judged.json"

while IFS=$'\t' read -r what connections named right; do
	equal "$what: connections with the name that Caddy logged" "$named" "$connections"
	equal "$what: and with its application and class" "$right" "$connections"
done < <(jq -r 'group_by([.browser, .offloads, .protocol])[]
	| ["\(.[0].browser), offloads \(.[0].offloads), \(.[0].protocol)", length, (map(select(.named)) | length),
	   (map(select(.right)) | length)] | @tsv' "$LAB_DIR/judged.json")
expect_nothing_left
