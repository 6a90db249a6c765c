#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# The mark is on a flow's first packet: by service memory from a server's second connection on, by the
# resolver's answer from the first. Names that disagree about an address promise nothing, and the policy
# can turn both off.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start first
need bpftool dig dnsmasq getent openssl socat unshare
# policy SERVICES HINTS [HOSTNAME]: of the class of films. A quiet flow is given up after IDLE seconds.
policy() {
	write_policy first <<END
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "first_packet": { "services": $1, "hints": $2 },
  "sampling": { "idle_timeout": ${IDLE:-3} },
  "classes": [
    { "name": "meetings", "match": { "applications": ["Zoom"] }, "mark": "0x10/0xf0" },
    { "name": "films", "match": { "hostnames": ["${3:-*.films.test}"] }, "mark": "0x20/0xf0" }
  ]
}
END
}
# Addresses for one part each, so that no part knows anything from another.
SHARED4=198.51.100.12 SHARED6=2001:db8:5::12
OFF4=198.51.100.13 OFF6=2001:db8:5::13
LATER4=198.51.100.14
PLAIN4=198.51.100.15
for address in $SHARED4/32 $OFF4/32 $LATER4/32 $PLAIN4/32; do in_ns server ip addr add "$address" dev lo; done
for address in $SHARED6/128 $OFF6/128; do in_ns server ip addr add "$address" dev lo nodad; done
serve_dns us05web.zoom.us=$OTHER4 us05web.zoom.us=$OTHER6 \
	us06web.zoom.us=$SHARED4 us06web.zoom.us=$SHARED6 www.films.test=$SHARED4 www.films.test=$SHARED6 \
	us07web.zoom.us=$OFF4 us07web.zoom.us=$OFF6 www.plays.test=$LATER4 \
	www.plain.test=$PLAIN4 us08web.zoom.us=$PLAIN4
serve_tls_echo 443 us04web.zoom.us

# PREROUTING comes right after our program at lan0.
for family in 4 6; do
	for mark in 0x0 0x10 0x20; do
		witness $family mangle PREROUTING syn-$mark -i lan0 -p tcp --dport 443 --syn -m mark --mark $mark/0xf0
	done
	witness $family mangle PREROUTING meetings -i lan0 -p tcp --dport 443 -m mark --mark 0x10/0xf0
done

SYN_MARKS=(0x0 0x10 0x20)
syns() {
	local mark
	for mark in "${SYN_MARKS[@]}"; do hits "$1" mangle "syn-$mark"; done | xargs
}

# A SYN may be sent twice on a busy machine: each counter is looked at for none or some.
some() {
	local after before i
	read -ra after <<<"$1"
	read -ra before <<<"$2"
	for i in 0 1 2; do
		if [ "${after[i]}" -gt "${before[i]}" ]; then printf '%s ' "${SYN_MARKS[i]}"; fi
	done | xargs
}

# connect TEXT NAME SERVER-NAME ADDRESS MARK: a new connection works, and its SYN has that mark and no other.
connect() {
	local family=4 before
	case $4 in *:*) family=6 ;; esac
	before=$(syns $family)
	open_tls "$2" "$3" "$4" 443
	talk "$2" hello || fail "$1: the connection does not work"
	equal "$1: mark of the SYN" "$(some "$(syns $family)" "$before")" "$5"
}

# told_by ADDRESS: how the flows to it were marked first, of each once.
told_by() {
	l7mark flows --json | jq -r --arg dst "$1" 'select(.dst == $dst and .dport == 443) | .marked_first_by // "nothing"' |
		sort | uniq -c | xargs
}

# learnt NAME ADDRESS: service memory (services) or the resolver's answer (hints) is in the kernel's map.
learnt() {
	bpftool -j map dump pinned "$(echo "/sys/fs/bpf/l7mark/$INSTANCE"/v*/"$1")" |
		jq -e --argjson server "$(server_bytes "$2")" 'any(.[]; .key[0:16] == $server)' >/dev/null
}

# server_bytes ADDRESS: its 16 bytes, as bpftool prints those of a key. The lab's IPv6 servers have one form.
server_bytes() {
	local octets four
	case $1 in
	*.*)
		IFS=. read -ra four <<<"$1"
		printf -v octets '"0x%02x",' 0 0 0 0 0 0 0 0 0 0 255 255 "${four[@]}"
		;;
	*) printf -v octets '"0x%02x",' 0x20 0x01 0x0d 0xb8 0 5 0 0 0 0 0 0 0 0 0 "0x${1##*:}" ;;
	esac
	echo "[${octets%,}]"
}

# asked NAME: the daemon is done with the question, and so with what the answers promise.
asked() {
	l7mark flows --json | jq -es --arg name "$1" 'any(.[]; .dport == 53 and .hostname == $name and .state == "final")'
}

# meets NAME FAMILY: later packets of that connection have the class's mark.
meets() {
	local before
	before=$(hits "$2" mangle meetings)
	talk "$1" "word $RANDOM$RANDOM"
	[ "$(hits "$2" mangle meetings)" -gt "$before" ]
}

# ask NAME [OPTIONS]: as programs do, by the C library: A and AAAA from one socket.
echo 'hosts: dns' >"$LAB_DIR/nsswitch.conf"
ask() {
	printf 'nameserver %s\n%s\n' $SERVER4 "${2:+options $2}" >"$LAB_DIR/resolv.conf"
	# shellcheck disable=SC2016 # for the inner shell
	in_ns client unshare -m sh -c 'mount --make-rprivate / && mount --bind "$1/resolv.conf" /etc/resolv.conf &&
		mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf && exec getent ahosts "$2"' - "$LAB_DIR" "$1" |
		awk '{ print $1 }' | sort -u | xargs
}
start_daemon "$(policy true true)"

# --- service memory ----------------------------------------------------------------------------
for family in 4 6; do
	server=$SERVER4
	[ $family = 4 ] || server=$SERVER6
	connect "IPv$family: a first, unknown flow" first$family us04web.zoom.us $server 0x0
	expect_soon "IPv$family: it is known and marked" 15 meets first$family $family
	expect_soon "IPv$family: its service is remembered" 10 learnt services $server
	connect "IPv$family: the next flow to the service" second$family us04web.zoom.us $server 0x10
	equal "IPv$family: flows --json tells who marked them first" "$(told_by $server)" "1 nothing 1 service"
done

# --- marked, and without an answer ------------------------------------------------------------------
# listed ADDRESS SOURCE CONFIDENCE STATE: a flow of the class is, with these.
listed() {
	l7mark flows --json | jq -es --arg dst "$1" --argjson wanted "[$2,$3,$4]" \
		'any(.[]; .dst == $dst and .class == "meetings" and [.source, .confidence, .state] == $wanted)'
}
expect_soon "an answered flow: the answer decides" 10 listed $SERVER4 '"answer"' '"dpi"' '"final"'
IDLE=600 policy true true >/dev/null
expect "a policy that waits for quiet flows is loaded" l7mark reload
expect_soon "its service is remembered still" 10 learnt services $SERVER4
spawn client silent socat "TCP:$SERVER4:443" EXEC:'sleep 600'
silent=$SPAWNED
expect_soon "a flow that says nothing: its service decides" 10 listed $SERVER4 '"service"' null '"provisional"'
hang_up "$silent"
policy true true >/dev/null
expect "the first policy is loaded again" l7mark reload

# --- the resolver's answer ------------------------------------------------------------------------
spawn client tcpdump-dns tcpdump -Z root --immediate-mode -ni eth0 -U -w "$LAB_DIR/dns.pcap" udp dst port 53
recorder=$SPAWNED
wait_for 10 test -s "$LAB_DIR/dns.pcap" || fail "tcpdump does not start"
# The second query goes out when the first is answered: the hardest case of the two on one socket.
equal "the C library's answers" "$(ask us05web.zoom.us single-request)" "$OTHER4 $OTHER6"
queries() { tcpdump -nr "$LAB_DIR/dns.pcap" 2>/dev/null | awk '{ print $3 }'; }
both_recorded() { [ "$(queries | wc -l)" -ge 2 ]; }
wait_for 10 both_recorded || fail "tcpdump has not seen two queries"
hang_up "$recorder"
equal "sockets that asked for A and AAAA" "$(queries | sort -u | wc -l)" 1
expect_soon "the A answer is in the kernel" 10 learnt hints $OTHER4
expect_soon "the AAAA answer is in the kernel" 10 learnt hints $OTHER6
connect "IPv4: the first flow to an address that DNS gave for Zoom" hinted4 us05web.zoom.us $OTHER4 0x10
connect "IPv6: the same" hinted6 us05web.zoom.us $OTHER6 0x10
equal "IPv4: flows --json tells that DNS did it" "$(told_by $OTHER4)" "1 dns"
equal "IPv6: the same" "$(told_by $OTHER6)" "1 dns"

# --- names that disagree ----------------------------------------------------------------------------
mixed() { l7mark status --json | jq .hints.mixed; }
mixed_before=$(mixed)
equal "a name of the one class" "$(ask us06web.zoom.us)" "$SHARED4 $SHARED6"
expect_soon "its promise is in the kernel" 10 learnt hints $SHARED6
equal "a name of the other class at the same addresses" "$(ask www.films.test)" "$SHARED4 $SHARED6"
both_mixed() { [ $(($(mixed) - mixed_before)) -eq 2 ]; }
expect_soon "status counts both addresses" 10 both_mixed
connect "IPv4: a flow to a shared address" shared4 us06web.zoom.us $SHARED4 0x0
connect "IPv6: the same" shared6 us06web.zoom.us $SHARED6 0x0
equal "nothing marked it first" "$(told_by $SHARED4)" "1 nothing"
expect_soon "its content does" 15 meets shared4 4
# Also where the other name has no class, and was asked for first.
mixed_before=$(mixed)
equal "a name of no class at an address" "$(ask www.plain.test)" "$PLAIN4"
expect_soon "the daemon has seen the answer" 10 asked www.plain.test
equal "a name of a class at the same address" "$(ask us08web.zoom.us)" "$PLAIN4"
one_mixed() { [ $(($(mixed) - mixed_before)) -eq 1 ]; }
expect_soon "status counts the address" 10 one_mixed
connect "a flow to an address shared with a name of no class" plain4 us08web.zoom.us $PLAIN4 0x0

# --- a name that only a later policy knows ------------------------------------------------------------
equal "a name of no class" "$(ask www.plays.test)" "$LATER4"
expect_soon "the daemon has seen the answer" 10 asked www.plays.test
connect "a name of no class: a flow" plays-before www.plays.test $LATER4 0x0
policy true true '*.plays.test' >/dev/null
expect "a policy that has a class for it is loaded" l7mark reload
equal "the name asked for again" "$(ask www.plays.test)" "$LATER4"
expect_soon "its promise is in the kernel" 10 learnt hints $LATER4
connect "a name that has a class now: a flow" plays-after www.plays.test $LATER4 0x20
policy true true >/dev/null
expect "a policy without it is loaded again" l7mark reload
connect "a name whose class is gone: a flow" plays-gone www.plays.test $LATER4 0x0

# --- turned off --------------------------------------------------------------------------------------
policy false false >/dev/null
expect "a policy without both is loaded" l7mark reload
equal "the C library's answers" "$(ask us07web.zoom.us)" "$OFF4 $OFF6"
expect_soon "the daemon has seen them" 10 asked us07web.zoom.us
connect "turned off: a flow to an address that DNS gave for Zoom" off4 us07web.zoom.us $OFF4 0x0
expect_soon "its content marks it" 15 meets off4 4
connect "turned off: the next flow to the service" off-second4 us07web.zoom.us $OFF4 0x0
connect "turned off: a service known from before" off-known4 us04web.zoom.us $SERVER4 0x0
connect "turned off, IPv6: the same" off-known6 us04web.zoom.us $SERVER6 0x0
connect "turned off: an address of an answer known from before" off-hinted4 us05web.zoom.us $OTHER4 0x0
stop_daemon
start_daemon "$LAB_DIR/first.jsonc"
equal "turned off from the start: the C library's answers" "$(ask us07web.zoom.us)" "$OFF4 $OFF6"
expect_soon "the daemon has seen them" 10 asked us07web.zoom.us
connect "turned off from the start: a flow" cold4 us07web.zoom.us $OFF4 0x0
expect_soon "its content marks it" 15 meets cold4 4
connect "turned off from the start: the next flow" cold-second4 us07web.zoom.us $OFF4 0x0
