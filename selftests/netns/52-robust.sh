#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Forged packets and floods change no verdict: the short form of selftests/robust/run, and nothing is left of it.
# Runs alone: it floods.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"
need_root
need_build
[ -x "$BUILD/bin/robust" ] || skip "$BUILD/bin/robust is not built"

status=0
"$here/../robust/run" --quick &
run=$!
trap 'kill "$run" 2>/dev/null; wait "$run"; exit 143' TERM INT
wait "$run" || status=$?
trap - TERM INT
equal "exit status of robust/run" $status 0
equal "namespaces left" "$(ip netns list | awk '{ print $1 }' | grep -x "l7s-robust-$run-.*" | xargs)" ""
equal "pins left" "$(compgen -G "/sys/fs/bpf/l7mark/robust-$run*" | xargs)" ""
equal "files left" "$(compgen -G "/run/l7mark/robust-$run*" | xargs)$(compgen -G "${TMPDIR:-/tmp}/l7s-robust-$run.*" | xargs)" ""
say "$((CHECKS - FAILURES)) of $CHECKS checks passed"
[ "$FAILURES" -eq 0 ]
