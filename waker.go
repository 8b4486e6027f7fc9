package async

import (
	"fmt"
	"runtime/debug"
)

// A Waker makes its task be polled again. It is what a future keeps when it
// returns ErrPending.
//
// Wake may be called from any goroutine, any number of times, also after the
// task has ended; wakes that come before the next poll are one. Wakers are
// comparable: two that are equal wake the same task. Waking the zero Waker
// does nothing.
type Waker struct{ t *task }

// NewWaker returns a Waker that calls wake, for loops that poll futures
// themselves; see NewContext. wake is called on whatever goroutine wakes,
// possibly on several at once, and must not block. The program crashes if it panics
// or calls runtime.Goexit, as the Fail functions of package testing do: whoever
// called it would wake nobody anymore.
func NewWaker(wake func()) Waker { return Waker{newExternalWaker(wake)} }

// Wake makes the task be polled again.
func (w Waker) Wake() {
	if w.t != nil {
		w.t.wake(nil)
	}
}

// externalWaker is what a Waker of NewWaker points to: a task that no worker ever
// polls, since waking it is calling its function. Being a task, it can wait in
// the same slots as the others.
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

// crashProcess ends the program, in a goroutine of its own, where nothing recovers: a function of
// the user's, what, has panicked with v, or called Goexit if that is nil. It does not return:
// the caller might end the program before that.
func crashProcess(what string, v any) {
	if v == nil {
		v = "it called runtime.Goexit"
	}
	go panic(fmt.Sprintf("async: %s must return: %v\n\n%s", what, v, debug.Stack()))
	select {}
}

func (o *externalWaker) abort(*worker, error) {}
