# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A gateway with mode tc and iptables' nft back end.
# shellcheck source=selftests/kernels/lib/cases.bash
. selftests/kernels/lib/cases.bash

. selftests/kernels/lib/gateway.bash

ipt() { echo "ip${1#4}tables-nft"; }
gateway_case tc
