package async

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// onTask runs f in a task of a new runtime.
func onTask(t *testing.T, f func(cx *Context)) {
	t.Helper()
	rt := newTestRuntime(t, Config{Workers: 1})
	_, err := join(t, Go(rt, func(cx *Context) error { f(cx); return nil }))
	require.NoError(t, err)
}

func TestSelect(t *testing.T) {
	onTask(t, func(cx *Context) {
		in, out := NewChan[int](1), NewChan[string](1)
		r, s := OnRecv(in), OnSend(out, "a")
		require.NoError(t, in.TrySend(1))
		require.NoError(t, out.TrySend("full"))
		i, err := Select(cx, r, s)
		require.NoError(t, err)
		require.Equal(t, 0, i)
		v, err := r.Result()
		require.NoError(t, err)
		require.Equal(t, 1, v)

		_, err = out.TryRecv()
		require.NoError(t, err)
		i, err = Select(cx, r, s)
		require.NoError(t, err)
		require.Equal(t, 1, i)
		require.NoError(t, s.Err())
		text, err := out.TryRecv()
		require.NoError(t, err)
		require.Equal(t, "a", text)

		s.Reset("b")
		i, _ = Select(cx, s)
		require.Equal(t, 0, i)
		text, _ = out.TryRecv()
		require.Equal(t, "b", text)

		late := After(time.Millisecond)
		i, err = Select(cx, r, late)
		require.NoError(t, err)
		require.Equal(t, 1, i)
		i, _ = Select(cx, late)
		require.Equal(t, 0, i, "its time has passed")
		begun := time.Now()
		late.Reset(time.Millisecond)
		Select(cx, late)
		require.GreaterOrEqual(t, time.Since(begun), time.Millisecond)

		in.Close()
		out.Close()
		i, _ = Select(cx, r)
		require.Equal(t, 0, i)
		_, err = r.Result()
		require.Equal(t, ErrClosed, err)
		Select(cx, s)
		require.Equal(t, ErrClosed, s.Err())
		requireNoLostWakes(t, in)
		requireNoLostWakes(t, out)
	})
}

// Cases that do not happen lose nothing, whether or not they were called.
func TestSelectLosers(t *testing.T) {
	h := newMockTask()
	a, b := NewChan[int](1), NewChan[int](1)
	require.NoError(t, b.TrySend(0))
	ra, sb := OnRecv(a), OnSend(b, 2)
	f := SelectFuture(ra, sb)
	for range 100 {
		pending(t, h, f)
		h.woken()
		require.NoError(t, a.TrySend(1))
		drainChan(t, b, 0) // both can happen now
		require.True(t, h.woken())
		i, err := f.Poll(h.cx)
		require.NoError(t, err)
		if i == 0 {
			drainChan(t, b)
			drainChan(t, a)
		} else {
			drainChan(t, a, 1)
			drainChan(t, b, 2)
		}
		require.NoError(t, b.TrySend(0))
		requireNoLostWakes(t, a)
		requireNoLostWakes(t, b)
	}
	pending(t, h, f)
	require.NoError(t, a.TrySend(1))
	giveUp(nil, f)
	drainChan(t, a, 1)
	drainChan(t, b, 0)
	requireNoLostWakes(t, a)
	requireNoLostWakes(t, b)
}

// A message for which a losing case was called goes to the next waiter.
func TestSelectPassesOn(t *testing.T) {
	h1, h2 := newMockTask(), newMockTask()
	a, b := NewChan[int](1), NewChan[int](1)
	f := SelectFuture(OnRecv(a), OnRecv(b))
	for range 50 {
		pending(t, h1, f)
		next, also := a.RecvFuture(), b.RecvFuture()
		pending(t, h2, next)
		pending(t, h2, also)
		require.NoError(t, a.TrySend(1))
		require.NoError(t, b.TrySend(1))
		h2.woken()
		i, err := f.Poll(h1.cx)
		require.NoError(t, err)
		require.True(t, h2.woken())
		if i == 0 {
			got(t, 1, h2, also)
			next.Cancel()
		} else {
			got(t, 1, h2, next)
			also.Cancel()
		}
	}
	requireNoLostWakes(t, a)
	requireNoLostWakes(t, b)
}

// selectsGiveUp is a round of TestChanGivesUpWhileCalled: two Selects receive from c, and the first
// is given up.
func selectsGiveUp(t *testing.T, h1, h2 *mockTask) func(c *Chan[int], i int) (giveUp, call, check func()) {
	other := NewChan[int](1)
	return func(c *Chan[int], i int) (_, call, check func()) {
		r := OnRecv(c)
		f1, f2 := SelectFuture(OnRecv(other), OnRecv(c)), SelectFuture(r, OnRecv(other))
		pending(t, h1, f1)
		pending(t, h2, f2)
		h2.woken()
		return func() { giveUp(nil, f1) }, func() { require.NoError(t, c.TrySend(i)) }, func() {
			require.True(t, h2.woken())
			got(t, 0, h2, f2)
			v, err := r.Result()
			require.NoError(t, err)
			require.Equal(t, i, v)
			requireNoLostWakes(t, other)
		}
	}
}

// A Select is polled while both of its cases become possible, ten thousand times: the case
// that does not happen is left to the next waiter.
func TestSelectLosesWhileCalled(t *testing.T) {
	h1, h2 := newMockTask(), newMockTask()
	a, b := NewChan[int](1), NewChan[int](1)
	require.NoError(t, b.TrySend(0))
	whileCalled(t, func(i int) (poll, call, check func()) {
		f := SelectFuture(OnRecv(a), OnSend(b, i))
		pending(t, h1, f)
		recv, send := a.RecvFuture(), b.SendFuture(-i)
		pending(t, h2, recv)
		pending(t, h2, send)
		which, err := -1, ErrPending
		poll = func() { which, err = f.Poll(h1.cx) }
		call = func() {
			require.NoError(t, a.TrySend(i))
			_, err := b.TryRecv()
			require.NoError(t, err)
		}
		return poll, call, func() {
			if err == ErrPending { // the poll was too early
				poll()
			}
			require.NoError(t, err)
			if which == 0 {
				got(t, None{}, h2, send)
				recv.Cancel()
			} else {
				got(t, i, h2, recv)
				send.Cancel()
			}
			requireNoLostWakes(t, a)
			requireNoLostWakes(t, b)
			require.Equal(t, 1, b.Len())
		}
	})
}

func TestSelectRandom(t *testing.T) {
	onTask(t, func(cx *Context) {
		const n, rounds = 10, 5000 // more cases than find room without allocation
		for _, n := range []int{2, 8, n} {
			var cases []Case
			for range n {
				c := NewChan[int](0)
				c.Close()
				cases = append(cases, OnRecv(c))
			}
			counts := make([]int, n)
			for range rounds {
				i, err := Select(cx, cases...)
				require.NoError(t, err)
				counts[i]++
				i, err = SelectInOrder(cx, cases...)
				require.NoError(t, err)
				require.Zero(t, i)
			}
			for i, count := range counts {
				// The tolerance is at least seven standard deviations.
				require.InDelta(t, rounds/n, count, float64(rounds/n/2+1), "case %d of %d", i, n)
			}
		}
		// Futures take part in the order, too.
		c := NewChan[int](0)
		c.Close()
		i, err := SelectInOrder(cx, OnFuture(ReadyFuture(1)), OnRecv(c))
		require.NoError(t, err)
		require.Zero(t, i)
	})
}

// A channel that is closed and empty is seen in the first look, as a channel with a message is.
// Otherwise a Select whose other case can always happen would never see it.
func TestSelectClosed(t *testing.T) {
	onTask(t, func(cx *Context) {
		quit, jobs := NewChan[int](0), NewChan[int](1)
		quit.Close()
		fill(t, jobs, 1)
		q, j := OnRecv(quit), OnRecv(jobs)
		require.Zero(t, trySelect(cx, q))
		_, err := q.Result()
		require.Equal(t, ErrClosed, err)
		i, err := SelectInOrder(cx, q, j)
		require.NoError(t, err)
		require.Zero(t, i)
		seen := [2]int{}
		for range 200 {
			i, err := Select(cx, q, j)
			require.NoError(t, err)
			if seen[i]++; i == 1 {
				fill(t, jobs, 1)
			}
		}
		require.NotZero(t, seen[0])
		require.NotZero(t, seen[1])

		// The case does not happen while a message may still be sent.
		full := NewChan[int](1)
		p, err := full.TryReserve()
		require.NoError(t, err)
		full.Close()
		require.Equal(t, -1, trySelect(cx, OnRecv(full)))
		_, err = full.TryRecv()
		require.Equal(t, ErrEmpty, err)
		p.Release()
		require.Zero(t, trySelect(cx, OnRecv(full)))
	})
}

// counted is a future that counts how often it was given up.
type counted struct {
	Future[int]
	cancels int
}

func (c *counted) Cancel() { c.cancels++ }

func TestSelectFutures(t *testing.T) {
	onTask(t, func(cx *Context) {
		lost, won := &counted{Future: NeverFuture[int]()}, &counted{Future: ReadyFuture(1)}
		f, g := OnFuture(lost), OnFuture(won)
		i, err := Select(cx, f, g)
		require.NoError(t, err)
		require.Equal(t, 1, i)
		v, err := g.Result()
		require.NoError(t, err)
		require.Equal(t, 1, v)
		require.Equal(t, 1, lost.cancels)
		require.Zero(t, won.cancels)
		for _, spent := range []Case{f, g} {
			require.Contains(t, misuse(func() { trySelect(cx, spent) }), "was used in a second Select")
		}
		require.Equal(t, 1, lost.cancels)

		failing := OnFuture(FailedFuture[int](io.ErrUnexpectedEOF))
		Select(cx, failing)
		_, err = failing.Result()
		require.Equal(t, io.ErrUnexpectedEOF, err)

		// A task whose case does not happen goes on, and so does a stream.
		h := Spawn(cx, func(cx *Context) (int, error) { return 3, Sleep(cx, time.Millisecond) })
		elements := NewChan[int](2)
		fill(t, elements, 2)
		j, n := OnJoin(h), OnNext[int](elements)
		i, err = SelectInOrder(cx, j, n)
		require.NoError(t, err)
		require.Equal(t, 1, i)
		v, err = n.Result()
		require.NoError(t, err)
		require.Equal(t, 1, v)
		drainChan(t, elements, 2)
		i, err = Select(cx, j, n)
		require.NoError(t, err)
		require.Zero(t, i)
		v, err = j.Result()
		require.NoError(t, err)
		require.Equal(t, 3, v)
		elements.Close()
		Select(cx, n)
		_, err = n.Result()
		require.Equal(t, io.EOF, err)
	})
}

// Cases that do not happen leave nothing behind, however many tasks have waited for a task, stream
// or value that goes on.
func TestSelectForgets(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	forever := func(cx *Context) error { return second(Await(cx, NeverFuture[None]())) }
	h, set := Go(rt, forever), new(JoinSet[None])
	set.Add(h)
	c, b, w := NewChan[int](0), NewBroadcast[int](1), NewWatch(1)
	signals := Signals(syscall.SIGWINCH)
	defer signals.Close()
	ln, err := join(t, Spawn(rt, func(cx *Context) (Listener, error) { return Listen(cx, "tcp", "127.0.0.1:0") }))
	require.NoError(t, err)
	defer ln.Close()
	in := Incoming(ln)
	var o Oneshot[int]

	for name, x := range map[string]struct {
		make func() Case
		left func() int
	}{
		"OnJoin":               {func() Case { return OnJoin(h) }, func() int { return h.waiters.count() - 1 }}, // 1: the set
		"OnFuture, Oneshot":    {func() Case { return OnFuture(&o) }, o.recvs.count},
		"OnNext, Chan":         {func() Case { return OnNext[int](c) }, c.recvs.polled.count},
		"OnNext, Subscription": {func() Case { return OnNext[int](b.Subscribe()) }, b.topic.count},
		"OnNext, Watcher":      {func() Case { return OnNext[int](w.Watch()) }, w.topic.count},
		"OnNext, JoinSet":      {func() Case { return OnNext[*JoinHandle[None]](set) }, set.slot.count},
		"OnNext, Signals":      {func() Case { return OnNext[os.Signal](signals) }, signals.arrived.count},
		"OnNext, Incoming":     {func() Case { return OnNext[Conn](in) }, ln.(*TCPListener).src.rd.waiters.count},
	} {
		for _, d := range []time.Duration{0, time.Microsecond} {
			var hs []*JoinHandle[int]
			for range 2 * taskListFew {
				hs = append(hs, Spawn(rt, func(cx *Context) (int, error) { return SelectInOrder(cx, x.make(), After(d)) }))
			}
			for _, h := range hs {
				i, err := join(t, h)
				require.NoError(t, err)
				require.Equal(t, 1, i)
			}
			require.Zero(t, x.left(), "%s, %v", name, d)
		}
	}
	require.Equal(t, ErrFull, c.TrySend(1), "nobody waits at the rendezvous")
	h.Cancel()
	join(t, h)
}

// count returns how many tasks wait.
func (s *wakerSlot) count() int {
	switch t := s.p.Load(); {
	case t == nil, t == slotFired:
		return 0
	case t.kind == kindFanout:
		f := t.body.(*fanout)
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.each.len() + f.inOrder.len()
	}
	return 1
}

// A case that can only be polled is polled once before a Select waits.
func TestSelectPollsOnce(t *testing.T) {
	onTask(t, func(cx *Context) {
		polls, other, never := 0, false, NewChan[int](0)
		f := PollFunc(func(cx *Context) (None, error) {
			if polls++; polls > 1 {
				return None{}, nil
			}
			cx.Waker().Wake()
			return None{}, ErrPending
		})
		Go(cx, func(*Context) error { other = true; require.Equal(t, 1, polls); return nil })
		i, err := Select(cx, OnRecv(never), OnFuture(f))
		require.NoError(t, err)
		require.Equal(t, 1, i)
		require.Equal(t, 2, polls)
		require.True(t, other, "nobody else has run")

		other = false
		Go(cx, func(*Context) error { other = true; return nil })
		i, err = Select(cx, OnFuture(YieldFuture()), OnRecv(never))
		require.NoError(t, err)
		require.Zero(t, i)
		require.True(t, other, "nobody else has run")

		// Cases that are used again are polled again.
		elements, next := NewChan[int](1), NewChan[int](1)
		n, r := OnNext[int](elements), OnRecv(next)
		h := Go(cx, func(cx *Context) error { return nil })
		j := OnJoin(h)
		fill(t, next, 1)
		i, _ = SelectInOrder(cx, j, n, r)
		require.Equal(t, 2, i)
		fill(t, elements, 1)
		i, _ = SelectInOrder(cx, j, n, r)
		require.Equal(t, 1, i)
		fill(t, elements, 1)
		got(t, 1, &mockTask{cx: cx}, SelectInOrderFuture(j, n, r))
		Yield(cx)
		got(t, 0, &mockTask{cx: cx}, SelectInOrderFuture(j, n, r))
	})
}

// A future that panics ends the Select; the other cases are given up.
func TestSelectPanic(t *testing.T) {
	onTask(t, func(cx *Context) {
		c := NewChan[int](0)
		lost := &counted{Future: NeverFuture[int]()}
		polls := 0
		f := PollFunc(func(cx *Context) (None, error) {
			if polls++; polls > 1 {
				panic("future")
			}
			cx.Waker().Wake()
			return None{}, ErrPending
		})
		require.PanicsWithValue(t, "future", func() { SelectInOrder(cx, OnRecv(c), OnFuture(lost), OnFuture(f)) })
		require.Equal(t, 1, lost.cancels)
		_, receivers := c.waitingCounts()
		require.Zero(t, receivers)
		requireNoLostWakes(t, c)
		f = PollFunc(func(cx *Context) (None, error) { panic("future") })
		lost = &counted{Future: NeverFuture[int]()}
		require.PanicsWithValue(t, "future", func() { trySelect(cx, OnRecv(c), OnFuture(f), OnFuture(lost)) })
		require.Equal(t, 1, lost.cancels)
	})
}

func TestSelectTry(t *testing.T) {
	onTask(t, func(cx *Context) {
		c := NewChan[int](1)
		r := OnRecv(c)
		require.Equal(t, -1, trySelect(cx, r, After(time.Hour)))
		_, receivers := c.waitingCounts()
		require.Zero(t, receivers)
		require.Equal(t, 1, trySelect(cx, r, OnSend(c, 1)))
		require.Equal(t, 0, trySelect(cx, r, After(time.Hour)))
		require.Equal(t, 1, trySelect(cx, r, After(-1)))
		require.Equal(t, -1, trySelect(cx))
	})
}

// TrySelect finds the messages that are there, even after many operations without a wait.
func TestSelectTryDrains(t *testing.T) {
	onTask(t, func(cx *Context) {
		const n = 3 * operationsPerPoll
		c := NewChan[int](n)
		for _, of := range []func() Case{
			func() Case { return OnRecv(c) },
			func() Case { return OnNext[int](c) },
			func() Case { return OnFuture(c.RecvFuture()) },
		} {
			fill(t, c, n)
			for i := range n {
				require.Zero(t, trySelect(cx, of()), "element %d", i)
			}
			require.Equal(t, -1, trySelect(cx, of()))
		}
		// TrySelect leaves the budget of operations that wait as it was.
		other := false
		Go(cx, func(*Context) error { other = true; return nil })
		fill(t, c, n)
		for !other {
			_, err := c.Recv(cx)
			require.NoError(t, err)
			trySelect(cx, OnRecv(c))
		}
	})
}

// A case of a nil channel never happens.
func TestSelectNil(t *testing.T) {
	onTask(t, func(cx *Context) {
		r, s := OnRecv[int](nil), OnSend[int](nil, 1)
		i, err := Select(cx, r, s, After(time.Millisecond))
		require.NoError(t, err)
		require.Equal(t, 2, i)
	})
}

func TestSelectCancelled(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	c := NewChan[int](0)
	lost := &counted{Future: NeverFuture[int]()}
	h := Spawn(rt, func(cx *Context) (int, error) { return Select(cx, OnRecv(c), OnSend(c, 1), OnFuture(lost)) })
	empty := Spawn(rt, func(cx *Context) (int, error) { return Select(cx) })
	future := Spawn(rt, func(cx *Context) (int, error) { return Await(cx, SelectFuture()) })
	for _, h := range []*JoinHandle[int]{empty, future} {
		eventually(t, func() bool { return waiting(h) })
		h.Cancel()
		_, err := join(t, h)
		require.Equal(t, context.Canceled, err)
	}
	h.Cancel()
	_, err := join(t, h)
	require.True(t, err == nil || errors.Is(err, context.Canceled)) // it may get its own message
	require.Equal(t, 1, lost.cancels)
	requireNoLostWakes(t, c)

	c = NewChan[int](0)
	h = Spawn(rt, func(cx *Context) (int, error) {
		cx, cancel := cx.WithTimeout(time.Millisecond)
		defer cancel()
		return Select(cx, OnRecv(c))
	})
	i, err := join(t, h)
	require.Equal(t, -1, i)
	require.Equal(t, context.DeadlineExceeded, err)
	requireNoLostWakes(t, c)
}

// A plain future selects, too.
func TestSelectPlainFuture(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for range 100 {
		got(t, 0, newMockTask(), SelectInOrderFuture(OnFuture(ReadyFuture(1)), OnFuture(ReadyFuture(2))))
	}
	firsts := 0
	for range 100 {
		i, err := SelectFuture(OnFuture(ReadyFuture(1)), OnFuture(ReadyFuture(2))).Poll(newMockTask().cx)
		require.NoError(t, err)
		firsts += 1 - i
	}
	require.NotContains(t, []int{0, 100}, firsts)
	c := NewChan[int](0)
	r := OnRecv(c)
	h := SpawnFuture(rt, SelectFuture(r, OnFuture(NeverFuture[int]())))
	require.NoError(t, c.SendBlocking(t.Context(), 5))
	i, err := join(t, h)
	require.NoError(t, err)
	require.Zero(t, i)
	v, err := r.Result()
	require.NoError(t, err)
	require.Equal(t, 5, v)
}

// The common cases allocate nothing when they are used again.
func TestSelectAllocs(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	c, back, never := NewChan[int](0), NewChan[int](0), NewChan[int](0)
	echo := Go(rt, func(cx *Context) error {
		for v := range c.All(cx) {
			back.Send(cx, v)
		}
		return nil
	})
	h := Spawn(rt, func(cx *Context) (float64, error) {
		r, s, n, late := OnRecv(back), OnSend(c, 1), OnRecv(never), After(time.Hour)
		return testing.AllocsPerRun(1000, func() {
			Select(cx, n, s, late)
			Select(cx, n, r, late)
		}), nil
	})
	n, err := join(t, h)
	require.NoError(t, err)
	require.Zero(t, n)
	c.Close()
	join(t, echo)
}

// A Select whose cx is cancelled before the call gives its futures up, like a Select that is
// cancelled later.
func TestSelectWithACancelledContextGivesUp(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	p := new(probe)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		gone, cancel := cx.WithCancel()
		cancel()
		h := Go(cx, func(cx *Context) error { return Sleep(cx, time.Hour) })
		i, err := Select(gone, OnFuture[int](p), OnFuture(h))
		if i != -1 || err != context.Canceled {
			return expect(false, "%d, %v", i, err)
		}
		_, err = h.Join(cx)
		return expect(err == context.Canceled, "the task: %v", err)
	}))
	require.EqualValues(t, 1, p.cancels.Load())
}
