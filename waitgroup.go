package async

import (
	"context"
	"sync/atomic"
)

// A WaitGroup waits until a count of things to do becomes zero: [sync.WaitGroup] for tasks. The
// count of the zero value is zero. A WaitGroup must not be copied after first use. Its methods are
// safe for concurrent use by tasks and goroutines.
//
// When the count becomes zero, all callers that wait at this moment are released, even if the count
// grows again before they run.
type WaitGroup struct {
	state groupState
	list  waitlist
}

// groupState is the word that holds the count and says whether a task waits.
//
//  1. Add and Done change the count without a lock while no task waits. The step to zero while a
//     task waits is done under the lock of the list: it clears groupAwaited and releases all
//     waiters.
//  2. Wait returns if the count is zero. If not, it sets groupAwaited under the lock of the list
//     (await) and joins the list.
//
// await sets groupAwaited only in a word whose count is not zero. If the count became zero before,
// Wait sees this. If it becomes zero later, Add or Done finds the waiter in the list.
type groupState struct{ bits atomic.Int64 }

const (
	// groupAwaited is set while the list is not empty, under its lock. Then the step to zero is
	// taken under that lock, too, so that it is certain which tasks waited.
	groupAwaited int64 = 1 << iota

	groupUnit // the unit of the remaining bits, which are the count
)

// add changes the count by n. If it reports added as false, the caller must call it again under the
// lock of the list, with listed set. over reports that the caller must release all waiters.
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

// await notes, under the lock of the list, that a task waits. It reports false if the count is
// zero.
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

// unawaited notes, under the lock of the list, that no task waits.
func (s *groupState) unawaited() { s.bits.And(^groupAwaited) }

// zero reports whether the count is zero.
func (s *groupState) zero() bool { return s.bits.Load()/groupUnit == 0 }

// Add adds delta, which may be negative, to the count. It panics if the count becomes negative. Add
// to a count of zero before the Wait that is to wait for it.
func (wg *WaitGroup) Add(delta int) {
	if added, _ := wg.state.add(int64(delta), false); added {
		return
	}
	var chosen chosenTasks
	wg.list.mu.Lock()
	defer chosen.wake()
	defer wg.list.mu.Unlock() // deferred, since add may panic
	if _, over := wg.state.add(int64(delta), true); over {
		wg.list.chooseAll(&chosen)
	}
}

// Done subtracts 1 from the count. It panics if the count is zero.
func (wg *WaitGroup) Done() { wg.Add(-1) }

// Go starts a task that runs fn, and counts it until it has ended. The task is counted in every
// case: if fn panics, if the runtime refuses the task, and if the runtime shuts down before fn
// begins. s says where the task starts; see [Spawner]. Wait does not return the error of fn. The
// handle does, and if no caller asks the handle, the error goes to [Config.Unhandled].
//
// fn must not call [WaitGroup.Done] for itself. If the count becomes negative at the end of a task,
// the program ends with that panic, and no code can recover it.
func (wg *WaitGroup) Go(s Spawner, fn func(cx *Context) error) *JoinHandle[None] {
	wg.Add(1)
	h := Go(s, fn)
	// Done is not a deferred call in the task: fn may never begin.
	if !h.waiters.join(newExternalWaker(wg.doneAtEnd)) {
		wg.Done()
	} else if h.state.done() { // the task may have ended before the join: then its end woke nothing
		h.waiters.fire(nil)
	}
	return h
}

// doneAtEnd is Done, called by the worker that ends a task. A panic here must not be taken for a
// panic of the task, and would leave out the rest of the task's end. So it is raised again in a
// goroutine of its own.
func (wg *WaitGroup) doneAtEnd() {
	defer func() {
		if v := recover(); v != nil {
			go panic(v)
		}
	}()
	wg.Done()
}

// Wait waits until the count is zero. It fails only if cx is cancelled, with cx.Err(), and nothing
// is lost.
func (wg *WaitGroup) Wait(cx *Context) error {
	if cx.inBudget() && wg.state.zero() {
		return nil
	}
	_, err := Await(cx, wg.WaitFuture())
	return err
}

// WaitBlocking is [WaitGroup.Wait] for a goroutine outside the pool: it parks the goroutine. It
// fails only if ctx ends, with ctx.Err(). It panics in a task.
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

// WaitFuture returns the future of [WaitGroup.Wait]. It begins to wait at its first Poll. Giving it
// up loses nothing.
func (wg *WaitGroup) WaitFuture() Future[None] { return &groupFuture{wg: wg} }

// groupFuture is a place among the waiters of a WaitGroup.
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

// Cancel implements canceler. It passes nothing on: all waiters are released together.
func (f *groupFuture) Cancel() {
	wg := f.wg
	wg.list.mu.Lock()
	defer wg.list.mu.Unlock()
	if wg.list.leave(&f.w) == waiterIn && wg.list.first == nil {
		wg.state.unawaited()
	}
}
