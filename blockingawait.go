package async

import "sync/atomic"

// inPool runs f in the pool of blocking calls and waits for it. If cx is cancelled before f has
// begun, f is not run. If cx is cancelled later, f continues: its error is dropped, and its result
// is passed to drop unless drop is nil. The same happens if Shutdown unwinds the caller.
//
// The result of f has one owner, so that it is neither lost nor dropped twice. Two parties may
// become the owner: the call when f has returned, and the caller when it gives up. Each changes
// over from false to true. The party that changes it first decides:
//
//  1. If the call is first, the result goes into its handle, and the caller takes it from there. If
//     the caller gives up at this moment, it still waits for the handle, which is soon ready, and
//     drops the result. If it is unwound it cannot wait. Then it calls unseen, which the call has
//     written before it changed over.
//  2. If the caller is first, the call drops the result, and returns neither it nor an error.
func inPool[T any](cx *Context, f func() (T, error), drop func(T)) (T, error) {
	var zero T
	if err := cx.mustAwait(); err != nil {
		return zero, err
	}
	var (
		over   atomic.Bool // see above
		unseen func()      // drops the result; written by the call before it changes over
		seen   bool        // the caller need not drop a result
	)
	defer func() {
		// The caller is unwound: by Shutdown, or by a panic.
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
	// The call has ended, is about to end, or was removed from the queue. Taking its failure here
	// handles the failure, so that it is not reported to Config.Unhandled.
	if !seen || h.state.done() {
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

// awaitAnyway is await for an operation that ends soon in any case and must not be abandoned. It
// does not check whether cx is cancelled.
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

// awaitRoom waits until the pool accepts calls again, by an empty call, which waits for room. It is
// used after an attempt to queue a call that has just returned ErrBusy.
func awaitRoom(cx *Context) error {
	return errInPool(cx, func() error { return nil })
}
