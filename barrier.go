package async

import "context"

// A Barrier makes a number of parties wait for each other: no party passes before all have
// come. It may be used again and again. It is made by NewBarrier: the zero Barrier panics.
// A Barrier must not be copied. All methods may be called by tasks and goroutines at the
// same time.
type Barrier struct {
	parties int
	list    waitlist
}

// NewBarrier returns a Barrier of n parties. It panics if n is less than 1.
func NewBarrier(n int) *Barrier {
	if n < 1 {
		panic("async: NewBarrier needs at least one party")
	}
	return &Barrier{parties: n}
}

// Wait waits until all parties have come. For the last party to come it reports that it is
// the leader.
//
// If cx is cancelled it returns cx.Err(), and the party counts as not having come: the
// others wait for another party in its place. If all had come already, they have passed,
// and only the cancelled party does not learn of it.
func (b *Barrier) Wait(cx *Context) (leader bool, err error) { return Await(cx, b.WaitFuture()) }

// WaitBlocking is Wait for a goroutine outside the pool, which it parks. It fails
// only if ctx ends, with ctx.Err(). It panics in tasks.
func (b *Barrier) WaitBlocking(ctx context.Context) (leader bool, err error) {
	mustNotBlock("Barrier.WaitBlocking", "b.Wait(cx)")
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return awaitParked(ctx, b.WaitFuture())
}

// WaitFuture returns Wait as a future. The party comes at the first Poll; given
// up it counts as not having come.
func (b *Barrier) WaitFuture() Future[bool] {
	if b.parties == 0 {
		panic("async: a Barrier that was not made by NewBarrier was used")
	}
	return &barrierFuture{b: b}
}

type barrierFuture struct {
	b *Barrier
	w waiter
}

func (f *barrierFuture) Poll(cx *Context) (leader bool, err error) {
	if !cx.spend() {
		return false, ErrPending
	}
	t := cx.waker(waitsBarrier)
	list := &f.b.list
	var chosen chosenTasks
	list.mu.Lock()
	switch {
	case f.w.phase == waiterChosen:
		list.leave(&f.w)
	case f.w.phase == waiterOut && list.n+1 == f.b.parties:
		leader = true
		list.chooseAll(&chosen)
	default:
		list.join(&f.w, t)
		err = ErrPending
	}
	list.mu.Unlock()
	chosen.wake()
	return leader, cx.unspent(err)
}

// Cancel implements canceler. It passes nothing on: the party that opened the barrier has
// woken all waiters.
func (f *barrierFuture) Cancel() {
	f.b.list.mu.Lock()
	f.b.list.leave(&f.w)
	f.b.list.mu.Unlock()
}
