package async

import (
	"iter"
	"runtime"
	"runtime/pprof"
)

// coroutine is a stack for straight-line code, on the thread of one worker. iter.Pull is Go's only
// way to make a coroutine, and sets the rules. A coroutine can be resumed only by the thread that
// made it, because that thread is locked. So a worker makes its own coroutines, and straight-line
// code that has begun cannot move to another worker. To Go a coroutine is a goroutine in the state
// "coroutine", so that a traceback shows the line on which each task waits.
//
// The states of a coroutine are:
//
//	         t and code  runs
//	free     nil         the worker; co is in its list freeCoroutines
//	running  set         the code, on the thread of the worker; worker.running is co
//	waiting  set         the worker; the code is in wait, in the call of yield
//	ended                the worker; the code has called Goexit, or the worker has unwound co
//
// The transitions, all on the thread of the worker:
//
//  1. newCoroutine makes it, and resumes it up to its first yield: it is free.
//  2. straight.begin binds it to a task. straight.poll resumes it: it is running.
//  3. The code waits (wait): yield switches to the worker, and resume returns in straight.poll. The
//     next poll resumes the coroutine at this place.
//  4. The code returns or panics: run ends the task. Then either beginNext binds the coroutine to
//     the next task at once, without a switch, or it yields and straight.poll puts it on the list
//     of free coroutines. So the stack, and the work of making it, are paid once.
//  5. The code calls Goexit: run ends the task, and the coroutine ends. The worker recovers a panic
//     with the value goexited in its place; see goexitToPanic.
//  6. The worker unwinds it (unwind): yield returns false, and wait calls Goexit, so that the
//     deferred calls of the code run. A free coroutine just returns.
type coroutine struct {
	resume func() (struct{}, bool) // switches to co; returns at its next yield or its end
	stop   func()                  // see unwind
	yield  func(struct{}) bool     // switches to the worker; returns false to unwind

	g        uintptr       // the goroutine that co is to Go
	code     coroutineCode // the code of t; nil while co has no task
	t        *task
	returned bool       // the code has returned
	free     *coroutine // the worker's next free coroutine

	labelling uint32 // the worker's labelling when the labels of co were set last

	own   waiter       // see task.ownWaiter
	sleep *sleepFuture // see task.ownTimer; nil before the first Sleep

	asked bool      // co is resumed only to report where its code waits; see place
	where []uintptr // the report: the stack
}

// coroutineCode is the code that a coroutine runs.
type coroutineCode interface {
	// main runs the code, and sets co.returned after it. The code may panic or call Goexit.
	main(co *coroutine)

	// end ends the task with the result of main, or with err if err is not nil. It reports whether
	// the coroutine can begin another task at once.
	end(err error) (reusable bool)
}

// coroutineTask is implemented by the bodies of straight-line tasks. begin binds a task that has
// not begun to co, a coroutine of w that has no task. When co runs next, it runs the code of the
// task.
type coroutineTask interface {
	begin(w *worker, co *coroutine)
}

// newCoroutine makes a free coroutine of w. Only the thread of w calls it. The coroutine is in the
// table of identities for all of its life. So a switch costs nothing for that, and callersWorker
// finds w in the code.
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

// goexited is the value of the panic that the resumer of a coroutine sees if code in the coroutine
// has called Goexit. The coroutine has ended then.
type goexited struct{}

// goexitToPanic is the first deferred call of a coroutine, so it runs last. A Goexit cannot be
// stopped, and iter.Pull passes it on: it would also end the goroutine that resumes the coroutine,
// which is the worker's. A panic in a deferred call replaces the Goexit, and the resumer can
// recover the panic (recoverGoexit, worker.recoverPoll).
func goexitToPanic(returned *bool) {
	if v := recover(); v != nil {
		panic(v) // a bug in this package, since run recovers the panics of the code
	}
	if !*returned {
		panic(goexited{})
	}
}

// recoverGoexit is a deferred call of a function that resumes a coroutine whose code may call
// Goexit.
func recoverGoexit() {
	v := recover()
	if _, ok := v.(goexited); v != nil && !ok {
		panic(v) // a bug in this package
	}
}

// unwind ends the coroutine. If code waits in it, the deferred calls of the code run before unwind
// returns.
func (co *coroutine) unwind() {
	defer recoverGoexit()
	co.stop()
}

// run runs the code and ends its task, also if the code panics or calls Goexit. It reports whether
// the coroutine may begin another task. After a Goexit it does not return.
func (co *coroutine) run() (reusable bool) {
	co.returned = false
	defer func() { reusable = co.end(recover()) }()
	co.relabel()
	co.code.main(co)
	return
}

// relabel gives the coroutine the profiler labels of its task. If all tasks of the worker have the
// same labels, it sets them only when worker.relabel has been called since the last time. That
// happens about once a millisecond, and is enough in case code has replaced the labels.
func (co *coroutine) relabel() {
	w := co.t.w
	if w.labelling != co.labelling || w.rt.cfg.Tuning.Labels {
		co.labelling = w.labelling
		pprof.SetGoroutineLabels(w.labelsOf(co.t))
	}
}

// end is run's deferred call. If p is not nil, the code has panicked with p. If the code has
// neither panicked nor returned, it has called Goexit, or wait has called it because the worker
// ends (unwinding).
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

// wait suspends the code until its task is polled again. It is called by the code, in an await. If
// the worker ends meanwhile, it unwinds the code by Goexit. The worker may also resume co to ask
// where the code waits: then wait answers and suspends again.
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

// recordStack stores the stack of the waiting code in where. It is a separate function so that its
// array of 256 bytes is not in the frame of wait, where each waiting coroutine would hold it. The
// smallest stack has 2 KiB.
//
//go:noinline
func (co *coroutine) recordStack() {
	var pcs [32]uintptr
	co.where = append(co.where[:0], pcs[:runtime.Callers(3, pcs[:])]...)
}

// place returns the stack of the code that waits in co. Only the thread of w calls it. The slice is
// valid until the next call. The stack is taken only when it is asked for, since to record it in
// each wait would slow down all awaits.
func (co *coroutine) place(w *worker) []uintptr {
	co.asked = true
	w.running = co
	co.resume()
	w.running = nil
	co.asked = false
	return co.where
}
