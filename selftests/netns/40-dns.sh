#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Which DNS answers are believed, and of which addresses: none that nobody asked for, those of a socket
# that lives long to the last, none for private addresses, none that drop, and no more than
# limits.hints.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start dns
need bpftool dig dnsmasq openssl socat
# policy HINTS [LIMIT] [MORE]: service memory is off, so that nothing but DNS tells of a server.
policy() {
	write_policy dns <<END
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "limits": { "hints": ${2:-1024} },
  "first_packet": { "services": false, $1 },
  ${3:-}
  "classes": [
    { "name": "films", "match": { "hostnames": ["*.films.test"] }, "drop": true },
    { "name": "meetings", "match": { "applications": ["Zoom"] }, "mark": "0x10/0xf0" }
  ]
}
END
}
FORGED4=198.51.100.20 FILMS4=198.51.100.21 LATE4=198.51.100.22 OWN4=198.51.100.23 MINE4=198.51.100.24
INSIDE4=192.168.77.10
EXEMPT4=10.77.1.3
for address in $FORGED4 $FILMS4 $LATE4 $MINE4 $INSIDE4; do in_ns server ip addr add "$address/32" dev lo; done
in_ns gateway ip addr add $OWN4/32 dev lo
in_ns client ip addr add $EXEMPT4/24 dev eth0
serve_tls_echo 443 www.plain.test
witness 4 mangle PREROUTING syn-marked -i lan0 -p tcp --dport 443 --syn -m mark --mark 0x10/0xf0
witness 4 mangle PREROUTING syn-plain -i lan0 -p tcp --dport 443 --syn -m mark --mark 0x0/0xf0

# connect TEXT ADDRESS marked|plain [CLIENT]: the connection works, and its SYN has that mark.
connect() {
	local before other=plain problem
	[ "$3" = marked ] || other=marked
	before="$(hits 4 mangle "syn-$3") $(hits 4 mangle "syn-$other")"
	problem=$(in_ns client timeout 10 socat -u OPEN:/dev/null "TCP:$2:443,bind=${4:-$CLIENT4}" 2>&1) ||
		fail "$1: no connection: $problem"
	expect "$1: the SYN is $3" [ "$(hits 4 mangle "syn-$3")" -gt "${before% *}" ]
	equal "$1: SYNs that are $other" "$(hits 4 mangle "syn-$other")" "${before#* }"
}

# hint ADDRESS: there is a promise for it in the kernel's map.
hint() {
	local a b c d
	IFS=. read -r a b c d <<<"$1"
	bpftool -j map dump pinned "$(echo "/sys/fs/bpf/l7mark/$INSTANCE"/v*/hints)" |
		jq -e --argjson server "$(printf '["0x00","0x00","0x00","0x00","0x00","0x00","0x00","0x00","0x00","0x00","0xff","0xff","0x%02x","0x%02x","0x%02x","0x%02x"]' "$a" "$b" "$c" "$d")" \
			'any(.[]; .key[0:16] == $server)' >/dev/null
}

# ask NAME [OPTIONS]: an answer has come.
ask() { [ -n "$(in_ns client dig +short +tries=1 +time=3 @$SERVER4 "$@")" ]; }

# told NAME: of `hints` in the status; unasked: answers that nobody asked for.
told() { l7mark status --json | jq ".hints.$1"; }
unasked() { l7mark status --json | jq '[.workers[].dns_unasked] | add'; }

# forged NAME ADDRESS: an answer as DNS would give it, id 0x4711.
forged() {
	local label a b c d out='\x47\x11\x81\x80\0\1\0\1\0\0\0\0'
	for label in ${1//./ }; do out+=$(printf '\\x%02x%s' ${#label} "$label"); done
	IFS=. read -r a b c d <<<"$2"
	out+='\0\0\1\0\1\xc0\x0c\0\1\0\1\0\0\x0e\x10\0\4'
	out+=$(printf '\\x%02x\\x%02x\\x%02x\\x%02x' "$a" "$b" "$c" "$d")
	printf '%b' "${out//\\0/\\x00}"
}

# send_forged PORT NAME ADDRESS: to the client, from port 53 of its resolver.
send_forged() { forged "$2" "$3" | in_ns server socat -u STDIN "UDP4-SENDTO:$CLIENT4:$1,bind=$SERVER4:53"; }

# --- nobody asked -----------------------------------------------------------------------------------
start_daemon "$(policy '"hints": true')"
send_forged 40001 www.films.test $FORGED4
send_forged 40002 us01web.zoom.us $FORGED4
two_unasked() { [ "$(unasked)" = 2 ]; }
expect_soon "status counts the answers that nobody asked for" 10 two_unasked
refuse "they leave nothing in the kernel" hint $FORGED4
connect "an address that strangers named" $FORGED4 plain

# --- asked -------------------------------------------------------------------------------------------
serve_dns us02web.zoom.us=$OTHER4 www.films.test=$FILMS4 us03web.zoom.us=$LATE4 \
	us04web.zoom.us=$OWN4 us05web.zoom.us=$MINE4 us06web.zoom.us=$INSIDE4 www.plain.test=$SERVER4
expect "a name of a class that marks" ask us02web.zoom.us
expect_soon "its promise is in the kernel" 10 hint $OTHER4
connect "its address" $OTHER4 marked
expect "a name of a class that drops" ask www.films.test
expect "a name behind it" ask us05web.zoom.us
expect_soon "the later answer is in the kernel" 10 hint $MINE4
refuse "a name drops nothing" hint $FILMS4
connect "its address, where other names may be" $FILMS4 plain

# --- one socket for all -------------------------------------------------------------------------------
for _ in $(seq 30); do ask www.plain.test -b "$CLIENT4#40053" || fail "no answer on the socket that lives long"; done
equal "flows of the socket" "$(l7mark flows --json | jq -s '[.[] | select(.sport == 40053)] | length')" 1
expect "the socket's next question" ask us03web.zoom.us -b "$CLIENT4#40053"
expect_soon "its answer is in the kernel" 10 hint $LATE4
connect "its address" $LATE4 marked

# verdict: the flow of the socket has one.
verdict() {
	bpftool -j map dump pinned "$(echo "/sys/fs/bpf/l7mark/$INSTANCE"/v*/flows4)" |
		jq -e 'any(.[]; .key[8:10] == ["0x9c", "0x75"] or .key[10:12] == ["0x9c", "0x75"])' >/dev/null
}
refuse "as long as it is read it has no verdict" verdict
policy '"hints": false' >/dev/null
expect "a policy without hints is loaded" l7mark reload
expect_soon "nothing of it is read any more" 10 verdict
policy '"hints": true' >/dev/null
expect "a policy with hints is loaded again" l7mark reload

# --- addresses that get none ---------------------------------------------------------------------------
expect "a name at this gateway's own address" ask us04web.zoom.us
expect "a name at a private address" ask us06web.zoom.us
two_private() { [ "$(told private)" = 2 ]; }
expect_soon "status counts both" 10 two_private
refuse "there is none for our own" hint $OWN4
refuse "there is none for a private one" hint $INSIDE4
connect "a private address" $INSIDE4 plain
policy '"hints": true, "private_hints": ["192.168.77.0/24"]' >/dev/null
expect "a policy that allows them is loaded" l7mark reload
expect "the name is asked for again" ask us06web.zoom.us
expect_soon "its promise is in the kernel" 10 hint $INSIDE4
connect "a private address that the policy allows" $INSIDE4 marked

# --- a client that is exempted ---------------------------------------------------------------------------
policy '"hints": true' 1024 "\"exemptions\": [ { \"clients\": [\"$EXEMPT4/32\"] } ]," >/dev/null
expect "a policy that exempts a client is loaded" l7mark reload
expect "another client asks" ask us02web.zoom.us
expect_soon "the answer is in the kernel" 10 hint $OTHER4
connect "the client that is not exempted" $OTHER4 marked
connect "the one that is" $OTHER4 plain $EXEMPT4
expect "the exempted one asks" ask us02web.zoom.us -b $EXEMPT4
connect "the one that is, after its own question" $OTHER4 plain $EXEMPT4
stop_daemon

# --- no more than limits.hints -----------------------------------------------------------------------------
start_daemon "$(policy '"hints": true' 64)"
names=()
for i in $(seq 100); do names+=("host$i.zoom.us=203.0.113.$i"); done
hang_up "$SPAWNED"
serve_dns "${names[@]}"
for i in $(seq 100); do echo "host$i.zoom.us"; done >"$LAB_DIR/names"
in_ns client dig +short +tries=1 +time=3 @$SERVER4 -f "$LAB_DIR/names" >"$LAB_DIR/answers"
equal "answers" "$(sort -u "$LAB_DIR/answers" | wc -l)" 100
all_told() { [ "$(told replaced)" = 36 ]; }
expect_soon "status counts those that made way" 10 all_told
equal "status tells how many there are" "$(told entries) $(told limit)" "64 64"
in_kernel=$(bpftool -j map dump pinned "$(echo "/sys/fs/bpf/l7mark/$INSTANCE"/v*/hints)" | jq length)
expect "the kernel has no more: $in_kernel" [ "$in_kernel" -le 64 ]

# --- silent ones end ----------------------------------------------------------------------------------------
with_resolvers() { l7mark flows --json | jq -s '[.[] | select(.dport == 53)] | length'; }
all_gone() { [ "$(with_resolvers)" = 0 ] && [ "$(l7mark status --json | jq .flows.candidates)" = 0 ]; }
at_least "flows with a resolver" "$(with_resolvers)" 50
expect_soon "they end when they are silent, long before timeouts.udp" 30 all_gone
