package async

import (
	"context"
	"io"
	"reflect"
)

// A result that is an io.Closer, such as a connection, is lost if the caller that waits for it
// gives up at the moment when the task returns it. This package closes such a result if
// that caller was the only owner of the handle:
//
//  1. The end of the task notes which tasks it wakes: none, one, or several.
//  2. The owner that gives up leaves the slot. If the task has not ended yet, it marks the
//     result as unwanted; the end closes an unwanted result if it wakes no task.
//  3. If the task has ended, the owner closes the result, unless the end has woken another
//     task, or the result was collected.
//
// All this happens under one lock, discarding, which is taken for results that are an
// io.Closer, and by owners that give up.

// discarding guards the bits of taskState from taskShared to taskDiscarded, and the field
// next of tasks that have ended with an io.Closer: the only task that the end has woken,
// until the result is collected.
var discarding struct {
	mu lockOf[discardLock]
}

// discardLock is the name of that lock in lockOrder.
type discardLock struct{}

// resultOwner is implemented by JoinHandle. giveUpResult is Cancel by an owner; t is the task that
// has polled the handle for the owner, or nil. self returns the handle; it is not the future itself
// if the future embeds a handle and has a Cancel of its own.
type resultOwner interface {
	giveUpResult(t *task)
	self() any
}

// giveUp calls the method of f, if there is one, for the case that its owner will not poll f
// again. t is the task that has polled f for the owner; nil if f was not polled.
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
		// The end comes after this: the lock is also taken to publish a result that is an io.Closer.
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

// finishCloser publishes the result, an io.Closer, wakes the tasks that wait for it, and
// reports whether the caller must close it.
func (h *JoinHandle[T]) finishCloser(w *worker) (discard bool) {
	discarding.mu.Lock()
	h.state.finish(taskCloser)
	woken, early := h.waiters.takeForFire()
	switch {
	case early || len(woken) > 1:
		h.state.bits.Or(taskShared) // early: another caller has woken the waiters, perhaps several
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

// discard marks the result as closed, and reports false if it must not be closed. The lock
// is held.
func (s *taskState) discard() bool {
	if s.bits.Load()&(taskShared|taskCollected|taskDiscarded) != 0 {
		return false
	}
	s.bits.Or(taskDiscarded)
	return true
}

// collect reports whether a caller may have the result of a task that has ended: the result is
// no io.Closer, or was not closed.
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
