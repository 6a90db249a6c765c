#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Real tunnels on ports that say nothing: OpenVPN in all its eight forms, and WireGuard on its own port and on
# others. Each is named, by nDPI or by a detector, and with "drop" it does not come up. Prints at which
# packet each was named, and how much of it passed before the drop, which depends on the machine's load:
# docs/accuracy.md has the table.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start tunnels
need openvpn wireguard-go wg openssl
[ -c /dev/net/tun ] || skip "no /dev/net/tun"

# tunnel_policy NAME ACTIONS
tunnel_policy() {
	write_policy "$1" <<END
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [ { "name": "vpn", "match": { "applications": ["OpenVPN", "WireGuard"] }, $2 } ]
}
END
}

# flow_to udp|tcp PORT: the record of the client's flow.
flow_to() {
	l7mark flows --json | jq -c --arg proto "$1" --argjson port "$2" \
		'select(.proto == $proto and .dport == $port and .src != "'$SERVER4'")' | head -1
}

named() { [ "$(flow_to "$1" "$2" | jq -r .application)" = "$3" ]; }

# named_by udp|tcp PORT: the detector, or "nDPI" where it needs none.
named_by() { flow_to "$1" "$2" | jq -r '.detector // "nDPI"'; }

# expect_named TEXT udp|tcp PORT APPLICATION DETECTOR
expect_named() {
	local by
	expect_soon "$1 is $4" 15 named "$2" "$3" "$4"
	by=$(named_by "$2" "$3")
	expect "$1 is named by its content: $by" [ "$by" = "$5" -o "$by" = nDPI ]
	equal "$1: state" "$(flow_to "$2" "$3" | jq -r .state)" final
}

# count_passed udp|tcp PORT: from now on, what the other side gets of that tunnel.
count_passed() {
	in_ns server iptables -w -t mangle -A PREROUTING -i up0 -p "$1" --dport "$2" -m comment --comment "passed-$2"
	in_ns client iptables -w -t mangle -A PREROUTING -i eth0 -p "$1" --sport "$2" -m comment --comment "passed-$2"
}

# passed PORT: packets and bytes.
passed() {
	{
		in_ns server iptables -w -t mangle -nvxL PREROUTING
		in_ns client iptables -w -t mangle -nvxL PREROUTING
	} | awk -v name="/* passed-$1 */" 'index($0, name) { n += $1; b += $2 } END { print n + 0, b + 0 }'
}

rows=()

# --- named -------------------------------------------------------------------------------------

declare -A at by
start_daemon "$(tunnel_policy name '"log": true')"
port=7100
for transport in udp tcp; do
	for form in plain tls-auth tls-crypt tls-crypt-v2; do
		port=$((port + 1))
		name="OpenVPN $form over $transport"
		serve_openvpn $transport $port $form
		dial_openvpn $transport $SERVER4 $port $form
		expect_soon "$name: the tunnel is up" 30 tunnel_answers 10.99.1.1
		expect_named "$name" $transport $port OpenVPN openvpn
		at[$port]=$(flow_to $transport $port | jq .sampled_packets)
		by[$port]=$(named_by $transport $port)
		hang_up "$OPENVPN_CLIENT" "$OPENVPN_SERVER"
	done
done
# Only a detector names these where nDPI is 4.2.
case $(l7mark status --json | jq -r .ndpi) in
4.2.*) for port in 7103 7104 7105 7107 7108; do equal "port $port: named by" "${by[$port]}" openvpn; done ;;
esac

# wireguard_to PORT: to the server on another port, as a new peer, so that a handshake is the first.
wireguard_to() {
	in_ns server wg set "$WG_SERVER" listen-port "$1"
	in_ns client wg set "$WG_CLIENT" peer "$(wg pubkey <"$LAB_DIR/$WG_SERVER.key")" remove
	in_ns client wg set "$WG_CLIENT" listen-port 0
	sleep 1
	dial_wireguard $SERVER4 "$1"
}

serve_wireguard 51820
for port in 51820 443 4443; do
	wireguard_to $port
	expect_soon "WireGuard on $port: the tunnel is up" 30 tunnel_answers 10.99.2.1
	expect_named "WireGuard on $port" udp $port WireGuard wireguard
	at[$port]=$(flow_to udp $port | jq .sampled_packets)
	by[$port]=$(named_by udp $port)
done
in_ns client wg set "$WG_CLIENT" peer "$(wg pubkey <"$LAB_DIR/$WG_SERVER.key")" remove
stop_daemon

# --- dropped -----------------------------------------------------------------------------------

# expect_dropped NAME TRANSPORT PORT ADDRESS PORT-WHEN-NAMED: the tunnel, which has just been dialled, is dropped.
expect_dropped() {
	expect_soon "$1 is found out" 15 named "$2" "$3" "${1%% *}"
	sleep 3
	refuse "$1 is blocked" tunnel_answers "$4"
	local packets bytes
	read -r packets bytes <<<"$(passed "$3")"
	rows+=("| $1 | ${by[$5]} | ${at[$5]} | $packets | $bytes |")
}

start_daemon "$(tunnel_policy drop '"drop": true')"
port=7200
for transport in udp tcp; do
	for form in plain tls-auth tls-crypt tls-crypt-v2; do
		port=$((port + 1))
		serve_openvpn $transport $port $form
		count_passed $transport $port
		dial_openvpn $transport $SERVER4 $port $form
		expect_dropped "OpenVPN $form over $transport" $transport $port 10.99.1.1 $((port - 100))
		hang_up "$OPENVPN_CLIENT" "$OPENVPN_SERVER"
	done
done
for port in 51820 443 4443; do
	count_passed udp $port
	wireguard_to $port
	expect_dropped "WireGuard on $port" udp $port 10.99.2.1 $port
done

say
say "| tunnel | named by | at sampled packet | packets passed | bytes passed |"
say "|---|---|---|---|---|"
printf '%s\n' "${rows[@]}"
