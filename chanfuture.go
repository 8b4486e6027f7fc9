package async

// RecvFuture returns the future of [Chan.Recv]: it has the same result and errors. It may be polled
// again after a message, for the next message; one [RecvFuture] serves for many messages without
// another allocation. Giving it up before it is ready loses no message. At a rendezvous a
// [Chan.Send] does not rely on it, since it may be given up.
func (c *Chan[T]) RecvFuture() *RecvFuture[T] { return &RecvFuture[T]{c: c} }

// A RecvFuture is a future of the next message of a [Chan]; see [Chan.RecvFuture]. One task at a
// time may use it. It must not be copied.
type RecvFuture[T any] struct {
	c      *Chan[T]
	queued bool // w has a place in the list, or was called
	w      waiter
}

// Poll returns the next message, or an error of [Chan.Recv]. If there is no message it takes a
// place in the queue of receivers and returns [ErrPending].
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

// Cancel gives up the place in the queue. The future may be polled again, and then takes a new
// place.
func (f *RecvFuture[T]) Cancel() {
	if f.queued {
		f.queued = false
		f.c.cancelRecv(nil, &f.w, false)
	}
}

// SendFuture returns the future of [Chan.Send]: it has the same errors. It sends v when it is
// polled, and at no other time. So v was sent if the future is ready without an error, and was not
// sent if the future is given up before it is ready. [SendFuture.Reset] makes the [SendFuture] send
// another message.
func (c *Chan[T]) SendFuture(v T) *SendFuture[T] { return &SendFuture[T]{c: c, v: v} }

// A SendFuture is a future that sends a message to a [Chan]; see [Chan.SendFuture]. One task at a
// time may use it. It must not be copied.
type SendFuture[T any] struct {
	c      *Chan[T]
	v      T
	queued bool // w has a place in the list, or was called
	w      waiter
}

// Poll sends the message, or fails with [ErrClosed] as [Chan.Send] does. If there is no room it
// takes a place in the queue of senders and returns [ErrPending].
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

// Cancel gives up the place in the queue; the message is not sent. The future may be polled again,
// and then takes a new place.
func (f *SendFuture[T]) Cancel() {
	if f.queued {
		f.queued = false
		f.c.cancelSend(nil, &f.w)
	}
}

// Reset makes v the message that is sent next, so that one future can send many messages without
// another allocation. If the future waits, it keeps its place in the queue and sends v in place of
// the old message.
func (f *SendFuture[T]) Reset(v T) { f.v = v }
