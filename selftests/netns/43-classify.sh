#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# "l7mark classify" on what tcpdump recorded at the gateway: the programs in the kernel and the same logic
# in userspace print the same, to the byte; and what can't be read is told as what it is.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start classify
need curl dig dnsmasq dropbear jq openssl socat ssh tcpdump
need_build
serve_tls 443 us04web.zoom.us
serve_ssh 22
serve_dns us04web.zoom.us=$SERVER4 us04web.zoom.us=$SERVER6
policy=$(
	write_policy classify <<'END'
{ "version": 1, "classes": [ { "name": "meetings", "match": { "applications": ["Zoom"] }, "mark": "0x1/0xff" } ] }
END
)

# start_recorder NAME FILTER...: into $LAB_DIR/NAME.pcap, until hang_up.
start_recorder() {
	spawn gateway "tcpdump-$1" tcpdump -Z root --immediate-mode -ni lan0 -s 0 -U -w "$LAB_DIR/$1.pcap" "${@:2}"
	recorder=$SPAWNED
	wait_for 10 test -s "$LAB_DIR/$1.pcap" || fail "tcpdump does not start"
}

start_recorder lab tcp or udp
for server in $SERVER4 $SERVER6; do
	fetch https://us04web.zoom.us/index.html "$server" || fail "HTTPS does not work"
	fetch http://www.lab.test/index.html "$server" || fail "HTTP does not work"
	talk_ssh "$server" 22 || fail "ssh does not work"
	in_ns client dig +short "@$server" us04web.zoom.us A >/dev/null || fail "DNS does not work"
done
sleep 0.5
hang_up "$recorder"

# classify ARGS...: output in $LAB_DIR/out.txt, messages in err.txt; prints the exit status.
classify() {
	local status=0
	"$L7MARK" classify "$@" >"$LAB_DIR/out.txt" 2>"$LAB_DIR/err.txt" || status=$?
	echo $status
}

# --- both paths -----------------------------------------------------------------------------------
for format in json table; do
	for options in '' "--policy $policy" '--packets 3 --whole 1 --snaplen 96' '--workers 3'; do
		# shellcheck disable=SC2086 # options and their values
		for path in kernel user; do
			equal "$format $options: status by the ${path}'s path" \
				"$(classify --path $path --format $format $options "$LAB_DIR/lab.pcap")" 0
			cp "$LAB_DIR/out.txt" "$LAB_DIR/$path.txt"
		done
		expect "$format $options: there is output" test -s "$LAB_DIR/kernel.txt"
		expect "$format $options: both print the same" diff "$LAB_DIR/kernel.txt" "$LAB_DIR/user.txt"
	done
done

equal "--json: status" "$(classify --json "$LAB_DIR/lab.pcap")" 0
cp "$LAB_DIR/out.txt" "$LAB_DIR/by-flag.txt"
classify --format json "$LAB_DIR/lab.pcap" >/dev/null
expect "--json is --format json" diff "$LAB_DIR/by-flag.txt" "$LAB_DIR/out.txt"
classify --policy "$policy" "$LAB_DIR/lab.pcap" >/dev/null
# of PORT FIELD: that field of the flows to the server's port, each value once.
of() { jq -r --argjson port "$1" "select(.dport == \$port) | .$2" "$LAB_DIR/out.txt" | sort | uniq -c | xargs; }
equal "HTTPS to a Zoom name" "$(of 443 ndpi)" "2 TLS.Zoom"
equal "its class" "$(of 443 class)" "2 meetings"
equal "HTTP" "$(of 80 ndpi)" "2 HTTP"
equal "its class is none" "$(of 80 'class == ""')" "2 true"
equal "ssh" "$(of 22 ndpi)" "2 SSH"
equal "DNS" "$(of 53 ndpi)" "2 DNS.Zoom"
packets=$(tcpdump -nr "$LAB_DIR/lab.pcap" 'tcp or udp' 2>/dev/null | wc -l)
equal "packets of all flows, as tcpdump counts them" \
	"$(jq -s 'map(select(.proto == "tcp" or .proto == "udp") | .packets) | add' "$LAB_DIR/out.txt")" "$packets"

# Of connections under way, the server's half alone: who the server is, is told by the ports.
server_policy=$(
	write_policy server <<'END'
{ "version": 1, "classes": [ { "name": "https", "match": { "server_ports": [443], "midstream": true } } ] }
END
)
tcpdump -r "$LAB_DIR/lab.pcap" -w "$LAB_DIR/half.pcap" src port 443 and greater 200 2>/dev/null
for path in kernel user; do
	classify --path $path --policy "$server_policy" "$LAB_DIR/half.pcap" >/dev/null
	equal "$path, the server's half of HTTPS: sent by the server" "$(jq .sport "$LAB_DIR/out.txt" | xargs)" "443 443"
	equal "$path, the server's half of HTTPS: its class" "$(jq -r .class "$LAB_DIR/out.txt" | xargs)" "https https"
done

# A machine to itself sends packets of 64 KiB, and so much as its headers is more than a run can be told.
spawn gateway sink socat -u -b 65536 UDP-RECV:9000,bind=127.0.0.1 OPEN:/dev/null
wait_for 10 in_ns gateway bash -c 'ss -lun | grep -q 127.0.0.1:9000' || fail "the sink does not start"
spawn gateway tcpdump-long tcpdump -Z root --immediate-mode -ni lo -s 0 -U -w "$LAB_DIR/long.pcap" udp port 9000
recorder=$SPAWNED
spawn gateway tcpdump-short tcpdump -Z root --immediate-mode -ni lo -s 256 -U -w "$LAB_DIR/short.pcap" udp port 9000
short_recorder=$SPAWNED
wait_for 10 test -s "$LAB_DIR/long.pcap" -a -s "$LAB_DIR/short.pcap" || fail "tcpdump does not start"
echo hello >"$LAB_DIR/greeting"
head -c $((4 * 65507)) /dev/zero >"$LAB_DIR/zeros"
for file in "$LAB_DIR/zeros" "$LAB_DIR/greeting"; do
	in_ns gateway socat -u -b 65507 "OPEN:$file" UDP:127.0.0.1:9000 || fail "cannot send to the sink"
done
sleep 0.5
hang_up "$recorder"
hang_up "$short_recorder"
packets=$(tcpdump -nr "$LAB_DIR/long.pcap" 2>/dev/null | wc -l)
expect "there are packets beyond 64 KiB" test "$(tcpdump -nr "$LAB_DIR/long.pcap" greater 65537 2>/dev/null | wc -l)" -gt 0
for path in kernel user; do
	classify --path $path "$LAB_DIR/long.pcap" >/dev/null
	cp "$LAB_DIR/out.txt" "$LAB_DIR/$path.txt"
	equal "$path: packets with those beyond 64 KiB" "$(jq -s 'map(.packets) | add' "$LAB_DIR/out.txt")" "$packets"
done
expect "both count their bytes alike" diff "$LAB_DIR/kernel.txt" "$LAB_DIR/user.txt"

# With a short snap length: what was recorded whole counts, as for ndpiReader, and the rest is told.
packets=$(tcpdump -nr "$LAB_DIR/short.pcap" less 256 2>/dev/null | wc -l)
for path in kernel user; do
	equal "$path, a short snap length: status" "$(classify --path $path "$LAB_DIR/short.pcap")" 0
	equal "$path, a short snap length: packets" "$(jq -s 'map(.packets) | add' "$LAB_DIR/out.txt")" "$packets"
	expect "$path, a short snap length: and a warning" grep -qF "recorded only in part" "$LAB_DIR/err.txt"
done

# Several captures in one run: each line tells which.
cp "$LAB_DIR/lab.pcap" "$LAB_DIR/copy.pcap"
equal "two captures" "$(classify "$LAB_DIR/lab.pcap" "$LAB_DIR/copy.pcap")" 0
equal "flows of either" "$(jq -r .capture "$LAB_DIR/out.txt" | sort | uniq -c | awk '{ print $1 }' | sort -u | wc -l)" 1

# One run loads the programs once for all its captures, and these have five-tuples in common: what is said of
# each must not depend on the one before.
# lines_of CAPTURE: of the last run.
lines_of() { jq -c --arg capture "$1" 'select(.capture == $capture)' "$LAB_DIR/out.txt" | sort; }
for path in kernel user; do
	equal "$path, one order: status" "$(classify --path $path "$LAB_DIR/lab.pcap" "$LAB_DIR/half.pcap" "$LAB_DIR/lab.pcap")" 0
	for capture in lab half; do lines_of $capture.pcap >"$LAB_DIR/$capture-first.txt"; done
	equal "$path, the other order: status" "$(classify --path $path "$LAB_DIR/half.pcap" "$LAB_DIR/lab.pcap" "$LAB_DIR/lab.pcap")" 0
	lines_of half.pcap >"$LAB_DIR/half-then.txt"
	lines_of lab.pcap >"$LAB_DIR/lab-then.txt"
	classify --path $path "$LAB_DIR/lab.pcap" >/dev/null
	{ lines_of lab.pcap && lines_of lab.pcap; } | sort >"$LAB_DIR/lab-alone.txt"
	expect "$path: there are flows" test -s "$LAB_DIR/half-then.txt" -a -s "$LAB_DIR/lab-then.txt"
	expect "$path: the server's half is told alike in both orders" diff "$LAB_DIR/half-first.txt" "$LAB_DIR/half-then.txt"
	expect "$path: the whole capture is, too" diff "$LAB_DIR/lab-first.txt" "$LAB_DIR/lab-then.txt"
	expect "$path: and as in a run of its own" diff "$LAB_DIR/lab-alone.txt" "$LAB_DIR/lab-then.txt"
done

# A link type that is not known is named and left out, and the other captures are read. 192 is PPI.
{ head -c 20 "$LAB_DIR/lab.pcap" && printf '\300\0\0\0' && tail -c +25 "$LAB_DIR/lab.pcap"; } >"$LAB_DIR/ppi.pcap"
for path in kernel user; do
	equal "$path, PPI among others: status" "$(classify --path $path "$LAB_DIR/ppi.pcap" "$LAB_DIR/half.pcap")" 0
	expect "$path, PPI: a warning names it" grep -qF "ppi.pcap: Protocol not supported (link type PPI); it is left out" "$LAB_DIR/err.txt"
	equal "$path, PPI: captures with flows" "$(jq -r .capture "$LAB_DIR/out.txt" | sort -u)" half.pcap
	equal "$path, PPI alone: status" "$(classify --path $path "$LAB_DIR/ppi.pcap")" 1
	equal "$path, PPI alone: lines of output" "$(wc -l <"$LAB_DIR/out.txt")" 0
done

# --- what is no capture ------------------------------------------------------------------------------
# refused PATH FILE TEXT...: status 1, no output, one line that names the file and says each text.
refused() {
	local path=$1 file=$2 text
	equal "$path, ${file##*/}: status" "$(classify --path "$path" "$file")" 1
	equal "$path, ${file##*/}: lines of output" "$(wc -l <"$LAB_DIR/out.txt")" 0
	equal "$path, ${file##*/}: lines of error" "$(wc -l <"$LAB_DIR/err.txt")" 1
	for text in "$file" "${@:3}"; do
		expect "$path, ${file##*/}: the error says '$text'" grep -qF -- "$text" "$LAB_DIR/err.txt"
	done
}

echo 'This is not a capture, only a text of some length.' >"$LAB_DIR/notes.txt"
: >"$LAB_DIR/nothing.pcap"
start_recorder quiet port 1
hang_up "$recorder"
for path in kernel user; do
	refused $path "$LAB_DIR/missing.pcap" "No such file"
	refused $path "$LAB_DIR" "directory"
	refused $path "$LAB_DIR/notes.txt" "format"
	refused $path "$LAB_DIR/nothing.pcap" "truncated"

	# A capture in which nothing happened is no error, and has no flow.
	equal "$path, a capture without packets: status" "$(classify --path $path "$LAB_DIR/quiet.pcap")" 0
	equal "$path, a capture without packets: output" "$(cat "$LAB_DIR/out.txt" "$LAB_DIR/err.txt")" ""

	# One that was cut short: its packets are classified, and the rest is told.
	head -c "$(($(stat -c %s "$LAB_DIR/lab.pcap") - 10))" "$LAB_DIR/lab.pcap" >"$LAB_DIR/cut.pcap"
	equal "$path, a capture cut short: status" "$(classify --path $path "$LAB_DIR/cut.pcap")" 0
	expect "$path, a capture cut short: its flows are there" grep -q 'TLS.Zoom' "$LAB_DIR/out.txt"
	expect "$path, a capture cut short: and a warning names it" grep -qF "$LAB_DIR/cut.pcap" "$LAB_DIR/err.txt"

	# One bad file among good ones: the others are classified, the status tells.
	equal "$path, a bad file first: status" "$(classify --path $path "$LAB_DIR/notes.txt" "$LAB_DIR/lab.pcap")" 1
	expect "$path, a bad file first: the other is classified" grep -q 'TLS.Zoom' "$LAB_DIR/out.txt"
done

# Without the right to read it, and without root by the user's path.
chmod 755 "$LAB_DIR" && chmod 600 "$LAB_DIR/lab.pcap" && chmod 644 "$LAB_DIR/copy.pcap"
as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$L7MARK" classify "$@" 2>&1; }
if said=$(as_nobody --path user "$LAB_DIR/lab.pcap"); then miss "an unreadable capture is refused"; else pass "an unreadable capture is refused"; fi
expect "and the error says why" grep -qF 'Permission denied' <<<"$said"
expect "a readable one is classified without privileges" grep -q 'TLS.Zoom' <(as_nobody --path user "$LAB_DIR/copy.pcap")
if said=$(as_nobody --path kernel "$LAB_DIR/copy.pcap"); then miss "the kernel's path needs privileges"; else pass "the kernel's path needs privileges"; fi
expect "and says so" grep -qiE 'root|privilege|permi' <<<"$said"
