# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Loads and attaches with mode native, by the command alone; nothing is left after unload.
# shellcheck source=selftests/kernels/lib/cases.bash
. selftests/kernels/lib/cases.bash

. selftests/kernels/lib/attach.bash
attach_case native
