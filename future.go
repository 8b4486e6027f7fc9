package async

import "errors"

// A Future is a value that is polled until it has its result.
//
// Poll either returns the result, or keeps cx.Waker() where it will be woken
// and returns ErrPending itself, never wrapped. It must not block, and must
// not be called again after it has returned a result. Being polled without
// having been woken is normal: a wake means "try again", not "it is there".
//
// A future that holds something while it waits (a place in a queue, an open
// descriptor, another future) also has a method Cancel(). It is called, once, when the
// future is given up before it had its result: by [Await] and [Select] when they stop
// waiting, by the runtime when the future's task is cancelled, and by [Cancel].
type Future[T any] interface {
	Poll(cx *Context) (T, error)
}

// A Stream is a sequence that is polled for one element after the other.
// PollNext is to a Stream what Poll is to a Future; it returns io.EOF after
// the last element.
type Stream[T any] interface {
	PollNext(cx *Context) (T, error)
}

// None is the result of tasks that have none.
type None = struct{}

// canceler is implemented by a future that must know that it was given up.
type canceler interface{ Cancel() }

// abandoner is a Future or Stream that goes on when a task stops waiting for it, but must
// not keep that task. abandoned is called when t, which polled it, has stopped waiting.
// from is the worker on whose thread the caller runs, or nil.
type abandoner interface{ abandoned(t *task, from *worker) }

// Cancel gives f up: no code will poll it anymore. A future that is made of others gives
// them up in its own method Cancel, and those that are left over when it has its result:
//
//	func (r *race) Cancel() {
//		async.Cancel(r.cx, r.a) // r.cx is the cx of the last Poll
//		async.Cancel(r.cx, r.b)
//	}
//
// Cancel calls the method Cancel of f, if there is one, and makes f forget the task that has
// polled it. What f then loses is documented with f; most futures lose nothing. A
// *JoinHandle is owned by the code that gives it up: its task is cancelled, and its result
// closed if that is an io.Closer. Cancel does not wait. It must not be called twice for the
// same future, nor after a Poll that has returned a result.
//
// cx is the Context with which f was polled; nil if it was not polled. Its task must be the
// caller, or have ended.
func Cancel[T any](cx *Context, f Future[T]) {
	if cx == nil {
		abandonFuture(nil, f)
	} else {
		abandonFuture(cx.t, f)
	}
}

// abandonFuture is giveUp by t, which may have polled f; nil if no task has.
func abandonFuture(t *task, f any) {
	giveUp(t, f)
	if f, ok := f.(abandoner); ok && t != nil {
		f.abandoned(t, callersWorker())
	}
}

// Await polls f until it has a result, and returns it. Between polls the
// calling task or goroutine waits; Context says how each kind of code waits.
//
// Once cx is cancelled, Await gives f up and returns cx.Err(), even if f would
// be ready. This cancels a JoinHandle; if its task returns an io.Closer all the same, the
// result is closed, see JoinHandle. Await panics if cx cannot wait, if it is used by other code
// than that of its task, and if f returns ErrPending without having taken the waker, for
// that would hang.
//
// f is also given up if Await does not return: when its Poll panics, and when
// Shutdown unwinds the code that waits.
func Await[T any](cx *Context, f Future[T]) (T, error) {
	over := false
	var t *task
	defer func() {
		if !over {
			abandonFuture(t, f) // t is nil if the caller must not use cx
		}
	}()
	t = cx.beginAwait()
	v, err := awaitBy(t, cx, f.Poll)
	if err == errAbandoned {
		return v, cx.Err()
	}
	over = true
	return v, err
}

// errAbandoned is the error that await returns when cx was cancelled. Each caller
// turns it into cx.Err() once it has cleaned up; no other function returns it.
var errAbandoned = errors.New("async: abandoned")

// awaitedError returns the error of an await: cx.Err() instead of errAbandoned.
func awaitedError(cx *Context, err error) error {
	if err == errAbandoned {
		return cx.Err()
	}
	return err
}

// awaitSlot awaits a poll that waits in s. If cx is cancelled, the task leaves s, and awaitSlot returns cx.Err().
func awaitSlot[T any](cx *Context, s *wakerSlot, poll func(*Context) (T, error)) (T, error) {
	v, err := await(cx, poll)
	if err == errAbandoned {
		s.leave(cx.t, cx.here())
		err = cx.Err()
	}
	return v, err
}

// await is awaitBy for the task of cx.
func await[T any](cx *Context, poll func(*Context) (T, error)) (T, error) {
	return awaitBy(cx.beginAwait(), cx, poll)
}

// awaitBy polls, waits and polls again; t is the task that beginAwait has returned. (Operations of which the short way must
// be shorter still have such a loop of their own: channels, slots, sleeps and descriptors.) It takes one operation off the budget for a poll that is ready
// and has taken none itself, so that a loop over futures that are always ready lets other
// tasks run.
func awaitBy[T any](t *task, cx *Context, poll func(*Context) (T, error)) (T, error) {
	var budget *int // nil for a goroutine, which has none
	if t.kind == kindStraight {
		budget = &t.w.budget
	}
	for {
		if cx.ended() {
			if !cx.spend() {
				t.wait() // code that ignores cancellation must not keep its worker
			}
			var zero T
			return zero, errAbandoned
		}
		left := 0
		if budget != nil {
			if left = *budget; left < 0 {
				t.w.yield(t)
				t.wait()
				continue
			}
		}
		v, err := poll(cx)
		if err != ErrPending {
			if budget != nil && *budget == left {
				*budget--
			}
			return v, err
		}
		if t.waits == waitsNothing {
			panic("async: Await: a future returned ErrPending and nobody took cx.Waker(), so nothing would ever wake this task")
		}
		t.wait()
	}
}

// awaitInOrder is await for a poll that joins s, where tasks wait in order; see
// wakerSlot. If it fails, the caller's place is given up.
func awaitInOrder[T any](cx *Context, s *wakerSlot, poll func(*Context) (T, error)) (v T, err error) {
	again, over := false, false
	defer func() {
		if !over { // also if Shutdown unwinds the code
			s.leave(cx.t, callersWorker())
		}
	}()
	v, err = await(cx, func(cx *Context) (T, error) {
		if again {
			s.withdraw(cx.t)
		}
		v, err := poll(cx)
		if again = err == ErrPending; again {
			s.waitInOrder(cx.t)
		}
		return v, err
	})
	over = err == nil
	return v, err
}

// ReadyFuture returns a future that has the result v at once.
func ReadyFuture[T any](v T) Future[T] { return readyFuture[T]{v: v} }

// FailedFuture returns a future that fails with err at once. A nil err, or
// ErrPending, is a mistake of the caller's: FailedFuture panics.
func FailedFuture[T any](err error) Future[T] {
	if err == nil || err == ErrPending {
		panic("async: FailedFuture needs an error that can be a result; got nil or ErrPending")
	}
	return readyFuture[T]{err: err}
}

type readyFuture[T any] struct {
	v   T
	err error
}

func (r readyFuture[T]) Poll(*Context) (T, error) { return r.v, r.err }

// NeverFuture returns a future that is never ready. Awaiting it waits for the
// cancellation of the Context.
func NeverFuture[T any]() Future[T] { return neverFuture[T]{} }

type neverFuture[T any] struct{}

func (neverFuture[T]) Poll(cx *Context) (zero T, err error) {
	cx.waker(waitsFuture) // taken, so that waiting for cancellation alone is not reported as a mistake
	return zero, ErrPending
}

// PollFunc returns the future whose Poll is poll.
func PollFunc[T any](poll func(cx *Context) (T, error)) Future[T] { return pollFunc[T](poll) }

type pollFunc[T any] func(cx *Context) (T, error)

func (f pollFunc[T]) Poll(cx *Context) (T, error) { return f(cx) }
