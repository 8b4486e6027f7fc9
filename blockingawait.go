package async

import "sync/atomic"

// inPool runs f in the pool of blocking calls and waits for it. If cx is
// cancelled before f has begun, f is not run. If cx is cancelled later, f goes
// on: its error is dropped, and its result is passed to drop, unless drop is
// nil. The same happens if Shutdown unwinds the caller.
func inPool[T any](cx *Context, f func() (T, error), drop func(T)) (T, error) {
	var zero T
	if err := cx.mustAwait(); err != nil {
		return zero, err
	}
	var (
		over   atomic.Bool // set by the call when f has returned, or by the caller when it gives up: by the first of them
		unseen func()      // called by the caller if it was not the first, and does not get the result
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
		// The call has ended, is about to end, or has never begun. Its failure
		// is taken here, and reported nowhere else.
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

// awaitAnyway is await for an operation that ends soon in any case and must not
// be abandoned: it does not look whether cx is cancelled.
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

// awaitRoom waits until the pool of blocking calls takes calls again. A caller
// uses it after a poll that has just returned ErrBusy.
func awaitRoom(cx *Context) error {
	return errInPool(cx, func() error { return nil })
}
