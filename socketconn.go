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

// conn is the common part of all connections and datagram sockets: a descriptor, and the addresses
// of its two ends. The exported methods of conn, streamConn and packetConn are shown with each type
// that embeds them, such as [TCPConn].
//
// All operations that wait go the same way:
//
//  1. A poll calls pollFD.pollOp, in most cases through pollRead or pollWrite. pollOp makes the
//     system call, and keeps the waker if the kernel returns EAGAIN.
//  2. awaitRead, awaitWrite and awaitSend repeat such a poll until its result is final. Read and
//     Write of a stream use pollFD.await instead, which does the same for the two most frequent
//     calls with less work.
//  3. callError adds the name of the system call to an error number. wrap makes a *net.OpError of
//     each error except ErrPending and io.EOF. wrapEnd also wraps io.EOF, for the methods that
//     return an address with the data.
type conn struct {
	src          pollFD
	net          *network
	laddr, raddr net.Addr // nil: there is no such address
}

// init makes c the connection of an open descriptor.
func (c *conn) init(fd int, n *network, laddr, raddr net.Addr) {
	c.src.open(fd)
	c.net, c.laddr, c.raddr = n, laddr, raddr
}

func (c *conn) pollFD() *pollFD { return &c.src }

// Close closes the connection. Operations that wait fail with [net.ErrClosed]. The types that embed
// conn document what happens to data that was not sent.
func (c *conn) Close() error { return c.wrap("close", c.src.close()) }

// LocalAddr returns the local address. The caller must not change it.
func (c *conn) LocalAddr() net.Addr { return c.laddr }

// RemoteAddr returns the address of the peer, or nil if there is no peer. The caller must not
// change it.
func (c *conn) RemoteAddr() net.Addr { return c.raddr }

// SetDeadline sets the deadline of reads and of writes, as in package net (see [net.Conn]):
// operations that wait at t, or begin later, fail with [os.ErrDeadlineExceeded]. The zero time
// means no deadline. To limit a single operation use [Context.WithTimeout]. The error is a
// [*net.OpError].
func (c *conn) SetDeadline(t time.Time) error { return c.setDeadline(t, &c.src.rd, &c.src.wr) }

// SetReadDeadline sets the deadline of reads alone, as in package net (see [net.Conn]).
func (c *conn) SetReadDeadline(t time.Time) error { return c.setDeadline(t, &c.src.rd) }

// SetWriteDeadline sets the deadline of writes alone, as in package net (see [net.Conn]). A Write
// that fails at its deadline may have written part of its data.
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

// SetReadBuffer sets the size of the system's receive buffer, as in package net (see
// [net.TCPConn.SetReadBuffer]). The buffer holds received data that was not read yet.
func (c *conn) SetReadBuffer(bytes int) error {
	return c.setOption(unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
}

// SetWriteBuffer sets the size of the system's send buffer, as in package net (see
// [net.TCPConn.SetWriteBuffer]). The buffer holds written data that was not sent yet.
func (c *conn) SetWriteBuffer(bytes int) error {
	return c.setOption(unix.SOL_SOCKET, unix.SO_SNDBUF, bytes)
}

func (c *conn) setOption(level, name, value int) error {
	return c.set(func(fd int) error { return sys.SetOption(fd, level, name, value) })
}

// set calls f, which changes the socket, and wraps its error.
func (c *conn) set(f func(fd int) error) error { return c.wrap("set", c.src.control(f)) }

// get calls f, which asks the socket for a value, and wraps its error.
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

// pollRead is the common part of all polls that read. op reads from the socket without blocking,
// and reports whether it has proved that no data is left; see pollFD.pollOp. call is the name of
// the system call of op, for an error.
func (c *conn) pollRead(cx *Context, call string, op func(fd int) (n int, exhausted bool, err error)) (int, error) {
	n, err := c.src.pollOp(cx, &c.src.rd, op)
	return max(n, 0), c.wrap("read", callError(call, err))
}

// pollWrite is pollRead for the other direction: op writes.
func (c *conn) pollWrite(cx *Context, call string, op func(fd int) (n int, exhausted bool, err error)) (int, error) {
	n, err := c.src.pollOp(cx, &c.src.wr, op)
	return max(n, 0), c.wrap("write", callError(call, err))
}

// callError adds the name of the system call to err if err is an error number. Other errors, such
// as net.ErrClosed, stay as they are.
func callError(call string, err error) error {
	if errno, ok := err.(syscall.Errno); ok {
		return os.NewSyscallError(call, errno)
	}
	return err
}

// waitError returns the error for the caller of an operation that has waited with pollFD.await:
// cx.Err() if the operation was abandoned, else the same as callError.
func waitError(cx *Context, call string, err error) error {
	if err == errAbandoned {
		return cx.Err()
	}
	return callError(call, err)
}

// awaitRead awaits a poll that reads. The tasks that wait here wait in order (see wakerSlot): an
// event wakes the first task alone, because a task that finds no data proves that there is none for
// the other tasks either.
func (c *conn) awaitRead(cx *Context, poll func(*Context) (int, error)) (int, error) {
	n, err := awaitInOrder(cx, &c.src.rd.waiters, poll)
	if err == errAbandoned {
		err = c.wrap("read", cx.Err())
	}
	return n, err
}

// awaitWrite awaits a poll that writes. The tasks that wait here wait in order, as in awaitRead: if
// the socket has no room for the data of one task, it has none for the data of the others.
func (c *conn) awaitWrite(cx *Context, poll func(*Context) (int, error)) (int, error) {
	n, err := awaitInOrder(cx, &c.src.wr.waiters, poll)
	if err == errAbandoned {
		err = c.wrap("write", cx.Err())
	}
	return n, err
}

// awaitSend awaits a poll that sends to one of many receivers. Its tasks do not wait in order: each
// event wakes all of them, since one receiver may have no room while another receiver has. The
// caller wraps the error, because the error has the address of the receiver, not of the peer.
func (c *conn) awaitSend(cx *Context, poll func(*Context) (int, error)) (int, error) {
	return awaitSlot(cx, &c.src.wr.waiters, poll)
}

// wrap wraps an error in a *net.OpError with the addresses of both ends, as package net does.
func (c *conn) wrap(op string, err error) error { return c.wrapTo(op, c.raddr, err) }

// wrapTo is wrap for an operation with another address than the peer's. It leaves ErrPending and
// io.EOF as they are: a caller may compare them by ==.
func (c *conn) wrapTo(op string, addr net.Addr, err error) error {
	if err == nil || err == ErrPending || err == io.EOF {
		return err
	}
	return wrapOp(op, c.net, c.laddr, addr, err)
}

// wrapOp makes the *net.OpError of an operation on a socket. No other function makes one.
func wrapOp(op string, n *network, source, addr net.Addr, err error) error {
	return &net.OpError{Op: op, Net: n.title(), Source: source, Addr: addr, Err: err}
}

// addrOrNil returns a as a net.Addr. A nil pointer becomes a nil interface, which the text of an
// error leaves out. The plain conversion would make an interface that is not nil, and the text
// would contain "<nil>".
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

// maxIO is the largest number of bytes for one system call. Some systems fail if a call asks for
// more.
const maxIO = 1 << 30

// streamConn is the common part of the connections that are read like an io.Reader: TCPConn and
// UnixConn.
type streamConn struct{ conn }

// PollRead is Read without waiting: it returns [ErrPending] if no data is available, and keeps the
// waker of cx. An empty p is ready at once. The other results are the same as those of Read: n > 0
// bytes, [io.EOF], or a [*net.OpError].
func (c *streamConn) PollRead(cx *Context, p []byte) (int, error) {
	if len(p) > maxIO {
		p = p[:maxIO]
	}
	if len(p) == 0 {
		return 0, c.wrap("read", c.src.checkOpen())
	}
	return c.pollRead(cx, "read", func(fd int) (int, bool, error) { return c.recv(fd, p) })
}

// recv is one read, as an operation for pollFD.pollOp.
//
// exhausted is only true for TCP, where a short read can prove that no data is left. It proves
// nothing for unix-domain sockets: a read takes one packet, and a read of a stream stops behind a
// message that carried descriptors, and where the sender's credentials change.
func (c *streamConn) recv(fd int, p []byte) (n int, exhausted bool, err error) {
	n, err = recv(fd, p, 0)
	return n, c.net.proto == "tcp" && provesEmpty(p, n), orEOF(n, err)
}

// orEOF returns the error of a system call that has read n bytes. No bytes and no error are the
// end.
func orEOF(n int, err error) error {
	if n == 0 && err == nil {
		return io.EOF
	}
	return err
}

// PollWrite writes as much of p as the system has room for, without waiting. It returns
// [ErrPending] if there is no room, and keeps the waker of cx. n may be less than len(p) without an
// error, except on a connection of packets, which sends p whole. Every other error is a
// [*net.OpError].
func (c *streamConn) PollWrite(cx *Context, p []byte) (int, error) {
	if packets := c.net.is(unix.SOCK_SEQPACKET); packets {
		// An empty p is sent, too, as a packet of no bytes. A long p is not divided.
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

// Read waits until data is available and reads up to len(p) bytes into p, as in package net (see
// [net.Conn]). At the end of the data it returns [io.EOF]. Every other error is a [*net.OpError];
// it wraps cx.Err() if cx is cancelled. Cancelling a Read loses no data.
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

// Write writes all of p, and waits whenever the system has no room. n is less than len(p) only if
// there is an error, which is a [*net.OpError].
//
// If cx is cancelled, the error wraps cx.Err(), and the first n bytes of p were written. Concurrent
// Writes are not atomic: if a Write has to wait, data of another Write may come between its parts.
func (c *streamConn) Write(cx *Context, p []byte) (n int, err error) {
	for {
		m, err := c.writeSome(cx, p[n:])
		n += m
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// writeSome waits until the connection is writable, and writes as much of p as the system has room
// for.
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

// pollPeek is Peek without waiting. Data that has been peeked is still there, so a short read
// proves nothing.
func (c *streamConn) pollPeek(cx *Context, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, c.wrap("read", c.src.checkOpen())
	}
	return c.pollRead(cx, "recvfrom", func(fd int) (int, bool, error) {
		n, err := recv(fd, p, unix.MSG_PEEK)
		return n, false, orEOF(n, err)
	})
}

// Peek is Read, but leaves the data in the connection, so that the next Read returns the same data
// again. It waits until at least one byte is available, and has the errors of Read: [io.EOF] at the
// end, else a [*net.OpError], which wraps cx.Err() if cx is cancelled.
func (c *streamConn) Peek(cx *Context, p []byte) (int, error) {
	return c.awaitRead(cx, func(cx *Context) (int, error) { return c.pollPeek(cx, p) })
}

// PollReadable returns nil if PollRead would not return [ErrPending]: data is available, or the end
// is reached, or the connection has failed. Otherwise it returns ErrPending and keeps the waker of
// cx. Every other error is a [*net.OpError].
//
// It needs no buffer, so a program with many idle connections can wait without a buffer for each.
// If several tasks read from the connection, another task may take the data before the caller
// reads.
func (c *streamConn) PollReadable(cx *Context) error {
	return c.wrap("read", c.src.pollReady(cx, &c.src.rd, false))
}

// pollReadableAgain is PollReadable for a task that trusts the event that has woken it, and so
// saves a system call. pollFD.pollReady states the conditions.
func (c *streamConn) pollReadableAgain(cx *Context) error {
	return c.wrap("read", c.src.pollReady(cx, &c.src.rd, true))
}

// Readable waits until data is available, or the end is reached, or the connection fails, and then
// returns nil. It reads nothing and needs no buffer. The error is a [*net.OpError], which wraps
// cx.Err() if cx is cancelled. Cancelling loses no data.
func (c *streamConn) Readable(cx *Context) error {
	_, err := c.awaitRead(cx, func(cx *Context) (int, error) { return 0, c.PollReadable(cx) })
	return err
}

// stream implements streamer.
func (c *streamConn) stream() *streamConn { return c }

// A streamer is a TCPConn or a UnixConn, or a connection that embeds one of them; see streamOf.
type streamer interface{ stream() *streamConn }

// CloseRead shuts down the reading side, as in package net (see [net.TCPConn.CloseRead]). The error
// is a [*net.OpError].
func (c *streamConn) CloseRead() error { return c.shutdown(unix.SHUT_RD) }

// CloseWrite shuts down the writing side, as in package net (see [net.TCPConn.CloseWrite]): once
// the peer has read all data, its reads return [io.EOF]. This side can still read. The error is a
// [*net.OpError].
func (c *streamConn) CloseWrite() error { return c.shutdown(unix.SHUT_WR) }

// shutdown is shutdown(2).
func (c *conn) shutdown(how int) error {
	return c.wrap("close", c.src.control(func(fd int) error {
		return os.NewSyscallError("shutdown", unix.Shutdown(fd, how))
	}))
}

// connect begins to connect. It returns nil if the socket is connected at once. It returns
// ErrPending if the connect is under way; pollConnected then returns the result.
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

// pollConnected returns the result of connect once there is one. The socket is writable then.
func (c *conn) pollConnected(cx *Context) error {
	_, err := c.src.pollOp(cx, &c.src.wr, func(fd int) (int, bool, error) { return 0, false, isConnected(fd) })
	return callError("connect", err)
}

// named sets the addresses of a new connection to those that the system reports. If the system
// reports no address for the peer, raddr stays, which is the address that was dialled.
func (c *conn) named(raddr net.Addr) {
	c.laddr, c.raddr = c.net.localAddr(int(c.src.fd)), raddr
	if peer, err := unix.Getpeername(int(c.src.fd)); err == nil {
		if a := c.net.addr(peer); a != nil {
			c.raddr = a
		}
	}
}
