package async

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"example.com/async/internal/sys"
	"golang.org/x/sys/unix"
)

// conn is the part that all connections share: a socket and the names of its ends.
type conn struct {
	src          pollFD
	net          *network
	laddr, raddr net.Addr // nil: it has no such address
}

func (c *conn) init(fd int, n *network, laddr, raddr net.Addr) {
	c.src.open(fd)
	c.net, c.laddr, c.raddr = n, laddr, raddr
}

func (c *conn) pollFD() *pollFD { return &c.src }

// Close closes the connection. The types that embed conn document what happens to data that
// was not sent.
func (c *conn) Close() error { return c.wrap("close", c.src.close()) }

// LocalAddr returns the local address, which must not be changed.
func (c *conn) LocalAddr() net.Addr { return c.laddr }

// RemoteAddr returns the peer's address, which must not be changed; nil if
// there is none.
func (c *conn) RemoteAddr() net.Addr { return c.raddr }

// SetDeadline sets the deadline of reads and writes.
func (c *conn) SetDeadline(t time.Time) error { return c.setDeadline(t, &c.src.rd, &c.src.wr) }

// SetReadDeadline sets the deadline of reads.
func (c *conn) SetReadDeadline(t time.Time) error { return c.setDeadline(t, &c.src.rd) }

// SetWriteDeadline sets the deadline of writes.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(t, &c.src.wr) }

func (c *conn) setDeadline(t time.Time, dirs ...*direction) error {
	if err := c.src.checkOpen(); err != nil {
		return wrapOp("set", c.net, nil, c.laddr, err)
	}
	for _, dir := range dirs {
		dir.setDeadline(t)
	}
	return nil
}

// SetReadBuffer sets how many bytes the system keeps that were not read yet.
func (c *conn) SetReadBuffer(bytes int) error {
	return c.setOption(unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
}

// SetWriteBuffer sets how many bytes the system keeps that were not sent yet.
func (c *conn) SetWriteBuffer(bytes int) error {
	return c.setOption(unix.SOL_SOCKET, unix.SO_SNDBUF, bytes)
}

func (c *conn) setOption(level, name, value int) error {
	return c.set(func(fd int) error { return sys.SetOption(fd, level, name, value) })
}

// set calls f to change the socket.
func (c *conn) set(f func(fd int) error) error { return c.wrap("set", c.src.control(f)) }

// get calls f to ask the socket.
func (c *conn) get(f func(fd int) (int, error)) (v int, err error) {
	err = c.src.control(func(fd int) (err error) {
		v, err = f(fd)
		return os.NewSyscallError("getsockopt", err)
	})
	return v, c.wrap("get", err)
}

func (c *conn) option(level, name int) (int, error) {
	return c.get(func(fd int) (int, error) { return unix.GetsockoptInt(fd, level, name) })
}

// pollRead is the common part of all polls that read: op takes the data that is
// there from the socket, by the system call of this name.
func (c *conn) pollRead(cx *Context, call string, op func(fd int) (n int, exhausted bool, err error)) (int, error) {
	n, err := c.src.pollOp(cx, &c.src.rd, op)
	return max(n, 0), c.wrap("read", callError(call, err))
}

// pollWrite is the same for writing.
func (c *conn) pollWrite(cx *Context, call string, op func(fd int) (n int, exhausted bool, err error)) (int, error) {
	n, err := c.src.pollOp(cx, &c.src.wr, op)
	return max(n, 0), c.wrap("write", callError(call, err))
}

// callError adds the name of the system call to an error number.
func callError(call string, err error) error {
	if errno, ok := err.(syscall.Errno); ok {
		return os.NewSyscallError(call, errno)
	}
	return err
}

// waitError returns the error of a call that has waited: that of cx if err is errAbandoned, else err as
// that of the system call named call.
func waitError(cx *Context, call string, err error) error {
	if err == errAbandoned {
		return cx.Err()
	}
	return callError(call, err)
}

// awaitRead awaits a poll that reads.
func (c *conn) awaitRead(cx *Context, poll func(*Context) (int, error)) (int, error) {
	n, err := awaitInOrder(cx, &c.src.rd.waiters, poll)
	if err == errAbandoned {
		err = c.wrap("read", cx.Err())
	}
	return n, err
}

// awaitWrite awaits a poll that writes.
func (c *conn) awaitWrite(cx *Context, poll func(*Context) (int, error)) (int, error) {
	n, err := awaitInOrder(cx, &c.src.wr.waiters, poll)
	if err == errAbandoned {
		err = c.wrap("write", cx.Err())
	}
	return n, err
}

// awaitSend awaits a poll that writes and leaves it to the caller to wrap its
// error. If there is no room, this may hold for one receiver only, so each event
// wakes all tasks that wait here.
func (c *conn) awaitSend(cx *Context, poll func(*Context) (int, error)) (int, error) {
	return awaitSlot(cx, &c.src.wr.waiters, poll)
}

// wrap wraps an error as package net would.
func (c *conn) wrap(op string, err error) error { return c.wrapTo(op, c.raddr, err) }

// wrapTo is wrap for an operation with another address than the peer's.
func (c *conn) wrapTo(op string, addr net.Addr, err error) error {
	if err == nil || err == ErrPending || err == io.EOF {
		return err
	}
	return wrapOp(op, c.net, c.laddr, addr, err)
}

// wrapOp is the only place where a net.OpError of a socket is made.
func wrapOp(op string, n *network, source, addr net.Addr, err error) error {
	return &net.OpError{Op: op, Net: n.title(), Source: source, Addr: addr, Err: err}
}

// addrOrNil avoids an interface that is not nil but has a nil pointer in it.
func addrOrNil[A interface {
	comparable
	net.Addr
}](a A) net.Addr {
	var none A
	if a == none {
		return nil
	}
	return a
}

// maxIO is the largest number of bytes for one system call; some systems fail above.
const maxIO = 1 << 30

// streamConn is the part that connections share that are read like an io.Reader.
type streamConn struct{ conn }

// PollRead reads the data that is there into p. It returns ErrPending if there is none,
// io.EOF at the end, and at once if p is empty.
func (c *streamConn) PollRead(cx *Context, p []byte) (int, error) {
	if len(p) > maxIO {
		p = p[:maxIO]
	}
	if len(p) == 0 {
		return 0, c.wrap("read", c.src.checkOpen())
	}
	return c.pollRead(cx, "read", func(fd int) (int, bool, error) { return c.recv(fd, p) })
}

// recv is a read for pollFD.pollOp.
func (c *streamConn) recv(fd int, p []byte) (n int, exhausted bool, err error) {
	n, err = recv(fd, p, 0)
	// Only with TCP can a read prove that there is no more. Each packet is read
	// by a call of its own, and a read of a unix stream stops behind a message
	// that carried descriptors, and where the sender's credentials change.
	return n, c.net.proto == "tcp" && provesEmpty(p, n), orEOF(n, err)
}

// orEOF returns the error of a system call that has read n bytes: no bytes and no
// error are the end.
func orEOF(n int, err error) error {
	if n == 0 && err == nil {
		return io.EOF
	}
	return err
}

// PollWrite writes as much of p as there is room for. It returns ErrPending if
// there is none.
func (c *streamConn) PollWrite(cx *Context, p []byte) (int, error) {
	if packets := c.net.is(unix.SOCK_SEQPACKET); packets {
		// An empty packet is a packet, too, and no packet is divided.
	} else if len(p) == 0 {
		return 0, c.wrap("write", c.src.checkOpen())
	} else if len(p) > maxIO {
		p = p[:maxIO]
	}
	return c.pollWrite(cx, "write", func(fd int) (int, bool, error) {
		n, err := send(fd, p)
		return n, false, err
	})
}

// Read waits until data is there, and reads it into p. Cancelling it
// loses nothing.
func (c *streamConn) Read(cx *Context, p []byte) (int, error) {
	if len(p) == 0 {
		return c.awaitRead(cx, func(cx *Context) (int, error) { return c.PollRead(cx, p) })
	}
	p = p[:min(len(p), maxIO)]
	n, err := c.src.await(cx, &c.src.rd, func(fd int) (int, bool, error) { return c.recv(fd, p) })
	if err != nil {
		err = c.wrap("read", waitError(cx, "read", err))
	}
	return max(n, 0), err
}

// Write writes all of p, unless it fails or is cancelled. n says how much was
// written. The data of concurrent Writes may be mixed if a Write has to wait
// before it has written all of its data.
func (c *streamConn) Write(cx *Context, p []byte) (n int, err error) {
	for {
		m, err := c.writeSome(cx, p[n:])
		n += m
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// writeSome waits until the connection is writable, and writes as much of p as the kernel takes.
func (c *streamConn) writeSome(cx *Context, p []byte) (int, error) {
	if len(p) == 0 {
		return c.awaitWrite(cx, func(cx *Context) (int, error) { return c.PollWrite(cx, p) })
	}
	if len(p) > maxIO && !c.net.is(unix.SOCK_SEQPACKET) {
		p = p[:maxIO]
	}
	n, err := c.src.await(cx, &c.src.wr, func(fd int) (int, bool, error) {
		n, err := send(fd, p)
		return n, false, err
	})
	if err != nil {
		err = c.wrap("write", waitError(cx, "write", err))
	}
	return max(n, 0), err
}

// pollPeek is PollRead, but the data that it has read stays there.
func (c *streamConn) pollPeek(cx *Context, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, c.wrap("read", c.src.checkOpen())
	}
	return c.pollRead(cx, "recvfrom", func(fd int) (int, bool, error) {
		n, err := recv(fd, p, unix.MSG_PEEK)
		return n, false, orEOF(n, err)
	})
}

// Peek is Read, but the data that it has read stays there.
func (c *streamConn) Peek(cx *Context, p []byte) (int, error) {
	return c.awaitRead(cx, func(cx *Context) (int, error) { return c.pollPeek(cx, p) })
}

// PollReadable returns nil if a PollRead would not be pending: there is data,
// or the end, or a failure. It needs no buffer, so that connections can wait
// for data without a buffer. Where several tasks read, another may be faster.
func (c *streamConn) PollReadable(cx *Context) error {
	return c.wrap("read", c.src.pollReady(cx, &c.src.rd, false))
}

// pollReadableAgain is PollReadable for a task that believes an event; see
// pollReady.
func (c *streamConn) pollReadableAgain(cx *Context) error {
	return c.wrap("read", c.src.pollReady(cx, &c.src.rd, true))
}

// Readable waits until PollReadable returns nil. Cancelling it loses nothing.
func (c *streamConn) Readable(cx *Context) error {
	_, err := c.awaitRead(cx, func(cx *Context) (int, error) { return 0, c.PollReadable(cx) })
	return err
}

// stream implements streamer.
func (c *streamConn) stream() *streamConn { return c }

// streamer is a Conn of this package, or a Conn that embeds it; see streamOf.
type streamer interface{ stream() *streamConn }

// CloseRead shuts down the reading side.
func (c *streamConn) CloseRead() error { return c.shutdown(unix.SHUT_RD) }

// CloseWrite shuts down the writing side: the peer reads io.EOF.
func (c *streamConn) CloseWrite() error { return c.shutdown(unix.SHUT_WR) }

func (c *conn) shutdown(how int) error {
	return c.wrap("close", c.src.control(func(fd int) error {
		return os.NewSyscallError("shutdown", unix.Shutdown(fd, how))
	}))
}

// connect begins to connect. While that goes on it returns ErrPending, and
// pollConnected returns the result.
func (c *conn) connect(sa unix.Sockaddr) error {
	switch err := connectTo(int(c.src.fd), sa); err {
	case nil, unix.EISCONN:
		return nil
	case unix.EINPROGRESS, unix.EALREADY, unix.EINTR:
		return ErrPending
	default:
		return os.NewSyscallError("connect", err)
	}
}

// pollConnected returns the result of a connect.
func (c *conn) pollConnected(cx *Context) error {
	_, err := c.src.pollOp(cx, &c.src.wr, func(fd int) (int, bool, error) { return 0, false, isConnected(fd) })
	return callError("connect", err)
}

// named asks the system for the addresses of a connection. It always has an address
// of its own; raddr is the address that was dialled.
func (c *conn) named(raddr net.Addr) {
	c.laddr, c.raddr = c.net.localAddr(int(c.src.fd)), raddr
	if peer, err := unix.Getpeername(int(c.src.fd)); err == nil {
		if a := c.net.addr(peer); a != nil {
			c.raddr = a
		}
	}
}
