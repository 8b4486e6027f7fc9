package async

import "context"

// A Barrier makes a number of parties wait for each other: no party passes before all parties have
// arrived. It can be used again after that. [NewBarrier] makes a Barrier; the zero Barrier panics.
// A Barrier must not be copied. Its methods are safe for concurrent use by tasks and goroutines.
type Barrier struct {
	parties int
	list    waitlist
}

// NewBarrier returns a [Barrier] of n parties. It panics if n is less than 1.
func NewBarrier(n int) *Barrier {
	if n < 1 {
		panic("async: NewBarrier needs at least one party")
	}
	return &Barrier{parties: n}
}

// Wait waits until all parties have arrived. It reports leader for one party of each round, the
// last to arrive.
//
// If cx is cancelled it returns cx.Err(), and the party counts as not arrived: the other parties
// wait for another party in its place. If all parties had arrived before, the other parties pass,
// and only this party returns an error.
func (b *Barrier) Wait(cx *Context) (leader bool, err error) { return Await(cx, b.WaitFuture()) }

// WaitBlocking is [Barrier.Wait] for a goroutine outside the pool: it parks the goroutine. It fails
// only if ctx ends, with ctx.Err(). It panics in a task.
func (b *Barrier) WaitBlocking(ctx context.Context) (leader bool, err error) {
	mustNotBlock("Barrier.WaitBlocking", "b.Wait(cx)")
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return awaitParked(ctx, b.WaitFuture())
}

// WaitFuture returns the future of [Barrier.Wait]. The party arrives at the first Poll. If the
// future is given up, the party counts as not arrived, as if Wait were cancelled.
func (b *Barrier) WaitFuture() Future[bool] {
	if b.parties == 0 {
		panic("async: a Barrier that was not made by NewBarrier was used")
	}
	return &barrierFuture{b: b}
}

// barrierFuture is a party of a Barrier.
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
	case f.w.phase == waiterChosen: // all parties have arrived
		list.leave(&f.w)
	case f.w.phase == waiterOut && list.n+1 == f.b.parties: // the last party
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

// Cancel implements canceler. It passes nothing on: the last party has woken all waiters.
func (f *barrierFuture) Cancel() {
	f.b.list.mu.Lock()
	f.b.list.leave(&f.w)
	f.b.list.mu.Unlock()
}
