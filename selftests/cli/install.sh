#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# The Debian package holds what it should, and its parts fit each other.
# Usage: install.sh BUILD-DIRECTORY
set -uo pipefail
build=${1:?build directory}
failed=0
miss() {
	echo "NOT OK  $*"
	failed=1
}
for program in cpack dpkg-deb dpkg-shlibdeps; do
	command -v $program >/dev/null || { echo "SKIP $program is missing" && exit 77; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

(cd "$work" && cpack -G DEB --config "$build/CPackConfig.cmake" -B "$work" >"$work/cpack.log" 2>&1) ||
	{ tail -n 20 "$work/cpack.log" && exit 1; }
package=$(echo "$work"/l7mark_*.deb)
case ${package##*/} in
l7mark_[0-9]*_"$(dpkg --print-architecture)".deb) ;;
*) miss "the package's name: ${package##*/}" ;;
esac
root=$work/root
dpkg-deb -x "$package" "$root" || miss "the package does not unpack"
dpkg-deb -e "$package" "$work/control" || miss "the package has no control part"

for file in usr/bin/l7mark usr/sbin/l7markd usr/sbin/l7mark-bench; do
	[ -x "$root/$file" ] || miss "$file is not there or no program"
	"$root/$file" --version >/dev/null || miss "$file does not run"
done
for file in usr/share/man/man1/l7mark.1 usr/share/man/man5/l7mark-policy.5 usr/share/man/man8/l7markd.8 \
	usr/share/man/man8/l7mark-bench.8 \
	usr/share/l7mark/l7mark-policy.schema.json usr/share/doc/l7mark/README.md usr/share/doc/l7mark/LICENSE \
	usr/share/doc/l7mark/docs/policy.md usr/include/l7mark/types.h usr/share/doc/l7mark/examples/zoom.jsonc \
	usr/share/bash-completion/completions/l7mark usr/share/bash-completion/completions/l7markd; do
	[ -s "$root/$file" ] || miss "$file is not in the package"
done
depends=$(dpkg-deb -f "$package" Depends)
libraries=(libbpf1 libxdp1 libmnl0 libnftnl11 libpcap0.8 libcap-ng0 libseccomp2 libnettle8)
# Another nDPI than the system's is in no Debian package: it is found where it was at the build, or is
# linked in. The programs ran above.
grep -E '^NDPI_ROOT:[A-Z]+=.' "$build/CMakeCache.txt" >/dev/null || libraries+=(libndpi)
for library in "${libraries[@]}"; do
	[[ $depends == *$library* ]] || miss "$library is not in Depends: $depends"
done

# The unit starts the daemon where it is, with the policy that is there, which is a good one.
unit=$root/usr/lib/systemd/system/l7markd.service
read -r daemon _ policy < <(sed -n 's/^ExecStart=//p' "$unit")
[ -x "$root$daemon" ] || miss "the unit starts $daemon, which is not in the package"
grep -Fx "$policy" "$work/control/conffiles" >/dev/null || miss "$policy is no conffile"
"$root/usr/bin/l7mark" check "$root$policy" >/dev/null || miss "$policy is not good"

# Completion, as bash calls it.
# complete_words WORD...: what is offered for the last.
complete_words() {
	PATH=$root/usr/bin:$root/usr/sbin:$PATH bash -c '
		. "$1"
		shift
		COMP_WORDS=("$@")
		COMP_CWORD=$(($# - 1))
		_l7mark
		printf "%s " "${COMPREPLY[@]}"' - "$root/usr/share/bash-completion/completions/l7mark" "$@"
}
# offers WORD WORDS...
offers() {
	local wanted=$1
	shift
	[[ " $(complete_words "$@") " == *" $wanted "* ]] || miss "completion of '$*' does not offer $wanted"
}
offers status l7mark st
offers flows l7mark --instance lab fl
offers --wait l7mark status --w
offers --client l7mark flows --
offers --instance l7mark events --i
offers native l7mark load lan0 --mode n
offers lo l7mark load l
offers --keep l7markd --k
[[ " $(complete_words l7mark status --) " == *" --mode "* ]] && miss "status is offered --mode"

for script in postinst prerm; do
	[ -x "$work/control/$script" ] || miss "$script is not in the package"
	sh -n "$work/control/$script" || miss "$script is no shell script"
done
[ $failed -eq 0 ] && echo "ok"
exit $failed
