# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The probe finds what mainline of this version has, no more and no less.
# shellcheck source=selftests/kernels/lib/cases.bash
. selftests/kernels/lib/cases.bash

# Debian's kernels lack nothing of their version that we ask for.
at_least_version() { # WANTED
	local have wanted
	IFS=. read -r -a have < <(uname -r | grep -oE '^[0-9]+\.[0-9]+')
	IFS=. read -r -a wanted <<<"$1"
	((have[0] > wanted[0] || (have[0] == wanted[0] && have[1] >= wanted[1])))
}

features=$("$L7MARK" features --json) || fail "l7mark features ended with status $?"
equal "kernel" "$(jq -r .kernel <<<"$features")" "$(uname -r)"
equal "usable" "$(jq -r .usable <<<"$features")" true
count=0
while read -r name since present path; do
	# 6.14 took it away again, and stable kernels after it; the dispatcher's case takes either way.
	[[ $name == shared_metadata ]] && continue
	expected=false
	if at_least_version "$since"; then expected=true; fi
	equal "$name (since $since)" "$present" "$expected"
	[[ $path ]] || miss "$name names no path"
	count=$((count + 1))
done < <(jq -r '.features[] | "\(.name) \(.since) \(.present) \(.path)"' <<<"$features")
at_least "features" "$count" 20

"$L7MARK" features
((FAILURES == 0))
