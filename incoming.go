package async

import (
	"io"
	"iter"
)

// Incoming returns the stream of the connections that ln accepts. For example, use
// [IncomingStream.All] to spawn a task for each connection. [Serve] does this, too, and limits and
// drains the connections.
//
//	for conn, err := range async.Incoming(ln).All(cx) { ... }
func Incoming(ln Listener) *IncomingStream {
	in := &IncomingStream{ln: ln}
	in.poller() // which panics for nil
	return in
}

// An IncomingStream is the [Stream] of the connections that a listener accepts. It ends only with
// [IncomingStream.Close]. Once the listener is closed, it fails with [net.ErrClosed]. Its other
// errors are those of [Listener.Accept].
//
// Its methods must not be called concurrently: a stream is for one task or goroutine at a time.
// Several tasks may each have a stream of the same listener; each connection goes to one of them.
//
// Giving up a wait, in [Select] for example, loses no connection. If the listener accepts one
// meanwhile, it is the next element. So go on with the stream or close it.
type IncomingStream struct {
	ln Listener

	// accepting is the task of an Accept, for a listener of another package, which cannot be
	// polled. It is cancelled when a wait for the stream is abandoned. It is kept nevertheless,
	// since it may have accepted a connection before it was cancelled: the next PollNext polls it
	// first.
	accepting *JoinHandle[Conn]
	t         *task // the task that has polled accepting and waits for it
	closed    bool
}

var _ Stream[Conn] = (*IncomingStream)(nil)

// A listenerPoller is a listener of this package. A type that embeds one has an Accept of its own
// and is no listenerPoller.
type listenerPoller interface {
	acceptPoller
	abandoner
}

// poller returns the listener of in if it can be polled, else nil. It panics for the zero value.
func (in *IncomingStream) poller() listenerPoller {
	switch ln := in.ln.(type) {
	case nil:
		panic("async: an IncomingStream that was not made by Incoming of a listener was used")
	case *TCPListener:
		return ln
	case *UnixListener:
		return ln
	}
	return nil
}

// PollNext returns the next connection. It returns [ErrPending] if there is none, and keeps the
// waker of cx. It returns [io.EOF] after Close. Every other error is that of [Listener.Accept].
//
// For a listener that is not of this package, PollNext spawns a task that accepts one connection.
func (in *IncomingStream) PollNext(cx *Context) (Conn, error) {
	ln := in.poller()
	switch {
	case in.closed:
		return nil, cx.refused(io.EOF)
	case ln != nil:
		return ln.PollAccept(cx)
	}
	for {
		h := in.accepting
		if h == nil {
			h = Spawn(partOf{cx}, in.ln.Accept)
			in.accepting = h
		}
		c, err := h.Poll(cx)
		if err == ErrPending {
			in.t = cx.t
			return nil, err
		}
		in.accepting, in.t = nil, nil
		// An error of an Accept that abandoned has cancelled is not the stream's: PollNext begins
		// another Accept. If cx has ended, another Accept would end at once, so the error is the
		// result.
		if err == nil || !h.state.cancelled() || cx.ended() {
			return c, err
		}
	}
}

// All returns the connections and errors for a range loop, which waits through cx. The loop ends
// after the first error, or without one after [IncomingStream.Close]. If cx is cancelled, the error
// wraps cx.Err(), and no connection is lost. To stop, break out of the loop; the listener and the
// stream stay open.
func (in *IncomingStream) All(cx *Context) iter.Seq2[Conn, error] {
	return func(yield func(Conn, error) bool) {
		for {
			c, err := in.next(cx)
			if err == io.EOF || !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// Close ends the stream, and closes a connection that was accepted for it and not returned. The
// listener stays open. A second Close returns [ErrClosed].
func (in *IncomingStream) Close() error {
	first := !in.closed
	in.closed = true
	if h := in.accepting; h != nil {
		t := in.t
		in.accepting, in.t = nil, nil
		giveUp(t, h)
	}
	return closedNow(first)
}

// next awaits PollNext. Without an Accept in progress, the Accept of the listener does the same
// with less work.
func (in *IncomingStream) next(cx *Context) (Conn, error) {
	in.poller() // which panics for the zero value
	if in.accepting == nil && !in.closed {
		return in.ln.Accept(cx)
	}
	c, err := await(cx, in.PollNext)
	if err == errAbandoned {
		in.abandoned(cx.t, cx.here())
		err = cx.Err()
	}
	return c, err
}

// abandoned implements abandoner.
func (in *IncomingStream) abandoned(t *task, from *worker) {
	if ln := in.poller(); ln != nil {
		ln.abandoned(t, from)
	} else if h := in.accepting; h != nil {
		in.t = nil
		h.waiters.leave(t, from)
		h.Cancel()
	}
}
