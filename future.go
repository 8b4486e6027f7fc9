package async

import "errors"

// A Future is a value that is polled until it has its result. [Await] polls a future for
// straight-line code, [SpawnFuture] makes a task of it, and [PollFunc] makes one of a function.
//
// If a future holds something while it waits, such as a place in a queue, an open descriptor or
// another future, it also has a method Cancel(). This method is called once, if the future is given
// up before it has its result: by [Await] and [Select] when they stop waiting, by the runtime when
// the task of the future is cancelled, and by [Cancel].
//
// A future belongs to one task at a time, which does not call its methods concurrently. So a future
// needs no lock for its own state, but only for state that it shares with the code that wakes it. A
// future that several tasks may poll, such as a [JoinHandle], says so.
type Future[T any] interface {
	// Poll returns the result, or [ErrPending] itself, never wrapped. Before it returns ErrPending
	// it keeps [Context.Waker], and wakes the waker when it may have its result. Any other error is
	// a result.
	//
	// Poll must not block, and must not be called again after it has returned a result. It may be
	// called without a wake: a wake means "try again", and never "the result is there".
	Poll(cx *Context) (T, error)
}

// A Stream is a sequence of elements, which is polled for one element after another. [Chan],
// [JoinSet] and [IncomingStream] are streams. A stream that says nothing else is polled by one task
// at a time.
type Stream[T any] interface {
	// PollNext returns the next element, or [io.EOF] after the last element, or [ErrPending] in the
	// same way as [Future.Poll].
	PollNext(cx *Context) (T, error)
}

// None is the result of tasks that have none.
type None = struct{}

// canceler is implemented by a future that must know that it was given up.
type canceler interface{ Cancel() }

// abandoner is a Future or Stream that goes on when a task stops waiting for it, but must not keep
// this task. abandoned is called when t, which has polled it, has stopped waiting. from is the
// worker on whose thread the caller runs, or nil.
type abandoner interface{ abandoned(t *task, from *worker) }

// Cancel gives f up: no code will poll f again. It calls the method Cancel of f, if f has one, and
// makes f forget the task that has polled it. The documentation of f says what is lost; most
// futures lose nothing. To cancel a [*JoinHandle] is to cancel its task. If the result of this task
// is an [io.Closer], it is closed, unless another caller waits for it or has it; see [JoinHandle].
// Cancel does not wait. It must not be called twice for the same future, nor after a Poll that has
// returned a result.
//
// A future that is made of other futures gives them up in its own method Cancel. When it has its
// result, it also gives up the futures that have no result yet:
//
//	func (r *race) Cancel() {
//		async.Cancel(r.cx, r.a) // r.cx is the cx of the last Poll
//		async.Cancel(r.cx, r.b)
//	}
//
// cx is the [Context] with which f was polled, or nil if f was not polled. The task of cx must be
// the caller, or must have ended.
func Cancel[T any](cx *Context, f Future[T]) {
	if cx == nil {
		abandonFuture(nil, f)
	} else {
		abandonFuture(cx.t, f)
	}
}

// abandonFuture is giveUp for t, which has polled f. t is nil if no task has polled f.
func abandonFuture(t *task, f any) {
	giveUp(t, f)
	if f, ok := f.(abandoner); ok && t != nil {
		f.abandoned(t, callersWorker())
	}
}

// Await polls f until it has a result, and returns the result and the error of f. Between two polls
// the calling task or goroutine waits; [Context] says how each kind of code waits.
//
// If cx is cancelled, Await gives f up and returns cx.Err(), even if f would be ready. To give up a
// [*JoinHandle] is to cancel its task; [JoinHandle.Join] leaves the task running instead. f is also
// given up if its Poll panics, and if [Runtime.Shutdown] unwinds the code that waits.
//
// Await panics
//
//   - if cx belongs to a plain future, which cannot wait;
//   - if the caller is not the code to which cx was passed;
//   - if f returns [ErrPending] and has not taken the waker, since the task would wait without end.
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

// errAbandoned is the error of the functions that await for other functions of the package, if cx
// was cancelled: await, awaitBy, awaitInOrder and pollFD.await. Their caller leaves the slots where
// the task waits, and replaces errAbandoned by cx.Err(). The user never gets errAbandoned.
var errAbandoned = errors.New("async: abandoned")

// awaitedError returns cx.Err() if err is errAbandoned, and otherwise err.
func awaitedError(cx *Context, err error) error {
	if err == errAbandoned {
		return cx.Err()
	}
	return err
}

// awaitSlot awaits a poll that waits in s. If cx is cancelled, the task leaves s, and awaitSlot
// returns cx.Err().
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

// awaitBy polls, waits and polls again. t is the task that beginAwait has returned. If cx is
// cancelled, awaitBy returns errAbandoned.
//
// A poll that is ready and has taken no operation off the budget costs one operation. So a loop
// over futures that are always ready lets other tasks run.
//
// Channels, slots, sleeps and descriptors have a loop of their own, with a shorter way for an
// operation that is ready at once.
func awaitBy[T any](t *task, cx *Context, poll func(*Context) (T, error)) (T, error) {
	var budget *int // nil for a goroutine, which has none
	if t.kind == kindStraight {
		budget = &t.w.budget
	}
	for {
		if cx.ended() {
			if !cx.spend() {
				t.wait() // queued again by spend: code that ignores cancellation yields, too
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
			panic("async: Await: a future returned ErrPending without taking cx.Waker(), so nothing would ever wake this task")
		}
		t.wait()
	}
}

// awaitInOrder is await for a poll that joins s and waits there in order; see wakerSlot. If it
// fails, or if the code is unwound, the task leaves s, which passes a wake on to the next task.
func awaitInOrder[T any](cx *Context, s *wakerSlot, poll func(*Context) (T, error)) (v T, err error) {
	again, over := false, false
	defer func() {
		if !over { // it has failed, or Shutdown unwinds the code
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

// ReadyFuture returns a [Future] that has the result v at its first poll. Its error is always nil.
// It may be polled again. If it is given up, nothing is lost.
func ReadyFuture[T any](v T) Future[T] { return readyFuture[T]{v: v} }

// FailedFuture returns a [Future] that fails with err at its first poll. It panics if err is nil or
// [ErrPending], which cannot be the error of a result. If the future is given up, nothing is lost.
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

// NeverFuture returns a [Future] that is always pending. Code that awaits it waits until its
// [Context] is cancelled.
func NeverFuture[T any]() Future[T] { return neverFuture[T]{} }

type neverFuture[T any] struct{}

func (neverFuture[T]) Poll(cx *Context) (zero T, err error) {
	cx.waker(waitsFuture) // taken, since Await panics if it was not; it is never woken
	return zero, ErrPending
}

// PollFunc returns a [Future] whose Poll is poll. If the future is given up, poll is not called
// again, and no other function is called: a future that must know it needs a type with a method
// Cancel.
func PollFunc[T any](poll func(cx *Context) (T, error)) Future[T] { return pollFunc[T](poll) }

type pollFunc[T any] func(cx *Context) (T, error)

func (f pollFunc[T]) Poll(cx *Context) (T, error) { return f(cx) }
