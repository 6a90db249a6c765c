# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# l7mark classify: the programs run over a capture say what the same logic in userspace says.
# shellcheck source=selftests/kernels/lib/cases.bash
. selftests/kernels/lib/cases.bash

lab_start classify
serve_tls_echo 443 us04web.zoom.us
spawn gateway tcpdump tcpdump -Z root --immediate-mode -ni lan0 -s 0 -U -w "$LAB_DIR/lab.pcap" tcp or udp
recorder=$SPAWNED
wait_for 20 test -s "$LAB_DIR/lab.pcap" || fail "tcpdump does not start"
for version in 4 6; do
	server=SERVER$version
	open_tls "zoom$version" us04web.zoom.us "${!server}" 443
	expect "IPv$version: TLS answers" talk "zoom$version" first
	spawn server "udp$version" socat "UDP$version-LISTEN:5300,bind=$(bracket "${!server}"),fork" EXEC:cat
	serving server udp 5300 "udp$version"
	open_line "echo$version" socat - "UDP:$(bracket "${!server}"):5300"
	expect "IPv$version: UDP answers" talk "echo$version" first
done
sleep 1
hang_up "$recorder"

classify() { "$L7MARK" classify "${@:2}" "$LAB_DIR/lab.pcap" >"$LAB_DIR/$1.txt"; }
for options in '--packets 3 --whole 1 --snaplen 96' '--workers 3'; do
	# shellcheck disable=SC2086 # options and their values
	for path in kernel user; do
		expect "$path $options: classifies" classify "$path" --path "$path" $options
	done
	expect "$options: both paths print the same" diff "$LAB_DIR/kernel.txt" "$LAB_DIR/user.txt"
done
equal "flows of TLS to Zoom" "$(jq -s 'map(select(.ndpi == "TLS.Zoom")) | length' "$LAB_DIR/kernel.txt")" 2
equal "flows" "$(jq -s length "$LAB_DIR/kernel.txt")" 4
equal "packets" "$(jq -s 'map(.packets) | add' "$LAB_DIR/kernel.txt")" \
	"$(tcpdump -Z root -nr "$LAB_DIR/lab.pcap" 2>/dev/null | wc -l)"
((FAILURES == 0))
