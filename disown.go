package async

import (
	"context"
	"io"
)

// A connection that a task has made must be closed by its caller, who does not get it if the
// wait is given up: the task may have returned it at that very moment. So if the caller
// that gives up was the only owner of the handle, this package closes the result.
//
// Two callers know parts of what must be known for that: the end of the task, which tasks
// it has woken, and the owner, whether it was one of these. Each notes its part in the
// state of the task, and the one that comes last decides.

// disowner is a future that may stand for the result of a task. disown is its Cancel, by a
// caller that is its only owner. t is the task that has polled it and may wait for it; nil
// if none has.
type disowner interface{ disown(t *task) }

// giveUp tells f, if it wants to know, that its owner, for which t has polled it, will not
// poll it again; see disowner.
func giveUp(t *task, f any) {
	switch f := f.(type) {
	case disowner:
		f.disown(t)
	case canceller:
		f.Cancel()
	}
}

// poller returns t if the future that it waits for may have kept its waker, and else nil.
func (t *task) poller() *task {
	if t.waits == waitsNothing {
		return nil
	}
	return t
}

// disown implements disowner.
func (h *JoinHandle[T]) disown(t *task) {
	note := taskUnwanted
	if t != nil && !h.waiters.leave(t, callersWorker()) {
		note |= taskOwnerWoken
	}
	h.cancel(0)
	if h.state.note(note) {
		h.discard()
	}
}

// counted notes, for the end of a task whose result is an io.Closer, how many tasks
// it has woken.
func (h *JoinHandle[T]) counted(woken int) {
	note := taskCounted
	switch {
	case woken == 1:
		note |= taskAwaited
	case woken > 1:
		note |= taskShared
	}
	if h.state.note(note) {
		h.discard()
	}
}

// note sets bits, and reports whether both parts are known since then and the result is
// unwanted: the owner has given it up, and no other task was woken to take it.
func (s *taskState) note(bits uint32) (unwanted bool) {
	const both = taskCounted | taskUnwanted
	old := s.bits.Or(bits)
	now := old | bits
	return old&both != both && now&both == both && now&taskShared == 0 &&
		(now&taskAwaited != 0) == (now&taskOwnerWoken != 0)
}

// collect reports whether the caller may have a result that is an io.Closer: it was not
// closed, and will not be.
func (s *taskState) collect() bool {
	for {
		old := s.bits.Load()
		switch {
		case old&taskDiscarded != 0:
			return false
		case old&taskCollected != 0 || s.bits.CompareAndSwap(old, old|taskCollected):
			return true
		}
	}
}

// discard closes the result, unless a caller has it.
func (h *JoinHandle[T]) discard() {
	for {
		old := h.state.bits.Load()
		if old&(taskCollected|taskDiscarded) != 0 {
			return
		}
		if h.state.bits.CompareAndSwap(old, old|taskDiscarded) {
			break
		}
	}
	v := h.val
	returned := false
	defer func() {
		if returned {
			return
		}
		err := ErrGoexit
		if v := recover(); v != nil {
			err = newPanicError(&h.task, v)
		}
		h.w.rt.failures.add(&h.task, err).(*failure).unjoinable()
	}()
	any(v).(io.Closer).Close()
	returned = true
}

// errDiscarded is the error of a task whose result was closed.
var errDiscarded = context.Canceled
