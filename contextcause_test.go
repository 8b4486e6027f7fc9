package async

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// causes returns an error unless ctx has ended with err and cause, as this package and package
// context see it. It also looks at contexts that were derived from ctx before (derived), and
// derives others now.
func causes(cx *Context, derived context.Context, err, cause error) error {
	now, cancel := context.WithCancel(context.WithValue(cx, "key", 1))
	defer cancel()
	var errs []error
	if err != nil {
		<-cx.Done()
		<-derived.Done()
		<-now.Done()
	}
	for name, ctx := range map[string]context.Context{"itself": cx, "derived": derived, "derived now": now} {
		errs = append(errs, expect(ctx.Err() == err, "%s: Err is %v, not %v", name, ctx.Err(), err),
			expect(context.Cause(ctx) == cause, "%s: context.Cause is %v, not %v", name, context.Cause(ctx), cause))
	}
	return errors.Join(append(errs, expect(cx.Cause() == cause, "Cause is %v, not %v", cx.Cause(), cause))...)
}

func TestContextCause(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	everywhere(t, func(cx *Context) error {
		outer, cancelOuter := cx.WithCancelCause()
		inner, cancelInner := outer.WithCancelCause()
		within, cancelWithin := inner.WithTimeout(time.Hour)
		defer cancelWithin()
		var derived [3]context.Context
		for i, c := range []*Context{outer, inner, within} {
			ctx, cancel := context.WithCancel(c)
			defer cancel()
			derived[i] = ctx
		}
		before := errors.Join(causes(outer, derived[0], nil, nil), causes(within, derived[2], nil, nil))
		cancelInner(first)
		cancelInner(second)
		half := causes(outer, derived[0], nil, nil)
		cancelOuter(second)
		plain, cancel := cx.WithCancel()
		cancel()
		none, cancelNone := cx.WithCancelCause()
		cancelNone(nil)
		return errors.Join(before, half,
			causes(outer, derived[0], context.Canceled, second),
			causes(inner, derived[1], context.Canceled, first),
			causes(within, derived[2], context.Canceled, first),
			causes(plain, plain, context.Canceled, context.Canceled),
			causes(none, none, context.Canceled, context.Canceled),
			causes(cx, cx, nil, nil))
	})
}

func TestContextTimeoutCause(t *testing.T) {
	slow := errors.New("slow")
	everywhere(t, func(cx *Context) error {
		late, cancel := cx.WithTimeoutCause(time.Millisecond, slow)
		defer cancel()
		past, cancelPast := cx.WithDeadlineCause(time.Now().Add(-time.Second), slow)
		defer cancelPast()
		inTime, cancelInTime := cx.WithTimeoutCause(time.Hour, slow)
		cancelInTime()
		usual, cancelUsual := cx.WithTimeout(time.Millisecond)
		defer cancelUsual()
		under, cancelUnder := late.WithTimeoutCause(time.Hour, errors.New("never"))
		defer cancelUnder()
		err1, err2 := Sleep(under, time.Hour), Sleep(usual, time.Hour)
		return errors.Join(
			expect(err1 == context.DeadlineExceeded && err2 == err1, "Sleep: %v, %v", err1, err2),
			causes(late, late, context.DeadlineExceeded, slow),
			causes(under, under, context.DeadlineExceeded, slow),
			causes(past, past, context.DeadlineExceeded, slow),
			causes(inTime, inTime, context.Canceled, context.Canceled),
			causes(usual, usual, context.DeadlineExceeded, context.DeadlineExceeded))
	})
}

func TestJoinHandleCancelCause(t *testing.T) {
	why := errors.New("why")
	rt := newTestRuntime(t, Config{Workers: 2})
	for _, tc := range []struct {
		name   string
		cancel func(h *JoinHandle[None])
		cause  error
	}{
		{"with a cause", func(h *JoinHandle[None]) { h.CancelCause(why); h.CancelCause(errors.New("too late")); h.Cancel() }, why},
		{"without", func(h *JoinHandle[None]) { h.Cancel(); h.CancelCause(why) }, context.Canceled},
		{"nil", func(h *JoinHandle[None]) { h.CancelCause(nil) }, context.Canceled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, watched := range []bool{false, true} {
				h := Go(rt, func(cx *Context) error {
					derived := context.Context(cx)
					if watched {
						d, cancel := context.WithCancel(cx)
						defer cancel()
						derived = d
					}
					child, cancel := cx.WithCancel()
					defer cancel()
					err := Sleep(child, time.Hour)
					return errors.Join(
						expect(err == context.Canceled, "Sleep: %v", err),
						causes(cx, derived, context.Canceled, tc.cause),
						causes(child, child, context.Canceled, tc.cause))
				})
				eventually(t, func() bool { return waiting(h) })
				tc.cancel(h)
				_, err := join(t, h)
				require.NoError(t, err)
				h.CancelCause(why) // does nothing after the end
			}
		})
	}
	t.Run("a plain future", func(t *testing.T) {
		h := SpawnFuture(rt, NeverFuture[int]())
		h.CancelCause(why)
		_, err := join(t, h)
		require.Equal(t, context.Canceled, err)
	})
	t.Run("a blocking call", func(t *testing.T) {
		var ran atomic.Int32
		began, release := make(chan struct{}), make(chan struct{})
		h := SpawnBlocking(rt, func() (int, error) { close(began); <-release; return int(ran.Add(1)), nil })
		receive(t, began)
		h.CancelCause(why)
		require.Equal(t, why, h.cx.Cause())
		close(release)
		v, err := join(t, h)
		require.NoError(t, err)
		require.Equal(t, 1, v)
		require.EqualValues(t, 1, ran.Load(), "cancelling it has run it")
	})
	t.Run("that is returned is no failure", func(t *testing.T) {
		r := new(reports)
		rt := newTestRuntime(t, Config{Workers: 1, Unhandled: r.add})
		h := Go(rt, func(cx *Context) error {
			Sleep(cx, time.Hour)
			return fmt.Errorf("given up: %w", cx.Cause())
		})
		eventually(t, func() bool { return waiting(h) })
		h.CancelCause(why)
		eventually(t, h.state.done)
		require.NoError(t, rt.Shutdown(ended()))
		require.Zero(t, r.count())
	})
}

// The end of the outer Context has also ended the inner Context. This holds even if the deadline of
// the inner Context passes, or the inner Context is cancelled, before any code has looked.
func TestContextOuterEndsFirst(t *testing.T) {
	why := errors.New("why")
	everywhere(t, func(cx *Context) error {
		outer, cancelOuter := cx.WithCancelCause()
		timed, cancelTimed := outer.WithTimeout(time.Hour)
		defer cancelTimed()
		seen, cancelSeen := outer.WithTimeout(time.Hour)
		defer cancelSeen()
		own, cancelOwn := outer.WithCancelCause()
		cancelOuter(why)
		first := seen.Err()
		cancelOwn(errors.New("too late"))
		past, cancelPast := outer.WithTimeout(-1)
		defer cancelPast()
		timed.sc.Load().expire(nil) // as if the hours had passed
		seen.sc.Load().expire(nil)
		return errors.Join(
			expect(first == context.Canceled, "Err: %v", first),
			causes(timed, timed, context.Canceled, why),
			causes(seen, seen, context.Canceled, why),
			causes(own, own, context.Canceled, why),
			causes(past, past, context.Canceled, why))
	})
}

// A task that is cancelled in several ways at the same time has one cause, and always the same.
func TestContextCauseIsStable(t *testing.T) {
	a, b := errors.New("a"), errors.New("b")
	rt := newTestRuntime(t, Config{Workers: 2})
	for range 200 {
		ctx, cancel := context.WithCancelCause(context.Background())
		h := Go(rt.Under(ctx), func(cx *Context) error {
			Sleep(cx, time.Hour)
			first := cx.Cause()
			for range 20 {
				Yield(cx)
				if again := cx.Cause(); again != first || context.Cause(cx) != first {
					return fmt.Errorf("first %v, then %v", first, again)
				}
			}
			return expect(first == a || first == b || first == context.Canceled, "the cause is %v", first)
		})
		var all sync.WaitGroup
		all.Go(func() { cancel(a) })
		all.Go(func() { h.CancelCause(b) })
		all.Go(h.Cancel)
		all.Wait()
		_, err := join(t, h)
		if !errors.Is(err, context.Canceled) { // it may not have begun
			require.NoError(t, err)
		}
	}
}

func TestContextCauseOfShutdown(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	h := Go(rt, func(cx *Context) error {
		err := Sleep(cx, time.Hour)
		return errors.Join(expect(err == context.Canceled, "Sleep: %v", err), causes(cx, cx, context.Canceled, ErrShutdown))
	})
	began, outside := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := BlockOn(rt, func(cx *Context) (None, error) {
			close(began)
			Sleep(cx, time.Hour)
			return None{}, causes(cx, cx, context.Canceled, ErrShutdown)
		})
		outside <- err
	}()
	receive(t, began)
	eventually(t, func() bool { return waiting(h) })
	require.NoError(t, rt.Shutdown(ended()))
	_, err := join(t, h)
	require.NoError(t, err)
	require.NoError(t, receive(t, outside))
}

func TestContextWithoutCancel(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	code := func(cx *Context) error {
		short, cancelShort := cx.WithTimeout(time.Millisecond)
		defer cancelShort()
		Sleep(short, time.Hour)
		past := short.WithoutCancel()
		_, hasDeadline := past.Deadline()
		if err := errors.Join(expect(!hasDeadline, "it has a deadline"), Sleep(past, time.Microsecond)); err != nil {
			return err
		}

		err := Sleep(cx, time.Hour)
		clean := cx.WithoutCancel()
		slow, cancelSlow := clean.WithTimeout(2 * time.Millisecond)
		defer cancelSlow()
		own, cancelOwn := clean.WithCancelCause()
		cancelOwn(ErrBusy)
		std, cancelStd := context.WithCancel(clean)
		defer cancelStd()
		select {
		case <-clean.Done():
			return errors.New("Done is closed")
		case <-std.Done():
			return errors.New("Done of what is derived is closed")
		default:
		}
		_, hasDeadline = clean.Deadline()
		return errors.Join(
			expect(err == context.Canceled && cx.Err() == err, "Sleep: %v, Err: %v", err, cx.Err()),
			expect(!hasDeadline, "it has a deadline"),
			causes(clean, std, nil, nil),
			Sleep(clean, time.Millisecond), Yield(clean),
			expect(Sleep(slow, time.Hour) == context.DeadlineExceeded, "its own limit does not hold"),
			causes(own, own, context.Canceled, ErrBusy),
			expect(cx.Err() == context.Canceled, "the outer one has come back to life"))
	}
	t.Run("task", func(t *testing.T) {
		h := Go(rt, code)
		eventually(t, func() bool { return h.info(nil).Waits == "time" && waiting(h) })
		h.Cancel()
		_, err := join(t, h)
		require.NoError(t, err)
	})
	t.Run("goroutine", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		_, err := BlockOn(rt.Under(ctx), func(cx *Context) (None, error) {
			time.AfterFunc(5*time.Millisecond, cancel)
			return None{}, code(cx)
		})
		require.NoError(t, err)
	})
}

// A Context that is shielded from the cancellation of its task is shielded from every kind of
// cancellation, and keeps the values.
func TestContextWithoutCancelUnderContext(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), "key", "value"), time.Hour)
	defer cancel()
	_, err := BlockOn(rt.Under(ctx), func(cx *Context) (None, error) {
		go cancel() // not earlier: fn would not be called then
		Sleep(cx, time.Hour)
		clean := cx.WithoutCancel()
		_, ok := clean.Deadline()
		return None{}, errors.Join(
			expect(!ok, "it has a deadline"), causes(clean, clean, nil, nil), Sleep(clean, time.Millisecond),
			expect(clean.Value("key") == "value", "it has no value"))
	})
	require.NoError(t, err)
}

// Code that cleans up finishes if the grace is long enough, and is unwound if not. A goroutine in
// BlockOn cannot be unwound: its awaits fail.
func TestShutdownAndWithoutCancel(t *testing.T) {
	t.Run("in time", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 1})
		h := Go(rt, func(cx *Context) error {
			Sleep(cx, time.Hour)
			return Sleep(cx.WithoutCancel(), 20*time.Millisecond)
		})
		eventually(t, func() bool { return waiting(h) })
		require.NoError(t, rt.Shutdown(ended()))
		_, err := join(t, h)
		require.NoError(t, err)
	})
	t.Run("too late", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 1, Grace: 50 * time.Millisecond})
		deferred := make(chan error, 2)
		h := Go(rt, func(cx *Context) error {
			clean := cx.WithoutCancel()
			defer func() { deferred <- errors.Join(causes(clean, clean, context.Canceled, ErrShutdown), Yield(clean)) }()
			return Sleep(clean, time.Hour)
		})
		outside := make(chan error, 1)
		go func() {
			_, err := BlockOn(rt, func(cx *Context) (None, error) {
				clean := cx.WithoutCancel()
				_, err := Await(clean, NeverFuture[int]())
				return None{}, errors.Join(expect(err == context.Canceled, "Await: %v", err),
					causes(clean, clean, context.Canceled, ErrShutdown))
			})
			outside <- err
		}()
		eventually(t, func() bool { return waiting(h) && len(rt.Tasks()) == 2 })
		var se *ShutdownError
		require.ErrorAs(t, rt.Shutdown(ended()), &se)
		require.Len(t, se.Tasks, 2)
		_, err := join(t, h)
		// The goroutine was woken to be cancelled. If it had not begun to wait again when the
		// workers were stopped, it has seen that its Context has ended.
		require.True(t, err == ErrShutdown || err == context.Canceled, "%v", err)
		require.Equal(t, context.Canceled.Error(), receive(t, deferred).Error(), "Yield while it is unwound")
		require.NoError(t, receive(t, outside))
	})
}

// Code that is blocked in a call of SpawnBlocking sees the cancellation and the
// deadline of a Context, through any context that is derived from it.
func TestContextInBlockingCall(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	arrived := make(chan struct{}, 10) // more than there are requests
	over := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-over:
		}
	}))
	defer server.Close()
	defer close(over)
	get := func(ctx context.Context) (None, error) {
		req, err := http.NewRequestWithContext(ctx, "GET", server.URL, nil)
		if err != nil {
			return None{}, err
		}
		tr := &http.Transport{DisableKeepAlives: true}
		resp, err := tr.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		return None{}, err
	}
	fetch := func(cx *Context) error {
		_, err := SpawnBlocking(cx, func() (None, error) { return get(cx) }).Join(cx.WithoutCancel())
		return err
	}
	t.Run("cancel", func(t *testing.T) {
		why := errors.New("why")
		h := Go(rt, fetch)
		receive(t, arrived)
		h.CancelCause(why)
		_, err := join(t, h)
		require.ErrorIs(t, err, why, "net/http says the cause")
	})
	t.Run("deadline", func(t *testing.T) {
		_, err := join(t, Go(rt, func(cx *Context) error {
			short, cancel := cx.WithTimeout(20 * time.Millisecond)
			defer cancel()
			return fetch(short)
		}))
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
	t.Run("the end of the task", func(t *testing.T) {
		h := Spawn(rt, func(cx *Context) (*JoinHandle[None], error) {
			return SpawnBlocking(cx, func() (None, error) {
				ctx, cancel := context.WithTimeout(cx, time.Hour)
				defer cancel()
				return get(ctx)
			}), Sleep(cx, 5*time.Millisecond)
		})
		call, err := join(t, h)
		require.NoError(t, err)
		_, err = join(t, call)
		require.ErrorIs(t, err, context.Canceled)
	})
	t.Run("package net", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer ln.Close()
		runInTask(t, rt, func(cx *Context) error {
			cx, cancel := cx.WithCancel()
			cancel()
			_, err := SpawnBlocking(cx.WithoutCancel(), func() (net.Conn, error) {
				return new(net.Dialer).DialContext(cx, "tcp", ln.Addr().String())
			}).Join(cx.WithoutCancel())
			return expect(err != nil && !os.IsTimeout(err), "DialContext: %v", err)
		})
	})
}
