#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Evidence: a blocked server stays blocked from connection to connection, silence and "Unknown" undo
# nothing, a guess drops nothing, a promise that was wrong is corrected and counted, DNS and one-way packets
# teach no service, and each blocked flow has a record, an event, a count and a line in the log.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start evidence
need bpftool dig dnsmasq openssl socat
MIXED4=198.51.100.12 GUESS4=198.51.100.13
for address in $MIXED4/32 $GUESS4/32; do in_ns server ip addr add "$address" dev lo; done
policy() { # [LOG-RATE]
	write_policy evidence <<END
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "first_packet": { "hints": false },
  "sampling": { "idle_timeout": 2 },
  "log": { "rate": ${1:-50} },
  "classes": [
    { "name": "bad", "match": { "hostnames": ["*.bad.test"] }, "drop": true, "log": true },
    { "name": "films", "match": { "hostnames": ["*.films.test"] }, "mark": "0x20/0xf0" },
    { "name": "calls", "match": { "applications": ["SIP"] }, "drop": true },
    { "name": "named", "match": { "applications": ["VNC"], "confidence": ["dpi", "port"] }, "drop": true },
    { "name": "shell", "match": { "applications": ["SSH", "Telnet"] }, "mark": "0x30/0xf0", "drop": true }
  ]
}
END
}
serve_dns www.bad.test=$OTHER4 www.fine.test=$SERVER4
serve_tls_echo 443 www.films.test
# nDPI has no guess for this port.
serve_tls_echo 4443 www.bad.test
for port in 22 5900; do
	spawn server "plain-$port" socat "TCP4-LISTEN:$port,bind=$GUESS4,fork,reuseaddr" EXEC:cat
	serving server tcp $port plain
done
witness 4 mangle PREROUTING other -i lan0 -p tcp -d $OTHER4 --dport 4443
for mark in 0x0 0x20; do
	witness 4 mangle PREROUTING syn-$mark -i lan0 -p tcp -d $MIXED4 --dport 443 --syn -m mark --mark $mark/0xf0
done
witness 4 mangle PREROUTING shell -i lan0 -p tcp -d $GUESS4 --dport 22 -m mark --mark 0x30/0xf0
witness 4 mangle PREROUTING datagrams -i lan0 -p udp -d $SERVER4 --dport 4444

# figure PATH: of status.
figure() { l7mark status --json | jq "$1 // 0"; }
figure_is() { [ "$(figure "$1")" -eq "$2" ]; }
# flow FILTER: a flow of which it is true is listed.
flow() { l7mark flows --json | jq -es "any(.[]; $1)"; }
start_daemon "$(policy)"
: >"$LAB_DIR/events.json"
detached "$L7MARK" events --netns "$(ns_of gateway)" --instance "$INSTANCE" --json \
	</dev/null >>"$LAB_DIR/events.json" 2>"$LAB_DIR/events.log" &
disown $!
event() { jq -es "any(.[]; $1)" "$LAB_DIR/events.json"; }

# --- a blocked server ---------------------------------------------------------------------------------
tries() { in_ns client timeout 6 openssl s_client -servername www.bad.test -connect "$1:4443" </dev/null >/dev/null 2>&1; }
refuse "the first connection to a blocked name" tries $OTHER4
expect_soon "it is blocked by its own answer" 10 flow '.dst == "'$OTHER4'" and .class == "bad" and .source == "answer"'
before=$(hits 4 mangle other)
at_least "its handshake got through" "$before" 1
# Each is silent for longer than the worker waits: "Unknown" is its last word.
for number in 2 3 4 5; do refuse "connection $number" tries $OTHER4; done
sleep 2
# Retransmissions of the first may be dropped by the answer only after a moment; later SYNs never pass.
equal "packets of the later ones behind l7mark" "$(($(hits 4 mangle other) - before))" 0
expect "a blocked flow is listed with class and source" \
	flow '.dst == "'$OTHER4'" and .class == "bad" and .source == "service" and .blocked and .state == "guessed"'
expect "it has an event" event '.dst == "'$OTHER4'" and .class == "bad" and .source == "service" and .type == "flow"'
at_least "status counts those blocked by the promise" "$(figure .blocked.bad.service)" 4
equal "status counts the one blocked by its answer" "$(figure .blocked.bad.answer)" 1
at_least "the log has a line for each" "$(grep -c 'class bad: tcp .*; dropped by service' "$LAB_DIR/l7markd.log" || true)" 4

# --- DNS is no service ----------------------------------------------------------------------------------
resolves() { [ "$(in_ns client dig +short +tries=1 +time=2 "@$SERVER4" "$1")" = "$2" ]; }
resolves www.bad.test $OTHER4 || true # its own answer may be dropped: it is in the class
expect_soon "that look-up has its answer" 10 event '.dport == 53 and .hostname == "www.bad.test" and .state == "final"'
for number in 1 2 3; do expect "other names are looked up still, $number" resolves www.fine.test $SERVER4; done

# --- one way only ---------------------------------------------------------------------------------------
datagram() { in_ns client socat -u STDIN "UDP4:$SERVER4:4444"; }
printf 'REGISTER sip:lab.test SIP/2.0\r\nVia: SIP/2.0/UDP 10.77.1.2:4444\r\nFrom: <sip:a@lab.test>\r\n\r\n' | datagram
expect_soon "a datagram that nobody answers has its class" 10 event '.dport == 4444 and .class == "calls"'
before=$(hits 4 mangle datagrams)
echo 'nothing of the kind' | datagram
equal "it has taught nothing: another one passes" "$(($(hits 4 mangle datagrams) - before))" 1

# --- a promise that was wrong -----------------------------------------------------------------------------
# connect TEXT NAME SERVER-NAME MARK: the mark of a new connection's SYN.
connect() {
	local before other=0x0
	[ "$4" != 0x0 ] || other=0x20
	before="$(hits 4 mangle "syn-$4") $(hits 4 mangle "syn-$other")"
	open_tls "$2" "$3" $MIXED4 443
	talk "$2" hello || fail "$1: the connection does not work"
	at_least "$1: SYNs with the mark $4" "$(($(hits 4 mangle "syn-$4") - ${before% *}))" 1
	equal "$1: SYNs with another" "$(($(hits 4 mangle "syn-$other") - ${before#* }))" 0
}
answered() { flow '.dst == "'$MIXED4'" and .hostname == "'"$1"'" and .state == "final"'; }
connect "a first flow" first www.films.test 0x0
expect_soon "it has its answer" 10 answered www.films.test
promising() { [ "$(figure .services.promising)" -ge 2 ]; }
expect_soon "its service promises" 10 promising
connect "the next to that service" second www.films.test 0x20
expect_soon "the promise is confirmed" 10 figure_is .first_packet.service.confirmed 1
connect "one of no class" third www.plain.test 0x20
expect_soon "the promise is corrected" 10 figure_is .first_packet.service.corrected 1
equal "the promise is not confirmed by that" "$(figure .first_packet.service.confirmed)" 1
expect "the flow has no class" flow '.hostname == "www.plain.test" and .class == "" and .state == "final"'
equal "the service is mixed" "$(figure '.services.mixed_first[] | select(.server == "'$MIXED4'") | .port')" 443
connect "a service that was mixed promises nothing" fourth www.films.test 0x0
at_least "promises whose flows had no answer of their own" "$(figure .first_packet.service.absent)" 4

# --- guesses ------------------------------------------------------------------------------------------------
open_line guess-22 socat - "TCP4:$GUESS4:22"
expect "a flow of no known form on port 22" talk guess-22 "0123456789 abcdefgh"
guessed() { flow ".dst == \"$GUESS4\" and .dport == $1 and .source == \"guess\" and .confidence == \"port\" and .class == \"$2\""; }
for number in {1..12}; do talk guess-22 "word number $number" || break; done
expect_soon "its class is by a guess" 10 guessed 22 shell
before=$(hits 4 mangle shell)
expect "a guess does not drop" talk guess-22 "one more"
at_least "a guess marks" "$(($(hits 4 mangle shell) - before))" 1
open_line guess-5900 socat - "TCP4:$GUESS4:5900"
for number in {1..12}; do talk guess-5900 "word number $number" || break; done
expect_soon "another is in a class that names its confidence" 10 guessed 5900 named
say_on guess-5900 "last word" || true
refuse "that drops it" wait_for 3 hears guess-5900 "last word"
equal "status counts it as a guess" "$(figure .blocked.named.guess)" 1

# --- the log's limit ------------------------------------------------------------------------------------------
policy 1 >/dev/null
expect "a policy with one line a second is loaded" l7mark reload
for number in {1..6}; do tries $OTHER4 & done
wait
left_out() { [ "$(figure .log_left_out)" -ge 1 ]; }
expect_soon "status counts lines that were left out" 10 left_out
told() { grep -q 'lines of flows were left out: log.rate is 1 a second' "$LAB_DIR/l7markd.log"; }
expect_soon "the log says how many" 10 told
stop_daemon
expect_nothing_left
