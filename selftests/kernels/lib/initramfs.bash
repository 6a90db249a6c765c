# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The guests' root: the binaries of this machine with the libraries they need, the guest's scripts,
# and the modules of the kernel at hand.
#
# Uses $here (this directory's parent), $build (where build/bin is), $work (scratch).
: "${here:?}" "${build:?}" "${work:?}"

# Programs that the cases call, and where Debian keeps what they load by name.
guest_tools=(bash ip tc ss bridge ipset iptables iptables-nft iptables-legacy ip6tables ip6tables-nft
	ip6tables-legacy nft conntrack bpftool xdp-loader openssl jq nsenter sysctl ping ps pgrep socat
	tcpdump ethtool)
guest_files=(/etc/protocols /etc/services /usr/lib/ssl/openssl.cnf /usr/lib/*/bpf/xdp-dispatcher.o
	/usr/lib/*/bpf/xdpfilt_*.o /usr/lib/*/xtables/lib*.so)
readonly guest_tools guest_files

# Modules that an attach or a rule asks the kernel for; names that a kernel lacks or has built in
# are no error. What they need comes along.
guest_modules=(veth dummy tun 8021q sch_ingress sch_htb cls_bpf cls_fw cls_matchall act_bpf
	act_skbedit act_mirred ip_set ip_set_hash_ip ip_set_hash_net ip_set_hash_ipport
	ip_set_hash_ipportip xt_set xt_mark xt_connmark xt_comment xt_tcpudp xt_conntrack
	iptable_filter iptable_mangle iptable_nat iptable_raw ip6table_filter ip6table_mangle
	nf_tables nft_compat nft_ct nft_counter nft_chain_nat nft_masq nft_set_hash
	nft_set_rbtree nf_conntrack nf_conntrack_netlink nfnetlink xt_MASQUERADE xt_nat ipv6
	nf_flow_table nf_flow_table_inet nf_flow_table_ipv4 nf_flow_table_ipv6 nft_flow_offload
	xt_length af_packet)
readonly guest_modules

# Copies files to the same place below ROOT, links and what they point to.
initramfs_copy() { # ROOT FILE...
	local root=$1 file
	shift
	for file in "$@"; do
		[[ -e $root$file ]] && continue
		mkdir -p "$root${file%/*}"
		cp -L "$file" "$root$file"
	done
}

# Copies the libraries and the loader that programs and plug-ins need.
initramfs_libraries() { # ROOT FILE...
	local root=$1 library
	shift
	while read -r library; do
		initramfs_copy "$root" "$library"
	done < <(ldd "$@" 2>/dev/null | grep -oE '(=> |^\s+)/\S+' | grep -oE '/\S+' | sort -u)
}

# Names the programs that are not there and the packages that have them.
initramfs_check() {
	local tool missing=()
	for tool in "${guest_tools[@]}" busybox cpio depmod; do
		command -v "$tool" >/dev/null || missing+=("$tool")
	done
	[[ -x $build/bin/l7mark && -x $build/bin/l7markd ]] || missing+=("$build/bin/l7mark")
	if ((${#missing[@]} > 0)); then
		echo "not found: ${missing[*]}; run tools/setup build run test kernels, and tools/build" >&2
		return 1
	fi
}

# Writes $work/common.img, the same for all kernels.
initramfs_common() {
	local root=$work/root tool file programs=()
	mkdir -p "$root"/{bin,dev,proc,sys,run,tmp,root,etc,var/lib,lib/modules,l7mark/build/bin,l7mark/selftests/{netns,kernels/{cases,lib}},usr/sbin,usr/bin}
	for tool in "${guest_tools[@]}"; do
		programs+=("$(command -v "$tool")")
	done
	# What links name is resolved: iptables is one program under many names.
	for tool in "${programs[@]}"; do
		mkdir -p "$root${tool%/*}"
		cp -L "$tool" "$root$tool"
	done
	cp -L "$(command -v busybox)" "$root/bin/busybox"
	for tool in $("$root/bin/busybox" --list); do
		# busybox has its own ip and the like, which would come first.
		[[ -e $root/usr/sbin/$tool || -e $root/usr/bin/$tool || -e $root/bin/$tool ]] ||
			ln -s busybox "$root/bin/$tool"
	done
	ln -sfn bin "$root/sbin"
	for file in "$build"/bin/{l7mark,l7markd,*_bpf_test}; do
		[[ -x $file ]] || continue
		cp "$file" "$root/l7mark/build/bin/"
		strip --strip-debug "$root/l7mark/build/bin/${file##*/}"
	done
	initramfs_copy "$root" "${guest_files[@]}"
	initramfs_libraries "$root" "${programs[@]}" "$root"/l7mark/build/bin/* /usr/lib/*/xtables/lib*.so
	cp "$here/guest" "$root/init"
	cp "$here"/cases/* "$root/l7mark/selftests/kernels/cases/"
	cp "$here"/lib/{cases,attach,gateway}.bash "$root/l7mark/selftests/kernels/lib/"
	cp "$here"/../netns/{lib,services,27-jumbo,41-flowtable}.sh "$root/l7mark/selftests/netns/"
	initramfs_certificates "$root/l7mark/certificates"
	echo "root:x:0:0:root:/root:/bin/bash" >"$root/etc/passwd"
	echo "nobody:x:65534:65534:nobody:/:/bin/false" >>"$root/etc/passwd"
	printf "root:x:0:\nnogroup:x:65534:\n" >"$root/etc/group"
	initramfs_pack "$root" "$work/common.img"
}

# Keys are cheap here and dear in an emulated guest. For the names that the cases serve.
initramfs_certificates() { # DIRECTORY
	local name
	mkdir -p "$1"
	for name in us04web.zoom.us www.example.org; do
		openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=$name" \
			-addext "subjectAltName=DNS:$name" -keyout "$1/key" -out "$1/certificate" 2>/dev/null
		cat "$1/certificate" "$1/key" >"$1/$name.pem"
		rm "$1/certificate" "$1/key"
	done
}

initramfs_pack() { # ROOT IMAGE
	(cd "$1" && find . | cpio --quiet -o -H newc -R 0:0) | gzip -1 >"$2"
}

# Writes $work/RELEASE.img: the common part, and behind it the kernel's modules.
initramfs_kernel() { # RELEASE MODULES
	local release=$1 modules=$2 module file
	local root=$work/modules-$1 target=lib/modules/$1 wanted=()
	# depmod reads compressed modules too and says what each needs.
	mkdir -p "$work/depmod-$release/lib/modules"
	ln -sfn "$modules" "$work/depmod-$release/lib/modules/$release"
	depmod -b "$work/depmod-$release" "$release" 2>/dev/null
	mapfile -t wanted < <(printf '%s\n' "${guest_modules[@]}" |
		awk -v dep="$modules/modules.dep" '
			function plain(path) { sub(/.*\//, "", path); sub(/\.ko.*/, "", path); gsub(/-/, "_", path); return path }
			BEGIN {
				while ((getline line < dep) > 0) {
					split(line, part, ": *"); path[plain(part[1])] = part[1] " " part[2]
				}
			}
			$1 in path { print path[$1] }' | tr ' ' '\n' | grep . | sort -u)
	for module in "${wanted[@]}"; do
		file=$root/$target/$module
		mkdir -p "${file%/*}"
		case $module in
		*.xz) xz -dc "$modules/$module" >"${file%.xz}" ;;
		*.zst) zstd -qdc "$modules/$module" >"${file%.zst}" ;;
		*) cp "$modules/$module" "$file" ;;
		esac
	done
	for file in "$modules"/modules.{order,builtin,builtin.modinfo}; do
		if [[ -e $file ]]; then cp "$file" "$root/$target/"; fi
	done
	depmod -b "$root" "$release" 2>/dev/null
	initramfs_pack "$root" "$work/$release.modules" || return 1
	cat "$work/common.img" "$work/$release.modules" >"$work/$release.img"
	rm -rf "$root" "$work/$release.modules" "$work/depmod-$release"
}
