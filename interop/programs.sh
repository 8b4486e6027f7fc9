#!/usr/bin/env bash
# Tests programs that run on package async with well-known programs:
#
#   - the example programs of the standard library, of which only the listener is changed, with
#     curl, h2load and openssl s_client;
#   - the examples of this repository with nc, curl, redis-cli and redis-benchmark;
#   - the output of checksum and linecount, which must be the output of sha256sum and wc.
#
# Installs missing programs from Debian.
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

wants curl curl
wants openssl openssl
wants h2load nghttp2-client
# Other versions of nc cannot close the writing side after the input.
[[ $(nc -h 2>&1) = *$'\t-N\t'* ]] || need+=(netcat-openbsd)
wants redis-cli redis-tools
wants redis-benchmark redis-tools
install

get() { curl -sS --max-time 20 "$@"; }

# program builds a program from examples in test files of the standard library. The argument of the
# program is the name of the example to run. The files are rewritten: their package is main, and
# they listen with the functions of stdlisten.
program() { # arguments: the name of the program, files
	local name=$1 sources=$dir/$1.src file to
	shift
	mkdir "$sources"
	{
		echo 'package main'
		echo 'import "os"'
		echo 'func main() {'
		echo '	map[string]func(){'
		sed -n 's/^func \(Example[A-Za-z0-9_]*\)() {$/"\1": \1,/p' "$@"
		echo '	}[os.Args[1]]()'
		echo '}'
	} >"$sources/main.go"
	for file; do
		sed -e 's/^package [a-z]*_test$/package main/' \
			-e 's,^import ($,&"example.com/async/interop/stdlisten",' \
			-e 's/http\.ListenAndServe/stdlisten.ListenAndServe/' \
			-e 's/srv\.ListenAndServe()/stdlisten.Serve(\&srv)/' \
			-e 's/srv\.ListenAndServeTLS(/stdlisten.ServeTLS(\&srv, /' \
			"$file" >"$sources/$(basename "$file" _test.go).go"
	done
	{
		echo '{"Replace": {'
		for to in "$sources"/*.go; do echo "\"$PWD/cmd/$name/$(basename "$to")\": \"$to\","; done |
			sed '$s/,$//'
		echo '}}'
	} >"$dir/$name.json"
	go build -overlay "$dir/$name.json" -o "$dir/$name" "./cmd/$name"
}

std=$(go env GOROOT)/src
[ -f "$std/net/http/example_test.go" ] || fail "this installation of Go has no example programs"
program stdhttp "$std"/net/http/example*_test.go
program stdtls "$std/crypto/tls/example_test.go"
grep -q stdlisten "$dir/stdtls.src/example.go" || fail "crypto/tls's example does not listen by stdlisten"
if grep -hE '(http|srv)\.ListenAndServe' "$dir"/std*.src/*.go; then fail "these still listen by net/http"; fi
go build -o "$dir" ./cmd/httpserver ./cmd/tlsecho
(cd .. && go build -o "$dir" ./examples/{chat,checksum,echo,kv,linecount,proxy})
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost \
	-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null
trusting=(--cacert "$dir/cert.pem")
cd "$dir" # the examples read cert.pem from the working directory

echo "net/http's examples"
start ./stdhttp ExampleListenAndServe
check "$(get "http://$addr/hello" "http://$addr/hello" -w '%{num_connects} ')" $'Hello, world!\n1 Hello, world!\n0 '
check "$(get -o /dev/null -w '%{http_code}' "http://$addr/no")" 404

start ./stdhttp ExampleHandleFunc
check "$(get "http://$addr/" "http://$addr/endpoint")" $'HandleFunc #1!\nHello from a HandleFunc #2!'
check "$(h2load --h1 -n 5000 -c 20 "http://$addr/")" '5000 succeeded, 0 failed'

start ./stdhttp ExampleHandle
check "$(h2load --h1 -n 999 -c 9 "http://$addr/count")" '999 succeeded, 0 failed'
check "$(get "http://$addr/count")" 'count is 1000'

start ./stdhttp ExampleFileServer
check "$(get "http://$addr/" -w ' %{http_code}')" ' 200'

start ./stdhttp ExampleNotFoundHandler
check "$(get "http://$addr/resources/people/")" 'people handler'

start ./stdhttp ExampleServer_Shutdown
check "$(get -o /dev/null -w '%{http_code}' "http://$addr/")" 404
interrupt

start ./stdhttp ExampleCrossOriginProtection
check "$(get -d x "http://$addr/hello")" 'request allowed'
check "$(get -d x -H 'Sec-Fetch-Site: cross-site' -w ' %{http_code}' "http://$addr/hello")" ' 403'

start ./stdhttp ExampleListenAndServeTLS
check "$(get "${trusting[@]}" -w '%{http_version}' "https://$addr/")" $'Hello, TLS!\n2'
check "$(get "${trusting[@]}" --http1.1 -w '%{http_version}' "https://$addr/")" $'Hello, TLS!\n1.1'
check "$(h2load -n 5000 -c 20 -m 10 "https://$addr/")" '5000 succeeded, 0 failed'
check "$(openssl s_client -connect "$addr" -CAfile cert.pem -verify_return_error -alpn h2 </dev/null 2>&1 | tr -d '\0')" 'ALPN protocol: h2'

start ./stdhttp ExampleProtocols_http1
check "$(get "${trusting[@]}" -w ' %{http_code} %{http_version}' "https://$addr/")" ' 404 1.1'

echo "crypto/tls's example"
start ./stdtls ExampleX509KeyPair_httpServer
check "$(printf 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' |
	timeout 20 openssl s_client -quiet -connect "$addr" 2>/dev/null)" 'HTTP/1.1 404'
check "$(h2load -n 2000 -c 10 -m 10 "https://$addr/")" '2000 done'

echo "h2c; crypto/tls in tasks"
start ./httpserver
check "$(get --http2-prior-knowledge -w ' %{http_version}' "http://$addr/bar")" 'Hello, "/bar" 2'
check "$(h2load -n 5000 -c 20 -m 10 "http://$addr/bar")" '5000 succeeded, 0 failed'
start ./tlsecho -cert cert.pem -key key.pem
for version in -tls1_2 -tls1_3; do
	check "$({ echo 'through TLS'; sleep 1; } |
		timeout 20 openssl s_client $version -quiet -no_ign_eof -connect "$addr" 2>/dev/null || true)" 'through TLS'
done

echo "examples/echo"
for server in straight future serve; do
	start ./echo -listen 127.0.0.1:0 -server $server
	head -c 1000000 /dev/urandom >sent
	# nc closes its writing side after the file, and ends when the server closes the connection.
	timeout 60 nc -N "${addr%:*}" "${addr##*:}" <sent >came
	cmp sent came
	# curl receives its own request: an answer without a header, as in HTTP/0.9. Neither side closes
	# the connection, so curl ends by its time-out.
	check "$(curl -s --http0.9 --max-time 1 "http://$addr/hello" || true)" 'GET /hello HTTP/1.1'
done

echo "examples/kv"
start ./kv -listen 127.0.0.1:0
port=${addr##*:}
cli() { timeout 20 redis-cli -p "$port" "$@"; }
check "$(cli ping)" PONG
check "$(cli set greeting hello) $(cli get greeting)" 'OK hello'
check "$(cli incr n) $(cli incr n)" '1 2'
check "$(cli rpush list a b c) $(cli lpop list)" '3 a'
check "$(cli set short x px 20; sleep 0.2; cli exists short)" 0
timeout 60 redis-benchmark -p "$port" -q -n 20000 -c 50 -t ping,set,get,incr,lpush,lpop -P 4 >benchmark 2>&1 ||
	fail "redis-benchmark: $(tail -5 benchmark)"
[ "$(tr '\r' '\n' <benchmark | grep -c 'requests per second')" = 7 ] || fail "redis-benchmark: $(tail -5 benchmark)"
check "$(cli ping)" PONG
interrupt

echo "examples/chat"
start ./chat -listen 127.0.0.1:0
hears() { # arguments: a name, and a text that the client of this name must receive
	for _ in $(seq 200); do
		! grep -qF "$2" "$1.hears" || return 0
		sleep 0.1
	done
	fail "$1 has not heard '$2' but: $(cat "$1.hears")"
}
mkfifo eve.says
timeout 60 nc -N "${addr%:*}" "${addr##*:}" <eve.says >eve.hears &
exec 4>eve.says
printf 'eve\neve: am I there?\n' >&4
hears eve 'eve: am I there?'
printf 'bob\neve: psst\nhello, all\nnobody: hm\n' | timeout 60 nc -N "${addr%:*}" "${addr##*:}" >bob.hears
hears bob 'there is no nobody'
for line in 'bob has come' 'bob: psst' 'bob: hello, all' 'bob has left'; do hears eve "$line"; done
exec 4>&-
interrupt

echo "examples/proxy"
start ./httpserver
start ./proxy -listen 127.0.0.1:0 -to "$addr"
check "$(get "http://$addr/bar" "http://$addr/bar" -w '%{num_connects} ')" $'Hello, "/bar"1 Hello, "/bar"0 '
check "$(get --http2-prior-knowledge -w ' %{http_version}' "http://$addr/bar")" 'Hello, "/bar" 2'
check "$(h2load --h1 -n 5000 -c 20 "http://$addr/bar")" '5000 succeeded, 0 failed'
interrupt
check "$(cat out)" '22 connections, '
start ./echo -listen 127.0.0.1:0
start ./proxy -listen 127.0.0.1:0 -to "$addr"
timeout 60 nc -N "${addr%:*}" "${addr##*:}" <sent >came
cmp sent came
interrupt
check "$(cat out)" '1 connections, 1000000 bytes up, 1000000 bytes down'

echo "examples/checksum and linecount"
cp -r "$std/net" tree
find tree -type f >names
./checksum tree >sums
[ "$(wc -l <sums)" = "$(wc -l <names)" ] || fail "$(wc -l <sums) sums of $(wc -l <names) files"
sha256sum --quiet -c sums
echo >>tree/net.go
! sha256sum --quiet -c sums >/dev/null 2>&1 || fail "a file has changed and its sum has not"
read -r lines bytes < <(find tree -name '*.go' -type f -exec cat {} + | wc -lc)
check "$(./linecount -ext .go tree | tr -s ' ')" "$lines $bytes"
echo "programs: all passed"
