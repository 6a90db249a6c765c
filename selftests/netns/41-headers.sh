#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Classes that need nothing but headers: a blocked port's first SYN does not pass, the first SYN to a port
# with a set puts the server into it, and a class in front that may still match holds a block back.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start headers
need ipset jq openssl socat
policy() { # DROPPED-PORT
	write_policy headers <<END
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [
    { "name": "films", "match": { "hostnames": ["*.films.test"], "server_ports": [443] }, "mark": "0x10/0xf0" },
    { "name": "mail", "match": { "server_ports": [$1] }, "drop": true },
    { "name": "web", "match": { "server_ports": [443] }, "drop": true },
    { "name": "proxy", "match": { "server_ports": ["8000-8080"], "transports": ["tcp"] }, "mark": "0x20/0xf0",
      "ipset": { "name": "PROXIES" } }
  ]
}
END
}
for family in 4 6; do
	server_of=SERVER$family
	for port in 25 26 443; do
		witness $family mangle PREROUTING "syn-$port" -i lan0 -p tcp -d "${!server_of}" --dport $port --syn
	done
	witness $family mangle PREROUTING proxied -i lan0 -p tcp -d "${!server_of}" --dport 8080 --syn -m mark --mark 0x20/0xf0
	# No answer comes, no payload goes: there is but the SYN.
	in_ns server "$(ipt $family)" -A INPUT -p tcp --dport 8080 -j DROP
done
serve_tls_echo 443 www.films.test
# knock ADDRESS PORT: a SYN or two; nobody needs to answer.
knock() { in_ns client timeout 1 socat -u /dev/null "TCP:$1:$2,connect-timeout=1" >/dev/null 2>&1 || true; }
bracketed() { case $1 in *:*) printf '[%s]' "$1" ;; *) printf '%s' "$1" ;; esac; }

start_daemon "$(policy 25)"
for family in 4 6; do
	client_of=CLIENT$family server_of=SERVER$family
	client=${!client_of} server=${!server_of} set=PROXIES
	[ $family = 4 ] || set=PROXIES6
	at=$(bracketed "$server")
	knock "$at" 25
	equal "IPv$family: SYNs to the blocked port behind l7mark" "$(hits $family mangle syn-25)" 0
	knock "$at" 26
	at_least "IPv$family: SYNs to another port" "$(hits $family mangle syn-26)" 1
	knock "$at" 8080
	at_least "IPv$family: marked SYNs to the proxy" "$(hits $family mangle proxied)" 1
	expect_soon "IPv$family: $set holds the proxy after its first SYN" 5 entry "$set" "$server,tcp:8080,$client"
	open_tls "films$family" www.films.test "$server" 443
	expect "IPv$family: a class in front holds the block of port 443 back" talk "films$family" hello
	at_least "IPv$family: SYNs to port 443" "$(hits $family mangle syn-443)" 1
done
flow() { l7mark flows --json | jq -es "any(.[]; $1)"; }
expect "a blocked flow is listed with class and source" flow '.dport == 25 and .class == "mail" and .source == "headers"'
expect "so is the one that the set knows" flow '.dport == 8080 and .class == "proxy" and .source == "headers"'
at_least "flows marked by headers" "$(l7mark status --json | jq .counters.provisional_by_headers)" 4

policy 26 >/dev/null
l7mark reload >/dev/null
before=$(hits 4 mangle syn-26)
knock "$SERVER4" 25
knock "$SERVER4" 26
at_least "after a reload the port is free" "$(hits 4 mangle syn-25)" 1
equal "and another is blocked" "$(($(hits 4 mangle syn-26) - before))" 0

stop_daemon
expect_nothing_left
