#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# The ways from a class of the policy to a class of HTB: the pinned program as the qdisc's filter, by the
# flow's mark (behind masquerade too) and by its five-tuple; skb->priority alone; tc's u32 and fw filters
# on the mark, where the kernel has them.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start classid
need openssl socat
policy=$(
	write_policy classid <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [
    { "name": "zoom", "match": { "applications": ["Zoom"] }, "mark": "0x85/0xff", "tc_class": "1:85" }
  ]
}
END
)
program=/sys/fs/bpf/l7mark/$INSTANCE/v2/programs/classid

# htb DEVICE MAJOR: the default class and the one that the policy names.
htb() {
	in_ns gateway tc qdisc replace dev "$1" root handle "$2:" htb default 30
	in_ns gateway tc class add dev "$1" parent "$2:" classid "$2:30" htb rate 10gbit quantum 60000
	in_ns gateway tc class add dev "$1" parent "$2:" classid "$2:85" htb rate 10gbit quantum 60000
}

# by_program MAJOR: the filter on wan0.
by_program() { in_ns gateway tc filter add dev wan0 parent "$1:" bpf da pinned "$program" classid "$1:"; }

serve_tls_echo 443 us04web.zoom.us
serve_tls_echo 8443 www.example.org
for family in 4 6; do
	witness $family nat POSTROUTING masquerade -o wan0 -j MASQUERADE
	witness $family mangle PREROUTING final -p tcp --dport 443 -m mark --mark 0x85/0xff
done
htb lan0 1
htb wan0 1
start_daemon "$policy"

# known NAME FAMILY: that connection's packets carry the class's mark.
known() {
	local before
	before=$(hits "$2" mangle final)
	talk "$1" "word $RANDOM$RANDOM"
	[ "$(hits "$2" mangle final)" -gt "$before" ]
}
for family in 4 6; do
	server=$SERVER4 other=$OTHER4
	[ $family = 4 ] || server=$SERVER6 other=$OTHER6
	open_tls zoom$family us04web.zoom.us $server 443
	expect_soon "IPv$family: the flow is known" 15 known zoom$family $family
	open_tls other$family www.example.org $other 8443
	for word in one two three four five six; do
		talk other$family $word || fail "IPv$family: the other connection does not work"
	done
done

# settled DEVICE CLASS: no late ACK of what was said before is under way.
settled() {
	local before
	before=$(class_packets "$1" "$2")
	sleep 0.5
	[ "$(class_packets "$1" "$2")" -eq "$before" ]
}

# shifts DEVICE CLASS NAME: packets that the class sends while that connection says five words.
shifts() {
	local before word
	wait_for 15 settled "$1" "$2" || fail "class $2 of $1 does not come to rest"
	before=$(class_packets "$1" "$2")
	for word in one two three four five; do talk "$3" "$word $RANDOM" || fail "$3: the connection broke"; done
	echo $(($(class_packets "$1" "$2") - before))
}

# --- skb->priority by itself ---------------------------------------------------------------------
for family in 4 6; do
	at_least "IPv$family: downloads in lan0's 1:85, with no filter there" "$(shifts lan0 1:85 zoom$family)" 5
	equal "IPv$family: of another flow's" "$(shifts lan0 1:85 other$family)" 0
done
equal "filters on lan0's HTB" "$(in_ns gateway tc filter show dev lan0 parent 1:)" ""
# Forwarding sets the priority of IPv4 anew from the TOS field, unless told not to.
in_ns gateway sysctl -qw net.ipv4.ip_forward_update_priority=1
equal "IPv4: the priority does not survive forwarding" "$(shifts wan0 1:85 zoom4)" 0
in_ns gateway sysctl -qw net.ipv4.ip_forward_update_priority=0
at_least "IPv4: unless ip_forward_update_priority is 0" "$(shifts wan0 1:85 zoom4)" 5
in_ns gateway sysctl -qw net.ipv4.ip_forward_update_priority=1
at_least "IPv6: it does" "$(shifts wan0 1:85 zoom6)" 5

# --- the pinned program, by mark behind masquerade -----------------------------------------------------
by_program 1
at_least "IPv4: behind masquerade, in wan0's 1:85 by the program" "$(shifts wan0 1:85 zoom4)" 5
equal "IPv4: of another flow's" "$(shifts wan0 1:85 other4)" 0
# With a qdisc of another number no priority names a class of it, so that IPv6's is the program's too.
in_ns gateway tc qdisc del dev wan0 root
htb wan0 2
equal "IPv6: in wan0's 2:85 by the priority" "$(shifts wan0 2:85 zoom6)" 0
by_program 2
for family in 4 6; do
	at_least "IPv$family: behind masquerade, in wan0's 2:85 by the program" "$(shifts wan0 2:85 zoom$family)" 5
	equal "IPv$family: of another flow's" "$(shifts wan0 2:85 other$family)" 0
	at_least "IPv$family: which is in the default class" "$(shifts wan0 2:30 other$family)" 5
done

# --- the pinned program, by five-tuple -----------------------------------------------------------------
for family in 4 6; do
	# New flows keep their addresses; those that are there stay behind masquerade.
	in_ns gateway "$(ipt $family)" -w -t nat -I POSTROUTING -j ACCEPT
	witness $family mangle POSTROUTING unmark -o wan0 -j MARK --set-xmark 0/0xffffffff
	server=$SERVER4
	[ $family = 4 ] || server=$SERVER6
	open_tls plain$family us04web.zoom.us $server 443
	expect_soon "IPv$family: a flow without NAT is known" 15 known plain$family $family
	at_least "IPv$family: without its mark, in wan0's 2:85 by its five-tuple" "$(shifts wan0 2:85 plain$family)" 5
	equal "IPv$family: behind masquerade nothing tells it" "$(shifts wan0 2:85 zoom$family)" 0
	in_ns gateway "$(ipt $family)" -w -t mangle -D POSTROUTING -o wan0 -j MARK --set-xmark 0/0xffffffff \
		-m comment --comment unmark
done

# --- tc's own filters on the mark ------------------------------------------------------------------------
no_filters() { in_ns gateway tc filter del dev wan0 parent 2: 2>/dev/null || true; }

# by_mark NAME: what the filter that is in place now does.
by_mark() {
	local name=$1 family
	for family in 4 6; do
		at_least "IPv$family: in wan0's 2:85 by $name" "$(shifts wan0 2:85 zoom$family)" 5
		equal "IPv$family: of another flow's" "$(shifts wan0 2:85 other$family)" 0
	done
}
no_filters
# A kernel without CONFIG_CLS_U32_MARK takes the filter and forgets the mark.
if in_ns gateway tc filter add dev wan0 parent 2: protocol all prio 20 u32 match mark 0x85 0xff flowid 2:85 \
	2>"$LAB_DIR/u32.log" && in_ns gateway tc filter show dev wan0 parent 2: | grep -w mark >/dev/null; then
	by_mark "u32 match mark"
else
	say "not in this kernel: u32 match mark (CONFIG_CLS_U32_MARK)"
fi
no_filters
if in_ns gateway tc filter add dev wan0 parent 2: protocol all prio 20 handle 0x85/0xff fw flowid 2:85 \
	2>"$LAB_DIR/fw.log"; then
	by_mark "fw"
else
	say "not in this kernel: fw ($(head -n 1 "$LAB_DIR/fw.log"))"
fi
