package async

import (
	"iter"
	"runtime"
	"runtime/pprof"
)

// coroutine is a stack of its own for straight-line code, on the thread of one
// worker. iter.Pull is Go's only way to make a coroutine, and sets the rules:
// a coroutine can be resumed only by the thread that made it, because that thread is
// locked. So a worker makes its own coroutines. It keeps a coroutine whose code has
// ended for the next task: the stack and the making are paid once. A coroutine
// ends when its code calls Goexit.
//
// To Go it is a goroutine in the state "coroutine", so that a traceback shows
// the line on which each task waits.
type coroutine struct {
	resume func() (struct{}, bool) // to the next wait or the end of the code
	stop   func()                  // see unwind
	yield  func(struct{}) bool     // back to the worker; false: unwind

	g        uintptr
	code     coroutineCode // the code of t; nil while co has no task
	t        *task
	returned bool       // the code has returned
	free     *coroutine // the worker's next free coroutine

	labelling uint32 // the worker's labelling when the labels of co were set last

	own   waiter       // see task.ownWaiter
	sleep *sleepFuture // see task.ownTimer; nil before the first Sleep

	asked bool      // resumed only to report where it waits
	where []uintptr // the answer: the stack
}

// coroutineCode is the code that a coroutine runs.
type coroutineCode interface {
	// main runs the code and sets co.returned; it may panic or call Goexit.
	main(co *coroutine)

	// end ends the task with the result of main, or with err if err is not nil. It reports
	// whether the coroutine can begin another task at once.
	end(err error) (reusable bool)
}

// coroutineTask is a straight-line task that has not begun. begin binds it to co, a coroutine of w
// that has no task; co then runs its code.
type coroutineTask interface {
	begin(w *worker, co *coroutine)
}

func newCoroutine(w *worker) *coroutine {
	co := new(coroutine)
	co.resume, co.stop = iter.Pull(func(yield func(struct{}) bool) {
		returned := false
		defer goexitToPanic(&returned)
		co.g = getg()
		co.yield = yield
		identities.add(co.g, &w.identity)
		defer identities.remove(co.g)
		for yield(struct{}{}) {
			for co.run() && w.beginNext(co) {
			}
		}
		returned = true
	})
	co.resume() // so that co.g is known
	return co
}

// goexited is the value that the resumer of a coroutine recovers if code in the coroutine has
// called Goexit. The coroutine has ended then.
type goexited struct{}

// goexitToPanic is the first deferred call of a coroutine. Goexit cannot be stopped, and
// iter.Pull passes it on: Goexit would also end the goroutine that resumes the coroutine. A
// panic in a deferred call takes its place there, and can be recovered. (A panic that gets
// here is a bug in this package.)
func goexitToPanic(returned *bool) {
	if v := recover(); v != nil {
		panic(v)
	}
	if !*returned {
		panic(goexited{})
	}
}

// recoverGoexit is a deferred call of a function that resumes a coroutine.
func recoverGoexit() {
	v := recover()
	if _, ok := v.(goexited); v != nil && !ok {
		panic(v) // a bug in this package
	}
}

// unwind ends the coroutine, and unwinds the code that waits in it.
func (co *coroutine) unwind() {
	defer recoverGoexit()
	co.stop()
}

// run runs the code and ends its task, whatever the code does.
func (co *coroutine) run() (reusable bool) {
	co.returned = false
	defer func() { reusable = co.end(recover()) }()
	co.relabel()
	co.code.main(co)
	return
}

// relabel gives the code the profiler labels of its task. If all tasks of the worker have the
// same labels, it sets them only now and then, in case code has replaced them.
func (co *coroutine) relabel() {
	w := co.t.w
	if w.labelling != co.labelling || w.rt.cfg.Tuning.Labels {
		co.labelling = w.labelling
		pprof.SetGoroutineLabels(w.labelsOf(co.t))
	}
}

// end is run's deferred call. The code has panicked with p, unless p is nil.
func (co *coroutine) end(p any) (reusable bool) {
	var err error
	switch {
	case co.t.w.unwinding:
		err = ErrShutdown
	case p != nil:
		err = newPanicError(co.t, p)
	case !co.returned:
		err = ErrGoexit
	}
	return co.code.end(err)
}

// wait gives the thread back to the worker until the task is polled again. If
// the worker ends meanwhile, it unwinds the code that waits.
func (co *coroutine) wait() {
	for {
		if !co.yield(struct{}{}) {
			runtime.Goexit()
		}
		if !co.asked {
			return
		}
		co.recordStack()
	}
}

// recordStack stores the stack of the waiting code. It is a separate function so that its 256-byte
// array is not in the frame of wait, where every waiting coroutine would hold it: a small stack has 2 KiB.
//
//go:noinline
func (co *coroutine) recordStack() {
	var pcs [32]uintptr
	co.where = append(co.where[:0], pcs[:runtime.Callers(3, pcs[:])]...)
}

// place returns the stack of the code that waits. The worker calls it.
func (co *coroutine) place(w *worker) []uintptr {
	co.asked = true
	w.running = co
	co.resume()
	w.running = nil
	co.asked = false
	return co.where
}
