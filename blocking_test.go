package async

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/require"
)

func (p *callPool) count() (running, queued, idle, callers int) {
	p.admission.mu.Lock()
	defer p.admission.mu.Unlock()
	return p.running.n, p.queue.n, len(p.idle), p.goroutines
}

// The promises of the pool:
//
//  1. each call runs exactly once, or, if it is cancelled in time, not at all;
//  2. at most as many calls as the limit run at once, and callers that can wait do so while the
//     queue is full.
func TestBlockingExactlyOnce(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2, Blocking: BlockingConfig{Limit: 3, Queue: 4}})
	const tasks, each = 20, 50
	var running, most, ran, cancelled atomic.Int64
	var spawners []*JoinHandle[None]
	for i := range tasks {
		spawners = append(spawners, Go(rt, func(cx *Context) error {
			for j := range each {
				h := SpawnBlocking(cx, func() (int, error) {
					n := running.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					runtime.Gosched()
					ran.Add(1)
					running.Add(-1)
					return i * j, nil
				})
				if j%7 == 0 {
					h.Cancel()
				}
				switch v, err := h.Join(cx); {
				case err == context.Canceled && j%7 == 0:
					cancelled.Add(1)
				case err != nil || v != i*j:
					return fmt.Errorf("%d, %d: %d, %w", i, j, v, err)
				}
			}
			return nil
		}))
	}
	for _, h := range spawners {
		_, err := join(t, h)
		require.NoError(t, err)
	}
	require.EqualValues(t, tasks*each, ran.Load()+cancelled.Load())
	require.LessOrEqual(t, most.Load(), int64(3))
}

func TestBlockingQueueFull(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 1, Queue: 1}, Unhandled: func(Task, error) {}})
	release := occupy(t, rt, 1)
	queued := SpawnBlocking(rt, func() (int, error) { return 1, nil })
	_, err := join(t, SpawnBlocking(rt, func() (int, error) { return 2, nil }))
	require.Equal(t, ErrBusy, err, "a runtime cannot wait")

	spawn := func(cx *Context) (int, error) {
		return SpawnBlocking(cx, func() (int, error) { return 3, nil }).Join(cx)
	}
	straight := Spawn(rt, spawn)
	eventually(t, func() bool { return waiting(straight) })
	gaveUp := Spawn(rt, spawn)
	timedOut := Spawn(rt, func(cx *Context) (int, error) {
		short, cancel := cx.WithTimeout(time.Millisecond)
		defer cancel()
		return SpawnBlocking(short, func() (int, error) { return 4, nil }).Join(cx)
	})
	_, err = join(t, timedOut)
	require.Equal(t, context.DeadlineExceeded, err)
	eventually(t, func() bool { return waiting(gaveUp) })
	gaveUp.Cancel()
	_, err = join(t, gaveUp)
	require.Equal(t, context.Canceled, err)

	future := SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) {
		_, err := SpawnBlocking(cx, func() (int, error) { return 5, nil }).Poll(cx)
		return None{}, err
	}))
	_, err = join(t, future)
	require.Equal(t, ErrBusy, err, "a plain future cannot wait")

	release()
	v, err := join(t, queued)
	require.Equal(t, 1, v)
	require.NoError(t, err)
	v, err = join(t, straight)
	require.Equal(t, 3, v)
	require.NoError(t, err)
}

// A waiter that was given room and then gives up passes the room to the next waiter.
func TestBlockingPassesRoomToTheNext(t *testing.T) {
	r := new(reports)
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 1, Queue: 1}, Unhandled: r.add})
	for range 200 {
		release := occupy(t, rt, 1)
		queued := SpawnBlocking(rt, func() (int, error) { return 1, nil })
		var waiters []*JoinHandle[int]
		for range 3 {
			waiters = append(waiters, Spawn(rt, func(cx *Context) (int, error) {
				return SpawnBlocking(cx, func() (int, error) { return 3, nil }).Join(cx)
			}))
		}
		eventually(t, func() bool { return waiting(waiters[0]) && waiting(waiters[1]) && waiting(waiters[2]) })
		go waiters[0].Cancel()
		go queued.Cancel()
		release()
		for i, h := range waiters {
			v, err := join(t, h)
			if i > 0 || err == nil {
				require.NoError(t, err)
				require.Equal(t, 3, v)
			}
		}
	}
	require.NoError(t, rt.Shutdown(ended()))
	require.Zero(t, r.count(), "a call that did not begin since its spawner was cancelled has not failed")
}

// If a call is cancelled in the queue, its room goes to a task that waits for room.
func TestBlockingCancelMakesRoom(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 1, Queue: 1}})
	release := occupy(t, rt, 1)
	queued := SpawnBlocking(rt, func() (int, error) { return 1, nil })
	waiter := Spawn(rt, func(cx *Context) (int, error) {
		return SpawnBlocking(cx, func() (int, error) { return 2, nil }).Join(cx)
	})
	waits := func(what string) bool { return waiting(waiter) && waiter.info(nil).Waits == what }
	eventually(t, func() bool { return waits("blocking call") })
	queued.Cancel()
	entered := within(patience, func() bool { return waits("task") })
	_, n, _, _ := rt.calls.count()
	release()
	require.True(t, entered, "it still waits for room")
	require.Equal(t, 1, n)
	v, err := join(t, waiter)
	require.NoError(t, err)
	require.Equal(t, 2, v)
}

// A cancelled call occupies no room once it is removed from the queue, even if the goroutine that
// cancels it has not ended it yet.
func TestBlockingCancelledTakesNoRoom(t *testing.T) {
	ending, goOn := make(chan None), make(chan None)
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 1, Queue: 1}, Tuning: Tuning{Hooks: Hooks{TaskEnd: func(t Task) {
		if t.Name == "cancelled" {
			close(ending)
			<-goOn
		}
	}}}})
	defer occupy(t, rt, 1)()
	queued := SpawnBlocking(rt.Named("cancelled"), func() (int, error) { return 1, nil })
	go queued.Cancel()
	receive(t, ending)
	second := SpawnBlocking(rt, func() (int, error) { return 2, nil })
	_, err := second.TryJoin()
	ended := err != ErrPending
	close(goOn)
	require.False(t, ended, "%v", err)
	_, err = join(t, queued)
	require.Equal(t, context.Canceled, err)
}

func TestBlockingCancel(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 1}})
	began, free := make(chan struct{}), make(chan struct{})
	running := SpawnBlocking(rt, func() (int, error) { close(began); <-free; return 1, nil })
	receive(t, began)
	queued := SpawnBlocking(rt, func() (int, error) { t.Error("it ran"); return 2, nil })
	queued.Cancel()
	_, err := join(t, queued)
	require.Equal(t, context.Canceled, err)
	_, n, _, _ := rt.calls.count()
	require.Zero(t, n, "it stands in the queue still")
	running.Cancel()
	close(free)
	v, err := join(t, running)
	require.Equal(t, 1, v)
	require.NoError(t, err)
}

func TestBlockingPanicAndGoexit(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 1}})
	for range 20 {
		var p *PanicError
		_, err := join(t, SpawnBlocking(rt, func() (int, error) { panic("oh") }))
		require.ErrorAs(t, err, &p)
		require.Contains(t, string(p.Stack), "TestBlockingPanicAndGoexit")
		_, err = join(t, SpawnBlocking(rt, func() (int, error) { runtime.Goexit(); return 0, nil }))
		require.Equal(t, ErrGoexit, err)
	}
	eventually(t, func() bool { _, _, _, n := rt.calls.count(); return n <= 1 })
}

func TestBlockingGoroutinesEnd(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 8, Idle: time.Millisecond}})
	occupy(t, rt, 8)()
	eventually(t, func() bool { _, _, _, n := rt.calls.count(); return n == 0 })
	v, err := join(t, SpawnBlocking(rt, func() (int, error) { return 7, nil }))
	require.Equal(t, 7, v)
	require.NoError(t, err)
}

// While the runtime drains, a goroutine in BlockOn can start neither calls nor other
// tasks. Its own operations continue, also if they need the pool.
func TestBlockingDuringDrain(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(Task, error) {}})
	began, results := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := BlockOn(rt, func(cx *Context) (None, error) {
			close(began)
			if _, err := Await(cx, DrainingFuture()); err != nil {
				return None{}, err
			}
			_, task := Go(cx, func(*Context) error { panic("it ran") }).Join(cx)
			_, call := SpawnBlocking(cx, func() (None, error) { panic("it ran") }).Join(cx)
			_, file := Stat(cx, ".")
			return None{}, errors.Join(file, expect(task == ErrShutdown && call == ErrShutdown, "%v, %v", task, call))
		})
		results <- err
	}()
	receive(t, began)
	require.NoError(t, rt.Shutdown(t.Context()))
	require.NoError(t, receive(t, results))
}

// A task that waits for room when Shutdown cancels the queued calls gets no room, although there is
// room then.
func TestBlockingWaitsForRoomDuringShutdown(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 1, Queue: 1}})
	release := occupy(t, rt, 1)
	queued := SpawnBlocking(rt, func() (None, error) { t.Error("it ran"); return None{}, nil })
	var waiters []*JoinHandle[None]
	for range 2 {
		waiters = append(waiters, Go(rt, func(cx *Context) error {
			cx = cx.WithoutCancel()
			_, err := SpawnBlocking(cx, func() (None, error) { t.Error("it ran"); return None{}, nil }).Join(cx)
			return expect(err == ErrShutdown, "%v", err)
		}))
	}
	for _, h := range waiters {
		eventually(t, func() bool { return waiting(h) && h.info(nil).Waits == "blocking call" })
	}
	over := make(chan error, 1)
	go func() { over <- rt.Shutdown(ended()) }()
	_, err := join(t, queued)
	require.Equal(t, context.Canceled, err)
	for _, h := range waiters {
		_, err = join(t, h)
		require.NoError(t, err)
	}
	release()
	require.NoError(t, receive(t, over))
}

// A runtime that was shut down is garbage, even if its pool would have kept idle goroutines without
// a limit of time.
func TestBlockingLeavesNothingBehind(t *testing.T) {
	gone := func() weak.Pointer[Runtime] {
		rt, err := New(Config{Workers: 1, Blocking: BlockingConfig{Idle: math.MaxInt64}})
		require.NoError(t, err)
		_, err = join(t, SpawnBlocking(rt, func() (None, error) { return None{}, nil }))
		require.NoError(t, err)
		eventually(t, func() bool { _, _, idle, _ := rt.calls.count(); return idle == 1 })
		require.NoError(t, rt.Shutdown(t.Context()))
		return weak.Make(rt)
	}()
	eventually(t, func() bool { runtime.GC(); return gone.Value() == nil })
}

func TestBlockingUnhandled(t *testing.T) {
	r := new(reports)
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: r.add})
	boom := errors.New("boom")
	SpawnBlocking(rt.Named("call"), func() (int, error) { return 0, boom })
	eventually(t, func() bool { running, _, idle, _ := rt.calls.count(); return running == 0 && idle == 1 })
	require.NoError(t, rt.Shutdown(ended()))
	require.Equal(t, 1, r.count())
}

func TestBlockingShutdown(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Grace: 100 * time.Millisecond, Blocking: BlockingConfig{Limit: 1}})
	began, free := make(chan struct{}), make(chan struct{})
	running := SpawnBlocking(rt.Named("stubborn"), func() (int, error) { close(began); <-free; return 1, nil })
	receive(t, began)
	queued := SpawnBlocking(rt, func() (int, error) { t.Error("it ran"); return 2, nil })

	err := rt.Shutdown(ended())
	var se *ShutdownError
	require.ErrorAs(t, err, &se)
	require.Len(t, se.Tasks, 1)
	require.Contains(t, err.Error(), "(stubborn) blocking")
	_, err = join(t, queued)
	require.Equal(t, context.Canceled, err)
	_, err = join(t, SpawnBlocking(rt, func() (int, error) { return 2, nil }))
	require.Equal(t, ErrShutdown, err)
	close(free)
	v, err := join(t, running)
	require.Equal(t, 1, v)
	require.NoError(t, err)
}

// Shutdown waits for calls that run, as long as its context lets it.
func TestBlockingShutdownWaits(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	release := occupy(t, rt, 2)
	over := make(chan error, 1)
	go func() { over <- rt.Shutdown(t.Context()) }()
	eventually(t, rt.draining.Load)
	require.Empty(t, over)
	release()
	require.NoError(t, receive(t, over))
}

// A goroutine whose calls arrive soon after each other spins for the next call: the caller of the
// next call wakes no goroutine. The test calls the methods of the pool itself.
func TestBlockingSpinsForTheNextCall(t *testing.T) {
	ownProcsOnly(t)
	pool := func(cfg Config) (*callPool, *poolGoroutine) {
		cfg.Blocking.Idle = time.Hour // no goroutine is ended meanwhile
		rt := newTestRuntime(t, cfg)
		rt.bringProcs()
		p := rt.calls
		p.goroutines = 1
		p.spin.soonSleeps, p.spin.needed = p.spin.minNeeded, p.spin.minNeeded
		return p, &poolGoroutine{wake: make(chan struct{}, 1)}
	}
	submit := func(p *callPool) *callNode {
		c := newBlockingCall(p.rt, func() (int, error) { return 1, nil })
		c.node.outside = true
		require.NoError(t, p.submit(&c.node))
		return &c.node
	}
	run := func(p *callPool, place *callNode, c *poolGoroutine) *callNode {
		place.t.body.poll(nil)
		return p.next(place, c)
	}
	p, c := pool(Config{Workers: 1})
	require.Nil(t, p.next(nil, c))
	require.True(t, c.spins)
	require.Empty(t, p.idle)
	other := &poolGoroutine{wake: make(chan struct{}, 1)}
	p.goroutines++
	require.Nil(t, p.next(nil, other))
	require.False(t, other.spins, "one does so already")
	require.Equal(t, []*poolGoroutine{other}, p.idle)

	place := submit(p)
	require.True(t, p.posted.Load())
	require.Empty(t, other.wake, "somebody comes already")
	second := submit(p)
	require.Empty(t, other.wake)
	require.Same(t, place, p.next(nil, c))
	require.False(t, c.spins || p.posted.Load())
	require.Len(t, other.wake, 1, "who comes wakes the next")
	<-other.wake
	other.since = time.Now().Add(time.Hour) // it was not idle for long, even on a slow machine
	p.arrived(other)
	require.Same(t, second, p.next(nil, other))
	require.Nil(t, run(p, second, other))
	require.True(t, other.spins)
	require.Nil(t, run(p, place, c))
	require.False(t, c.spins)

	// A miss: the goroutine becomes idle, and it takes more calls until it spins again.
	p.spinForCall()
	require.Nil(t, p.next(nil, other))
	require.False(t, other.spins || p.spinning)
	require.Len(t, p.idle, 2)
	require.False(t, p.spin.pays())
	place = submit(p)
	require.Len(t, other.wake, 1)
	<-other.wake
	p.arrived(other)
	require.Same(t, place, p.next(nil, other))
	require.Nil(t, run(p, place, other))
	p.endIdle(2)

	// The end of the pool.
	p, c = pool(Config{Workers: 1})
	require.Nil(t, p.next(nil, c))
	p.close()
	require.Nil(t, p.next(nil, c))
	_, open := <-c.wake
	require.False(t, open)
	require.Zero(t, p.goroutines)

	// It does not spin if it would take the processor of other goroutines.
	p, c = pool(Config{Workers: 1, SharedProcs: true})
	require.True(t, p.rt.ownProcs.asked.Load(), "there is nothing to ask for after each call")
	require.Nil(t, p.next(nil, c))
	require.False(t, c.spins)
	require.False(t, p.rt.ownProcs.raised.Load())
	p.endIdle(1)
}

// Calls of several tasks, with pauses. Each call runs once, whether a goroutine spins or not.
func TestBlockingSpinRunsEachCallOnce(t *testing.T) {
	const tasks, calls = 4, 300
	rt := newTestRuntime(t, Config{Workers: 2})
	var ran atomic.Int64
	var hs []*JoinHandle[None]
	for range tasks {
		hs = append(hs, Go(rt, func(cx *Context) error {
			for i := range calls {
				if i%50 == 0 {
					if err := Sleep(cx, time.Millisecond); err != nil {
						return err
					}
				}
				got, err := SpawnBlocking(cx, func() (int, error) { ran.Add(1); return i, nil }).Join(cx)
				if err != nil || got != i {
					return expect(false, "%d: %d, %v", i, got, err)
				}
			}
			return nil
		}))
	}
	for _, h := range hs {
		_, err := join(t, h)
		require.NoError(t, err)
	}
	require.EqualValues(t, tasks*calls, ran.Load())
}
