package async

import "runtime"

// Yield lets other tasks of the worker run, if there are any. It returns
// cx.Err() if cx is cancelled.
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
		t.wait() // code that ignores cancellation must not keep its worker
	}
	return cx.fastErr()
}

// YieldFuture returns a future that is pending once, and lets other tasks of the
// worker run meanwhile.
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

// yield queues the task of cx behind the other ready tasks. The caller must then return ErrPending or wait.
func (cx *Context) yield() {
	if w := cx.here(); w != nil {
		w.yield(cx.t)
	} else {
		cx.waker(waitsYield).wake(nil)
		runtime.Gosched()
	}
}
