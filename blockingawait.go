package async

import "sync/atomic"

// inPool runs f in the pool of blocking calls and waits for it. If cx is
// cancelled before f has begun, f is not run. If it is cancelled later, f goes
// on; nobody is told of its error, and its result, if it is to be given back,
// goes to drop. So it does if Shutdown unwinds the caller.
func inPool[T any](cx *Context, f func() (T, error), drop func(T)) (T, error) {
	var zero T
	if err := cx.mustAwait(); err != nil {
		return zero, err
	}
	var (
		over   atomic.Bool // set by the first of the call, when f has returned, and the caller, when it gives up
		unseen func()      // what the caller must do if it was not the first, and does not get the result
		seen   bool
	)
	defer func() {
		if !seen && !over.CompareAndSwap(false, true) && unseen != nil {
			unseen()
		}
	}()
	h := spawnCall(cx, func() (T, error) {
		v, err := f()
		kept := err == nil && drop != nil
		if kept {
			unseen = func() { drop(v) }
		}
		if over.CompareAndSwap(false, true) {
			return v, err
		}
		if kept {
			drop(v)
		}
		return zero, nil
	}, false)
	v, err := await(cx, h.Poll)
	if err != errAbandoned {
		seen = true
		return v, err
	}
	h.waiters.leave(cx.t, cx.here())
	h.Cancel()
	seen = over.CompareAndSwap(false, true)
	if !seen || h.state.done() {
		// The call has ended, or is about to, or has never begun. Its failure
		// is seen here, and by nobody else.
		v, err := awaitAnyway(cx, h.Poll)
		seen = true
		if err == nil && drop != nil {
			drop(v)
		}
	}
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
