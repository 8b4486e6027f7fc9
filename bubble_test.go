package async

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// These tests use the package from goroutines in a bubble of testing/synctest. The Go runtime ends
// the program if an operation is forbidden, such as the use of a bubble's channel from outside. A
// bubble whose goroutines do not end hangs.

// inBubbleOf runs fn in a bubble. The bubble must end, and no time must pass by its clock, because
// this clock stands still while a goroutine waits for something outside.
func inBubbleOf(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		fn(t)
		require.Zero(t, time.Since(begun), "the bubble's clock has moved")
	})
}

func TestBubbleIsNoticed(t *testing.T) {
	require.False(t, inBubble())
	var outsideOfIt bool
	inBubbleOf(t, func(t *testing.T) {
		require.True(t, inBubble())
		outsideBubble(func() { outsideOfIt = !inBubble() })
	})
	require.True(t, outsideOfIt)
	outsideBubble(func() { outsideOfIt = !inBubble() })
	require.True(t, outsideOfIt)
}

// The parker of a goroutine is used again by other goroutines, in bubbles and outside.
func TestBubbleParksWhereOthersHaveParked(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	waits := func(t *testing.T) {
		h := Go(rt, func(cx *Context) error { return Sleep(cx, time.Millisecond) })
		_, err := h.JoinBlocking(context.Background())
		require.NoError(t, err)
		receive2(t, h.Done())

		var mu Mutex
		mu.TryLock()
		Go(rt, func(cx *Context) error { defer mu.Unlock(); return Sleep(cx, time.Millisecond) })
		require.NoError(t, mu.LockBlocking(context.Background()))

		to, from := NewChan[int](0), NewChan[int](0)
		Go(rt, func(cx *Context) error {
			v, err := to.Recv(cx)
			if err == nil {
				err = from.Send(cx, v+1)
			}
			return err
		})
		require.NoError(t, to.SendBlocking(context.Background(), 1))
		v, err := from.RecvBlocking(context.Background())
		require.NoError(t, err)
		require.Equal(t, 2, v)

		_, err = BlockOn(rt, func(cx *Context) (None, error) {
			_, err := Go(cx, func(cx *Context) error { return Sleep(cx, time.Millisecond) }).Join(cx)
			return None{}, err
		})
		require.NoError(t, err)
	}
	for range 3 {
		waits(t)
		inBubbleOf(t, waits)
	}
}

// receive2 is receive for a channel that belongs to no bubble, by the real clock.
func receive2(t *testing.T, c <-chan struct{}) {
	t.Helper()
	var late <-chan time.Time
	outsideBubble(func() { late = time.After(patience) })
	select {
	case <-c:
	case <-late:
		t.Fatal("nothing has come")
	}
}

// bubbleEcho sends a byte over a new connection and receives it back.
func bubbleEcho(listen func() (net.Listener, error), dial func(address string) (net.Conn, error)) error {
	ln, err := listen()
	if err != nil {
		return err
	}
	defer ln.Close()
	echoed := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			_, err = io.Copy(c, c)
			err = errors.Join(err, c.Close())
		}
		echoed <- err
	}()
	c, err := dial(ln.Addr().String())
	if err != nil {
		return err
	}
	_, err = c.Write([]byte("x"))
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	return errors.Join(err, c.Close(), <-echoed)
}

// Three kinds of goroutines do not belong to the bubble if their first user is in a bubble: the
// goroutines of the shared reactor, of the pool of blocking calls, and of the reports of failures.
// They serve other users afterwards.
func TestBubbleIsTheFirstUser(t *testing.T) {
	failed := make(chan error, 3)
	rt := newTestRuntime(t, Config{Workers: 2, Unhandled: func(_ Task, err error) { failed <- err }})
	use := func(t *testing.T) {
		v, err := SpawnBlocking(rt, func() (bool, error) { return inBubble(), nil }).JoinBlocking(context.Background())
		require.NoError(t, err)
		require.False(t, v)
		require.NoError(t, bubbleEcho(
			func() (net.Listener, error) { return rt.ListenNet("tcp", "127.0.0.1:0") },
			func(address string) (net.Conn, error) { return rt.DialNet(context.Background(), "tcp", address) },
		))
		require.NoError(t, bubbleEcho(
			func() (net.Listener, error) { return rt.ListenNet("tcp", "localhost:0") },
			func(address string) (net.Conn, error) { return rt.DialNet(context.Background(), "tcp", address) },
		))
		h := Go(rt, func(*Context) error { return errors.New("this is never joined") })
		receive2(t, h.Done())
		rt.Tasks()
	}
	inBubbleOf(t, use)
	use(t)
	inBubbleOf(t, use)
}

// A runtime that is made in a bubble does not belong to it.
func TestBubbleMakesARuntime(t *testing.T) {
	cfg := Config{Workers: 2, Grace: patience, Stalled: func(Stall) {}}
	use := func(t *testing.T, rt *Runtime) {
		_, err := Go(rt, func(cx *Context) error { return Sleep(cx, time.Millisecond) }).JoinBlocking(context.Background())
		require.NoError(t, err)
		require.NoError(t, bubbleEcho(
			func() (net.Listener, error) { return rt.ListenNet("tcp", "127.0.0.1:0") },
			func(address string) (net.Conn, error) { return rt.DialNet(context.Background(), "tcp", address) },
		))
	}
	var rt *Runtime
	inBubbleOf(t, func(t *testing.T) {
		var err error
		rt, err = New(cfg)
		require.NoError(t, err)
		use(t, rt)
	})
	use(t, rt)
	require.NoError(t, rt.Shutdown(t.Context()))

	inBubbleOf(t, func(t *testing.T) {
		rt, err := New(cfg)
		require.NoError(t, err)
		use(t, rt)
		waits := Go(rt, func(cx *Context) error { return Sleep(cx, time.Hour) })
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		require.NoError(t, rt.Shutdown(ctx), "cancels what is left at the end of ctx")
		_, err = waits.JoinBlocking(context.Background())
		require.ErrorIs(t, err, context.Canceled)
	})

	inBubbleOf(t, func(t *testing.T) {
		cfg := cfg
		cfg.Grace = 50 * time.Millisecond
		cfg.Unhandled = func(Task, error) {}
		rt, err := New(cfg)
		require.NoError(t, err)
		Go(rt, func(cx *Context) error { _, err := NewChan[int](0).Recv(cx.WithoutCancel()); return err })
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("at once"))
		var left *ShutdownError
		require.ErrorAs(t, rt.Shutdown(ctx), &left)
		require.Len(t, left.Tasks, 1)
		require.ErrorIs(t, left, context.Canceled)
	})
}

// Deadlines of connections, and of contexts for dialling, work as in package net: the time that is
// left is computed by the clock of the bubble, and then passes by the real clock.
func TestBubbleDeadlinesAsPackageNet(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	full := tcpFullBacklog(t)
	for name, api := range map[string]struct {
		listen func(network, address string) (net.Listener, error)
		dial   func(ctx context.Context, network, address string) (net.Conn, error)
	}{
		"net":   {net.Listen, new(net.Dialer).DialContext},
		"async": {rt.ListenNet, rt.DialNet},
	} {
		pair := func(t *testing.T) (a, b net.Conn) {
			ln, err := api.listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer ln.Close()
			a, err = api.dial(context.Background(), "tcp", ln.Addr().String())
			require.NoError(t, err)
			b, err = ln.Accept()
			require.NoError(t, err)
			return a, b
		}
		timesOut := func(t *testing.T, c net.Conn) {
			_, err := c.Read(make([]byte, 1))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		}
		reads := func(t *testing.T, a, b net.Conn) {
			_, err := b.Write([]byte("x"))
			require.NoError(t, err)
			_, err = io.ReadFull(a, make([]byte, 1))
			require.NoError(t, err)
		}
		t.Run(name+", set in the bubble", func(t *testing.T) {
			inBubbleOf(t, func(t *testing.T) {
				a, b := pair(t)
				defer a.Close()
				defer b.Close()
				require.NoError(t, a.SetReadDeadline(time.Now().Add(-time.Second)))
				timesOut(t, a)
				require.NoError(t, a.SetReadDeadline(time.Now()))
				timesOut(t, a)
				require.NoError(t, a.SetReadDeadline(time.Now().Add(time.Hour)))
				reads(t, a, b)
				require.NoError(t, a.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
				timesOut(t, a)
				timesOut(t, a)
				require.NoError(t, a.SetReadDeadline(time.Time{}))
				reads(t, a, b)

				// The deadline is put off, and brought forward, while a goroutine reads.
				require.NoError(t, a.SetReadDeadline(time.Now().Add(time.Hour)))
				done := make(chan error, 1)
				go func() {
					_, err := a.Read(make([]byte, 1))
					done <- err
				}()
				require.NoError(t, a.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
				require.ErrorIs(t, <-done, os.ErrDeadlineExceeded)
			})
		})
		t.Run(name+", after the bubble's clock has moved", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := pair(t)
				defer a.Close()
				defer b.Close()
				for _, d := range []time.Duration{time.Hour, 50 * 365 * 24 * time.Hour} {
					time.Sleep(d)
					require.NoError(t, a.SetReadDeadline(time.Now().Add(time.Hour)))
					reads(t, a, b)
					require.NoError(t, a.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
					timesOut(t, a)
				}
			})
		})
		t.Run(name+", set on one side and used on the other", func(t *testing.T) {
			a, b := pair(t)
			defer a.Close()
			defer b.Close()
			require.NoError(t, a.SetReadDeadline(time.Now().Add(time.Hour)))
			inBubbleOf(t, func(t *testing.T) { reads(t, a, b) })
			require.NoError(t, a.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
			inBubbleOf(t, func(t *testing.T) { timesOut(t, a) })
			inBubbleOf(t, func(t *testing.T) { require.NoError(t, a.SetReadDeadline(time.Now().Add(20*time.Millisecond))) })
			timesOut(t, a)
			inBubbleOf(t, func(t *testing.T) {
				require.NoError(t, a.SetReadDeadline(time.Now().Add(time.Hour)))
				reads(t, a, b)
			})
			reads(t, a, b)
		})
		t.Run(name+", dialling", func(t *testing.T) {
			inBubbleOf(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				_, err := api.dial(ctx, "tcp", full)
				var timeout net.Error
				require.ErrorAs(t, err, &timeout)
				require.True(t, timeout.Timeout(), err)

				ctx, cancel = context.WithCancel(t.Context())
				failed := make(chan error, 1)
				go func() {
					_, err := api.dial(ctx, "tcp", full)
					failed <- err
				}()
				cancel()
				require.Error(t, <-failed)
			})
		})
	}
}

// A wait of a goroutine ends with its context, whether the context ends by the clock of the bubble
// or by the real clock.
func TestBubbleContextsEndWaits(t *testing.T) {
	var mu Mutex
	mu.TryLock()
	never := NewChan[int](0)
	rt := newTestRuntime(t, Config{Workers: 1})
	stays := Go(rt, func(cx *Context) error { _, err := never.Recv(cx); return err })
	for name, wait := range map[string]func(ctx context.Context) error{
		"LockBlocking": mu.LockBlocking,
		"RecvBlocking": func(ctx context.Context) error { _, err := NewChan[int](0).RecvBlocking(ctx); return err },
		"SendBlocking": func(ctx context.Context) error { return NewChan[int](0).SendBlocking(ctx, 1) },
		"Wait":         func(ctx context.Context) error { _, err := stays.JoinBlocking(ctx); return err },
		"BlockOn": func(ctx context.Context) error {
			_, err := BlockOn(rt.Under(ctx), func(cx *Context) (int, error) { return never.Recv(cx) })
			return err
		},
		"a task": func(ctx context.Context) error {
			_, err := Go(rt.Under(ctx), func(cx *Context) error { _, err := never.Recv(cx); return err }).JoinBlocking(context.Background())
			return err
		},
		"a task's task": func(ctx context.Context) error {
			s := rt.Under(ctx)
			_, err := Go(rt, func(cx *Context) error {
				_, err := Go(s, func(cx *Context) error { _, err := never.Recv(cx); return err }).Join(cx)
				return err
			}).JoinBlocking(context.Background())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbleOf(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
				require.ErrorIs(t, wait(ctx), context.DeadlineExceeded)

				ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
				done := make(chan error, 1)
				go func() { done <- wait(ctx) }()
				cancel()
				require.ErrorIs(t, <-done, context.Canceled)
				require.ErrorIs(t, wait(ctx), context.Canceled, "has ended")
			})
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				time.Sleep(time.Hour)
				synctest.Wait()
				require.ErrorIs(t, wait(ctx), context.DeadlineExceeded, "has expired by the bubble's clock")
			})
		})
	}
	stays.Cancel()
}

// The code of a task sees the values, the cause and the deadline of a context of a bubble. The
// deadline is by the clock of the worker.
func TestBubbleContextInATask(t *testing.T) {
	type key struct{}
	rt := newTestRuntime(t, Config{Workers: 1})
	cause := errors.New("as the bubble has it")
	inBubbleOf(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
		ctx, cancelTimeout := context.WithTimeout(ctx, time.Hour)
		defer cancelTimeout()
		began := make(chan None, 1)
		outsideBubble(func() { began = make(chan None, 1) })
		h := Spawn(rt.Under(ctx), func(cx *Context) (string, error) {
			deadline, ok := cx.Deadline()
			left := time.Until(deadline)
			if !ok || left <= 0 || left > time.Hour {
				t.Errorf("%v are left until %v", left, deadline)
			}
			inner, cancel := cx.WithTimeout(time.Millisecond) // ends first
			defer cancel()
			if err := Sleep(inner, time.Hour); err != context.DeadlineExceeded {
				t.Error(err)
			}
			began <- None{}
			Sleep(cx, time.Hour)
			if err := context.Cause(cx); err != cause {
				t.Error(err)
			}
			return cx.Value(key{}).(string), cx.Err()
		})
		<-began
		cancel(cause)
		v, err := h.JoinBlocking(context.Background())
		require.Equal(t, "value", v)
		require.ErrorIs(t, err, context.Canceled)

		_, err = BlockOn(rt.Under(ctx), func(*Context) (None, error) { t.Error("it has ended"); return None{}, nil })
		require.ErrorIs(t, err, context.Canceled)

		ctx, stop := context.WithCancel(t.Context())
		ended := SpawnFuture(rt, ContextDoneFuture(ctx))
		stop()
		_, err = ended.JoinBlocking(context.Background())
		require.NoError(t, err)

		_, err = BlockOn(rt.Under(t.Context()), func(cx *Context) (None, error) {
			cx, cancel := cx.WithTimeout(time.Hour)
			defer cancel()
			deadline, _ := cx.Deadline()
			require.Equal(t, time.Hour, time.Until(deadline), "on the bubble's clock, where the bubble looks")
			return None{}, nil
		})
		require.NoError(t, err)
	})
}

// A Context whose channel was first asked for in a bubble may be ended from outside.
func TestBubbleWaitsForTheDoneChannel(t *testing.T) {
	rt, err := New(Config{Workers: 1, Grace: patience})
	require.NoError(t, err)
	asked := make(chan None, 1)
	over := later(func() (int, error) {
		<-asked
		return 0, rt.Shutdown(ended())
	})
	inBubbleOf(t, func(t *testing.T) {
		_, err := BlockOn(rt, func(cx *Context) (None, error) {
			done := cx.Done()
			asked <- None{}
			<-done
			return None{}, cx.Err()
		})
		require.ErrorIs(t, err, context.Canceled)
	})
	require.NoError(t, soon(t, over).err)
}

// Contexts that are derived in a bubble, by package context, from a Context of this package end
// with that Context, also if it is ended from outside.
func TestBubbleDerivesContexts(t *testing.T) {
	rt, err := New(Config{Workers: 1, Grace: patience})
	require.NoError(t, err)
	asked := make(chan None, 1)
	over := later(func() (int, error) {
		<-asked
		return 0, rt.Shutdown(ended())
	})
	inBubbleOf(t, func(t *testing.T) {
		inBlockOn(t, rt, func(cx *Context) error {
			inner, cancel := cx.WithTimeout(time.Millisecond)
			defer cancel()
			ctx, cancel2 := context.WithCancel(inner)
			defer cancel2()
			<-ctx.Done()
			require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)

			ctx, cancel3 := context.WithCancel(cx) // ends before cx does
			done := ctx.Done()
			cancel3()
			<-done
			called := make(chan None, 1)
			require.True(t, context.AfterFunc(cx, func() { called <- None{} })())
			context.AfterFunc(cx, func() { called <- None{} })

			ctx, cancel4 := context.WithTimeout(cx, time.Hour)
			defer cancel4()
			asked <- None{}
			<-ctx.Done()
			require.ErrorIs(t, ctx.Err(), context.Canceled)
			<-called
			context.AfterFunc(cx, func() { called <- None{} })
			<-called
			require.Empty(t, called)
			return nil
		})
	})
	require.NoError(t, soon(t, over).err)
}

// Timers go by the real time: the clock of a bubble stands still while a goroutine waits for them.
func TestBubbleTimers(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	use := func(t *testing.T) {
		before := nanosHere()
		inBlockOn(t, rt, func(cx *Context) error {
			require.NoError(t, Sleep(cx, 2*time.Millisecond))
			_, err := Await(cx, TimeoutFuture(NeverFuture[int](), time.Millisecond))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			_, err = Await(cx, TimeoutFuture(ReadyFuture(1), time.Hour))
			require.NoError(t, err)
			Select(cx, After(time.Millisecond))
			inner, cancel := cx.WithTimeout(time.Millisecond)
			defer cancel()
			require.ErrorIs(t, Sleep(inner, time.Hour), context.DeadlineExceeded)
			return nil
		})
		p, err := NewPoller()
		require.NoError(t, err)
		defer p.Close()
		n, err := p.Wait(make([]PollEvent, 1), time.Millisecond)
		require.NoError(t, err)
		require.Zero(t, n)
		require.Greater(t, nanosHere()-before, int64(5*time.Millisecond))
		var now int64
		outsideBubble(func() { now = nanos() })
		require.Less(t, now-nanosHere(), int64(patience))
	}
	use(t)
	inBubbleOf(t, use)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(100 * 365 * 24 * time.Hour) // beyond the real time
		use(t)
	})
	use(t)
}

// Signals, processes and pollers that are made in a bubble do not belong to it.
func TestBubbleAndTheSystem(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	var signals *SignalStream
	var p *Poller
	inBubbleOf(t, func(t *testing.T) {
		signals = Signals(syscall.SIGUSR1)
		inBlockOn(t, rt, func(cx *Context) error {
			require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGUSR1))
			_, err := signals.Next(cx)
			require.NoError(t, err)
			out, err := Command("echo", "from a process").Output(cx)
			require.Equal(t, "from a process\n", string(out))
			return err
		})
		var err error
		p, err = NewPoller()
		require.NoError(t, err)
		require.NoError(t, p.Notify())
		_, err = p.Wait(make([]PollEvent, 1), -1)
		require.NoError(t, err)
	})
	inBlockOn(t, rt, func(cx *Context) error {
		require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGUSR1))
		_, err := signals.Next(cx)
		return err
	})
	require.NoError(t, signals.Close())
	n, err := p.Wait(make([]PollEvent, 1), 0)
	require.NoError(t, err)
	require.Zero(t, n)
	require.NoError(t, p.Close())
}

// Metrics measure no wake by the clock of a bubble.
func TestBubbleWakeTime(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	c, done := NewChan[int](1), NewChan[int](1)
	Go(rt, func(cx *Context) error {
		for v := range c.All(cx) {
			done.Send(cx, v)
		}
		return nil
	})
	talk := func() {
		for i := range 300 {
			require.NoError(t, c.SendBlocking(context.Background(), i))
			_, err := done.RecvBlocking(context.Background())
			require.NoError(t, err)
		}
	}
	synctest.Test(t, func(t *testing.T) { talk() })
	talk()
	wakes := rt.Metrics().WakeTime
	require.NotZero(t, wakes.Count())
	require.Zero(t, wakes.Counts[len(wakes.Counts)-1])
}
