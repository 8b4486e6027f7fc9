package async

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// TCPConn is a TCP connection. See Conn for what its methods have in common.
//
// It is served by the worker of the task that first has to wait for it, so a
// connection belongs in the hands of one task; from others it works as well,
// but each event then has to cross to another thread. TCP_NODELAY and
// keep-alive are on unless switched off.
//
// Cancelling a Read loses nothing. Cancelling a Write may leave part of the
// data written: it returns how much.
//
// A connection must be closed: as long as it is open the runtime refers to it,
// and the garbage collector does not close it.
type TCPConn struct {
	src          source
	network      *string // "tcp", "tcp4" or "tcp6", as it was asked for
	laddr, raddr *net.TCPAddr
}

var _ Conn = (*TCPConn)(nil)

// maxIO is how much one system call is asked to move; some systems fail above.
const maxIO = 1 << 30

// PollRead reads what is there into p. It returns ErrPending if nothing is,
// io.EOF at the end, and at once if p is empty.
func (c *TCPConn) PollRead(cx *Context, p []byte) (int, error) {
	if len(p) > maxIO {
		p = p[:maxIO]
	}
	if len(p) == 0 {
		return 0, c.wrap("read", c.src.idle())
	}
	n, err := c.src.attempt(cx, &c.src.rd, func(fd int) (int, bool, error) {
		n, err := unix.Read(fd, p)
		if n == 0 && err == nil {
			return 0, false, io.EOF
		}
		return n, n < len(p), err
	})
	return max(n, 0), c.wrap("read", err)
}

// PollWrite writes as much of p as there is room for. It returns ErrPending if
// there is none.
func (c *TCPConn) PollWrite(cx *Context, p []byte) (int, error) {
	if len(p) > maxIO {
		p = p[:maxIO]
	}
	if len(p) == 0 {
		return 0, c.wrap("write", c.src.idle())
	}
	n, err := c.src.attempt(cx, &c.src.wr, func(fd int) (int, bool, error) {
		n, err := unix.Write(fd, p)
		return n, n < len(p), err
	})
	return max(n, 0), c.wrap("write", err)
}

// Read waits until something is there, and reads it into p.
func (c *TCPConn) Read(cx *Context, p []byte) (int, error) {
	n, err := await(cx, func(cx *Context) (int, error) { return c.PollRead(cx, p) })
	if err == errAbandoned {
		err = c.abandon(cx, "read", &c.src.rd)
	}
	return n, err
}

// Write writes all of p, unless it fails. n says how much was written. Data of
// several Writes at once may be mixed where one has to wait in its middle.
func (c *TCPConn) Write(cx *Context, p []byte) (n int, err error) {
	for {
		m, err := await(cx, func(cx *Context) (int, error) { return c.PollWrite(cx, p[n:]) })
		n += m
		if err == errAbandoned {
			err = c.abandon(cx, "write", &c.src.wr)
		}
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// abandon ends an await that was cancelled.
func (c *TCPConn) abandon(cx *Context, op string, h *half) error {
	h.waiters.leave(cx.t, cx.here())
	return c.wrap(op, cx.Err())
}

// Close closes the connection. Data that was written is still sent, unless
// SetLinger says otherwise.
func (c *TCPConn) Close() error { return c.wrap("close", c.src.close()) }

// CloseRead shuts down the reading side.
func (c *TCPConn) CloseRead() error { return c.shutdown(unix.SHUT_RD) }

// CloseWrite shuts down the writing side: the peer reads io.EOF.
func (c *TCPConn) CloseWrite() error { return c.shutdown(unix.SHUT_WR) }

func (c *TCPConn) shutdown(how int) error {
	return c.wrap("close", c.src.control(func(fd int) error {
		return os.NewSyscallError("shutdown", unix.Shutdown(fd, how))
	}))
}

// LocalAddr returns the local address, a *net.TCPAddr that must not be changed.
func (c *TCPConn) LocalAddr() net.Addr { return c.laddr }

// RemoteAddr returns the peer's address, a *net.TCPAddr that must not be changed.
func (c *TCPConn) RemoteAddr() net.Addr { return c.raddr }

// SetDeadline sets the deadline of reads and writes.
func (c *TCPConn) SetDeadline(t time.Time) error { return c.setDeadline(t, &c.src.rd, &c.src.wr) }

// SetReadDeadline sets the deadline of reads.
func (c *TCPConn) SetReadDeadline(t time.Time) error { return c.setDeadline(t, &c.src.rd) }

// SetWriteDeadline sets the deadline of writes.
func (c *TCPConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(t, &c.src.wr) }

func (c *TCPConn) setDeadline(t time.Time, halves ...*half) error {
	if err := c.src.idle(); err != nil {
		return wrapOp("set", *c.network, nil, c.laddr, err)
	}
	for _, h := range halves {
		h.setDeadline(t)
	}
	return nil
}

// SetNoDelay sets whether small writes are sent at once (on, the default) or
// held back to be joined.
func (c *TCPConn) SetNoDelay(on bool) error {
	return c.setOption(unix.IPPROTO_TCP, unix.TCP_NODELAY, boolInt(on))
}

// SetKeepAlive sets whether the system probes a connection that is silent.
func (c *TCPConn) SetKeepAlive(on bool) error {
	return c.setOption(unix.SOL_SOCKET, unix.SO_KEEPALIVE, boolInt(on))
}

// SetKeepAlivePeriod sets after how long a silence it probes, and how often,
// in whole seconds, rounded up. OpenBSD has it for the system as a whole only:
// there it fails.
func (c *TCPConn) SetKeepAlivePeriod(d time.Duration) error {
	return c.wrap("set", c.src.control(func(fd int) error { return setKeepAlivePeriod(fd, d) }))
}

// SetLinger sets what Close does with data that was not sent: negative, the
// default, sends it in the background; zero discards it and resets the
// connection; else the system tries for that many seconds.
func (c *TCPConn) SetLinger(sec int) error {
	l := unix.Linger{Onoff: 1, Linger: int32(sec)}
	if sec < 0 {
		l = unix.Linger{}
	}
	return c.wrap("set", c.src.control(func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &l))
	}))
}

func (c *TCPConn) setOption(level, name, value int) error {
	return c.wrap("set", c.src.control(func(fd int) error { return setOption(fd, level, name, value) }))
}

// WithContext returns the connection as a net.Conn whose calls wait through
// cx. It also has the other methods of TCPConn that are those of net.TCPConn.
func (c *TCPConn) WithContext(cx *Context) net.Conn { return &boundTCPConn{c, cx} }

type boundTCPConn struct {
	*TCPConn
	cx *Context
}

func (b *boundTCPConn) Read(p []byte) (int, error)  { return b.TCPConn.Read(b.cx, p) }
func (b *boundTCPConn) Write(p []byte) (int, error) { return b.TCPConn.Write(b.cx, p) }

// wrap makes an error what package net would make of it.
func (c *TCPConn) wrap(op string, err error) error {
	if err == nil || err == ErrPending || err == io.EOF {
		return err
	}
	return wrapOp(op, *c.network, c.laddr, c.raddr, err)
}

// wrapOp is the one place where a net.OpError of a connection is made.
func wrapOp(op, network string, source, addr *net.TCPAddr, err error) error {
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, errno)
	}
	e := &net.OpError{Op: op, Net: network, Err: err}
	if source != nil {
		e.Source = source
	}
	if addr != nil {
		e.Addr = addr
	}
	return e
}

// TCPListener is a TCP listener. See Listener for what its methods have in
// common.
//
// Cancelling an Accept loses nothing. If the process or the system has no
// descriptors left, Accept waits and tries again, ever more slowly, up to once
// a second; connections wait in the backlog meanwhile.
type TCPListener struct {
	src     source
	network *string
	laddr   *net.TCPAddr
	fixed   bool // accepted connections have the listener's address

	mu    sync.Mutex
	delay time.Duration // of the next try after a failure; 0: the last try did not fail
	alarm alarm
}

var _ Listener = (*TCPListener)(nil)

// How long Accept leaves the system alone that has no descriptors.
const (
	acceptDelayMin = 5 * time.Millisecond
	acceptDelayMax = time.Second
)

// ListenTCP announces on laddr, as net.ListenTCP does. A nil laddr, or one
// without an IP, is the wildcard address, of both families for "tcp"; port 0
// is one that the system chooses.
func ListenTCP(network string, laddr *net.TCPAddr) (*TCPListener, error) {
	if laddr == nil {
		laddr = new(net.TCPAddr)
	}
	fd, err := listenSocket(network, laddr)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: laddr, Err: err}
	}
	l := &TCPListener{src: source{fd: int32(fd)}, network: &network, laddr: localAddr(fd)}
	l.fixed = !l.laddr.IP.IsUnspecified()
	return l, nil
}

// PollAccept returns the next connection, a *TCPConn; ErrPending if there is
// none.
func (l *TCPListener) PollAccept(cx *Context) (Conn, error) {
	c, err := l.PollAcceptTCP(cx)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// PollAcceptTCP is PollAccept for those who want a *TCPConn.
func (l *TCPListener) PollAcceptTCP(cx *Context) (*TCPConn, error) {
	if cx.draining() {
		return nil, l.wrap(ErrShutdown)
	}
	var from unix.Sockaddr
	starved := false
	fd, err := l.src.attempt(cx, &l.src.rd, func(fd int) (n int, exhausted bool, err error) {
		for err = unix.ECONNABORTED; err == unix.ECONNABORTED; {
			n, from, err = acceptSocket(fd)
		}
		switch err {
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			starved, err = true, unix.EAGAIN
		}
		return n, false, err
	})
	if starved {
		l.backOff(cx)
	}
	if err == ErrPending && cx.draining() {
		err = ErrShutdown // it began before there was somebody to wake
	}
	if err != nil {
		return nil, l.wrap(err)
	}
	l.succeeded()
	if w := cx.here(); w != nil {
		w.accepted = cx.t
	}
	return l.conn(fd, from), nil
}

// conn makes a connection of an accepted descriptor. The options that a
// connection has by default come with it from the listener's descriptor.
func (l *TCPListener) conn(fd int, from unix.Sockaddr) *TCPConn {
	c := &TCPConn{src: source{fd: int32(fd)}, network: l.network, laddr: l.laddr, raddr: tcpAddr(from)}
	if !l.fixed {
		c.laddr = localAddr(fd)
	}
	return c
}

// backOff sets the time of the next try, unless it is set. There is no event
// when a descriptor is free again.
func (l *TCPListener) backOff(cx *Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = min(max(2*l.delay, acceptDelayMin), acceptDelayMax)
	l.alarm.set(cx.here(), nanos()+int64(l.delay), l)
}

func (l *TCPListener) succeeded() {
	l.mu.Lock()
	l.delay = 0
	l.mu.Unlock()
}

// expire implements expirer: try again.
func (l *TCPListener) expire(w *worker) { l.src.rd.waiters.fire(w) }

// Accept waits for the next connection.
func (l *TCPListener) Accept(cx *Context) (Conn, error) {
	c, err := l.AcceptTCP(cx)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptTCP is Accept for those who want a *TCPConn.
func (l *TCPListener) AcceptTCP(cx *Context) (*TCPConn, error) {
	c, err := await(cx, l.PollAcceptTCP)
	if err == errAbandoned {
		l.src.rd.waiters.leave(cx.t, cx.here())
		err = l.wrap(cx.Err())
	}
	return c, err
}

// Close closes the listener. Connections that it accepted stay open.
func (l *TCPListener) Close() error {
	err := l.src.close()
	l.mu.Lock()
	l.alarm.stop(nil)
	l.mu.Unlock()
	if err != nil {
		return wrapOp("close", *l.network, nil, l.laddr, err)
	}
	return nil
}

// Addr returns the address, a *net.TCPAddr that must not be changed.
func (l *TCPListener) Addr() net.Addr { return l.laddr }

// SetDeadline sets the time after which Accept fails with
// os.ErrDeadlineExceeded; the zero time means never.
func (l *TCPListener) SetDeadline(t time.Time) error {
	if err := l.src.idle(); err != nil {
		return wrapOp("set", *l.network, nil, l.laddr, err)
	}
	l.src.rd.setDeadline(t)
	return nil
}

func (l *TCPListener) wrap(err error) error {
	if err == nil || err == ErrPending {
		return err
	}
	return wrapOp("accept", *l.network, nil, l.laddr, err)
}

// Incoming returns the stream of connections. It has no end: once the listener
// is closed, it fails with net.ErrClosed.
func (l *TCPListener) Incoming() *Incoming { return &Incoming{l} }

// Incoming is the Stream of a Listener's connections.
type Incoming struct{ l Listener }

var _ Stream[Conn] = (*Incoming)(nil)

// PollNext returns the next connection.
func (in *Incoming) PollNext(cx *Context) (Conn, error) { return in.l.PollAccept(cx) }

// All returns the connections for a range loop, which waits through cx. It
// ends after the first error.
func (in *Incoming) All(cx *Context) func(yield func(Conn, error) bool) {
	return func(yield func(Conn, error) bool) {
		for {
			c, err := in.l.Accept(cx)
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// DialTCP connects to raddr, from laddr if it is not nil, as net.DialTCP does.
// The deadline and the cancellation of cx end it; nothing is left open then.
func DialTCP(cx *Context, network string, laddr, raddr *net.TCPAddr) (*TCPConn, error) {
	c, err := dialTCP(cx, network, laddr, raddr)
	// The system may have connected the socket to itself, if it happened to
	// choose the port that was dialled and nobody listens there.
	for range 2 {
		if err != nil || laddr != nil || c.laddr.Port != c.raddr.Port || !c.laddr.IP.Equal(c.raddr.IP) {
			break
		}
		c.Close()
		c, err = dialTCP(cx, network, laddr, raddr)
	}
	return c, err
}

func dialTCP(cx *Context, network string, laddr, raddr *net.TCPAddr) (*TCPConn, error) {
	fail := func(err error) (*TCPConn, error) { return nil, wrapOp("dial", network, laddr, raddr, err) }
	if raddr == nil {
		return fail(errMissingAddress)
	}
	if cx.ended() {
		return fail(cx.Err())
	}
	fd, sa, err := dialSocket(network, laddr, raddr)
	if err != nil {
		return fail(err)
	}
	c := &TCPConn{src: source{fd: int32(fd)}, network: &network}
	switch err = unix.Connect(fd, sa); err {
	case nil, unix.EISCONN:
		err = nil
	case unix.EINPROGRESS, unix.EALREADY, unix.EINTR:
		_, err = await(cx, func(cx *Context) (int, error) {
			return c.src.attempt(cx, &c.src.wr, func(fd int) (int, bool, error) { return 0, false, connected(fd) })
		})
		if err == errAbandoned {
			err = cx.Err()
		}
	}
	if err != nil {
		c.src.close()
		if errno, ok := err.(syscall.Errno); ok {
			err = os.NewSyscallError("connect", errno)
		}
		return fail(err)
	}
	c.laddr, c.raddr = localAddr(fd), raddr
	if peer, err := unix.Getpeername(fd); err == nil {
		c.raddr = tcpAddr(peer)
	}
	return c, nil
}
