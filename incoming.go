package async

import (
	"io"
	"iter"
)

// Incoming returns the stream of the connections that ln accepts. To serve each in a task of
// its own, range over its method All, or use [Serve]:
//
//	for conn, err := range async.Incoming(ln).All(cx) { ... }
func Incoming(ln Listener) *IncomingStream {
	in := &IncomingStream{ln: ln}
	in.poller() // which panics for nil
	return in
}

// An IncomingStream is the Stream of a listener's connections. It ends with Close
// alone: once the listener is closed, it fails with net.ErrClosed. It is for one task or goroutine at a time;
// several may each have one of the same listener. If it is given up in Select while its
// listener accepts, the connection is the next element: go on with the stream, or Close it.
type IncomingStream struct {
	ln Listener

	// accepting is an Accept of a listener of another package, which cannot be polled. It is
	// cancelled when the stream is abandoned, and kept: it may have accepted a connection.
	accepting *JoinHandle[Conn]
	t         *task // has polled it and waits
	closed    bool
}

var _ Stream[Conn] = (*IncomingStream)(nil)

// listenerPoller is a listener of this package. A type that embeds one has an Accept of its own.
type listenerPoller interface {
	acceptPoller
	abandoner
}

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

// PollNext returns the next connection; ErrPending if there is none, and io.EOF after Close. For
// a listener that is not of this package, it starts a task that accepts.
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
		if err == nil || !h.state.cancelled() || cx.ended() {
			return c, err
		}
	}
}

// All returns the connections for a range loop, which waits through cx. It ends after the
// first error.
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

// Close ends the stream, and closes a connection that was accepted for it. The listener stays
// open. A second Close returns ErrClosed.
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
