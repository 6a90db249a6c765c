# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A software flowtable that waits for the final state: as the namespace test, which skips where the
# machine's own kernel has none.
exec bash selftests/netns/41-flowtable.sh
