package async

import (
	"context"
	"sync/atomic"
)

// A WaitGroup waits until a number of things are done: sync.WaitGroup for tasks.
// The zero value waits for nothing. It must not be copied after first use. All
// methods may be called by tasks and goroutines at the same time.
//
// When the count becomes zero all waiters at that moment are released, also if it grows
// again before they run.
type WaitGroup struct {
	state groupState
	list  waitlist
}

// groupState is the word that says how much is to be done and whether a task waits.
type groupState struct{ bits atomic.Int64 }

const (
	// groupAwaited is set while the list is not empty, under its lock. Then the step to
	// zero is taken under that lock, too, so that it is clear which tasks waited.
	groupAwaited int64 = 1 << iota

	groupUnit // of the remaining bits, which are the count
)

// add changes the count by n. If it reports false the caller must do it again under the
// lock of the list, and say so. over reports that all waiters must be released.
func (s *groupState) add(n int64, listed bool) (added, over bool) {
	for {
		old := s.bits.Load()
		count := old/groupUnit + n
		if count < 0 {
			panic("async: negative WaitGroup counter")
		}
		next := old + n*groupUnit
		if over = count == 0 && old&groupAwaited != 0; over {
			if !listed {
				return false, false
			}
			next = 0
		}
		if s.bits.CompareAndSwap(old, next) {
			return true, over
		}
	}
}

// await notes, under the lock of the list, that a task waits. It reports false if the count
// is zero.
func (s *groupState) await() bool {
	for {
		old := s.bits.Load()
		if old/groupUnit == 0 {
			return false
		}
		if old&groupAwaited != 0 || s.bits.CompareAndSwap(old, old|groupAwaited) {
			return true
		}
	}
}

// unawaited notes, under the lock of the list, that no task waits anymore.
func (s *groupState) unawaited() { s.bits.And(^groupAwaited) }

func (s *groupState) zero() bool { return s.bits.Load()/groupUnit == 0 }

// Add adds delta, which may be negative, to the count. It panics if the count
// becomes negative. Additions to a count of zero must come before the Wait that is
// to wait for them.
func (wg *WaitGroup) Add(delta int) {
	if added, _ := wg.state.add(int64(delta), false); added {
		return
	}
	var chosen chosenTasks
	wg.list.mu.Lock()
	defer chosen.wake()
	defer wg.list.mu.Unlock() // deferred, since add panics
	if _, over := wg.state.add(int64(delta), true); over {
		wg.list.chooseAll(&chosen)
	}
}

// Done takes one off the count. It panics if the count is zero.
func (wg *WaitGroup) Done() { wg.Add(-1) }

// Go starts a task that runs fn, and counts it until it has ended, however it does: also
// when it panics, and when the runtime refuses it or shuts down before it has begun. s is
// where it starts; see Spawner. Wait does not return the error of fn: that is in the
// handle, and if no caller asks for it, goes to Config.Unhandled. fn must not call Done for
// itself; if the count becomes negative at the end of a task the program ends with that
// panic, which nothing can recover.
func (wg *WaitGroup) Go(s Spawner, fn func(cx *Context) error) *JoinHandle[None] {
	wg.Add(1)
	h := Go(s, fn)
	// Not a deferred call in the task: it may never begin.
	if !h.waiters.join(newExternalWaker(wg.doneAtEnd)) {
		wg.Done()
	} else if h.state.done() {
		h.waiters.fire(nil)
	}
	return h
}

// doneAtEnd is Done by the worker that ends a task. A panic there would be taken for a
// panic of the task, and would leave out half of the task's end.
func (wg *WaitGroup) doneAtEnd() {
	defer func() {
		if v := recover(); v != nil {
			go panic(v)
		}
	}()
	wg.Done()
}

// Wait waits until the count is zero. It fails only if cx is cancelled, with
// cx.Err(); nothing is lost.
func (wg *WaitGroup) Wait(cx *Context) error {
	if cx.inBudget() && wg.state.zero() {
		return nil
	}
	_, err := Await(cx, wg.WaitFuture())
	return err
}

// WaitBlocking is Wait for a goroutine outside the pool, which it parks. It fails
// only if ctx ends, with ctx.Err(). It panics in tasks.
func (wg *WaitGroup) WaitBlocking(ctx context.Context) error {
	mustNotBlock("WaitGroup.WaitBlocking", "wg.Wait(cx)")
	if err := ctx.Err(); err != nil {
		return err
	}
	if wg.state.zero() {
		return nil
	}
	_, err := awaitParked(ctx, wg.WaitFuture())
	return err
}

// WaitFuture returns Wait as a future. It begins to wait at its first Poll, and
// may be given up; see [Cancel].
func (wg *WaitGroup) WaitFuture() Future[None] { return &groupFuture{wg: wg} }

type groupFuture struct {
	wg *WaitGroup
	w  waiter
}

func (f *groupFuture) Poll(cx *Context) (None, error) {
	if !cx.spend() {
		return None{}, ErrPending
	}
	t := cx.waker(waitsDone)
	wg := f.wg
	wg.list.mu.Lock()
	defer wg.list.mu.Unlock()
	switch {
	case f.w.phase == waiterChosen:
		wg.list.leave(&f.w)
	case f.w.phase == waiterIn || wg.state.await():
		wg.list.join(&f.w, t)
		return None{}, cx.unspent(ErrPending)
	}
	return None{}, nil
}

// Cancel implements canceler. It passes nothing on: all waiters are released.
func (f *groupFuture) Cancel() {
	wg := f.wg
	wg.list.mu.Lock()
	defer wg.list.mu.Unlock()
	if wg.list.leave(&f.w) == waiterIn && wg.list.first == nil {
		wg.state.unawaited()
	}
}
