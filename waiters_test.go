package async

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// baton is a primitive whose waiters are given a lock, permits or a notification that must not be
// lost. setUp returns two waiters, and pass, which releases the thing that the first waiter gets,
// or the second if the first gives up. give releases it again.
type baton struct {
	name  string
	setUp func(wait func(Future[None]) *mockWaiter) (first, second *mockWaiter, pass, give func())
}

var batons = []baton{
	{"Mutex", func(wait func(Future[None]) *mockWaiter) (_, _ *mockWaiter, pass, give func()) {
		m := new(Mutex)
		m.TryLock()
		return wait(m.LockFuture()), wait(m.LockFuture()), m.Unlock, m.Unlock
	}},
	{"Mutex handed over", func(wait func(Future[None]) *mockWaiter) (_, _ *mockWaiter, pass, give func()) {
		m := new(Mutex)
		m.TryLock()
		first, second := wait(m.LockFuture()), wait(m.LockFuture())
		for range mutexTries {
			m.Unlock()
			m.TryLock()
			first.poll()
		}
		return first, second, m.Unlock, m.Unlock
	}},
	{"RWMutex.Lock behind a writer", func(wait func(Future[None]) *mockWaiter) (_, _ *mockWaiter, pass, give func()) {
		m := new(RWMutex)
		m.TryLock()
		return wait(m.LockFuture()), wait(m.LockFuture()), m.Unlock, m.Unlock
	}},
	{"RWMutex.Lock behind a reader", func(wait func(Future[None]) *mockWaiter) (_, _ *mockWaiter, pass, give func()) {
		m := new(RWMutex)
		m.TryRLock()
		return wait(m.LockFuture()), wait(m.LockFuture()), m.RUnlock, m.Unlock
	}},
	{"RWMutex.RLock behind a writer that gives up", func(wait func(Future[None]) *mockWaiter) (_, _ *mockWaiter, pass, give func()) {
		m := new(RWMutex)
		m.TryRLock()
		writer := wait(m.LockFuture())
		return wait(m.RLockFuture()), wait(m.RLockFuture()), writer.cancel, m.RUnlock
	}},
	{"RWMutex.RLock", func(wait func(Future[None]) *mockWaiter) (_, _ *mockWaiter, pass, give func()) {
		m := new(RWMutex)
		m.TryLock()
		return wait(m.RLockFuture()), wait(m.RLockFuture()), m.Unlock, m.RUnlock
	}},
	{"RWMutex.RLock, then Lock", func(wait func(Future[None]) *mockWaiter) (_, _ *mockWaiter, pass, give func()) {
		m := new(RWMutex)
		m.TryLock()
		return wait(m.RLockFuture()), wait(m.LockFuture()), m.Unlock, nil
	}},
	{"RWMutex.ULock", func(wait func(Future[None]) *mockWaiter) (_, _ *mockWaiter, pass, give func()) {
		m := new(RWMutex)
		m.TryULock()
		return wait(m.ULockFuture()), wait(m.ULockFuture()), m.UUnlock, m.UUnlock
	}},
	{"RWMutex.Upgrade, then RLock", func(wait func(Future[None]) *mockWaiter) (_, _ *mockWaiter, pass, give func()) {
		m := new(RWMutex)
		m.TryULock()
		m.TryRLock()
		return wait(m.UpgradeFuture()), wait(m.RLockFuture()), m.RUnlock, nil
	}},
	{"Semaphore", func(wait func(Future[None]) *mockWaiter) (_, _ *mockWaiter, pass, give func()) {
		s := NewSemaphore(3)
		s.TryAcquire(3)
		release := func() { s.Release(3) }
		return wait(s.AcquireFuture(3)), wait(s.AcquireFuture(2)), release, nil
	}},
	{"Cond", func(wait func(Future[None]) *mockWaiter) (_, _ *mockWaiter, pass, give func()) {
		c := NewCond(new(Mutex))
		one := func() *mockWaiter {
			c.L.TryLock()
			return wait(c.WaitFuture())
		}
		return one(), one(), c.Signal, func() { c.L.Unlock(); c.Signal() }
	}},
	{"Once", func(wait func(Future[None]) *mockWaiter) (_, _ *mockWaiter, pass, give func()) {
		o, p := new(Once[None]), new(probe)
		maker := wait(o.DoFuture(func() Future[None] { return noneOf{p} }))
		again := func() Future[None] { return ReadyFuture(None{}) }
		return wait(o.DoFuture(again)), wait(o.DoFuture(again)), maker.cancel, func() {}
	}},
	{"Notify", func(wait func(Future[None]) *mockWaiter) (_, _ *mockWaiter, pass, give func()) {
		n := new(Notify)
		return wait(n.WaitFuture()), wait(n.WaitFuture()), n.NotifyOne, n.NotifyOne
	}},
}

// noneOf is a probe as a future of nothing.
type noneOf struct{ *probe }

func (n noneOf) Poll(cx *Context) (None, error) {
	_, err := n.probe.Poll(cx)
	return None{}, err
}

// waitersOf returns a function that makes waiters of futures. The futures must be pending.
func waitersOf(t testing.TB) func(Future[None]) *mockWaiter {
	return func(f Future[None]) *mockWaiter {
		h := newMockWaiter(f)
		require.False(t, h.ready(t))
		return h
	}
}

// A waiter that was chosen and gives up passes on the thing that it was given.
func TestCancelAfterChosen(t *testing.T) {
	for _, b := range batons {
		t.Run(b.name, func(t *testing.T) {
			first, second, pass, _ := b.setUp(waitersOf(t))
			require.False(t, first.woken())
			pass()
			require.True(t, first.woken(), "the first is chosen")
			first.cancel()
			require.True(t, second.woken(), "the second is chosen instead")
			require.True(t, second.ready(t))
		})
	}
}

// The waiters get the thing one after another. A waiter that gives up before it is chosen does not
// stop the others.
func TestCancelBeforeChosen(t *testing.T) {
	for _, b := range batons {
		t.Run(b.name+"/first", func(t *testing.T) {
			first, second, pass, _ := b.setUp(waitersOf(t))
			first.cancel()
			pass()
			require.True(t, second.woken())
			require.True(t, second.ready(t))
		})
		t.Run(b.name+"/second", func(t *testing.T) {
			first, second, pass, _ := b.setUp(waitersOf(t))
			second.cancel()
			pass()
			require.True(t, first.woken())
			require.True(t, first.ready(t))
		})
		t.Run(b.name+"/none", func(t *testing.T) {
			first, second, pass, give := b.setUp(waitersOf(t))
			pass()
			require.True(t, first.ready(t))
			if give != nil {
				give()
				require.True(t, second.woken())
				require.True(t, second.ready(t))
			}
		})
	}
}

// The first waiter is given up while another goroutine chooses it, ten thousand times. In either
// order, the second waiter gets the thing.
func TestCancelWhileChosen(t *testing.T) {
	const times = 10_000
	for _, b := range batons {
		t.Run(b.name, func(t *testing.T) {
			begin, passed := make(chan func()), make(chan None)
			defer close(begin)
			go func() {
				for pass := range begin {
					pass()
					passed <- None{}
				}
			}()
			for range times {
				first, second, pass, _ := b.setUp(waitersOf(t))
				begin <- pass
				first.cancel()
				<-passed
				require.True(t, second.woken())
				require.True(t, second.ready(t))
			}
		})
	}
}

// If no other task waits, the thing is there for the next caller.
func TestCancelWhileChosenAlone(t *testing.T) {
	var m Mutex
	var n Notify
	s := NewSemaphore(2)
	var rw RWMutex
	require.True(t, m.TryLock() && s.TryAcquire(2) && rw.TryLock())
	for name, x := range map[string]struct {
		future func() Future[None]
		pass   func()
		take   func() bool // it also sets up the next round
	}{
		"Mutex":         {m.LockFuture, m.Unlock, m.TryLock},
		"RWMutex.Lock":  {rw.LockFuture, rw.Unlock, rw.TryLock},
		"RWMutex.RLock": {rw.RLockFuture, rw.Unlock, rw.TryLock},
		"Semaphore":     {func() Future[None] { return s.AcquireFuture(1) }, func() { s.Release(2) }, func() bool { return s.TryAcquire(2) }},
		"Notify":        {n.WaitFuture, n.NotifyOne, n.TryWait},
	} {
		begin, passed := make(chan None), make(chan None)
		go func() {
			for range begin {
				x.pass()
				passed <- None{}
			}
		}()
		wait := waitersOf(t)
		for range 10_000 {
			w := wait(x.future())
			begin <- None{}
			w.cancel()
			<-passed
			require.True(t, x.take(), name)
		}
		close(begin)
	}
}

// A waiter that was chosen by an event for all waiters has nothing to pass on.
func TestCancelAfterChosenByAll(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	wait := waitersOf(t)

	n := new(Notify)
	w := wait(n.WaitFuture())
	n.NotifyAll()
	w.cancel()
	require.False(t, n.TryWait())

	c := NewCond(new(Mutex))
	c.L.TryLock()
	w = wait(c.WaitFuture())
	c.Broadcast()
	c.L.TryLock()
	late := wait(c.WaitFuture())
	w.cancel()
	require.False(t, late.woken())

	var wg WaitGroup
	wg.Add(1)
	w = wait(wg.WaitFuture())
	wg.Done()
	wg.Add(1)
	w.cancel()
	late = wait(wg.WaitFuture())
	require.False(t, late.woken())

	b := NewBarrier(2)
	party := b.WaitFuture()
	cx, _ := newPollCx(t, rt)
	_, err := party.Poll(cx)
	require.Equal(t, ErrPending, err)
	leader, err := b.WaitFuture().Poll(cx)
	require.NoError(t, err)
	require.True(t, leader)
	giveUp(nil, party)
	_, err = b.WaitFuture().Poll(cx)
	require.Equal(t, ErrPending, err, "a new round needs two again")
}

// A future may be given up before its first poll, and used again after it was ready.
func TestFuturesUsedAgain(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	cx, _ := newPollCx(t, rt)
	var m Mutex
	var rw RWMutex
	s := NewSemaphore(1)
	for name, x := range map[string]struct {
		f    Future[None]
		undo func()
	}{
		"Mutex":        {m.LockFuture(), m.Unlock},
		"RWMutex":      {rw.LockFuture(), rw.Unlock},
		"RWMutex read": {rw.RLockFuture(), rw.RUnlock},
		"Semaphore":    {s.AcquireFuture(1), func() { s.Release(1) }},
	} {
		giveUp(nil, x.f)
		for range 3 {
			_, err := x.f.Poll(cx)
			require.NoError(t, err, name)
			x.undo()
		}
		giveUp(nil, x.f)
		require.True(t, m.TryLock() && rw.TryLock() && s.TryAcquire(1), name)
		m.Unlock()
		rw.Unlock()
		s.Release(1)
	}
}

// An await with a Context that is cancelled fails even if it could succeed at once, and then holds
// nothing.
func TestWaitersCancelledContext(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		var (
			m  Mutex
			rw RWMutex
			s  = NewSemaphore(1)
			n  Notify
			wg WaitGroup
			b  = NewBarrier(1)
			o  Once[int]
			c  = NewCond(&m)
		)
		n.NotifyOne()
		over, cancel := cx.WithCancel()
		cancel()
		for name, err := range map[string]error{
			"Lock":      m.Lock(over),
			"RLock":     rw.RLock(over),
			"RW Lock":   rw.Lock(over),
			"ULock":     rw.ULock(over),
			"Acquire":   s.Acquire(over, 1),
			"Notify":    n.Wait(over),
			"WaitGroup": wg.Wait(over),
			"Barrier":   second(b.Wait(over)),
			"Once":      second(o.Do(over, func(*Context) (int, error) { return 1, nil })),
		} {
			if err != context.Canceled {
				return fmt.Errorf("%s: %v", name, err)
			}
		}
		if !m.TryLock() || !rw.TryLock() || !s.TryAcquire(1) || !n.TryWait() {
			return fmt.Errorf("something is held or lost")
		}
		if err := c.Wait(over); err != context.Canceled || m.TryLock() {
			return fmt.Errorf("Cond: %v", err)
		}
		rw.Downgrade()
		rw.RUnlock()
		rw.TryULock()
		if err := rw.Upgrade(over); err != context.Canceled || rw.TryULock() || !rw.TryUpgrade() {
			return fmt.Errorf("Upgrade: %v", err)
		}
		return nil
	})
}

func second[A any](_ A, err error) error { return err }

func TestWaitersBlockingCancelled(t *testing.T) {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	var (
		m  Mutex
		rw RWMutex
		s  = NewSemaphore(1)
		n  Notify
		wg WaitGroup
		b  = NewBarrier(1)
		o  Once[int]
		c  = NewCond(&m)
	)
	n.NotifyOne()
	for name, err := range map[string]error{
		"Lock":      m.LockBlocking(over),
		"RLock":     rw.RLockBlocking(over),
		"RW Lock":   rw.LockBlocking(over),
		"ULock":     rw.ULockBlocking(over),
		"Acquire":   s.AcquireBlocking(over, 1),
		"Notify":    n.WaitBlocking(over),
		"WaitGroup": wg.WaitBlocking(over),
		"Barrier":   second(b.WaitBlocking(over)),
		"Once":      second(o.DoBlocking(over, func(context.Context) (int, error) { return 1, nil })),
	} {
		require.Equal(t, context.Canceled, err, name)
	}
	require.True(t, m.TryLock() && rw.TryLock() && s.TryAcquire(1) && n.TryWait())

	require.Equal(t, context.Canceled, c.WaitBlocking(over))
	require.False(t, m.TryLock(), "it is locked still")
	rw.DowngradeToU()
	rw.TryRLock()
	require.Equal(t, context.Canceled, rw.UpgradeBlocking(over))
	require.True(t, rw.TryRLock(), "readers get in")
}

// A goroutine that is parked gives up when its context ends. It leaves its place, and holds
// nothing.
func TestWaitersBlockingGiveUp(t *testing.T) {
	var (
		m   Mutex
		rw  RWMutex
		up  RWMutex
		s   = NewSemaphore(2)
		n   Notify
		wg  WaitGroup
		b   = NewBarrier(2)
		o   Once[int]
		c   = NewCond(new(Mutex))
		sub = NewBroadcast[int](1).Subscribe()
		w   = NewWatch(0)
		ch  = NewChan[int](0)
	)
	require.True(t, m.TryLock() && rw.TryLock() && up.TryULock() && up.TryRLock() && s.TryAcquire(1) && o.mu.TryLock() && c.L.TryLock())
	wg.Add(1)
	draining := func() int {
		up.readers.mu.Lock()
		defer up.readers.mu.Unlock()
		return up.writer.n
	}
	senders := func() int { n, _ := ch.waitingCounts(); return n }
	receivers := func() int { _, n := ch.waitingCounts(); return n }
	watcher := w.Watch()
	for _, x := range []struct {
		name  string
		count func() int // of the waiters
		block func(ctx context.Context) error
	}{
		{"Lock", m.list.count, m.LockBlocking},
		{"RLock", rw.readers.count, rw.RLockBlocking},
		{"RW Lock", rw.turn.list.count, rw.LockBlocking},
		{"ULock", rw.turn.list.count, rw.ULockBlocking},
		{"Upgrade", draining, up.UpgradeBlocking},
		{"Acquire", s.list.count, func(ctx context.Context) error { return s.AcquireBlocking(ctx, 2) }},
		{"Notify", n.list.count, n.WaitBlocking},
		{"WaitGroup", wg.list.count, wg.WaitBlocking},
		{"Barrier", b.list.count, func(ctx context.Context) error { return second(b.WaitBlocking(ctx)) }},
		{"Cond", c.list.count, c.WaitBlocking},
		{"Once", o.mu.list.count, func(ctx context.Context) error { return second(o.DoBlocking(ctx, nil)) }},
		{"Broadcast", sub.b.topic.count, func(ctx context.Context) error { return second(sub.RecvBlocking(ctx)) }},
		{"Watch", w.topic.count, func(ctx context.Context) error { return second(watcher.ChangedBlocking(ctx)) }},
		{"Send", senders, func(ctx context.Context) error { return ch.SendBlocking(ctx, 1) }},
		{"Reserve", senders, func(ctx context.Context) error { return second(ch.reserveBlocking(ctx)) }},
		{"Recv", receivers, func(ctx context.Context) error { return second(ch.RecvBlocking(ctx)) }},
	} {
		t.Run(x.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			over := make(chan error, 1)
			go func() { over <- x.block(ctx) }()
			eventually(t, func() bool { return x.count() == 1 })
			require.Empty(t, over)
			cancel()
			require.Equal(t, context.Canceled, receive(t, over))
			require.Zero(t, x.count())
		})
	}
	require.False(t, c.L.TryLock(), "Wait has locked it again")
	require.True(t, up.TryRLock(), "readers get in again")
	require.True(t, s.TryAcquire(1))
	m.Unlock()
	rw.Unlock()
	o.mu.Unlock()
	require.True(t, m.TryLock() && rw.TryLock() && o.mu.TryLock())
	n.NotifyOne()
	require.True(t, n.TryWait())
	requireNoLostWakes(t, ch)
}

// A value that is sent to a Oneshot when a receiver gives up is there for another receiver.
func TestOneshotBlockingGivesUp(t *testing.T) {
	var o Oneshot[int]
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- second(o.RecvBlocking(ctx)) }()
	eventually(t, func() bool { return o.recvs.p.Load() != nil })
	require.Empty(t, over)
	cancel()
	require.Equal(t, context.Canceled, receive(t, over))
	require.Nil(t, o.recvs.p.Load())
	require.NoError(t, o.Send(1))
	v, err := o.RecvBlocking(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, v)
}

// Cond.WaitBlocking waits for its Mutex even if its context has ended.
func TestCondBlockingLocksAgain(t *testing.T) {
	c := NewCond(new(Mutex))
	c.L.TryLock()
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- c.WaitBlocking(ctx) }()
	eventually(t, func() bool { return c.list.count() == 1 && c.L.TryLock() })
	cancel()
	eventually(t, func() bool { return c.list.count() == 0 && c.L.list.count() == 1 })
	require.Empty(t, over)
	c.L.Unlock()
	require.Equal(t, context.Canceled, receive(t, over))
	require.False(t, c.L.TryLock())
}

// A goroutine waits for an action of a task.
func TestWaitersBlocking(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ctx := t.Context()
	var (
		m     Mutex
		rw    RWMutex
		read  RWMutex
		up    RWMutex
		s     = NewSemaphore(2)
		n     Notify
		wg    WaitGroup
		b     = NewBarrier(2)
		o     Once[int]
		c     = NewCond(new(Mutex))
		begun = make(chan None)
	)
	require.True(t, m.TryLock() && rw.TryLock() && read.TryLock() && up.TryULock() && up.TryRLock() && s.TryAcquire(2) && c.L.TryLock())
	wg.Add(1)
	made := Go(rt, func(cx *Context) error {
		_, err := o.Do(cx, func(cx *Context) (int, error) {
			close(begun)
			return 7, second(Await(cx, PollFunc(func(cx *Context) (None, error) {
				if o.mu.list.count() == 0 {
					cx.Waker().Wake()
					return None{}, ErrPending
				}
				return None{}, nil
			})))
		})
		return err
	})
	receive(t, begun)
	for _, x := range []struct {
		name  string
		list  *waitlist // the list in which the goroutine waits
		block func() error
		undo  func(cx *Context)
	}{
		{"Lock", &m.list, func() error { return m.LockBlocking(ctx) }, func(*Context) { m.Unlock() }},
		{"RW Lock", &rw.turn.list, func() error { return rw.LockBlocking(ctx) }, func(*Context) { rw.Unlock() }},
		{"ULock", &rw.turn.list, func() error { return rw.ULockBlocking(ctx) }, func(*Context) { rw.Unlock() }},
		{"RLock", &read.readers, func() error { return read.RLockBlocking(ctx) }, func(*Context) { read.Unlock() }},
		{"Upgrade", nil, func() error { return up.UpgradeBlocking(ctx) }, func(*Context) { up.RUnlock() }},
		{"Acquire", &s.list, func() error { return s.AcquireBlocking(ctx, 2) }, func(*Context) { s.Release(2) }},
		{"Notify", &n.list, func() error { return n.WaitBlocking(ctx) }, func(*Context) { n.NotifyOne() }},
		{"WaitGroup", &wg.list, func() error { return wg.WaitBlocking(ctx) }, func(*Context) { wg.Done() }},
		{"Barrier", &b.list, func() error { return second(b.WaitBlocking(ctx)) }, func(cx *Context) { b.Wait(cx) }},
		{"Cond", &c.list, func() error { return c.WaitBlocking(ctx) }, func(*Context) { c.Signal() }},
		{"Once", nil, func() error {
			v, err := o.DoBlocking(ctx, nil)
			return expect(v == 7 && err == nil, "%d, %v", v, err)
		}, func(*Context) {}},
	} {
		over := make(chan error, 1)
		go func() { over <- x.block() }()
		if x.list != nil { // otherwise the goroutine may begin to wait too late, which must make no difference
			eventually(t, func() bool { return x.list.count() == 1 }, x.name)
		}
		runInTask(t, rt, func(cx *Context) error { x.undo(cx); return nil })
		require.NoError(t, receive(t, over), x.name)
	}
	_, err := join(t, made)
	require.NoError(t, err)
	require.False(t, m.TryLock() || rw.TryLock() || read.TryLock() || up.TryRLock() || s.TryAcquire(1) || c.L.TryLock())
}

// count returns how many waiters are in the list.
func (l *waitlist) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

func TestMisuseOfWaiters(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	var (
		m  Mutex
		rw RWMutex
		s  = NewSemaphore(3)
		wg WaitGroup
		b  = NewBarrier(1)
		o  Once[int]
		n  Notify
		c  = NewCond(&m)
	)
	for _, x := range []struct {
		fn   func()
		text string
	}{
		{m.Unlock, "async: unlock of unlocked Mutex"},
		{rw.Unlock, "Unlock of an RWMutex that is not locked for writing"},
		{rw.Downgrade, "Downgrade of an RWMutex that is not locked for writing"},
		{rw.DowngradeToU, "DowngradeToU of an RWMutex that is not"},
		{rw.RUnlock, "async: RUnlock of unlocked RWMutex"},
		{rw.UUnlock, "UUnlock of an RWMutex that is not locked for upgradable reading"},
		{rw.UDowngrade, "UDowngrade of an RWMutex that is not"},
		{func() { rw.TryUpgrade() }, "TryUpgrade of an RWMutex that is not"},
		{func() { rw.UpgradeFuture() }, "UpgradeFuture of an RWMutex that is not"},
		{func() { rw.UpgradeBlocking(t.Context()) }, "UpgradeBlocking of an RWMutex that is not"},
		{func() { s.Release(1) }, "async: Semaphore.Release of 1 permits of 3, of which 0 are held"},
		{func() { s.Release(-1) }, "negative number of permits"},
		{func() { s.TryAcquire(-1) }, "negative number of permits"},
		{func() { s.AcquireBlocking(t.Context(), -1) }, "negative number of permits"},
		{func() { s.AcquireBlocking(t.Context(), 4) }, "async: Semaphore.Acquire of 4 permits, of which there are 3 in all"},
		{func() { s.AcquireFuture(4) }, "of which there are 3 in all"},
		{func() { NewSemaphore(-1) }, "NewSemaphore"},
		{func() { NewBarrier(0) }, "NewBarrier"},
		{wg.Done, "async: negative WaitGroup counter"},
		{func() { c.WaitBlocking(t.Context()) }, "Mutex is not locked"},
		{func() { c.WaitFuture() }, "Mutex is not locked"},
	} {
		requireMisuse(t, misuse(x.fn), x.text)
	}
	rw.TryULock()
	stale := rw.UpgradeFuture()
	rw.UUnlock()
	requireMisuse(t, misuse(func() { stale.Poll(newMockTask().cx) }), "UpgradeFuture of an RWMutex that is not")
	rw.TryLock()
	requireMisuse(t, misuse(rw.UUnlock), "UUnlock")
	requireMisuse(t, misuse(func() { rw.UpgradeFuture() }), "UpgradeFuture")
	requireMisuse(t, misuse(func() { stale.Poll(newMockTask().cx) }), "UpgradeFuture")
	requireMisuse(t, misuse(rw.RUnlock), "RUnlock")
	rw.Unlock()
	rw.TryRLock()
	requireMisuse(t, misuse(rw.Unlock), "Unlock of an RWMutex")
	rw.RUnlock()
	require.True(t, m.TryLock() && rw.TryLock() && s.TryAcquire(3), "misuse has changed nothing")
	m.Unlock()
	rw.Unlock()
	s.Release(3)

	// It makes no difference how the primitive is used: free, by the short way, or by the long way.
	awaits := map[string]func(cx *Context){
		"Lock":    func(cx *Context) { m.Lock(cx) },
		"RLock":   func(cx *Context) { rw.RLock(cx) },
		"RW Lock": func(cx *Context) { rw.Lock(cx) },
		"ULock":   func(cx *Context) { rw.ULock(cx) },
		"Upgrade": func(cx *Context) { rw.TryULock(); defer rw.UUnlock(); rw.Upgrade(cx) },
		"Acquire": func(cx *Context) { s.Acquire(cx, 1) },
		"Cond":    func(cx *Context) { m.TryLock(); defer m.Unlock(); c.Wait(cx) },
		"Barrier": func(cx *Context) { b.Wait(cx) },
		"Group":   func(cx *Context) { wg.Wait(cx) },
		"Once":    func(cx *Context) { o.Do(cx, func(*Context) (int, error) { return 1, nil }) },
		"Notify":  func(cx *Context) { n.Wait(cx) },
	}
	for name, await := range awaits {
		_, err := join(t, SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) {
			await(cx)
			return None{}, nil
		})))
		requireTaskMisuse(t, err, "a plain future cannot wait")
		_, err = join(t, Go(rt, func(cx *Context) error {
			text := make(chan string)
			go func() { text <- misuse(func() { await(cx) }) }()
			requireMisuse(t, <-text, foreignThread)
			return nil
		}))
		require.NoError(t, err, name)
	}
	require.True(t, m.TryLock() && rw.TryLock() && s.TryAcquire(3))

	ctx := t.Context()
	for name, block := range map[string]func(){
		"Mutex.LockBlocking":        func() { m.LockBlocking(ctx) },
		"RWMutex.RLockBlocking":     func() { rw.RLockBlocking(ctx) },
		"RWMutex.LockBlocking":      func() { rw.LockBlocking(ctx) },
		"RWMutex.ULockBlocking":     func() { rw.ULockBlocking(ctx) },
		"RWMutex.UpgradeBlocking":   func() { rw.UpgradeBlocking(ctx) },
		"Semaphore.AcquireBlocking": func() { s.AcquireBlocking(ctx, 1) },
		"Cond.WaitBlocking":         func() { c.WaitBlocking(ctx) },
		"Barrier.WaitBlocking":      func() { b.WaitBlocking(ctx) },
		"WaitGroup.WaitBlocking":    func() { wg.WaitBlocking(ctx) },
		"Once.DoBlocking":           func() { o.DoBlocking(ctx, nil) },
		"Notify.WaitBlocking":       func() { n.WaitBlocking(ctx) },
	} {
		_, err := join(t, Go(rt, func(cx *Context) error { block(); return nil }))
		requireTaskMisuse(t, err, name, wouldBlock)
	}
}

// A caller that wakes tasks on a worker says which worker it is. So plain futures move to that
// worker, and no other thread is woken for them. A goroutine that it wakes gets a processor.
func TestWaitersWokenByAWorker(t *testing.T) {
	var (
		m  Mutex
		rw RWMutex
		n  Notify
		c  = NewCond(&m)
		o  Oneshot[int]
		h  = newMockTask()
	)
	onTask(t, func(cx *Context) {
		for name, x := range map[string]struct {
			wait func() Future[None]
			wake func()
		}{
			"Unlock":       {func() Future[None] { m.TryLock(); return m.LockFuture() }, m.Unlock},
			"last RUnlock": {func() Future[None] { rw.TryRLock(); return rw.LockFuture() }, rw.RUnlock},
			"Signal":       {func() Future[None] { return &condFuture{c: c, begun: true} }, c.Signal},
			"NotifyOne":    {n.WaitFuture, n.NotifyOne},
			"Oneshot.Close": {func() Future[None] {
				return PollFunc(func(cx *Context) (None, error) { return None{}, o.pollClosed(cx) })
			}, func() { o.Close() }},
		} {
			pending(t, h, x.wait())
			w := cx.here()
			w.madeRunnable = false
			x.wake()
			require.True(t, h.woken(), name)
			require.True(t, w.madeRunnable, name)
		}
	})
}

// Code that waits when Shutdown unwinds it leaves its place. A lock that it was given is passed on
// to other waiters: here to a goroutine outside.
func TestWaitersUnwound(t *testing.T) {
	rt, err := New(Config{Workers: 1, Grace: 1, Unhandled: func(Task, error) {}})
	require.NoError(t, err)
	var m Mutex
	m.TryLock()
	held := false
	stubborn := Go(rt, func(cx *Context) error {
		return m.Lock(cx.WithoutCancel())
	})
	waits := Go(rt, func(cx *Context) error {
		m.lockRegardless(cx)
		return nil
	})
	inCond := Go(rt, func(cx *Context) error {
		c := NewCond(new(Mutex))
		c.L.Lock(cx)
		defer func() {
			held = c.L.state.locked()
			c.L.Unlock()
		}()
		return c.Wait(cx.WithoutCancel())
	})
	eventually(t, func() bool { return waiting(stubborn) && waiting(waits) && waiting(inCond) })
	require.Error(t, rt.Shutdown(ended()))
	for _, h := range []*JoinHandle[None]{stubborn, waits, inCond} {
		_, err = join(t, h)
		// Canceled is the error of an await that looks once more before it is unwound.
		require.Contains(t, []error{ErrShutdown, context.Canceled}, err)
	}
	require.True(t, held, "Wait leaves its Mutex locked for deferred calls")
	require.Zero(t, m.list.count())
	m.Unlock()
	require.NoError(t, m.LockBlocking(t.Context()))
}

// bomb is a probe that panics when it is polled.
type bomb struct{ *probe }

func (b bomb) Poll(*Context) (int, error) { panic("oh") }

// Await gives up the future that it waits for even if Await does not return. It gives up only a
// future that has no result yet.
func TestAwaitGivesUpWhatItDoesNotFinish(t *testing.T) {
	rt, err := New(Config{Workers: 1, Grace: 1, Unhandled: func(Task, error) {}})
	require.NoError(t, err)
	var panicked, finished, unwound probe
	finished.resolve(nil)
	_, err = join(t, Go(rt, func(cx *Context) error {
		Await(cx, &finished)
		return second(Await(cx, Future[int](bomb{&panicked})))
	}))
	require.ErrorContains(t, err, "oh")
	require.EqualValues(t, 1, panicked.cancels.Load())
	require.Zero(t, finished.cancels.Load())

	begun := int32(0)
	stubborn := Go(rt, func(cx *Context) error {
		for {
			begun++
			Await(cx, &unwound) // this code ignores cancellation
		}
	})
	eventually(t, func() bool { return waiting(stubborn) })
	require.Error(t, rt.Shutdown(ended()))
	_, err = join(t, stubborn)
	require.Equal(t, ErrShutdown, err)
	require.Equal(t, begun, unwound.cancels.Load())
}

// Code that holds a lock, and panics or is cancelled, leaves the lock locked unless it has deferred
// Unlock.
func TestHolderPanics(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(Task, error) {}})
	var careful, careless Mutex
	panics := Go(rt, func(cx *Context) error {
		careful.Lock(cx)
		defer careful.Unlock()
		careless.Lock(cx)
		Yield(cx)
		panic("oh")
	})
	waits := Go(rt, func(cx *Context) error { return careful.Lock(cx) })
	_, err := join(t, panics)
	require.ErrorContains(t, err, "oh")
	_, err = join(t, waits)
	require.NoError(t, err)
	require.False(t, careless.TryLock(), "as sync.Mutex")
	careful.Unlock()

	cancelled := Go(rt, func(cx *Context) error {
		careful.Lock(cx)
		defer careful.Unlock()
		_, err := Await(cx, NeverFuture[None]())
		return err
	})
	waits = Go(rt, func(cx *Context) error { return careful.Lock(cx) })
	eventually(t, func() bool { return waiting(waits) })
	cancelled.Cancel()
	_, err = join(t, waits)
	require.NoError(t, err)
	goexit := Go(rt, func(cx *Context) error {
		rw := new(RWMutex)
		defer func() {
			rw.Unlock()
			careful.Unlock()
		}()
		rw.Lock(cx)
		runtime.Goexit()
		return nil
	})
	_, err = join(t, goexit)
	require.Equal(t, ErrGoexit, err)
	require.True(t, careful.TryLock())
}

// lockLoop is a plain future that locks, works, and unlocks, n times. Between lock and unlock it is
// polled once more.
type lockLoop struct {
	n            int
	lock         func() Future[None]
	locked, done func()
	f            Future[None]
	now          yieldOnce
	held         bool
}

func (l *lockLoop) Poll(cx *Context) (None, error) {
	for ; l.n > 0; l.n-- {
		if !l.held {
			if l.f == nil {
				l.f = l.lock()
			}
			if _, err := l.f.Poll(cx); err != nil {
				return None{}, err
			}
			l.f, l.held = nil, true
			l.locked()
		}
		if _, err := l.now.Poll(cx); err != nil {
			return None{}, err
		}
		l.now = yieldOnce{}
		l.held = false
		l.done()
	}
	return None{}, nil
}

func (l *lockLoop) Cancel() { giveUp(nil, l.f) }

// contend makes straight-line tasks and plain futures of two workers, and goroutines, use a lock at
// the same time. Some of them give up now and then. locked is called when the lock was taken, and
// unlock to release it. Both use a counter that the race detector watches.
func contend(t *testing.T, times int, lock func(cx *Context) error, lockBlocking func(ctx context.Context) error, future func() Future[None], locked, unlock func()) {
	rt := newTestRuntime(t, Config{Workers: 2})
	var used atomic.Int64
	done := func() { used.Add(1); unlock() }
	var all []*JoinHandle[None]
	want := 0
	for i := range 4 {
		all = append(all, Go(aimAt(rt, i%2), func(cx *Context) error {
			for range times {
				if err := lock(cx); err != nil {
					return err
				}
				locked()
				if i < 2 {
					Yield(cx)
				}
				done()
			}
			return nil
		}), SpawnFuture(aimAt(rt, i%2), &lockLoop{n: times, lock: future, locked: locked, done: done}))
		want += 2 * times
	}
	var quitters []*JoinHandle[None]
	for i := range 2 {
		quitters = append(quitters, Go(aimAt(rt, i), func(cx *Context) error {
			for range times {
				short, cancel := cx.WithCancel()
				h := SpawnBlocking(rt, func() (None, error) { cancel(); return None{}, nil })
				if lock(short) == nil {
					locked()
					unlock()
				}
				h.Join(cx)
			}
			return nil
		}))
	}
	var outside sync.WaitGroup
	for range 2 {
		outside.Go(func() {
			for i := range times {
				ctx, cancel := context.Background(), func() {}
				if i%5 == 0 {
					ctx, cancel = context.WithCancel(ctx)
					go cancel()
				}
				if lockBlocking(ctx) == nil {
					locked()
					done()
				} else {
					used.Add(1)
				}
				cancel()
			}
		})
		want += times
	}
	for _, h := range append(all, quitters...) {
		_, err := join(t, h)
		require.NoError(t, err)
	}
	outside.Wait()
	require.EqualValues(t, want, used.Load())
}
