#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# DSCP is written into the outermost IP header, wherever the kernel has left it: behind XDP, which saw
# a VLAN tag that TC sees no more, and around VXLAN, whose checksums go on being right. Flows of two VLANs
# with the same addresses stay apart in every mode, unless the policy says otherwise.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start dscp-headers
need bridge ethtool nstat openssl socat tcpdump

# start_tcpdump PLACE INTERFACE NAME FILTER...: into $LAB_DIR/NAME.pcap, until hang_up.
start_tcpdump() {
	spawn "$1" "tcpdump-$3" tcpdump -Z root --immediate-mode -ni "$2" -s 0 -U -w "$LAB_DIR/$3.pcap" "${@:4}"
	recorder=$SPAWNED
	wait_for 10 test -s "$LAB_DIR/$3.pcap" || fail "tcpdump does not start"
}
# packets NAME FILTER
packets() { tcpdump -nr "$LAB_DIR/$1.pcap" "$2" 2>/dev/null | wc -l; }

# --- VXLAN: the flow inside, the header outside ------------------------------------------------
if in_ns client ip link add vx0 type vxlan id 7 dstport 4789 local $CLIENT4 remote $SERVER4 udpcsum 2>"$LAB_DIR/vxlan.txt"; then
	in_ns server ip link add vx0 type vxlan id 7 dstport 4789 local $SERVER4 remote $CLIENT4 udpcsum
	in_ns client ip link add vx1 type vxlan id 8 dstport 4789 local $CLIENT6 remote $SERVER6
	in_ns server ip link add vx1 type vxlan id 8 dstport 4789 local $SERVER6 remote $CLIENT6
	for number in 0 1; do
		in_ns client ip addr add 198.18.$number.1/24 dev vx$number
		in_ns server ip addr add 198.18.$number.2/24 dev vx$number
		in_ns client ip addr add fd77:8:$number::1/64 dev vx$number nodad
		in_ns server ip addr add fd77:8:$number::2/64 dev vx$number nodad
		for place in client server; do in_ns $place ip link set vx$number up; done
	done
	serve_tls_echo 443 us04web.zoom.us
	start_daemon "$(
		write_policy vxlan <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "decapsulate": ["vxlan"],
  "classes": [ { "name": "zoom", "match": { "applications": ["Zoom"] }, "dscp": "EF" } ]
}
END
	)"
	# errors: datagrams and segments that the server refused for their checksum, since its start.
	errors() {
		in_ns server nstat -asz UdpInCsumErrors Udp6InCsumErrors TcpInCsumErrors IpInHdrErrors 2>/dev/null |
			awk '/Errors/ { n += $2 } END { print n + 0 }'
	}
	for offload in on off; do
		in_ns client ethtool -K eth0 tx $offload >/dev/null
		start_tcpdump server up0 outside-$offload udp dst port 4789
		outside=$recorder
		start_tcpdump server vx0 inside-$offload tcp dst port 443
		for number in 0 1; do
			for server in 198.18.$number.2 fd77:8:$number::2; do
				name=vxlan$number-$offload-${server:0:2}
				open_tls "$name" us04web.zoom.us "$server" 443
				for word in 1 2 3 4 5 6 7 8 9 10; do
					talk "$name" "word $word" || fail "offload $offload: the connection to $server broke"
				done
				close_line "$name"
			done
		done
		sleep 0.5
		hang_up "$recorder" "$outside"
		equal "VXLAN, offload $offload: refused for their checksum" "$(errors)" 0
		at_least "VXLAN, offload $offload: EF outside, IPv4" \
			"$(packets outside-$offload 'ip and ip[1] & 0xfc = 0xb8')" 10
		at_least "VXLAN, offload $offload: EF outside, IPv6" \
			"$(packets outside-$offload 'ip6 and ip6[0:2] & 0x0fc0 = 0x0b80')" 10
		equal "VXLAN, offload $offload: DSCP inside" \
			"$(packets inside-$offload '(ip and ip[1] & 0xfc != 0) or (ip6 and ip6[0:2] & 0x0fc0 != 0)')" 0
	done
	stop_daemon
else
	say "no VXLAN of the kernel: $(cat "$LAB_DIR/vxlan.txt")"
fi

# --- a VLAN tag in the frame, and XDP ----------------------------------------------------------
# The gateway bridges, for it has no address in the VLAN; frames are made by hand, with the tag in them.
in_ns gateway ip link add br0 type bridge
for device in lan0 wan0; do in_ns gateway ip link set $device master br0; done
in_ns gateway ip link set br0 up

bytes() { local byte; for byte; do printf '\\x%02x' "$byte"; done; }
# sum WORD...: that of an IPv4 header without its own.
sum() {
	local word total=0
	for word; do total=$((total + word)); done
	while ((total >> 16)); do total=$(((total & 0xffff) + (total >> 16))); done
	echo $((total ^ 0xffff))
}
# datagram 4|6 NUMBER VLAN: a frame, its IP packet and UDP to port 5300 with 20 bytes.
datagram() {
	local id check
	printf '\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x81\x00\x00%b' "$(bytes "$3")"
	if [ "$1" = 4 ]; then
		# All leading digits, for on kernels where it was wrong these chose what was overwritten.
		id=$((($2 % 16) << 12 | $2))
		check=$(sum 0x4500 48 $id 0x4000 0x4011 0x0a4d 0x0102 0xc633 0x640a)
		printf '\x08\x00%b' "$(bytes 0x45 0 0 48 $((id >> 8)) $((id & 255)) 0x40 0 0x40 0x11 \
			$((check >> 8)) $((check & 255)) 10 77 1 2 198 51 100 10)"
	else
		printf '\x86\xdd\x60\x00\x00\x00\x00\x1c\x11\x40'
		printf '\xfd\x77\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02'
		printf '\x20\x01\x0d\xb8\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10'
	fi
	printf '\x9c\x40\x14\xb4\x00\x1c\x00\x00twenty bytes of text'
}
# send 4|6 COUNT [VLAN]: each is one write, and so one frame.
send() {
	local number
	for ((number = 0; number < $2; number++)); do
		datagram "$1" $number "${3:-7}" >"$LAB_DIR/datagram.$1"
		in_ns client socat -u "OPEN:$LAB_DIR/datagram.$1" INTERFACE:eth0
	done
}
decided() { [ "$(l7mark flows --json | jq -s '[.[] | select(.class == "datagrams" and .dport == 5300)] | length')" -ge 2 ]; }
some() { send 4 3 && send 6 3 && decided; }

# A card that takes tags off keeps them from XDP: the programs would not agree on the keys.
in_ns gateway ethtool -K lan0 rxvlan on >/dev/null
policy() {
	write_policy "$1" <<END
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "$1" } ],
  "vlan": "${2:-key}",
  "classes": [ { "name": "datagrams", "match": { "server_ports": [5300] }, "dscp": "EF" } ]
}
END
}
starts() {
	timeout 20 "$L7MARKD" --policy "$(policy "$1")" --netns "$(ns_of gateway)" --instance "$INSTANCE" \
		>"$LAB_DIR/refused" 2>&1
}
for mode in native generic; do
	refuse "$mode where tags are taken off" starts $mode
	expect "$mode: and what to do" grep -q 'ethtool -K lan0 rxvlan off rx-vlan-stag' "$LAB_DIR/refused"
done
start_daemon "$(policy native ignore)"
equal "native without VLANs in the keys" "$(l7mark status --json | jq -r '.interfaces[0].mode')" native
stop_daemon
in_ns gateway ethtool -K lan0 rxvlan off rx-vlan-stag-hw-parse off >/dev/null

# vlans: of the datagrams' IPv4 flows.
test_vlans() { [ "$(vlans)" = "$1" ]; }
vlans() { l7mark flows --json | jq -s '[.[] | select(.dport == 5300 and .src == "'$CLIENT4'") | .vlan] | sort' -c; }

for mode in native generic tc; do
	start_daemon "$(policy $mode)"
	wait_for 20 some || fail "$mode: the flows get no class"
	start_tcpdump server up0 vlan-$mode vlan 7
	for family in 4 6; do send $family 32; done
	sleep 0.5
	hang_up "$recorder"
	from4="ip src $CLIENT4 and dst $SERVER4" from6="ip6 src $CLIENT6 and dst $SERVER6"
	equal "$mode: frames of VLAN 7" "$(packets vlan-$mode "vlan 7 and udp dst port 5300")" 64
	equal "$mode, IPv4: from client to server with EF" \
		"$(packets vlan-$mode "vlan 7 and $from4 and ip[1] = 0xb8 and udp dst port 5300")" 32
	equal "$mode, IPv6: from client to server with EF" \
		"$(packets vlan-$mode "vlan 7 and $from6 and ip6[0:2] = 0x6b80 and udp dst port 5300")" 32
	equal "$mode: IPv4 headers with a wrong checksum" \
		"$(tcpdump -nvr "$LAB_DIR/vlan-$mode.pcap" 2>/dev/null | grep -c 'bad cksum [0-9a-f]* (->.*)!' || true)" 0
	# Another tenant with the same addresses.
	send 4 3 8
	expect_soon "$mode: a flow of each VLAN" 10 test_vlans '[7,8]'
	stop_daemon
	expect_nothing_left
done

start_daemon "$(policy tc ignore)"
wait_for 20 some || fail "ignore: the flows get no class"
send 4 3 8
equal "ignore: the VLANs share a flow" "$(vlans | jq length)" 1
stop_daemon
