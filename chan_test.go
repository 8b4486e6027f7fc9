package async

import (
	"context"
	"fmt"
	"io"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fill sends 1 to n, for which there must be room.
func fill(t testing.TB, c *Chan[int], n int) {
	t.Helper()
	for i := 1; i <= n; i++ {
		require.NoError(t, c.TrySend(i))
	}
}

// drainChan receives all messages, and checks them.
func drainChan(t testing.TB, c *Chan[int], want ...int) {
	t.Helper()
	for _, w := range want {
		v, err := c.TryRecv()
		require.NoError(t, err)
		require.Equal(t, w, v)
	}
	_, err := c.TryRecv()
	require.NotNil(t, err)
}

func TestChanTry(t *testing.T) {
	c := NewChan[int](2)
	require.Equal(t, 2, c.Cap())
	_, err := c.TryRecv()
	require.Equal(t, ErrEmpty, err)
	fill(t, c, 2)
	require.Equal(t, ErrFull, c.TrySend(3))
	require.Equal(t, 2, c.Len())
	drainChan(t, c, 1, 2)
	require.Zero(t, c.Len())
	require.Panics(t, func() { NewChan[int](-1) })

	c = NewUnboundedChan[int]()
	require.Equal(t, -1, c.Cap())
	fill(t, c, 10000)
	require.Equal(t, 10000, c.Len())
	for i := 1; i <= 10000; i++ {
		v, err := c.TryRecv()
		require.NoError(t, err)
		require.Equal(t, i, v)
	}
	require.LessOrEqual(t, len(c.ring.buf), ringBufferKept, "the room has been given back")

	var zero Chan[int]
	require.Zero(t, zero.Cap())
	require.Equal(t, ErrFull, zero.TrySend(1))
}

// The channel must not keep a message that was received.
func TestChanForgets(t *testing.T) {
	c := NewChan[*int](1)
	require.NoError(t, c.TrySend(new(int)))
	f := &firmSend[*int]{c: c, v: new(int)}
	pending(t, newMockTask(), f)
	for range 2 {
		_, err := c.TryRecv()
		require.NoError(t, err)
	}
	for _, p := range c.ring.buf {
		require.Nil(t, p)
	}
	for _, p := range c.offers.vals {
		require.Nil(t, p)
	}
}

func TestChanRecvWaits(t *testing.T) {
	c := NewChan[int](1)
	h, f := newMockTask(), c.RecvFuture()
	pending(t, h, f)
	pending(t, h, f) // spurious
	senders, receivers := c.waitingCounts()
	require.Equal(t, []int{0, 1}, []int{senders, receivers})
	fill(t, c, 1)
	require.True(t, h.woken())
	got(t, 1, h, f)
	requireNoLostWakes(t, c)
	pending(t, h, f) // the next message
	fill(t, c, 1)
	require.True(t, h.woken())
	got(t, 1, h, f)
}

func TestChanSendWaits(t *testing.T) {
	c := NewChan[int](1)
	fill(t, c, 1)
	h, f := newMockTask(), c.SendFuture(2)
	pending(t, h, f)
	require.False(t, h.woken())
	require.Equal(t, 1, c.Len())
	drainChan(t, c, 1)
	require.True(t, h.woken())
	got(t, None{}, h, f)
	f.Reset(3)
	pending(t, h, f)
	drainChan(t, c, 2)
	got(t, None{}, h, f)
	drainChan(t, c, 3)
	requireNoLostWakes(t, c)
}

// Waiters are served in FIFO order.
func TestChanOrder(t *testing.T) {
	c := NewChan[int](1)
	fill(t, c, 1)
	var senders []*firmSend[int]
	var hands []*mockTask
	for i := range 5 {
		senders, hands = append(senders, &firmSend[int]{c: c, v: i + 2}), append(hands, newMockTask())
		pending(t, hands[i], senders[i])
	}
	for i := range 5 {
		v, err := c.TryRecv()
		require.NoError(t, err)
		require.Equal(t, i+1, v)
		require.True(t, hands[i].woken())
		got(t, None{}, hands[i], senders[i])
	}
	drainChan(t, c, 6)

	var receivers []*RecvFuture[int]
	for i := range 5 {
		receivers = append(receivers, c.RecvFuture())
		pending(t, hands[i], receivers[i])
	}
	for i := range 5 {
		require.NoError(t, c.TrySend(i))
		for j, h := range hands {
			require.Equal(t, j == i, h.woken(), "message %d, receiver %d", i, j)
		}
		got(t, i, hands[i], receivers[i])
	}
	requireNoLostWakes(t, c)
}

// No more receivers are woken than there are messages, and no more senders than
// there is room.
func TestChanWakesNoMore(t *testing.T) {
	c := NewChan[int](8)
	h1, h2 := newMockTask(), newMockTask()
	f1, f2 := c.RecvFuture(), c.RecvFuture()
	pending(t, h1, f1)
	pending(t, h2, f2)
	fill(t, c, 1)
	require.True(t, h1.woken())
	require.False(t, h2.woken())
	drainChan(t, c, 1) // another caller is faster
	pending(t, h1, f1)
	fill(t, c, 1)
	require.True(t, h1.woken(), "it has kept its place")
	require.False(t, h2.woken())
	got(t, 1, h1, f1)
	f2.Cancel()

	fill(t, c, 8)
	s1, s2 := c.SendFuture(1), c.SendFuture(2)
	pending(t, h1, s1)
	pending(t, h2, s2)
	_, err := c.TryRecv()
	require.NoError(t, err)
	require.True(t, h1.woken())
	require.False(t, h2.woken())
	require.NoError(t, c.TrySend(9)) // another caller is faster
	pending(t, h1, s1)
	_, err = c.TryRecv()
	require.NoError(t, err)
	require.True(t, h1.woken(), "it has kept its place")
	require.False(t, h2.woken())
	s1.Cancel()
	require.True(t, h2.woken())
	got(t, None{}, h2, s2)
	requireNoLostWakes(t, c)
}

// A waiter that is cancelled after it was called passes the call on, and nothing is lost.
func TestChanCancelAfterNotify(t *testing.T) {
	h1, h2 := newMockTask(), newMockTask()
	t.Run("recv", func(t *testing.T) {
		c := NewChan[int](2)
		f1, f2 := c.RecvFuture(), c.RecvFuture()
		pending(t, h1, f1)
		pending(t, h2, f2)
		fill(t, c, 1)
		require.True(t, h1.woken())
		f1.Cancel()
		require.True(t, h2.woken())
		got(t, 1, h2, f2)
		requireNoLostWakes(t, c)
	})
	t.Run("recv, order", func(t *testing.T) {
		c := NewChan[int](2)
		f1, f2 := c.RecvFuture(), c.RecvFuture()
		pending(t, h1, f1)
		pending(t, h2, f2)
		fill(t, c, 2)
		f1.Cancel()
		f2.Cancel()
		drainChan(t, c, 1, 2)
		requireNoLostWakes(t, c)
	})
	t.Run("firm recv", func(t *testing.T) {
		c := NewChan[int](2)
		f1, f2 := &firmRecv[int]{c: c}, c.RecvFuture()
		pending(t, h1, f1)
		pending(t, h2, f2)
		h2.woken()
		fill(t, c, 1)
		_, ok := f1.cancel()
		require.False(t, ok)
		require.True(t, h2.woken())
		got(t, 1, h2, f2)
		requireNoLostWakes(t, c)
	})
	t.Run("rendezvous", func(t *testing.T) {
		c := NewChan[int](0)
		f1, f2 := &firmRecv[int]{c: c}, &firmRecv[int]{c: c}
		pending(t, h1, f1)
		pending(t, h2, f2)
		h2.woken()
		s := &firmSend[int]{c: c, v: 1}
		got(t, None{}, h1, s)
		_, ok := f1.cancel()
		require.False(t, ok, "another one is bound to take it")
		require.True(t, h2.woken())
		v, ok := f2.cancel()
		require.True(t, ok, "nobody else is")
		require.Equal(t, 1, v)
		requireNoLostWakes(t, c)
	})
	t.Run("send", func(t *testing.T) {
		c := NewChan[int](1)
		fill(t, c, 1)
		f1, f2 := c.SendFuture(2), c.SendFuture(3)
		pending(t, h1, f1)
		pending(t, h2, f2)
		h2.woken()
		v, err := c.TryRecv()
		require.Equal(t, 1, v)
		require.NoError(t, err)
		require.True(t, h1.woken())
		f1.Cancel()
		require.True(t, h2.woken())
		got(t, None{}, h2, f2)
		drainChan(t, c, 3)
		requireNoLostWakes(t, c)
	})
	t.Run("firm send", func(t *testing.T) {
		c := NewChan[int](1)
		fill(t, c, 1)
		f1, f2, f3 := &firmSend[int]{c: c, v: 2}, &firmSend[int]{c: c, v: 3}, &firmSend[int]{c: c, v: 4}
		pending(t, h1, f1)
		pending(t, h2, f2)
		pending(t, h2, f3)
		_, err := c.TryRecv()
		require.NoError(t, err)
		require.NoError(t, f1.cancel(), "it has been sent")
		require.Equal(t, ErrPending, f2.cancel(), "it has not")
		drainChan(t, c, 2, 4)
		require.NoError(t, f3.cancel())
		requireNoLostWakes(t, c)
	})
	t.Run("reserve", func(t *testing.T) {
		c := NewChan[int](1)
		fill(t, c, 1)
		f1, f2 := c.ReserveFuture(), c.SendFuture(2)
		pending(t, h1, f1)
		pending(t, h2, f2)
		h2.woken()
		drainChan(t, c, 1)
		giveUp(nil, f1)
		require.True(t, h2.woken())
		got(t, None{}, h2, f2)
		requireNoLostWakes(t, c)
	})
}

func TestChanRendezvous(t *testing.T) {
	c := NewChan[int](0)
	h1, h2 := newMockTask(), newMockTask()

	s := &firmSend[int]{c: c, v: 1}
	pending(t, h1, s)
	require.Zero(t, c.Len())
	drainChan(t, c, 1)
	require.True(t, h1.woken())
	got(t, None{}, h1, s)

	// A sender that can wait relies on firm receivers only.
	loose := c.RecvFuture()
	pending(t, h2, loose)
	s = &firmSend[int]{c: c, v: 2}
	pending(t, h1, s)
	require.True(t, h2.woken())
	loose.Cancel()
	require.Equal(t, ErrPending, s.cancel())
	requireNoLostWakes(t, c)

	pending(t, h2, loose)
	pending(t, h1, s)
	got(t, 2, h2, loose)
	got(t, None{}, h1, s)
	requireNoLostWakes(t, c)

	// A sender and a receiver meet even if neither is bound, in either order.
	ls := c.SendFuture(3)
	pending(t, h2, loose)
	got(t, None{}, h1, ls)
	got(t, 3, h2, loose)
	pending(t, h1, ls)
	pending(t, h2, loose)
	require.True(t, h1.woken())
	got(t, None{}, h1, ls)
	got(t, 3, h2, loose)
	requireNoLostWakes(t, c)
	pending(t, h2, loose)
	require.NoError(t, c.TrySend(4))
	loose.Cancel()
	require.Equal(t, ErrFull, c.TrySend(5))
	drainChan(t, c, 4) // it has stayed for the next receiver
	requireNoLostWakes(t, c)

	// A task that polls without a place meets a sender, too.
	_, err := c.PollNext(h2.cx)
	require.Equal(t, ErrPending, err)
	got(t, None{}, h1, c.SendFuture(6))
	require.True(t, h2.woken())
	v, err := c.PollNext(h2.cx)
	require.NoError(t, err)
	require.Equal(t, 6, v)
	send := c.SendFuture(7)
	pending(t, h1, send)
	_, err = c.PollNext(h2.cx)
	require.Equal(t, ErrPending, err)
	require.True(t, h1.woken())
	got(t, None{}, h1, send)
	got(t, 7, h2, loose)
}

func TestChanForceSend(t *testing.T) {
	c := NewChan[int](2)
	fill(t, c, 1)
	_, displaced, err := c.ForceSend(2)
	require.NoError(t, err)
	require.False(t, displaced)
	old, displaced, err := c.ForceSend(3)
	require.NoError(t, err)
	require.True(t, displaced)
	require.Equal(t, 1, old)
	drainChan(t, c, 2, 3)

	p1, err := c.TryReserve()
	require.NoError(t, err)
	p2, err := c.TryReserve()
	require.NoError(t, err)
	old, displaced, err = c.ForceSend(4)
	require.NoError(t, err)
	require.True(t, displaced)
	require.Equal(t, 4, old)
	p1.Release()
	p2.Release()

	rendezvous := NewChan[int](0)
	old, displaced, _ = rendezvous.ForceSend(5)
	require.True(t, displaced)
	require.Equal(t, 5, old)
	f := rendezvous.RecvFuture()
	pending(t, newMockTask(), f)
	_, displaced, _ = rendezvous.ForceSend(5)
	require.False(t, displaced)
	got(t, 5, newMockTask(), f)

	c.Close()
	_, _, err = c.ForceSend(6)
	require.Equal(t, ErrClosed, err)
}

func TestChanPermit(t *testing.T) {
	c := NewChan[int](1)
	p, err := c.TryReserve()
	require.NoError(t, err)
	require.Equal(t, ErrFull, c.TrySend(1))
	_, err = c.TryReserve()
	require.Equal(t, ErrFull, err)
	h := newMockTask()
	f := c.SendFuture(2)
	pending(t, h, f)
	p.Send(1)
	require.False(t, h.woken())
	require.Panics(t, func() { p.Send(1) })
	p.Release() // does nothing
	drainChan(t, c, 1)
	require.True(t, h.woken())
	f.Cancel()

	p, err = c.TryReserve()
	require.NoError(t, err)
	pending(t, h, f)
	p.Release()
	require.True(t, h.woken())
	require.Panics(t, func() { p.Send(1) })
	got(t, None{}, h, f)
	drainChan(t, c, 2)

	// A permit outlives Close, and receivers wait for it.
	p, err = c.TryReserve()
	require.NoError(t, err)
	require.NoError(t, c.Close())
	_, err = c.TryReserve()
	require.Equal(t, ErrClosed, err)
	r1, r2 := c.RecvFuture(), c.RecvFuture()
	h2 := newMockTask()
	pending(t, h, r1)
	pending(t, h2, r2)
	_, err = c.TryRecv()
	require.Equal(t, ErrEmpty, err)
	p.Send(3)
	require.True(t, h.woken())
	got(t, 3, h, r1)
	require.True(t, h2.woken())
	failed(t, ErrClosed, h2, r2)
	requireNoLostWakes(t, c)
}

// After a burst of Sends that had to wait, the memory of their offers is released.
func TestChanOffersShrink(t *testing.T) {
	c := NewChan[int](1)
	for _, n := range []int{ringBufferKept / 2, 3 * ringBufferKept, ringBufferKept / 2} {
		fill(t, c, 1)
		h := newMockTask()
		for i := range n {
			pending(t, h, &firmSend[int]{c: c, v: 2 + i})
		}
		requireNoLostWakes(t, c)
		require.Len(t, c.offers.vals, n)
		for i := range n + 1 {
			drain, err := c.TryRecv()
			require.NoError(t, err)
			require.Equal(t, 1+i, drain)
		}
		requireNoLostWakes(t, c)
		require.LessOrEqual(t, cap(c.offers.vals), ringBufferKept)
		require.LessOrEqual(t, cap(c.offers.free), ringBufferKept)
	}
}

// ForceSend goes before the waiting senders, however often it is called. TrySend and TryReserve do
// not: they fail with ErrFull.
func TestChanForceSendPassesOver(t *testing.T) {
	c := NewChan[int](1)
	fill(t, c, 1)
	h, f := newMockTask(), c.SendFuture(0)
	pending(t, h, f)
	for i := range 2 * chanTurns {
		_, _, err := c.ForceSend(i)
		require.NoError(t, err)
		if i%2 == 0 {
			drainChan(t, c, i)
		}
	}
	_, err := c.TryRecv()
	require.NoError(t, err)
	for range chanTurns {
		if c.TrySend(1) != nil {
			break
		}
		drainChan(t, c, 1)
	}
	require.Equal(t, ErrFull, c.TrySend(1))
	_, err = c.TryReserve()
	require.Equal(t, ErrFull, err)
	require.Zero(t, c.Len(), "there is room, which is kept")
	got(t, None{}, h, f)
	drainChan(t, c, 0)
}

// A capacity that is larger than the memory is allowed.
func TestChanHuge(t *testing.T) {
	for _, n := range []int{math.MaxInt / 2, math.MaxInt} {
		c := NewChan[int](n)
		require.Positive(t, c.Cap())
		h, r := newMockTask(), c.RecvFuture()
		pending(t, h, r)
		require.NoError(t, c.TrySend(1))
		require.True(t, h.woken())
		got(t, 1, h, r)
		requireNoLostWakes(t, c)
	}
}

func TestChanClose(t *testing.T) {
	c := NewChan[int](1)
	fill(t, c, 1)
	h := newMockTask()
	firm, loose, reserve := &firmSend[int]{c: c, v: 2}, c.SendFuture(3), c.ReserveFuture()
	pending(t, h, firm)
	pending(t, h, loose)
	pending(t, h, reserve)
	h2 := newMockTask()
	send := c.SendFuture(4)
	pending(t, h2, send)
	require.False(t, c.IsClosed())
	require.NoError(t, c.Close())
	require.Equal(t, ErrClosed, c.Close())
	require.True(t, c.IsClosed())
	require.True(t, h.woken())
	require.True(t, h2.woken())
	failed(t, ErrClosed, h, firm)
	failed(t, ErrClosed, h, loose)
	failed(t, ErrClosed, h, reserve)
	failed(t, ErrClosed, h2, send)
	require.Equal(t, ErrClosed, c.TrySend(4))
	requireNoLostWakes(t, c)
	got(t, 1, h, c.RecvFuture())
	failed(t, ErrClosed, h, c.RecvFuture())
	_, err := c.TryRecv()
	require.Equal(t, ErrClosed, err)
	_, err = c.PollNext(h.cx)
	require.Equal(t, io.EOF, err)

	// Receivers that wait are woken.
	c = NewChan[int](1)
	f := c.RecvFuture()
	pending(t, h, f)
	_, err = c.PollNext(h2.cx)
	require.Equal(t, ErrPending, err)
	h.woken()
	h2.woken()
	c.Close()
	require.True(t, h.woken())
	require.True(t, h2.woken())
	failed(t, ErrClosed, h, f)
	requireNoLostWakes(t, c)

	// A Send that was refused before it was cancelled returns ErrClosed.
	c = NewChan[int](0)
	firm = &firmSend[int]{c: c}
	pending(t, h, firm)
	c.Close()
	require.Equal(t, ErrClosed, firm.cancel())
	requireNoLostWakes(t, c)
}

func TestChanPoll(t *testing.T) {
	c := NewChan[int](1)
	var _ Stream[int] = c
	h1, h2 := newMockTask(), newMockTask()
	for _, h := range []*mockTask{h1, h2} {
		_, err := c.PollNext(h.cx)
		require.Equal(t, ErrPending, err)
	}
	fill(t, c, 1)
	require.True(t, h1.woken())
	require.True(t, h2.woken())
	v, err := c.PollNext(h1.cx)
	require.NoError(t, err)
	require.Equal(t, 1, v)
	_, err = c.PollNext(h2.cx)
	require.Equal(t, ErrPending, err)

	require.NoError(t, c.TrySend(2))
	require.True(t, h2.woken())
}

// The promise to waiters: other callers go first at most 64 times in a row.
func TestChanFairness(t *testing.T) {
	h := newMockTask()
	t.Run("recv", func(t *testing.T) {
		c := NewUnboundedChan[int]()
		const waiters = 5
		var fs []*RecvFuture[int]
		for range waiters {
			fs = append(fs, c.RecvFuture())
			pending(t, h, fs[len(fs)-1])
		}
		turns := 0
		for i := 0; i < waiters; {
			require.NoError(t, c.TrySend(1))
			switch _, err := c.TryRecv(); {
			case err == nil:
				turns++ // a caller that never waits
				require.LessOrEqual(t, turns, chanTurns)
			default:
				require.Equal(t, ErrEmpty, err, "it must let others go before")
				require.Equal(t, chanTurns, turns)
				turns = 0
				got(t, 1, h, fs[i])
				i++
			}
		}
		requireNoLostWakes(t, c)
	})
	t.Run("send", func(t *testing.T) {
		c := NewChan[int](1)
		fill(t, c, 1)
		f := c.SendFuture(2)
		pending(t, h, f)
		turns := 0
		for {
			drainChan(t, c, 1)
			if c.TrySend(1) != nil {
				break
			}
			turns++
			require.LessOrEqual(t, turns, chanTurns)
		}
		require.Equal(t, chanTurns, turns)
		got(t, None{}, h, f)
		drainChan(t, c, 2)
		requireNoLostWakes(t, c)
	})
	// Polls do not make it busy while they may not go first.
	t.Run("poll", func(t *testing.T) {
		c := NewUnboundedChan[int]()
		f := c.RecvFuture()
		pending(t, h, f)
		p := newMockTask()
		n := 0
		for {
			require.NoError(t, c.TrySend(1))
			if _, err := c.PollNext(p.cx); err == ErrPending {
				break
			}
			n++
			require.LessOrEqual(t, n, chanTurns)
		}
		require.Equal(t, chanTurns, n)
		require.False(t, p.woken())
		require.NoError(t, c.TrySend(1))
		got(t, 1, h, f)
		require.True(t, p.woken())
	})
}

// If a waiter was woken chanTries times and found nothing, the next message, or room, is kept for
// it: no other waiter gets it, and no caller that does not wait.
func TestChanPromise(t *testing.T) {
	h1, h2 := newMockTask(), newMockTask()
	t.Run("recv", func(t *testing.T) {
		c := NewChan[int](2)
		slow := c.RecvFuture()
		pending(t, h1, slow)
		for range chanTries {
			other := c.RecvFuture()
			pending(t, h2, other)
			fill(t, c, 2) // calls both receivers
			got(t, 1, h2, other)
			drainChan(t, c, 2)
			pending(t, h1, slow) // it finds nothing
		}
		other := c.RecvFuture()
		pending(t, h2, other)
		fill(t, c, 2)
		got(t, 1, h2, other)
		pending(t, h2, other)
		_, err := c.TryRecv()
		require.Equal(t, ErrEmpty, err)
		require.Equal(t, 1, c.Len())
		got(t, 2, h1, slow)
		other.Cancel()
		requireNoLostWakes(t, c)
		require.Zero(t, c.recvs.promised)

		// A waiter that is given up keeps nothing.
		slow.w.passed = chanTries
		pending(t, h1, slow)
		slow.w.passed = chanTries
		fill(t, c, 1)
		require.Equal(t, 1, c.recvs.promised)
		slow.Cancel()
		require.Zero(t, c.recvs.promised)
		drainChan(t, c, 1)
	})
	t.Run("send", func(t *testing.T) {
		c := NewChan[int](1)
		fill(t, c, 1)
		slow := c.SendFuture(2)
		pending(t, h1, slow)
		for range chanTries {
			drainChan(t, c, 1)
			fill(t, c, 1)
			pending(t, h1, slow) // it finds no room
		}
		drainChan(t, c, 1)
		require.Equal(t, ErrFull, c.TrySend(1))
		_, displaced, _ := c.ForceSend(1)
		require.True(t, displaced)
		got(t, None{}, h1, slow)
		require.Zero(t, c.sends.promised)
		drainChan(t, c, 2)
	})
}

// Under permanent contention of the tasks of one worker, no task is called more than chanTries+1
// times. Each time it waits for its turn: until each of the other tasks has had one turn, and
// before each of these turns the run-next slot was served nextInARow times. One turn moves at most
// as many messages as the channel holds and receivers wait for.
func TestChanFairnessOfTasks(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	c := NewChan[int](4)
	const (
		receivers, senders, messages = 6, 2, 20000

		bound = (chanTries + 1) * (receivers + senders) * (nextInARow + 1) * (4 + receivers)
	)
	turn := int64(0) // all tasks run on one thread
	spawner := Go(rt, func(cx *Context) error {
		var hs []*JoinHandle[int64]
		for range receivers {
			hs = append(hs, Spawn(cx, func(cx *Context) (worst int64, err error) {
				for before := turn; ; before = turn {
					if _, err := c.Recv(cx); err != nil {
						return worst, nil
					}
					turn++
					worst = max(worst, turn-before)
				}
			}))
		}
		var sending []*JoinHandle[None]
		for range senders {
			sending = append(sending, Go(cx, func(cx *Context) error {
				for j := range messages {
					if err := c.Send(cx, j); err != nil {
						return err
					}
				}
				return nil
			}))
		}
		for _, h := range sending {
			if _, err := h.Join(cx); err != nil {
				return err
			}
		}
		c.Close()
		for _, h := range hs {
			switch worst, err := h.Join(cx); {
			case err != nil:
				return err
			case worst > bound:
				return fmt.Errorf("somebody has waited for %d messages", worst)
			}
		}
		return nil
	})
	_, err := join(t, spawner)
	require.NoError(t, err)
	require.EqualValues(t, senders*messages, turn)
}

func TestChanTasks(t *testing.T) {
	for _, capacity := range []int{0, 1, 4} {
		t.Run(fmt.Sprint(capacity), func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			c := NewChan[int](capacity)
			h := Spawn(rt, func(cx *Context) (sum int, err error) {
				for v := range c.All(cx) {
					sum += v
				}
				_, err = c.Recv(cx)
				return sum, err
			})
			s := Go(rt, func(cx *Context) error {
				for i := range 1000 {
					if err := c.Send(cx, i); err != nil {
						return err
					}
				}
				c.Close()
				return c.Send(cx, 1)
			})
			sum, err := join(t, h)
			require.Equal(t, ErrClosed, err)
			require.Equal(t, 999*500, sum)
			_, err = join(t, s)
			require.Equal(t, ErrClosed, err)
			requireNoLostWakes(t, c)
		})
	}
}

func TestChanCancelledContext(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	c := NewChan[int](2)
	fill(t, c, 1)
	h := Go(rt, func(cx *Context) error {
		cx, cancel := cx.WithCancel()
		cancel()
		_, err := c.Recv(cx)
		require.Equal(t, context.Canceled, err)
		require.Equal(t, context.Canceled, c.Send(cx, 2))
		_, err = c.Reserve(cx)
		require.Equal(t, context.Canceled, err)
		i, err := Select(cx, OnRecv(c))
		require.Equal(t, -1, i)
		require.Equal(t, context.Canceled, err)
		n := 0
		for _, err := range c.All(cx) {
			require.Equal(t, context.Canceled, err)
			n++
		}
		require.Equal(t, 1, n)
		return nil
	})
	_, err := join(t, h)
	require.NoError(t, err)
	drainChan(t, c, 1)
	require.Zero(t, c.reserved)
}

func TestChanDeadline(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	c := NewChan[int](0)
	h := Go(rt, func(cx *Context) error {
		cx, cancel := cx.WithTimeout(time.Millisecond)
		defer cancel()
		_, err := c.Recv(cx)
		return err
	})
	_, err := join(t, h)
	require.Equal(t, context.DeadlineExceeded, err)
	requireNoLostWakes(t, c)
	_, receivers := c.waitingCounts()
	require.Zero(t, receivers)
}

func TestChanBlocking(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for _, capacity := range []int{0, 1} {
		c, back := NewChan[int](capacity), NewChan[int](capacity)
		h := Go(rt, func(cx *Context) error {
			for i := range 100 {
				v, err := c.Recv(cx)
				if err != nil || v != i {
					return fmt.Errorf("%d, not %d: %w", v, i, err)
				}
			}
			for i := range 100 {
				if err := back.Send(cx, i); err != nil {
					return err
				}
			}
			return nil
		})
		for i := range 100 {
			require.NoError(t, c.SendBlocking(t.Context(), i))
		}
		for i := range 100 {
			v, err := back.RecvBlocking(t.Context())
			require.NoError(t, err)
			require.Equal(t, i, v)
		}
		_, err := join(t, h)
		require.NoError(t, err)

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		_, err = c.RecvBlocking(ctx)
		require.Equal(t, context.DeadlineExceeded, err)
		require.Equal(t, context.DeadlineExceeded, c.SendBlocking(ctx, 1))
		_, err = c.reserveBlocking(ctx)
		require.Equal(t, context.DeadlineExceeded, err)
		cancel()
		if capacity > 0 {
			p, err := c.reserveBlocking(t.Context())
			require.NoError(t, err)
			p.Send(1)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
		require.Equal(t, context.DeadlineExceeded, c.SendBlocking(ctx, 1))
		cancel()
		requireNoLostWakes(t, c)

		misuse := Go(rt, func(cx *Context) error {
			require.Panics(t, func() { c.SendBlocking(cx, 1) })
			require.Panics(t, func() { c.RecvBlocking(cx) })
			require.Panics(t, func() { c.reserveBlocking(cx) })
			return nil
		})
		_, err = join(t, misuse)
		require.NoError(t, err)
	}
}

// Shutdown unwinds code that waits in a channel. The code leaves the channel, and other code goes
// on using it.
func TestChanUnwind(t *testing.T) {
	for name, wait := range map[string]func(cx *Context, c *Chan[int]){
		"recv":   func(cx *Context, c *Chan[int]) { c.Recv(cx) },
		"send":   func(cx *Context, c *Chan[int]) { c.Send(cx, 2) },
		"select": func(cx *Context, c *Chan[int]) { Select(cx, OnRecv(c)) },
		"future": func(cx *Context, c *Chan[int]) { Await(cx, c.RecvFuture()) },
	} {
		unwinds := func(t *testing.T) bool {
			rt := newTestRuntime(t, Config{Workers: 1, Grace: time.Millisecond,
				Unhandled: func(_ Task, err error) { t.Error(err) }})
			c := NewChan[int](1)
			if name == "send" {
				fill(t, c, 1)
			}
			h := Go(rt, func(cx *Context) error {
				wait(cx.WithoutCancel(), c)
				return nil
			})
			eventually(t, func() bool { s, r := c.waitingCounts(); return s+r == 1 })
			rt.Shutdown(ended())
			eventually(t, func() bool { s, r := c.waitingCounts(); return s+r == 0 })
			if name == "send" {
				drainChan(t, c, 1)
			} else {
				fill(t, c, 1)
				drainChan(t, c, 1)
			}
			requireNoLostWakes(t, c)
			_, err := join(t, h)
			if err != nil {
				require.Equal(t, ErrShutdown, err)
			}
			return err != nil
		}
		// A task that was woken to be cancelled may not have waited again when the workers stop. It
		// then sees that its Context has ended, and returns. In this case the test tries once more.
		t.Run(name, func(t *testing.T) { eventually(t, func() bool { return unwinds(t) }) })
	}
}

func TestChanWaitReasons(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	c := NewChan[int](0)
	r := Go(rt, func(cx *Context) error { _, err := c.Recv(cx); return err })
	eventually(t, func() bool { return r.info(nil).Waits == "receive" })
	r.Cancel()
	s := Go(rt, func(cx *Context) error { return c.Send(cx, 1) })
	eventually(t, func() bool { return s.info(nil).Waits == "send" })
	s.Cancel()
	l := Go(rt, func(cx *Context) error { _, err := Select(cx, OnRecv(c)); return err })
	eventually(t, func() bool { return l.info(nil).Waits == "select" })
	l.Cancel()
	join(t, l)
}

// Waiting in a channel needs no memory once it has begun.
func TestChanAllocs(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Stall: -1}) // a report allocates
	for _, capacity := range []int{0, 1} {
		c, back := NewChan[int](capacity), NewChan[int](capacity)
		echo := Go(rt, func(cx *Context) error {
			for v := range c.All(cx) {
				back.Send(cx, v)
			}
			return nil
		})
		h := Spawn(rt, func(cx *Context) (float64, error) {
			return testing.AllocsPerRun(1000, func() {
				c.Send(cx, 1)
				back.Recv(cx)
			}), nil
		})
		n, err := join(t, h)
		require.NoError(t, err)
		require.Zero(t, n)
		c.Close()
		join(t, echo)
	}
}

// The promises, with cancellations:
//
//  1. If Send reports that it has sent a message, the message is received exactly once, or is still
//     there.
//  2. If Send reports that it has not sent a message, the message is not received.
//  3. No task is left waiting for a message, or room, that is there.
func TestChanExactlyOnce(t *testing.T) {
	for _, capacity := range []int{0, 1, 4} {
		t.Run(fmt.Sprint(capacity), func(t *testing.T) { chanExactlyOnce(t, capacity) })
	}
}

func chanExactlyOnce(t *testing.T, capacity int) {
	rt := newTestRuntime(t, Config{Workers: 2})
	c := NewChan[int](capacity)
	const senders, messages = 6, 400
	received := make([]atomic.Int32, senders*messages)
	sent := make([]bool, senders*messages) // each written by its sender
	take := func(v int) { received[v].Add(1) }

	// flaky is a Context that is cancelled now and then, at any moment.
	flaky := func(cx *Context, i int) (*Context, context.CancelFunc) {
		cx, cancel := cx.WithCancel()
		if i%3 == 0 {
			go cancel()
		}
		return cx, cancel
	}
	var sending, receiving sync.WaitGroup
	for s := range senders {
		sending.Add(1)
		base := s * messages
		once := func(cx *Context, i int) error {
			cx, cancel := flaky(cx, i)
			defer cancel()
			switch s % 3 {
			case 0:
				return c.Send(cx, base+i)
			case 1:
				_, err := Await(cx, c.SendFuture(base+i))
				return err
			default:
				on := OnSend(c, base+i)
				if i, err := Select(cx, on, OnFuture(NeverFuture[None]())); i != 0 {
					return err
				}
				return on.Err()
			}
		}
		send := func(cx *Context) error {
			defer sending.Done()
			for i := range messages {
				sent[base+i] = once(cx, i) == nil
			}
			return nil
		}
		if s < 4 {
			Go(rt, send)
		} else {
			go BlockOn(rt, func(cx *Context) (None, error) { return None{}, send(cx) })
		}
	}
	for r := range 6 {
		receiving.Add(1)
		once := func(cx *Context, i int) (int, error) {
			cx, cancel := flaky(cx, i)
			defer cancel()
			switch r % 3 {
			case 0:
				return c.Recv(cx)
			case 1:
				return Await(cx, c.RecvFuture())
			default:
				on := OnRecv(c)
				if i, err := Select(cx, on, OnFuture(NeverFuture[None]())); i != 0 {
					return 0, err
				}
				return on.Result()
			}
		}
		recv := func(cx *Context) error {
			defer receiving.Done()
			for i := 0; ; i++ {
				v, err := once(cx, i)
				if err == nil {
					take(v)
				} else if err == ErrClosed {
					return nil
				}
			}
		}
		if r < 4 {
			Go(rt, recv)
		} else {
			go BlockOn(rt, func(cx *Context) (None, error) { return None{}, recv(cx) })
		}
	}
	chanAwaiter(t, &sending)
	c.Close()
	chanAwaiter(t, &receiving)
	for i := range received {
		want := int32(0)
		if sent[i] {
			want = 1
		}
		require.Equal(t, want, received[i].Load(), "message %d", i)
	}
	requireNoLostWakes(t, c)
}

func chanAwaiter(t *testing.T, wg *sync.WaitGroup) {
	t.Helper()
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	receive(t, done)
}

// A caller gives up at the moment at which it is called, ten thousand times. It has got the message
// or the room for which it was called, or it has not, and it reports which. If it has not, the
// message or room is for the other waiter.
func TestChanGivesUpWhileCalled(t *testing.T) {
	h1, h2 := newMockTask(), newMockTask()
	recvs := func(c *Chan[int], i int) (giveUp, call, check func()) {
		f1, f2 := c.RecvFuture(), c.RecvFuture()
		pending(t, h1, f1)
		pending(t, h2, f2)
		h2.woken()
		return f1.Cancel, func() { require.NoError(t, c.TrySend(i)) }, func() {
			require.True(t, h2.woken())
			got(t, i, h2, f2)
		}
	}
	firmRecvs := func(c *Chan[int], i int) (giveUp, call, check func()) {
		f1, f2 := &firmRecv[int]{c: c}, &firmRecv[int]{c: c}
		pending(t, h1, f1)
		pending(t, h2, f2)
		h2.woken()
		kept := false
		return func() { _, kept = f1.cancel() }, func() { require.NoError(t, c.TrySend(i)) }, func() {
			require.False(t, kept, "the other one relies on it")
			require.True(t, h2.woken())
			got(t, i, h2, f2)
		}
	}
	// There is no other waiter. The waiter gets the message, or the message has not been sent.
	firmRecvAlone := func(c *Chan[int], i int) (giveUp, call, check func()) {
		f := &firmRecv[int]{c: c}
		pending(t, h1, f)
		v, ok := 0, false
		var err error
		return func() { v, ok = f.cancel() }, func() { err = c.TrySend(i) }, func() {
			if err != nil {
				require.Equal(t, ErrFull, err)
			}
			require.Equal(t, err == nil, ok)
			require.True(t, !ok || v == i)
		}
	}
	firmSends := func(c *Chan[int], i int) (giveUp, call, check func()) {
		for c.TrySend(-1) == nil {
		}
		f1, f2 := &firmSend[int]{c: c, v: i}, &firmSend[int]{c: c, v: i + 1}
		pending(t, h1, f1)
		pending(t, h2, f2)
		h2.woken()
		var outcome error
		v := 0
		recv := func() {
			var err error
			v, err = c.TryRecv()
			require.NoError(t, err)
		}
		return func() { outcome = f1.cancel() }, recv, func() {
			if c.Cap() > 0 {
				require.Equal(t, -1, v)
				recv() // the message for which the first recv has made room
			}
			if outcome == nil {
				require.Equal(t, i, v)
				recv()
			}
			require.Equal(t, i+1, v)
			require.True(t, h2.woken())
			got(t, None{}, h2, f2)
		}
	}
	sends := func(c *Chan[int], i int) (giveUp, call, check func()) {
		fill(t, c, 1)
		f1, f2 := c.SendFuture(i), c.SendFuture(i+1)
		pending(t, h1, f1)
		pending(t, h2, f2)
		h2.woken()
		return f1.Cancel, func() { drainChan(t, c, 1) }, func() {
			require.True(t, h2.woken())
			got(t, None{}, h2, f2)
			drainChan(t, c, i+1)
		}
	}
	reserves := func(c *Chan[int], i int) (_, call, check func()) {
		fill(t, c, 1)
		f1, f2 := c.ReserveFuture(), c.ReserveFuture()
		pending(t, h1, f1)
		pending(t, h2, f2)
		h2.woken()
		return func() { giveUp(nil, f1) }, func() { drainChan(t, c, 1) }, func() {
			require.True(t, h2.woken())
			p, err := f2.Poll(h2.cx)
			require.NoError(t, err)
			p.Send(i)
			drainChan(t, c, i)
		}
	}
	for name, x := range map[string]struct {
		capacities []int
		round      func(c *Chan[int], i int) (giveUp, call, check func())
	}{
		"RecvFuture":      {[]int{0, 1}, recvs},
		"Recv":            {[]int{0, 1}, firmRecvs},
		"Recv alone":      {[]int{0}, firmRecvAlone},
		"Send":            {[]int{0, 1}, firmSends},
		"SendFuture":      {[]int{1}, sends},
		"Reserve":         {[]int{1}, reserves},
		"Select receives": {[]int{0, 1}, selectsGiveUp(t, h1, h2)},
	} {
		for _, capacity := range x.capacities {
			t.Run(fmt.Sprint(name, " ", capacity), func(t *testing.T) {
				c := NewChan[int](capacity)
				whileCalled(t, func(i int) (giveUp, call, check func()) { return x.round(c, i) })
				requireNoLostWakes(t, c)
			})
		}
	}
}

// whileCalled runs giveUp, which may be another action of the test, in another goroutine while this
// goroutine runs call. Then it runs check.
func whileCalled(t *testing.T, round func(i int) (giveUp, call, check func())) {
	t.Helper()
	rounds := 10000
	if testing.Short() {
		rounds = 2000
	}
	begin, done := make(chan func()), make(chan None)
	defer close(begin)
	go func() {
		for giveUp := range begin {
			giveUp()
			done <- None{}
		}
	}()
	for i := 1; i <= rounds; i++ {
		giveUp, call, check := round(i)
		begin <- giveUp
		if i%2 == 0 {
			runtime.Gosched()
		}
		call()
		<-done
		check()
	}
}
