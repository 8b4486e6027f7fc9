package async

import (
	"net"
	"os"
	"syscall"
	"time"

	"example.com/async/internal/sys"
	"golang.org/x/sys/unix"
)

// listener is the part that all listeners share.
type listener struct {
	src  pollFD
	net  *network
	addr net.Addr

	fixed   bool // accepted connections have the listener's address
	starved pollRetry
	closed  wakerSlot // fired by Close
}

// own returns the listener, also of a type that embeds one.
func (l *listener) own() *listener { return l }

// How long Accept waits before it asks the system again that has no descriptors.
const (
	acceptDelayMin = 5 * time.Millisecond
	acceptDelayMax = time.Second
)

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

// pollAccept returns the next connection; ErrPending if there is none.
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
		l.starved.later(cx) // there is no event when a descriptor is free again
	}
	if err == ErrPending && cx.draining() {
		err = ErrShutdown // it began before this task waited, and so has not woken it
	}
	if err != nil {
		return a, l.wrap("accept", callError("accept", err))
	}
	l.starved.succeeded()
	if w := cx.here(); w != nil {
		w.accepted = cx.t
	}
	return a, nil
}

// accept awaits pollAccept.
func (l *listener) accept(cx *Context) (accepted, error) {
	a, err := awaitInOrder(cx, &l.src.rd.waiters, l.pollAccept)
	if err == errAbandoned {
		err = l.wrap("accept", cx.Err())
	}
	return a, err
}

// abandoned implements abandoner.
func (l *listener) abandoned(t *task, from *worker) { l.src.rd.waiters.leave(t, from) }

// give makes c the connection that was accepted. The options that a connection
// has by default come with it from the listener's descriptor.
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

// Close closes the listener. An Accept that waits fails with net.ErrClosed; connections
// that were accepted stay open.
func (l *listener) Close() error {
	err := l.src.close()
	l.starved.stop()
	l.closed.fire(nil)
	return l.wrap("close", err)
}

// Addr returns the address, which must not be changed.
func (l *listener) Addr() net.Addr { return l.addr }

// SetDeadline sets the time after which Accept fails with
// os.ErrDeadlineExceeded; the zero time means never.
func (l *listener) SetDeadline(t time.Time) error {
	if err := l.src.checkOpen(); err != nil {
		return l.wrap("set", err)
	}
	l.src.rd.setDeadline(t)
	return nil
}

// SyscallConn returns the socket for system calls of the caller's, by
// syscall.RawConn.Control. syscall.RawConn.Read and syscall.RawConn.Write fail with EINVAL
// and do not call the function.
func (l *listener) SyscallConn() (syscall.RawConn, error) {
	if err := l.src.checkOpen(); err != nil {
		return nil, l.wrap("raw", err)
	}
	return &rawListener{rawConn{src: &l.src, net: l.net, laddr: l.addr}}, nil
}

// File returns a duplicate of the socket as a file, for net.FileListener or
// for a child process. The listener stays open, and both must be closed.
func (l *listener) File() (*os.File, error) {
	name := l.net.title() + ":"
	if l.addr != nil {
		name += l.addr.String()
	}
	f, err := l.src.file(name)
	return f, l.wrap("file", err)
}

func (l *listener) wrap(op string, err error) error {
	if err == nil || err == ErrPending {
		return err
	}
	return wrapOp(op, l.net, nil, l.addr, err)
}
