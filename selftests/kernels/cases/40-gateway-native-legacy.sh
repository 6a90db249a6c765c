# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A gateway with mode native and iptables' legacy back end.
# shellcheck source=selftests/kernels/lib/cases.bash
. selftests/kernels/lib/cases.bash

. selftests/kernels/lib/gateway.bash

ipt() { echo "ip${1#4}tables-legacy"; }
gateway_case native
