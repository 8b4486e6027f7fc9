package async

import (
	"fmt"
	"runtime/debug"
)

// A Waker makes its task be polled again. A future keeps it when it
// returns ErrPending.
//
// Wake may be called from any goroutine, any number of times, also after the
// task has ended; several wakes before the next poll count as one wake. Wakers are
// comparable: two that are equal wake the same task. Waking the zero Waker
// does nothing.
type Waker struct{ t *task }

// NewWaker returns a Waker that calls wake, for loops that poll futures
// themselves; see NewContext. wake is called on the goroutine that wakes,
// possibly on several at once, and must not block. The program crashes if it panics
// or calls runtime.Goexit, as the Fail functions of package testing do: otherwise
// other tasks that the same caller was about to wake would not be woken.
func NewWaker(wake func()) Waker { return Waker{newExternalWaker(wake)} }

// Wake makes the task be polled again.
func (w Waker) Wake() {
	if w.t != nil {
		w.t.wake(nil)
	}
}

// externalWaker is the task of a Waker of NewWaker. No worker ever polls it: to wake
// it is to call its function. Being a task, it can wait in the same slots as other
// tasks.
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

// crashProcess ends the program, in a goroutine of its own, where no deferred call recovers. The
// user's function that is named by what has panicked with v, or called Goexit if v is nil.
// It does not return: the caller might end the program before the panic does.
func crashProcess(what string, v any) {
	if v == nil {
		v = "it called runtime.Goexit"
	}
	go panic(fmt.Sprintf("async: %s must return: %v\n\n%s", what, v, debug.Stack()))
	select {}
}

func (o *externalWaker) abort(*worker, error) {}
