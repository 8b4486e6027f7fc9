# Functions that bench.sh, servers.sh and programs.sh share. dir is a temporary directory. When the
# script ends, the directory is removed and the programs that start has started are killed.

export DEBIAN_FRONTEND=noninteractive

need=()
wants() { # arguments: a command, and the Debian package that contains it
	command -v "$1" >/dev/null || need+=("$2")
}
install() { # installs the packages whose commands are missing
	[ ${#need[@]} -gt 0 ] || return 0
	# The installation must not start services.
	export RUNLEVEL=1
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends "${need[@]}"
}

dir=$(mktemp -d)
pids=()
finish() {
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait 2>/dev/null || true
	rm -rf "$dir"
}
trap finish EXIT

fail() {
	echo "$0: $*" >&2
	exit 1
}

open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
	local port
	port=$((20000 + RANDOM % 12000))
	while open "$port"; do port=$((port + 1)); done
	echo "$port"
}

await_port() {
	for _ in $(seq 300); do
		! open "$1" || return 0
		sleep 0.1
	done
	fail "nothing listens on port $1"
}

# start starts a program whose first line of output ends with its address. It sets pid and addr.
start() {
	local line
	: >"$dir/out"
	"$@" >"$dir/out" 2>"$dir/err" &
	pid=$!
	pids+=("$pid")
	for _ in $(seq 300); do
		if read -r line <"$dir/out"; then
			addr=${line##* }
			return 0
		fi
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.1
	done
	fail "$1 has not begun: $(cat "$dir/err")"
}

# interrupt sends SIGINT to the program that was started last, and fails unless the program ends
# with status 0.
interrupt() {
	kill -INT "$pid"
	wait "$pid" || fail "status $? after an interrupt: $(cat "$dir/err")"
}

# check fails unless $2 is in $1.
check() {
	case $1 in
	*"$2"*) ;;
	*) fail "expected '$2' in: $1" ;;
	esac
}
