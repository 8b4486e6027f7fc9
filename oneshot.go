package async

import (
	"context"
	"sync"
)

// slotWait is the future of what poll returns, for those who wait in a slot.
type slotWait[T any] struct {
	slot *wakerSlot
	poll func(cx *Context) (T, error)
	t    *task
}

func (f *slotWait[T]) Poll(cx *Context) (T, error) {
	f.t = cx.t
	return f.poll(cx)
}

// Cancel implements canceller.
func (f *slotWait[T]) Cancel() {
	if f.t != nil {
		f.slot.leave(f.t, nil)
	}
}

// pollSlot polls try, which returns ErrEmpty as long as there is nothing, and
// otherwise waits in slot. Whoever makes try succeed stirs the slot after it.
func pollSlot[T any](cx *Context, slot *wakerSlot, try func() (T, error)) (T, error) {
	v, err := try()
	if err != ErrEmpty {
		return v, err
	}
	return retryIn(slot, cx, waitsRecv, ErrEmpty, try)
}

// A Oneshot carries one value from one task or goroutine to another. The zero
// Oneshot is empty and open; it must not be copied after first use. All methods
// may be called from any goroutine, except that a cx belongs to the caller.
//
// Nothing tells a Oneshot that its sender or its receiver is gone: whoever gives up
// calls Close, for which defer is the place.
type Oneshot[T any] struct {
	slot wakerSlot

	mu     sync.Mutex
	v      T
	full   bool
	closed bool // nothing can be sent anymore
}

var _ Future[None] = (*Oneshot[None])(nil)

// Send sends v, and never waits. It fails with ErrClosed if the Oneshot is closed
// or a value has been sent before.
func (o *Oneshot[T]) Send(v T) error {
	o.mu.Lock()
	err := ErrClosed
	if !o.closed {
		o.v, o.full, o.closed, err = v, true, true, nil
	}
	o.mu.Unlock()
	o.slot.stir(nil)
	return err
}

// Close says that no value will be sent, or none is wanted anymore. One that was
// sent before can still be received. It may be called more than once.
func (o *Oneshot[T]) Close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.slot.stir(nil)
}

// Closed reports whether sending would fail.
func (o *Oneshot[T]) Closed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed
}

// TryRecv receives the value if it is there. It fails with ErrEmpty, or with
// ErrClosed if there will be none, or it has been received.
func (o *Oneshot[T]) TryRecv() (v T, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.full:
		v, o.v, o.full = o.v, v, false
	case o.closed:
		err = ErrClosed
	default:
		err = ErrEmpty
	}
	return v, err
}

// Recv waits for the value. It fails with ErrClosed if there will be none, and with
// cx.Err() if cx is cancelled, which leaves a value where it is.
func (o *Oneshot[T]) Recv(cx *Context) (T, error) { return Await(cx, o.RecvFuture()) }

// RecvBlocking is Recv for a goroutine outside the pool, which it parks. It fails
// with ctx.Err() if ctx ends. It panics in tasks.
func (o *Oneshot[T]) RecvBlocking(ctx context.Context) (T, error) {
	mustNotBlock("Oneshot.RecvBlocking", "o.Recv(cx)")
	return waitBlocking(ctx, o.RecvFuture())
}

// RecvFuture returns Recv as a future. Given up, it leaves a value where it is.
func (o *Oneshot[T]) RecvFuture() Future[T] { return &slotWait[T]{slot: &o.slot, poll: o.Poll} }

// Poll makes the Oneshot itself a future of its value; see Recv.
func (o *Oneshot[T]) Poll(cx *Context) (T, error) { return pollSlot(cx, &o.slot, o.TryRecv) }
