#!/usr/bin/env bash
# fasthttp under wrk (installed from Debian if it is missing): on package net, in
# tasks, and on goroutines over the runtime's net.Conns; in the clear and over
# crypto/tls. Each round starts every server once, in turn, and loads it.
#
#   ./bench.sh [rounds [seconds [connections]]]
#
# A line per server and kind: medians of requests per second, of the server
# process's CPU per request in microseconds, and of the latencies.
set -euo pipefail
cd "$(dirname "$0")"
rounds=${1:-5} seconds=${2:-3} conns=${3:-64}

need=()
command -v wrk >/dev/null || need+=(wrk)
command -v openssl >/dev/null || need+=(openssl)
if [ ${#need[@]} -gt 0 ]; then
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
fi

dir=$(mktemp -d)
pid=
stop() {
	[ -z "$pid" ] || kill "$pid" 2>/dev/null || true
	rm -rf "$dir"
}
trap stop EXIT
go build -o "$dir/loadserver" ./cmd/loadserver
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost \
	-keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null
cat >"$dir/report.lua" <<'LUA'
done = function(summary, latency)
	io.write(string.format("result %d %d %d %d %d\n", summary.requests, summary.duration,
		latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
LUA

hertz=$(getconf CLK_TCK)
cpu() { awk '{ print $14 + $15 }' "/proc/$1/stat"; } # in ticks; the command has no blanks in its name

measure() { # kind, server
	local options=() scheme=http before after
	[ "$1" = plain ] || { options=(-cert "$dir/cert.pem" -key "$dir/key.pem") scheme=https; }
	: >"$dir/addr"
	"$dir/loadserver" -on "$2" "${options[@]}" >"$dir/addr" &
	pid=$!
	local addr=
	for _ in $(seq 100); do
		! read -r addr <"$dir/addr" || break
		sleep 0.05
	done
	wrk -t1 -c"$conns" -d1s "$scheme://$addr/" >/dev/null
	before=$(cpu $pid)
	wrk -t1 -c"$conns" -d"${seconds}s" -s "$dir/report.lua" "$scheme://$addr/" >"$dir/wrk"
	after=$(cpu $pid)
	awk -v kind="$1" -v on="$2" -v ticks=$((after - before)) -v hertz="$hertz" '/^result/ {
		print kind, on, $2 * 1e6 / $3, ticks * 1e6 / hertz / $2, $4, $5, $6 }' "$dir/wrk" >>"$dir/results"
	kill $pid
	wait $pid 2>/dev/null || true
	pid=
}

for _ in $(seq "$rounds"); do
	for kind in plain tls; do
		for on in net tasks goroutines; do measure $kind $on; done
	done
done

median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
printf '%-6s %-11s %10s %10s %8s %8s %8s\n' kind on requests/s 'CPU µs' 'p50 µs' 'p99 µs' 'p999 µs'
for kind in plain tls; do
	for on in net tasks goroutines; do
		line=()
		for column in 3 4 5 6 7; do
			line+=("$(awk -v k=$kind -v o=$on -v c=$column '$1 == k && $2 == o { print $c }' "$dir/results" | median)")
		done
		printf '%-6s %-11s %10.0f %10.2f %8.0f %8.0f %8.0f\n' $kind $on "${line[@]}"
	done
done
