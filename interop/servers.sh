#!/usr/bin/env bash
# Runs everything of this module, with the real servers and clients: installs
# what is missing from Debian, starts Redis and PostgreSQL on 127.0.0.1 with
# their data in a temporary directory, runs the tests with their addresses, then
# the example programs under curl, openssl and h2load, and stops it all.
#
#   ./servers.sh [arguments of go test]
set -euo pipefail
cd "$(dirname "$0")"

# install names packages whose command is missing.
need=()
install() { command -v "$1" >/dev/null || need+=("$2"); }
install redis-server redis-server
install curl curl
install openssl openssl
install h2load nghttp2-client
[ -n "$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null)" ] || need+=(postgresql)
if [ ${#need[@]} -gt 0 ]; then
	# Nothing is to be started by the installation.
	export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends "${need[@]}"
fi
pgbin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)

# PostgreSQL refuses to run as root.
as_postgres=()
[ "$(id -u)" != 0 ] || as_postgres=(setpriv --reuid=postgres --regid=postgres --clear-groups)

dir=$(mktemp -d)
pids=()
stop() {
	[ ! -d "$dir/pg" ] || "${as_postgres[@]}" "$pgbin/pg_ctl" -D "$dir/pg" -m immediate stop >/dev/null 2>&1 || true
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait 2>/dev/null || true
	rm -rf "$dir"
}
trap stop EXIT

open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
free_port() {
	local port
	port=$((20000 + RANDOM % 12000))
	while open "$port"; do port=$((port + 1)); done
	echo "$port"
}
await() { # until the port is open
	for _ in $(seq 300); do
		! open "$1" || return 0
		sleep 0.1
	done
	echo "nothing listens on port $1" >&2
	return 1
}
start() { # a program that prints its address; sets addr
	: >"$dir/out"
	"$@" >"$dir/out" &
	pids+=($!)
	for _ in $(seq 300); do
		read -r addr <"$dir/out" && return 0
		sleep 0.1
	done
	echo "$1 has not begun" >&2
	return 1
}

redis_port=$(free_port)
redis-server --bind 127.0.0.1 --port "$redis_port" --dir "$dir" --save '' --appendonly no --loglevel warning >"$dir/redis.log" &
pids+=($!)

pg_port=$(free_port)
[ "$pg_port" != "$redis_port" ] || pg_port=$((pg_port + 1))
mkdir "$dir/pg"
chmod 755 "$dir"
[ "$(id -u)" != 0 ] || chown postgres: "$dir/pg"
"${as_postgres[@]}" "$pgbin/initdb" -D "$dir/pg" -U interop -A trust --no-sync >"$dir/initdb.log"
"${as_postgres[@]}" "$pgbin/postgres" -D "$dir/pg" -p "$pg_port" -h 127.0.0.1 -k '' -c fsync=off >"$dir/pg.log" 2>&1 &
pids+=($!)
await "$redis_port"
await "$pg_port"

export INTEROP_REDIS=127.0.0.1:$redis_port
export INTEROP_POSTGRES="postgres://interop@127.0.0.1:$pg_port/postgres?sslmode=disable"
go test -count=1 -tags servers "$@" ./...

# The example programs.
check() { # that $2 is in $1
	case $1 in
	*"$2"*) ;;
	*)
		echo "expected '$2' in: $1" >&2
		exit 1
		;;
	esac
}
go build -o "$dir" ./cmd/httpserver ./cmd/tlsecho
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost \
	-keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null

start "$dir/httpserver"
check "$(curl -sS --max-time 20 "http://$addr/bar" "http://$addr/bar")" 'Hello, "/bar"Hello, "/bar"'
check "$(curl -sS --max-time 20 --http2-prior-knowledge -w ' %{http_version}' "http://$addr/bar")" 'Hello, "/bar" 2'
check "$(h2load -n 2000 -c 10 -m 10 "http://$addr/bar")" '2000 succeeded, 0 failed'
check "$(h2load --h1 -n 2000 -c 10 "http://$addr/bar")" '2000 succeeded, 0 failed'

start "$dir/httpserver" -cert "$dir/cert.pem" -key "$dir/key.pem"
check "$(curl -sS --max-time 20 --cacert "$dir/cert.pem" --connect-to "localhost:443:$addr" -w ' %{http_version}' -k https://localhost/bar)" 'Hello, "/bar" 2'
check "$(h2load -n 2000 -c 10 -m 10 "https://$addr/bar")" '2000 succeeded, 0 failed'

start "$dir/tlsecho" -cert "$dir/cert.pem" -key "$dir/key.pem"
check "$({ echo 'through TLS'; sleep 1; } | timeout 20 openssl s_client -quiet -connect "$addr" 2>/dev/null || true)" 'through TLS'
echo "interop: all passed"
