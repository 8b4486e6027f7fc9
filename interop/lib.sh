# What servers.sh and programs.sh have in common. dir is a directory for as long
# as the script runs; what start has started ends with it.

export DEBIAN_FRONTEND=noninteractive

need=()
wants() { # a command and the Debian package that has it
	command -v "$1" >/dev/null || need+=("$2")
}
install() { # what is missing
	[ ${#need[@]} -gt 0 ] || return 0
	# Nothing is to be started by the installation.
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

# start starts a program whose first line ends with its address, and sets pid
# and addr.
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

# interrupt ends the program that was started last, which must agree.
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
