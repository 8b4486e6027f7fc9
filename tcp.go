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

// TCPConn is a TCP connection. See Conn for the common rules of its methods.
//
// It is served by the worker of the task that first has to wait for it, so one
// task should use a connection; other tasks can use it as well,
// but each event then has to cross to another thread. As long as only goroutines
// wait for it, and again after NetConn, no worker serves it. TCP_NODELAY and
// keep-alive are on unless switched off.
//
// Cancelling a Read loses nothing. Cancelling a Write may leave part of the
// data written: it returns how much.
//
// Urgent data is for system calls of the caller's; see SyscallConn. Data behind
// it is read like all other data.
//
// A connection must be closed: as long as it is open the runtime refers to it,
// and the garbage collector does not close it.
//
// Errors are *net.OpError; it wraps net.ErrClosed after Close,
// os.ErrDeadlineExceeded after a deadline, and cx.Err() if cx is cancelled. Not
// wrapped are io.EOF, the end, and ErrPending.
type TCPConn struct{ streamConn }

var _ Conn = (*TCPConn)(nil)

// Close closes the connection. Operations that wait for it fail with [net.ErrClosed]. The
// system still sends data that was written, unless SetLinger says otherwise.
func (c *TCPConn) Close() error { return c.conn.Close() }

// SetNoDelay sets whether small writes are sent at once (on, the default) or
// held back to be joined.
func (c *TCPConn) SetNoDelay(on bool) error {
	return c.setOption(unix.IPPROTO_TCP, unix.TCP_NODELAY, sys.BoolInt(on))
}

// SetKeepAlive sets whether the system probes a connection that is silent.
func (c *TCPConn) SetKeepAlive(on bool) error {
	return c.setOption(unix.SOL_SOCKET, unix.SO_KEEPALIVE, sys.BoolInt(on))
}

// SetKeepAlivePeriod sets after how long a silence the system sends the first
// probe, in whole seconds, rounded up. Zero is 15 s; a negative d changes nothing.
// The interval between probes and their number stay; see SetKeepAliveConfig.
// OpenBSD has this setting for the system as a whole only: there it fails with
// ENOPROTOOPT, except for a negative d.
func (c *TCPConn) SetKeepAlivePeriod(d time.Duration) error {
	return c.set(func(fd int) error { return sys.SetKeepAliveTime(fd, sys.KeepAliveIdle, d) })
}

// SetKeepAliveConfig sets whether the system probes a connection that is silent,
// and how, as the method of net.TCPConn does: a field that is zero has the default
// of package net, a negative field leaves the system's setting unchanged. It stops at
// the first setting that the system refuses: on OpenBSD with ENOPROTOOPT at the first
// setting that is not negative, after it has set or cleared keep-alive itself.
func (c *TCPConn) SetKeepAliveConfig(config net.KeepAliveConfig) error {
	return c.set(func(fd int) error { return sys.SetKeepAliveConfig(fd, config) })
}

// MultipathTCP reports whether the connection uses Multipath TCP. Only a
// connection whose socket another program or package net has made can: that of
// [FileConn], for example, or a connection from a listener of [FileListener]. It is false on
// systems other than Linux, and on Linux before 5.16.
func (c *TCPConn) MultipathTCP() (bool, error) {
	used := false
	err := c.src.control(func(fd int) (err error) {
		used, err = sys.Multipath(fd)
		return err
	})
	return used, c.wrap("get", err)
}

// SetLinger sets how Close treats data that was not sent: negative, the
// default, sends it in the background; zero discards it and resets the
// connection; else the system tries for that many seconds, for which Close then
// blocks on Linux, and with it the worker: such a connection is closed in the pool
// of SpawnBlocking.
func (c *TCPConn) SetLinger(sec int) error {
	l := unix.Linger{Onoff: 1, Linger: int32(sec)}
	if sec < 0 {
		l = unix.Linger{}
	}
	return c.set(func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &l))
	})
}

// SetTTL sets how many routers a packet may pass: the time to live of
// IPv4, the hop limit of IPv6.
func (c *TCPConn) SetTTL(n int) error {
	level, name := c.ttlOption()
	return c.setOption(level, name, n)
}

// TTL returns the setting of SetTTL.
func (c *TCPConn) TTL() (int, error) { return c.option(c.ttlOption()) }

func (c *TCPConn) ttlOption() (level, name int) {
	if peer, ok := c.raddr.(*net.TCPAddr); ok && peer.IP.To4() == nil {
		return unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS
	}
	return unix.IPPROTO_IP, unix.IP_TTL
}

// boundTCPConn is the result of BindConn for a TCPConn.
type boundTCPConn struct {
	*TCPConn
	cx *Context
}

func (b *boundTCPConn) Read(p []byte) (int, error)            { return b.TCPConn.Read(b.cx, p) }
func (b *boundTCPConn) Write(p []byte) (int, error)           { return b.TCPConn.Write(b.cx, p) }
func (b *boundTCPConn) ReadFrom(r io.Reader) (int64, error)   { return b.copyFrom(b, r) }
func (b *boundTCPConn) WriteTo(w io.Writer) (int64, error)    { return b.copyTo(w, b) }
func (b *boundTCPConn) SyscallConn() (syscall.RawConn, error) { return b.rawConn(b.cx) }

// TCPListener is a TCP listener. See Listener for the common rules of its
// methods.
//
// Cancelling an Accept loses nothing. If the process or the system has no
// descriptors left, Accept waits and tries again, ever more slowly, up to once
// a second; connections wait in the backlog meanwhile.
//
// Errors are *net.OpError; it wraps net.ErrClosed after Close,
// os.ErrDeadlineExceeded after a deadline, and cx.Err() if cx is cancelled.
// ErrPending is not wrapped.
type TCPListener struct{ listener }

var _ Listener = (*TCPListener)(nil)

// ListenTCP announces on laddr, as net.ListenTCP does. A nil laddr, or an address
// without an IP, is the wildcard address, of both families for "tcp"; port 0
// is a port that the system chooses. The error is a *net.OpError.
func ListenTCP(network string, laddr *net.TCPAddr) (*TCPListener, error) {
	return new(socketSetup).listenTCP(network, laddr)
}

func (s *socketSetup) listenTCP(name string, laddr *net.TCPAddr) (*TCPListener, error) {
	if laddr == nil {
		laddr = new(net.TCPAddr)
	}
	n, err := networkOf(name, "tcp")
	if err != nil {
		return nil, wrapOp("listen", unnamed(name), nil, laddr, err)
	}
	fd, err := s.listen(n, laddr)
	if err != nil {
		return nil, wrapOp("listen", n, nil, laddr, err)
	}
	l := new(TCPListener)
	l.init(fd, n)
	return l, nil
}

// PollAccept returns the next connection, a *TCPConn; ErrPending if there is
// none.
func (l *TCPListener) PollAccept(cx *Context) (Conn, error) { return l.asConn(l.pollAccept(cx)) }

// pollAcceptTCP is PollAccept for callers that want a *TCPConn.
func (l *TCPListener) pollAcceptTCP(cx *Context) (*TCPConn, error) { return l.conn(l.pollAccept(cx)) }

// Accept waits for the next connection.
func (l *TCPListener) Accept(cx *Context) (Conn, error) { return l.asConn(l.accept(cx)) }

// AcceptTCP is Accept for callers that want a *TCPConn.
func (l *TCPListener) AcceptTCP(cx *Context) (*TCPConn, error) { return l.conn(l.accept(cx)) }

func (l *TCPListener) conn(a accepted, err error) (*TCPConn, error) {
	if err != nil {
		return nil, err
	}
	c := new(TCPConn)
	l.give(a, &c.conn)
	return c, nil
}

func (l *TCPListener) asConn(a accepted, err error) (Conn, error) {
	if err != nil {
		return nil, err
	}
	return l.conn(a, nil)
}

// DialTCP connects to raddr, from laddr if it is not nil, as net.DialTCP does.
// The deadline and the cancellation of cx end it; nothing is left open then.
// The error is a *net.OpError; it wraps cx.Err() if cx is cancelled.
func DialTCP(cx *Context, network string, laddr, raddr *net.TCPAddr) (*TCPConn, error) {
	n, err := networkOf(network, "tcp")
	if err == nil && raddr == nil {
		err = errMissingAddress
	}
	if err != nil {
		return nil, wrapOp("dial", unnamed(network), addrOrNil(laddr), addrOrNil(raddr), cx.refused(err))
	}
	a := connectFuture{setup: new(socketSetup), net: n, laddr: addrOrNil(laddr), raddr: raddr}
	return awaitConnect[*TCPConn](cx, &a)
}
