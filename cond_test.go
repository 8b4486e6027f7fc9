package async

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCondByHand(t *testing.T) {
	wait := waitersOf(t)
	c := NewCond(new(Mutex))
	one := func() *mockWaiter {
		require.True(t, c.L.TryLock(), "the one before has unlocked")
		return wait(c.WaitFuture())
	}
	c.Signal()
	c.Broadcast()
	a, b, d := one(), one(), one()
	c.Signal()
	require.True(t, a.woken())
	require.False(t, b.woken() || d.woken())
	require.True(t, a.ready(t))
	require.False(t, c.L.TryLock(), "it has locked again")

	c.Broadcast()
	require.True(t, b.woken() && d.woken())
	require.False(t, d.ready(t), "they need the lock, too")
	require.False(t, b.ready(t))
	c.L.Unlock()
	require.True(t, d.ready(t))
	c.L.Unlock()
	require.True(t, b.ready(t))
}

// A future that has got its signal and waits for the Mutex passes both on when it is given up.
func TestCondCancelWhileItLocks(t *testing.T) {
	wait := waitersOf(t)
	c := NewCond(new(Mutex))
	c.L.TryLock()
	a := wait(c.WaitFuture())
	c.L.TryLock()
	b := wait(c.WaitFuture())
	c.L.TryLock()
	c.Signal()
	require.False(t, a.ready(t))
	a.cancel()
	require.True(t, b.woken())
	require.False(t, b.ready(t))
	c.L.Unlock()
	require.True(t, b.ready(t))
}

// Wait returns with the Mutex locked even if it is cancelled, and even if locking takes long.
func TestCondCancelled(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	c := NewCond(new(Mutex))
	locked := make(chan bool, 1)
	h := Go(rt, func(cx *Context) error {
		if err := c.L.Lock(cx); err != nil {
			return err
		}
		err := c.Wait(cx)
		locked <- c.L.state.locked() && cx.Err() == context.Canceled
		c.L.Unlock()
		return err
	})
	eventually(t, func() bool { return c.list.count() == 1 && waiting(h) })
	require.True(t, c.L.TryLock())
	h.Cancel()
	eventually(t, func() bool { return c.list.count() == 0 && c.L.list.count() == 1 && waiting(h) })
	require.Empty(t, locked)
	c.L.Unlock()
	_, err := join(t, h)
	require.Equal(t, context.Canceled, err)
	require.True(t, receive(t, locked))
	require.True(t, c.L.TryLock())
}

// Shutdown unwinds a Wait while another goroutine holds the Mutex. Wait cannot lock the Mutex: a
// deferred Unlock unlocks it under that goroutine.
func TestCondUnwound(t *testing.T) {
	rt, err := New(Config{Workers: 1, Grace: 1, Unhandled: func(Task, error) {}})
	require.NoError(t, err)
	c := NewCond(new(Mutex))
	returned := false
	h := Go(rt, func(cx *Context) error {
		c.L.Lock(cx)
		defer c.L.Unlock()
		err := c.Wait(cx.WithoutCancel())
		returned = true
		return err
	})
	eventually(t, func() bool { return c.list.count() == 1 && waiting(h) })
	require.True(t, c.L.TryLock()) // this goroutine has it now
	require.Error(t, rt.Shutdown(ended()))
	_, err = join(t, h)
	require.Equal(t, ErrShutdown, err)
	require.False(t, returned)
	require.True(t, c.L.TryLock(), "the deferred Unlock was of the goroutine's lock")
	require.Zero(t, c.L.list.count())
}

// A queue of one place between tasks of two workers: each signal is needed.
func TestCondExactlyOnce(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	const pairs, each = 3, 300
	notFull, notEmpty := NewCond(new(Mutex)), new(Cond)
	notEmpty.L = notFull.L
	mu := notFull.L
	full, value := false, 0
	got := map[int]int{}
	var all []*JoinHandle[None]
	until := func(cx *Context, c *Cond, cond func() bool, then func()) error {
		if err := mu.Lock(cx); err != nil {
			return err
		}
		defer mu.Unlock()
		for !cond() {
			if err := c.Wait(cx); err != nil {
				return err
			}
		}
		then()
		return nil
	}
	for i := range pairs {
		all = append(all, Go(aimAt(rt, i%2), func(cx *Context) error {
			for j := range each {
				err := until(cx, notFull, func() bool { return !full }, func() { full, value = true, i*each+j; notEmpty.Signal() })
				if err != nil {
					return err
				}
			}
			return nil
		}), Go(aimAt(rt, 1-i%2), func(cx *Context) error {
			for range each {
				err := until(cx, notEmpty, func() bool { return full }, func() { full = false; got[value]++; notFull.Signal() })
				if err != nil {
					return err
				}
				// Some waiters give up, possibly after a signal has chosen them.
				short, cancel := cx.WithCancel()
				h := SpawnBlocking(rt, func() (None, error) { cancel(); return None{}, nil })
				until(short, notFull, func() bool { return !full }, notFull.Signal)
				h.Join(cx)
			}
			return nil
		}))
	}
	for _, h := range all {
		_, err := join(t, h)
		require.NoError(t, err)
	}
	require.Len(t, got, pairs*each)
	for v, n := range got {
		require.Equal(t, 1, n, v)
	}
}
