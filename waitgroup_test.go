package async

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWaitGroupByHand(t *testing.T) {
	var wg WaitGroup
	a := newMockWaiter(wg.WaitFuture())
	require.True(t, a.ready(t))
	wg.Add(2)
	wait := waitersOf(t)
	a, b, gone := wait(wg.WaitFuture()), wait(wg.WaitFuture()), wait(wg.WaitFuture())
	gone.cancel()
	wg.Done()
	require.False(t, a.woken() || a.ready(t))
	wg.Done()
	require.True(t, a.woken() && b.woken())
	require.False(t, gone.woken())
	require.Zero(t, wg.state.bits.Load())
	wg.Add(1)
	require.True(t, a.ready(t) && b.ready(t), "they waited when it was zero")
	requireMisuse(t, misuse(func() { wg.Add(-2) }), "negative")
	c := wait(wg.WaitFuture())
	requireMisuse(t, misuse(func() { wg.Add(-2) }), "negative")
	c.cancel()
	require.EqualValues(t, groupUnit, wg.state.bits.Load())
	wg.Done()
	require.Zero(t, wg.state.bits.Load())
}

// Go counts a task until it has ended, in whatever way it ends.
func TestWaitGroupGo(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2, Unhandled: func(Task, error) {}})
	var wg WaitGroup
	var ran atomic.Int64
	for range 50 {
		wg.Go(rt, func(cx *Context) error { ran.Add(1); return nil })
		wg.Go(rt, func(cx *Context) error { Yield(cx); return errors.New("oh") })
		wg.Go(rt, func(cx *Context) error { panic("oh") })
		wg.Go(rt, func(cx *Context) error { runtime.Goexit(); return nil })
		wg.Go(rt, func(cx *Context) error { _, err := Await(cx, NeverFuture[None]()); return err }).Cancel()
	}
	require.NoError(t, wg.WaitBlocking(t.Context()))
	require.EqualValues(t, 50, ran.Load())

	h := wg.Go(rt, func(cx *Context) error { return nil })
	runInTask(t, rt, func(cx *Context) error {
		if _, err := h.Join(cx); err != nil { // other callers may wait for the task, too
			return err
		}
		return wg.Wait(cx)
	})
	require.NoError(t, rt.Shutdown(ended()))
	_, err := join(t, wg.Go(rt, func(cx *Context) error { return nil }))
	require.Equal(t, ErrShutdown, err)
	require.NoError(t, wg.WaitBlocking(t.Context()), "a task that was refused has ended")
}

// Tasks wait and give up while the count falls to zero, again and again.
func TestWaitGroupStress(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	const rounds = 300
	runInTask(t, rt, func(cx *Context) error {
		for range rounds {
			var wg WaitGroup
			var done atomic.Int64
			for range 4 {
				wg.Go(rt, func(cx *Context) error { done.Add(1); return nil })
			}
			short, cancel := cx.WithCancel()
			h := SpawnBlocking(rt, func() (None, error) { cancel(); return None{}, nil })
			other := Go(rt, func(cx *Context) error { return wg.Wait(cx) })
			wg.Wait(short)
			if err := wg.Wait(cx); err != nil {
				return err
			}
			if n := done.Load(); n != 4 {
				return expect(false, "only %d", n)
			}
			if _, err := other.Join(cx); err != nil {
				return err
			}
			h.Join(cx)
		}
		return nil
	})
}

// One Done too many in a task ends the program, as with package sync. If the runtime went on, it
// would never stop waiting for that task.
func TestWaitGroupDoneTooOften(t *testing.T) {
	if inChild(t) {
		rt, err := New(Config{Workers: 1})
		require.NoError(t, err)
		var wg WaitGroup
		wg.Go(rt, func(*Context) error { wg.Done(); return nil })
		time.Sleep(patience) // only if the program goes on
		fmt.Println("survived")
		return
	}
	out, err := child(t).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "panic: async: negative WaitGroup counter")
	require.NotContains(t, string(out), "survived")
}
