#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Whoever floods the gateway with flows spends a budget of its own: 512 connections a second from one IPv4 address,
# from changing addresses of one IPv6 /64, or from outside, while another client's connections are all named and marked
# among few candidates. What is copied stays within the budget, and status names the source.
# Runs alone: it sends at a rate.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start budgets
need openssl socat
segments=$BUILD/bin/segments forged=$BUILD/bin/forged
for program in "$segments" "$forged"; do [ -x "$program" ] || fail "$program is missing: build with tools/build"; done
hello=$REPO/selftests/accuracy/captures/hello-chromium.bin # recorded by selftests/captures/browsers
rate=512 seconds=3 budget=200000

# write SOURCE_BUDGET OUTSIDE_BUDGET PREFIXES
write() {
	write_policy budgets <<-END
		{
		  "version": 1,
		  "workers": 1,
		  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
		  "inside": [ $3 ],
		  "limits": { "candidates": 64 },
		  "sampling": { "source_budget": $1, "outside_budget": $2 },
		  "classes": [ { "name": "meetings", "match": { "applications": ["Zoom"] }, "mark": "0x1/0xff" } ]
		}
	END
}
policy=$(write $budget 0 '"10.77.0.0/16", "fd77::/16"')
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

status() { l7mark status --json | jq -r "$1"; }

# named PORT: the last word on the connection from that port is right.
named() {
	jq -se --argjson port "$1" 'map(select(.sport == $port and (.hostname // "") != "")) | last
		| .hostname == "us04web.zoom.us" and .class == "meetings"' "$LAB_DIR/events.json" >/dev/null
}

# flood TEXT 4|6 FIRST_PORT COUNTER: the forger, and the honest client for as long as it sends.
port=20000
flood() {
	local text=$1 from=10.77.1.66 to=198.51.100.66 ours=$honest4 server=$SERVER4 change=()
	local first=$port sent=0 answered=0 right=0 start=$SECONDS bytes refused forger took
	[ "$2" = 4 ] || from=fd77:1::66:0 to=2001:db8:5::66 ours=$honest6 server=$SERVER6 change=(--change)
	bytes=$(status .counters.sampled_bytes) refused=$(status ".counters.$4")
	spawn client "forged-$3" "$forged" --device eth0 --gateway "$gateway_mac" --from $from --to $to --from-port "$3" \
		--kind partial --rate $rate --seconds $seconds "${change[@]}"
	forger=$SPAWNED
	while ! process_gone "$forger" && [ $sent -lt 20 ]; do
		port=$((port + 1)) sent=$((sent + 1))
		if in_ns client "$segments" --device eth0 --gateway "$gateway_mac" --from $ours --from-port $port \
			--to "$server" --pieces 2 "$hello" 2>>"$LAB_DIR/honest.log"; then answered=$((answered + 1)); fi
		sleep 0.05
	done
	wait_for 15 process_gone "$forger" || fail "the forger does not come to an end"
	took=$((SECONDS - start))
	bytes=$(($(status .counters.sampled_bytes) - bytes))
	at_least "$text: connections of the honest client" $sent 5
	equal "$text: of them those that the server answered" $answered $sent
	wait_for 8 named $port || true
	for ((port = first + 1; port <= first + sent; port++)); do
		if named $port; then right=$((right + 1)); fi
	done
	port=$((first + sent))
	equal "$text: of them those with host and class" $right $sent
	at_least "$text: samples refused" $(($(status ".counters.$4") - refused)) $((rate * seconds))
	# The honest ones take some 16 kB each, whatever merges their packets.
	at_least "$text: bytes copied below the bound, by" $((budget * (took + 2) + sent * 16384 - bytes)) 0
}

flood "IPv4" 4 30000 sources_refused
equal "IPv4: the sources that status names" "$(status '[.budgets.named[].source] | join(" ")')" 10.77.1.66
at_least "IPv4: packets of it" "$(status '.budgets.named[0].packets')" $((rate * seconds))
age=$(($(date +%s) - $(status '.budgets.named[0].since')))
at_least "IPv4: seconds since it began" $age 1
at_least "IPv4: but no more than a minute" $((60 - age)) 0
expect "IPv4: status tells so in words" grep -q '^budget     10.77.1.66: ' <(l7mark status)
flood "IPv6" 6 34000 sources_refused
equal "IPv6: the sources that status names" \
	"$(status '[.budgets.named[].source] | sort | join(" ")')" "10.77.1.66 fd77:1::/64"
equal "flows begun from outside that were refused" "$(status .counters.outside_refused)" 0

write 0 $budget '"10.77.1.3/32", "fd77:2::/64"' >/dev/null
expect "the policy with a budget for outside" l7mark reload
flood "outside" 4 38000 outside_refused
at_least "outside: packets in status" "$(status .budgets.outside.packets)" $((rate * seconds))
stop_daemon
expect_nothing_left
