package async

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// mockTask is a task that only counts how often it is woken. A test polls with it. It needs no
// runtime, since the primitives need none.
type mockTask struct {
	t        *task
	cx       *Context
	wakes    atomic.Int32
	seen     int32         // wakes at the last call of woken
	notified chan struct{} // gets a value at a wake if there is none
}

func newMockTask() *mockTask {
	m := &mockTask{notified: make(chan struct{}, 1)}
	m.t = newExternalWaker(func() {
		m.wakes.Add(1)
		notifyChan(m.notified)
	})
	m.t.cx.t = m.t
	m.cx = &m.t.cx
	return m
}

func newMockTasks(n int) []*mockTask {
	ms := make([]*mockTask, n)
	for i := range ms {
		ms[i] = newMockTask()
	}
	return ms
}

// woken reports whether there was a wake since the last call.
func (m *mockTask) woken() bool {
	n := m.wakes.Load()
	was := m.seen
	m.seen = n
	return n > was
}

// mockWaiter is a mockTask that polls one future of a primitive.
type mockWaiter struct {
	*mockTask
	f Future[None]
}

func newMockWaiter(f Future[None]) *mockWaiter { return &mockWaiter{newMockTask(), f} }

// ready polls f and reports whether it is ready.
func (m *mockWaiter) ready(t testing.TB) bool {
	t.Helper()
	err := m.poll()
	if err != ErrPending {
		require.NoError(t, err)
	}
	return err == nil
}

func (m *mockWaiter) poll() error {
	m.seen = m.wakes.Load()
	_, err := m.f.Poll(m.cx)
	return err
}

// woken reports whether there was a wake since the last poll.
func (m *mockWaiter) woken() bool { return m.wakes.Load() > m.seen }

func (m *mockWaiter) cancel() { giveUp(nil, m.f) }

// pending, got and failed poll f and check the outcome.
func pending[T any](t testing.TB, h *mockTask, f Future[T]) {
	t.Helper()
	v, err := f.Poll(h.cx)
	require.Equal(t, ErrPending, err, "got %v", v)
}

func got[T any](t testing.TB, want T, h *mockTask, f Future[T]) {
	t.Helper()
	v, err := f.Poll(h.cx)
	require.NoError(t, err)
	require.Equal(t, want, v)
}

func failed[T any](t testing.TB, want error, h *mockTask, f Future[T]) {
	t.Helper()
	_, err := f.Poll(h.cx)
	require.Equal(t, want, err)
}

// firmRecv and firmSend do the same as Recv and Send between waits.
type firmRecv[T any] struct {
	c *Chan[T]
	w waiter
}

func (f *firmRecv[T]) Poll(cx *Context) (T, error) { return f.c.pollRecv(cx, &f.w, chanFirm) }

// cancel returns the result that Recv would return.
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

// requireNoLostWakes fails the test if a party waits in c for a message or for room that is there,
// or if the channel still refers to parties that no longer wait.
func requireNoLostWakes[T any](t testing.TB, c *Chan[T]) {
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
