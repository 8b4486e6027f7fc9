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

// TCPConn is a TCP connection. [DialTCP] and [TCPListener.AcceptTCP] return one, and so do [Dial]
// and [TCPListener.Accept], as a [Conn]. Most of its methods are those of [net.TCPConn], with a cx
// if they wait; instead of ReadFrom and WriteTo use [Copy]. TCP_NODELAY and keep-alive are on by
// default, as in package net.
//
// Errors are [*net.OpError]. They wrap [net.ErrClosed] after Close, [os.ErrDeadlineExceeded] after
// a deadline, and cx.Err() if cx is cancelled. [io.EOF] at the end of the data, and [ErrPending] of
// the Poll methods, are not wrapped: compare them by ==.
//
// Cancelling a Read loses no data. A cancelled Write may have written part of its data, and returns
// how much.
//
// Any number of tasks and goroutines may call the methods concurrently. It is cheapest if one task
// uses a connection: the worker that runs the first task that has to wait serves the connection,
// and an event for a task of another worker has to cross to another thread. While only goroutines
// wait, and again after [NetConn], no worker serves the connection, but the shared reactor of the
// runtime.
//
// A program must close its connections; the garbage collector closes none. The runtime refers to a
// connection from the first wait for it until Close.
//
// LocalAddr, RemoteAddr, SetDeadline, SetReadDeadline, SetWriteDeadline, SetReadBuffer,
// SetWriteBuffer and File are those of [net.TCPConn]. SyscallConn is for system calls that this
// package does not have, for example to read urgent data; the data behind urgent data is read like
// all other data. Its [syscall.RawConn] has no cx and cannot wait: Read and Write call their
// function once, and fail with [errors.ErrUnsupported] if the function returns false. A SyscallConn
// of the result of [BindConn] or [NetConn] can wait.
type TCPConn struct{ streamConn }

var _ Conn = (*TCPConn)(nil)

// Close closes the connection, as in package net (see [net.TCPConn.Close]). Operations that wait
// fail with [net.ErrClosed]. The system still sends data that was written, unless
// [TCPConn.SetLinger] says otherwise.
func (c *TCPConn) Close() error { return c.conn.Close() }

// SetNoDelay sets whether the system sends small writes at once, as in package net (see
// [net.TCPConn.SetNoDelay]). On is the default. Off delays them, to send them in fewer packets.
func (c *TCPConn) SetNoDelay(on bool) error {
	return c.setOption(unix.IPPROTO_TCP, unix.TCP_NODELAY, sys.BoolInt(on))
}

// SetKeepAlive sets whether the system sends probes while the connection is silent, as in package
// net (see [net.TCPConn.SetKeepAlive]). On is the default.
func (c *TCPConn) SetKeepAlive(on bool) error {
	return c.setOption(unix.SOL_SOCKET, unix.SO_KEEPALIVE, sys.BoolInt(on))
}

// SetKeepAlivePeriod sets the length of the silence after which the system sends the first probe,
// as in package net (see [net.TCPConn.SetKeepAlivePeriod]). The system counts in whole seconds, and
// d is rounded up. Zero means 15 s; a negative d changes nothing. The interval between probes and
// the number of probes stay as they are; for these see [TCPConn.SetKeepAliveConfig].
//
// OpenBSD has this setting only for the whole system. There a d that is not negative fails with
// ENOPROTOOPT.
func (c *TCPConn) SetKeepAlivePeriod(d time.Duration) error {
	return c.set(func(fd int) error { return sys.SetKeepAliveTime(fd, sys.KeepAliveIdle, d) })
}

// SetKeepAliveConfig sets whether and how the system sends probes while the connection is silent,
// as in package net (see [net.TCPConn.SetKeepAliveConfig]). A field that is zero means the default
// of package net, and a negative field leaves the setting unchanged. It stops at the first setting
// that the system refuses.
//
// On OpenBSD it switches keep-alive on or off, and then fails with ENOPROTOOPT unless all other
// fields are negative.
func (c *TCPConn) SetKeepAliveConfig(config net.KeepAliveConfig) error {
	return c.set(func(fd int) error { return sys.SetKeepAliveConfig(fd, config) })
}

// MultipathTCP reports whether the connection uses Multipath TCP, as in package net (see
// [net.TCPConn.MultipathTCP]). This package never asks for it. Only a connection from elsewhere can
// use it: for example, one that [FileConn] returns, or that a listener of [FileListener] has
// accepted. The result is always false on systems other than Linux, and on Linux before 5.16.
func (c *TCPConn) MultipathTCP() (bool, error) {
	used := false
	err := c.src.control(func(fd int) (err error) {
		used, err = sys.Multipath(fd)
		return err
	})
	return used, c.wrap("get", err)
}

// SetLinger sets how Close treats data that was not sent yet, as in package net (see
// [net.TCPConn.SetLinger]):
//
//   - sec < 0, the default: the system sends the data in the background.
//   - sec == 0: the system discards the data and resets the connection.
//   - sec > 0: the system tries to send the data for up to sec seconds. On Linux, Close blocks
//     meanwhile, and with it the worker. Use [SpawnBlocking] to close such a connection.
func (c *TCPConn) SetLinger(sec int) error {
	l := unix.Linger{Onoff: 1, Linger: int32(sec)}
	if sec < 0 {
		l = unix.Linger{}
	}
	return c.set(func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &l))
	})
}

// SetTTL sets the number of routers that a packet may pass: the time to live of IPv4, the hop limit
// of IPv6. The error is a [*net.OpError].
func (c *TCPConn) SetTTL(n int) error {
	level, name := c.ttlOption()
	return c.setOption(level, name, n)
}

// TTL returns the setting of [TCPConn.SetTTL].
func (c *TCPConn) TTL() (int, error) { return c.option(c.ttlOption()) }

// ttlOption returns the option of the family in which the packets are sent. An IPv6 socket sends
// IPv4 packets if the peer has an IPv4 address.
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

// TCPListener is a listener for TCP connections. [ListenTCP] returns one, and so does [Listen], as
// a [Listener]. Its methods are those of [net.TCPListener] with a cx. Any number of tasks and
// goroutines may call them concurrently; each connection goes to one of them.
//
// Errors are [*net.OpError]. They wrap [net.ErrClosed] after Close, [os.ErrDeadlineExceeded] after
// a deadline, [ErrShutdown] once the runtime drains, and cx.Err() if cx is cancelled. [ErrPending]
// is not wrapped. Cancelling an Accept loses no connection.
//
// If the process or the system has no descriptors left, Accept does not fail. It waits and tries
// again, first after 5 ms and then at growing intervals of at most one second. The connections wait
// in the backlog meanwhile.
type TCPListener struct{ listener }

var _ Listener = (*TCPListener)(nil)

// ListenTCP announces on laddr, as [net.ListenTCP] does. A nil laddr, or an address without an IP,
// is the wildcard address; for the network "tcp" it is that of both families. Port 0 means a port
// that the system chooses; [TCPListener.Addr] returns it. The error is a [*net.OpError].
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

// PollAccept is [TCPListener.Accept] without waiting: it returns [ErrPending] if there is no
// connection, and keeps the waker of cx.
func (l *TCPListener) PollAccept(cx *Context) (Conn, error) { return l.asConn(l.pollAccept(cx)) }

// pollAcceptTCP is AcceptTCP without waiting.
func (l *TCPListener) pollAcceptTCP(cx *Context) (*TCPConn, error) { return l.conn(l.pollAccept(cx)) }

// Accept waits for the next connection and returns it, a [*TCPConn]. The error is a [*net.OpError],
// which wraps cx.Err() if cx is cancelled. Cancelling loses no connection.
func (l *TCPListener) Accept(cx *Context) (Conn, error) { return l.asConn(l.accept(cx)) }

// AcceptTCP is [TCPListener.Accept] for callers that want a [*TCPConn].
func (l *TCPListener) AcceptTCP(cx *Context) (*TCPConn, error) { return l.conn(l.accept(cx)) }

// conn makes a TCPConn of the result of pollAccept or accept.
func (l *TCPListener) conn(a accepted, err error) (*TCPConn, error) {
	if err != nil {
		return nil, err
	}
	c := new(TCPConn)
	l.give(a, &c.conn)
	return c, nil
}

// asConn is conn for callers that want a Conn. After an error the Conn is nil, and not a nil
// *TCPConn.
func (l *TCPListener) asConn(a accepted, err error) (Conn, error) {
	if err != nil {
		return nil, err
	}
	return l.conn(a, nil)
}

// DialTCP connects to raddr, from the local address laddr unless that is nil, as [net.DialTCP]
// does. The error is a [*net.OpError]. If cx is cancelled or its deadline passes, the error wraps
// cx.Err(), and no socket stays open.
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
