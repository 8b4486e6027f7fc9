package async

import (
	"context"
	"io"
	"reflect"
)

// The end of a task, by its holder (JoinHandle.finish):
//
//  1. Replace an error that cannot be a result (finalError), and ask the Groups of the task whether
//     they take the error. If they do not, and the error says more than that the task was
//     cancelled, put a *taskFailure in its place: it is reported unless a caller joins the task
//     (see taskfailure.go).
//  2. Remove the task from the list of waiting tasks of its worker, so that Shutdown no longer
//     finds it.
//  3. Call the hook TaskEnd.
//  4. Set taskDone by an atomic Or. This publishes the result: from here on any goroutine may read
//     it.
//  5. Fire the slot waiters of the handle, which wakes the tasks that wait for the end.
//  6. End the scope of the task's own Context. This closes its Done channel and calls its
//     AfterFuncs.
//  7. Add one to the worker's count of ended tasks. The worker publishes this count at the end of
//     its turn, so Shutdown sees all steps of a task or none of them (see shutdown.go).
//  8. Leave the cancel groups of the task (see taskcancelgroup.go). The last member that leaves a
//     Group wakes WithGroup.
//  9. Put a detached task that has returned no error on the free list of its worker (freeTask). The
//     body does this after finish. A coroutine goes back to its worker after the poll.
//
// A task that waits for the end joins the slot and then reads taskDone. The end sets taskDone and
// then fires the slot, or skips the slot if it is empty. So the task that waits sees the bit, or is
// woken. Done and JoinSet.Add, which put something else than the caller's task into the slot, fire
// the slot themselves if they see the bit (fireLate).
//
// Closing a result. A result that is an io.Closer, such as a connection, would be lost if the
// caller that waits for it gives up at the moment when the task returns it. The package closes such
// a result if this caller was the only owner of the handle:
//
//  1. In steps 4 and 5, the end of the task takes the waiting tasks out of the slot and notes how
//     many it wakes: none, one, or several (finishCloser).
//  2. An owner that gives up leaves the slot (giveUpResult). If the task has not ended yet, the
//     owner sets taskUnwanted. If the end then wakes no task, it closes the result.
//  3. If the task has ended, the owner that gives up closes the result. It does not close the
//     result if the end has woken another task, or if a caller has collected the result.
//
// Steps 1 to 3 each happen under one lock, discarding. It is locked for results that are an
// io.Closer, and by owners that give up. Other results cost a failed type assertion.

// discarding guards the bits of taskState from taskShared to taskDiscarded. It also guards the
// field next of a task that has ended with an io.Closer: this is the only task that the end has
// woken, until the result is collected.
var discarding struct {
	mu lockOf[discardLock]
}

// discardLock is the name of this lock in lockOrder.
type discardLock struct{}

// resultOwner is implemented by JoinHandle. giveUpResult is Cancel by an owner of the handle; t is
// the task that has polled the handle for the owner, or nil. self returns the handle: it is not the
// future itself if the future embeds a handle and has a Cancel of its own.
type resultOwner interface {
	giveUpResult(t *task)
	self() any
}

// giveUp calls the method Cancel of f, or giveUpResult if f is a JoinHandle: the owner of f will
// not poll f again. t is the task that has polled f for the owner, or nil if f was not polled.
func giveUp(t *task, f any) {
	if d, ok := f.(resultOwner); ok && d.self() == f {
		d.giveUpResult(t)
		return
	}
	if c, ok := f.(canceler); ok {
		c.Cancel()
	}
}

func (h *JoinHandle[T]) self() any { return h }

func (h *JoinHandle[T]) giveUpResult(t *task) {
	discarding.mu.Lock()
	left := t != nil && h.waiters.remove(t)
	bits := h.state.bits.Load()
	discard := false
	if bits&taskDone == 0 {
		// The end comes later and sees the bit: it publishes an io.Closer under the same lock.
		h.state.bits.Or(taskUnwanted)
	} else if bits&taskCloser != 0 && (h.next == nil || h.next == t) {
		discard = h.state.discard()
	}
	discarding.mu.Unlock()
	if left {
		t.wake(callersWorker()) // another future of t may have waited here, too
	}
	h.cancel(0)
	if discard {
		h.closeResult()
	}
}

// finishCloser publishes a result that is an io.Closer, and wakes the tasks that wait for it. It
// reports whether the caller must close the result.
func (h *JoinHandle[T]) finishCloser(w *worker) (discard bool) {
	discarding.mu.Lock()
	h.state.finish(taskCloser)
	woken, early := h.waiters.takeForFire()
	switch {
	case early || len(woken) > 1:
		h.state.bits.Or(taskShared) // early: fireLate has woken the waiters, perhaps several
	case len(woken) == 1:
		h.next = woken[0]
	case h.state.bits.Load()&taskUnwanted != 0:
		discard = h.state.discard()
	}
	discarding.mu.Unlock()
	for _, t := range woken {
		t.wake(w)
	}
	return discard
}

// discard marks the result as closed. It reports false if the result must not be closed. discarding
// is locked.
func (s *taskState) discard() bool {
	if s.bits.Load()&(taskShared|taskCollected|taskDiscarded) != 0 {
		return false
	}
	s.bits.Or(taskDiscarded)
	return true
}

// collect reports whether a caller may have the result of a task that has ended. If it reports
// true, the result will not be closed. If it reports false, the result was closed.
func (t *task) collect() bool {
	if bits := t.state.bits.Load(); bits&taskCloser == 0 || bits&taskCollected != 0 {
		return true
	}
	discarding.mu.Lock()
	defer discarding.mu.Unlock()
	if t.state.bits.Load()&taskDiscarded != 0 {
		return false
	}
	t.state.bits.Or(taskCollected)
	t.next = nil
	return true
}

// closeResult closes a result that was discarded. If Close panics or calls Goexit, this is a
// failure of the task, and is reported at once.
func (h *JoinHandle[T]) closeResult() {
	c := any(h.val).(io.Closer)
	if v := reflect.ValueOf(c); v.Kind() == reflect.Pointer && v.IsNil() {
		return
	}
	returned := false
	defer func() {
		if returned {
			return
		}
		err := ErrGoexit
		if v := recover(); v != nil {
			err = newPanicError(&h.task, v)
		}
		h.w.rt.failures.add(&h.task, err).(*taskFailure).unjoinable()
	}()
	c.Close()
	returned = true
}

// errDiscarded is the error of a task whose result was closed.
var errDiscarded = context.Canceled
