#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Frames of 9000 bytes: native XDP takes them where the kernel has multi-buffer XDP, and says what to do
# where it has not; the other modes always do. What a long packet holds is found, marked and counted.
#
#     27-jumbo.sh [MODE...]   tc, generic, native; all by default
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start jumbo
need socat busybox
for end in "client eth0" "gateway lan0" "gateway wan0" "server up0"; do
	in_ns "${end% *}" ip link set dev "${end#* }" mtu 9000
done
size=8000            # of a datagram's payload
frame=$((size + 42)) # with UDP, IPv4 and Ethernet
serve_http 80
spawn server udp-echo socat -b 9000 UDP4-LISTEN:5300,bind=$SERVER4,fork,reuseaddr EXEC:cat
serving server udp 5300 udp-echo
head -c $size /dev/zero | tr '\0' x >"$LAB_DIR/datagram"

# policy MODE
policy() {
	write_policy "$1" <<END
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "$1" } ],
  "vlan": "ignore",
  "sampling": { "whole_snaplen": 4096 },
  "classes": [
    { "name": "zoom", "match": { "applications": ["Zoom"] }, "mark": "0x85/0xff" },
    { "name": "datagrams", "match": { "server_ports": [5300] }, "mark": "0x86/0xff" }
  ]
}
END
}

# datagrams NAME COUNT: so many more on that line, each sent back.
datagrams() {
	local number have
	for ((number = 1; number <= $2; number++)); do
		have=$(stat -c %s "$LAB_DIR/$1.out")
		cat "$LAB_DIR/datagram" >&"${WRITER[$1]}"
		wait_for 10 received "$1" $((have + size)) || fail "$1: a long datagram does not come back"
	done
}
received() { [ "$(stat -c %s "$LAB_DIR/$1.out")" -ge "$2" ]; }

# flow PORT FIELD: of the flows to it.
flow() { l7mark flows --json | jq -se --argjson port "$1" "[.[] | select(.dport == \$port) | .$2] | add"; }

# A request whose host is named behind 2,000 bytes of other headers, in one packet of 8,000.
long_request() {
	printf 'GET /big.bin HTTP/1.0\r\nX-First: %s\r\nHost: us04web.zoom.us\r\nX-Last: %s\r\n\r\n' \
		"$(head -c 2000 "$LAB_DIR/datagram")" "$(head -c 5800 "$LAB_DIR/datagram")" >"$LAB_DIR/request"
	in_ns client timeout 60 socat -b 9000 -t 30 - TCP:$SERVER4:80 <"$LAB_DIR/request" >"$LAB_DIR/answer" &&
		[ "$(stat -c %s "$LAB_DIR/answer")" -gt 16777216 ]
}

# try NAME: what holds in every mode.
try() {
	local before back
	open_line "$1" socat -b 9000 - UDP4:$SERVER4:5300
	wait_for 10 test -e "$LAB_DIR/$1.out"
	datagrams "$1" 10
	expect_soon "$1: the flow of long datagrams has its answer" 10 flow_is 5300 state '"guessed"'
	before=$(hits 4 mangle long-marked)
	datagrams "$1" 5
	at_least "$1: long packets with its class's mark" $(($(hits 4 mangle long-marked) - before)) 5
	close_line "$1"
	expect_soon "$1: its packets" 10 flow_is 5300 packets 30
	equal "$1: its bytes" "$(flow 5300 bytes)" $((30 * frame))
	back=$(class_bytes lan0 "$marked_back")
	expect "$1: a long request is answered" long_request
	at_least "$1: marked bytes on the way back" $(($(class_bytes lan0 "$marked_back") - back)) 8000000
	equal "$1: application by the host named in the long request" "$(l7mark flows --json |
		jq -sr '[.[] | select(.dport == 80)][-1].application')" Zoom
	equal "$1: packets taken for malformed" "$(l7mark status --json | jq .counters.malformed)" 0
	equal "$1: copies that failed" "$(l7mark status --json | jq .counters.copy_failed)" 0
}
flow_is() { [ "$(flow "$1" "$2")" = "$3" ]; }

witness 4 mangle PREROUTING long-marked -i lan0 -p udp --dport 5300 \
	-m length --length $((size + 28)) -m mark --mark 0x86/0xff
marked_back=$(mark_class lan0 0x85 0xff)
frags=$("$L7MARK" features --json | jq -r '.features[] | select(.name == "xdp_frags").present')

refuse "without multi-buffer XDP, native mode is refused" \
	env L7MARK_WITHOUT=xdp_frags "$L7MARK" load lan0 --mode native --netns "$(ns_of gateway)" --instance "$INSTANCE" \
	2>"$LAB_DIR/refused"
expect "the message names interface and MTU" grep -q 'lan0.*its MTU of 9000 needs multi-buffer XDP' "$LAB_DIR/refused"
expect "and what to do" grep -q 'lower the MTU, or use mode generic or tc' "$LAB_DIR/refused"
expect_nothing_left

[ $# -gt 0 ] || set -- tc generic native
for mode; do
	if [ "$mode" = native ] && [ "$frags" != true ]; then
		say "no multi-buffer XDP in this kernel: native mode is refused here, as above"
		continue
	fi
	start_daemon "$(policy "$mode")"
	[ "$mode" = tc ] || equal "$mode: multi-buffer XDP, says status" \
		"$(l7mark status --json | jq ".interfaces[0].multi_buffer")" "$([ "$mode" = native ] && echo true || echo false)"
	try "$mode"
	stop_daemon
	expect_nothing_left
done
