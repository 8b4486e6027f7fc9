package async

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience bounds every wait of the tests. It is long because the machines that run the tests are
// often overloaded. Only a test that fails waits for the whole time.
const patience = 20 * time.Second

// testRuntimes is the number of runtimes of newTestRuntime that run. Runtimes that run at the same
// time share the counts that were taken before the first of them.
var testRuntimes, goroutinesBefore, fdsBefore int

// newTestRuntime starts a runtime, and shuts it down when the test ends. The test fails if the
// runtime leaves goroutines or descriptors behind: their numbers are compared with the numbers
// before. Tests that use newTestRuntime cannot run in parallel.
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
		cfg.Stalled = func(Stall) {} // an overloaded machine would cause reports
	}
	if forceShared && len(cfg.Tuning.Affinity) == 0 {
		cfg.SharedProcs = true
	}
	rt, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	testRuntimes++
	t.Cleanup(func() {
		select {
		case <-rt.ended: // the test has checked the result of Shutdown
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

// warmUp makes packages net and os/signal and this package start the goroutines and open the
// descriptors that stay until the process ends.
var warmUp = sync.OnceFunc(func() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	signal.Stop(c)
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		ln.Close()
	}
	beginStarter()
})

// openFds counts the descriptors of the process, including the descriptor that openFds itself uses.
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

// within polls cond until cond holds, for at most d. The first polls have no pause between them,
// since most conditions hold soon.
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

// eventually fails the test if cond does not hold within patience. It must be called on the
// goroutine of the test.
func eventually(t testing.TB, cond func() bool, what ...any) {
	t.Helper()
	if !within(patience, cond) {
		t.Fatal(append([]any{"this did not happen in time: "}, what...)...)
	}
}

// newPollCx returns a Context with which a test polls futures itself, and a counter of the wakes.
func newPollCx(t testing.TB, rt *Runtime) (cx *Context, wakes *atomic.Int32) {
	t.Helper()
	wakes = new(atomic.Int32)
	return NewContext(rt, NewWaker(func() { wakes.Add(1) })), wakes
}

// join waits for a task, and fails the test if the task does not end.
func join[T any](t testing.TB, h *JoinHandle[T]) (T, error) {
	t.Helper()
	v, err := joinOrCancel(h)
	if !h.state.done() {
		t.Fatalf("task %d has not ended", h.Task().ID)
	}
	return v, err
}

// joinOrCancel waits for a task, for at most patience. Then it cancels the task, so that the rest
// of the test can clean up, and returns an error.
func joinOrCancel[T any](h *JoinHandle[T]) (T, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	v, err := h.JoinBlocking(ctx)
	if ctx.Err() != nil && err == ctx.Err() {
		h.Cancel()
		err = fmt.Errorf("the task hangs: %w", err)
	}
	return v, err
}

// runTask runs fn as a straight-line task.
func runTask(rt *Runtime, fn func(cx *Context) error) error {
	_, err := joinOrCancel(Go(rt, fn))
	return err
}

// runBlockOn runs fn on a goroutine outside the pool.
func runBlockOn(rt *Runtime, fn func(cx *Context) error) error {
	done := make(chan error, 1)
	cancels := make(chan context.CancelFunc, 1)
	go func() {
		_, err := BlockOn(rt, func(cx *Context) (None, error) {
			cx, cancel := cx.WithCancel()
			defer cancel()
			cancels <- cancel
			return None{}, fn(cx)
		})
		done <- err
	}()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case err := <-done:
		return err
	case <-timeout.C:
		(<-cancels)()
		return fmt.Errorf("the goroutine hangs: %w", <-done)
	}
}

// directionWaits reports whether a task waits for an event of dir.
func directionWaits(dir *direction) bool {
	t := dir.waiters.p.Load()
	return t != nil && t != slotFired
}

// tcpListen opens a listener on the loopback interface. The test need not close it.
func tcpListen(t testing.TB) *TCPListener {
	t.Helper()
	ln, err := ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	return ln
}

// tcpPair returns the two ends of a connection. The test need not close them.
func tcpPair(t testing.TB, rt *Runtime) (a, b *TCPConn) {
	t.Helper()
	ln := tcpListen(t)
	require.NoError(t, runTask(rt, func(cx *Context) (err error) {
		if a, err = DialTCP(cx, "tcp", nil, ln.Addr().(*net.TCPAddr)); err != nil {
			return err
		}
		b, err = ln.AcceptTCP(cx)
		return err
	}))
	ln.Close()
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func tcpWrite(cx *Context, c Conn, s string) error {
	_, err := c.Write(cx, []byte(s))
	return err
}

// tcpExpect reads len(want) bytes and compares them.
func tcpExpect(cx *Context, c Conn, want string) error {
	got := make([]byte, len(want))
	if _, err := io.ReadFull(BindConn(cx, c), got); err != nil {
		return fmt.Errorf("reading %q: %w", want, err)
	}
	if string(got) != want {
		return fmt.Errorf("read %q, want %q", got, want)
	}
	return nil
}

func tcpExpectEOF(cx *Context, c Conn) error {
	n, err := c.Read(cx, make([]byte, 8))
	if n != 0 || err != io.EOF {
		return fmt.Errorf("got %d bytes and %v, want the end", n, err)
	}
	return nil
}

// receive receives one value from a channel, and fails the test if no value arrives.
func receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// aimAt makes the next task that is spawned outside of the workers start on worker i.
func aimAt(rt *Runtime, i int) *Runtime {
	rt.assigned.Store(uint32(len(rt.workers) + i - 1))
	return rt
}

// waiting reports whether the task of a handle waits for a wake.
func waiting[T any](h *JoinHandle[T]) bool { return h.info(nil).State == "waiting" }

// waiters returns how many tasks and goroutines wait for the end of the task of h.
func waiters[T any](h *JoinHandle[T]) int { return h.waiters.count() }

// probe is a future for one poller. It is pending until resolve is called, and counts its polls and
// cancellations.
type probe struct {
	mu      sync.Mutex
	waker   Waker
	ready   bool
	err     error
	polls   atomic.Int32
	cancels atomic.Int32
}

func (p *probe) Poll(cx *Context) (int, error) {
	p.polls.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ready {
		return 42, p.err
	}
	p.waker = cx.Waker()
	return 0, ErrPending
}

func (p *probe) Cancel() { p.cancels.Add(1) }

func (p *probe) resolve(err error) {
	p.mu.Lock()
	p.ready, p.err = true, err
	w := p.waker
	p.mu.Unlock()
	w.Wake()
}

// reports collects the failures that a runtime passes to Config.Unhandled.
type reports struct {
	mu  sync.Mutex
	all map[uint64][]error
}

func (r *reports) add(task Task, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[uint64][]error{}
	}
	r.all[task.ID] = append(r.all[task.ID], err)
}

func (r *reports) of(task uint64) []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all[task]
}

func (r *reports) count() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, errs := range r.all {
		n += len(errs)
	}
	return n
}

// runInTask runs fn as a task, and fails the test if fn fails. fn must not use t.
func runInTask(t testing.TB, s Spawner, fn func(cx *Context) error) {
	t.Helper()
	_, err := join(t, Go(s, fn))
	require.NoError(t, err)
}

// expect returns an error if ok is false. It replaces require in tasks, which must not end by
// Goexit.
func expect(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// everywhere runs a test with the Context of a task, and with the Context of a goroutine in
// BlockOn.
func everywhere(t *testing.T, fn func(cx *Context) error) {
	rt := newTestRuntime(t, Config{Workers: 2})
	t.Run("task", func(t *testing.T) { runInTask(t, rt, fn) })
	t.Run("goroutine", func(t *testing.T) {
		_, err := BlockOn(rt, func(cx *Context) (None, error) { return None{}, fn(cx) })
		require.NoError(t, err)
	})
}

// ended returns a context that has ended.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// pinned returns a Spawner whose tasks start on worker i and are not stolen by other workers.
func pinned(rt *Runtime, i int) Spawner { return rt.Workers()[i] }

// occupy starts n blocking calls that run until release is called.
func occupy(t *testing.T, rt *Runtime, n int) (release func()) {
	t.Helper()
	began, free := make(chan struct{}, n), make(chan struct{})
	for range n {
		SpawnBlocking(rt, func() (None, error) {
			began <- struct{}{}
			<-free
			return None{}, nil
		})
	}
	for range n {
		receive(t, began)
	}
	return func() { close(free) }
}

// parkedWorkers returns how many workers are parked without a P, as idle workers are on Linux.
func parkedWorkers(rt *Runtime) (n int) {
	for _, w := range rt.workers {
		if w.withoutP.Load() {
			n++
		}
	}
	return n
}

// trySelect is TrySelect without the error. It panics if the error does not agree with the index.
func trySelect(cx *Context, cases ...Case) int {
	i, err := TrySelect(cx, cases...)
	if (i < 0) != (err == ErrPending) || i >= 0 && err != nil {
		panic(fmt.Sprintf("TrySelect: %d, %v", i, err))
	}
	return i
}
