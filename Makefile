# Each target is a line or two that a person could type.

SYSTEMS = linux darwin freebsd netbsd openbsd dragonfly
CORE    = 'State|Task|Result|Spawn|Join|Cancel|Panic|Goexit|Wake|RunQueue|Timer|Sleep|Alarm|Poller|Reactor|Source|FdTable|Yield|Waiters|Once|Notify|Mutex|Semaphore|Barrier|Cond|WaitGroup|Chan|Oneshot|Broadcast|Watch|Select|Launch|Chain'

ROUNDS  = 10

.PHONY: demo observe test quick bench bench-all check fmt vet copies arch race full shared locks fuzz stress libraries instrument interop

demo: ## an echo server under load, at a fixed rate and idle, beside package net, in under a minute
	go run ./examples/echo

observe: ## a page that shows what a runtime does
	go run ./examples/observe

test: full race shared locks libraries instrument fuzz fmt vet copies ## everything that must be green, tests first

quick: ## the tests of the package, loads scaled down, within a minute
	go vet . && go test -short -count=1 .

check: fmt vet copies arch ## what needs no running

fmt:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'run gofmt -w on these'; exit 1; }

vet:
	@for os in $(SYSTEMS); do echo "vet $$os"; GOOS=$$os go vet ./... || exit 1; done

copies: ## go vet finds a copy of each type that must not be copied
	@types=$$(grep -o 'async\.[A-Z][A-Za-z]*' testdata/nocopy/nocopy.go) && out=$$(go vet ./testdata/nocopy 2>&1); for type in $${types:?}; do \
		echo "$$out" | grep -qE "passes lock by value: [^ ]*/$$type(\[int\])? contains" || { echo "$$type: vet finds no copy"; exit 1; }; done

arch: ## the assembly of other processors
	@for arch in 386 arm arm64 riscv64; do echo "vet linux/$$arch"; GOARCH=$$arch go vet . || exit 1; done

race: ## unit tests and examples under the race detector, large loads scaled down
	go test -race -short -count=1 ./...

full: ## the same without it, large loads whole
	go test -count=1 ./...

shared: ## the tests of the package with Config.SharedProcs, large loads scaled down
	ASYNC_TEST_SHARED=1 go test -short -count=1 .

locks: ## the order of all mutexes, checked at each Lock
	go vet -tags lockorder . && go test -tags lockorder -short -count=1 .

libraries: ## other people's code and test suites on the connections, without servers of theirs
	cd interop && go vet -tags servers ./... && go test -race -count=1 -timeout 30m ./...

instrument: ## the tests of the benchmark, which measure nothing for long
	cd bench && go vet ./... && go test -count=1 ./...

interop: ## the same with Redis and PostgreSQL; example programs under curl, openssl, h2load, nc and redis-benchmark
	interop/servers.sh
	interop/programs.sh

fuzz: ## each target 2,000 times; by time it would fail now and then, with "context deadline exceeded"
	@dir=$$(mktemp -d) && trap "rm -r $$dir" EXIT && go test -c -fuzz . -o $$dir/async . && \
	for f in $$($$dir/async -test.list '^Fuzz'); do \
		echo $$f; $$dir/async -test.run '^$$' -test.fuzz "^$$f$$" -test.fuzztime 2000x -test.fuzzcachedir $$(go env GOCACHE)/fuzz/async || exit 1; done

stress: ## the core again and again, on one to eight processors
	go test -race -short -cpu 1,2,4,8 -count=5 -timeout 60m -run $(CORE) .
	cd interop && go test -race -count=20 -timeout 60m -run 'TestConn$$' .

bench: ## a small table, with Go alone and in under five minutes: goroutines, package net and the library
	cd bench && go run . -quick -rounds 4 -seconds 0.5 -subjects 'goroutines|net|straight|straight-1w|inside|future|serve|netconn'

bench-all: ## two hours: every row and rival, after installing them from Debian; writes bench/RESULTS.md
	bench/install.sh
	rm -f bench/results/raw.jsonl
	cd bench && { go run . -rounds $(ROUNDS) -seconds 0.5 -out results/raw.jsonl; status=$$?; go run ./cmd/report results/raw.jsonl && exit $$status; }
