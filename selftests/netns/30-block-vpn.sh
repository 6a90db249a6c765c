#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# First job: evasive VPNs are blocked (OpenVPN and WireGuard on ports that are not theirs, OpenVPN
# hidden in TLS on port 443) while HTTPS to the same server goes on.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start vpn
need openvpn wireguard-go wg curl openssl socat ipset
policy=$(
	write_policy block-vpn <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [
    { "name": "vpn", "match": { "applications": ["OpenVPN", "WireGuard"] },
      "drop": true, "ipset": { "name": "VPN" } },
    // 15: TLS that does not carry HTTPS, nDPI's word for a tunnel in TLS.
    { "name": "hidden", "match": { "risks": [15] }, "drop": true, "ipset": { "name": "HIDDEN" } }
  ]
}
END
)
serve_openvpn udp 5000
serve_openvpn_over_tls() {
	serve_openvpn tcp 1195
	make_cert cdn.lab.test
	spawn server stunnel socat \
		"OPENSSL-LISTEN:443,pf=ip6,ipv6only=0,fork,reuseaddr,cert=$LAB_DIR/cdn.lab.test.pem,verify=0" TCP:127.0.0.1:1195
	serving server tcp 443 stunnel
	spawn client stunnel-client socat TCP-LISTEN:5001,bind=127.0.0.1,fork,reuseaddr \
		"OPENSSL:$SERVER4:443,verify=0,snihost=cdn.lab.test"
	serving client tcp 5001 stunnel-client
}
serve_wireguard 5353
serve_tls 8443 www.example.org
https() { fetch https://www.example.org:8443/index.html "${1:-$SERVER4}"; }

# Each tunnel works while nobody blocks it: else its failing later would say nothing.
dial_openvpn udp $SERVER4 5000
expect_soon "unblocked: OpenVPN" 30 tunnel_answers 10.99.1.1
hang_up "$OPENVPN_CLIENT" "$OPENVPN_SERVER"
dial_wireguard $SERVER4 5353
expect_soon "unblocked: WireGuard" 30 tunnel_answers 10.99.2.1
in_ns client wg set "$WG_CLIENT" peer "$(wg pubkey <"$LAB_DIR/$WG_SERVER.key")" remove
serve_openvpn_over_tls
hidden_server=$OPENVPN_SERVER
dial_openvpn tcp 127.0.0.1 5001
expect_soon "unblocked: OpenVPN in TLS" 30 tunnel_answers 10.99.1.1
hang_up "$OPENVPN_CLIENT"

start_daemon "$policy"
expect "HTTPS works" https
dial_openvpn tcp 127.0.0.1 5001
expect_soon "the tunnel in TLS is found out" 20 entry HIDDEN "$SERVER4,tcp:443,$CLIENT4"
hang_up "$OPENVPN_CLIENT"
dial_openvpn tcp 127.0.0.1 5001
sleep 5
refuse "blocked: OpenVPN in TLS" tunnel_answers 10.99.1.1
hang_up "$OPENVPN_CLIENT" "$hidden_server"

serve_openvpn udp 5000
dial_openvpn udp $SERVER4 5000
expect_soon "OpenVPN is found out" 20 entry VPN "$SERVER4,udp:5000,$CLIENT4"
sleep 5
refuse "blocked: OpenVPN" tunnel_answers 10.99.1.1

dial_wireguard $SERVER6 5353
in_ns client ping -c 1 -W 1 10.99.2.1 >/dev/null || true
expect_soon "WireGuard is found out" 20 entry VPN6 "$SERVER6,udp:5353,$CLIENT6"
in_ns client ping -c 1 -W 1 10.99.2.1 >/dev/null || true
refuse "blocked: WireGuard" tunnel_answers 10.99.2.1

# Nothing of them gets as far as iptables any more, while HTTPS does.
witness 4 mangle FORWARD openvpn -p udp --dport 5000
witness 6 mangle FORWARD wireguard -p udp --dport 5353
witness 4 mangle FORWARD https -p tcp --dport 8443
sleep 3
expect "HTTPS over IPv4 goes on" https $SERVER4
expect "HTTPS over IPv6 goes on" https $SERVER6
equal "OpenVPN packets forwarded" "$(hits 4 mangle openvpn)" 0
equal "WireGuard packets forwarded" "$(hits 6 mangle wireguard)" 0
at_least "HTTPS packets forwarded" "$(hits 4 mangle https)" 5
