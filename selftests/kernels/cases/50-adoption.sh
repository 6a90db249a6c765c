# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A daemon that is started again adopts what the one before it left.
# shellcheck source=selftests/kernels/lib/cases.bash
. selftests/kernels/lib/cases.bash

lab_start adoption
nft_table
policy=$(zoom_policy tc)
start_daemon "$policy" --keep
witnesses 4
serve_tls_echo 443 us04web.zoom.us
open_tls zoom us04web.zoom.us "$SERVER4" 443
expect "TLS answers" talk zoom first
expect_soon "element in the ipset" 20 entry NETIFY_ZOOM "$SERVER4,tcp:443,$CLIENT4"

known() { l7mark flows --json | jq -se 'any(.[]; (.dport // 0) == 443 and .application == "Zoom")' >/dev/null; }
expect_soon "the flow is listed" 10 known

stop_daemon TERM
expect "the programs stay" tc_attached
before=$(hits 4 mangle by-mark)
expect "TLS goes on without a daemon" talk zoom second
at_least "marked without a daemon" "$(hits 4 mangle by-mark)" $((before + 1))

start_daemon "$policy"
expect_soon "the flow is listed again" 10 known
before=$(hits 4 mangle by-mark)
expect "TLS goes on" talk zoom third
at_least "marked by what was adopted" "$(hits 4 mangle by-mark)" $((before + 1))

stop_daemon TERM
expect_nothing_left
expect_soon "the kernel has freed all" 10 nothing_loaded
