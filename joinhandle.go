package async

import (
	"context"
	"errors"
	"io"
	"runtime"
)

// A JoinHandle stands for a task that was spawned, and is a Future of its
// result. Any number of tasks and goroutines may wait for it, also after the
// task has ended. Its methods may be called from any goroutine, except that a
// cx belongs to the caller.
//
// Await(cx, h), TimeoutFuture(h, d), OnFuture(h) in a Select, SpawnFuture(s, h) and futures of this
// package that are made of other futures own the handle: if they give it up, they cancel
// its task. The task may still return a result, or have done so at that moment. If this
// result is an io.Closer, such as a connection, and its error is nil, the result is closed, unless
// a caller has collected it or another task or goroutine waits for the task (by h.Join, h.JoinBlocking,
// OnJoin, a JoinSet, or the channel of h.Done). The worker of the task closes it, or, if the task has
// ended, the caller that gives up; Close must not block, and its error is dropped. A panic in
// Close goes to Config.Unhandled. Poll, Join, JoinBlocking and TryJoin return context.Canceled
// then. h.Join, h.JoinBlocking, OnJoin and JoinSet do not own the handle, and h.Cancel closes nothing.
//
// A handle that is dropped leaves its task alone. If such a task fails, the
// failure goes to the runtime's handler, at the next garbage collection or when the
// runtime ends: see Config.Unhandled.
type JoinHandle[T any] struct {
	task
	val T
	err error
}

// Poll returns the task's result: the value and error that its code returned, a
// *PanicError if the code panicked, its Context's error if the task was a plain future
// and was cancelled.
func (h *JoinHandle[T]) Poll(cx *Context) (T, error) {
	if h.state.done() {
		if !cx.spend() {
			var zero T
			return zero, ErrPending
		}
		return h.result()
	}
	// The task may have ended before the waiter joined the slot. Then the end
	// does not wake the waiter: so look once more.
	if h.waiters.join(cx.waker(waitsTask)) && !h.state.done() {
		var zero T
		return zero, ErrPending
	}
	return h.result()
}

// Join waits for the task's result; see Poll. If cx is cancelled it returns
// cx.Err() and the task goes on. (Await(cx, h), which owns the handle,
// cancels the task then.)
func (h *JoinHandle[T]) Join(cx *Context) (T, error) {
	return awaitSlot(cx, &h.waiters, h.Poll)
}

// TryJoin returns the task's result if it has ended; see Poll. Until then it returns
// ErrPending. It needs no Context, and works also where cx is cancelled.
func (h *JoinHandle[T]) TryJoin() (v T, err error) {
	if !h.state.done() {
		return v, ErrPending
	}
	return h.result()
}

// JoinBlocking waits for the task's result on a goroutine outside the pool; see Poll.
// If ctx ends first it returns ctx.Err() and the task goes on. It panics in
// tasks, whose worker it would block: tasks call Join.
func (h *JoinHandle[T]) JoinBlocking(ctx context.Context) (T, error) {
	mustNotBlock("JoinHandle.JoinBlocking", "h.Join(cx)")
	if h.state.done() {
		return h.result()
	}
	p := takeParker()
	defer p.free()
	for !h.state.done() {
		h.waiters.join(&p.task)
		if h.state.done() {
			break
		}
		if err := p.park(ctx); err != nil {
			h.waiters.leave(&p.task, nil)
			var zero T
			return zero, err
		}
	}
	return h.result()
}

// Done returns a channel that is closed when the task has ended. Every call until then
// returns the same channel. It is for the select of a goroutine.
func (h *JoinHandle[T]) Done() <-chan struct{} {
	if h.state.done() {
		return closedSignal
	}
	c := h.waiters.signal()
	if h.state.done() {
		h.fireLate()
	}
	return c
}

// fireLate wakes the tasks that wait in the slot, for a caller that has put a task there: the
// task of h may have ended before that.
func (h *JoinHandle[T]) fireLate() {
	h.state.bits.Or(taskShared) // the end does not see the tasks that this wakes
	h.waiters.fire(nil)
}

// Cancel asks the task to end. Every await in it returns context.Canceled from
// then on, so that its deferred calls run and it returns; a plain future is
// given up. Cancel returns at once and may be called any number of times; a
// task that has ended is not changed by it.
func (h *JoinHandle[T]) Cancel() { h.cancel(0) }

// CancelCause is Cancel with a reason, which the task finds in cx.Cause and
// context.Cause(cx). A nil cause is context.Canceled.
func (h *JoinHandle[T]) CancelCause(cause error) { h.cancelCause(cause) }

func (t *task) cancelCause(cause error) {
	if !t.state.cancelled() && !t.state.done() {
		t.cx.scope().propose(cause)
	}
	t.cancel(0)
}

// cancel cancels the task; see taskState.cancel.
func (t *task) cancel(by uint32) {
	held := t.state.cancel(by)
	t.endScope(nil)
	if t.kind == kindBlocking {
		t.w.rt.calls.cancel(t)
	}
	if held {
		t.schedule(nil)
	}
}

// Task returns the number and the name of the handle's task.
func (h *JoinHandle[T]) Task() Task { return h.ident() }

// result is called once the task is done.
func (h *JoinHandle[T]) result() (T, error) {
	if f, ok := h.err.(*taskFailure); ok {
		f.handled()
		runtime.KeepAlive(h) // as garbage it could be reported before it is handled
		return h.val, f.err
	}
	if !h.collect() {
		var zero T
		return zero, errDiscarded
	}
	return h.val, h.err
}

// finish ends the task with a result. w is the worker that runs it, or nil for
// a task that was refused.
func (h *JoinHandle[T]) finish(w *worker, v T, err error) {
	group := h.cancelGroup()
	h.val = v
	if err != nil {
		h.err = h.finalError(err)
		if gaveIn := h.endedByCancel(err); !group.takesFailure(&h.task, h.err, gaveIn) && !gaveIn {
			h.err = h.w.rt.failures.add(&h.task, h.err)
			if f, ok := h.err.(*taskFailure); ok && h.state.detached() {
				f.unjoinable()
			}
		}
	}
	if h.listedAt != 0 {
		w.rt.workers[h.listedAt-1].waiting.remove(&h.task)
	}
	if hook := h.w.rt.cfg.Tuning.Hooks.TaskEnd; hook != nil && !h.surveys() {
		hook(h.ident())
	}
	closer := false
	if err == nil {
		_, closer = any(v).(io.Closer)
	}
	if closer {
		if h.finishCloser(w) {
			defer h.closeResult() // deferred, since it calls a method of the user's
		}
	} else {
		h.state.finish(0)
		if h.waiters.p.Load() != nil {
			h.waiters.fire(w)
		}
	}
	h.endScope(w)
	if w != nil {
		w.counts[countEnded]++
	}
	group.leaveAll(&h.task)
}

// endedByCancel reports whether err only means that the task has ended because it was
// cancelled. This includes a task that waited for another task while Shutdown cancelled
// all tasks, and has returned the error of that task.
func (t *task) endedByCancel(err error) bool {
	var p *PanicError
	panicked := errors.As(err, &p)
	cancelled := t.state.cancelled()
	switch {
	case !panicked && errors.Is(err, ErrShutdown):
		return true
	case !panicked && errors.Is(err, context.Canceled) && (cancelled || t.w.rt.closing.Load()):
		return true
	case !cancelled:
		return false
	}
	cause := t.cx.Cause()
	if panicked {
		return errors.Is(cause, p) // the panic of another task in its group
	}
	return errors.Is(err, t.cx.Err()) || errors.Is(err, cause)
}
