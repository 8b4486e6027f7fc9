package async

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// hand is a task that a test polls by hand. It needs no runtime, like the
// primitives.
type hand struct {
	cx    *Context
	wakes atomic.Int32
	seen  int32
}

func newHand() *hand {
	h := new(hand)
	t := newExternalWaker(func() { h.wakes.Add(1) })
	t.cx.t = t
	h.cx = &t.cx
	return h
}

// woken reports whether there was a wake since the last call.
func (h *hand) woken() bool {
	n := h.wakes.Load()
	was := h.seen
	h.seen = n
	return n > was
}

// pending, got and failed poll f and say what must come of it.
func pending[T any](t testing.TB, h *hand, f Future[T]) {
	t.Helper()
	v, err := f.Poll(h.cx)
	require.Equal(t, ErrPending, err, "got %v", v)
}

func got[T any](t testing.TB, want T, h *hand, f Future[T]) {
	t.Helper()
	v, err := f.Poll(h.cx)
	require.NoError(t, err)
	require.Equal(t, want, v)
}

func failed[T any](t testing.TB, want error, h *hand, f Future[T]) {
	t.Helper()
	_, err := f.Poll(h.cx)
	require.Equal(t, want, err)
}

// firmRecv and firmSend are what Recv and Send do between waits.
type firmRecv[T any] struct {
	c *Chan[T]
	w waiter
}

func (f *firmRecv[T]) Poll(cx *Context) (T, error) { return f.c.pollRecv(cx, &f.w, chanFirm) }

// cancel returns what Recv would.
func (f *firmRecv[T]) cancel() (T, bool) { return f.c.cancelRecv(nil, &f.w, true) }

type firmSend[T any] struct {
	c *Chan[T]
	v T
	w waiter
}

func (f *firmSend[T]) Poll(cx *Context) (None, error) {
	return None{}, f.c.pollSend(cx, &f.w, f.v, sendFirm)
}

func (f *firmSend[T]) cancel() error { return f.c.cancelSend(nil, &f.w) }

// settled fails the test unless nobody waits in c for what is there, and nothing is
// left of those who do not wait anymore.
func settled[T any](t testing.TB, c *Chan[T]) {
	t.Helper()
	c.lock()
	defer c.unlock()
	require.Zero(t, c.recvs.called, "receivers have been called and do not come")
	require.Zero(t, c.sends.called, "senders have been called and do not come")
	require.False(t, c.ready() > 0 && c.recvs.list.n > 0, "a receiver waits for what is there")
	if w := c.sends.list.first; w != nil {
		require.LessOrEqual(t, c.room(w.want > 0), 0, "a sender waits for what is there")
	}
	require.Equal(t, len(c.offers.vals)-len(c.offers.free), c.offered(), "offers")
	firm := 0
	for w := c.recvs.list.first; w != nil; w = w.next {
		firm += int(w.want)
	}
	require.Equal(t, firm, c.recvs.firm, "firm receivers")
}

func (c *Chan[T]) offered() (n int) {
	for w := c.sends.list.first; w != nil; w = w.next {
		if w.want > 0 {
			n++
		}
	}
	return n
}
