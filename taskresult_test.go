package async

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// closeCounter is a result that must be closed.
type closeCounter struct {
	closes atomic.Int32
	end    func() // called by Close after counting, if it is not nil
}

func (c *closeCounter) Close() error {
	c.closes.Add(1)
	if c.end != nil {
		c.end()
	}
	return errors.New("an error of Close, which is dropped")
}

// taken is the result and the error that a caller was given.
type taken struct {
	c   io.Closer
	err error
}

func meanwhile(take func() (io.Closer, error)) <-chan taken {
	got := make(chan taken, 1)
	go func() {
		c, err := take()
		got <- taken{c, err}
	}()
	return got
}

// latch is a future that is pending until it is opened, and cannot be given up. A task that polls
// it goes on when it is opened, even if the task was cancelled.
type latch struct {
	opened atomic.Bool
	waker  atomic.Pointer[Waker]
}

func (l *latch) Poll(cx *Context) (None, error) {
	w := cx.Waker()
	l.waker.Store(&w)
	if l.opened.Load() {
		return None{}, nil
	}
	return None{}, ErrPending
}

func (l *latch) open() {
	l.opened.Store(true)
	if w := l.waker.Load(); w != nil {
		w.Wake()
	}
}

// owners are all ways in which the only owner of a handle waits for its result, until l is opened.
var owners = map[string]func(rt *Runtime, h *JoinHandle[io.Closer], l *latch) (io.Closer, error){
	"Await": func(rt *Runtime, h *JoinHandle[io.Closer], l *latch) (io.Closer, error) {
		return cancelledBy(rt, l, Spawn(rt, func(cx *Context) (io.Closer, error) { return Await(cx, h) }))
	},
	"Await of a cancelled Context": func(rt *Runtime, h *JoinHandle[io.Closer], l *latch) (io.Closer, error) {
		return BlockOn(rt, func(cx *Context) (io.Closer, error) {
			Await(cx, l)
			cx, cancel := cx.WithCancel()
			cancel()
			return Await(cx, h)
		})
	},
	"Await of a goroutine": func(rt *Runtime, h *JoinHandle[io.Closer], l *latch) (io.Closer, error) {
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			BlockOn(rt, func(cx *Context) (None, error) { return Await(cx, l) })
			cancel()
		}()
		began := false
		defer func() {
			if !began {
				giveUp(nil, h)
			}
		}()
		return BlockOn(rt.Under(ctx), func(cx *Context) (io.Closer, error) {
			began = true
			return Await(cx, h)
		})
	},
	"a goroutine without a Context": func(rt *Runtime, h *JoinHandle[io.Closer], l *latch) (io.Closer, error) {
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			BlockOn(rt, func(cx *Context) (None, error) { return Await(cx, l) })
			cancel()
		}()
		return awaitParked(ctx, Future[io.Closer](h))
	},
	"SpawnFuture": func(rt *Runtime, h *JoinHandle[io.Closer], l *latch) (io.Closer, error) {
		return cancelledBy(rt, l, SpawnFuture[io.Closer](rt, h))
	},
	"a Timeout that is cancelled": func(rt *Runtime, h *JoinHandle[io.Closer], l *latch) (io.Closer, error) {
		return cancelledBy(rt, l, SpawnFuture(rt, TimeoutFuture[io.Closer](h, time.Hour)))
	},
	"a Timeout whose time is over": func(rt *Runtime, h *JoinHandle[io.Closer], l *latch) (io.Closer, error) {
		return BlockOn(rt, func(cx *Context) (io.Closer, error) {
			Await(cx, l)
			return Await(cx, TimeoutFuture[io.Closer](h, 0))
		})
	},
	"Select": func(rt *Runtime, h *JoinHandle[io.Closer], l *latch) (io.Closer, error) {
		return BlockOn(rt, func(cx *Context) (io.Closer, error) {
			opened, ended := OnFuture[None](l), OnFuture[io.Closer](h)
			if i, err := Select(cx, opened, ended); i != 1 {
				return nil, errors.Join(err, ErrClosed)
			}
			return ended.Result()
		})
	},
	"TrySelect": func(rt *Runtime, h *JoinHandle[io.Closer], l *latch) (io.Closer, error) {
		return BlockOn(rt, func(cx *Context) (io.Closer, error) {
			Await(cx, l)
			ended := OnFuture[io.Closer](h)
			if trySelect(cx, ended) != 0 {
				return nil, ErrClosed
			}
			return ended.Result()
		})
	},
	"a Select that is cancelled": func(rt *Runtime, h *JoinHandle[io.Closer], l *latch) (io.Closer, error) {
		ended := OnFuture[io.Closer](h)
		if _, err := cancelledBy(rt, l, SpawnFuture(rt, SelectFuture(ended))); err != nil {
			return nil, err
		}
		return ended.Result()
	},
	"Once": func(rt *Runtime, h *JoinHandle[io.Closer], l *latch) (io.Closer, error) {
		once, unmade := onceOf(h)
		defer unmade()
		return cancelledBy(rt, l, SpawnFuture(rt, once))
	},
	"a Once in a Timeout in a Select": func(rt *Runtime, h *JoinHandle[io.Closer], l *latch) (io.Closer, error) {
		once, unmade := onceOf(h)
		defer unmade()
		f := OnFuture(TimeoutFuture(once, time.Hour))
		if _, err := cancelledBy(rt, l, SpawnFuture(rt, SelectFuture(f))); err != nil {
			return nil, err
		}
		return f.Result()
	},
}

// onceOf returns a future that owns h once it is polled. unmade gives h up if the future was never
// polled.
func onceOf(h *JoinHandle[io.Closer]) (f Future[io.Closer], unmade func()) {
	var once Once[io.Closer]
	var made atomic.Bool
	f = once.DoFuture(func() Future[io.Closer] {
		made.Store(true)
		return h
	})
	return f, func() {
		if !made.Load() {
			giveUp(nil, h)
		}
	}
}

// cancelledBy cancels the task of h when l is opened, and waits for it.
func cancelledBy[T any](rt *Runtime, l *latch, h *JoinHandle[T]) (T, error) {
	BlockOn(rt, func(cx *Context) (None, error) { return Await(cx, l) })
	h.Cancel()
	return h.JoinBlocking(context.Background())
}

// makers are all kinds of tasks that can return a result although they were cancelled. Each returns
// the result c when l is opened.
var makers = map[string]func(rt *Runtime, l *latch, c io.Closer) *JoinHandle[io.Closer]{
	"Spawn": func(rt *Runtime, l *latch, c io.Closer) *JoinHandle[io.Closer] {
		return Spawn(rt, func(cx *Context) (io.Closer, error) {
			_, err := Await(cx.WithoutCancel(), l)
			return c, err
		})
	},
	"SpawnBlocking": func(rt *Runtime, l *latch, c io.Closer) *JoinHandle[io.Closer] {
		return SpawnBlocking(rt, func() (io.Closer, error) {
			_, err := BlockOn(rt, func(cx *Context) (None, error) { return Await(cx, l) })
			return c, err
		})
	},
}

// ownership runs a test for each owner with each kind of task.
func ownership(t *testing.T, test func(t *testing.T, rt *Runtime, own func(h *JoinHandle[io.Closer], l *latch) (io.Closer, error), spawn func(l *latch, c io.Closer) *JoinHandle[io.Closer])) {
	for owner, own := range owners {
		for maker, spawn := range makers {
			t.Run(owner+" and "+maker, func(t *testing.T) {
				budget := 0
				if len(owner)%2 == 0 {
					budget = 1 // so that polls end in a yield, because the budget is spent
				}
				rt := newTestRuntime(t, Config{Workers: 2, Tuning: Tuning{Budget: budget}})
				test(t, rt, func(h *JoinHandle[io.Closer], l *latch) (io.Closer, error) { return own(rt, h, l) },
					func(l *latch, c io.Closer) *JoinHandle[io.Closer] { return spawn(rt, l, c) })
			})
		}
	}
}

// A result that is an io.Closer is closed if its only owner has given it up before the task
// ended.
func TestResultWithoutOwnerIsClosed(t *testing.T) {
	ownership(t, func(t *testing.T, rt *Runtime, own func(*JoinHandle[io.Closer], *latch) (io.Closer, error), spawn func(*latch, io.Closer) *JoinHandle[io.Closer]) {
		var end, giveUp latch
		c := new(closeCounter)
		h := spawn(&end, c)
		eventually(t, func() bool { return end.waker.Load() != nil }) // the task has begun
		giveUp.open()
		_, err := own(h, &giveUp)
		require.Error(t, err)
		require.Zero(t, c.closes.Load())
		end.open()
		eventually(t, func() bool { return c.closes.Load() == 1 })
		_, err = h.JoinBlocking(t.Context())
		require.Equal(t, context.Canceled, err)
	})
}

// If other tasks and goroutines wait for the same handle, the result is kept.
func TestResultOfOthersIsKept(t *testing.T) {
	ownership(t, func(t *testing.T, rt *Runtime, own func(*JoinHandle[io.Closer], *latch) (io.Closer, error), spawn func(*latch, io.Closer) *JoinHandle[io.Closer]) {
		waits := map[string]func(h *JoinHandle[io.Closer]) (io.Closer, error){
			"JoinHandle.Await": func(h *JoinHandle[io.Closer]) (io.Closer, error) {
				return BlockOn(rt, func(cx *Context) (io.Closer, error) { return h.Join(cx) })
			},
			"JoinHandle.JoinBlocking": func(h *JoinHandle[io.Closer]) (io.Closer, error) { return h.JoinBlocking(t.Context()) },
			"JoinHandle.Done": func(h *JoinHandle[io.Closer]) (io.Closer, error) {
				<-h.Done()
				v, err := h.TryJoin()
				return v, err
			},
			"OnJoin": func(h *JoinHandle[io.Closer]) (io.Closer, error) {
				return BlockOn(rt, func(cx *Context) (io.Closer, error) {
					ended := OnJoin(h)
					if _, err := Select(cx, ended); err != nil {
						return nil, err
					}
					return ended.Result()
				})
			},
			"JoinSet": func(h *JoinHandle[io.Closer]) (io.Closer, error) {
				return BlockOn(rt, func(cx *Context) (io.Closer, error) {
					var set JoinSet[io.Closer]
					set.Add(h)
					h, err := set.Next(cx)
					if err != nil {
						return nil, err
					}
					v, err := h.TryJoin()
					return v, err
				})
			},
		}
		for name, wait := range waits {
			var end, giveUp latch
			c := new(closeCounter)
			h := spawn(&end, c)
			eventually(t, func() bool { return end.waker.Load() != nil })
			other := meanwhile(func() (io.Closer, error) { return wait(h) })
			eventually(t, func() bool { return waiters(h) == 1 })
			giveUp.open()
			_, err := own(h, &giveUp)
			require.Error(t, err)
			end.open()
			got := soon(t, other)
			require.NoError(t, got.err, name)
			require.Equal(t, io.Closer(c), got.c, name)
			require.Zero(t, c.closes.Load(), name)
		}
	})
}

// The task ends while its owner gives it up. In either order, the owner or another waiter has the
// result, or the result is closed.
func TestResultIsTakenOrClosed(t *testing.T) {
	times := 100
	if testing.Short() {
		times = 40
	}
	ownership(t, func(t *testing.T, rt *Runtime, own func(*JoinHandle[io.Closer], *latch) (io.Closer, error), spawn func(*latch, io.Closer) *JoinHandle[io.Closer]) {
		for i := range times {
			var end, giveUp latch
			var both sync.WaitGroup
			c := new(closeCounter)
			h := spawn(&end, c)
			eventually(t, func() bool { return end.waker.Load() != nil })
			var other <-chan taken
			switch i % 4 {
			case 0: // the other waiter waits before the end
				other = meanwhile(func() (io.Closer, error) { return h.JoinBlocking(context.Background()) })
				eventually(t, func() bool { return waiters(h) > 0 })
			case 1: // the other waiter joins at the same moment
				other = meanwhile(func() (io.Closer, error) { return h.JoinBlocking(context.Background()) })
			case 2:
				other = meanwhile(func() (io.Closer, error) {
					<-h.Done()
					c, err := h.TryJoin()
					return c, err
				})
			}
			owner := meanwhile(func() (io.Closer, error) { return own(h, &giveUp) })
			both.Go(end.open)
			both.Go(giveUp.open)
			both.Wait()
			got := soon(t, owner)
			var otherGot taken
			if other != nil {
				otherGot = soon(t, other)
			}
			switch {
			case other != nil && (i%4 == 0 || otherGot.err == nil):
				require.NoError(t, otherGot.err)
				require.Equal(t, io.Closer(c), otherGot.c)
				require.Zero(t, c.closes.Load())
			case got.err == nil:
				require.Equal(t, io.Closer(c), got.c)
				require.Zero(t, c.closes.Load())
			default:
				eventually(t, func() bool { return c.closes.Load() == 1 })
			}
		}
	})
}

// An owner that finds its Context cancelled does not take the result, although it is there. The
// result is closed, since no other caller would take it, unless it was taken before.
func TestResultThatCameTooLate(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for name, taken := range map[string]bool{"not taken": false, "taken before": true} {
		c := new(closeCounter)
		h := Spawn(rt, func(*Context) (io.Closer, error) { return c, nil })
		eventually(t, h.state.done) // Done would be another waiter
		if taken {
			_, err := h.TryJoin()
			require.NoError(t, err)
		}
		_, err := join(t, Spawn(rt, func(cx *Context) (io.Closer, error) {
			cx, cancel := cx.WithCancel()
			cancel()
			return Await(cx, h)
		}))
		require.Equal(t, context.Canceled, err, name)
		if taken {
			require.Zero(t, c.closes.Load(), name)
		} else {
			require.EqualValues(t, 1, c.closes.Load(), name)
		}
	}
}

// A Close that panics or calls Goexit is a failure that is reported. The worker goes on.
func TestResultWhoseClosePanics(t *testing.T) {
	for name, end := range map[string]func(){"panics": func() { panic("in Close") }, "exits": runtime.Goexit} {
		for maker, spawn := range makers {
			reported := make(chan error, 1)
			rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(_ Task, err error) { reported <- err }})
			var l latch
			h := spawn(rt, &l, &closeCounter{end: end})
			eventually(t, func() bool { return l.waker.Load() != nil })
			_, err := join(t, Spawn(rt, func(cx *Context) (io.Closer, error) { return Await(cx, TimeoutFuture[io.Closer](h, 0)) }))
			require.Equal(t, context.DeadlineExceeded, err)
			l.open()
			err = receive(t, reported)
			if name == "exits" {
				require.Equal(t, ErrGoexit, err, maker)
			} else {
				require.ErrorContains(t, err, "in Close", maker)
			}
			_, err = join(t, SpawnBlocking(rt, func() (None, error) { return None{}, nil }))
			require.NoError(t, err)
			_, err = join(t, Go(rt, func(cx *Context) error { return Sleep(cx, time.Millisecond) }))
			require.NoError(t, err)
			require.NoError(t, rt.Shutdown(t.Context()))
		}
	}
}

// A task gives up the handles of many tasks that have ended, one after another, so that its budget
// is soon spent.
func TestResultsThatCameTooLate(t *testing.T) {
	const n = 500
	for _, budget := range []int{0, 1} {
		rt := newTestRuntime(t, Config{Workers: 1, Tuning: Tuning{Budget: budget}})
		c := new(closeCounter)
		var hs []*JoinHandle[io.Closer]
		for range n {
			hs = append(hs, Spawn(rt, func(*Context) (io.Closer, error) { return c, nil }))
		}
		for _, h := range hs {
			eventually(t, h.state.done)
		}
		_, err := join(t, Go(rt, func(cx *Context) error {
			ready := NewChan[int](1)
			for i, h := range hs {
				switch i % 2 {
				case 0:
					cx, cancel := cx.WithCancel()
					cancel()
					Await(cx, h)
				case 1:
					ready.Send(cx, i)
					got := OnFuture[io.Closer](h)
					if first, err := Select(cx, OnRecv(ready), got); first == 1 {
						ready.Recv(cx)
						h, _ := got.Result()
						h.Close() // the task closes a result that it has taken; the package does not
					} else if err != nil {
						return err
					}
				}
			}
			return nil
		}))
		require.NoError(t, err)
		require.EqualValues(t, n, c.closes.Load())
	}
}

// The second of two owners, which wait one after the other, may still get the result. If the second
// owner also gives up, the result is closed.
func TestResultOfTwoOwners(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	for range 100 {
		var l latch
		c := new(closeCounter)
		h := makers["Spawn"](rt, &l, c)
		_, err := BlockOn(rt, func(cx *Context) (io.Closer, error) { return Await(cx, TimeoutFuture[io.Closer](h, 0)) })
		require.Equal(t, context.DeadlineExceeded, err)
		second := Spawn(rt, func(cx *Context) (io.Closer, error) { return Await(cx, h) })
		eventually(t, func() bool { return waiters(h) == 1 })
		go l.open()
		second.Cancel()
		got, err := join(t, second)
		if err == nil {
			require.Equal(t, io.Closer(c), got)
			require.Zero(t, c.closes.Load())
		} else {
			eventually(t, func() bool { return c.closes.Load() == 1 })
		}
	}
}

// A future that embeds a handle and has a Cancel of its own is given up by its own Cancel.
func TestEmbeddedHandleIsGivenUp(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	h := Spawn(rt, func(cx *Context) (io.Closer, error) { return nil, Sleep(cx, time.Hour) })
	f := &embeddingHandle{JoinHandle: h}
	_, err := join(t, Spawn(rt, func(cx *Context) (io.Closer, error) { return Await(cx, TimeoutFuture[io.Closer](f, 0)) }))
	require.Equal(t, context.DeadlineExceeded, err)
	require.Equal(t, 1, f.cancels)
	_, err = join(t, h)
	require.Equal(t, context.Canceled, err)
}

type embeddingHandle struct {
	*JoinHandle[io.Closer]
	cancels int
}

func (f *embeddingHandle) Cancel() {
	f.cancels++
	f.JoinHandle.Cancel()
}

// A result that is a nil pointer is not closed.
func TestResultThatIsNilIsNotClosed(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(_ Task, err error) { t.Error(err) }})
	h := Spawn(rt, func(*Context) (*closeCounter, error) { return nil, nil })
	eventually(t, h.state.done)
	giveUp(nil, h)
	_, err := join(t, h)
	require.Equal(t, context.Canceled, err)
	require.NoError(t, rt.Shutdown(t.Context()))
}
