# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The native attachment keeps its place beside another XDP program: libxdp's dispatcher.
# shellcheck source=selftests/kernels/lib/cases.bash
. selftests/kernels/lib/cases.bash

filter=$(find /usr/lib -name xdpfilt_alw_all.o -print -quit)

# "PRIORITY NAME" of the programs in a dispatcher, in the order they run.
chain() {
	in_ns gateway xdp-loader status lan0 | awk '$1 == "=>" { print $2, $3 }'
}
chain_has() { chain | grep -q "$1"; }
chain_lacks() { ! chain_has "$1"; }
# attach MODE: ours; what it says is in $LAB_DIR/load.
attach() { l7mark load lan0 --mode "$1" >"$LAB_DIR/load" 2>&1; }
# A dispatcher takes frames of several buffers only if all below it do. xdp-filter does not.
frags=$("$L7MARK" features --json | jq '.features[] | select(.name == "xdp_frags").present')
multi_buffer() { grep -q 'dispatcher XDP multi-buffer' "$LAB_DIR/load"; }
single_buffer() { grep -q 'dispatcher XDP,' "$LAB_DIR/load"; }
in_order() { chain | sort -c -n -k1,1; }

dispatcher_case() { # MODE XDP-LOADER-MODE
	# Theirs first, ours beside it and away again.
	expect "$1: xdp-filter attaches" in_ns gateway xdp-loader load -m "$2" lan0 "$filter"
	expect "$1: ours attaches beside it" attach "$1"
	FLOWS_MAP=$(flows_map)
	expect "$1: one buffer, as xdp-filter takes no more" single_buffer
	if [[ $1 == native && $frags == true ]]; then
		expect "$1: and a warning says so" grep -q 'lan0: another XDP program' "$LAB_DIR/load"
	fi
	expect "$1: both run" chain_has xdpfilt
	expect "$1: both run" chain_has l7mark
	expect "$1: in order of priority" in_order
	in_ns gateway xdp-loader status lan0
	expect "$1: traffic passes both" client_reaches_server "$SERVER4"
	expect "$1: ours is unloaded" l7mark unload lan0
	expect "$1: xdp-filter stays" chain_has xdpfilt
	expect "$1: ours is gone" chain_lacks l7mark
	# Ours first, theirs comes and goes.
	expect "$1: ours attaches again" attach "$1"
	FLOWS_MAP=$(flows_map)
	expect "$1: xdp-filter is unloaded" in_ns gateway xdp-loader unload lan0 \
		-i "$(in_ns gateway xdp-loader status lan0 | awk '/xdpfilt/ { for (i = 1; i < NF; i++) if ($i ~ /^[0-9]+$/) id = $i; print id; exit }')"
	expect "$1: ours stays" attached_as "$1" lan0
	expect "$1: traffic goes on" client_reaches_server "$SERVER4"
	expect "$1: unloads" l7mark unload lan0
	expect_nothing_left
	expect "$1: ours attaches alone" attach "$1"
	if [[ $1 == native && $frags == true ]]; then
		expect "$1: for frames of several buffers" multi_buffer
	else
		expect "$1: for frames of one buffer" single_buffer
	fi
	FLOWS_MAP=$(flows_map)
	expect "$1: unloads" l7mark unload lan0
	expect_nothing_left
}

lab_start dispatcher
[[ $("$L7MARK" features --json | jq '.features[] | select(.name == "freplace").present') == true ]] ||
	skip "this kernel cannot replace functions of programs (freplace)"
dispatcher_case native native
dispatcher_case generic skb
