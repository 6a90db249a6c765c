#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Third job: BitTorrent goes into a slow HTB class and HTTP keeps its rate.
# Runs alone: it compares rates.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start torrent
need aria2c busybox curl openssl
policy=$(
	write_policy shape-bittorrent <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [
    { "name": "bittorrent", "match": { "applications": ["BitTorrent"] }, "mark": "0x20/0xff", "tc_class": "1:20" }
  ]
}
END
)
# Downloads leave by lan0: 20 Mbit/s for all, and the slow class gets 2 of them.
in_ns gateway tc qdisc add dev lan0 root handle 1: htb default 10
in_ns gateway tc class add dev lan0 parent 1: classid 1:1 htb rate 22mbit quantum 3000
in_ns gateway tc class add dev lan0 parent 1:1 classid 1:10 htb rate 20mbit ceil 22mbit quantum 3000
in_ns gateway tc class add dev lan0 parent 1:1 classid 1:20 htb rate 2mbit quantum 3000
witness 4 mangle PREROUTING upload-marked -p tcp --dport 6881 -m mark --mark 0x20/0xff

serve_http 80
serve_torrent 3145728
start_daemon "$policy"

# rate: of a download of 16 MiB by HTTP, bytes a second.
rate() { fetch http://www.lab.test/big.bin $SERVER4 -w '%{speed_download}' | sed 's/\..*//'; }
alone=$(rate)
at_least "HTTP alone, bytes a second" "$alone" 1

slow_before=$(class_bytes lan0 1:20)
fast_before=$(class_bytes lan0 1:10)
start=${EPOCHREALTIME/./}
leech --max-tries=1 &
download=$!
slow_grows() { [ "$(class_bytes lan0 1:20)" -gt $((slow_before + 100000)) ]; }
expect_soon "BitTorrent is in the slow class" 20 slow_grows
together=$(rate)
expect "the torrent is still under way" kill -0 "$download"
wait "$download" || fail "the torrent does not arrive"
end=${EPOCHREALTIME/./}
expect "the torrent arrived whole" cmp -s "$LAB_DIR/seed/lab.bin" "$LAB_DIR/leech/lab.bin"

slow=$(($(class_bytes lan0 1:20) - slow_before))
fast=$(($(class_bytes lan0 1:10) - fast_before))
# Of 3 MiB of torrent: at most a tenth outside its class, which is what passes before the verdict.
at_least "bytes in the slow class" $slow $((3145728 * 9 / 10))
at_least "bytes in the fast class: HTTP's" $fast 16777216
at_least "HTTP beside BitTorrent, per cent of HTTP alone" $((together * 100 / alone)) 75
slow_rate=$((slow * 8 * 1000000 / (end - start)))
at_least "BitTorrent's bits a second stay below twice its class's 2 Mbit/s: room left" $((4000000 - slow_rate)) 0
at_least "the client's own packets of it with the mark" "$(hits 4 mangle upload-marked)" 10
