package async

import "runtime"

// Yield lets other tasks of the worker run, if there are any. It returns
// cx.Err() if cx is cancelled.
func Yield(cx *Context) error {
	_, err := Await(cx, NewYield())
	return err
}

// NewYield returns a future that is pending once, and lets other tasks of the
// worker run meanwhile.
func NewYield() Future[None] { return new(yieldOnce) }

type yieldOnce struct{ done bool }

func (y *yieldOnce) Poll(cx *Context) (None, error) {
	if y.done {
		return None{}, nil
	}
	y.done = true
	if w := cx.here(); w != nil {
		w.yield(cx.t)
	} else {
		cx.waker(waitsYield).wake(nil)
		runtime.Gosched()
	}
	return None{}, ErrPending
}
