package async

import "sync/atomic"

// inPool runs f in the pool of blocking calls and waits for it. If cx is
// cancelled before f has begun, f is not run. If it is cancelled later, f goes
// on; nobody is told of its error, and its result, if it is to be given back,
// goes to drop.
func inPool[T any](cx *Context, f func() (T, error), drop func(T)) (T, error) {
	if cx.ended() {
		var zero T
		return zero, cx.Err()
	}
	var over atomic.Bool // set by the first of the call, when f has returned, and the caller, when it gives up
	h := SpawnBlocking(cx, func() (T, error) {
		v, err := f()
		if over.CompareAndSwap(false, true) {
			return v, err
		}
		if err == nil && drop != nil {
			drop(v)
		}
		var zero T
		return zero, nil
	})
	v, err := await(cx, h.Poll)
	if err != errAbandoned {
		return v, err
	}
	h.waiters.leave(cx.t, cx.here())
	h.Cancel()
	if !over.CompareAndSwap(false, true) || h.state.done() {
		// The call has ended, or is about to, or has never begun. Its failure
		// is seen here, and by nobody else.
		if v, err := awaitAnyway(cx, h.Poll); err == nil && drop != nil {
			drop(v)
		}
	}
	var zero T
	return zero, cx.Err()
}

// errInPool is inPool for a function without a result.
func errInPool(cx *Context, f func() error) error {
	_, err := inPool(cx, func() (None, error) { return None{}, f() }, nil)
	return err
}

// awaitAnyway is await for what ends soon in any case and must not be left
// alone: it does not look whether cx is cancelled.
func awaitAnyway[T any](cx *Context, poll func(*Context) (T, error)) (T, error) {
	t := cx.beginAwait()
	for {
		v, err := poll(cx)
		if err != ErrPending {
			return v, err
		}
		t.wait()
	}
}

// awaitRoom waits until the pool of blocking calls takes calls again. It is
// for those whose poll has just said ErrBusy.
func awaitRoom(cx *Context) error {
	return errInPool(cx, func() error { return nil })
}
