package async

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNotifyByHand(t *testing.T) {
	wait := waitersOf(t)
	var n Notify
	require.False(t, n.TryWait())
	n.NotifyAll()
	require.False(t, n.TryWait(), "NotifyAll leaves nothing")
	n.NotifyOne()
	n.NotifyOne()
	require.True(t, n.TryWait())
	require.False(t, n.TryWait(), "two were one")
	n.NotifyOne()
	a := newMockWaiter(n.WaitFuture())
	require.True(t, a.ready(t))

	a, b, c := wait(n.WaitFuture()), wait(n.WaitFuture()), wait(n.WaitFuture())
	n.NotifyOne()
	require.True(t, a.woken())
	require.False(t, b.woken() || c.woken())
	require.False(t, n.TryWait(), "it belongs to the one who was woken")
	n.NotifyAll()
	require.True(t, b.woken() && c.woken())
	n.NotifyOne()
	require.True(t, a.ready(t) && b.ready(t) && c.ready(t))
	require.True(t, n.TryWait())
}

// If no other task waits, a notification that is passed on is stored.
func TestNotifyPassedOnWithoutWaiters(t *testing.T) {
	var n Notify
	w := waitersOf(t)(n.WaitFuture())
	n.NotifyOne()
	w.cancel()
	require.True(t, n.TryWait())
	n.notifyFirst()
	require.True(t, n.TryWait(), "who waited has left")
	w = waitersOf(t)(n.WaitFuture())
	w.cancel()
	require.False(t, n.TryWait())
	n.NotifyOne()
	require.True(t, n.TryWait())
}

// A task checks a counter before each wait, and misses no change.
func TestNotifyMissesNothing(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	const times = 2000
	var n Notify
	var sent, seen atomic.Int64
	takes := func(cx *Context) error {
		for seen.Load() < times {
			if s := sent.Load(); s > seen.Load() {
				seen.Store(s)
				continue
			}
			short, cancel := cx.WithCancel()
			if sent.Load()%7 == 0 {
				go cancel()
			}
			n.Wait(short)
			cancel()
		}
		return nil
	}
	h := Go(aimAt(rt, 0), takes)
	sends := Go(aimAt(rt, 1), func(cx *Context) error {
		for range times {
			sent.Add(1)
			n.NotifyOne()
			Yield(cx)
		}
		return nil
	})
	for _, h := range []*JoinHandle[None]{h, sends} {
		_, err := join(t, h)
		require.NoError(t, err)
	}
}

// FuzzNotify checks a Notify against a queue and a flag.
func FuzzNotify(f *testing.F) {
	const wait, one, all, cancel, poll = 0 << 4, 1 << 4, 2 << 4, 3 << 4, 4 << 4
	f.Add([]byte{one, wait, wait | 1, one, one, one, wait | 2})
	f.Add([]byte{wait, wait | 1, one, cancel, poll | 1, wait | 2, all, cancel | 2, wait | 3})
	f.Add([]byte{wait, wait | 1, wait | 2, one, all, cancel, one, cancel | 1, poll | 2})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var n Notify
		type actor struct {
			w     *mockWaiter
			byOne bool
			given bool
		}
		var actors [5]actor
		var queue []*actor
		stored := false
		notifyOne := func() {
			if len(queue) == 0 {
				stored = true
				return
			}
			queue[0].given, queue[0].byOne = true, true
			queue = queue[1:]
		}
		for _, op := range ops {
			a := &actors[int(op&15)%len(actors)]
			switch op & 0x70 {
			case wait:
				if a.w != nil {
					break
				}
				*a = actor{w: newMockWaiter(n.WaitFuture())}
				got := a.w.ready(t)
				require.Equal(t, stored, got)
				if stored = false; got {
					a.w = nil
				} else {
					queue = append(queue, a)
				}
			case one:
				n.NotifyOne()
				notifyOne()
			case all:
				n.NotifyAll()
				for _, q := range queue {
					q.given = true
				}
				queue = nil
			case cancel:
				if a.w == nil {
					break
				}
				a.w.cancel()
				for i, q := range queue {
					if q == a {
						queue = append(queue[:i:i], queue[i+1:]...)
						break
					}
				}
				if a.given && a.byOne {
					notifyOne()
				}
				a.w = nil
			case poll:
				if a.w == nil {
					break
				}
				require.Equal(t, a.given, a.w.woken())
				require.Equal(t, a.given, a.w.ready(t))
				if a.given {
					a.w = nil
				}
			}
			for i := range actors {
				if a := &actors[i]; a.w != nil {
					require.Equal(t, a.given, a.w.woken())
				}
			}
		}
		require.Equal(t, stored, n.TryWait())
	})
}
