package async

// RecvFuture returns a place in the queue of receivers, as a future. Ready, it has received
// a message; it may then be polled again, for the next message, and needs no other
// allocation for that. Given up before it loses nothing. Unlike Recv
// it may also be given up when a message is there, so at a rendezvous the senders that wait
// in Send do not rely on it.
func (c *Chan[T]) RecvFuture() *RecvFuture[T] { return &RecvFuture[T]{c: c} }

// A RecvFuture is a future of the next message of a Chan; see Chan.RecvFuture.
// It belongs to one task, and must not be copied.
type RecvFuture[T any] struct {
	c      *Chan[T]
	queued bool // w has a place
	w      waiter
}

// Poll returns the next message, or fails like Chan.Recv.
func (f *RecvFuture[T]) Poll(cx *Context) (v T, err error) {
	if !cx.spend() {
		return v, ErrPending
	}
	if !f.queued {
		if v, err := f.c.pullOnce(cx.here()); err != ErrEmpty {
			return v, err
		}
	}
	v, err = f.c.pollRecv(cx, &f.w, chanLoose)
	f.queued = err == ErrPending
	return v, cx.unspent(err)
}

// Cancel leaves the queue. The future may be polled again.
func (f *RecvFuture[T]) Cancel() {
	if f.queued {
		f.queued = false
		f.c.cancelRecv(nil, &f.w, false)
	}
}

// SendFuture returns Send(v) as a future. It sends when it is polled, and only then:
// ready without an error, it has sent; given up before it has
// not.
func (c *Chan[T]) SendFuture(v T) *SendFuture[T] { return &SendFuture[T]{c: c, v: v} }

// A SendFuture is a message on its way into a Chan; see Chan.SendFuture. It belongs
// to one task, and must not be copied.
type SendFuture[T any] struct {
	c      *Chan[T]
	v      T
	queued bool // w has a place
	w      waiter
}

// Poll sends the message, or fails like Chan.Send.
func (f *SendFuture[T]) Poll(cx *Context) (None, error) {
	if !cx.spend() {
		return None{}, ErrPending
	}
	if !f.queued {
		if err := f.c.pushOnce(cx.here(), f.v, false); err != ErrFull {
			return None{}, err
		}
	}
	err := f.c.pollSend(cx, &f.w, f.v, sendLoose)
	f.queued = err == ErrPending
	return None{}, cx.unspent(err)
}

// Cancel leaves the queue. The future may be polled again.
func (f *SendFuture[T]) Cancel() {
	if f.queued {
		f.queued = false
		f.c.cancelSend(nil, &f.w)
	}
}

// Reset makes v the message that is sent next, so that one future can send many
// without another allocation. The future keeps its place if it waits.
func (f *SendFuture[T]) Reset(v T) { f.v = v }
