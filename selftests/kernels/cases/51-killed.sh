# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Every process killed: the kernel goes on marking, and unload takes out all that is left.
# shellcheck source=selftests/kernels/lib/cases.bash
. selftests/kernels/lib/cases.bash

lab_start killed
nft_table
start_daemon "$(zoom_policy tc)"
witnesses 4
serve_tls_echo 443 us04web.zoom.us
open_tls zoom us04web.zoom.us "$SERVER4" 443
expect "TLS answers" talk zoom first
expect_soon "element in the ipset" 20 entry NETIFY_ZOOM "$SERVER4,tcp:443,$CLIENT4"

crash_daemon
before=$(hits 4 mangle by-mark)
expect "TLS goes on" talk zoom second
at_least "still marked" "$(hits 4 mangle by-mark)" $((before + 1))

expect "unloads" l7mark unload --all
expect "no program is attached" nothing_attached
refuse "no pins are left" test -e "$(pin_dir)"
expect_soon "the kernel has freed all" 10 nothing_loaded
expect "TLS goes on without us" talk zoom third
