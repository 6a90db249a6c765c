# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Kernels from Debian's archive. apt does the fetching and the checking of signatures and checksums,
# with a state of its own, so that the host's package lists stay as they are.
#
# Uses $cache, a directory.
: "${cache:?}"

# Every suite that may have a kernel for us, oldest first. One that the mirror lacks is left out.
archive_suites=(bullseye bookworm trixie trixie-backports forky sid)
archive_security_suites=(bullseye-security bookworm-security trixie-security)
readonly archive_suites archive_security_suites

archive_apt() { # COMMAND ARGUMENT...
	local tool=$1
	shift
	"$tool" -q \
		-o Dir::Etc::sourcelist="$cache/apt/sources.list" \
		-o Dir::Etc::sourceparts="$cache/apt/empty" \
		-o Dir::Etc::preferencesparts="$cache/apt/empty" \
		-o Dir::State::lists="$cache/apt/lists" \
		-o Dir::Cache="$cache/apt/cache" \
		-o APT::Architecture=amd64 \
		-o Acquire::Languages=none \
		-o Acquire::Retries=2 \
		-o APT::Sandbox::User=root \
		"$@"
}

# The host's own mirror for a suite of its release: "bookworm", "bookworm-security".
archive_mirror() { # SUITE
	# shellcheck disable=SC2016 # apt puts its own variables in
	apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
		awk -v suite="$1" '$1 == suite && $2 == "main" { print $3; exit }'
}

archive_write_sources() {
	local codename mirror security suite trust=
	# shellcheck source=/dev/null
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
	mirror=$(archive_mirror "$codename")
	security=$(archive_mirror "$codename-security")
	[[ $mirror ]] || {
		echo "apt knows no mirror of Debian $codename: add one to /etc/apt/sources.list" >&2
		return 1
	}
	if [[ -r /usr/share/keyrings/debian-archive-keyring.gpg ]]; then
		trust=' signed-by=/usr/share/keyrings/debian-archive-keyring.gpg'
	fi
	{
		for suite in "${archive_suites[@]}"; do
			echo "deb [arch=amd64$trust] $mirror $suite main"
		done
		if [[ $security ]]; then
			for suite in "${archive_security_suites[@]}"; do
				echo "deb [arch=amd64$trust] $security $suite main"
			done
		fi
	} >"$cache/apt/sources.list"
}

# Reads the archive's lists where ours are missing or older than half a day, and writes
# $cache/kernels: "SERIES VERSION RELEASE PACKAGE…" of every kernel, oldest first.
archive_update() { # [force]
	mkdir -p "$cache/apt/"{empty,lists/partial,cache/archives/partial} || return 1
	if [[ ${1-} != force && -s $cache/kernels ]] &&
		[[ $(find "$cache/kernels" -mmin -720) ]]; then
		return 0
	fi
	archive_write_sources || return 1
	# Fails if any suite is not to be had; the others' lists are there all the same.
	archive_apt apt-get update >"$cache/apt/update.log" 2>&1 ||
		echo "some of Debian's suites are not to be had, going on without: see $cache/apt/update.log" >&2
	# Up to 6.18 all is in linux-image; later it only names linux-binary and linux-modules, of which
	# the archive may have dropped one already.
	archive_apt apt-cache dumpavail |
		awk '/^Package: /{ name = $2 }
		     /^Version: / && name ~ /^linux-(image|binary|modules)-[0-9]+\.[0-9]+\.[0-9].*-cloud-amd64$/ {
			release = name
			sub(/^linux-[a-z]*-/, "", release)
			kernel = $2 " " release
			if (index(packages[kernel], " " name " ") == 0) packages[kernel] = packages[kernel] " " name " "
		     }
		     END {
			for (kernel in packages) {
				if (packages[kernel] !~ / linux-image-/) continue
				if (packages[kernel] ~ / linux-binary-/ && packages[kernel] !~ / linux-modules-/) continue
				split(kernel, part, ".")
				print part[1] "." part[2], kernel, packages[kernel]
			}
		     }' |
		sort -k2,2V -k3,3V >"$cache/kernels.new"
	[[ -s $cache/kernels.new ]] || {
		echo "no kernels in the archive's lists: see $cache/apt/update.log" >&2
		return 1
	}
	mv "$cache/kernels.new" "$cache/kernels"
}

# All series, oldest first, with their newest kernel, as in $cache/kernels.
archive_series() {
	# Release candidates are no releases.
	awk '$2 !~ /~rc/ { newest[$1] = $0 } END { for (series in newest) print newest[series] }' \
		"$cache/kernels" | sort -k1,1V
}

# Downloads and unpacks a kernel, once; prints its directory, which holds vmlinuz and modules/.
archive_fetch() { # VERSION RELEASE PACKAGE...
	local version=$1 release=$2 package image modules
	local directory=$cache/unpacked/$2
	shift 2
	if [[ $(cat "$directory/version" 2>/dev/null) == "$version" ]]; then
		echo "$directory"
		return 0
	fi
	rm -rf "$directory"
	mkdir -p "$directory/debs" "$directory/root"
	(cd "$directory/debs" && archive_apt apt-get download "${@/%/=$version}") >&2 || return 1
	for package in "$directory/debs/"*.deb; do
		dpkg-deb -x "$package" "$directory/root" || return 1
	done
	image=$(find "$directory/root" -name "vmlinuz*" -type f -print -quit)
	modules=$(find "$directory/root" -path "*/modules/$release/kernel" -type d -print -quit)
	[[ $image && $modules ]] || {
		echo "the packages of $release hold no image or no modules" >&2
		return 1
	}
	mv "$image" "$directory/vmlinuz"
	mv "${modules%/kernel}" "$directory/modules"
	rm -rf "$directory/root" "$directory/debs"
	echo "$version" >"$directory/version"
	echo "$directory"
}
