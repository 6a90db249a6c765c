#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Hellos of 15 kB from a real client, whose segments pass the gateway merged into one packet as offloads leave
# them, in TC mode, and as what native XDP makes of them: named with host, application and class over IPv4
# and IPv6. One packet takes several records of the ring.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=browsers.sh
. "$(dirname "${BASH_SOURCE[0]}")/browsers.sh"

lab_start long-hellos
need ethtool openssl socat
offloads on
serve_tls 443 us04web.zoom.us
# All of a hello fits the first flight of the client's TCP, so that there is one packet to merge.
in_ns client ip route change default via $GATEWAY4 initcwnd 40
in_ns client ip -6 route change default via $GATEWAY6 initcwnd 40
names=$(for i in {1..60}; do printf '%s%04d%s' "${comma:-}" "$i" "$(printf 'x%.0s' {1..245})" && comma=,; done)
for family in 4 6; do
	witness $family mangle PREROUTING hello -p tcp --dport 443 -m length --length 1000:65535
	witness $family mangle PREROUTING long -p tcp --dport 443 -m length --length 15000:65535
done

# greet PORT ADDRESS OWN-ADDRESS: one connection from that port, with the group that the server takes, so that it
# does not ask for another hello.
greet() {
	in_ns client timeout 10 openssl s_client -connect "$(bracket "$2"):443" -bind "$3:$1" \
		-servername us04web.zoom.us -alpn "$names" -groups P-256 </dev/null >"$LAB_DIR/greet-$1.log" 2>&1 || true
	grep -q '^SSL handshake has read' "$LAB_DIR/greet-$1.log"
}

# record PORT: what the daemon has told last of the connection from that port.
record() {
	jq -sc --argjson port "$1" 'map(select(.sport == $port)) | last // {}' "$LAB_DIR/events.json"
}
is_final() { [ "$(record "$1" | jq -r .state)" = final ]; }

port=30000
for mode in tc native; do
	policy=$(
		write_policy "$mode" <<-END
			{
			  "version": 1,
			  "interfaces": [ { "name": "lan0", "mode": "$mode" } ],
			  "vlan": "ignore",
			  "classes": [ { "name": "meetings", "match": { "applications": ["Zoom"] }, "mark": "0x1/0xff" } ]
			}
		END
	)
	start_daemon "$policy"
	: >"$LAB_DIR/events.json"
	l7mark events --json >"$LAB_DIR/events.json" 2>"$LAB_DIR/events.log" &
	for family in 4 6; do
		port=$((port + 1))
		before=$(hits $family mangle hello) long=$(hits $family mangle long)
		if [ $family = 4 ]; then
			expect "$mode, IPv4: the server takes the hello" greet $port $SERVER4 $CLIENT4
		else
			expect "$mode, IPv6: the server takes the hello" greet $port $SERVER6 "[$CLIENT6]"
		fi
		packets=$(($(hits $family mangle hello) - before))
		if [ "$mode" = tc ]; then
			equal "tc, IPv$family: packets at the gateway that hold the hello" $packets 1
			equal "tc, IPv$family: of more than 15,000 bytes" $(($(hits $family mangle long) - long)) 1
		fi
		wait_for 8 is_final $port || true
		say "        $(record $port | jq -r '"\(.sampled_packets) packets sampled, \(.sampled_bytes) bytes of them"')"
		equal "$mode, IPv$family: host, application and class" \
			"$(record $port | jq -r '[.hostname, .ndpi, .class] | join(" ")')" "us04web.zoom.us TLS.Zoom meetings"
		equal "$mode, IPv$family: a JA4 fingerprint" "$(record $port | jq -r '.tls.ja4 // "" | length')" 36
	done
	equal "$mode: records that found no room" "$(l7mark status --json | jq .counters.ring_full)" 0
	stop_daemon
done
expect_nothing_left
