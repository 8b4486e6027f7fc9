package async

import (
	"context"
	"errors"
	"io"
	"runtime"
)

// A Spawner is where tasks are started: a *Runtime, from anywhere, or the
// *Context of a task, which starts them on its own worker; or a *Group; or one of
// these with properties that its tasks get, see Named, Under and Local.
type Spawner interface {
	// Named returns a Spawner of the same place whose tasks have a name.
	Named(name string) Spawner

	// Under returns a Spawner of the same place whose tasks are cancelled when
	// ctx ends. One that is spawned after that, or waits for room then, does not
	// begin: it has ctx's error.
	// Their Contexts have ctx's deadline and values, and its error and cause
	// once it has ended. So a goroutine that serves an HTTP request spawns its
	// tasks, or calls BlockOn, with rt.Under(r.Context()). What such a task
	// spawns with its own cx is not under ctx.
	Under(ctx context.Context) Spawner

	// spawner returns the runtime, and the worker on whose thread the caller
	// runs, if it runs on one.
	spawner() (*Runtime, *worker)

	// attributes returns what its tasks get beside their code; nil for nothing.
	attributes() *taskAttributes

	// cancelGroup returns whom its tasks are cancelled with; nil for nobody.
	cancelGroup() *cancelGroup
}

// A JoinHandle stands for a task that was spawned, and is a Future of its
// result. Any number of tasks and goroutines may wait for it, also after the
// task has ended. Its methods may be called from any goroutine, except that a
// cx belongs to the caller.
//
// Await(cx, h), Timeout(h, d), OnFuture(h) in a Select, SpawnFuture(s, h) and futures of this
// package that are made of other futures own the handle: if they give it up, they cancel
// its task. The task may still return a result, or have done so at that moment. If this
// result is an io.Closer, such as a connection, and its error is nil, it is closed, unless a
// caller has collected it or another task or goroutine waits for the task (by h.Await, h.Wait,
// OnJoin, a JoinSet, or the channel of h.Done). The worker of the task closes it, or, if the task has
// ended, the caller that gives up; Close must not block, and its error is dropped. A panic in
// Close goes to Config.Unhandled. Poll, Await, Wait and TryAwait return context.Canceled
// then. h.Await, h.Wait, OnJoin and JoinSet do not own the handle, and h.Cancel closes nothing.
//
// A handle that is dropped leaves its task alone. If such a task fails, the
// failure goes to the runtime's handler, at the next garbage collection or when the
// runtime ends: see Config.Unhandled.
type JoinHandle[T any] struct {
	task
	val T
	err error
}

// Poll returns the task's result: what its code returned, a *PanicError if it
// panicked, its Context's error if it was a plain future and was cancelled.
func (h *JoinHandle[T]) Poll(cx *Context) (T, error) {
	if h.state.done() {
		if !cx.spend() {
			var zero T
			return zero, ErrPending
		}
		return h.result()
	}
	// If the end came before the place in the slot was taken, nobody will
	// look there again: so look once more.
	if h.waiters.join(cx.waker(waitsTask)) && !h.state.done() {
		var zero T
		return zero, ErrPending
	}
	return h.result()
}

// Await waits for the task's result; see Poll. If cx is cancelled it returns
// cx.Err() and the task goes on. (Await(cx, h), which owns what it awaits,
// cancels the task then.)
func (h *JoinHandle[T]) Await(cx *Context) (T, error) {
	v, err := await(cx, h.Poll)
	if err == errAbandoned {
		h.waiters.leave(cx.t, cx.here())
		return v, cx.Err()
	}
	return v, err
}

// TryAwait returns the task's result if it has ended; see Poll. It needs no
// Context, and works also where cx is cancelled.
func (h *JoinHandle[T]) TryAwait() (v T, ended bool, err error) {
	if !h.state.done() {
		return v, false, nil
	}
	v, err = h.result()
	return v, true, err
}

// Wait waits for the task's result on a goroutine outside the pool; see Poll.
// If ctx ends first it returns ctx.Err() and the task goes on. It panics in
// tasks, whose worker it would block: they Await.
func (h *JoinHandle[T]) Wait(ctx context.Context) (T, error) {
	mustNotBlock("JoinHandle.Wait", "h.Await(cx)")
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

// notifyChan makes one value wait in a channel of capacity 1.
func notifyChan(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Done returns a channel that is closed when the task has ended. It is the same one in
// every call until then, and is for the select of a goroutine.
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

// fireLate wakes the tasks that wait, for a caller that has put one of them there: the end may
// have come before that.
func (h *JoinHandle[T]) fireLate() {
	h.state.bits.Or(taskShared) // the end does not see what this wakes
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

// ID returns the task's number, which no other task of the runtime has.
func (h *JoinHandle[T]) ID() uint64 { return h.id.Load() }

// Name returns the task's name; see Spawner. It is empty unless one was given.
func (h *JoinHandle[T]) Name() string { return h.name() }

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
	crew := h.cancelGroup()
	h.val = v
	if err != nil {
		h.err = h.blockOnError(err)
		if gaveIn := h.endedByCancel(err); !crew.takesFailure(&h.task, h.err, gaveIn) && !gaveIn {
			h.err = h.w.rt.failures.add(&h.task, h.err)
			if f, ok := h.err.(*taskFailure); ok && h.state.detached() {
				f.unjoinable()
			}
		}
	}
	if h.listedAt != 0 {
		w.rt.workers[h.listedAt-1].waiting.remove(&h.task)
	}
	if hook := h.w.rt.cfg.Hooks.TaskEnd; hook != nil && !h.surveys() {
		hook(h.ident())
	}
	closer := false
	if err == nil {
		_, closer = any(v).(io.Closer)
	}
	if closer {
		if h.finishCloser(w) {
			defer h.closeResult() // which calls a method of the user's
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
	crew.leaveAll(&h.task)
}

// endedByCancel reports whether err only says that the task did what it was told, or
// that another one did that it waited for while everything was told to end.
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
		return errors.Is(cause, p) // that of another task in its group
	}
	return errors.Is(err, t.cx.Err()) || errors.Is(err, cause)
}

// plain is a task that polls a future.
type plain[T any] struct {
	JoinHandle[T]
	f Future[T]
}

// SpawnFuture starts a task that polls f until it has its result. It is the
// cheapest task: one allocation, no stack; while nothing holds it to a worker
// it runs where there is time.
func SpawnFuture[T any](s Spawner, f Future[T]) *JoinHandle[T] {
	p := &plain[T]{f: f}
	p.body = p
	p.cx.t = &p.task
	startTask(s, &p.task)
	return &p.JoinHandle
}

func (p *plain[T]) poll(w *worker) (done bool) {
	if p.state.cancelled() {
		p.abort(w, p.cx.Err())
		return true
	}
	v, err := p.f.Poll(&p.cx)
	if err == ErrPending {
		if p.waits == waitsNothing {
			panic("async: a spawned future returned ErrPending and nobody took cx.Waker(), so nothing would ever wake its task")
		}
		return false
	}
	p.f = nil
	p.finish(w, v, err)
	if err == nil && p.state.detached() {
		w.freeTask(&p.task)
	}
	return true
}

func (p *plain[T]) abort(w *worker, err error) {
	f := p.f
	p.f = nil
	defer func() {
		if v := recover(); v != nil {
			err = errors.Join(err, newPanicError(&p.task, v))
		}
		var zero T
		p.finish(w, zero, err)
	}()
	giveUp(&p.task, f)
}

// straight is a task that runs straight-line code in a coroutine.
type straight[T any] struct {
	JoinHandle[T]
	fn func(*Context) (T, error)
	do func(*Context) error // instead of fn, if there is no result
	co *coroutine
}

// Spawn starts a task that runs fn, and returns the handle of its result. fn
// may await; once it has begun it stays on its worker. A task spawned with a
// Context starts on the same worker unless another one has time for it.
//
// If fn calls runtime.LockOSThread, it must call runtime.UnlockOSThread as often before it awaits, returns or
// panics: otherwise the Go runtime ends the program. After a return or a panic it may end the program only when
// the worker runs its next task.
func Spawn[T any](s Spawner, fn func(cx *Context) (T, error)) *JoinHandle[T] {
	return startStraight(s, &straight[T]{fn: fn})
}

// Go is Spawn for code without a result.
func Go(s Spawner, fn func(cx *Context) error) *JoinHandle[None] {
	return startStraight(s, &straight[None]{do: fn})
}

func startStraight[T any](s Spawner, st *straight[T]) *JoinHandle[T] {
	st.kind = kindStraight
	st.body = st
	st.cx.t = &st.task
	startTask(s, &st.task)
	return &st.JoinHandle
}

func (st *straight[T]) poll(w *worker) (done bool) {
	co := st.co
	if co == nil {
		co = w.takeCoroutine()
		st.begin(w, co)
	} else {
		w.setVisible(&st.task)
	}
	w.running = co
	co.resume()
	w.running = nil
	if co.t != nil { // the coroutine's present task waits: this one, or one begun by beginNext
		return false
	}
	w.freeCoroutine(co)
	return true
}

// begin implements coroutineTask.
func (st *straight[T]) begin(w *worker, co *coroutine) {
	st.co, co.code, co.t = co, st, &st.task
	st.g.Store(co.g)
	w.setVisible(&st.task)
	if w.rt.closing.Load() {
		w.list(&st.task) // cancelAll may have looked at what w shows before
	}
}

// main implements coroutineCode.
func (st *straight[T]) main(co *coroutine) {
	if st.do != nil {
		st.err = st.do(&st.cx)
	} else {
		st.val, st.err = st.fn(&st.cx)
	}
	co.returned = true
}

// end implements coroutineCode.
func (st *straight[T]) end(err error) (reusable bool) {
	v := st.val
	if err != nil {
		var zero T
		v = zero
	} else {
		err = st.err
	}
	co, w := st.co, st.w
	st.fn, st.do, st.co, st.err = nil, nil, nil, nil
	st.finish(w, v, err)
	co.code, co.t = nil, nil
	if err == nil && st.state.detached() {
		w.freeTask(&st.task)
	}
	return true
}

// abort is called for code that waits in a worker that ends, and for code
// that has not begun and never will.
func (st *straight[T]) abort(w *worker, err error) {
	if co := st.co; co != nil {
		w.running = co
		co.unwind() // which calls end
		return
	}
	var zero T
	st.finish(w, zero, err)
}

// startTask hands a new task to a worker.
func startTask(s Spawner, t *task) {
	rt, w := s.spawner()
	startTaskAt(rt, w, s, t)
}

// startTaskAt is start; rt and w are what s.spawner has returned.
func startTaskAt(rt *Runtime, w *worker, s Spawner, t *task) {
	if err := t.applyOptions(s); err != nil {
		rt.refuse(t, err)
		return
	}
	switch pinned := workerOf(s); {
	case pinned != nil:
		rt.spawnOn(pinned, t)
	case w != nil:
		w.spawn(t)
	default:
		rt.spawn(t)
	}
}
