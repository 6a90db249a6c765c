#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Second job: weak TLS is logged: obsolete version, weak cipher, self-signed and expired certificate,
# each told apart, and a good connection left out of it.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start weaktls
need openssl ipset
policy=$(
	write_policy weak-tls <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [ // by nDPI's numbers of the risks, which no version changes
    { "name": "obsolete", "match": { "risks": [7] }, "continue": true, "log": true, "ipset": { "name": "OBSOLETE" } },
    { "name": "weak-cipher", "match": { "risks": [8] }, "continue": true, "log": true, "ipset": { "name": "CIPHER" } },
    { "name": "self-signed", "match": { "risks": [6] }, "continue": true, "log": true, "ipset": { "name": "SELFSIGNED" } },
    { "name": "expired", "match": { "risks": [9] }, "continue": true, "log": true, "ipset": { "name": "EXPIRED" } }
  ]
}
END
)
make_cert good.lab.test
make_cert self.lab.test self-signed
make_cert old.lab.test expired

# serve PORT CERTIFICATE ARGS...
serve() {
	spawn server "s_server-$1" openssl s_server -accept "$1" -cert "$LAB_DIR/$2.crt" -key "$LAB_DIR/$2.key" -www "${@:3}"
	serving server tcp "$1" s_server
}
# visit ADDRESS PORT NAME ARGS...: a page from there, as a browser of that kind would get it.
visit() {
	printf 'GET / HTTP/1.0\r\n\r\n' | in_ns client timeout 20 openssl s_client -quiet -ign_eof -alpn http/1.1 \
		-servername "$3" -connect "$(bracket "$1"):$2" "${@:4}" 2>>"$LAB_DIR/visit.log" | grep 'HTTP/1.0 200' >/dev/null
}
serve 4431 good.lab.test -tls1 -cipher 'DEFAULT:@SECLEVEL=0'
serve 4432 good.lab.test -tls1_2 -cipher AES128-SHA
serve 4433 self.lab.test -tls1_2
serve 4434 old.lab.test -tls1_2
serve 4435 good.lab.test -tls1_2
start_daemon "$policy"

elements() { in_ns gateway ipset list "$1" | grep -cE '^[0-9a-f.:]+,tcp:' || true; }
try() {
	local family=$1 suffix=${1#4} server=$2 client=$3 set
	expect "IPv$family: TLS 1.0 works" visit "$server" 4431 good.lab.test -tls1 -cipher 'DEFAULT:@SECLEVEL=0'
	expect "IPv$family: AES128-SHA works" visit "$server" 4432 good.lab.test -tls1_2 -cipher AES128-SHA
	expect "IPv$family: a self-signed certificate works" visit "$server" 4433 self.lab.test
	expect "IPv$family: an expired certificate works" visit "$server" 4434 old.lab.test
	expect "IPv$family: good TLS works" visit "$server" 4435 good.lab.test
	expect_soon "IPv$family: the obsolete version is found" 15 entry "OBSOLETE$suffix" "$server,tcp:4431,$client"
	expect_soon "IPv$family: the weak cipher is found" 15 entry "CIPHER$suffix" "$server,tcp:4432,$client"
	expect_soon "IPv$family: the self-signed certificate is found" 15 entry "SELFSIGNED$suffix" "$server,tcp:4433,$client"
	expect_soon "IPv$family: the expired certificate is found" 15 entry "EXPIRED$suffix" "$server,tcp:4434,$client"
	for set in OBSOLETE CIPHER SELFSIGNED EXPIRED; do
		refuse "IPv$family: good TLS is not in $set" entry "$set$suffix" "$server,tcp:4435,$client"
	done
	equal "IPv$family: servers in OBSOLETE" "$(elements "OBSOLETE$suffix")" 1
	equal "IPv$family: servers in SELFSIGNED" "$(elements "SELFSIGNED$suffix")" 1
	equal "IPv$family: servers in EXPIRED" "$(elements "EXPIRED$suffix")" 1
}
try 4 $SERVER4 $CLIENT4
try 6 $SERVER6 $CLIENT6

# The log is what the administrator reads.
for class in obsolete weak-cipher self-signed expired; do
	logged() { grep -w -- "$class" "$LAB_DIR/l7markd.log" | grep "$SERVER4" >/dev/null; }
	expect "the log names class $class with its server" logged
done
