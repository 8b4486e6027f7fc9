package async

import (
	"context"
	"errors"
	"io"
	"runtime"
)

// A JoinHandle stands for a task that was spawned, and is a [Future] of its result. Any number of
// tasks and goroutines may wait for the result, also after the task has ended. The methods may be
// called concurrently from any goroutine, except that a cx belongs to its caller.
//
// Some callers own the handle: if they give it up, they cancel its task. These are [Await](cx, h),
// [TimeoutFuture](h, d), [OnFuture](h) in a [Select], [SpawnFuture](s, h), and other futures of
// this package that are made of futures. [JoinHandle.Join], [JoinHandle.JoinBlocking], [OnJoin] and
// a [JoinSet] do not own the handle: if they give it up, the task goes on.
//
// A task that was cancelled because its owner gave up may still return a result. This result is
// closed if it is an [io.Closer], such as a connection, and its error is nil. It is not closed if a
// caller has collected it, or if another task or goroutine waits for the task. The worker of the
// task closes it, or, if the task has ended, the caller that gives up. Close must not block. The
// error of Close is dropped; a panic in Close goes to [Config.Unhandled]. All methods that return
// the result then return [context.Canceled]. [JoinHandle.Cancel] closes no result.
//
// If a handle is dropped, its task goes on. If such a task fails, the failure goes to
// [Config.Unhandled], at the next garbage collection or when the runtime ends.
type JoinHandle[T any] struct {
	task
	val T
	err error
}

// Poll returns the result of the task, or [ErrPending] until the task has ended. The result is the
// value and the error that the code of the task has returned. The error is
//
//   - a [*PanicError] if the code panicked;
//   - [ErrGoexit] if the code called [runtime.Goexit];
//   - [context.Canceled] or [context.DeadlineExceeded] if a plain future, or a blocking call that
//     had not begun, was cancelled, and if the context or [Group] of the task had ended before it
//     was spawned;
//   - [ErrShutdown] if the task was refused or unwound by [Runtime.Shutdown];
//   - [ErrBusy] if the task was refused because a limit was reached.
func (h *JoinHandle[T]) Poll(cx *Context) (T, error) {
	if h.state.done() {
		if !cx.spend() {
			var zero T
			return zero, ErrPending
		}
		return h.result()
	}
	// The task may have ended before the waiter joined the slot. Its end does not wake this waiter,
	// so look again.
	if h.waiters.join(cx.waker(waitsTask)) && !h.state.done() {
		var zero T
		return zero, ErrPending
	}
	return h.result()
}

// Join waits for the task and returns its result; see [JoinHandle.Poll]. If cx is cancelled, Join
// returns cx.Err() and the task goes on. ([Await](cx, h) owns the handle, and cancels the task
// then.)
func (h *JoinHandle[T]) Join(cx *Context) (T, error) {
	return awaitSlot(cx, &h.waiters, h.Poll)
}

// TryJoin returns the result of the task if the task has ended; see [JoinHandle.Poll]. Otherwise it
// returns [ErrPending]. It needs no [Context], so it also works where cx is cancelled.
func (h *JoinHandle[T]) TryJoin() (v T, err error) {
	if !h.state.done() {
		return v, ErrPending
	}
	return h.result()
}

// JoinBlocking is [JoinHandle.Join] for a goroutine outside the pool, which it parks. If ctx ends
// first, it returns ctx.Err() and the task goes on. If the task has ended, its result is returned
// even if ctx has ended, too. JoinBlocking panics in tasks, because it would block their worker.
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

// Done returns a channel that is closed when the task has ended. It is for the select statement of
// a goroutine. Every call before the end returns the same channel.
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

// fireLate fires the slot for a caller that has put something into it, and has then seen that the
// task of h has ended: the end may have fired the slot before.
func (h *JoinHandle[T]) fireLate() {
	h.state.bits.Or(taskShared) // the end does not see the tasks that this wakes
	h.waiters.fire(nil)
}

// Cancel asks the task to end. From then on every await with the Context of the task, or with one
// derived from it, fails, so that the task's deferred calls run and it returns. The error is
// [context.Canceled], unless a derived Context has expired before. A Context of
// [Context.WithoutCancel] is not cancelled. A plain future is given up, and not polled
// again. A blocking call that has not begun never runs. Cancel returns at once. It may be called
// any number of times, and does nothing if the task has ended.
func (h *JoinHandle[T]) Cancel() { h.cancel(0) }

// CancelCause is [JoinHandle.Cancel] with a cause, which [Context.Cause] and [context.Cause] return
// in the task. A nil cause means [context.Canceled].
func (h *JoinHandle[T]) CancelCause(cause error) { h.cancelCause(cause) }

func (t *task) cancelCause(cause error) {
	if !t.state.cancelled() && !t.state.done() {
		t.cx.scope().propose(cause)
	}
	t.cancel(0)
}

// cancel cancels the task. by is the reason; see taskState.cancel.
func (t *task) cancel(by uint32) {
	// The state changes before the scope ends, and the task is queued last. So an AfterFunc of the
	// scope, and the next poll, see that the task is cancelled.
	held := t.state.cancel(by)
	t.endScope(nil)
	if t.kind == kindBlocking {
		t.w.rt.calls.cancel(t)
	}
	if held {
		t.schedule(nil)
	}
}

// Task returns the number and the name of the task.
func (h *JoinHandle[T]) Task() Task { return h.ident() }

// result returns the result of a task that has ended.
func (h *JoinHandle[T]) result() (T, error) {
	if f, ok := h.err.(*taskFailure); ok {
		f.handled()
		runtime.KeepAlive(h) // if h were garbage, the failure could be reported before it is handled
		return h.val, f.err
	}
	if !h.collect() {
		var zero T
		return zero, errDiscarded
	}
	return h.val, h.err
}

// finish ends the task with a result. The steps are at the head of taskresult.go. w is the worker
// that runs the task, or nil for a task that was refused and for a blocking call.
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
		h.w.rt.workers[h.listedAt-1].waiting.remove(&h.task)
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
			defer h.closeResult() // after the other steps: it calls a method of the user's, which may panic
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

// endedByCancel reports whether err says only that the task was cancelled. This includes a task
// that waited for another task while Shutdown cancelled all tasks, and has returned the error of
// that task.
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
