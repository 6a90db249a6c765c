#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Flows that were under way at the start, and of which the server's packets are seen first: the set's
# entry still is server, port and client.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start underway
need ipset socat
policy=$(
	write_policy underway <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [
    { "name": "media", "match": { "server_ports": [8443, 8801] }, "mark": "0x11/0xff", "ipset": { "name": "MEDIA" } }
  ]
}
END
)

# Servers that go on talking once they were spoken to, and clients that listen only.
serve() { # FAMILY SERVER
	spawn server "tcp$1" socat "TCP$1-LISTEN:8443,bind=$2,reuseaddr" "SYSTEM:while sleep 0.2; do echo line; done"
	spawn server "udp$1" socat "UDP$1-RECVFROM:8801,bind=$2" "SYSTEM:while sleep 0.2; do echo picture; done"
}
serve 4 "$SERVER4"
serve 6 "[$SERVER6]"
served() { [ "$(in_ns server ss -Hlntu 'sport = :8443 or sport = :8801' | wc -l)" -eq 4 ]; }
wait_for 10 served || fail "the servers do not start"
listen() { # FAMILY SERVER CLIENT
	spawn client "tcp-client$1" bash -c "socat -u TCP$1:$2:8443,bind=$3:40443 STDOUT >'$LAB_DIR/tcp$1.txt'"
	spawn client "udp-client$1" bash -c "{ echo hello; exec sleep 3600; } | socat - UDP$1:$2:8801,bind=$3:40801 >'$LAB_DIR/udp$1.txt'"
}
listen 4 "$SERVER4" "$CLIENT4"
listen 6 "[$SERVER6]" "[$CLIENT6]"
for flow in tcp4 udp4 tcp6 udp6; do
	wait_for 10 test -s "$LAB_DIR/$flow.txt" || fail "nothing comes over $flow"
done

start_daemon "$policy" --keep
expect_soon "TCP over IPv4" 20 entry MEDIA "$SERVER4,tcp:8443,$CLIENT4"
expect_soon "UDP over IPv4" 20 entry MEDIA "$SERVER4,udp:8801,$CLIENT4"
expect_soon "TCP over IPv6" 20 entry MEDIA6 "$SERVER6,tcp:8443,$CLIENT6"
expect_soon "UDP over IPv6" 20 entry MEDIA6 "$SERVER6,udp:8801,$CLIENT6"

# The next daemon has only what the kernel kept of them, and comes to the same.
stop_daemon
in_ns gateway ipset destroy MEDIA 2>/dev/null || true
in_ns gateway ipset destroy MEDIA6 2>/dev/null || true
start_daemon "$policy" --keep
expect_soon "TCP over IPv4, adopted" 20 entry MEDIA "$SERVER4,tcp:8443,$CLIENT4"
expect_soon "UDP over IPv4, adopted" 20 entry MEDIA "$SERVER4,udp:8801,$CLIENT4"
expect_soon "TCP over IPv6, adopted" 20 entry MEDIA6 "$SERVER6,tcp:8443,$CLIENT6"
expect_soon "UDP over IPv6, adopted" 20 entry MEDIA6 "$SERVER6,udp:8801,$CLIENT6"
equal "entries" "$(in_ns gateway ipset save MEDIA | grep -c ^add) $(in_ns gateway ipset save MEDIA6 | grep -c ^add)" "2 2"
stop_daemon
l7mark unload --all >/dev/null
