#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# An ipset entry is refreshed while its flow lives, and gone not long after; flows that share an entry
# keep it until the last of them ends.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start timeout
need ipset openssl socat
policy=$(
	write_policy timeout <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "timeouts": { "closed": 1 },
  "classes": [
    { "name": "short", "match": { "applications": ["Zoom"], "server_ports": [443] },
      "ipset": { "name": "SHORT", "timeout": 4 } },
    { "name": "shared", "match": { "applications": ["Zoom"] },
      "ipset": { "name": "SHARED", "timeout": 600, "delete_on_end": true } }
  ]
}
END
)
serve_tls_echo 443 us04web.zoom.us
serve_tls_echo 8443 us04web.zoom.us
start_daemon "$policy"

open_tls live us04web.zoom.us $SERVER4 443
talk live hello || fail "the connection does not work"
short="$SERVER4,tcp:443,$CLIENT4"
expect_soon "the live flow has its entry" 10 entry SHORT "$short"
missing=0
for second in 1 2 3 4 5 6 7 8 9 10 11 12; do
	talk live "second $second" || fail "the connection broke"
	sleep 1
	entry SHORT "$short" || missing=$((missing + 1))
done
equal "looks at the entry during three times its timeout that found it gone" $missing 0
close_line live
expect_soon "the entry is gone after the flow" 20 no_entry SHORT "$short"

shared="$SERVER4,tcp:8443,$CLIENT4"
open_tls first us04web.zoom.us $SERVER4 8443
open_tls second us04web.zoom.us $SERVER4 8443
for word in one two three; do
	talk first $word || fail "the first connection broke"
	talk second $word || fail "the second connection broke"
done
expect_soon "two parallel flows have one entry" 10 entry SHARED "$shared"
equal "entries in SHARED" "$(set_size SHARED)" 1
close_line first
closed() { [ -z "$(in_ns client ss -Htn state established "dport = :8443" | sed -n 2p)" ]; }
wait_for 10 closed || fail "the first connection does not close"
missing=0
for second in 1 2 3 4 5; do
	talk second "second $second" || fail "the second connection broke"
	sleep 1
	entry SHARED "$shared" || missing=$((missing + 1))
done
equal "looks at the entry after the first flow's end that found it gone" $missing 0
close_line second
expect_soon "the entry goes with the last flow" 20 no_entry SHARED "$shared"
