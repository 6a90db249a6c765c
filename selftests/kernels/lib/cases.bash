# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What the cases share, on top of the labs of selftests/netns/lib.sh.
# shellcheck source=selftests/netns/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../netns/lib.sh"

pin_dir() { echo "/sys/fs/bpf/l7mark/$INSTANCE"; }

# Programs and maps of ours that the kernel still holds, whoever refers to them. The guest has no
# other user of l7mark.
ours_loaded() {
	bpftool -j prog show | jq -r '.[] | select((.name // "") | startswith("l7mark")) | .name'
	bpftool -j map show | jq -r '.[] | select((.name // "") | test("^(flows|candidates)[46]$")) | .name'
}

# The kernel frees what is no longer used a moment later.
nothing_loaded() { [[ ! $(ours_loaded) ]]; }

# attached_as MODE DEVICE: what ip, tc and bpftool say of a device in the gateway.
attached_as() {
	local link
	link=$(in_ns gateway ip -d link show dev "$2")
	case $1 in
	native) grep -qE '\sxdp\s' <<<"$link" ;;
	generic) grep -qE '\sxdpgeneric\s' <<<"$link" ;;
	tc) ! grep -qE '\sxdp(generic|drv|offload)?\s' <<<"$link" ;;
	esac && tc_attached
}

# Both directions; lan0 is the only interface that the cases attach to.
tc_attached() {
	local programs
	programs=$(ours_attached)
	grep -E 'l7mark_(ingress|after_xdp?)' <<<"$programs" && grep l7mark_egress <<<"$programs"
}

client_reaches_server() { in_ns client ping -c 2 -i 0.2 -W 2 "$1" >/dev/null; }

# zoom_policy MODE: the policy of the gateway cases; prints the file.
zoom_policy() {
	write_policy zoom <<-END
		{
		  "version": 1,
		  "interfaces": [ { "name": "lan0", "mode": "$1" } ],
		  "vlan": "ignore",
		  "classes": [
		    { "name": "zoom", "match": { "applications": ["Zoom"] }, "mark": "0x85/0xff",
		      "ipset": { "name": "NETIFY_ZOOM", "timeout": 600 },
		      "nftset": { "table": "lab", "name": "zoom", "create_table": false } }
		  ]
		}
	END
}

# A table of the user's own, for the daemon to put its set into.
nft_table() { in_ns gateway nft add table inet lab; }

# Counts packets that the daemon's nft set matches.
nft_witness() {
	in_ns gateway nft -f - <<-'END'
		table inet lab {
			chain witness {
				type filter hook forward priority 0; policy accept;
				ip daddr . meta l4proto . th dport . ip saddr @zoom counter
			}
		}
	END
}

nft_hits() {
	in_ns gateway nft -j list chain inet lab witness |
		jq '[.nftables[].rule?.expr[]?.counter?.packets // empty] | add // 0'
}

nft_hits_at_least() { (($(nft_hits) >= $1)); }

# Rules of the kind a user has: on the set, and on the mark that the programs set.
witnesses() { # 4|6
	local suffix=${1#4}
	witness "$1" mangle FORWARD by-set -m set --match-set "NETIFY_ZOOM$suffix" dst,dst,src
	witness "$1" mangle FORWARD by-mark -m mark --mark 0x85/0xff
}
