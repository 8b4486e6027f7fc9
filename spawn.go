package async

import (
	"errors"
)

// plain is a task that polls a future.
type plain[T any] struct {
	JoinHandle[T]
	f Future[T]
}

// SpawnFuture starts a task that polls f until f has its result, and returns the handle of the
// result. It is the cheapest kind of task: one allocation and no stack. Any worker may run it,
// unless it is bound to one (see [Local]). f belongs to the task from then on.
//
// If the task is cancelled, f is given up: its method Cancel is called, if it has one, and the
// error of the handle is the cx.Err() of the task.
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
			panic("async: a spawned future returned ErrPending without taking cx.Waker(), so nothing would ever wake its task")
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
			// The user's Cancel has panicked. The task ends in any case, with both errors.
			err = errors.Join(err, newPanicError(&p.task, v))
		}
		var zero T
		p.finish(w, zero, err)
	}()
	abandonFuture(&p.task, f)
}

// straight is a task that runs straight-line code in a coroutine:
//
//  1. Until its first poll it has no coroutine, and another worker may take it.
//  2. The first poll binds it to a coroutine of its worker (begin). A coroutine whose own task has
//     just ended may also begin it; see worker.beginNext. From then on g is set, so the task stays
//     on this worker.
//  3. Each poll resumes the coroutine. The code runs on the thread of the worker until it waits
//     (task.wait) or ends.
//  4. When the code has ended, the coroutine ends the task itself (end), and gives up the task.
//     Then it begins the next task, or returns to the worker, which keeps it for another task.
type straight[T any] struct {
	JoinHandle[T]
	fn func(*Context) (T, error)
	do func(*Context) error // in the place of fn if there is no result
	co *coroutine
}

// Spawn starts a task that runs fn, and returns the handle of the result and error of fn. fn may
// await. s decides where the task starts and which contexts it is under; see [Spawner]. Once fn has
// begun, it stays on its worker. A task that is spawned with a [Context] starts on the worker of
// this Context, unless another worker has time for it before.
//
// If the task is cancelled ([JoinHandle.Cancel]), fn still runs, and its awaits fail. See
// [JoinHandle.Poll] for the errors of panics, of Goexit and of tasks that were refused.
//
// If fn calls [runtime.LockOSThread], it must call [runtime.UnlockOSThread] as often before it
// awaits, returns or panics. Otherwise the Go runtime ends the program, after a return or a panic
// perhaps only when the worker runs its next task.
func Spawn[T any](s Spawner, fn func(cx *Context) (T, error)) *JoinHandle[T] {
	return startStraight(s, &straight[T]{fn: fn})
}

// Go is [Spawn] for code that has no result but an error.
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
	if co.t != nil { // the task of the coroutine waits: st, or a task that beginNext has begun since
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
		w.list(&st.task) // cancelAll may have read w.visible before: see shutdown.go
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

// abort is called for code that waits in a worker that ends, and for code that has not begun and
// will not begin.
func (st *straight[T]) abort(w *worker, err error) {
	if co := st.co; co != nil {
		w.running = co
		co.unwind() // this calls end
		return
	}
	var zero T
	st.finish(w, zero, err)
}

// startTask queues a new task.
func startTask(s Spawner, t *task) {
	rt, w := s.spawner()
	startTaskAt(rt, w, s, t)
}

// startTaskAt is startTask. rt and w are the results of s.spawner.
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
