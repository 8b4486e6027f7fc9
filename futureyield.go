package async

import "runtime"

// Yield lets other tasks of the worker run, if there are any, and returns nil. If cx is cancelled
// it returns cx.Err(); it may have let other tasks run then.
func Yield(cx *Context) error {
	if w, ok := cx.quick(); ok {
		w.yield(cx.t)
		w.running.wait()
		return cx.fastErr()
	}
	t := cx.beginAwait()
	if !cx.ended() {
		cx.yield()
		t.wait()
	} else if !cx.spend() {
		t.wait() // queued again by spend: code that ignores cancellation yields, too
	}
	return cx.fastErr()
}

// YieldFuture returns [Yield] as a [Future]: it is pending once, and lets other tasks of the worker
// run meanwhile. If it is given up, nothing is lost.
func YieldFuture() Future[None] { return new(yieldOnce) }

type yieldOnce struct{ done bool }

func (y *yieldOnce) Poll(cx *Context) (None, error) {
	if y.done {
		return None{}, nil
	}
	y.done = true
	cx.yield()
	return None{}, ErrPending
}

// yield queues the task of cx behind the other tasks that are ready. The caller must then wait, or
// return ErrPending.
func (cx *Context) yield() {
	if w := cx.here(); w != nil {
		w.yield(cx.t)
	} else {
		cx.waker(waitsYield).wake(nil)
		runtime.Gosched()
	}
}
