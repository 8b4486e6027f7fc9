package async

import "context"

// A Permit is room for one message in a [Chan]; [Chan.Reserve] returns it. [Permit.Send] uses it,
// and [Permit.Release] gives it back. One task or goroutine at a time may use a Permit, which need
// not be the caller of Reserve.
type Permit[T any] struct {
	c    *Chan[T]
	used bool // by Send or Release
}

// Reserve waits for room for one message and keeps this room for the caller. Call it before you
// produce a message that must not be lost: [Permit.Send] neither waits nor fails. Reserve fails
// with the errors of [Chan.Send], [ErrClosed] and cx.Err(), and has then reserved nothing. At a
// rendezvous a permit means that a receiver waits; this receiver may have turned to something else
// when [Permit.Send] is called. Then the message stays in the channel for the next receiver.
func (c *Chan[T]) Reserve(cx *Context) (*Permit[T], error) {
	var zero T
	return c.permit(c.sendSlow(cx, zero, sendReserve))
}

// TryReserve is [Chan.Reserve] without waiting. It fails with [ErrFull] if there is no room, or if
// the room is kept for waiting senders that are next, as [Chan.TrySend] does; and with [ErrClosed].
func (c *Chan[T]) TryReserve() (*Permit[T], error) {
	c.lock()
	defer c.unlock()
	switch {
	case c.closed:
		return nil, ErrClosed
	case !c.takeRoom(false, false):
		return nil, ErrFull
	}
	c.reserved++
	return c.permit(nil)
}

// reserveBlocking is Reserve for a goroutine outside the pool: it parks the goroutine. If ctx ends
// first it fails with ctx.Err(). It panics in a task.
func (c *Chan[T]) reserveBlocking(ctx context.Context) (*Permit[T], error) {
	mustNotBlock("Chan.ReserveBlocking", "c.Reserve(cx)")
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var zero T
	return c.permit(c.sendBlocking(ctx, zero, sendReserve))
}

// ReserveFuture returns the future of [Chan.Reserve]: it has the same result and errors. It takes
// room when it is polled, and at no other time. Giving it up before it is ready gives up its place
// in the queue. A Permit that it has returned belongs to the caller: call [Permit.Send] or
// [Permit.Release].
func (c *Chan[T]) ReserveFuture() Future[*Permit[T]] { return &reserveFuture[T]{c: c} }

// reserveFuture is the future of Reserve.
type reserveFuture[T any] struct {
	c      *Chan[T]
	queued bool // w has a place in the list, or was called
	w      waiter
}

func (f *reserveFuture[T]) Poll(cx *Context) (*Permit[T], error) {
	if !cx.spend() {
		return nil, ErrPending
	}
	var zero T
	err := f.c.pollSend(cx, &f.w, zero, sendReserve)
	f.queued = err == ErrPending
	return f.c.permit(cx.unspent(err))
}

// Cancel implements canceler.
func (f *reserveFuture[T]) Cancel() {
	if f.queued {
		f.queued = false
		f.c.cancelSend(nil, &f.w)
	}
}

// permit returns a permit for the room that was reserved, unless err says that no room was.
func (c *Chan[T]) permit(err error) (*Permit[T], error) {
	if err != nil {
		return nil, err
	}
	return &Permit[T]{c: c}, nil
}

// Send sends v without waiting. It sends v even if the channel was closed after [Chan.Reserve]:
// receivers wait for the messages of the permits that are out. Send panics if the permit was used
// or released.
func (p *Permit[T]) Send(v T) {
	if p.used {
		panic("async: Permit.Send: the permit was used or released before")
	}
	p.used = true
	p.c.lock()
	p.c.reserved--
	p.c.ring.push(v)
	p.c.callWaitersAndUnlock(nil)
}

// Release gives the room back. After [Permit.Send] or another Release it does nothing, so it may be
// deferred.
func (p *Permit[T]) Release() {
	if p.used {
		return
	}
	p.used = true
	p.c.lock()
	p.c.reserved--
	p.c.callWaitersAndUnlock(nil)
}
