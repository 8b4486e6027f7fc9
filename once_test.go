package async

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOnce(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	var o Once[int]
	_, ok := o.Get()
	require.False(t, ok)
	var ran atomic.Int64
	var all []*JoinHandle[int]
	for i := range 20 {
		all = append(all, Spawn(aimAt(rt, i%2), func(cx *Context) (int, error) {
			return o.Do(cx, func(cx *Context) (int, error) {
				ran.Add(1)
				Yield(cx)
				return i + 1, nil
			})
		}))
	}
	first, err := join(t, all[0])
	require.NoError(t, err)
	for _, h := range all {
		v, err := join(t, h)
		require.NoError(t, err)
		require.Equal(t, first, v)
	}
	v, ok := o.Get()
	require.True(t, ok)
	require.Equal(t, first, v)
	require.EqualValues(t, 1, ran.Load())
}

// A function that fails, panics, exits or is cancelled leaves the value to the next caller.
func TestOnceTriesAgain(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(Task, error) {}})
	var o Once[string]
	began := make(chan None)
	try := func(fn func(cx *Context) (string, error)) *JoinHandle[string] {
		return Spawn(rt, func(cx *Context) (string, error) { return o.Do(cx, fn) })
	}
	oh := errors.New("oh")
	_, err := join(t, try(func(*Context) (string, error) { return "no", oh }))
	require.Equal(t, oh, err)
	_, err = join(t, try(func(*Context) (string, error) { panic("oh") }))
	require.ErrorContains(t, err, "oh")
	_, err = join(t, try(func(*Context) (string, error) { runtime.Goexit(); return "", nil }))
	require.Equal(t, ErrGoexit, err)
	cancelled := try(func(cx *Context) (string, error) {
		close(began)
		return Await(cx, NeverFuture[string]())
	})
	receive(t, began)
	waits := try(func(*Context) (string, error) { return "made", nil })
	eventually(t, func() bool { return waiting(waits) })
	_, ok := o.Get()
	require.False(t, ok)
	cancelled.Cancel()
	_, err = join(t, cancelled)
	require.Equal(t, context.Canceled, err)
	v, err := join(t, waits)
	require.Equal(t, "made", v)
	require.NoError(t, err)
}

func TestOnceDoFuture(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(Task, error) {}})
	cx, _ := newPollCx(t, rt)
	var o Once[int]
	p := new(probe)
	made := 0
	one := o.DoFuture(func() Future[int] { made++; return p })
	two := o.DoFuture(func() Future[int] { made++; return ReadyFuture(7) })
	giveUp(nil, two)
	_, err := one.Poll(cx)
	require.Equal(t, ErrPending, err)
	_, err = two.Poll(cx)
	require.Equal(t, ErrPending, err)
	giveUp(nil, one)
	require.EqualValues(t, 1, p.cancels.Load())
	_, ok := o.Get()
	require.False(t, ok)
	v, err := two.Poll(cx)
	require.NoError(t, err)
	require.Equal(t, 7, v)
	v, err = one.Poll(cx)
	require.NoError(t, err)
	require.Equal(t, 7, v, "it is made already")
	require.Equal(t, 2, made)
	require.True(t, o.mu.TryLock(), "nobody holds it")

	var panics Once[int]
	_, err = join(t, SpawnFuture(rt, panics.DoFuture(func() Future[int] { panic("oh") })))
	require.ErrorContains(t, err, "oh")
	require.True(t, panics.mu.TryLock())
}

// Once the value is made, no caller needs the lock. A caller whose context has ended still fails.
func TestOnceMade(t *testing.T) {
	var o Once[int]
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	made := func(context.Context) (int, error) { return 1, nil }
	_, err := o.DoBlocking(ctx, made)
	require.NoError(t, err)
	require.True(t, o.mu.TryLock())
	v, err := o.DoBlocking(ctx, made)
	require.NoError(t, err)
	require.Equal(t, 1, v)
	cancel()
	_, err = o.DoBlocking(ctx, made)
	require.Equal(t, context.Canceled, err)
}
