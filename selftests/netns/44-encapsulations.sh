#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Real clients' packets in tunnels, behind other link layers and in other file formats: "l7mark classify"
# finds the flows of the bare packets in each, by both paths, and ndpiReader's where it opens the same.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start encapsulations
need curl dig dnsmasq dropbear ethtool jq ndpiReader openssl socat ssh tcpdump
need_build
rewrap=$BUILD/bin/rewrap
[ -x "$rewrap" ] || fail "$rewrap is missing: build the tests"
serve_tls 443 us04web.zoom.us
serve_ssh 22
serve_dns us04web.zoom.us=$SERVER4 us04web.zoom.us=$SERVER6

# start_recorder PLACE INTERFACE NAME FILTER...: into $LAB_DIR/NAME.pcap, until hang_up.
start_recorder() {
	spawn "$1" "tcpdump-$3" tcpdump -Z root --immediate-mode -ni "$2" -s 0 -U -w "$LAB_DIR/$3.pcap" "${@:4}"
	recorder=$SPAWNED
	wait_for 10 test -s "$LAB_DIR/$3.pcap" || fail "tcpdump does not start"
}

# talk SERVER...: what each client program has to say.
talk() {
	local server
	for server; do
		fetch https://us04web.zoom.us/index.html "$server" || fail "HTTPS does not work"
		fetch http://www.lab.test/index.html "$server" || fail "HTTP does not work"
		talk_ssh "$server" 22 || fail "ssh does not work"
		in_ns client dig +short "@$server" us04web.zoom.us A >/dev/null || fail "DNS does not work"
	done
}

# flows PATH CAPTURE OPTIONS...: a line a flow, without what the headers around it change.
flows() {
	"$L7MARK" classify --path "$1" "${@:3}" "$2" |
		jq -r '[.proto, .src, .sport, .dst, .dport, .ndpi, .category, .hostname, .packets] | @tsv' | sort
}

# A segment that the stack would cut later fits no tunnel.
for place in client:eth0 gateway:lan0 gateway:wan0 server:up0; do
	in_ns "${place%:*}" ethtool -K "${place#*:}" tso off gso off gro off >/dev/null
done
# What the stack says for itself (MLD, neighbour discovery) is behind extension headers now and then.
start_recorder gateway lan0 bare tcp or udp
talk $SERVER4 $SERVER6
sleep 0.5
hang_up "$recorder"
flows user "$LAB_DIR/bare.pcap" >"$LAB_DIR/bare.txt"
equal "flows of the bare packets" "$(cut -f 5,6 "$LAB_DIR/bare.txt" | sort | uniq -c | xargs)" \
	"2 22 SSH 2 443 TLS.Zoom 2 53 DNS.Zoom 2 80 HTTP"

# by_reader CAPTURE: transport, ports, answer and packets. ndpiReader 4.2 garbles some IPv6 addresses.
by_reader() {
	ndpiReader -I -q -t -i "$1" -C "$LAB_DIR/reader.csv" >/dev/null 2>&1
	awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
		{ print ($at["protocol"] == 6 ? "tcp" : "udp"), $at["src_port"], $at["dst_port"], $at["ndpi_proto"],
			$at["c_to_s_pkts"] + $at["s_to_c_pkts"] }' "$LAB_DIR/reader.csv" | sort
}
same_reader=
ours=$("$L7MARK" --version)
[[ $(ndpiReader -h 2>&1) != *"${ours##* }"* ]] || same_reader=yes
[ -n "$same_reader" ] || say "ndpiReader is not of ${ours##*, }: not compared with"

# check KIND OPENED_BY_NDPIREADER OPTIONS...
check() {
	local path
	"$rewrap" "$1" pcap "$LAB_DIR/bare.pcap" "$LAB_DIR/$1.pcap"
	for path in kernel user; do
		flows "$path" "$LAB_DIR/$1.pcap" "${@:3}" >"$LAB_DIR/$1.txt"
		expect "$1, $path: the flows of the bare packets" diff "$LAB_DIR/bare.txt" "$LAB_DIR/$1.txt"
	done
	if [ "$2" = yes ] && [ -n "$same_reader" ]; then
		equal "$1: ndpiReader's flows" "$(by_reader "$LAB_DIR/$1.pcap")" \
			"$(awk -F'\t' '{ print $1, $3, $5, $6, $9 }' "$LAB_DIR/bare.txt" | sort)"
	fi
}

# --- tunnels ------------------------------------------------------------------------------------
check ipip yes
check ip6tnl yes
check gtpu yes --decapsulate gtpu
check gtpu-ext yes --decapsulate gtpu
check gre no --decapsulate gre
check gretap no --decapsulate gre
check gre-key no --decapsulate gre
check vxlan no --decapsulate vxlan
for kind in gtpu gtpu-ext gre gretap vxlan; do
	for path in kernel user; do
		equal "$kind, $path, closed: one flow of the tunnel's ends" \
			"$(flows "$path" "$LAB_DIR/$kind.pcap" | awk -F'\t' '{ print $2, $4 }' | grep -cv '^203.0.113.\|^2001:db8:ffff::')" 0
	done
done

# A tunnel that the kernel itself makes, where it can.
if in_ns client ip link add vx0 type vxlan id 7 dstport 4789 local $CLIENT4 remote $SERVER4 2>"$LAB_DIR/vxlan.txt"; then
	in_ns client ip addr add 198.18.7.1/24 dev vx0
	in_ns client ip link set vx0 up
	in_ns server ip link add vx0 type vxlan id 7 dstport 4789 local $SERVER4 remote $CLIENT4
	in_ns server ip addr add 198.18.7.2/24 dev vx0
	in_ns server ip link set vx0 up
	start_recorder gateway lan0 outside udp port 4789
	outside=$recorder
	start_recorder client vx0 inside ip and not icmp
	talk 198.18.7.2
	sleep 0.5
	hang_up "$recorder"
	hang_up "$outside"
	for path in kernel user; do
		# Segments may be merged at one place and not at the other: packets are not compared. What is
		# no IPv4 inside was not recorded there.
		flows "$path" "$LAB_DIR/inside.pcap" | cut -f 1-8 >"$LAB_DIR/inside.txt"
		flows "$path" "$LAB_DIR/outside.pcap" --decapsulate vxlan | grep 198.18.7.2 | cut -f 1-8 >"$LAB_DIR/outside.txt"
		expect "VXLAN of the kernel, $path: the flows inside" diff "$LAB_DIR/inside.txt" "$LAB_DIR/outside.txt"
		equal "VXLAN of the kernel, $path: HTTPS" "$(grep -c TLS.Zoom "$LAB_DIR/outside.txt")" 1
	done
else
	say "no VXLAN of the kernel: $(cat "$LAB_DIR/vxlan.txt")"
fi

# --- link layers --------------------------------------------------------------------------------
for kind in mpls pppoe ppp raw null sll; do check $kind yes; done
# ndpiReader 4.2 reads neither.
for kind in qinq sll2; do check $kind no; done

# --- file formats -------------------------------------------------------------------------------
packets() { awk -F'\t' '{ sum += $9 } END { print sum }' "$1"; }
for path in kernel user; do
	for format in pcap pcap-big pcap-nano pcap-big-nano pcapng pcapng-big pcapng-nano pcapng-big-nano; do
		file=$LAB_DIR/format-$format
		"$rewrap" same $format "$LAB_DIR/bare.pcap" "$file"
		flows $path "$file" >"$LAB_DIR/format.txt"
		expect "$format, $path: the flows" diff "$LAB_DIR/bare.txt" "$LAB_DIR/format.txt"
		# Cut in its last packet: that one is missing, and a warning names the file.
		head -c "$(($(stat -c %s "$file") - 10))" "$file" >"$file.cut"
		flows $path "$file.cut" >"$LAB_DIR/format.txt" 2>"$LAB_DIR/err.txt"
		equal "$format cut short, $path: packets" "$(packets "$LAB_DIR/format.txt")" \
			"$(($(packets "$LAB_DIR/bare.txt") - 1))"
		expect "$format cut short, $path: a warning names it" grep -qF "$file.cut" "$LAB_DIR/err.txt"
	done
done
