package async

import (
	"context"
	"sync/atomic"
)

// A Oneshot hands over one value, once: Send gives it, without waiting, and one
// Recv gets it, whichever comes first. The zero Oneshot is ready for use, and must
// not be copied. It is the Future of its value. All methods may be called by tasks
// and goroutines at the same time.
//
// A sender that will not send, or a receiver that is no longer interested, calls Close; the
// other side cannot know it otherwise.
type Oneshot[T any] struct {
	state  oneshotState
	recvs  wakerSlot // the tasks that wait for the value
	closed wakerSlot // the tasks that wait for the end of interest
	v      T
}

// oneshotState goes through its values in this order, and may leave some out.
type oneshotState struct{ is atomic.Uint32 }

const (
	oneshotOpen    uint32 = iota
	oneshotSending        // the value is being written, by the caller that set this
	oneshotSent           // it is there
	oneshotOver           // it has been received, by the caller that set this, or none will come
)

// beginSend reports whether the caller is the one sender, which must then send.
func (s *oneshotState) beginSend() bool { return s.is.CompareAndSwap(oneshotOpen, oneshotSending) }

func (s *oneshotState) sent() { s.is.Store(oneshotSent) }

// take makes the caller the owner of the value, if there is one.
func (s *oneshotState) take() bool {
	return s.is.Load() == oneshotSent && s.is.CompareAndSwap(oneshotSent, oneshotOver)
}

// close ends the Oneshot, unless a value has been sent or is about to be.
func (s *oneshotState) close() (first bool) { return s.is.CompareAndSwap(oneshotOpen, oneshotOver) }

func (s *oneshotState) over() bool { return s.is.Load() == oneshotOver }

// Send sends v to the caller that receives, now or later. It fails with ErrClosed if there
// was a Send or a Close before.
func (o *Oneshot[T]) Send(v T) error {
	if !o.state.beginSend() {
		return ErrClosed
	}
	o.v = v
	o.state.sent()
	if o.recvs.p.Load() != nil {
		o.recvs.notifyAll(callersWorker())
	}
	return nil
}

// Close ends the Oneshot without a value: Send and Recv fail with ErrClosed. A value that
// has been sent before can still be received. Close returns ErrClosed if there was a Send or
// a Close before, and changes nothing then.
func (o *Oneshot[T]) Close() error {
	if !o.state.close() {
		return ErrClosed
	}
	o.end()
	return nil
}

// end wakes all waiters: no value comes anymore.
func (o *Oneshot[T]) end() {
	if o.recvs.p.Load() == nil && o.closed.p.Load() == nil {
		return
	}
	from := callersWorker()
	o.recvs.notifyAll(from)
	o.closed.notifyAll(from)
}

// TryRecv returns the value if it has been sent. It fails with ErrEmpty if it has
// not, and with ErrClosed if it was received before or will not come.
func (o *Oneshot[T]) TryRecv() (v T, err error) {
	if o.state.take() {
		var zero T
		v, o.v = o.v, zero // the collector may have it
		o.end()
		return v, nil
	}
	if o.state.over() {
		return v, ErrClosed
	}
	return v, ErrEmpty
}

// Poll is Recv for code that polls. o knows cx's task from then on until there is
// an end, or an Await or Select of o, or [Cancel], has given it up.
func (o *Oneshot[T]) Poll(cx *Context) (v T, err error) {
	if !cx.spend() {
		return v, ErrPending
	}
	v, err = o.poll(cx)
	return v, cx.unspent(err)
}

func (o *Oneshot[T]) poll(cx *Context) (T, error) {
	v, err := o.TryRecv()
	if err != ErrEmpty {
		return v, err
	}
	// If the value came before the task had its place in the slot, no sender will look
	// there again: so look once more.
	o.recvs.join(cx.waker(waitsRecv))
	if v, err = o.TryRecv(); err == ErrEmpty {
		err = ErrPending
	}
	return v, err
}

// Recv waits for the value and returns it. It fails with ErrClosed if there will be
// none, because of Close or because another Recv got it, and with cx.Err() if cx is
// cancelled: the value, if it comes, is then there for another Recv.
func (o *Oneshot[T]) Recv(cx *Context) (v T, err error) {
	for t := cx.beginAwait(); cx.proceed(t); t.wait() {
		if v, err = o.poll(cx); err != ErrPending {
			return v, err
		}
	}
	o.recvs.leave(cx.t, cx.here())
	return v, cx.Err()
}

// RecvBlocking is Recv for a goroutine outside the pool, which it parks; ctx
// cancels it. It panics in tasks.
func (o *Oneshot[T]) RecvBlocking(ctx context.Context) (v T, err error) {
	mustNotBlock("Oneshot.RecvBlocking", "o.Recv(cx)")
	if err := ctx.Err(); err != nil {
		return v, err
	}
	return awaitParked(ctx, o.recvFuture())
}

// recvFuture returns Recv as a future. Given up it leaves the
// value to others, and nothing behind.
func (o *Oneshot[T]) recvFuture() Future[T] { return &oneshotFuture[T]{o: o} }

// oneshotFuture is a place in recvs.
type oneshotFuture[T any] struct {
	o *Oneshot[T]
	t *task // has the place
}

func (f *oneshotFuture[T]) Poll(cx *Context) (T, error) {
	f.t = cx.t
	return f.o.Poll(cx)
}

// Cancel implements canceler.
func (f *oneshotFuture[T]) Cancel() {
	if f.t != nil {
		f.o.abandoned(f.t, callersWorker())
	}
}

// abandoned implements abandoner.
func (o *Oneshot[T]) abandoned(t *task, from *worker) { o.recvs.leave(t, from) }

// Closed waits until a value would no longer be of use: until Close, or until one has been
// received. It is for code that works on the value, which can stop in time. It fails only
// with cx.Err(), if cx is cancelled.
func (o *Oneshot[T]) Closed(cx *Context) error {
	for t := cx.beginAwait(); cx.proceed(t); t.wait() {
		if err := o.pollClosed(cx); err != ErrPending {
			return err
		}
	}
	o.closed.leave(cx.t, cx.here())
	return cx.Err()
}

// closedBlocking is Closed for a goroutine outside the pool, which it parks. It fails
// only if ctx ends, with ctx.Err(). It panics in tasks.
func (o *Oneshot[T]) closedBlocking(ctx context.Context) error {
	mustNotBlock("Oneshot.ClosedBlocking", "o.Closed(cx)")
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := awaitParked(ctx, o.ClosedFuture())
	return err
}

// ClosedFuture returns Closed as a future. It may be given up; see [Cancel].
func (o *Oneshot[T]) ClosedFuture() Future[None] { return &closedFuture[T]{o: o} }

// closedFuture is a place in closed.
type closedFuture[T any] struct {
	o *Oneshot[T]
	t *task // has the place
}

func (f *closedFuture[T]) Poll(cx *Context) (None, error) {
	f.t = cx.t
	return None{}, f.o.pollClosed(cx)
}

// Cancel implements canceler.
func (f *closedFuture[T]) Cancel() {
	if f.t != nil {
		f.o.closed.leave(f.t, callersWorker())
	}
}

// pollClosed is Closed for code that polls: nil, or ErrPending.
func (o *Oneshot[T]) pollClosed(cx *Context) error {
	if !cx.spend() {
		return ErrPending
	}
	if !o.state.over() {
		o.closed.join(cx.waker(waitsRecv))
		if !o.state.over() {
			return cx.unspent(ErrPending)
		}
	}
	return nil
}
