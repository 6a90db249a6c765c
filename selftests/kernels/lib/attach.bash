# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The case of the three modes of attachment.

attach_case() { # MODE
	local mode=$1 pin version counters
	lab_start "attach-$mode"
	expect "loads and attaches" l7mark load lan0 --mode "$mode"
	FLOWS_MAP=$(flows_map)
	expect "attached as $mode" attached_as "$mode" lan0
	for version in 4 6; do
		local server=SERVER$version
		expect "IPv$version goes on" client_reaches_server "${!server}"
	done

	for pin in flows4 flows6 candidates actions counters settings; do
		expect "pin of $pin is readable" bpftool -j map show pinned "$(find "$(pin_dir)" -name "$pin")"
	done
	# With types: bpftool prints names of fields, and the counters count.
	counters=$(bpftool -j map dump pinned "$(find "$(pin_dir)" -name settings)")
	expect "settings have types" jq -e '.[0].formatted.value.rings' <<<"$counters"

	expect "unloads" l7mark unload lan0
	expect_nothing_left
	expect_soon "the kernel has freed all" 10 nothing_loaded
	expect "traffic goes on without us" client_reaches_server "$SERVER4"
}
