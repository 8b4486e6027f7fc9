package async

import (
	"context"
	"sync/atomic"
)

// A Oneshot hands over one value, once: [Oneshot.Send] gives the value without waiting, and one
// [Oneshot.Recv] gets it, in whichever order they are called. The zero Oneshot is ready for use. It
// must not be copied. It is the [Future] of its value. Its methods are safe for concurrent use by
// tasks and goroutines.
//
// A sender that will not send calls [Oneshot.Close], and so does a receiver that no longer wants
// the value. The other side cannot notice it otherwise.
type Oneshot[T any] struct {
	state  oneshotState
	recvs  wakerSlot // the tasks that wait for the value
	closed wakerSlot // the tasks that wait in Closed
	v      T         // written by the one sender, read by the one receiver
}

// oneshotState goes through these values in this order, and may leave some out:
//
//  1. Send changes oneshotOpen to oneshotSending, writes the value, and sets oneshotSent. The
//     caller that made the first change is the only one that writes the value.
//  2. A receiver changes oneshotSent to oneshotOver. The caller that made this change is the only
//     one that reads the value.
//  3. Close changes oneshotOpen to oneshotOver.
//
// After the second or third step all waiting tasks are notified (end), after the first the waiting
// receivers.
type oneshotState struct{ is atomic.Uint32 }

const (
	oneshotOpen    uint32 = iota
	oneshotSending        // the value is being written
	oneshotSent           // the value is there
	oneshotOver           // the value has been received, or none will be sent
)

// beginSend reports whether the caller is the one sender, which must then write the value and call
// sent.
func (s *oneshotState) beginSend() bool { return s.is.CompareAndSwap(oneshotOpen, oneshotSending) }

// sent says that the value is there.
func (s *oneshotState) sent() { s.is.Store(oneshotSent) }

// take reports whether the caller owns the value from now on.
func (s *oneshotState) take() bool {
	return s.is.Load() == oneshotSent && s.is.CompareAndSwap(oneshotSent, oneshotOver)
}

// close ends the Oneshot, unless a value was sent or is being sent.
func (s *oneshotState) close() (first bool) { return s.is.CompareAndSwap(oneshotOpen, oneshotOver) }

// over reports whether the value was received, or will never be sent.
func (s *oneshotState) over() bool { return s.is.Load() == oneshotOver }

// Send sends v, to a receiver that waits or that calls later. It does not wait. It fails with
// [ErrClosed] if there was a Send or a [Oneshot.Close] before.
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

// Close ends the Oneshot without a value: [Oneshot.Send] and [Oneshot.Recv] fail with [ErrClosed].
// If there was a Send or a Close before, Close returns ErrClosed and changes nothing: a value that
// was sent can still be received.
func (o *Oneshot[T]) Close() error {
	if !o.state.close() {
		return ErrClosed
	}
	o.end()
	return nil
}

// end notifies all waiters: no value will be sent or received from now on.
func (o *Oneshot[T]) end() {
	if o.recvs.p.Load() == nil && o.closed.p.Load() == nil {
		return
	}
	from := callersWorker()
	o.recvs.notifyAll(from)
	o.closed.notifyAll(from)
}

// TryRecv is [Oneshot.Recv] without waiting. It fails with [ErrEmpty] if the value has not been
// sent yet, and with [ErrClosed] if it was received before or will not be sent.
func (o *Oneshot[T]) TryRecv() (v T, err error) {
	if o.state.take() {
		var zero T
		v, o.v = o.v, zero // the garbage collector may free it
		o.end()
		return v, nil
	}
	if o.state.over() {
		return v, ErrClosed
	}
	return v, ErrEmpty
}

// Poll returns the value, as [Oneshot.Recv] does, or [ErrPending] if it has not been sent yet. The
// Oneshot then refers to the task of cx until it ends, or until an [Await], a [Select] or [Cancel]
// gives it up for this task.
func (o *Oneshot[T]) Poll(cx *Context) (v T, err error) {
	if !cx.spend() {
		return v, ErrPending
	}
	v, err = o.poll(cx)
	return v, cx.unspent(err)
}

// poll is Poll for a caller that has taken the operation off the budget.
func (o *Oneshot[T]) poll(cx *Context) (T, error) {
	v, err := o.TryRecv()
	if err != ErrEmpty {
		return v, err
	}
	// If the value was sent before the task joined the slot, the sender does not look there again.
	// So look once more.
	o.recvs.join(cx.waker(waitsRecv))
	if v, err = o.TryRecv(); err == ErrEmpty {
		err = ErrPending
	}
	return v, err
}

// Recv waits for the value and returns it. It fails with [ErrClosed] if there will be no value,
// because of [Oneshot.Close] or because another Recv got it. If cx is cancelled it fails with
// cx.Err(), and another Recv can receive the value.
func (o *Oneshot[T]) Recv(cx *Context) (v T, err error) {
	for t := cx.beginAwait(); cx.proceed(t); t.wait() {
		if v, err = o.poll(cx); err != ErrPending {
			return v, err
		}
	}
	o.recvs.leave(cx.t, cx.here())
	return v, cx.Err()
}

// RecvBlocking is [Oneshot.Recv] for a goroutine outside the pool: it parks the goroutine. If ctx
// ends first it fails with ctx.Err(), as a cancelled Recv does. It panics in a task.
func (o *Oneshot[T]) RecvBlocking(ctx context.Context) (v T, err error) {
	mustNotBlock("Oneshot.RecvBlocking", "o.Recv(cx)")
	if err := ctx.Err(); err != nil {
		return v, err
	}
	return awaitParked(ctx, o.recvFuture())
}

// recvFuture returns the future of Recv. It has a method Cancel, which takes the task off recvs.
// The Oneshot itself, which is also a future, has none, so giveUp would leave the task there. If
// the future is given up, another receiver gets the value.
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

// Closed waits until a value would no longer be of use: until [Oneshot.Close], or until the value
// was received. Code that works on the value calls it, so as to stop in time. It fails only if cx
// is cancelled, with cx.Err().
func (o *Oneshot[T]) Closed(cx *Context) error {
	for t := cx.beginAwait(); cx.proceed(t); t.wait() {
		if err := o.pollClosed(cx); err != ErrPending {
			return err
		}
	}
	o.closed.leave(cx.t, cx.here())
	return cx.Err()
}

// closedBlocking is Closed for a goroutine outside the pool: it parks the goroutine. It fails only
// if ctx ends, with ctx.Err(). It panics in a task.
func (o *Oneshot[T]) closedBlocking(ctx context.Context) error {
	mustNotBlock("Oneshot.ClosedBlocking", "o.Closed(cx)")
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := awaitParked(ctx, o.ClosedFuture())
	return err
}

// ClosedFuture returns the future of [Oneshot.Closed]. Giving it up loses nothing.
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

// pollClosed is Closed for code that polls: it returns nil, or ErrPending.
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
