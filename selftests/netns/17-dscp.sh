#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# DSCP is written into the packets of a class, in both directions and both IP versions, and ECN is
# left alone; read from the wire with tcpdump.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start dscp
need tcpdump openssl socat
policy=$(
	write_policy dscp <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [ { "name": "zoom", "match": { "applications": ["Zoom"] }, "dscp": "EF" } ]
}
END
)
for role in client server; do in_ns $role sysctl -qw net.ipv4.tcp_ecn=1; done
serve_tls_echo 443 us04web.zoom.us
serve_tls_echo 8443 www.example.org
start_daemon "$policy"
for family in 4 6; do witness $family mangle FORWARD ef -p tcp --dport 443 -m dscp --dscp-class EF; done

spawn server tcpdump-server tcpdump -Z root --immediate-mode -ni up0 -U -w "$LAB_DIR/server.pcap" tcp
at_server=$SPAWNED
spawn client tcpdump-client tcpdump -Z root --immediate-mode -ni eth0 -U -w "$LAB_DIR/client.pcap" tcp
at_client=$SPAWNED
wait_for 10 test -s "$LAB_DIR/server.pcap" -a -s "$LAB_DIR/client.pcap" || fail "tcpdump does not start"

for family in 4 6; do
	if [ $family = 4 ]; then server=$SERVER4 other=$OTHER4; else server=$SERVER6 other=$OTHER6; fi
	open_tls "zoom$family" us04web.zoom.us $server 443
	open_tls "other$family" www.example.org $other 8443
	for word in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
		talk "zoom$family" "word $word" || fail "the Zoom connection broke"
		talk "other$family" "word $word" || fail "the other connection broke"
	done
done
sleep 1
hang_up "$at_server" "$at_client"

# packets FILE FILTER
packets() { tcpdump -nr "$LAB_DIR/$1.pcap" "$2" 2>/dev/null | wc -l; }
ef4='(ip[1] & 0xfc = 0xb8)'
ef6='(ip6[0:2] & 0x0fc0 = 0x0b80)'
at_least "IPv4: EF on its way to the server" "$(packets server "dst port 443 and $ef4")" 5
at_least "IPv4: EF on its way to the client" "$(packets client "src port 443 and $ef4")" 5
at_least "IPv6: EF on its way to the server" "$(packets server "dst port 443 and $ef6")" 5
at_least "IPv6: EF on its way to the client" "$(packets client "src port 443 and $ef6")" 5
at_least "IPv4: ECN-capable packets among them" "$(packets server "dst port 443 and ip[1] = 0xba")" 1
equal "IPv4: DSCP on the other flow" "$(packets server "port 8443 and ip[1] & 0xfc != 0")" 0
equal "IPv6: DSCP on the other flow" "$(packets server "port 8443 and ip6[0:2] & 0x0fc0 != 0")" 0
at_least "IPv4: iptables sees EF" "$(hits 4 mangle ef)" 5
at_least "IPv6: ip6tables sees EF" "$(hits 6 mangle ef)" 5

# tcpdump -v names a wrong IPv4 header checksum; TCP's is the sender's offload's business.
equal "IPv4 headers with a wrong checksum" \
	"$(tcpdump -nvr "$LAB_DIR/server.pcap" ip 2>/dev/null | grep -c 'bad cksum [0-9a-f]* (->.*)!' || true)" 0
