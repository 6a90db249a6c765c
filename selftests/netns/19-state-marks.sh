#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# How far a flow's answer has come is visible to rules in bits of the mark, and only the bits of the
# masks are ever touched.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start states
need openssl socat conntrack
policy=$(
	write_policy states <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "state_marks": { "mask": "0xf00", "undecided": "0x100", "provisional": "0x200", "guessed": "0x300",
                   "final": "0x400", "conntrack_mask": "0xf00" },
  "classes": [ { "name": "zoom", "match": { "applications": ["Zoom"] }, "mark": "0x85/0xff" } ]
}
END
)
serve_tls_echo 443 us04web.zoom.us
witness 4 mangle PREROUTING syn-undecided -p tcp --dport 443 --syn -m mark --mark 0x100/0xfff
witness 4 mangle PREROUTING final -p tcp --dport 443 -m mark --mark 0x485/0xfff
# A user's bit, set before our program on the way out.
witness 4 mangle FORWARD user-bit -o lan0 -j MARK --set-xmark 0x10000000/0xf0000000
out=$(mark_class lan0 0x10000485)
start_daemon "$policy"

open_tls zoom us04web.zoom.us $SERVER4 443
for word in one two three four five six seven eight nine ten; do
	talk zoom $word || fail "the connection broke"
done
final_in_conntrack() { in_ns gateway conntrack -L -p tcp --dport 443 --mark 0x400/0xf00 2>/dev/null | grep ESTABLISHED >/dev/null; }
at_least "first packets seen as undecided" "$(hits 4 mangle syn-undecided)" 1
more_final() {
	talk zoom "more $RANDOM"
	hits_at_least 4 mangle final 5
}
expect_soon "later packets are seen as final, with the class's mark" 15 more_final
at_least "packets on the way out with our bits and the user's" "$(class_packets lan0 "$out")" 5
in_ns gateway iptables -w -t mangle -A PREROUTING -m conntrack --ctstate ESTABLISHED # so that there is conntrack
open_tls again us04web.zoom.us $SERVER4 443
for word in one two three four five six seven eight nine ten; do
	talk again $word || fail "the second connection broke"
done
expect_soon "the conntrack mark says final too" 15 final_in_conntrack
