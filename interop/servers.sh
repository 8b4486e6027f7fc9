#!/usr/bin/env bash
# Runs the tests of this module with real servers. Installs Redis and PostgreSQL from Debian if they
# are missing, starts them on 127.0.0.1 with their data in a temporary directory, passes their
# addresses to the tests, and stops them.
#
#   ./servers.sh [arguments of go test]
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

wants redis-server redis-server
[ -n "$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null)" ] || need+=(postgresql)
install
pgbin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)

redis_port=$(free_port)
redis-server --bind 127.0.0.1 --port "$redis_port" --dir "$dir" --save '' --appendonly no --loglevel warning >"$dir/redis.log" &
pids+=($!)

# PostgreSQL refuses to run as root.
as_postgres=()
[ "$(id -u)" != 0 ] || as_postgres=(setpriv --reuid=postgres --regid=postgres --clear-groups)
pg_port=$(free_port)
[ "$pg_port" != "$redis_port" ] || pg_port=$((pg_port + 1))
mkdir "$dir/pg"
chmod 755 "$dir"
[ "$(id -u)" != 0 ] || chown postgres: "$dir/pg"
"${as_postgres[@]}" "$pgbin/initdb" -D "$dir/pg" -U interop -A trust --no-sync >"$dir/initdb.log"
"${as_postgres[@]}" "$pgbin/postgres" -D "$dir/pg" -p "$pg_port" -h 127.0.0.1 -k '' -c fsync=off >"$dir/pg.log" 2>&1 &
pg_pid=$!
# QUIT ends PostgreSQL at once, even if clients are connected.
trap 'kill -QUIT $pg_pid 2>/dev/null || true; finish' EXIT
await_port "$redis_port"
await_port "$pg_port"

export INTEROP_REDIS=127.0.0.1:$redis_port
export INTEROP_POSTGRES="postgres://interop@127.0.0.1:$pg_port/postgres?sslmode=disable"
go vet -tags servers .
go test -race -count=1 -tags servers -skip '^TestSuites$' "$@" . # make libraries runs TestSuites
