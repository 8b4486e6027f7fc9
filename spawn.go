package async

import (
	"errors"
)

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
	abandonFuture(&p.task, f)
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
// Context starts on the same worker unless another worker has time for it.
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
	if co.t != nil { // the coroutine's present task waits: this task, or a task begun by beginNext
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
		w.list(&st.task) // cancelAll may have read w.visible before
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

// startTask gives a new task to a worker.
func startTask(s Spawner, t *task) {
	rt, w := s.spawner()
	startTaskAt(rt, w, s, t)
}

// startTaskAt is startTask; rt and w are the results of s.spawner.
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
