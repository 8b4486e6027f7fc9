package async

import (
	"fmt"
	"runtime/debug"
)

// A Waker makes its task be polled again. A future that returns [ErrPending] keeps the Waker of the
// [Context] (see [Context.Waker]), and wakes it when the future may have its result.
//
// Its methods may be called concurrently from any goroutine, any number of times, also after the
// task has ended. Several wakes before the next poll count as one. A wake that was not needed is
// harmless: the future is polled and is still pending. Wakers are comparable: two Wakers that are
// equal wake the same task. Waking the zero Waker does nothing.
type Waker struct{ t *task }

// NewWaker returns a [Waker] that calls wake. It is for a loop that polls futures itself; see
// [NewContext]. wake is called on the goroutine that wakes, possibly on several goroutines at once,
// and must not block. The program crashes if wake panics or calls [runtime.Goexit], as the Fail
// functions of package testing do: otherwise other tasks that the same goroutine was about to wake
// would stay asleep.
func NewWaker(wake func()) Waker { return Waker{newExternalWaker(wake)} }

// Wake makes the task be polled again. It returns at once.
func (w Waker) Wake() {
	if w.t != nil {
		w.t.wake(nil)
	}
}

// externalWaker is the task of a Waker that NewWaker has made. No worker polls it: to wake it is to
// call its function. Since it is a task, it can wait in the same slots as other tasks.
//
// A wake of a task is a call of task.wake, whatever the kind of the task is. Its protocol, and the
// races that it closes, are at the head of task.go.
type externalWaker struct {
	task
	fn func()
}

func newExternalWaker(fn func()) *task {
	o := &externalWaker{fn: fn}
	o.kind = kindExternal
	o.body = o
	return &o.task
}

func (o *externalWaker) poll(w *worker) bool {
	w.noteRunnable()
	returned := false
	defer func() {
		if !returned {
			crashProcess("the function of a Waker", recover())
		}
	}()
	o.fn()
	returned = true
	return false
}

// crashProcess ends the program by a panic on a goroutine of its own, where no deferred call
// recovers it. what names the function of the user's that has panicked with v, or has called Goexit
// if v is nil. crashProcess does not return, because its caller might end the program before the
// panic does.
func crashProcess(what string, v any) {
	if v == nil {
		v = "it called runtime.Goexit"
	}
	go panic(fmt.Sprintf("async: %s must return: %v\n\n%s", what, v, debug.Stack()))
	select {}
}

func (o *externalWaker) abort(*worker, error) {}
