# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Real browsers for the labs of lib.sh: a resolver that answers every name with one server's address, that
# server (Caddy: HTTP/2 and HTTP/3, a certificate for any name from an authority of its own), and Chromium
# and Firefox, which trust that authority. Nothing they do leaves the lab: whatever they want to reach
# by themselves resolves to Caddy, too.
#
# 38-browsers.sh and captures/browsers are written with it.

# What the page lets a browser fetch over TLS, and over HTTP/3: names that nDPI has an application for,
# and names that it has none for, one of them as long as nDPI 4.2 can hold (79 characters).
BROWSER_LONG=$(printf '%012d.%052d.lab.test' 1 2)
BROWSER_TLS=(www.zoom.us www.netflix.com www.youtube.com github.com www.facebook.com www.wikipedia.org
	www.whatsapp.com open.spotify.com discord.com teams.microsoft.com
	a.lab.test {b1,c2,d3,e4,f5,g6,h7,i8}.tls.lab.test "tls.$BROWSER_LONG")
BROWSER_H3=(us04web.zoom.us assets.nflxext.com i.ytimg.com raw.githubusercontent.com www.instagram.com www.reddit.com
	web.telegram.org www.twitch.tv www.linkedin.com www.dropbox.com
	z.lab.test {b1,c2,d3,e4,f5,g6,h7,i8}.h3.lab.test "h3.$BROWSER_LONG")
BROWSER_START=start.lab.test
CADDY_LOG=

# need_browsers: the test is skipped where one is missing.
need_browsers() {
	local pair
	for pair in chromium:chromium firefox-esr:firefox-esr caddy:caddy certutil:libnss3-tools; do
		command -v "${pair%:*}" >/dev/null || skip "the package ${pair#*:} is not installed: run tools/setup browsers"
	done
	need unshare dnsmasq curl ethtool
}

# serve_browsers: Caddy on all addresses of the server, and two resolvers: $SERVER4 answers each name with an
# IPv4 address, $OTHER4 with an IPv6 address.
serve_browsers() {
	local name image
	mkdir -p "$LAB_DIR/caddy" "$LAB_DIR/home"
	CADDY_LOG=$LAB_DIR/caddy.json
	{
		echo '<!DOCTYPE html><html><head><link rel="icon" href="data:,"></head><body>'
		for name in "${BROWSER_TLS[@]}" "${BROWSER_H3[@]}"; do echo "<img src=\"https://$name/x.svg\">"; done
		echo '</body></html>'
	} >"$LAB_DIR/caddy/index.html"
	image="<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/>"
	# The log has a line for each request, and (debug) lines for each handshake, with the server name and
	# the client's port. HTTP/3 answers come from the wildcard's first address, so the addresses are bound.
	cat >"$LAB_DIR/Caddyfile" <<-END
		{
			debug
			admin off
			skip_install_trust
			storage file_system $LAB_DIR/caddy/data
			on_demand_tls {
				interval 1s
				burst 1000
			}
			log default {
				output file $CADDY_LOG {
					roll_disabled
				}
				format json
				level DEBUG
			}
		}
		https:// {
			bind $SERVER4 [$SERVER6]
			tls internal {
				on_demand
			}
			log
			root * $LAB_DIR/caddy
			header /x.svg Content-Type image/svg+xml
			header Cache-Control no-store
			respond /x.svg "$image"
			file_server
		}
	END
	spawn server caddy env HOME="$LAB_DIR/home" XDG_DATA_HOME="$LAB_DIR/home" XDG_CONFIG_HOME="$LAB_DIR/home" \
		caddy run --config "$LAB_DIR/Caddyfile" --adapter caddyfile
	serving server tcp 443 caddy
	serve_every_name "$SERVER4" "$SERVER4"
	serve_every_name "$OTHER4" "$SERVER6"

	# Caddy makes certificates on demand, but refuses some of a burst.
	for name in $BROWSER_START "${BROWSER_TLS[@]}" "${BROWSER_H3[@]}"; do
		wait_for 20 in_ns server curl -sk -o "$LAB_DIR/first.html" --resolve "$name:443:$SERVER4" "https://$name/" ||
			fail "Caddy has no certificate for $name"
	done
	make_home
}

# serve_every_name ADDRESS ANSWER: dnsmasq there answers each name with that address.
serve_every_name() {
	spawn server "dns-$1" dnsmasq --no-daemon --conf-file=/dev/null --no-resolv --no-hosts --user=root --pid-file= \
		--bind-interfaces --listen-address="$1" --address="/#/$2"
	wait_for 15 in_ns client dig +short +tries=1 +time=1 "@$1" $BROWSER_START A || fail "the resolver $1 does not answer"
}

# make_home: what both browsers need of a home directory: the authority, as Chromium finds it.
make_home() {
	mkdir -p "$LAB_DIR/home/.pki/nssdb"
	trust_caddy "$LAB_DIR/home/.pki/nssdb"
}

# trust_caddy DIRECTORY: an NSS database with Caddy's authority.
trust_caddy() {
	certutil -d "sql:$1" -N --empty-password
	certutil -d "sql:$1" -A -t C,, -n lab -i "$LAB_DIR/caddy/data/pki/authorities/local/root.crt"
}

# with_resolver ADDRESS COMMAND...: in the client's namespace, with that resolver alone.
with_resolver() {
	echo "nameserver $1" >"$LAB_DIR/resolv.conf"
	echo 'hosts: files dns' >"$LAB_DIR/nsswitch.conf"
	shift
	# shellcheck disable=SC2016 # for the inner shell
	in_ns client unshare --mount bash -c \
		'for file in resolv nsswitch; do mount --bind "$0/$file.conf" "/etc/$file.conf" || exit; done; exec "$@"' "$LAB_DIR" \
		env -u DISPLAY -u WAYLAND_DISPLAY -u DBUS_SESSION_BUS_ADDRESS HOME="$LAB_DIR/home" TMPDIR="$LAB_DIR/home" \
		timeout --kill-after=5 "${BROWSER_SECONDS:-90}" "$@"
}

# visit chromium|firefox 4|6 NAME: the page with all it names, by a new profile; output in $LAB_DIR/NAME.log.
visit() {
	local resolver=$SERVER4
	[ "$2" = 4 ] || resolver=$OTHER4
	"visit_$1" "$resolver" "$3" >"$LAB_DIR/$3.log" 2>&1
}

visit_chromium() {
	local origins
	origins=$(printf '%s:443,' "${BROWSER_H3[@]}")
	with_resolver "$1" chromium --headless --no-sandbox --disable-gpu --no-first-run --user-data-dir="$LAB_DIR/$2.profile" \
		--origin-to-force-quic-on="${origins%,}" --dump-dom "https://$BROWSER_START/"
}

# Firefox takes HTTP/3 by Alt-Svc only, for which there is a preference; not with an authority that a user
# added, unless told to; and TLS instead where the machine is slow to answer, unless that timer is long.
visit_firefox() {
	local mapping
	mapping=$(printf '%s;h3=:443,' "${BROWSER_H3[@]}")
	mkdir -p "$LAB_DIR/$2.profile"
	trust_caddy "$LAB_DIR/$2.profile"
	cat >"$LAB_DIR/$2.profile/user.js" <<-END
		user_pref("network.http.http3.alt-svc-mapping-for-testing", "${mapping%,}");
		user_pref("network.http.http3.disable_when_third_party_roots_found", false);
		user_pref("network.http.http3.backup_timer_delay", 60000);
	END
	with_resolver "$1" firefox-esr --headless --no-remote --profile "$LAB_DIR/$2.profile" \
		--screenshot "$LAB_DIR/$2.png" "https://$BROWSER_START/"
}

# caddy_connections FROM-LINE: an array of what clients of the lab sent a ClientHello for, from that line of the
# log on: address, port, name, and the protocol of the requests ("" if there was none).
caddy_connections() {
	tail -n "+$1" "$CADDY_LOG" | jq -sc '
		[ .[]
		| if .request and .request.tls then
			{ address: .request.remote_ip, port: .request.remote_port, protocol: .request.proto,
			  name: (if (.request.tls.server_name // "") != "" then .request.tls.server_name else .request.host end) }
		  elif .remote_port and (.sni // .server_name // .subjects) then
			{ address: .remote_ip, port: .remote_port, protocol: "", name: (.sni // .server_name // .subjects[0]) }
		  else empty end
		| .port |= tonumber
		| .transport = (if .protocol == "" then "" elif .protocol == "HTTP/3.0" then "udp" else "tcp" end) ]
		| group_by([.address, .port, .name])
		# A request says by which protocol, a handshake does not.
		| map((map(select(.protocol != "")) | unique_by(.transport)) as $known
			| if $known == [] then .[0] else $known[] end)
		| map(select((.address | startswith("10.77.")) or (.address | startswith("fd77:"))))'
}

caddy_lines() { wc -l <"$CADDY_LOG"; }

# offloads on|off: of all links of the lab. Off, each segment and datagram is a packet of its own, as on a
# wire. (Firefox hands over both datagrams of its first flight as one packet.)
offloads() {
	local place
	for place in client:eth0 gateway:lan0 gateway:wan0 server:up0; do
		in_ns "${place%:*}" ethtool -K "${place#*:}" tso "$1" gso "$1" gro "$1" \
			tx-udp-segmentation "$1" >/dev/null 2>&1 ||
			fail "offloads of ${place#*:} can't be turned $1"
	done
}

# known_applications NAME...: an object with the application of each. It is that of OpenSSL's hello, which
# is small and in one packet, classified without the programs in the kernel.
known_applications() {
	local name recorder
	spawn gateway tcpdump tcpdump -Z root --immediate-mode -ni lan0 -s 0 -U -w "$LAB_DIR/names.pcap" tcp port 443
	recorder=$SPAWNED
	wait_for 10 test -s "$LAB_DIR/names.pcap" || fail "tcpdump does not start"
	for name; do
		in_ns client openssl s_client -connect "$SERVER4:443" -servername "$name" </dev/null >"$LAB_DIR/hello.log" 2>&1 || true
	done
	sleep 0.5
	hang_up "$recorder"
	"$L7MARK" classify --path user "$LAB_DIR/names.pcap" |
		jq -sc 'map(select(.hostname != "") | { key: .hostname, value: .application }) | from_entries'
}
