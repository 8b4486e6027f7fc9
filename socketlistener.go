package async

import (
	"net"
	"os"
	"syscall"
	"time"

	"example.com/async/internal/sys"
	"golang.org/x/sys/unix"
)

// listener is the common part of TCPListener and UnixListener.
//
// Accept differs from other operations on descriptors in two points:
//
//  1. The process may have no descriptors left (EMFILE and the like). Then the connection stays in
//     the backlog, and there is no event when a descriptor becomes free. So accept treats the
//     failure as EAGAIN, and starved wakes a waiter after a delay.
//  2. When the runtime begins to drain, tasks that accept must stop, so that they can end. Shutdown
//     wakes them, and pollAccept fails with ErrShutdown. pollAccept looks before and after it has
//     joined the waiters: a task that joined after that wake sees that the runtime is draining.
type listener struct {
	src  pollFD
	net  *network
	addr net.Addr

	fixed   bool // the local address of each accepted connection is addr
	starved pollRetry
	closed  wakerSlot // fired by Close; Serve waits here
}

// own returns l. It is promoted to the types that embed a listener.
func (l *listener) own() *listener { return l }

// The delay after which Accept asks again while the process has no descriptors left. It doubles
// from acceptDelayMin up to acceptDelayMax.
const (
	acceptDelayMin = 5 * time.Millisecond
	acceptDelayMax = time.Second
)

// init makes l the listener of an open socket. If the address has a host, or is of the unix domain,
// it is the local address of each accepted connection, too; this saves a getsockname(2) for each.
func (l *listener) init(fd int, n *network) {
	l.src.open(fd)
	l.net, l.addr = n, n.localAddr(fd)
	tcp, ok := l.addr.(*net.TCPAddr)
	l.fixed = !ok || !tcp.IP.IsUnspecified()
	l.starved.dir, l.starved.first, l.starved.last = &l.src.rd, acceptDelayMin, acceptDelayMax
}

// accepted is a connection as the kernel returns it.
type accepted struct {
	fd   int
	from unix.Sockaddr
}

func (l *listener) pollFD() *pollFD { return &l.src }

// pollAccept returns the next connection, or ErrPending if there is none.
//
// A connection that the peer has reset in the backlog (ECONNABORTED) is skipped: it says nothing
// about the listener.
func (l *listener) pollAccept(cx *Context) (a accepted, err error) {
	if cx.draining() {
		return a, l.wrap("accept", ErrShutdown)
	}
	starved := false
	a.fd, err = l.src.pollOp(cx, &l.src.rd, func(fd int) (n int, exhausted bool, err error) {
		for err = unix.ECONNABORTED; err == unix.ECONNABORTED; {
			if err = l.src.keepNonblocking(fd); err == nil {
				n, a.from, err = sys.Accept(fd)
			}
		}
		switch err {
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			starved, err = true, unix.EAGAIN
		}
		return n, false, err
	})
	if starved {
		l.starved.later(cx)
	}
	if err == ErrPending && cx.draining() {
		err = ErrShutdown // Shutdown has woken the waiters before this task was one of them
	}
	if err != nil {
		return a, l.wrap("accept", callError("accept", err))
	}
	l.starved.succeeded()
	// If cx's task spawns a task next, worker.spawn takes it to be the task of this connection.
	if w := cx.here(); w != nil {
		w.accepted = cx.t
	}
	return a, nil
}

// accept awaits pollAccept. The tasks that accept wait in order: a connection wakes one of them.
func (l *listener) accept(cx *Context) (accepted, error) {
	a, err := awaitInOrder(cx, &l.src.rd.waiters, l.pollAccept)
	if err == errAbandoned {
		err = l.wrap("accept", cx.Err())
	}
	return a, err
}

// abandoned implements abandoner.
func (l *listener) abandoned(t *task, from *worker) { l.src.rd.waiters.leave(t, from) }

// give makes c the accepted connection a. The options that connections have by default need no
// system calls: the connection inherits them from the listener.
func (l *listener) give(a accepted, c *conn) {
	laddr, raddr := l.addr, l.net.addr(a.from)
	if !l.fixed {
		laddr = l.net.localAddr(a.fd)
	}
	if raddr == nil {
		raddr = l.net.noAddr()
	}
	c.init(a.fd, l.net, laddr, raddr)
}

// Close closes the listener, as in package net (see [net.TCPListener.Close]): an Accept that waits
// fails with [net.ErrClosed], and connections that were accepted stay open.
func (l *listener) Close() error {
	err := l.src.close()
	l.starved.stop()
	l.closed.fire(nil)
	return l.wrap("close", err)
}

// Addr returns the local address. The caller must not change it.
func (l *listener) Addr() net.Addr { return l.addr }

// SetDeadline sets the deadline of Accept, as in package net (see [net.TCPListener.SetDeadline]):
// an Accept that waits at t, or begins later, fails with [os.ErrDeadlineExceeded]. The zero time
// means no deadline.
func (l *listener) SetDeadline(t time.Time) error {
	if err := l.src.checkOpen(); err != nil {
		return l.wrap("set", err)
	}
	l.src.rd.setDeadline(t)
	return nil
}

// SyscallConn returns the socket for system calls that this package does not have, by
// [syscall.RawConn.Control]. As in package net, [syscall.RawConn.Read] and [syscall.RawConn.Write]
// fail with EINVAL, and do not call their function.
func (l *listener) SyscallConn() (syscall.RawConn, error) {
	if err := l.src.checkOpen(); err != nil {
		return nil, l.wrap("raw", err)
	}
	return &rawListener{rawConn{src: &l.src, net: l.net, laddr: l.addr}}, nil
}

// File returns a duplicate of the socket as a file, as in package net (see [net.TCPListener.File]):
// for [net.FileListener], or for a child process. The listener stays open, and the program must
// close both. The error is a [*net.OpError].
func (l *listener) File() (*os.File, error) {
	name := l.net.title() + ":"
	if l.addr != nil {
		name += l.addr.String()
	}
	f, err := l.src.file(name)
	return f, l.wrap("file", err)
}

// wrap wraps an error in a *net.OpError with the address of the listener. It leaves ErrPending as
// it is.
func (l *listener) wrap(op string, err error) error {
	if err == nil || err == ErrPending {
		return err
	}
	return wrapOp(op, l.net, nil, l.addr, err)
}
