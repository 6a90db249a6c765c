# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The paths for kernels that lack what this one may have, taken on purpose.
# shellcheck source=selftests/kernels/lib/cases.bash
. selftests/kernels/lib/cases.bash

L7MARK_WITHOUT=$("$L7MARK" features --json |
	jq -r '[.features[] | select(.required | not).name] | join(",")')
export L7MARK_WITHOUT
[[ $L7MARK_WITHOUT == *tcx* ]] || fail "no features to go without: '$L7MARK_WITHOUT'"
for mode in native generic tc; do
	(
		lab_start "without-$mode"
		nft_table
		start_daemon "$(zoom_policy "$mode")"
		witnesses 4
		serve_tls_echo 443 us04web.zoom.us
		open_tls zoom us04web.zoom.us "$SERVER4" 443
		expect "$mode: TLS answers" talk zoom first
		expect_soon "$mode: element in the ipset" 20 entry NETIFY_ZOOM "$SERVER4,tcp:443,$CLIENT4"
		expect "$mode: TLS goes on" talk zoom second
		expect_soon "$mode: a rule on the mark counts" 10 hits_at_least 4 mangle by-mark 1
		stop_daemon TERM
		expect_nothing_left
	) || FAILURES=$((FAILURES + 1))
done
[[ $FAILURES -eq 0 ]]
