package async

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The tests of docs/cancellation.md that are in no other file.

// An await with a Context that has ended takes no result, even if the result is there.
func TestCancelledAwait(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		gone, cancel := cx.WithCancel()
		cancel()
		p := new(probe)
		p.resolve(nil)
		_, err := Await(gone, p)
		h := Spawn(cx, func(*Context) (int, error) { return 7, nil })
		if _, err := h.Join(cx); err != nil {
			return err
		}
		_, err2 := h.Join(gone)
		v, err3 := h.Join(cx)
		return errors.Join(
			expect(err == context.Canceled && err2 == err, "Await: %v, %v", err, err2),
			expect(p.polls.Load() == 0 && p.cancels.Load() == 1, "%d polls, given up %d times", p.polls.Load(), p.cancels.Load()),
			expect(v == 7 && err3 == nil, "afterwards: %d, %v", v, err3))
	})
}

// A Yield that is cancelled still lets other tasks run, so that a loop that ignores its error does
// not keep other tasks waiting.
func TestCancelledYield(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	other := false
	h := Go(rt, func(cx *Context) error {
		gone, cancel := cx.WithCancel()
		cancel()
		err := Yield(gone)
		Go(cx, func(*Context) error { other = true; return nil })
		for i := 0; !other && i < 10*operationsPerPoll; i++ {
			Yield(gone)
		}
		return errors.Join(expect(err == context.Canceled, "Yield: %v", err), expect(other, "the other task has not run"), Yield(cx))
	})
	_, err := join(t, h)
	require.NoError(t, err)

	var m Mutex
	var rw RWMutex
	var o Once[int]
	for name, await := range map[string]func(cx *Context) error{
		"Lock":    m.Lock,
		"RLock":   rw.RLock,
		"RW Lock": rw.Lock,
		"ULock":   rw.ULock,
		"Do":      func(cx *Context) error { return second(o.Do(cx, nil)) },
	} {
		_, err = join(t, Go(rt, func(cx *Context) error {
			gone, cancel := cx.WithCancel()
			cancel()
			other := false
			Go(cx, func(*Context) error { other = true; return nil })
			for i := 0; !other && i < 10*operationsPerPoll; i++ {
				require.Equal(t, context.Canceled, await(gone))
			}
			return expect(other, "%s: the other task has not run", name)
		}))
		require.NoError(t, err)
	}
	cx, wakes := newPollCx(t, rt)
	y := YieldFuture()
	_, err = y.Poll(cx)
	require.Equal(t, ErrPending, err)
	giveUp(nil, y)
	require.EqualValues(t, 1, wakes.Load())
}

func TestCancelledDraining(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	var gaveUp atomic.Bool
	stays := Go(rt, func(cx *Context) error {
		short, cancel := cx.WithTimeout(time.Millisecond)
		defer cancel()
		_, err := Await(short, DrainingFuture())
		gaveUp.Store(true)
		_, err2 := Await(cx, DrainingFuture())
		return errors.Join(expect(err == context.DeadlineExceeded, "Await: %v", err), err2)
	})
	leaves := Go(rt, func(cx *Context) error {
		_, err := Await(cx, DrainingFuture())
		return err
	})
	eventually(t, func() bool { return gaveUp.Load() && waiting(leaves) && waiting(stays) })
	leaves.Cancel()
	_, err := join(t, leaves)
	require.Equal(t, context.Canceled, err)
	require.NoError(t, rt.Shutdown(context.Background()))
	_, err = join(t, stays)
	require.NoError(t, err)
}

// Dial and Listen stop waiting for the resolver when their Context ends, and leave no descriptor open:
// newTestRuntime counts the descriptors.
func TestCancelledLookup(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		gone, cancel := cx.WithCancel()
		cancel()
		_, err := Dial(gone, "tcp", "localhost:1")
		_, err2 := Listen(gone, "tcp", "localhost:0")
		_, err3 := runLookup(cx, func(context.Context) (int, error) { return 1, nil })
		short, cancelShort := cx.WithTimeout(time.Millisecond)
		defer cancelShort()
		_, err4 := runLookup(short, func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
		return errors.Join(
			expect(errors.Is(err, context.Canceled), "Dial: %v", err),
			expect(errors.Is(err2, context.Canceled), "Listen: %v", err2),
			err3, expect(err4 == context.DeadlineExceeded, "a lookup that hangs: %v", err4))
	})
}

// The failure of a lookup that is given up is not reported, even if the lookup has failed before.
func TestCancelledLookupThatHasFailed(t *testing.T) {
	r := new(reports)
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: r.add})
	cx, wakes := newPollCx(t, rt)
	release, free := newRelease(t)
	o := &lookupFuture[int]{f: func(context.Context) (int, error) { <-release; return 0, errors.New("no such host") }}
	_, err := o.Poll(cx)
	require.Equal(t, ErrPending, err)
	free()
	eventually(t, func() bool { return wakes.Load() == 1 })
	o.Cancel()
	require.NoError(t, rt.Shutdown(ended()))
	require.Zero(t, r.count())
}

// To cancel a task costs about the same, however many tasks are cancelled, and whether they wait
// for time or all for the same task. If a cancellation looked through the other tasks, each of 25
// times as many tasks would cost up to 25 times as much. The slower memory that holds so many tasks
// costs much less than that. The test measures processor time, which passes only while a processor
// works for this process.
func TestCancelManyIsLinear(t *testing.T) {
	few, tries := 4_000, 6
	if testing.Short() {
		few = 1_500
	}
	const times, factor = 25, 5
	for _, name := range []string{"time", "task"} {
		t.Run(name, func(t *testing.T) {
			best := map[int]time.Duration{} // per task
			measure := func(n int) time.Duration {
				took := cancelMany(t, n, name == "task") / time.Duration(n)
				if b, ok := best[n]; !ok || took < b {
					best[n] = took
				}
				return best[n]
			}
			for range 3 {
				measure(few)
			}
			for range tries {
				if measure(times*few) <= factor*measure(few) {
					break
				}
			}
			t.Logf("per task: %v", best)
			require.LessOrEqual(t, best[times*few], factor*best[few])
		})
	}
}

// processorTime is how long processors have worked for this process.
func processorTime(t *testing.T) time.Duration {
	var used unix.Rusage
	require.NoError(t, unix.Getrusage(unix.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// cancelMany returns the processor time that it takes to cancel n tasks of a group, until they have
// ended. The tasks wait for the same task if forTask is true, and otherwise for time.
func cancelMany(t *testing.T, n int, forTask bool) time.Duration {
	rt := newTestRuntime(t, Config{Workers: 2})
	last := SpawnFuture(rt, NeverFuture[int]())
	var begun time.Duration
	h := Go(rt, func(cx *Context) error {
		return WithGroup(cx, func(cx *Context, g *Group) error {
			for i := range n {
				switch straight := i%10 == 0; {
				case straight && forTask:
					Go(g, func(cx *Context) error { _, err := last.Join(cx); return err })
				case straight:
					Go(g, func(cx *Context) error { return Sleep(cx, time.Hour) })
				case forTask:
					SpawnFuture(g, &waitFor{h: last})
				default:
					SpawnFuture(g, SleepFuture(time.Hour))
				}
			}
			for range 3 {
				Yield(cx)
			}
			runtime.GC() // now, rather than during the measurement
			begun = processorTime(t)
			g.Cancel()
			return nil
		})
	})
	_, err := join(t, h)
	require.NoError(t, err)
	took := processorTime(t) - begun
	last.Cancel()
	require.NoError(t, rt.Shutdown(ended()))
	runtime.GC()
	return took
}

// waitFor is a future of a task's end. Its Cancel does not cancel that task.
type waitFor struct {
	h *JoinHandle[int]
	t *task
}

func (w *waitFor) Poll(cx *Context) (int, error) { w.t = cx.t; return w.h.Poll(cx) }
func (w *waitFor) Cancel()                       { w.h.waiters.leave(w.t, nil) }

// race is a future that a program could have: the first of two results.
type race struct {
	cx   *Context // of the last Poll
	a, b Future[int]
}

func (r *race) Poll(cx *Context) (int, error) {
	r.cx = cx
	if v, err := r.a.Poll(cx); err != ErrPending {
		Cancel(cx, r.b)
		return v, err
	}
	v, err := r.b.Poll(cx)
	if err != ErrPending {
		Cancel(cx, r.a)
	}
	return v, err
}

func (r *race) Cancel() {
	Cancel(r.cx, r.a)
	Cancel(r.cx, r.b)
}

// Cancel does for a program's own future the same as Await: the futures of which it is made are
// given up once, and a shared future forgets the task.
func TestCancelGivesUp(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	for name, wait := range map[string]func(cx *Context, r *race) (int, error){
		"Await":         func(cx *Context, r *race) (int, error) { return Await(cx, Future[int](r)) },
		"Select":        func(cx *Context, r *race) (int, error) { c := OnFuture[int](r); Select(cx, c); return c.Result() },
		"TimeoutFuture": func(cx *Context, r *race) (int, error) { return Await(cx, TimeoutFuture[int](r, time.Hour)) },
	} {
		t.Run(name, func(t *testing.T) {
			// One of the two has its result first.
			won, lost := new(probe), new(probe)
			h := Spawn(rt, func(cx *Context) (int, error) { return wait(cx, &race{a: lost, b: won}) })
			eventually(t, func() bool { return waiting(h) })
			won.resolve(nil)
			v, err := join(t, h)
			require.NoError(t, err)
			require.Equal(t, 42, v)
			require.EqualValues(t, 1, lost.cancels.Load())
			require.Zero(t, won.cancels.Load())

			// The two are given up with the future that is made of them.
			var one Oneshot[int]
			p := new(probe)
			h = Spawn(rt, func(cx *Context) (int, error) { return wait(cx, &race{a: p, b: &one}) })
			eventually(t, func() bool { return waiting(h) })
			require.Equal(t, 1, one.recvs.count())
			h.Cancel()
			joinOrCancel(h)
			require.EqualValues(t, 1, p.cancels.Load())
			require.Zero(t, one.recvs.count(), "the Oneshot knows the task still")
		})
	}

	// The code that gives a handle up owns it: the result is closed.
	require.NoError(t, runTask(rt, func(cx *Context) error {
		c := new(closeCounter)
		h := Spawn(cx, func(cx *Context) (io.Closer, error) { Sleep(cx, time.Hour); return c, nil })
		if _, err := h.Poll(cx); err != ErrPending {
			return expect(false, "Poll: %v", err)
		}
		Cancel[io.Closer](cx, h)
		for c.closes.Load() == 0 {
			if err := Yield(cx); err != nil {
				return err
			}
		}
		_, err := h.TryJoin()
		return expect(err == context.Canceled, "TryJoin: %v", err)
	}))

	// A future that was never polled, and a future without a method Cancel.
	p := new(probe)
	Cancel[int](nil, p)
	require.EqualValues(t, 1, p.cancels.Load())
	Cancel(nil, ReadyFuture(1))
}

// A task that is a plain future, and is cancelled, leaves the shared future that it has polled.
func TestCancelledTaskLeavesItsFuture(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	var one Oneshot[int]
	h := SpawnFuture[int](rt, &one)
	eventually(t, func() bool { return one.recvs.count() == 1 })
	h.Cancel()
	_, err := join(t, h)
	require.Equal(t, context.Canceled, err)
	require.Zero(t, one.recvs.count())
}
