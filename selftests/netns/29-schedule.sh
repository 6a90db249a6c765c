#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# The end of a class's schedule ends all that the class does: its mark, its conntrack mark and label, and what
# service memory and DNS answers promise for it. A class without a schedule keeps its own.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start schedule
need conntrack date dig dnsmasq jq openssl socat

# At least 25 s for what the class does until the end, which falls on a full minute.
until [ "$(date -u +%-S)" -le 35 ]; do sleep 1; done
end=$(date -u -d '1 minute' +%H:%M)
policy=$(
	write_policy schedule <<END
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [
    { "name": "calls", "match": { "applications": ["Zoom"] }, "mark": "0x10/0xff",
      "conntrack": { "mark": "0x85/0xff", "label": 3 },
      "schedule": { "from": "$(date -u -d '1 hour ago' +%H:%M)", "to": "$end", "timezone": "UTC" } },
    { "name": "web", "match": { "hostnames": ["*.example.org"] }, "mark": "0x20/0xff" }
  ]
}
END
)
serve_dns us05web.zoom.us=$OTHER4
serve_tls_echo 443 us04web.zoom.us
serve_tls_echo 8443 www.example.org
witness 4 mangle PREROUTING label -i lan0 -p tcp --dport 443 -m connlabel --label 3
for mark in 0x0 0x10 0x20; do
	witness 4 mangle PREROUTING syn-$mark -i lan0 -p tcp --syn -m mark --mark $mark/0xff
done
start_daemon "$policy"

# syn_mark NAME SERVER-NAME ADDRESS PORT: the mark of a new connection's first packet, in SYN_MARK.
syn_mark() {
	local mark
	in_ns gateway iptables -w -t mangle -Z PREROUTING
	open_tls "$@"
	talk "$1" hello || fail "$1: the connection does not work"
	SYN_MARK=
	for mark in 0x0 0x10 0x20; do
		if [ "$(hits 4 mangle syn-$mark)" -gt 0 ]; then SYN_MARK=${SYN_MARK:+$SYN_MARK }$mark; fi
	done
}

# promises MAP: how many entries it has.
promises() { bpftool -j map dump pinned "$(echo "/sys/fs/bpf/l7mark/$INSTANCE"/v*/"$1")" | jq length; }
has_promises() { [ "$(promises "$1")" -ge "$2" ]; }
class_of() { l7mark flows --json | jq -r --argjson port "$1" 'select(.dport == $port) | .class' | sort -u | xargs; }
entry_is() { in_ns gateway conntrack -L -p tcp --dport 443 "$@" 2>/dev/null | grep ESTABLISHED >/dev/null; }
none_marked() { entry_is && ! entry_is --mark 0x85/0xff; }
# labels: packets with the label, of what the client says on the first line.
labels() {
	local before
	before=$(hits 4 mangle label)
	talk calls "word $RANDOM$RANDOM"
	echo $(($(hits 4 mangle label) - before))
}
labelled() { [ "$(labels)" -gt 0 ]; }
unlabelled() { [ "$(labels)" -eq 0 ]; }

open_tls calls us04web.zoom.us $SERVER4 443
open_tls web www.example.org $SERVER4 8443
for name in calls web; do talk $name hello || fail "$name: the connection does not work"; done
expect_soon "both services are remembered" 10 has_promises services 2
expect_soon "the conntrack mark is set" 10 entry_is --mark 0x85/0xff
expect_soon "the label, too" 10 labelled
syn_mark calls-again us04web.zoom.us $SERVER4 443
equal "within the schedule: mark of the SYN to a known service" "$SYN_MARK" 0x10
[ "$(in_ns client dig +short @$SERVER4 us05web.zoom.us A)" = $OTHER4 ] || fail "the resolver does not answer"
expect_soon "the DNS answer promises the class" 10 has_promises hints 1
before=$(date -u +%H:%M)
[ "$before" \< "$end" ] || [ "$end" = 00:00 ] || fail "the machine is too slow: the schedule ended meanwhile"

# --- its end -----------------------------------------------------------------------------------
until [ "$(date -u +%H:%M)" = "$end" ]; do sleep 1; done
unclassed() { [ -z "$(class_of 443)" ]; }
expect_soon "the flow has no class any more" 15 unclassed
equal "the other flow keeps its own" "$(class_of 8443)" web
syn_mark calls-later us04web.zoom.us $SERVER4 443
equal "after the schedule: mark of the SYN to the known service" "$SYN_MARK" 0x0
# Before the answer's life of a minute has passed.
syn_mark hinted us05web.zoom.us $OTHER4 443
equal "after the schedule: mark of the SYN to the address of the DNS answer" "$SYN_MARK" 0x0
expect_soon "no conntrack mark is left" 10 none_marked
expect_soon "and no label" 10 unlabelled
syn_mark web-again www.example.org $SERVER4 8443
equal "the other class's service is known still: mark of the SYN" "$SYN_MARK" 0x20

# --- a class that a reload takes away ------------------------------------------------------------
sed -i '/"name": "web"/d; s/"UTC" } },/"UTC" } }/' "$policy"
expect "a policy without that class is loaded" l7mark reload
syn_mark web-later www.example.org $SERVER4 8443
equal "after the reload: mark of the SYN to its service" "$SYN_MARK" 0x0
