package async

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// childEnv is the environment variable that names, in a child process, the test that started it.
const childEnv = "ASYNC_TEST_CHILD"

// inChild reports whether the calling test runs in the child.
func inChild(t testing.TB) bool { return os.Getenv(childEnv) == t.Name() }

// child is the command that runs the calling test again in another process,
// for code that would end this process, or that writes to its standard error.
func child(t testing.TB, env ...string) *exec.Cmd {
	self, err := os.Executable()
	require.NoError(t, err)
	parts := strings.Split(t.Name(), "/")
	for i, part := range parts {
		parts[i] = "^" + part + "$"
	}
	cmd := exec.Command(self, "-test.run="+strings.Join(parts, "/"), "-test.count=1", "-test.timeout=1m")
	cmd.Env = append(append(os.Environ(), childEnv+"="+t.Name()), env...)
	return cmd
}

func TestTaskStateTransitions(t *testing.T) {
	const (
		held      = uint32(0)
		idle      = taskIdle
		notified  = taskNotified
		cancelled = taskCancelled
		done      = taskDone
	)
	wake := func(s *taskState) any { return s.wake() }
	cancel := func(s *taskState) any { return s.cancel(0) }
	begin := func(s *taskState) any { s.begin(); return nil }
	suspend := func(s *taskState) any { return s.suspend() }
	finish := func(s *taskState) any { s.finish(0); return nil }

	for _, c := range []struct {
		name     string
		from, to uint32
		op       func(*taskState) any
		result   any
	}{
		{"wake held", held, notified, wake, false},
		{"wake held and woken", notified, notified, wake, false},
		{"wake held and cancelled", cancelled, cancelled | notified, wake, false},
		{"wake held, cancelled and woken", cancelled | notified, cancelled | notified, wake, false},
		{"wake idle", idle, held, wake, true},
		{"wake idle and cancelled", idle | cancelled, cancelled, wake, true},
		{"wake done", done, done, wake, false},
		{"wake done and woken", done | notified, done | notified, wake, false},
		{"wake done and cancelled", done | cancelled, done | cancelled, wake, false},

		{"cancel held", held, cancelled | notified, cancel, false},
		{"cancel held and woken", notified, cancelled | notified, cancel, false},
		{"cancel held and cancelled", cancelled, cancelled | notified, cancel, false},
		{"cancel idle", idle, cancelled, cancel, true},
		{"cancel idle and cancelled", idle | cancelled, cancelled, cancel, true},
		{"cancel done", done, done, cancel, false},
		{"cancel done and cancelled", done | cancelled, done | cancelled, cancel, false},

		{"begin held", held, held, begin, nil},
		{"begin woken", notified, held, begin, nil},
		{"begin cancelled", cancelled, cancelled, begin, nil},
		{"begin cancelled and woken", cancelled | notified, cancelled, begin, nil},

		{"suspend held", held, idle, suspend, true},
		{"suspend woken", notified, notified, suspend, false},
		{"suspend cancelled", cancelled, cancelled | idle, suspend, true},
		{"suspend cancelled and woken", cancelled | notified, cancelled | notified, suspend, false},

		{"finish held", held, done, finish, nil},
		{"finish woken", notified, done | notified, finish, nil},
		{"finish cancelled", cancelled, done | cancelled, finish, nil},
		{"finish cancelled and woken", cancelled | notified, done | cancelled | notified, finish, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s taskState
			s.bits.Store(c.from)
			require.Equal(t, c.result, c.op(&s))
			require.Equal(t, c.to, s.bits.Load())
			require.Equal(t, c.to&done != 0, s.done())
			require.Equal(t, c.to&cancelled != 0, s.cancelled())
		})
	}
}

// stateModel is a naive model of the promises of taskState.
type stateModel struct{ held, unanswered, cancelled, done bool }

func (m *stateModel) claim() (held bool) {
	switch {
	case m.done:
		return false
	case m.held:
		m.unanswered = true
		return false
	}
	m.held = true
	return true
}

// All orders of up to seven transitions agree with the model. Seven are enough to reach every state
// in every way. The promises are:
//
//  1. A task has one holder: of several wakes of an idle task exactly one makes its caller the
//     holder.
//  2. A wake of a task that has a holder is answered: the task cannot become idle before another
//     poll has begun.
//  3. Cancelled and done are never cleared.
//  4. A task that is done never has a holder again.
func TestTaskStateAgainstModel(t *testing.T) {
	const depth = 7
	sequences := 0
	var explore func(s uint32, m stateModel, path string)
	explore = func(bits uint32, m stateModel, path string) {
		if len(path) == depth {
			sequences++
			return
		}
		for _, op := range "wcbsf" {
			var s taskState
			s.bits.Store(bits)
			m := m
			path := path + string(op)
			holders := op == 'b' || op == 's' || op == 'f'
			if holders && (!m.held || m.done) {
				continue // only the holder may do this
			}
			var got, want bool
			switch op {
			case 'w':
				got, want = s.wake(), m.claim()
			case 'c':
				got, want = s.cancel(0), m.claim()
				m.cancelled = m.cancelled || !m.done
			case 'b':
				s.begin()
				m.unanswered = false
			case 's':
				got, want = s.suspend(), !m.unanswered
				m.held = m.unanswered
			case 'f':
				s.finish(0)
				m.done = true
			}
			after := s.bits.Load()
			if got != want || s.done() != m.done || s.cancelled() != m.cancelled ||
				!m.done && (after&taskIdle == 0) != m.held ||
				!m.done && (after&taskNotified != 0) != m.unanswered {
				t.Fatalf("after %s: got %v, want %v; bits %04b, model %+v", path, got, want, after, m)
			}
			if after&taskIdle != 0 && after&taskNotified != 0 {
				t.Fatalf("after %s: idle and notified", path)
			}
			explore(after, m, path)
		}
	}
	explore(0, stateModel{held: true}, "")
	require.Greater(t, sequences, 1000)
}

// If many callers wake or cancel an idle task at the same time, exactly one of them becomes its
// holder.
func TestTaskStateOneHolder(t *testing.T) {
	for range 200 {
		var s taskState
		require.True(t, s.suspend())
		var held atomic.Int32
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				if i == 0 && s.cancel(0) || i != 0 && s.wake() {
					held.Add(1)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 1, held.Load())
		require.True(t, s.cancelled())
	}
}

func TestTaskResults(t *testing.T) {
	failed := errors.New("failed")
	rt := newTestRuntime(t, Config{Workers: 2})

	t.Run("Spawn", func(t *testing.T) {
		v, err := join(t, Spawn(rt, func(*Context) (string, error) { return "v", failed }))
		require.Equal(t, "v", v)
		require.Equal(t, failed, err)
	})
	t.Run("Go", func(t *testing.T) {
		_, err := join(t, Go(rt, func(*Context) error { return failed }))
		require.Equal(t, failed, err)
		_, err = join(t, Go(rt, func(*Context) error { return nil }))
		require.NoError(t, err)
	})
	t.Run("SpawnFuture", func(t *testing.T) {
		v, err := join(t, SpawnFuture(rt, ReadyFuture(7)))
		require.NoError(t, err)
		require.Equal(t, 7, v)
		p := new(probe)
		h := SpawnFuture(rt, p)
		eventually(t, func() bool { return waiting(h) })
		p.resolve(failed)
		v, err = join(t, h)
		require.Equal(t, 42, v)
		require.Equal(t, failed, err)
		require.EqualValues(t, 2, p.polls.Load())
		require.Zero(t, p.cancels.Load(), "a future that had its result was given up")
	})
	t.Run("BlockOn", func(t *testing.T) {
		v, err := BlockOn(rt, func(cx *Context) (int, error) {
			if err := Yield(cx); err != nil {
				return 0, err
			}
			v, err := Spawn(cx, func(cx *Context) (int, error) { return 8, Yield(cx) }).Join(cx)
			return v, errors.Join(err, failed)
		})
		require.Equal(t, 8, v)
		require.ErrorIs(t, err, failed)
	})
	t.Run("BlockOn panics", func(t *testing.T) {
		require.PanicsWithValue(t, "mine", func() {
			BlockOn(rt, func(*Context) (None, error) { panic("mine") })
		})
	})
	t.Run("inside a task", func(t *testing.T) {
		v, err := join(t, Spawn(rt, func(cx *Context) (int, error) {
			a, err := Spawn(cx, func(cx *Context) (int, error) { return 1, Yield(cx) }).Join(cx)
			if err != nil {
				return 0, err
			}
			b, err := SpawnFuture(cx, ReadyFuture(2)).Join(cx)
			return a + b, err
		}))
		require.NoError(t, err)
		require.Equal(t, 3, v)
	})
}

// The runtime of Run lives as long as the process, so the test runs in a process of its own.
func TestRunInChild(t *testing.T) {
	if inChild(t) {
		var h *JoinHandle[None] // kept, so that Run finds the failure and not the garbage collector
		err := Run(func(cx *Context) error {
			h = Go(cx, func(*Context) error { return errors.New("not joined") })
			for !h.state.done() {
				if err := Yield(cx); err != nil {
					return err
				}
			}
			return fmt.Errorf("workers: %d", len(cx.here().rt.workers))
		})
		runtime.KeepAlive(h)
		fmt.Println("Run:", err)
		return
	}
	cmd := child(t, "ASYNC_THREADS=3")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	require.Contains(t, string(out), "Run: workers: 3\n")
	require.Contains(t, stderr.String(), "failed and was never joined: not joined\n")
}

// pointerFuture is ready at once and needs no allocation of its own.
type pointerFuture struct{}

func (*pointerFuture) Poll(*Context) (None, error) { return None{}, nil }

func TestPlainSpawnIsOneAllocation(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(plain[None]{}), uintptr(128), "it has grown into the next size class")

	rt := newTestRuntime(t, Config{Workers: 1})
	f := new(pointerFuture)
	const n = 200 // fits into the run queue, which would be made longer otherwise
	measure := func(cx *Context) (mallocs uint64) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range n {
			SpawnFuture[None](cx, f)
		}
		runtime.ReadMemStats(&after)
		return after.Mallocs - before.Mallocs
	}
	least, err := join(t, Spawn(rt, func(cx *Context) (uint64, error) {
		least := ^uint64(0)
		for range 10 { // other goroutines allocate too, but not always
			least = min(least, measure(cx))
			if err := Yield(cx); err != nil {
				return 0, err
			}
		}
		return least, nil
	}))
	require.NoError(t, err)
	require.GreaterOrEqual(t, least, uint64(n))
	require.Less(t, least, uint64(n+n/10), "allocations of %d spawns", n)
}

func TestJoinHandlePoll(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	cx, wakes := newPollCx(t, rt)
	p := new(probe)
	h := SpawnFuture(rt, p)
	_, err := h.Poll(cx)
	require.Equal(t, ErrPending, err)
	_, err = h.Poll(cx)
	require.Equal(t, ErrPending, err, "polled without having been woken")
	require.Zero(t, wakes.Load())
	eventually(t, func() bool { return waiting(h) })
	p.resolve(nil)
	eventually(t, func() bool { return wakes.Load() == 1 })
	for range 3 {
		v, err := h.Poll(cx)
		require.NoError(t, err)
		require.Equal(t, 42, v)
	}
}

func TestJoinHandleWaitGivesUpAndComesBack(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	p := new(probe)
	h := SpawnFuture(rt, p)

	ctx, cancel := context.WithTimeout(context.Background(), time.Microsecond)
	defer cancel()
	_, err := h.JoinBlocking(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	ctx, cancel = context.WithCancel(context.Background())
	cancel()
	_, err = h.JoinBlocking(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.Nil(t, h.waiters.p.Load(), "who no longer waits still stands in the slot")
	require.Zero(t, p.cancels.Load())

	p.resolve(nil)
	v, err := join(t, h)
	require.NoError(t, err)
	require.Equal(t, 42, v)
	v, err = h.JoinBlocking(ctx)
	require.NoError(t, err, "the result is there, so ctx does not matter")
	require.Equal(t, 42, v)
}

func TestJoinHandleDone(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	p := new(probe)
	h := SpawnFuture(rt, p)
	before := []<-chan struct{}{h.Done(), h.Done(), h.Done()}
	for _, c := range before {
		select {
		case <-c:
			t.Fatal("closed before the end")
		default:
		}
	}
	p.resolve(nil)
	for _, c := range before {
		receive(t, c)
	}
	for range 3 {
		receive(t, h.Done())
	}
}

func TestJoinHandleManyWaiters(t *testing.T) {
	const each = 10
	failed := errors.New("failed")
	rt := newTestRuntime(t, Config{Workers: 2})
	p := new(probe)
	h := SpawnFuture(rt, p)

	var all sync.WaitGroup
	var dones []<-chan struct{}
	var tasks []*JoinHandle[int]
	results := make(chan error, 3*each)
	for range each {
		all.Go(func() {
			_, err := h.JoinBlocking(context.Background())
			results <- err
		})
		all.Go(func() {
			_, err := BlockOn(rt, func(cx *Context) (int, error) { return h.Join(cx) })
			results <- err
		})
		dones = append(dones, h.Done())
		tasks = append(tasks, Spawn(rt, func(cx *Context) (int, error) { return h.Join(cx) }))
	}
	cx, wakes := newPollCx(t, rt)
	_, err := h.Poll(cx)
	require.Equal(t, ErrPending, err)
	eventually(t, func() bool { return waiters(h) == 3*each+2 }) // all channels are one and the same

	p.resolve(failed)
	all.Wait()
	for range 2 * each {
		require.Equal(t, failed, <-results)
	}
	for i := range each {
		receive(t, dones[i])
		v, err := join(t, tasks[i])
		require.Equal(t, failed, err)
		require.Equal(t, 42, v)
	}
	eventually(t, func() bool { return wakes.Load() == 1 })
}

func TestJoinHandleAwaitAbandoned(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	abandon := func(t *testing.T, await func(cx *Context, h *JoinHandle[int]) (int, error)) (*probe, *JoinHandle[int]) {
		p := new(probe)
		h := SpawnFuture(rt, p)
		waiter := Spawn(rt, func(cx *Context) (int, error) { return await(cx, h) })
		eventually(t, func() bool { return waiters(h) == 1 })
		waiter.Cancel()
		_, err := join(t, waiter)
		require.ErrorIs(t, err, context.Canceled)
		return p, h
	}
	t.Run("the method leaves the task running", func(t *testing.T) {
		p, h := abandon(t, func(cx *Context, h *JoinHandle[int]) (int, error) { return h.Join(cx) })
		require.Zero(t, waiters(h))
		require.Zero(t, p.cancels.Load())
		p.resolve(nil)
		v, err := join(t, h)
		require.NoError(t, err)
		require.Equal(t, 42, v)
	})
	t.Run("the function cancels it", func(t *testing.T) {
		p, h := abandon(t, func(cx *Context, h *JoinHandle[int]) (int, error) { return Await(cx, h) })
		_, err := join(t, h)
		require.Equal(t, context.Canceled, err)
		require.EqualValues(t, 1, p.cancels.Load())
	})
}

func TestTaskIDsAreUnique(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 3})
	var mu sync.Mutex
	seen := map[uint64]int{}
	note := func(id uint64) {
		mu.Lock()
		defer mu.Unlock()
		seen[id]++
	}
	const outer, inner = 30, 20
	var hs []*JoinHandle[None]
	for i := range outer {
		h := Go(aimAt(rt, i%3), func(cx *Context) error {
			for range inner {
				h := SpawnFuture(cx, ReadyFuture(0))
				note(h.Task().ID)
			}
			return nil
		})
		note(h.Task().ID)
		hs = append(hs, h)
	}
	for _, h := range hs {
		_, err := join(t, h)
		require.NoError(t, err)
	}
	require.Len(t, seen, outer*(inner+1))
	require.NotContains(t, seen, uint64(0))
}

func TestTaskCancelBeforeStart(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	began, release := make(chan struct{}), make(chan struct{})
	blocker := Go(rt, func(*Context) error { close(began); <-release; return nil })
	receive(t, began)

	deferred := make(chan struct{}, 1)
	p := new(probe)
	h := Spawn(rt, func(cx *Context) (string, error) {
		defer func() { deferred <- struct{}{} }()
		if _, err := Await(cx, ReadyFuture(1)); err != context.Canceled {
			return "", fmt.Errorf("a ready future: %v", err)
		}
		if _, err := Await(cx, p); err != context.Canceled {
			return "", fmt.Errorf("a pending future: %v", err)
		}
		return "ran", cx.Err()
	})
	q := new(probe)
	f := SpawnFuture(rt, q)
	h.Cancel()
	f.Cancel()
	close(release)

	v, err := join(t, h)
	require.Equal(t, "ran", v)
	require.Equal(t, context.Canceled, err)
	receive(t, deferred)
	require.Zero(t, p.polls.Load())
	require.EqualValues(t, 1, p.cancels.Load())

	_, err = join(t, f)
	require.Equal(t, context.Canceled, err)
	require.Zero(t, q.polls.Load())
	require.EqualValues(t, 1, q.cancels.Load())
	_, err = join(t, blocker)
	require.NoError(t, err)
}

func TestTaskCancelDuringAndAfter(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	p, q := new(probe), new(probe)
	h := Spawn(rt, func(cx *Context) (int, error) {
		_, err := Await(cx, p)
		if err2 := Sleep(cx, time.Hour); err2 != err {
			return 0, fmt.Errorf("the next await: %v", err2)
		}
		return 5, err
	})
	f := SpawnFuture(rt, q)
	eventually(t, func() bool { return waiting(h) && waiting(f) })

	var all sync.WaitGroup
	for range 50 {
		all.Go(h.Cancel)
		all.Go(f.Cancel)
	}
	all.Wait()
	v, err := join(t, h)
	require.Equal(t, 5, v)
	require.Equal(t, context.Canceled, err)
	require.EqualValues(t, 1, p.cancels.Load())
	_, err = join(t, f)
	require.Equal(t, context.Canceled, err)

	h.Cancel()
	f.Cancel()
	q.resolve(nil)
	_, err = join(t, f)
	require.Equal(t, context.Canceled, err)
	require.EqualValues(t, 1, q.polls.Load(), "polled after it was given up")
	require.EqualValues(t, 1, q.cancels.Load())

	ended := SpawnFuture(rt, ReadyFuture(1))
	_, err = join(t, ended)
	require.NoError(t, err)
	ended.Cancel()
	_, err = join(t, ended)
	require.NoError(t, err, "Cancel changed a task that had ended")
}

// A cancellation that arrives while the future is polled is seen before the next poll.
func TestTaskCancelWhilePolled(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	inPoll, release := make(chan struct{}), make(chan struct{})
	polls, cancels := 0, 0
	h := SpawnFuture(rt, &cancelFunc{
		poll: func(cx *Context) (None, error) {
			polls++
			cx.Waker()
			close(inPoll)
			<-release
			return None{}, ErrPending
		},
		cancel: func() { cancels++ },
	})
	receive(t, inPoll)
	h.Cancel()
	close(release)
	_, err := join(t, h)
	require.Equal(t, context.Canceled, err)
	require.Equal(t, 1, polls)
	require.Equal(t, 1, cancels)
}

type cancelFunc struct {
	poll   func(cx *Context) (None, error)
	cancel func()
}

func (f *cancelFunc) Poll(cx *Context) (None, error) { return f.poll(cx) }
func (f *cancelFunc) Cancel()                        { f.cancel() }

//go:noinline
func panicsHere(v any) { panic(v) }

func TestTaskPanics(t *testing.T) {
	cause := errors.New("cause")
	rt := newTestRuntime(t, Config{Workers: 1})
	checkPanic := func(t *testing.T, err error, value any) {
		t.Helper()
		var p *PanicError
		require.ErrorAs(t, err, &p)
		require.Equal(t, value, p.Value)
		require.Contains(t, string(p.Stack), "panicsHere")
		require.Contains(t, p.Error(), fmt.Sprint(value))
		_, isErr := value.(error)
		require.Equal(t, isErr, errors.Is(err, cause))
	}
	for _, value := range []any{"text", cause, 17} {
		t.Run(fmt.Sprintf("%T", value), func(t *testing.T) {
			_, err := join(t, Go(rt, func(*Context) error { panicsHere(value); return nil }))
			checkPanic(t, err, value)

			_, err = join(t, Go(rt, func(cx *Context) error {
				Yield(cx)
				panicsHere(value)
				return nil
			}))
			checkPanic(t, err, value)

			_, err = join(t, SpawnFuture(rt, PollFunc(func(*Context) (None, error) { panicsHere(value); return None{}, nil })))
			checkPanic(t, err, value)

			f := SpawnFuture(rt, &cancelFunc{
				poll:   func(cx *Context) (None, error) { cx.Waker(); return None{}, ErrPending },
				cancel: func() { panicsHere(value) },
			})
			eventually(t, func() bool { return waiting(f) })
			f.Cancel()
			_, err = join(t, f)
			checkPanic(t, err, value)
			require.ErrorIs(t, err, context.Canceled)
		})
	}
	_, err := join(t, Go(rt, func(*Context) error { panic(nil) }))
	require.ErrorAs(t, err, new(*runtime.PanicNilError))

	_, err = join(t, SpawnFuture(rt, &cancelFunc{
		poll:   func(*Context) (None, error) { panicsHere("first"); return None{}, nil },
		cancel: func() { panicsHere("second") },
	}))
	require.ErrorContains(t, err, "first")
	require.ErrorContains(t, err, "second")

	v, err := join(t, SpawnFuture(rt, ReadyFuture(1)))
	require.NoError(t, err, "the worker did not survive")
	require.Equal(t, 1, v)
}

func TestTaskGoexit(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	neighbour := Spawn(rt, func(cx *Context) (int, error) {
		n := 0
		for ; cx.Err() == nil; n++ {
			Yield(cx)
		}
		return n, nil
	})
	const times = 2000
	deferred := 0
	var last error
	for range times {
		_, err := join(t, Go(rt, func(cx *Context) error {
			defer func() { deferred++ }()
			if deferred%2 == 0 {
				Yield(cx)
			}
			runtime.Goexit()
			return nil
		}))
		if last = err; err != ErrGoexit {
			break
		}
	}
	require.Equal(t, ErrGoexit, last)
	require.Equal(t, times, deferred)

	for range times {
		_, err := join(t, SpawnFuture(rt, PollFunc(func(*Context) (None, error) { runtime.Goexit(); return None{}, nil })))
		if last = err; err != ErrGoexit {
			break
		}
	}
	require.Equal(t, ErrGoexit, last)

	// As after a FailNow of package testing: a caller that joins sees the state that was set before
	// Goexit.
	failed := false
	_, err := join(t, Go(rt, func(*Context) error {
		func() { failed = true; runtime.Goexit() }()
		return nil
	}))
	require.Equal(t, ErrGoexit, err)
	require.True(t, failed)

	f := SpawnFuture(rt, &cancelFunc{
		poll:   func(cx *Context) (None, error) { cx.Waker(); return None{}, ErrPending },
		cancel: runtime.Goexit,
	})
	eventually(t, func() bool { return waiting(f) })
	f.Cancel()
	_, err = join(t, f)
	require.Equal(t, context.Canceled, err)

	neighbour.Cancel()
	n, err := join(t, neighbour)
	require.NoError(t, err)
	require.Positive(t, n)
}

// A Goexit cannot be stopped. The worker's later turns do not run on top of its frames, which would
// stay until the worker ends. There is one exception: the first Goexit in a plain future of a
// worker.
func TestTaskGoexitLeavesNoFrames(t *testing.T) {
	const times, most = 100, 1000
	rt := newTestRuntime(t, Config{Workers: 1})
	perGoexit := func(t *testing.T, spawn func(f func()) error) {
		var frames [2]int
		for i := range frames {
			for range times {
				require.Equal(t, ErrGoexit, spawn(runtime.Goexit))
			}
			require.NoError(t, spawn(func() { frames[i] = runtime.Callers(0, make([]uintptr, most)) }))
			require.Less(t, frames[i], most)
		}
		require.Equal(t, frames[0], frames[1])
	}
	t.Run("straight", func(t *testing.T) {
		perGoexit(t, func(f func()) error {
			_, err := join(t, Go(rt, func(*Context) error { f(); return nil }))
			return err
		})
	})
	t.Run("plain", func(t *testing.T) {
		perGoexit(t, func(f func()) error {
			_, err := join(t, SpawnFuture(rt, PollFunc(func(*Context) (None, error) { f(); return None{}, nil })))
			return err
		})
	})
}

func TestWakerAfterTheEnd(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	for _, straight := range []bool{false, true} {
		p := new(probe)
		var h *JoinHandle[int]
		if straight {
			h = Spawn(rt, func(cx *Context) (int, error) { return Await(cx, p) })
		} else {
			h = SpawnFuture(rt, p)
		}
		eventually(t, func() bool { return waiting(h) })
		p.resolve(nil)
		v, err := join(t, h)
		require.NoError(t, err)
		p.waker.Wake()
		p.waker.Wake()
		var all sync.WaitGroup
		for range 50 {
			all.Go(p.waker.Wake)
		}
		all.Wait()

		// Once two more tasks have run on each worker, the workers have gone through
		// all tasks that could have been queued.
		for i := range 4 {
			_, err := join(t, Go(aimAt(rt, i%2), Yield))
			require.NoError(t, err)
		}
		again, err := join(t, h)
		require.NoError(t, err)
		require.Equal(t, v, again)
		require.EqualValues(t, 2, p.polls.Load())
	}
	var zero Waker
	zero.Wake()
}

func TestWakersCompare(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, _ := newPollCx(t, rt)
	b, _ := newPollCx(t, rt)
	require.True(t, a.Waker() == a.Waker())
	require.False(t, a.Waker() == b.Waker())
}

// handshake is one side of an exchange in which every wake counts. Only the wakes and acks
// synchronise turn, so the race detector finds a poll that is not ordered after the wake that has
// caused it.
type handshake struct {
	turns  int
	turn   int // written before a wake, read by the poll after it
	polls  int
	wakers chan Waker
	acks   chan int
}

func newHandshake(turns int) *handshake {
	return &handshake{turns: turns, wakers: make(chan Waker, 1), acks: make(chan int, 1)}
}

func (h *handshake) Poll(cx *Context) (int, error) {
	h.polls++
	if h.polls == 1 {
		h.wakers <- cx.Waker()
		return 0, ErrPending
	}
	turn := h.turn
	h.acks <- turn
	if turn == h.turns {
		return h.polls, nil
	}
	return 0, ErrPending
}

// Between a goroutine that wakes and a task that is woken:
//
//  1. No wake is lost: each is followed by a poll, also a wake that arrives while the poll before
//     is still running.
//  2. That poll sees the data that was written before the wake.
//  3. A wake causes one poll, and no more.
func TestWakesAreNeverLost(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	const turns = 3000
	spawn := map[string]func(f *handshake) *JoinHandle[int]{
		"plain": func(f *handshake) *JoinHandle[int] { return SpawnFuture(rt, f) },
		"straight": func(f *handshake) *JoinHandle[int] {
			return Spawn(rt, func(cx *Context) (int, error) { return Await(cx, f) })
		},
	}
	for name, spawn := range spawn {
		t.Run(name, func(t *testing.T) {
			f := newHandshake(turns)
			h := spawn(f)
			waker := receive(t, f.wakers)
			for i := 1; i <= turns; i++ {
				f.turn = i
				waker.Wake()
				if got := receive(t, f.acks); got != i {
					t.Fatalf("the poll after wake %d saw %d", i, got)
				}
			}
			polls, err := join(t, h)
			require.NoError(t, err)
			require.Equal(t, turns+1, polls)
		})
	}
	t.Run("goroutine", func(t *testing.T) {
		f := newHandshake(turns)
		result := make(chan int, 1)
		go func() {
			polls, _ := BlockOn(rt, func(cx *Context) (int, error) { return Await(cx, f) })
			result <- polls
		}()
		waker := receive(t, f.wakers)
		for i := 1; i <= turns; i++ {
			f.turn = i
			waker.Wake()
			require.Equal(t, i, receive(t, f.acks))
		}
		require.Equal(t, turns+1, receive(t, result))
	})
	t.Run("many wakers", func(t *testing.T) {
		const goroutines, each = 50, 100
		var posted atomic.Int64
		wakers := make(chan Waker, 1)
		first := true
		h := SpawnFuture(rt, PollFunc(func(cx *Context) (int64, error) {
			if first {
				first = false
				wakers <- cx.Waker()
			}
			if n := posted.Load(); n == goroutines*each {
				return n, nil
			}
			return 0, ErrPending
		}))
		waker := receive(t, wakers)
		for range goroutines {
			go func() {
				for range each {
					posted.Add(1)
					waker.Wake()
				}
			}()
		}
		n, err := join(t, h)
		require.NoError(t, err)
		require.EqualValues(t, goroutines*each, n)
	})
	t.Run("between tasks", func(t *testing.T) {
		f, g := newHandshake(turns), newHandshake(turns)
		a := SpawnFuture(aimAt(rt, 0), f)
		b := Spawn(aimAt(rt, 1), func(cx *Context) (int, error) { return Await(cx, g) })
		wakeA, wakeB := receive(t, f.wakers), receive(t, g.wakers)
		for i := 1; i <= turns; i++ {
			f.turn, g.turn = i, i
			SpawnFuture(rt, PollFunc(func(*Context) (None, error) { wakeA.Wake(); wakeB.Wake(); return None{}, nil }))
			require.Equal(t, i, receive(t, f.acks))
			require.Equal(t, i, receive(t, g.acks))
		}
		for _, h := range []*JoinHandle[int]{a, b} {
			polls, err := join(t, h)
			require.NoError(t, err)
			require.Equal(t, turns+1, polls)
		}
	})
}

// ownerError is an error that refers to the handle of its task.
type ownerError struct {
	error
	h *JoinHandle[None]
}

// Crash ends the program, also if the goroutine that calls it has deferred calls that recover.
func TestCrashEndsTheProgram(t *testing.T) {
	if inChild(t) {
		rt, err := New(Config{Workers: 1, Unhandled: Crash})
		require.NoError(t, err)
		h := Go(rt.Named("culprit"), func(*Context) error { panicsHere("boom"); return nil })
		eventually(t, h.state.done)
		func() {
			defer func() { recover() }()
			rt.Shutdown(ended())
		}()
		runtime.KeepAlive(h)
		fmt.Println("survived")
		return
	}
	out, err := child(t).CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, string(out))
	require.Equal(t, 2, exit.ExitCode(), string(out))
	require.Contains(t, string(out), "panic: async: task 2 (culprit) failed and was never joined: ")
	require.Contains(t, string(out), "panicsHere")
	require.NotContains(t, string(out), "survived")
}

// spawnAndForget returns only the number of the task, so that its handle can become garbage.
//
//go:noinline
func spawnAndForget(rt *Runtime, fn func(cx *Context) error) uint64 { return Go(rt, fn).Task().ID }

func TestUnjoinedFailures(t *testing.T) {
	failed := errors.New("failed")
	collected := func(t *testing.T, r *reports, id uint64) error {
		t.Helper()
		eventually(t, func() bool { runtime.GC(); return len(r.of(id)) > 0 })
		errs := r.of(id)
		require.Len(t, errs, 1)
		return errs[0]
	}
	t.Run("garbage", func(t *testing.T) {
		r := new(reports)
		rt := newTestRuntime(t, Config{Workers: 1, Unhandled: r.add})
		require.Equal(t, failed, collected(t, r, spawnAndForget(rt, func(*Context) error { return failed })))
		var p *PanicError
		require.ErrorAs(t, collected(t, r, spawnAndForget(rt, func(*Context) error { panicsHere("x"); return nil })), &p)
		require.Contains(t, string(p.Stack), "panicsHere")
		require.Equal(t, ErrGoexit, collected(t, r, spawnAndForget(rt, func(*Context) error { runtime.Goexit(); return nil })))
		require.NoError(t, rt.Shutdown(ended()))
		require.Equal(t, 3, r.count(), "reported again at Shutdown")
	})
	t.Run("at Shutdown", func(t *testing.T) {
		r := new(reports)
		rt := newTestRuntime(t, Config{Workers: 1, Unhandled: r.add})
		h := Go(rt, func(*Context) error { return failed })
		eventually(t, h.state.done)
		require.Zero(t, r.count())
		require.NoError(t, rt.Shutdown(ended()))
		require.Equal(t, []error{failed}, r.of(h.Task().ID))
		runtime.KeepAlive(h)
	})
	t.Run("at Shutdown if the error refers to the handle", func(t *testing.T) {
		r := new(reports)
		rt := newTestRuntime(t, Config{Workers: 1, Unhandled: r.add})
		func() {
			var h *JoinHandle[None]
			begin := make(chan None)
			h = Go(rt, func(*Context) error { <-begin; return &ownerError{failed, h} })
			close(begin)
			eventually(t, h.state.done)
		}()
		id := spawnAndForget(rt, func(*Context) error { return failed })
		require.Equal(t, failed, collected(t, r, id))
		require.Equal(t, 1, r.count())
		require.NoError(t, rt.Shutdown(ended()))
		require.Equal(t, 2, r.count())
	})
	t.Run("never if joined", func(t *testing.T) {
		r := new(reports)
		rt := newTestRuntime(t, Config{Workers: 1, Unhandled: r.add})
		fail := func(*Context) error { return failed }

		h := Go(rt, fail)
		eventually(t, h.state.done)
		_, err := join(t, h)
		require.Equal(t, failed, err)

		cx, _ := newPollCx(t, rt)
		h = Go(rt, fail)
		eventually(t, h.state.done)
		_, err = h.Poll(cx)
		require.Equal(t, failed, err)

		_, err = join(t, Go(rt, func(cx *Context) error {
			_, err := Go(cx, fail).Join(cx)
			return err
		}))
		require.Equal(t, failed, err)

		h = nil
		runtime.GC()
		require.NoError(t, rt.Shutdown(ended()))
		require.Zero(t, r.count())
	})
	t.Run("never if joined at this moment", func(t *testing.T) {
		r := new(reports)
		rt := newTestRuntime(t, Config{Workers: 1, Unhandled: r.add})
		collected := new(atomic.Bool)
		result := make(chan error, 1)
		rt.failures.mu.Lock() // so that the caller that joins stops at this lock
		release := sync.OnceFunc(rt.failures.mu.Unlock)
		defer release()
		func() {
			h := &JoinHandle[None]{err: &taskFailure{err: failed, in: &rt.failures}}
			h.state.finish(0)
			runtime.AddCleanup(&h.task, func(c *atomic.Bool) { c.Store(true) }, collected)
			go func() {
				_, err := h.JoinBlocking(context.Background())
				result <- err
			}()
		}()
		eventually(t, func() bool { return strings.Contains(takeProfile(), "(*taskFailures).take+") })
		for range 3 {
			runtime.GC()
			gone := make(chan None)
			runtime.AddCleanup(new([64]byte), func(c chan None) { close(c) }, gone)
			runtime.GC()
			receive(t, gone)
		}
		require.False(t, collected.Load(), "it is garbage already, and could be reported")
		release()
		require.Equal(t, failed, receive(t, result))
	})
	t.Run("never if cancelled", func(t *testing.T) {
		r := new(reports)
		rt := newTestRuntime(t, Config{Workers: 1, Unhandled: r.add})
		h := Go(rt, func(cx *Context) error { return fmt.Errorf("sleep: %w", Sleep(cx, time.Hour)) })
		f := SpawnFuture(rt, NeverFuture[int]())
		eventually(t, func() bool { return waiting(h) && waiting(f) })
		h.Cancel()
		f.Cancel()
		g := Go(rt, func(cx *Context) error { return Sleep(cx, time.Hour) }) // cancelled by Shutdown
		eventually(t, func() bool { return waiting(g) })
		require.NoError(t, rt.Shutdown(ended()))
		require.Zero(t, r.count())
	})
	t.Run("always if not cancelled", func(t *testing.T) {
		r := new(reports)
		rt := newTestRuntime(t, Config{Workers: 1, Unhandled: r.add})
		h := Go(rt, func(*Context) error { return context.Canceled })
		eventually(t, h.state.done)
		require.NoError(t, rt.Shutdown(ended()))
		require.Len(t, r.of(h.Task().ID), 1, "the task was not cancelled")
	})
	t.Run("a panic is a failure also if cancelled", func(t *testing.T) {
		r := new(reports)
		rt := newTestRuntime(t, Config{Workers: 1, Unhandled: r.add})
		f := SpawnFuture(rt, &cancelFunc{
			poll:   func(cx *Context) (None, error) { cx.Waker(); return None{}, ErrPending },
			cancel: func() { panicsHere("in Cancel") },
		})
		h := Go(rt, func(cx *Context) error { panicsHere(Sleep(cx, time.Hour)); return nil })
		eventually(t, func() bool { return waiting(f) && waiting(h) })
		f.Cancel()
		h.Cancel()
		eventually(t, func() bool { return f.state.done() && h.state.done() })
		require.NoError(t, rt.Shutdown(ended()))
		require.Len(t, r.of(f.Task().ID), 1, "a panic in Cancel was swallowed")
		require.Len(t, r.of(h.Task().ID), 1, "a panic with context.Canceled was swallowed")
	})
	t.Run("those who gave up waiting have not joined", func(t *testing.T) {
		r := new(reports)
		rt := newTestRuntime(t, Config{Workers: 1, Unhandled: r.add})
		p := new(probe)
		h := SpawnFuture(rt, p)
		ctx, cancel := context.WithCancel(context.Background())
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() { h.JoinBlocking(ctx) })
		}
		eventually(t, func() bool { return waiters(h) == 2 && waiting(h) })
		cancel()
		all.Wait()
		p.resolve(failed)
		eventually(t, h.state.done)
		require.NoError(t, rt.Shutdown(ended()))
		require.Len(t, r.of(h.Task().ID), 1, "the failure is lost")
	})
	t.Run("Done is not a join", func(t *testing.T) {
		r := new(reports)
		rt := newTestRuntime(t, Config{Workers: 1, Unhandled: r.add})
		p := new(probe)
		h := SpawnFuture(rt, p)
		done := h.Done()
		p.resolve(failed)
		receive(t, done)
		require.NoError(t, rt.Shutdown(ended()))
		require.Len(t, r.of(h.Task().ID), 1, "the failure is lost: no caller was given the error")
	})
}

func TestDefaultReportOfUnjoinedFailures(t *testing.T) {
	if inChild(t) {
		rt, err := New(Config{Workers: 1})
		if err != nil {
			panic(err)
		}
		a := Go(rt, func(*Context) error { panicsHere("lost panic"); return nil })
		b := Go(rt, func(*Context) error { return errors.New("lost error") })
		eventually(t, func() bool { return a.state.done() && b.state.done() })
		if err := rt.Shutdown(ended()); err != nil {
			panic(err)
		}
		fmt.Println("tasks", a.Task().ID, b.Task().ID, ".")
		return
	}
	cmd := child(t)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var a, b uint64
	_, err = fmt.Sscanf(string(out[strings.Index(string(out), "tasks"):]), "tasks %d %d", &a, &b)
	require.NoError(t, err)

	text := stderr.String()
	line := fmt.Sprintf("async: task %[1]d failed and was never joined: async: task %[1]d panicked at %[2]s.panicsHere (task_test.go:", a, packagePath)
	require.Equal(t, 1, strings.Count(text, line), text)
	_, stack, _ := strings.Cut(text, line)
	_, stack, _ = strings.Cut(stack, "): lost panic\n")
	require.True(t, strings.HasPrefix(stack, "goroutine "), text)
	require.Contains(t, stack, "panicsHere")
	require.Equal(t, 1, strings.Count(text, fmt.Sprintf("async: task %d failed and was never joined: lost error\n", b)), text)
}

// While one worker is stuck in a poll, a task that may move does not wait for it.
func TestTasksMoveFromAStuckWorker(t *testing.T) {
	const tasks = 20
	// stuck keeps worker 0 in a poll that first calls work.
	stuck := func(t *testing.T, rt *Runtime, work func(cx *Context)) {
		began, release := make(chan int), make(chan struct{})
		var h *JoinHandle[None]
		for index := -1; index != 0; { // another worker may take over a task that has not begun
			h = SpawnFuture(aimAt(rt, 0), PollFunc(func(cx *Context) (None, error) {
				index := cx.here().index
				if index == 0 {
					work(cx)
				}
				began <- index
				if index == 0 {
					<-release
				}
				return None{}, nil
			}))
			index = receive(t, began)
		}
		t.Cleanup(func() {
			close(release)
			join(t, h)
		})
	}
	// spawn starts tasks of both kinds that may move.
	spawn := func(s Spawner) (hs []*JoinHandle[int]) {
		for range tasks / 2 {
			hs = append(hs, SpawnFuture(s, PollFunc(func(cx *Context) (int, error) { return cx.here().index, nil })))
			hs = append(hs, Spawn(s, func(cx *Context) (int, error) { return cx.here().index, nil }))
		}
		return hs
	}
	ranElsewhere := func(t *testing.T, hs []*JoinHandle[int]) {
		t.Helper()
		eventually(t, func() bool {
			for _, h := range hs {
				if !h.state.done() {
					return false
				}
			}
			return true
		})
		for _, h := range hs {
			index, err := join(t, h)
			require.NoError(t, err)
			require.Equal(t, 1, index)
		}
	}
	t.Run("to one that serves a socket", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 2})
		server := Go(aimAt(rt, 1), func(cx *Context) error {
			ln, err := Listen(cx, "tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			defer ln.Close()
			_, err = ln.Accept(cx)
			return err
		})
		eventually(t, func() bool { return waiting(server) })
		defer server.Cancel()
		var hs []*JoinHandle[int]
		stuck(t, rt, func(cx *Context) { hs = spawn(cx) })
		ranElsewhere(t, hs)
	})
	t.Run("to one that has nothing", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 2})
		eventually(t, func() bool { return rt.workers[1].asleep.Load() })
		var hs []*JoinHandle[int]
		stuck(t, rt, func(cx *Context) { hs = spawn(cx) })
		ranElsewhere(t, hs)
	})
	t.Run("without processors of its own", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 2, SharedProcs: true})
		eventually(t, func() bool { return rt.workers[1].asleep.Load() })
		var hs []*JoinHandle[int]
		stuck(t, rt, func(cx *Context) { hs = spawn(cx) })
		ranElsewhere(t, hs)
	})
	t.Run("what comes from outside", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 2})
		stuck(t, rt, func(*Context) {})
		ranElsewhere(t, spawn(rt))
	})
	t.Run("what was woken last", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 2})
		polls := 0
		wakers := make(chan Waker, 1)
		h := SpawnFuture(aimAt(rt, 0), PollFunc(func(cx *Context) (int, error) {
			if polls++; polls == 1 {
				wakers <- cx.Waker()
				return 0, ErrPending
			}
			return cx.here().index, nil
		}))
		waker := receive(t, wakers)
		eventually(t, func() bool { return waiting(h) })
		stuck(t, rt, func(*Context) { waker.Wake() })
		ranElsewhere(t, []*JoinHandle[int]{h})
	})
}

// A worker that has just been woken, and has not run yet, is not stuck, however long it was parked.
// Tasks that were sent to it, for example for a connection that was assigned to it, stay there.
func TestWokenWorkerIsNotStuck(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	sleeper, other := rt.workers[0], rt.workers[1]
	for range 50 {
		eventually(t, sleeper.asleep.Load)
		p := &plain[None]{f: ReadyFuture(None{})}
		p.body, p.cx.t = p, &p.task
		p.w = sleeper
		rt.foreign.Add(1)
		on(other, func(w *worker) {
			sleeper.stuckTurn.Store(sleeper.turn.Load()) // as if it had been stuck in this turn since the beginning
			unparked := sleeper.unparks.Load()
			sleeper.send(&p.task)
			if sleeper.unparks.Load() > unparked && w.steal() { // otherwise the worker was awake, or about to look once more
				t.Error("it was taken over")
			}
		})
		_, err := join(t, &p.JoinHandle)
		require.NoError(t, err)
	}
}

func TestStartedTaskStaysOnItsWorker(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 3})
	var hs []*JoinHandle[None]
	for range 12 {
		f := newHandshake(100)
		h := Go(rt, func(cx *Context) error {
			home := cx.here()
			for i := range 100 {
				if err := Yield(cx); err != nil {
					return err
				}
				if now := cx.here(); now != home {
					return fmt.Errorf("moved from %d to %d at yield %d", home.index, now.index, i)
				}
			}
			if _, err := Await(cx, f); err != nil {
				return err
			}
			if err := Sleep(cx, time.Microsecond); err != nil {
				return err
			}
			if now := cx.here(); now != home {
				return fmt.Errorf("moved from %d to %d", home.index, now.index)
			}
			return nil
		})
		go func() {
			waker := <-f.wakers
			for i := range f.turns {
				f.turn = i + 1
				waker.Wake()
				<-f.acks
			}
		}()
		hs = append(hs, h)
	}
	for _, h := range hs {
		_, err := join(t, h)
		require.NoError(t, err)
	}
}

// Two tasks that wake each other without end are always in the run-next slot. A third task still
// gets its turns. All tasks are on one worker, so the counts need no locks.
func TestRunNextIsCapped(t *testing.T) {
	// between returns the most polls of the pair between two polls of the third task.
	third := func(t *testing.T, rt *Runtime, pair *int) (between int) {
		most, err := join(t, SpawnFuture(rt, func() Future[int] {
			polls, last, most := 0, 0, 0
			return PollFunc(func(cx *Context) (int, error) {
				if polls++; polls > 2 {
					most = max(most, *pair-last)
				}
				if last = *pair; polls == 200 {
					return most, nil
				}
				cx.here().yield(cx.t)
				return 0, ErrPending
			})
		}()))
		require.NoError(t, err)
		return most
	}
	t.Run("plain", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 1})
		polls := 0
		var wakers [2]Waker
		var hs [2]*JoinHandle[None]
		for i := range 2 {
			hs[i] = SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) {
				polls++
				wakers[i] = cx.Waker()
				wakers[1-i].Wake()
				return None{}, ErrPending
			}))
		}
		require.LessOrEqual(t, third(t, rt, &polls), 2*nextInARow)
		hs[0].Cancel()
		hs[1].Cancel()
	})
	straightPair := func(rt *Runtime, polls *int) (hs [2]*JoinHandle[None]) {
		var tasks [2]*task
		for i := range 2 {
			hs[i] = Go(rt, func(cx *Context) error {
				_, err := Await(cx, PollFunc(func(cx *Context) (None, error) {
					*polls++
					tasks[i] = cx.waker(waitsFuture)
					if other := tasks[1-i]; other != nil {
						other.wake(cx.here())
					}
					return None{}, ErrPending
				}))
				return err
			})
		}
		return hs
	}
	t.Run("straight", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 1})
		polls := 0
		hs := straightPair(rt, &polls)
		require.LessOrEqual(t, third(t, rt, &polls), 2*nextInARow)
		hs[0].Cancel()
		hs[1].Cancel()
	})
	t.Run("straight, with the third in the other slot", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 1})
		polls := 0
		p := new(probe)
		h := SpawnFuture(rt, p)
		eventually(t, func() bool { return waiting(h) })
		hs := straightPair(rt, &polls)
		eventually(t, func() bool { return waiting(hs[0]) || waiting(hs[1]) })
		defer hs[0].Cancel()
		defer hs[1].Cancel()
		// Woken on the worker, so that it gets the run-next slot of tasks that may move. The pair
		// uses the slot of tasks that may not move.
		SpawnFuture(rt, PollFunc(func(*Context) (None, error) { p.resolve(nil); return None{}, nil }))
		eventually(t, h.state.done)
	})
}

// Tasks that yield without end do not keep timers, the inbox or sockets waiting.
func TestYieldersStarveNoTask(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	var yielders []*JoinHandle[None]
	for range 3 {
		yielders = append(yielders, Go(rt, func(cx *Context) error {
			for {
				if err := Yield(cx); err != nil {
					return err
				}
			}
		}))
		yielders = append(yielders, SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) { return YieldFuture().Poll(cx) })))
	}
	_, err := join(t, Go(rt, func(cx *Context) error { return Sleep(cx, time.Millisecond) }))
	require.NoError(t, err)
	_, err = join(t, SpawnFuture(rt, SleepFuture(time.Millisecond)))
	require.NoError(t, err)
	for range 20 {
		_, err := join(t, SpawnFuture(rt, ReadyFuture(1)))
		require.NoError(t, err)
	}
	_, err = join(t, Go(rt, func(cx *Context) error {
		ln, err := Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		client := Go(cx, func(cx *Context) error {
			c, err := Dial(cx, "tcp", ln.Addr().String())
			if err != nil {
				return err
			}
			defer c.Close()
			buf := make([]byte, 1)
			for range 20 {
				if _, err := c.Write(cx, buf); err != nil {
					return err
				}
				if _, err := c.Read(cx, buf); err != nil {
					return err
				}
			}
			return nil
		})
		c, err := ln.Accept(cx)
		if err != nil {
			return err
		}
		defer c.Close()
		buf := make([]byte, 1)
		for range 20 {
			if _, err := c.Read(cx, buf); err != nil {
				return err
			}
			if _, err := c.Write(cx, buf); err != nil {
				return err
			}
		}
		_, err = client.Join(cx)
		return err
	}))
	require.NoError(t, err)
	for _, h := range yielders {
		h.Cancel()
	}
	for _, h := range yielders {
		_, err := join(t, h)
		require.Equal(t, context.Canceled, err)
	}
}

// A task that does many operations which need not wait yields after operationsPerPoll of them:
// other tasks in the queue get their turn.
func TestBudgetMakesTasksYield(t *testing.T) {
	const rounds = 20
	rt := newTestRuntime(t, Config{Workers: 1})
	ready := PollFunc(func(cx *Context) (None, error) {
		if !cx.spend() {
			return None{}, ErrPending
		}
		return None{}, nil
	})
	spenders := map[string]func(cx *Context, after func()) *JoinHandle[None]{
		"straight": func(cx *Context, after func()) *JoinHandle[None] {
			return Go(cx, func(cx *Context) error {
				defer after()
				for range rounds*operationsPerPoll + 1 {
					if _, err := Await(cx, ready); err != nil {
						return err
					}
				}
				return nil
			})
		},
		"plain": func(cx *Context, after func()) *JoinHandle[None] {
			n := 0
			return SpawnFuture(cx, PollFunc(func(cx *Context) (None, error) {
				for ; n < rounds*operationsPerPoll+1; n++ {
					if _, err := ready.Poll(cx); err != nil {
						return None{}, err
					}
				}
				after()
				return None{}, nil
			}))
		},
	}
	for name, spawn := range spenders {
		t.Run(name, func(t *testing.T) {
			turns, err := join(t, Spawn(rt, func(cx *Context) (int, error) {
				over := false
				h := spawn(cx, func() { over = true })
				turns := 0
				for ; !over; turns++ {
					if err := Yield(cx); err != nil {
						return 0, err
					}
				}
				_, err := h.Join(cx)
				return turns, err
			}))
			require.NoError(t, err)
			require.GreaterOrEqual(t, turns, rounds-1)
			require.LessOrEqual(t, turns, 3*rounds, "it yields much more often than it should")
		})
	}
}

// trimSooner makes worker 0 of rt look at its free coroutines as if trimEvery had passed, and soon
// again. Coroutines that were free all the time between the two looks are not needed. The worker
// wakes by itself for the second look.
func trimSooner(rt *Runtime) {
	for _, passed := range []time.Duration{trimEvery, trimEvery - 20*time.Millisecond} {
		on(rt.workers[0], func(w *worker) { w.trimmedAt -= int64(passed) })
	}
}

// Coroutines that a burst has made end after the burst, even if their worker has no other work.
func TestCoroutinesAfterABurst(t *testing.T) {
	const tasks = 10 * keepFree
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(Task, error) {}})
	before := runtime.NumGoroutine()
	var hs []*JoinHandle[None]
	for i := range tasks {
		hs = append(hs, Go(rt, func(cx *Context) error {
			err := Sleep(cx, time.Hour)
			if i%100 == 0 {
				runtime.Goexit()
			}
			return err
		}))
	}
	for _, h := range hs {
		eventually(t, func() bool { return waiting(h) })
	}
	require.GreaterOrEqual(t, runtime.NumGoroutine(), tasks) // some goroutines of before may have ended
	for _, h := range hs {
		h.Cancel()
	}
	for _, h := range hs {
		join(t, h)
	}
	trimSooner(rt)
	counts(t, rt, func(m Metrics) bool { return m.Coroutines == keepFree && m.CoroutinesFree == keepFree })
	eventually(t, func() bool { return runtime.NumGoroutine() <= before+keepFree })
	_, err := join(t, Go(rt, func(cx *Context) error { return Yield(cx) }))
	require.NoError(t, err)
}

// Coroutines that are needed again and again are kept.
func TestCoroutinesThatAreNeeded(t *testing.T) {
	const tasks = 3 * keepFree
	rt := newTestRuntime(t, Config{Workers: 1})
	on(rt.workers[0], func(w *worker) {
		now := nanos()
		trim := func() (free uint64) {
			for now += int64(trimEvery); w.trim(now); {
			}
			return w.counts[countFree]
		}
		burst := func(n int) {
			var all []*coroutine
			for range n {
				all = append(all, w.takeCoroutine())
			}
			for _, co := range all {
				w.freeCoroutine(co)
			}
		}
		for range 5 {
			burst(tasks)
			require.EqualValues(t, tasks, trim())
		}
		burst(tasks - 1)
		require.EqualValues(t, tasks, trim(), "one less than before is not too many")
		burst(tasks - keepFree - 10)
		require.EqualValues(t, tasks-10, trim(), "so many were needed, and keepFree more are kept")
		require.EqualValues(t, keepFree, trim())
		require.EqualValues(t, keepFree, w.counts[countCoroutines])
	})
}

// Each call of Done returns the same channel, and allocates nothing after the first.
func TestDoneIsOneChannel(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	h := Go(rt, func(cx *Context) error { _, err := Await(cx, NeverFuture[None]()); return err })
	others := []<-chan struct{}{}
	done := h.Done()
	check := func() {
		require.Zero(t, testing.AllocsPerRun(1000, func() { others = append(others[:0], h.Done()) }))
		require.Equal(t, done, others[0])
	}
	check()
	joined := Go(rt, func(cx *Context) error { _, err := h.Join(cx); return err })
	eventually(t, func() bool { return waiting(joined) })
	check() // also among other waiters
	h.Cancel()
	<-done
	<-h.Done()
	_, err := join(t, joined)
	require.Equal(t, context.Canceled, err)
}

// A Goexit in a task leaves nothing on the stack of the worker or coroutine that has run the
// task, and no goroutine.
func TestGoexitLeavesNothing(t *testing.T) {
	times := 10_000 // 650 bytes of each would be 6.5 MB
	if testing.Short() {
		times = 2_000
	}
	exits := map[string]func(s Spawner) interface{ Done() <-chan struct{} }{
		"straight-line code": func(s Spawner) interface{ Done() <-chan struct{} } {
			return Go(s, func(cx *Context) error { runtime.Goexit(); return nil })
		},
		"straight-line code that has waited": func(s Spawner) interface{ Done() <-chan struct{} } {
			return Go(s, func(cx *Context) error { Yield(cx); runtime.Goexit(); return nil })
		},
		"a future": func(s Spawner) interface{ Done() <-chan struct{} } {
			return SpawnFuture(s, PollFunc(func(*Context) (None, error) { runtime.Goexit(); return None{}, nil }))
		},
	}
	for name, exit := range exits {
		t.Run(name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(Task, error) {}})
			stacks := func() int64 {
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				return int64(m.StackInuse)
			}
			for range 10 {
				<-exit(rt).Done()
			}
			before, goroutines := stacks(), runtime.NumGoroutine()
			for range times {
				<-exit(rt).Done()
			}
			require.Less(t, stacks()-before, int64(times*100))
			eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines+1 })
			stays := Go(rt, func(cx *Context) error { // the worker still works as it should
				_, err := TimeoutFuture(NeverFuture[None](), time.Millisecond).Poll(cx)
				if err != ErrPending {
					return err
				}
				return Sleep(cx, time.Millisecond)
			})
			_, err := join(t, stays)
			require.NoError(t, err)
			eventually(t, func() bool { return rt.Metrics().Coroutines <= 1 })
		})
	}
}
