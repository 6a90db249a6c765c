# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The case of a gateway with real traffic: what a rule of each kind sees of our verdicts.

gateway_case() { # MODE
	local version suffix server client open
	lab_start gateway
	nft_table
	start_daemon "$(zoom_policy "$1")"
	nft_witness
	serve_tls_echo 443 us04web.zoom.us
	serve_tls_echo 8443 www.example.org
	for version in 4 6; do
		suffix=${version#4} server=SERVER$version client=CLIENT$version
		witnesses "$version"
		open_tls "zoom$version" us04web.zoom.us "${!server}" 443
		open_tls "other$version" www.example.org "${!server}" 8443
		for open in zoom other; do
			expect "IPv$version: TLS to $open answers" talk "$open$version" first
		done
		expect_soon "IPv$version: element in the ipset" 20 \
			entry "NETIFY_ZOOM$suffix" "${!server},tcp:443,${!client}"
		expect "IPv$version: TLS goes on" talk "zoom$version" second
		expect "IPv$version: the other too" talk "other$version" second
		expect_soon "IPv$version: a rule on the set counts" 10 hits_at_least "$version" mangle by-set 1
		expect_soon "IPv$version: a rule on the mark counts" 10 hits_at_least "$version" mangle by-mark 1
		refuse "IPv$version: the other is in no set" \
			entry "NETIFY_ZOOM$suffix" "${!server},tcp:8443,${!client}"
	done
	expect "TLS goes on" talk zoom4 third
	expect_soon "a rule on the nft set counts" 10 nft_hits_at_least 1
	in_ns gateway nft list set inet lab zoom
	in_ns gateway ipset list NETIFY_ZOOM

	stop_daemon TERM
	expect "the user's nft table stays" in_ns gateway nft list table inet lab
	expect_nothing_left
	expect "TLS goes on without us" talk zoom4 fourth
}
