#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Our bits in conntrack over a flow's life, behind NAT: written again to an entry that was made anew, changed
# and cleared with the class, and cleared when the daemon ends, but not by --keep. Nobody else's bit is touched.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start ctlife
need conntrack jq openssl socat
# policy CLASSES [INTERFACE-KEYS]
policy() {
	write_policy life <<END
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc"${2:-} } ],
  "classes": [ $1 ]
}
END
}
ZOOM='{ "name": "zoom", "match": { "applications": ["Zoom"] }, "conntrack": { "mark": "0x85/0xff", "label": 3 } }'
CALLS='{ "name": "calls", "match": { "applications": ["Zoom"] }, "conntrack": { "mark": "0x100/0xf00" } }'
NONE='{ "name": "none", "match": { "applications": ["BitTorrent"] }, "mark": "0x1/0x1" }'
serve_tls_echo 443 us04web.zoom.us

for family in 4 6; do
	in_ns gateway "$(ipt $family)" -w -t nat -A POSTROUTING -o wan0 -j MASQUERADE
	# A user's own bit, in each entry.
	witness $family mangle FORWARD user-bit -i lan0 -j CONNMARK --set-xmark 0x4000/0x4000
	witness $family mangle PREROUTING label -i lan0 -p tcp --dport 443 -m connlabel --label 3
done
start_daemon "$(policy "$ZOOM")"

# entry_has 4|6 MARK/MASK [ARGS...]: the established entry of the connection to port 443 does.
entry_has() {
	in_ns gateway conntrack -L -f "ipv$1" -p tcp --dport 443 --mark "$2" "${@:3}" 2>/dev/null |
		grep ESTABLISHED >/dev/null
}
# sends FAMILY: the connection says something, which makes its entry anew if need be.
sends() { talk "zoom$1" "word $RANDOM$RANDOM"; }
sends_and_has() { sends "$1" && entry_has "$@"; }
# labels FAMILY: packets with the label, of what the client says.
labels() {
	local before
	before=$(hits "$1" mangle label)
	sends "$1"
	echo $(($(hits "$1" mangle label) - before))
}
labelled() { [ "$(labels "$1")" -gt 0 ]; }
unlabelled() { [ "$(labels "$1")" -eq 0 ]; }
counter() { l7mark status --json | jq --arg name "$1" '.conntrack[$name] // 0'; }
counter_at_least() { [ "$(counter "$1")" -ge "$2" ]; }

# --- written, and written again ------------------------------------------------------------------
for family in 4 6; do
	server=SERVER$family
	open_tls "zoom$family" us04web.zoom.us "${!server}" 443
	sends $family || fail "IPv$family: the connection does not work"
	expect_soon "IPv$family: the mark is set, and the user's bit is there" 10 sends_and_has $family 0x4085/0x4fff
	expect_soon "IPv$family: the label, too" 10 labelled $family
done
at_least "status: written" "$(counter written)" 2
equal "status: rewritten before a flush" "$(counter rewritten)" 0
# Of both families: conntrack -F knows no family.
in_ns gateway conntrack -F >/dev/null 2>&1
for family in 4 6; do
	sends $family || fail "IPv$family: the connection does not survive the flush"
	expect_soon "IPv$family: after a flush the mark is there again" 10 entry_has $family 0x4085/0x4fff
	expect_soon "IPv$family: and the label" 10 labelled $family
	in_ns gateway conntrack -D -f "ipv$family" -p tcp --dport 443 >/dev/null 2>&1
	# Longer than is tried at once: the flow's next packet is what counts.
	sleep 6
	sends $family || fail "IPv$family: the connection does not survive the end of its entry"
	expect_soon "IPv$family: a flow that was quiet after the end of its entry" 15 entry_has $family 0x4085/0x4fff
done
at_least "status: rewritten" "$(counter rewritten)" 4
equal "status: events lost" "$(counter lost_events)" 0
expect "status as text has the same" grep -E '^rewritten +[0-9]' <(l7mark status)

# --- changed and cleared with the class ------------------------------------------------------------
policy "$CALLS" >/dev/null
expect "a policy with other bits is loaded" l7mark reload
for family in 4 6; do
	expect_soon "IPv$family: the new class's mark instead of the old one's" 10 entry_has $family 0x4100/0x4fff
	expect_soon "IPv$family: the label is cleared" 10 unlabelled $family
done
policy "$NONE" >/dev/null
expect "a policy without the class is loaded" l7mark reload
for family in 4 6; do
	expect_soon "IPv$family: the mark is cleared, the user's bit is not" 10 entry_has $family 0x4000/0x4fff
done
equal "status: cleared" "$(counter cleared)" 2
policy "$ZOOM" >/dev/null
expect "the first policy is loaded again" l7mark reload
for family in 4 6; do
	expect_soon "IPv$family: the mark is set again" 10 entry_has $family 0x4085/0x4fff
done

# --- the daemon's end ------------------------------------------------------------------------------
stop_daemon
for family in 4 6; do
	expect "IPv$family: the daemon's end clears the mark" entry_has $family 0x4000/0x4fff
	expect "IPv$family: and the label" unlabelled $family
done
start_daemon "$(policy "$ZOOM")" --keep
for family in 4 6; do
	close_line "zoom$family"
	rm "$LAB_DIR/zoom$family."*
done
in_ns gateway conntrack -F >/dev/null 2>&1
for family in 4 6; do
	server=SERVER$family
	open_tls "zoom$family" us04web.zoom.us "${!server}" 443
	expect_soon "IPv$family: a daemon with --keep: the mark is set" 10 sends_and_has $family 0x4085/0x4fff
done
stop_daemon
for family in 4 6; do
	expect "IPv$family: with --keep the mark stays" entry_has $family 0x4085/0x4fff
done
# The next one does not know what was written, but that these bits are its policy's.
start_daemon "$(policy "$CALLS, { \"name\": \"other\", \"match\": { \"applications\": [\"BitTorrent\"] }, \"conntrack\": { \"mark\": \"0x1/0xff\" } }")"
for family in 4 6; do
	expect_soon "IPv$family: the next daemon's class takes over" 10 entry_has $family 0x4100/0x4fff
done
stop_daemon
for family in 4 6; do
	expect "IPv$family: and its end clears the bits" entry_has $family 0x4000/0x4fff
done

# --- zones -----------------------------------------------------------------------------------------
for family in 4 6; do
	for device in lan0 wan0; do in_ns gateway "$(ipt $family)" -w -t raw -A PREROUTING -i $device -j CT --zone 7; done
	close_line "zoom$family"
	rm "$LAB_DIR/zoom$family."*
done
start_daemon "$(policy "$ZOOM" ', "conntrack_zone": 7')"
for family in 4 6; do
	server=SERVER$family
	open_tls "zoom$family" us04web.zoom.us "${!server}" 443
	expect_soon "IPv$family: the mark is set in the interface's zone" 10 sends_and_has $family 0x4085/0x4fff --zone 7
done
in_ns gateway conntrack -F >/dev/null 2>&1
for family in 4 6; do
	expect_soon "IPv$family: and again after a flush" 10 sends_and_has $family 0x4085/0x4fff --zone 7
done
policy "$ZOOM" >/dev/null
expect "a policy for zone 0 is loaded" l7mark reload
for family in 4 6; do
	expect_soon "IPv$family: the mark in the zone that was left is cleared" 10 entry_has $family 0x4000/0x4fff --zone 7
done
