#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# examples/block-vpn.jsonc as it is: what is on port 443 and is neither TLS nor QUIC (a stream without a
# known form, ssh, datagrams) is blocked, while HTTPS there goes on, and so does all that is exempted.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start not-tls
need curl openssl socat ssh dropbear
shell4=198.51.100.12 raw4=198.51.100.13
for address in $shell4 $raw4; do in_ns server ip addr add "$address/32" dev lo; done

# echo_on tcp|udp ADDRESS: port 443 of that address sends back what it gets.
echo_on() {
	local kind=${1^^}4
	case $2 in *:*) kind=${1^^}6 ;; esac
	spawn server "echo-$1-$2" socat "$kind-LISTEN:443,bind=$(bracket "$2"),fork,reuseaddr" EXEC:cat
}
for address in $SERVER4 $raw4 $OTHER6; do
	for kind in tcp udp; do echo_on $kind "$address"; done
done
serve_http 80
make_cert www.example.org
for address in $OTHER4 $SERVER6; do
	spawn server "tls-$address" socat \
		"OPENSSL-LISTEN:443,pf=$([ "$address" = $OTHER4 ] && echo ip4 || echo ip6),bind=$(bracket "$address"),fork,reuseaddr,cert=$LAB_DIR/www.example.org.pem,verify=0" \
		TCP:127.0.0.1:80
done
dropbearkey -t ed25519 -f "$LAB_DIR/host_key" >/dev/null 2>&1
spawn server ssh dropbear -F -E -s -r "$LAB_DIR/host_key" -p $shell4:443 -P "$LAB_DIR/dropbear.pid"
all_listen() { [ "$(in_ns server ss -Hltn 'sport = :443' | wc -l)" -eq 6 ]; }
wait_for 15 all_listen || fail "not all services listen"
https() { fetch https://www.example.org/index.html "$1"; }

expect "unblocked: ssh on port 443" talk_ssh $shell4 443
start_daemon "$REPO/examples/block-vpn.jsonc"

# words NAME: says so many that every sample of the flow is complete; fails once one gets no answer.
words() {
	local number
	for number in {1..30}; do
		say_on "$1" "word $number of $1" 2>/dev/null || return 1
		wait_for 2 hears "$1" "word $number of $1" || return 1
	done
}
for kind in tcp udp; do
	for address in $raw4 $OTHER6; do
		open_line "$kind-$address" socat - "${kind^^}:$(bracket "$address"):443"
		refuse "$kind to $address: a stream without a known form is cut off" words "$kind-$address"
	done
	open_line "$kind-exempt" socat - "${kind^^}:$SERVER4:443"
	expect "$kind to an exempted server: it goes on" words "$kind-exempt"
done
refuse "ssh on port 443 does not get as far as its login" talk_ssh $shell4 443
for address in $OTHER4 $SERVER6; do
	for number in 1 2 3; do expect "HTTPS to $address, $number" https "$address"; done
	expect "16 MiB by HTTPS from $address" fetch https://www.example.org/big.bin "$address"
done

# Nothing of the stream gets as far as iptables any more, either way.
witness 4 mangle PREROUTING raw -i lan0 -p tcp -d $raw4 --dport 443
say_on "tcp-$raw4" more || true
sleep 2
equal "packets of the cut stream behind l7mark" "$(hits 4 mangle raw)" 0
