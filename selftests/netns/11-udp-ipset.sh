#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# UDP: the entry's protocol is written, so that iptables matches it; WireGuard, IPv4 and IPv6, and DNS.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start udp
need ipset wireguard-go wg dnsmasq dig
policy=$(
	write_policy udp <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [
    { "name": "tunnel", "match": { "applications": ["WireGuard"] },
      "mark": "0x11/0xff", "ipset": { "name": "TUNNELS" } },
    { "name": "names", "match": { "applications": ["DNS"] },
      "mark": "0x12/0xff", "ipset": { "name": "RESOLVERS" } }
  ]
}
END
)
serve_dns host.lab.test=$SERVER4
serve_wireguard 41414 # not its well-known port: known by what it says
start_daemon "$policy"
for family in 4 6; do
	suffix=${family#4}
	witness $family mangle FORWARD tunnel -p udp -m set --match-set "TUNNELS$suffix" dst,dst,src
	witness $family mangle FORWARD tunnel-back -p udp -m set --match-set "TUNNELS$suffix" src,src,dst
	witness $family mangle PREROUTING tunnel-mark -p udp -m mark --mark 0x11/0xff
	witness $family mangle FORWARD names -p udp -m set --match-set "RESOLVERS$suffix" dst,dst,src
done

dial_wireguard $SERVER4 41414
expect_soon "the tunnel works over IPv4" 20 tunnel_answers 10.99.2.1
expect_soon "TUNNELS holds udp:41414" 10 entry TUNNELS "$SERVER4,udp:41414,$CLIENT4"
refuse "and not tcp:41414" entry TUNNELS "$SERVER4,tcp:41414,$CLIENT4"
in_ns client ping -q -c 5 -i 0.2 10.99.2.1 >/dev/null
at_least "IPv4 tunnel packets matched by the set" "$(hits 4 mangle tunnel)" 5
at_least "and on the way back" "$(hits 4 mangle tunnel-back)" 5
at_least "IPv4 tunnel packets marked by TC" "$(hits 4 mangle tunnel-mark)" 5

# A new handshake is needed for the flow over IPv6 to be one.
in_ns client wg set "$WG_CLIENT" peer "$(wg pubkey <"$LAB_DIR/$WG_SERVER.key")" remove
dial_wireguard $SERVER6 41414
expect_soon "the tunnel works over IPv6" 20 tunnel_answers 10.99.2.1
expect_soon "TUNNELS6 holds udp:41414" 10 entry TUNNELS6 "$SERVER6,udp:41414,$CLIENT6"
in_ns client ping -q -c 5 -i 0.2 10.99.2.1 >/dev/null
at_least "IPv6 tunnel packets matched by the set" "$(hits 6 mangle tunnel)" 5
at_least "IPv6 tunnel packets marked by TC" "$(hits 6 mangle tunnel-mark)" 5

in_ns client dig +short +tries=1 @$SERVER4 host.lab.test >/dev/null || fail "no answer from the resolver"
expect_soon "RESOLVERS holds udp:53" 10 entry RESOLVERS "$SERVER4,udp:53,$CLIENT4"
before=$(hits 4 mangle names)
in_ns client dig +short +tries=1 @$SERVER4 host.lab.test >/dev/null || fail "no answer from the resolver"
at_least "the next question's packet matched by the set" $(($(hits 4 mangle names) - before)) 1
