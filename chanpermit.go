package async

import "context"

// A Permit is room in a Chan for one message, which Reserve gives. It is used by
// Send or given back by Release, by one task or goroutine.
type Permit[T any] struct {
	c    *Chan[T]
	used bool
}

// Reserve waits until there is room for a message, and keeps this room. Call it before you
// make or fetch a message that must not be lost: Permit.Send does not wait. Reserve fails
// with ErrClosed and with cx.Err() like Send, and loses nothing then. At a rendezvous a
// permit means that a receiver waits, which may have turned to something else by the time
// of the Send.
func (c *Chan[T]) Reserve(cx *Context) (*Permit[T], error) {
	var zero T
	return c.permit(c.sendSlow(cx, zero, sendReserve))
}

// TryReserve is Reserve if there is room now; else it fails with ErrFull, also if the room
// is kept for waiting senders, as TrySend does.
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

// reserveBlocking is Reserve for a goroutine outside the pool, which it parks; ctx
// cancels it. It panics in tasks.
func (c *Chan[T]) reserveBlocking(ctx context.Context) (*Permit[T], error) {
	mustNotBlock("Chan.ReserveBlocking", "c.Reserve(cx)")
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var zero T
	return c.permit(c.sendBlocking(ctx, zero, sendReserve))
}

// ReserveFuture returns Reserve as a future. It takes room when it is polled, and only
// then. Given up before it is ready it leaves its place in the
// queue; a Permit that it has returned is released by Permit.Release alone.
func (c *Chan[T]) ReserveFuture() Future[*Permit[T]] { return &reserveFuture[T]{c: c} }

type reserveFuture[T any] struct {
	c      *Chan[T]
	queued bool // w has a place
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

func (c *Chan[T]) permit(err error) (*Permit[T], error) {
	if err != nil {
		return nil, err
	}
	return &Permit[T]{c: c}, nil
}

// Send sends v, also if the channel was closed since [Chan.Reserve]: its receivers
// wait for the permits that are out. It panics if the permit has been used or released.
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

// Release gives the room back, unless the permit has been used or released: so it
// may be deferred.
func (p *Permit[T]) Release() {
	if p.used {
		return
	}
	p.used = true
	p.c.lock()
	p.c.reserved--
	p.c.callWaitersAndUnlock(nil)
}
