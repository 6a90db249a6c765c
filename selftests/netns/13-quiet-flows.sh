#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Flows that end or go quiet before their sample is full get an answer all the same: by the idle
# timer, by FIN and by RST.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start quiet
need ipset socat
# policy SECONDS: every flow to the echo ports, whatever it is, as soon as it has an answer.
policy() {
	write_policy "quiet-$1" <<END
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "sampling": { "packets": 200, "idle_timeout": $1 },
  "classes": [
    { "name": "answered", "match": { "server_ports": ["7001-7009"], "states": ["guessed", "final"] },
      "ipset": { "name": "ANSWERED" } }
  ]
}
END
}
for port in 7001 7002 7003; do
	spawn server "tcp-$port" socat "TCP6-LISTEN:$port,ipv6only=0,fork,reuseaddr" EXEC:cat
	serving server tcp $port echo
done
serve_udp_echo 7005

# say_to PORT [OPTIONS]: a line and its echo, then silence.
say_to() {
	open_line "to-$1" socat -t 1 - "TCP4:$SERVER4:$1${2:-}"
	talk "to-$1" "zgr $1 qlx" || fail "the echo on port $1 does not answer"
}

start_daemon "$(policy 2)"
say_to 7001
expect_soon "a TCP flow that went quiet has an answer" 15 entry ANSWERED "$SERVER4,tcp:7001,$CLIENT4"
echo "zgr udp" | in_ns client socat -t 1 - "UDP4:$SERVER4:7005" >/dev/null
expect_soon "a UDP flow that went quiet has an answer" 15 entry ANSWERED "$SERVER4,udp:7005,$CLIENT4"
stop_daemon

# With an hour's patience only the flow's own end can bring the answer.
start_daemon "$(policy 3600)"
say_to 7002
sleep 3
refuse "an open flow is still being sampled" entry ANSWERED "$SERVER4,tcp:7002,$CLIENT4"
close_line to-7002
expect_soon "a flow that ended by FIN has an answer" 15 entry ANSWERED "$SERVER4,tcp:7002,$CLIENT4"
say_to 7003 ,linger=0
close_line to-7003
expect_soon "a flow that ended by RST has an answer" 15 entry ANSWERED "$SERVER4,tcp:7003,$CLIENT4"
