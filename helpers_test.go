package async

import (
	"net"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait of the tests. Only a test that fails waits so
// long, so it is generous: machines that build are often overloaded.
const patience = 20 * time.Second

// testRuntimes is how many runtimes of newTestRuntime run. Those that run beside
// each other share what was counted before the first.
var testRuntimes, goroutinesBefore, fdsBefore int

// newTestRuntime starts a runtime that must leave nothing behind: when the
// test ends it is shut down, and goroutines and descriptors are counted
// against what they were before. Tests that use it cannot run in parallel.
func newTestRuntime(t testing.TB, cfg Config) *Runtime {
	t.Helper()
	warmUp()
	if testRuntimes == 0 {
		goroutinesBefore, fdsBefore = runtime.NumGoroutine(), openFds(t)
	}
	if cfg.Grace == 0 {
		cfg.Grace = patience
	}
	if cfg.Stalled == nil {
		cfg.Stalled = func(Stall) {} // the machine may well be overloaded
	}
	if forceShared && len(cfg.Affinity) == 0 {
		cfg.SharedProcs = true
	}
	rt, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	testRuntimes++
	t.Cleanup(func() {
		select {
		case <-rt.ended: // the test has seen how
		default:
			if err := rt.Shutdown(ended()); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
		}
		if testRuntimes--; testRuntimes > 0 {
			return
		}
		goroutines, fds := goroutinesBefore, fdsBefore
		if !within(patience, func() bool { return runtime.NumGoroutine() <= goroutines }) {
			buf := make([]byte, 1<<20)
			t.Errorf("goroutines: %d before, %d after\n%s",
				goroutines, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		}
		if !within(patience, func() bool { return openFds(t) <= fds }) {
			t.Errorf("open descriptors: %d before, %d after", fds, openFds(t))
		}
	})
	return rt
}

// warmUp makes packages net, os/signal and this one start what they keep until the process
// ends.
var warmUp = sync.OnceFunc(func() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	signal.Stop(c)
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		ln.Close()
	}
	beginStarter()
})

// openFds counts the descriptors of the process, the one it needs for that
// included.
func openFds(t testing.TB) int {
	t.Helper()
	d, err := os.Open("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// within polls cond until it holds, for at most d. The first polls follow each
// other closely, since most conditions are about to hold.
func within(d time.Duration, cond func() bool) bool {
	for begun, n := time.Now(), 0; !cond(); n++ {
		if time.Since(begun) > d {
			return false
		}
		if n < 100 {
			runtime.Gosched()
		} else {
			time.Sleep(time.Millisecond)
		}
	}
	return true
}

// eventually fails the test if cond does not come to hold. It must be called
// on the test's goroutine.
func eventually(t testing.TB, cond func() bool, what ...any) {
	t.Helper()
	if !within(patience, cond) {
		t.Fatal(append([]any{"this did not happen in time: "}, what...)...)
	}
}

// newPollCx returns a Context for polling by hand, and counts its wakes.
func newPollCx(t testing.TB, rt *Runtime) (cx *Context, wakes *atomic.Int32) {
	t.Helper()
	wakes = new(atomic.Int32)
	return NewContext(rt, NewWaker(func() { wakes.Add(1) })), wakes
}
