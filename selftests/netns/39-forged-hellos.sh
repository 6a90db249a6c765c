#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# A forged hello costs its sender's budget, and nobody else's: 512 forged hellos of 16 KiB a second from one
# IPv4 address, or from changing addresses of one IPv6 /64, without an end or whole and noise, while another
# client's hellos in two segments are all named. What is copied for the forger and what the worker holds
# of it stay within bounds.
# Runs alone: it sends at a rate.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start forged-hellos
need openssl socat
segments=$BUILD/bin/segments forged=$BUILD/bin/forged
for program in "$segments" "$forged"; do [ -x "$program" ] || fail "$program is missing: build with tools/build"; done
hello=$REPO/selftests/accuracy/captures/hello-chromium.bin # recorded by selftests/captures/browsers
rate=512 seconds=4

# By docs/policy.md: a source's budget, and what is copied of a flow whatever the budget says: its first packet,
# 4 packets whole and 4 more up to snaplen.
budget=1048576
usual=$((128 + 4 * 1600 + 4 * 128))
# bounds SECONDS: for a flood that took so long. The budget's second may begin anew once more than there are seconds.
# The worker's memory: what was copied by budget, once as it came and once for nDPI; 4 KiB for each flow; and the
# ring of 8 MiB.
bounds() {
	allowed=$((budget * ($1 + 2) + rate * seconds * usual))
	growth_allowed=$((2 * budget * ($1 + 2) + rate * seconds * 4096 + 8388608))
}

policy=$(
	write_policy forged-hellos <<'END'
{
  "version": 1,
  "workers": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [ { "name": "meetings", "match": { "applications": ["Zoom"] }, "mark": "0x1/0xff" } ]
}
END
)
serve_tls 443 us04web.zoom.us
# Where the forger sends to, nothing answers: a reset would end its connections at once.
in_ns server ip route add blackhole 198.51.100.66
in_ns server ip -6 route add blackhole 2001:db8:5::66

# The senders' addresses are nobody's: no stack resets their connections.
honest4=10.77.1.3 honest6=fd77:2::3 # not of the forger's /64
in_ns gateway ip -6 route add fd77:2::/64 dev lan0
client_mac=$(in_ns client ip -j link show dev eth0 | jq -r '.[0].address')
gateway_mac=$(in_ns gateway ip -j link show dev lan0 | jq -r '.[0].address')
for address in $honest4 $honest6; do
	in_ns gateway ip neigh add "$address" lladdr "$client_mac" dev lan0 nud permanent
done
start_daemon "$policy"
: >"$LAB_DIR/events.json"
l7mark events --json >"$LAB_DIR/events.json" 2>"$LAB_DIR/events.log" &
worker=$(workers)

counter() { l7mark status --json | jq ".counters.$1"; }
resident() { awk '/^VmRSS:/ { print $2 * 1024 }' "/proc/$worker/status"; }

# honest PORT FROM TO: a connection whose hello is in two segments; fails if the server does not take it.
honest() {
	in_ns client "$segments" --device eth0 --gateway "$gateway_mac" --from "$2" --from-port "$1" --to "$3" \
		--pieces 2 "$hello"
}

# named PORT: the last word on the connection from that port is right.
named() {
	jq -se --argjson port "$1" 'map(select(.sport == $port and (.hostname // "") != "")) | last
		| .hostname == "us04web.zoom.us" and .ndpi == "TLS.Zoom" and .class == "meetings"' \
		"$LAB_DIR/events.json" >/dev/null
}

# flood 4|6 KIND PORT: the forger, whose connections come from so many ports on, and the honest client for as long as it sends.
port=20000
flood() {
	local text="IPv$1, $2" from=10.77.1.66 to=198.51.100.66 ours=$honest4 server=$SERVER4 change=()
	local first=$port sent=0 answered=0 right=0 start=$SECONDS bytes refused before forger growth
	[ "$1" = 4 ] || from=fd77:1::66:0 to=2001:db8:5::66 ours=$honest6 server=$SERVER6 change=(--change)
	bytes=$(counter sampled_bytes) refused=$(counter flights_refused) before=$(resident)
	spawn client "forged-$1-$2" "$forged" --device eth0 --gateway "$gateway_mac" --from $from --to $to --from-port "$3" \
		--kind "$2" --rate $rate --seconds $seconds "${change[@]}"
	forger=$SPAWNED
	while ! process_gone "$forger" && [ $sent -lt 40 ]; do
		port=$((port + 1)) sent=$((sent + 1))
		if honest $port $ours $server 2>>"$LAB_DIR/honest.log"; then answered=$((answered + 1)); fi
		sleep 0.05
	done
	wait_for 15 process_gone "$forger" || fail "the forger does not come to an end"
	bounds $((SECONDS - start))
	bytes=$(($(counter sampled_bytes) - bytes))
	equal "$text: forged connections" "$(cat "$LAB_DIR/forged-$1-$2.log")" $((rate * seconds))
	at_least "$text: connections of the honest client meanwhile" $sent 10
	equal "$text: of them those that the server answered" $answered $sent
	wait_for 8 named $port || true
	for ((port = first + 1; port <= first + sent; port++)); do
		if named $port; then right=$((right + 1)); fi
	done
	port=$((first + sent))
	equal "$text: of them those with host, application and class" $right $sent
	at_least "$text: flights refused" $(($(counter flights_refused) - refused)) $rate
	# The honest ones take 4 KB each; the bound has room for them.
	at_least "$text: bytes copied below the bound of $allowed, by" $((allowed - bytes)) 0
	growth=$(($(resident) - before))
	at_least "$text: growth of the worker below the bound of $growth_allowed bytes, by" $((growth_allowed - growth)) 0
	say "        $bytes bytes copied of $((rate * seconds * 16384)) and the others', $growth bytes more in the worker"
}

for family in 4 6; do
	flood $family partial 30000
	flood $family garbage 40000
done
equal "records that found no room" "$(counter ring_full)" 0
equal "workers, of which none was started anew" "$(workers)" "$worker"
stop_daemon
expect_nothing_left
