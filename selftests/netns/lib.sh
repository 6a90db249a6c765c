# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Labs of network namespaces: a client, a gateway and a server, with the daemon in the gateway.
# The end-to-end tests, the demo and captures/make are written with it.
#
# What a caller gets from lab_start:
#
#     client eth0 ---- lan0 gateway wan0 ---- up0 server
#                                   wan1 ---- up1          (lab_start two-wans)
#
# Nothing touches an interface of the machine itself: all links are made inside the namespaces,
# whose names hold the test's name and process id. What is started in a namespace is ended with it,
# by process id. bpffs is not visible through "ip netns exec", so nsenter is used throughout.
# With "pipefail" a pipe into "grep -q" fails when grep has seen enough too early: not used here.

if [ "${BASH_VERSINFO[0]}" -lt 5 ]; then
	echo "bash 5 or newer is needed" >&2
	exit 1
fi

lib_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd "$lib_dir/../.." && pwd)
BUILD=${L7MARK_BUILD:-$REPO/build}
L7MARK=$BUILD/bin/l7mark
L7MARKD=$BUILD/bin/l7markd

# Addresses. The client's are private ones, the server's from the ranges for documentation.
CLIENT4=10.77.1.2 CLIENT6=fd77:1::2
GATEWAY4=10.77.1.1 GATEWAY6=fd77:1::1
SERVER4=198.51.100.10 SERVER6=2001:db8:5::10
OTHER4=198.51.100.11 OTHER6=2001:db8:5::11

CHECKS=0
FAILURES=0
MISSES=()
LAB=
LAB_DIR=
INSTANCE=
DAEMON_PID=
ROLES=()
declare -A WRITER=()
FLOWS_MAP=

# --- results ---------------------------------------------------------------------------------

say() { printf '%s\n' "$*"; }

pass() {
	CHECKS=$((CHECKS + 1))
	say "ok      $*"
}

miss() {
	CHECKS=$((CHECKS + 1))
	FAILURES=$((FAILURES + 1))
	MISSES+=("$*")
	say "NOT OK  $*"
}

# fail TEXT: the test can't go on.
fail() {
	miss "$*"
	exit 1
}

# skip REASON: the machine lacks what the test is about.
skip() {
	say "SKIP $*"
	exit 77
}

# expect TEXT COMMAND...: the command must succeed.
expect() {
	local text=$1
	shift
	if "$@"; then pass "$text"; else miss "$text [$*]"; fi
}

# refuse TEXT COMMAND...: the command must fail.
refuse() {
	local text=$1
	shift
	if "$@"; then miss "$text [$*]"; else pass "$text"; fi
}

# at_least TEXT VALUE MINIMUM
at_least() {
	if [ "$2" -ge "$3" ]; then pass "$1: $2"; else miss "$1: $2, expected at least $3"; fi
}

# equal TEXT VALUE EXPECTED
equal() {
	if [ "$2" = "$3" ]; then pass "$1: $2"; else miss "$1: '$2', expected '$3'"; fi
}

# wait_for SECONDS COMMAND...: until it succeeds, asked ten times a second.
wait_for() {
	local end=$((SECONDS + $1 + 1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.1
	done
}

# expect_soon TEXT SECONDS COMMAND...: succeeds within so many seconds.
expect_soon() {
	local text=$1 seconds=$2
	shift 2
	if wait_for "$seconds" "$@"; then pass "$text"; else miss "$text [not within ${seconds} s: $*]"; fi
}

need_root() {
	[ "$(id -u)" -eq 0 ] || { echo "root is needed for network namespaces: run with sudo" >&2; exit 1; }
}

# need PROGRAM...: all that a test calls; tools/setup installs them.
need() {
	local program
	for program; do
		command -v "$program" >/dev/null || fail "$program is missing: run tools/setup"
	done
}

# --- namespaces ------------------------------------------------------------------------------

ns_of() { printf '%s-%s' "$LAB" "$1"; }

# in_ns ROLE COMMAND...: with the network of client, gateway or server.
in_ns() {
	local role=$1
	shift
	nsenter --net="/run/netns/$(ns_of "$role")" -- "$@"
}

# detached COMMAND...: for the background. It must not hold the test's end of any line (open_line), or
# that line would never close.
detached() {
	local fd
	for fd in "${WRITER[@]}"; do exec {fd}>&-; done
	exec "$@"
}

# spawn ROLE NAME COMMAND...: in the background; output in $LAB_DIR/NAME.log, process id in SPAWNED.
spawn() {
	local role=$1 name=$2
	shift 2
	detached nsenter --net="/run/netns/$(ns_of "$role")" -- "$@" </dev/null >>"$LAB_DIR/$name.log" 2>&1 &
	SPAWNED=$!
	disown "$SPAWNED"
}

# hang_up PID...: ends processes that spawn started.
hang_up() {
	local pid
	for pid; do
		kill "$pid" 2>/dev/null || true
		wait_for 5 process_gone "$pid" || kill -9 "$pid" 2>/dev/null || true
	done
}

process_gone() { ! kill -0 "$1" 2>/dev/null; }

add_ns() {
	ROLES+=("$1")
	ip netns add "$(ns_of "$1")"
	in_ns "$1" ip link set lo up
	in_ns "$1" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
		net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
}

# link_ns ROLE DEVICE IPV4 IPV6 ROLE DEVICE IPV4 IPV6: a link between two namespaces.
link_ns() {
	ip link add "$2" netns "$(ns_of "$1")" type veth peer name "$6" netns "$(ns_of "$5")"
	while [ $# -ge 4 ]; do
		in_ns "$1" ip addr add "$3" dev "$2"
		in_ns "$1" ip addr add "$4" dev "$2" nodad
		in_ns "$1" ip link set "$2" up
		shift 4
	done
}

# lab_start NAME [two-wans]: makes the namespaces, and the trap that takes them away.
lab_start() {
	need_root
	need ip nsenter sysctl iptables bpftool jq
	LAB=l7s-$1-$$
	INSTANCE=$1-$$
	LAB_DIR=$(mktemp -d "${TMPDIR:-/tmp}/$LAB.XXXXXX")
	trap 'lab_exit $?' EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM

	local role
	for role in client gateway server; do add_ns "$role"; done
	in_ns gateway sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
	in_ns server sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1

	link_ns client eth0 $CLIENT4/24 $CLIENT6/64 gateway lan0 $GATEWAY4/24 $GATEWAY6/64
	in_ns client ip route add default via $GATEWAY4
	in_ns client ip -6 route add default via $GATEWAY6

	link_ns gateway wan0 100.64.1.1/24 fd64:1::1/64 server up0 100.64.1.2/24 fd64:1::2/64
	in_ns gateway ip route add default via 100.64.1.2
	in_ns gateway ip -6 route add default via fd64:1::2
	in_ns server ip route add 10.77.0.0/16 via 100.64.1.1
	in_ns server ip -6 route add fd77::/16 via fd64:1::1
	if [ "${2:-}" = two-wans ]; then
		link_ns gateway wan1 100.64.2.1/24 fd64:2::1/64 server up1 100.64.2.2/24 fd64:2::2/64
	fi

	local address
	for address in $SERVER4/32 $OTHER4/32; do in_ns server ip addr add "$address" dev lo; done
	for address in $SERVER6/128 $OTHER6/128; do in_ns server ip addr add "$address" dev lo nodad; done
	wait_for 10 in_ns client ping -c 1 -W 1 $SERVER4 || fail "the lab's IPv4 path does not work"
	wait_for 10 in_ns client ping -c 1 -W 1 $SERVER6 || fail "the lab's IPv6 path does not work"
}

lab_exit() {
	local status=$1 role pid fd
	trap - EXIT
	set +e
	[ "$FAILURES" -eq 0 ] || [ "$status" -ne 0 ] || status=1
	if [ "$status" -ne 0 ] && [ "$status" -ne 77 ]; then lab_report; fi
	for fd in "${WRITER[@]}"; do exec {fd}>&-; done
	if [ -n "$DAEMON_PID" ]; then
		kill "$DAEMON_PID" 2>/dev/null && wait_for 10 process_gone "$DAEMON_PID"
	fi
	for role in "${ROLES[@]}"; do
		for pid in $(ip netns pids "$(ns_of "$role")" 2>/dev/null); do kill -9 "$pid" 2>/dev/null; done
		ip netns del "$(ns_of "$role")" 2>/dev/null
	done
	# Only what this lab's own instances left; unloading is tested where it belongs.
	rm -rf "/sys/fs/bpf/l7mark/$INSTANCE" "/sys/fs/bpf/l7mark/$INSTANCE"-* "/run/l7mark/$INSTANCE".*
	if [ "${L7MARK_KEEP_LOGS:-0}" = 1 ]; then
		say "logs: $LAB_DIR"
	else
		rm -rf "$LAB_DIR"
	fi
	if [ "$FAILURES" -gt 0 ]; then printf 'failed: %s\n' "${MISSES[@]}"; fi
	if [ "$CHECKS" -gt 0 ]; then say "$((CHECKS - FAILURES)) of $CHECKS checks passed"; fi
	exit "$status"
}

# What helps to understand a failure.
lab_report() {
	local log
	say "--- state of the gateway"
	in_ns gateway iptables -t mangle -nvxL 2>/dev/null | grep -v '^$'
	in_ns gateway ipset list 2>/dev/null | head -40
	in_ns gateway tc -s filter show dev lan0 ingress 2>/dev/null | head -20
	if [ -n "$DAEMON_PID" ]; then
		timeout 10 "$L7MARK" status --netns "$(ns_of gateway)" --instance "$INSTANCE" 2>&1
		timeout 10 "$L7MARK" flows --netns "$(ns_of gateway)" --instance "$INSTANCE" --json 2>&1 | head -20
	fi
	for log in "$LAB_DIR"/*.log; do
		[ -s "$log" ] || continue
		say "--- last lines of ${log##*/}"
		if [ "${log##*/}" = l7markd.log ]; then tail -n 30 "$log"; else tail -n 5 "$log"; fi
	done
}

# --- the daemon ------------------------------------------------------------------------------

need_build() {
	if [ -x "$L7MARKD" ] && [ -x "$L7MARK" ]; then return; fi
	fail "$L7MARKD is missing: build with 'cmake --preset release && cmake --build --preset release'"
}

# l7mark SUBCOMMAND ARGS...: against this lab's instance and namespace.
l7mark() {
	local subcommand=$1
	shift
	"$L7MARK" "$subcommand" --netns "$(ns_of gateway)" --instance "$INSTANCE" "$@"
}

# write_policy NAME: standard input becomes $LAB_DIR/NAME.jsonc; prints the path.
write_policy() {
	cat >"$LAB_DIR/$1.jsonc"
	printf '%s' "$LAB_DIR/$1.jsonc"
}

# start_daemon POLICY [ARGS...]: in the gateway; returns when it is ready.
start_daemon() {
	local policy=$1
	shift
	need_build
	detached "$L7MARKD" --policy "$policy" --netns "$(ns_of gateway)" --instance "$INSTANCE" "$@" \
		</dev/null >>"$LAB_DIR/l7markd.log" 2>&1 &
	DAEMON_PID=$!
	disown "$DAEMON_PID"
	l7mark status --wait 30 >"$LAB_DIR/status.log" 2>&1 || fail "l7markd did not become ready"
	FLOWS_MAP=$(flows_map)
}

# stop_daemon: by SIGTERM; waits until its process is gone.
stop_daemon() {
	kill "$DAEMON_PID" || fail "l7markd had already ended"
	wait_for 20 process_gone "$DAEMON_PID" || fail "l7markd did not end on SIGTERM"
	DAEMON_PID=
}

# crash_daemon: main process and workers at once, with no chance to clean up.
crash_daemon() {
	local pids
	mapfile -t pids < <(echo "$DAEMON_PID" && workers)
	kill -9 "${pids[@]}"
	wait_for 10 process_gone "$DAEMON_PID" || fail "l7markd outlives SIGKILL"
	DAEMON_PID=
}

# workers: process ids of the daemon's children.
workers() { pgrep -P "$DAEMON_PID" || true; }

# ours_attached: a line for each program of this lab's daemon that is attached. Debian 12's bpftool knows
# that TCX links exist, but not what they are attached to; so they are known by the instance's map of
# flows, whose id is kept for when its pin is gone. (A link without a pin and without a process that
# holds it is gone by itself.)
ours_attached() {
	local programs
	if [ -n "$FLOWS_MAP" ]; then
		programs=$(bpftool -j prog show)
		bpftool -j link show | jq -r --argjson map "$FLOWS_MAP" --argjson programs "$programs" '
			.[] | . as $link | $programs[] | select(.id == $link.prog_id and ((.map_ids // []) | index($map)))
			| "link \($link.id) \(.name)"'
	fi
	in_ns gateway bpftool net show | grep 'l7mark' || true
}

# flows_map: the id of the instance's pinned map of IPv4 flows.
flows_map() { bpftool -j map show pinned "$(echo "/sys/fs/bpf/l7mark/$INSTANCE"/v*/flows4)" | jq .id; }

# bpf_attached: ours, and whatever else is attached to the gateway's interfaces. HTB is not of
# interest: mark_class has a filter there.
bpf_attached() {
	local device
	ours_attached
	in_ns gateway bpftool net show 2>/dev/null | grep -E '^(lan|wan)[0-9]' | grep -v ' htb$' || true
	for device in lan0 wan0; do
		in_ns gateway tc filter show dev $device ingress 2>/dev/null | grep -w bpf || true
		in_ns gateway tc filter show dev $device egress 2>/dev/null | grep -w bpf || true
		in_ns gateway ip link show dev $device 2>/dev/null | grep -w xdp || true
	done
}

nothing_attached() { [ -z "$(bpf_attached)" ]; }

# expect_nothing_left: no program, no pin, no socket of this lab's instance.
expect_nothing_left() {
	equal "programs attached" "$(bpf_attached)" ""
	refuse "no pins are left" test -e "/sys/fs/bpf/l7mark/$INSTANCE"
	equal "files left in /run/l7mark" "$(compgen -G "/run/l7mark/$INSTANCE.*" | xargs)" ""
}

# --- witnesses: counters of standard tools ----------------------------------------------------

ipt() { if [ "$1" = 6 ]; then echo ip6tables; else echo iptables; fi; }

# witness 4|6 TABLE CHAIN NAME ARGS...: a rule that counts; ARGS are its matches and target.
witness() {
	local command
	command=$(ipt "$1")
	in_ns gateway "$command" -w -t "$2" -A "$3" "${@:5}" -m comment --comment "$4"
}

# hits 4|6 TABLE NAME: packets that the rules of that name have counted.
hits() {
	in_ns gateway "$(ipt "$1")" -w -t "$2" -nvxL 2>/dev/null |
		awk -v name="/* $3 */" 'index($0, name) { n += $1 } END { print n + 0 }'
}

# hits_at_least 4|6 TABLE NAME MINIMUM
hits_at_least() { [ "$(hits "$1" "$2" "$3")" -ge "$4" ]; }

# entry SET ELEMENT: the set holds it (ipset).
entry() { in_ns gateway ipset -q test "$1" "$2"; }

no_entry() { ! entry "$@"; }

# set_size SET
set_size() { in_ns gateway ipset list "$1" 2>/dev/null | awk '/^Number of entries:/ { print $4 }'; }

# mark_class DEVICE MARK [MASK]: an HTB class 1:<number> that counts what leaves with that mark, so
# that marks set on the way out are seen by something that is not ours. Prints the class.
#
# cls_fw is not in every kernel; classic BPF that reads skb->mark (SKF_AD_MARK) is as good.
mark_class() {
	local device=$1 mark=$(($2)) mask=$((${3:-0xffffffff})) class
	class=1:$(printf '%x' $((0x100 + mark % 0xe00)))
	if ! in_ns gateway tc qdisc show dev "$device" | grep 'htb 1:' >/dev/null; then
		in_ns gateway tc qdisc add dev "$device" root handle 1: htb default 1
		in_ns gateway tc class add dev "$device" parent 1: classid 1:1 htb rate 10gbit quantum 60000
	fi
	in_ns gateway tc class add dev "$device" parent 1: classid "$class" htb rate 10gbit quantum 60000
	in_ns gateway tc filter add dev "$device" parent 1: protocol all prio 10 bpf \
		bytecode "5,32 0 0 4294963220,84 0 0 $mask,21 0 1 $mark,6 0 0 4294967295,6 0 0 0" \
		flowid "$class"
	echo "$class"
}

# class_packets DEVICE CLASS and class_bytes DEVICE CLASS: what that class has sent.
class_packets() {
	in_ns gateway tc -s class show dev "$1" classid "$2" | awk '$1 == "Sent" { print $4; exit }'
}

class_bytes() {
	in_ns gateway tc -s class show dev "$1" classid "$2" | awk '$1 == "Sent" { print $2; exit }'
}

# shellcheck source=services.sh
. "$lib_dir/services.sh"
