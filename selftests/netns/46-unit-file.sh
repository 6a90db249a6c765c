#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# The daemon works with no more than systemd's unit file lets it have: its capabilities, no new
# privileges, its system calls for sockets, and a file system that is read-only but for /run/l7mark.
# The same walls are put up here by hand, so that the test needs no systemd.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_start unit
need ipset openssl socat setpriv unshare strace
need_build
unit=$REPO/packaging/l7markd.service
of_unit() { sed -n "s/^$1=//p" "$unit"; }
policy=$(
	write_policy unit <<'END'
{
  "version": 1,
  "interfaces": [ { "name": "lan0", "mode": "tc" } ],
  "classes": [
    { "name": "zoom", "match": { "applications": ["Zoom"] }, "mark": "0x85/0xff",
      "ipset": { "name": "UNIT" }, "nftset": { "name": "unit" }, "conntrack": { "mark": "0x85/0xff" } }
  ]
}
END
)
caps=$(of_unit CapabilityBoundingSet | tr 'A-Z ' 'a-z,' | sed 's/cap_/+/g')
at_least "capabilities in the unit file" "$(tr -cd + <<<"$caps" | wc -c)" 5
equal "the unit forbids new privileges" "$(of_unit NoNewPrivileges)" yes
equal "the unit has a read-only file system" "$(of_unit ProtectSystem)" strict
equal "and its own directory in /run" "$(of_unit RuntimeDirectory)" l7mark

# walled COMMAND...: as the unit has it. /dev, /proc and /sys stay as they are under ProtectSystem=strict.
mkdir -p /run/l7mark
cat >"$LAB_DIR/walled" <<'END'
set -e
mount --bind /run/l7mark /run/l7mark
mount -o remount,bind,ro /
if mountpoint -q /run; then mount -o remount,bind,ro /run; fi
if mountpoint -q /tmp; then mount -o remount,bind,ro /tmp; fi
caps=$1
shift
exec setpriv --no-new-privs --bounding-set="-all,$caps" --inh-caps=-all "$@"
END
detached strace -f -qq -e trace=socket -e signal=none -o "$LAB_DIR/sockets" \
	unshare --mount --propagation slave bash "$LAB_DIR/walled" "$caps" \
	"$L7MARKD" --policy "$policy" --netns "$(ns_of gateway)" --instance "$INSTANCE" \
	</dev/null >>"$LAB_DIR/l7markd.log" 2>&1 &
disown $!
l7mark status --wait 60 >/dev/null || fail "l7markd does not become ready: $(cat "$LAB_DIR/l7markd.log")"
DAEMON_PID=$(l7mark status --json | jq .pid)
FLOWS_MAP=$(flows_map)
expect "the root of its file system is read-only" \
	nsenter -t "$DAEMON_PID" -m sh -c '! touch /usr/l7mark-was-here 2>/dev/null'

serve_tls_echo 443 us04web.zoom.us
open_tls zoom us04web.zoom.us $SERVER4 443
talk zoom hello || fail "the connection does not work"
expect_soon "the flow has its ipset entry" 10 entry UNIT "$SERVER4,tcp:443,$CLIENT4"
worker=$(workers | head -n 1)
kill -9 "$worker"
expect_soon "a worker that died is replaced" 20 l7mark status --wait 1
kill -HUP "$DAEMON_PID"
expect_soon "SIGHUP is taken" 10 grep -q 'is in force' "$LAB_DIR/l7markd.log"
stop_daemon
refuse "nothing was refused" grep -iE 'cannot|error|warning: .*(permission|not permitted)' "$LAB_DIR/l7markd.log"

allowed=" $(of_unit RestrictAddressFamilies) "
used=$(grep -oE 'socket\(AF_[A-Z0-9]+' "$LAB_DIR/sockets" | sed 's/socket(//' | sort -u)
for family in $used; do
	case $allowed in
	*" $family "*) pass "the unit allows the sockets it makes: $family" ;;
	*) miss "the unit does not allow $family" ;;
	esac
done
expect_nothing_left
