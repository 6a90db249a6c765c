# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What the guests said, as a table, as JUnit XML and as docs/kernels.md.
#
# Uses $chosen (series), $work (their files), $limit (of a guest, seconds).
: "${work:?}" "${limit:?}"
chosen=("${chosen[@]}")

# Result lines of a series: "CASE STATUS SECONDS REASON…". A guest that did not come to its end
# adds a failed case "boot"; one that did, a passed one.
report_results() { # SERIES
	local seconds=0
	[[ -e $work/$1.skipped ]] && return
	read -r _ seconds <"$work/$1.boot"
	if grep -qx L7M-DONE "$work/$1.lines"; then
		echo "boot pass $seconds"
	elif [[ $(cat "$work/$1.status") == 124 ]]; then
		echo "boot fail $seconds the guest hung and was ended after $limit s"
	elif grep -q '^L7M-START' "$work/$1.lines"; then
		echo "boot fail $seconds the guest ended before its cases did"
	else
		echo "boot fail $seconds the kernel did not come up"
	fi
	sed -n 's/^L7M-RESULT //p' "$work/$1.lines"
}

# All cases that any guest ran, in the order of the first that has them.
report_cases() {
	local name
	for name in "${chosen[@]}"; do report_results "$name"; done | awk '!seen[$1]++ { print $1 }'
}

report_xml() { sed -e 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g; s/"/\&quot;/g' | tr -cd '\11\12\40-\176'; }

report_case_log() { # SERIES CASE
	if [[ $2 == boot ]]; then
		echo "the guest's last words:"
		tail -n 5 "$work/$1.lines"
		echo "its console:"
		tr -d '\r' <"$work/$1.console" | tail -n 40
		tail -n 5 "$work/$1.qemu"
	else
		sed -n "s/^L7M-LOG $2 //p" "$work/$1.lines" | tail -n 60
	fi
}

report_junit() {
	local name case status seconds reason
	echo '<?xml version="1.0" encoding="UTF-8"?>'
	echo '<testsuites>'
	for name in "${chosen[@]}"; do
		echo "<testsuite name=\"kernel $name\">"
		if [[ -e $work/$name.skipped ]]; then
			echo "<testcase name=\"boot\"><skipped message=\"$(<"$work/$name.skipped")\"/></testcase>"
		fi
		while read -r case status seconds reason; do
			echo "<testcase classname=\"kernel-$name\" name=\"$case\" time=\"$seconds\">"
			case $status in
			fail)
				echo "<failure message=\"$(report_xml <<<"$reason")\">"
				report_case_log "$name" "$case" | report_xml
				echo '</failure>'
				;;
			unsupported) echo "<skipped message=\"$(report_xml <<<"$reason")\"/>" ;;
			esac
			echo '</testcase>'
		done < <(report_results "$name")
		echo '</testsuite>'
	done
	echo '</testsuites>'
}

# The output of what failed, in full.
report_failures() {
	local name case status
	for name in "${chosen[@]}"; do
		while read -r case status _; do
			[[ $status == fail ]] || continue
			echo
			echo "--- $name: $case"
			report_case_log "$name" "$case" | sed 's/^/    /'
		done < <(report_results "$name")
	done
}

# Rows of cells separated by tabs: a case and its result on every series.
report_cells() {
	local name case
	{
		for case in $(report_cases); do echo "$case"; done
	} | while read -r case; do
		printf '%s' "$case"
		for name in "${chosen[@]}"; do
			printf '\t%s' "$(report_results "$name" | awk -v wanted="$case" '
				$1 == wanted { print $2 == "pass" ? "passed" : $2 == "fail" ? "FAILED" : "not supported"; found = 1 }
				END { if (!found) print "not run" }')"
		done
		echo
	done
}

# Lines "SERIES CASE REASON" of what was not supported or failed, and of series left out.
report_reasons() {
	local name
	for name in "${chosen[@]}"; do
		[[ -e $work/$name.skipped ]] && echo "$name: skipped, $(<"$work/$name.skipped")"
		report_results "$name" | awk -v name="$name" '$2 != "pass" {
			line = name ": " $1 ": " ($2 == "fail" ? "failed" : "not supported")
			$1 = $2 = $3 = ""; sub(/^ +/, ""); print line ($0 == "" ? "" : ", " $0) }'
	done
}

report_table() {
	echo
	{
		printf 'case'
		printf '\t%s' "${chosen[@]}"
		echo
		report_cells
	} | awk -F '\t' '{ printf "%-24s", $1; for (i = 2; i <= NF; i++) printf " %-13s", $i; print "" }'
	echo
	report_reasons
}

# Lines "PROGRAM COUNT" of a series, as verifier_bpf_test.cpp prints them.
report_verified() { # SERIES
	[[ ! -e $work/$1.lines ]] || sed -n 's/^L7M-LOG run-verifier VERIFIED //p' "$work/$1.lines"
}

report_verified_table() {
	local name program
	cat <<'END'

## Verified instructions

What each kernel's verifier walks through before it takes a program, with the settings that make it
the most. `selftests/bpf/verified_insns.tsv` has the limits.

END
	echo "| | $(printf '%s | ' "${chosen[@]}")"
	echo "|---|$(printf '%0.s---|' "${chosen[@]}")"
	for name in "${chosen[@]}"; do report_verified "$name"; done | cut -d' ' -f1 | sort -u |
		while read -r program; do
			printf '| %s |' "$program"
			for name in "${chosen[@]}"; do
				printf ' %s |' "$(report_verified "$name" | awk -v wanted="$program" '$1 == wanted { print $2 }')"
			done
			echo
		done
}

report_document() {
	local name
	cat <<'END'
# Kernels

Written by `selftests/kernels/run --write-docs` from what it saw: Debian's own kernels, booted under
qemu with the same binaries, and the cases of `selftests/kernels/cases` run in each.
END
	echo
	echo "| | $(printf '%s | ' "${chosen[@]}")"
	echo "|---|$(printf '%0.s---|' "${chosen[@]}")"
	printf '| release |'
	for name in "${chosen[@]}"; do printf ' %s |' "$(cat "$work/$name.release" 2>/dev/null)"; done
	echo
	report_cells | sed 's/\t/ | /g; s/^/| /; s/$/ |/'
	if [[ $(report_reasons) ]]; then
		echo
		report_reasons | sed 's/^/- /'
	fi
	if [[ $(for name in "${chosen[@]}"; do report_verified "$name"; done) ]]; then
		report_verified_table
	fi
}

report_last_line() {
	local passed failed skipped
	passed=$(for name in "${chosen[@]}"; do report_results "$name"; done | grep -c '^[^ ]* pass ')
	failed=$(for name in "${chosen[@]}"; do report_results "$name"; done | grep -c '^[^ ]* fail ')
	skipped=$(report_reasons | grep -cE ': (skipped|[^ ]*: not supported)')
	echo "$passed passed, $failed failed, $skipped skipped"
	((failed == 0)) || return 1
	((passed > 0)) || return 2
}
