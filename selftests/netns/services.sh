# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Real programs for the labs of lib.sh: what each serves in the server's namespace, and clients.

# listening ROLE tcp|udp PORT
listening() {
	local option=-ltn
	[ "$2" = tcp ] || option=-lun
	[ -n "$(in_ns "$1" ss -H $option "sport = :$3")" ]
}

# serving ROLE tcp|udp PORT NAME: waits for a service that spawn has started.
serving() { wait_for 15 listening "$1" "$2" "$3" || fail "service $4 does not listen on $2 port $3"; }

# --- certificates ------------------------------------------------------------------------------

# make_ca: the lab's own authority, $LAB_DIR/ca.pem.
make_ca() {
	[ -e "$LAB_DIR/ca.pem" ] && return
	openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj '/O=Lab/CN=Lab Authority' \
		-addext 'basicConstraints=critical,CA:TRUE' \
		-keyout "$LAB_DIR/ca.key" -out "$LAB_DIR/ca.pem" 2>/dev/null
}

# make_cert NAME [valid|expired|self-signed|client]: $LAB_DIR/NAME.pem holds certificate and key.
make_cert() {
	local name=$1 kind=${2:-valid} out=$LAB_DIR/$1 from=20200101000000Z until=20200201000000Z
	[ -e "$out.pem" ] && return
	# Keys are dear in an emulated guest, which brings some along.
	if [ "$kind" = valid ] && [ -e "${L7MARK_CERTIFICATES:-}/$name.pem" ]; then
		cp "$L7MARK_CERTIFICATES/$name.pem" "$out.pem"
		return
	fi
	if [ "$kind" = self-signed ]; then
		openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=$name" \
			-addext "subjectAltName=DNS:$name" -keyout "$out.key" -out "$out.crt" 2>/dev/null
	else
		make_ca
		openssl req -newkey rsa:2048 -nodes -subj "/O=Lab/CN=$name" -addext "subjectAltName=DNS:$name" \
			-keyout "$out.key" -out "$out.csr" 2>/dev/null
		if [ "$kind" = expired ]; then
			set -- -startdate "$from" -enddate "$until"
		else
			set -- -days 30
		fi
		: >"$out.index"
		openssl ca -batch -notext -create_serial -config <(
			printf '%s\n' '[ca]' 'default_ca=lab' '[lab]' "database=$out.index" "serial=$out.serial" \
				"new_certs_dir=$LAB_DIR" 'default_md=sha256' 'policy=any' 'copy_extensions=copy' \
				'[any]' 'organizationName=optional' 'commonName=supplied'
		) -cert "$LAB_DIR/ca.pem" -keyfile "$LAB_DIR/ca.key" -in "$out.csr" -out "$out.crt" "$@" 2>/dev/null
	fi
	cat "$out.crt" "$out.key" >"$out.pem"
}

# --- web ---------------------------------------------------------------------------------------

# serve_http PORT: files of $LAB_DIR/www: index.html and, 16 MiB, big.bin.
serve_http() {
	mkdir -p "$LAB_DIR/www"
	[ -e "$LAB_DIR/www/index.html" ] || echo '<html><body>lab</body></html>' >"$LAB_DIR/www/index.html"
	[ -e "$LAB_DIR/www/big.bin" ] || head -c 16777216 /dev/zero >"$LAB_DIR/www/big.bin"
	spawn server "http-$1" busybox httpd -f -p "[::]:$1" -h "$LAB_DIR/www"
	serving server tcp "$1" http
}

# serve_tls PORT NAME [SOCAT-OPTIONS]: HTTPS for that name, in front of serve_http's port 80.
serve_tls() {
	listening server tcp 80 || serve_http 80
	make_cert "$2"
	spawn server "tls-$1" socat \
		"OPENSSL-LISTEN:$1,pf=ip6,ipv6only=0,fork,reuseaddr,cert=$LAB_DIR/$2.pem,verify=0${3:+,$3}" \
		TCP:127.0.0.1:80
	serving server tcp "$1" tls
}

# serve_tls_echo PORT NAME: TLS that sends back what it gets, for as long as the client wants.
serve_tls_echo() {
	make_cert "$2"
	spawn server "echo-$1" socat \
		"OPENSSL-LISTEN:$1,pf=ip6,ipv6only=0,fork,reuseaddr,cert=$LAB_DIR/$2.pem,verify=0" EXEC:cat
	serving server tcp "$1" tls-echo
}

# bracket ADDRESS: as URLs write it.
bracket() { case $1 in *:*) echo "[$1]" ;; *) echo "$1" ;; esac; }

# fetch URL ADDRESS [CURL-ARGS...]: from the client, the URL's host being at that address.
fetch() {
	local url=$1 address host port
	address=$(bracket "$2")
	host=${url#*://}
	host=${host%%/*}
	case $host in
	*:*) port=${host##*:} host=${host%%:*} ;;
	*) case $url in https:*) port=443 ;; *) port=80 ;; esac ;;
	esac
	in_ns client curl -sS -k --max-time 60 --resolve "$host:$port:$address" -o /dev/null "${@:3}" "$url"
}

# A line is a connection that a test holds open: what it says goes through a FIFO to a client program,
# what comes back is in $LAB_DIR/NAME.out.

# open_line NAME COMMAND...: the program, in the client's namespace.
open_line() {
	local name=$1 fd
	shift
	mkfifo "$LAB_DIR/$name.in"
	detached nsenter --net="/run/netns/$(ns_of client)" -- "$@" \
		<"$LAB_DIR/$name.in" >"$LAB_DIR/$name.out" 2>"$LAB_DIR/$name.log" &
	disown $!
	exec {fd}>"$LAB_DIR/$name.in"
	WRITER["$name"]=$fd
}

# open_tls NAME SERVER-NAME ADDRESS PORT [ARGS...]: a line by TLS.
open_tls() {
	open_line "$1" openssl s_client -quiet -no_ign_eof -servername "$2" -connect "$(bracket "$3"):$4" "${@:5}"
}

say_on() { echo "${*:2}" >&"${WRITER[$1]}"; }

# hears NAME TEXT: that text has come back.
hears() { grep -qF -- "$2" "$LAB_DIR/$1.out"; }

# talk NAME TEXT: says it and waits for the echo.
talk() {
	say_on "$1" "$2"
	wait_for 15 hears "$1" "$2"
}

# close_line NAME: its program sees the end of its input.
close_line() {
	local fd=${WRITER[$1]}
	exec {fd}>&-
	unset "WRITER[$1]"
}

# --- names, shells, datagrams --------------------------------------------------------------------

# serve_dns NAME=ADDRESS...: dnsmasq on port 53 with these answers.
serve_dns() {
	local pair arguments=()
	for pair; do arguments+=("--address=/${pair%%=*}/${pair#*=}"); done
	spawn server dns dnsmasq --no-daemon --conf-file=/dev/null --no-resolv --no-hosts --user=root --pid-file= \
		"${arguments[@]}"
	serving server udp 53 dns
}

# serve_ssh PORT: dropbear, whose package starts nothing on the machine by itself.
serve_ssh() {
	[ -e "$LAB_DIR/host_key" ] || dropbearkey -t ed25519 -f "$LAB_DIR/host_key" >/dev/null 2>&1
	spawn server ssh dropbear -F -E -s -r "$LAB_DIR/host_key" -p "$1" -P "$LAB_DIR/dropbear.pid"
	serving server tcp "$1" ssh
}

# talk_ssh ADDRESS PORT: a handshake that ends at the authentication, for nobody has a key.
talk_ssh() {
	in_ns client timeout 20 ssh -p "$2" -o BatchMode=yes -o StrictHostKeyChecking=no -o ConnectTimeout=15 \
		-o UserKnownHostsFile=/dev/null -o IdentityAgent=none -F /dev/null "nobody@$1" true \
		>"$LAB_DIR/ssh-client.log" 2>&1 || true
	grep -q 'Permission denied' "$LAB_DIR/ssh-client.log"
}

# serve_udp_echo PORT
serve_udp_echo() {
	spawn server "udp-$1" socat "UDP6-LISTEN:$1,ipv6only=0,fork,reuseaddr" EXEC:cat
	serving server udp "$1" udp-echo
}

# --- BitTorrent ----------------------------------------------------------------------------------

# make_torrent FILE TORRENT TRACKER-URL: metainfo of one file (BEP 3).
make_torrent() {
	local size name piece=262144
	size=$(stat -c %s "$1")
	name=${1##*/}
	split -b $piece --filter='openssl dgst -sha1 -binary' "$1" >"$2.pieces"
	{
		printf 'd8:announce%d:%s4:infod6:lengthi%de4:name%d:%s12:piece lengthi%de6:pieces%d:' \
			${#3} "$3" "$size" ${#name} "$name" $piece "$(stat -c %s "$2.pieces")"
		cat "$2.pieces"
		printf 'ee'
	} >"$2"
	rm "$2.pieces"
}

# serve_torrent SIZE: a seed on port 6881, and a tracker on port 6969 that knows only the seed.
serve_torrent() {
	local octet peer=''
	mkdir -p "$LAB_DIR/seed" "$LAB_DIR/leech" "$LAB_DIR/tracker/cgi-bin"
	head -c "$1" /dev/urandom >"$LAB_DIR/seed/lab.bin"
	make_torrent "$LAB_DIR/seed/lab.bin" "$LAB_DIR/lab.torrent" "http://$SERVER4:6969/cgi-bin/announce"
	for octet in ${SERVER4//./ } $((6881 >> 8)) $((6881 & 255)); do peer+=$(printf '\\%03o' "$octet"); done
	cat >"$LAB_DIR/tracker/cgi-bin/announce" <<-END
		#!/bin/sh
		printf 'Content-Type: text/plain\r\n\r\n'
		printf 'd8:intervali60e5:peers6:${peer}e'
	END
	chmod +x "$LAB_DIR/tracker/cgi-bin/announce"
	spawn server tracker busybox httpd -f -p "$SERVER4:6969" -h "$LAB_DIR/tracker"
	serving server tcp 6969 tracker
	spawn server seed aria2c --no-conf --dir="$LAB_DIR/seed" --listen-port=6881 --check-integrity=true \
		--seed-ratio=0.0 --enable-dht=false --enable-dht6=false --bt-enable-lpd=false \
		--enable-peer-exchange=false --summary-interval=0 "$LAB_DIR/lab.torrent"
	serving server tcp 6881 seed
}

# leech [ARGS...]: the download; returns when it is complete.
leech() {
	in_ns client aria2c --no-conf --dir="$LAB_DIR/leech" --listen-port=6891 --seed-time=0 --enable-dht=false \
		--enable-dht6=false --bt-enable-lpd=false --enable-peer-exchange=false --summary-interval=0 \
		--allow-overwrite=true "$@" "$LAB_DIR/lab.torrent" >>"$LAB_DIR/leech.log" 2>&1
}

# --- tunnels -------------------------------------------------------------------------------------

# openvpn_wrapping server|client FORM: the options that wrap the control channel, in WRAPPING. FORM is plain,
# tls-auth (as most providers configure it), tls-crypt or tls-crypt-v2; keys are made when first asked for.
openvpn_wrapping() {
	local key=$LAB_DIR/openvpn.key direction=0
	[ "$1" = server ] || direction=1
	[ -e "$key" ] || openvpn --genkey secret "$key"
	case $2 in
	plain) WRAPPING=() ;;
	tls-auth) WRAPPING=(--tls-auth "$key" "$direction") ;;
	tls-crypt) WRAPPING=(--tls-crypt "$key") ;;
	tls-crypt-v2)
		if [ ! -e "$LAB_DIR/v2-client.key" ]; then
			openvpn --genkey tls-crypt-v2-server "$LAB_DIR/v2-server.key"
			openvpn --tls-crypt-v2 "$LAB_DIR/v2-server.key" --genkey tls-crypt-v2-client "$LAB_DIR/v2-client.key"
		fi
		WRAPPING=(--tls-crypt-v2 "$LAB_DIR/v2-$1.key")
		;;
	*) fail "openvpn has no form $2" ;;
	esac
}

# serve_openvpn udp|tcp PORT [FORM]: tls-auth unless named. The tunnel's server is 10.99.1.1.
serve_openvpn() {
	local protocol=udp6
	[ "$1" = udp ] || protocol=tcp6-server
	make_cert vpn.lab
	make_cert road.lab
	openvpn_wrapping server "${3:-tls-auth}"
	spawn server "openvpn-$2" openvpn --dev-type tun --dev "ov$2" --proto "$protocol" --lport "$2" --multihome \
		--topology subnet --server 10.99.1.0 255.255.255.0 --dh none --ca "$LAB_DIR/ca.pem" \
		--cert "$LAB_DIR/vpn.lab.crt" --key "$LAB_DIR/vpn.lab.key" "${WRAPPING[@]}" \
		--keepalive 1 10 --persist-tun --verb 3
	# shellcheck disable=SC2034 # for the caller
	OPENVPN_SERVER=$SPAWNED
	serving server "$1" "$2" openvpn
}

# dial_openvpn udp|tcp ADDRESS PORT [FORM]: starts the client; the tunnel is up when 10.99.1.1 answers.
dial_openvpn() {
	local protocol=$1
	case $1$2 in
	udp*:*) protocol=udp6 ;;
	tcp*:*) protocol=tcp6-client ;;
	tcp*) protocol=tcp-client ;;
	esac
	openvpn_wrapping client "${4:-tls-auth}"
	spawn client openvpn-client openvpn --dev-type tun --dev ovc --proto "$protocol" --remote "$2" "$3" --nobind \
		--client --ca "$LAB_DIR/ca.pem" --cert "$LAB_DIR/road.lab.crt" --key "$LAB_DIR/road.lab.key" \
		"${WRAPPING[@]}" --connect-retry 1 2 --connect-timeout 5 --verb 3
	# shellcheck disable=SC2034 # for the caller
	OPENVPN_CLIENT=$SPAWNED
}

# wireguard_up ROLE DEVICE ADDRESS/LENGTH: userspace WireGuard, whatever the kernel has; key in
# $LAB_DIR/DEVICE.key. The device's control socket is machine-wide: its name must be the lab's own.
wireguard_up() {
	spawn "$1" "wg-$1" env WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1 wireguard-go -f "$2"
	wait_for 15 in_ns "$1" wg show "$2" || fail "wireguard-go did not start"
	(umask 077 && wg genkey >"$LAB_DIR/$2.key")
	in_ns "$1" wg set "$2" private-key "$LAB_DIR/$2.key"
	in_ns "$1" ip addr add "$3" dev "$2"
	in_ns "$1" ip link set "$2" up
}

# serve_wireguard PORT: both ends' devices; the tunnel is 10.99.2.1 and 10.99.2.2.
serve_wireguard() {
	WG_SERVER=wgs$$ WG_CLIENT=wgc$$
	wireguard_up server "$WG_SERVER" 10.99.2.1/24
	wireguard_up client "$WG_CLIENT" 10.99.2.2/24
	in_ns server wg set "$WG_SERVER" listen-port "$1" \
		peer "$(wg pubkey <"$LAB_DIR/$WG_CLIENT.key")" allowed-ips 10.99.2.2/32
}

# dial_wireguard ADDRESS PORT: the tunnel is up when 10.99.2.1 answers.
dial_wireguard() {
	in_ns client wg set "$WG_CLIENT" peer "$(wg pubkey <"$LAB_DIR/$WG_SERVER.key")" \
		endpoint "$(bracket "$1"):$2" allowed-ips 10.99.2.1/32 persistent-keepalive 1
}

# tunnel_answers ADDRESS: through a tunnel only. Without one the default route would lead to the server,
# which answers for the addresses of its tunnels on any interface.
tunnel_answers() {
	in_ns client ip route replace unreachable 10.99.0.0/16
	in_ns client ping -c 1 -W 1 "$1" >/dev/null 2>&1
}
