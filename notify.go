package async

import (
	"context"
	"sync/atomic"
)

// A Notify wakes the tasks and goroutines that wait for it: a condition without a lock and
// without a value. The zero value is ready. It must not be copied after first use. All
// methods may be called by tasks and goroutines at the same time.
//
// NotifyOne is not lost if no caller waits: the next Wait returns at once. Several calls of
// NotifyOne before that Wait are one. So code that looks at a condition, and waits if it
// does not hold, misses no change that is made before NotifyOne.
type Notify struct {
	state notifyState
	list  waitlist
}

// notifyState is the word that says whether there is a notification, or a task that waits
// for one. It never says both.
type notifyState struct{ bits atomic.Uint32 }

const (
	notifyNothing uint32 = iota
	notifyStored         // the next caller need not wait
	notifyAwaited        // the list is not empty; written under its lock
)

// take takes the notification that is stored, if there is one.
func (s *notifyState) take() bool { return s.bits.CompareAndSwap(notifyStored, notifyNothing) }

// store stores a notification. It reports false if a task waits for one.
func (s *notifyState) store() bool {
	for {
		old := s.bits.Load()
		if old == notifyAwaited {
			return false
		}
		// Written also if there is one: the task that takes the notification must see the
		// writes that the caller made before.
		if s.bits.CompareAndSwap(old, notifyStored) {
			return true
		}
	}
}

// await notes, under the lock of the list, that a task waits. It reports false if there was
// a notification, which it has taken.
func (s *notifyState) await() bool {
	for {
		if s.take() {
			return false
		}
		if s.bits.Load() == notifyAwaited || s.bits.CompareAndSwap(notifyNothing, notifyAwaited) {
			return true
		}
	}
}

// unawaited notes, under the lock of the list, that no task waits anymore.
func (s *notifyState) unawaited() { s.bits.Store(notifyNothing) }

// NotifyOne wakes the waiter that has waited for longest. If there is none, the next Wait
// returns at once.
func (n *Notify) NotifyOne() {
	if !n.state.store() {
		n.notifyFirst()
	}
}

// notifyFirst is NotifyOne when a task waited a moment ago.
func (n *Notify) notifyFirst() {
	var t *task
	n.list.mu.Lock()
	if w := n.list.first; w == nil {
		n.state.store() // the tasks have left meanwhile
	} else {
		w.want = byOne
		if t = n.list.choose(w); n.list.first == nil {
			n.state.unawaited()
		}
	}
	n.list.mu.Unlock()
	wakeChosen(t)
}

// NotifyAll wakes all waiters. It leaves nothing for callers that come later.
func (n *Notify) NotifyAll() {
	var chosen chosenTasks
	n.list.mu.Lock()
	if n.list.first != nil {
		n.list.chooseAll(&chosen)
		n.state.unawaited()
	}
	n.list.mu.Unlock()
	chosen.wake()
}

// Wait waits for a notification. It fails only if cx is cancelled, with cx.Err(); a
// NotifyOne that had chosen it is passed on to the next waiter.
func (n *Notify) Wait(cx *Context) error {
	if cx.inBudget() && n.state.take() {
		return nil
	}
	_, err := Await(cx, n.WaitFuture())
	return err
}

// TryWait takes the notification that came while no task waited, and reports whether there
// was one.
func (n *Notify) TryWait() bool { return n.state.take() }

// WaitBlocking is Wait for a goroutine outside the pool, which it parks. It fails
// only if ctx ends, with ctx.Err(). It panics in tasks.
func (n *Notify) WaitBlocking(ctx context.Context) error {
	mustNotBlock("Notify.WaitBlocking", "n.Wait(cx)")
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := awaitParked(ctx, n.WaitFuture())
	return err
}

// WaitFuture returns Wait as a future. It begins to wait at its first Poll. Given up
// it passes on a notification that NotifyOne had given it.
func (n *Notify) WaitFuture() Future[None] { return &notifyFuture{n: n} }

type notifyFuture struct {
	n *Notify
	w waiter // want is byOne if NotifyOne has chosen it
}

func (f *notifyFuture) Poll(cx *Context) (None, error) {
	if !cx.spend() {
		return None{}, ErrPending
	}
	t := cx.waker(waitsNotify)
	n := f.n
	n.list.mu.Lock()
	defer n.list.mu.Unlock()
	switch {
	case f.w.phase == waiterChosen:
		n.list.leave(&f.w)
	case f.w.phase == waiterIn || n.state.await():
		f.w.want = byAll
		n.list.join(&f.w, t)
		return None{}, cx.unspent(ErrPending)
	}
	return None{}, nil
}

// Cancel implements canceler.
func (f *notifyFuture) Cancel() {
	n := f.n
	n.list.mu.Lock()
	was := n.list.leave(&f.w)
	if was == waiterIn && n.list.first == nil {
		n.state.unawaited()
	}
	n.list.mu.Unlock()
	if was == waiterChosen && f.w.want == byOne {
		n.NotifyOne()
	}
}
