package async

import (
	"context"
	"sync/atomic"
)

// A Notify wakes tasks and goroutines that wait for it: a condition without a lock and without a
// value. The zero value is ready for use. It must not be copied after first use. Its methods are
// safe for concurrent use by tasks and goroutines.
//
// If no caller waits, [Notify.NotifyOne] stores a notification, and the next [Notify.Wait] returns
// at once. Several NotifyOne before that Wait store one notification. So code that checks a
// condition, and calls Wait if it does not hold, misses no change that is made before NotifyOne.
type Notify struct {
	state notifyState
	list  waitlist
}

// notifyState is the word that says whether a notification is stored, or a task waits for one. It
// never says both:
//
//  1. NotifyOne stores a notification, unless a task waits (store). If a task waits, NotifyOne
//     takes the lock of the list and chooses the first waiter. If the waiters have left by then, it
//     stores the notification after all.
//  2. Wait takes a stored notification. If there is none, it sets notifyAwaited under the lock of
//     the list (await) and joins the list.
//
// store and await change the same word by compare-and-swap. So either Wait sees the notification,
// or NotifyOne sees that a task waits.
type notifyState struct{ bits atomic.Uint32 }

const (
	notifyNothing uint32 = iota // no notification is stored and no task waits
	notifyStored                // the next caller need not wait
	notifyAwaited               // the list is not empty; written under its lock
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
		// This write is needed even if a notification is stored: the task that takes the
		// notification must see the writes that this caller made before.
		if s.bits.CompareAndSwap(old, notifyStored) {
			return true
		}
	}
}

// await notes, under the lock of the list, that a task waits. It reports false if there was a
// notification, which it has taken.
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

// unawaited notes, under the lock of the list, that no task waits.
func (s *notifyState) unawaited() { s.bits.Store(notifyNothing) }

// NotifyOne wakes the first waiter in the queue. If there is none, the next [Notify.Wait] returns
// at once.
func (n *Notify) NotifyOne() {
	if !n.state.store() {
		n.notifyFirst()
	}
}

// notifyFirst is NotifyOne if a task waited a moment ago.
func (n *Notify) notifyFirst() {
	var t *task
	n.list.mu.Lock()
	if w := n.list.first; w == nil {
		n.state.store() // the waiters have left in the meantime
	} else {
		w.want = byOne
		if t = n.list.choose(w); n.list.first == nil {
			n.state.unawaited()
		}
	}
	n.list.mu.Unlock()
	wakeChosen(t)
}

// NotifyAll wakes all waiters. It stores no notification: a caller that arrives later waits.
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

// Wait waits for a notification. It fails only if cx is cancelled, with cx.Err(). No notification
// is lost then: one from [Notify.NotifyOne] that had chosen this caller is passed on to the next
// waiter, or stored.
func (n *Notify) Wait(cx *Context) error {
	if cx.inBudget() && n.state.take() {
		return nil
	}
	_, err := Await(cx, n.WaitFuture())
	return err
}

// TryWait takes the notification that is stored, and reports whether there was one. It does not
// wait.
func (n *Notify) TryWait() bool { return n.state.take() }

// WaitBlocking is [Notify.Wait] for a goroutine outside the pool: it parks the goroutine. It fails
// only if ctx ends, with ctx.Err(). It panics in a task.
func (n *Notify) WaitBlocking(ctx context.Context) error {
	mustNotBlock("Notify.WaitBlocking", "n.Wait(cx)")
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := awaitParked(ctx, n.WaitFuture())
	return err
}

// WaitFuture returns the future of [Notify.Wait]. It begins to wait at its first Poll. Giving it up
// passes on the notification that it may have been given by [Notify.NotifyOne].
func (n *Notify) WaitFuture() Future[None] { return &notifyFuture{n: n} }

// notifyFuture is a place among the waiters of a Notify.
type notifyFuture struct {
	n *Notify
	w waiter // its want is byOne if NotifyOne has chosen it
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
