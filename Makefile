# Each target is one or two lines that a person could type.

SYSTEMS = linux darwin freebsd netbsd openbsd dragonfly
CORE    = 'State|Task|Result|Spawn|Join|Cancel|Panic|Goexit|Wake|RunQueue|Timer|Sleep|Alarm|Poller|Reactor|Source|FdTable|Yield|Waiters|Once|Notify|Mutex|Semaphore|Barrier|Cond|WaitGroup|Chan|Oneshot|Broadcast|Watch|Select|Launch|Chain'

ROUNDS  = 10

.PHONY: demo observe test quick bench bench-all check fmt vet copies arch race full shared locks fuzz stress libraries instrument interop

demo: ## an echo server under load, at a fixed rate and idle, beside package net, in under a minute
	go run ./examples/echo

observe: ## a page that shows what a runtime does
	go run ./examples/observe

test: full race shared locks libraries instrument fuzz fmt vet copies ## all checks that must pass, tests first

quick: ## the tests of the package, loads scaled down, within a minute
	go vet . && go test -short -count=1 .

check: fmt vet copies arch ## the checks that run no test

fmt:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'run gofmt -w on these'; exit 1; }

vet:
	@for os in $(SYSTEMS); do echo "vet $$os"; GOOS=$$os go vet ./... || exit 1; done

copies: ## checks that go vet reports a copy of each type that must not be copied
	@types=$$(grep -o 'async\.[A-Z][A-Za-z]*' testdata/nocopy/nocopy.go) && out=$$(go vet ./testdata/nocopy 2>&1); for type in $${types:?}; do \
		echo "$$out" | grep -qE "passes lock by value: [^ ]*/$$type(\[int\])? contains" || { echo "$$type: vet finds no copy"; exit 1; }; done

arch: ## go vet of the assembly for other processors
	@for arch in 386 arm arm64 riscv64; do echo "vet linux/$$arch"; GOARCH=$$arch go vet . || exit 1; done

race: ## unit tests and examples under the race detector, large loads scaled down
	go test -race -short -count=1 ./...

full: ## the same without the race detector, large loads at full size
	go test -count=1 ./...

shared: ## the tests of the package with Config.SharedProcs, large loads scaled down
	ASYNC_TEST_SHARED=1 go test -short -count=1 .

locks: ## the tests of the package with a check of the order of all mutexes at each Lock
	go vet -tags lockorder . && go test -tags lockorder -short -count=1 .

libraries: ## libraries and test suites of other projects on the connections, without real servers
	cd interop && go vet -tags servers ./... && go test -race -count=1 -timeout 30m ./...

instrument: ## the tests of the benchmark programs; they only measure for a short time
	cd bench && go vet ./... && go test -count=1 ./...

interop: ## libraries with Redis and PostgreSQL; example programs with curl, openssl, h2load, nc and redis-benchmark
	interop/servers.sh
	interop/programs.sh

fuzz: ## each fuzz target 2,000 times; a limit by time sometimes fails with "context deadline exceeded"
	@dir=$$(mktemp -d) && trap "rm -r $$dir" EXIT && go test -c -fuzz . -o $$dir/async . && \
	for f in $$($$dir/async -test.list '^Fuzz'); do \
		echo $$f; $$dir/async -test.run '^$$' -test.fuzz "^$$f$$" -test.fuzztime 2000x -test.fuzzcachedir $$(go env GOCACHE)/fuzz/async || exit 1; done

stress: ## the tests of the core five times on one, two, four and eight processors
	go test -race -short -cpu 1,2,4,8 -count=5 -timeout 60m -run $(CORE) .
	cd interop && go test -race -count=20 -timeout 60m -run 'TestConn$$' .

bench: ## a small table in less than five minutes, needs only Go: goroutines, package net and the library
	cd bench && go run . -quick -rounds 4 -seconds 0.5 -subjects 'goroutines|net|straight|straight-1w|inside|future|serve|netconn'

bench-all: ## every row and rival in two hours; installs the rivals from Debian and writes bench/RESULTS.md
	bench/install.sh
	rm -f bench/results/raw.jsonl
	cd bench && { go run . -rounds $(ROUNDS) -seconds 0.5 -out results/raw.jsonl; status=$$?; go run ./cmd/report results/raw.jsonl && exit $$status; }
