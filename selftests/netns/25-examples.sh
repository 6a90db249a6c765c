#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Every example policy is accepted by "l7mark check".
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_build
for example in "$REPO"/examples/*.jsonc; do
	expect "${example##*/}" "$L7MARK" check "$example"
done
[ "$FAILURES" -eq 0 ]
