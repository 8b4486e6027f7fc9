package async

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"example.com/async/internal/sys"
	"golang.org/x/sys/unix"
)

// UnixConn is a connection of a unix-domain socket, of the network "unix" (a
// stream) or "unixpacket" (messages in order). See Conn for the common rules of
// its methods.
//
// Cancelling a Read loses nothing. Cancelling a Write may leave part of the
// data written, but never part of a packet: it returns how much. A connection
// must be closed.
//
// Errors are *net.OpError; it wraps net.ErrClosed after Close,
// os.ErrDeadlineExceeded after a deadline, and cx.Err() if cx is cancelled. Not
// wrapped are io.EOF, the end, and ErrPending.
type UnixConn struct{ streamConn }

var _ Conn = (*UnixConn)(nil)

// DialUnix connects to raddr, from laddr if it is not nil, as net.DialUnix
// does: networks "unix" and "unixpacket". On Linux a name that begins with @
// is abstract: it stands in no directory. If the listener's backlog is full it
// fails at once. The error is a *net.OpError; it wraps cx.Err() if cx is
// cancelled.
func DialUnix(cx *Context, network string, laddr, raddr *net.UnixAddr) (*UnixConn, error) {
	a, err := unixConnect("unix", network, laddr, raddr)
	if err != nil {
		return nil, cx.refused(err)
	}
	return awaitConnect[*UnixConn](cx, a)
}

// unixConnect prepares to dial a unix-domain socket.
func unixConnect(proto, name string, laddr, raddr *net.UnixAddr) (*connectFuture, error) {
	n, err := networkOf(name, proto)
	if err == nil && !unixNamed(raddr) {
		err = errMissingAddress
	}
	if err != nil {
		return nil, wrapOp("dial", unnamed(name), addrOrNil(laddr), addrOrNil(raddr), err)
	}
	return &connectFuture{setup: new(socketSetup), net: n, laddr: addrOrNil(laddr), raddr: raddr}, nil
}

// unixNamed reports whether a is an address that can be dialled.
func unixNamed(a *net.UnixAddr) bool { return a != nil && a.Name != "" }

// SocketPair returns the two ends of a new connection of the network "unix".
// Their addresses have no names. The error is a *net.OpError.
func SocketPair() (a, b *UnixConn, err error) {
	a, b = new(UnixConn), new(UnixConn)
	if err := socketPair("unix", &a.conn, &b.conn); err != nil {
		return nil, nil, err
	}
	return a, b, nil
}

func socketPair(name string, a, b *conn) error {
	n, _ := networkOf(name, name)
	fds, err := sys.SocketPair(n.kind)
	if err != nil {
		return wrapOp("dial", n, nil, nil, callError("socketpair", err))
	}
	for i, c := range []*conn{a, b} {
		c.init(fds[i], n, nil, nil)
		c.named(n.noAddr())
	}
	return nil
}

// Close closes the connection. Operations that wait for it fail with [net.ErrClosed]. The
// peer can still read data that was written.
func (c *UnixConn) Close() error { return c.conn.Close() }

// boundUnixConn is the result of BindConn for a UnixConn.
type boundUnixConn struct {
	*UnixConn
	cx *Context
}

func (b *boundUnixConn) Read(p []byte) (int, error)            { return b.UnixConn.Read(b.cx, p) }
func (b *boundUnixConn) Write(p []byte) (int, error)           { return b.UnixConn.Write(b.cx, p) }
func (b *boundUnixConn) SyscallConn() (syscall.RawConn, error) { return b.rawConn(b.cx) }

func (b *boundUnixConn) ReadFrom(p []byte) (int, net.Addr, error) { return b.readFromUnix(b.cx, p) }

func (b *boundUnixConn) ReadFromUnix(p []byte) (int, *net.UnixAddr, error) {
	return asUnixAddr(b.ReadFrom(p))
}

func (b *boundUnixConn) WriteTo(p []byte, addr net.Addr) (int, error) { return b.refuseTo(addr) }
func (b *boundUnixConn) WriteToUnix(p []byte, addr *net.UnixAddr) (int, error) {
	return b.refuseTo(addr)
}

// refuseTo is the WriteTo of both forms: a connection sends to its peer alone.
// Package net refuses at once only if the connection was dialled. It lets the system
// refuse if the connection was accepted, which Linux does for streams.
func (c *UnixConn) refuseTo(addr net.Addr) (int, error) {
	u, ok := addr.(*net.UnixAddr)
	if !ok {
		return 0, c.wrapTo("write", addr, syscall.EINVAL)
	}
	return 0, c.wrapTo("write", addrOrNil(u), net.ErrWriteToConnected)
}

func (b *boundUnixConn) ReadMsgUnix(p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	n, oobn, flags, addr, err = b.UnixConn.ReadMsgUnix(b.cx, p, oob)
	return n, oobn, flags, addr, b.wrapEnd(err)
}

func (b *boundUnixConn) WriteMsgUnix(p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error) {
	return b.UnixConn.WriteMsgUnix(b.cx, p, oob, addr)
}

// UnixListener is a listener of a unix-domain socket. See Listener for the common
// rules of its methods, and TCPListener for the behaviour when there are
// no descriptors left. Errors are those of a TCPListener.
type UnixListener struct {
	listener
	keep   atomic.Bool // the file, when the listener is closed
	unlink sync.Once
}

var _ Listener = (*UnixListener)(nil)

// ListenUnix announces on laddr, as net.ListenUnix does: networks "unix" and
// "unixpacket". The file of that name must not be there yet; Close removes it.
// On Linux a name that begins with @ is abstract: it stands in no directory,
// and an empty name lets the system choose an abstract name. The error is a
// *net.OpError.
func ListenUnix(network string, laddr *net.UnixAddr) (*UnixListener, error) {
	return new(socketSetup).listenUnix(network, laddr)
}

func (s *socketSetup) listenUnix(name string, laddr *net.UnixAddr) (*UnixListener, error) {
	n, fd, err := s.bindUnix("listen", "unix", name, laddr)
	if err != nil {
		return nil, err
	}
	l := new(UnixListener)
	l.init(fd, n)
	return l, nil
}

func (s *socketSetup) bindUnix(op, proto, name string, laddr *net.UnixAddr) (n *network, fd int, err error) {
	if n, err = networkOf(name, proto); err == nil && laddr == nil {
		err = errMissingAddress
	}
	if err == nil {
		fd, err = s.listen(n, laddr)
	}
	if err == nil {
		return n, fd, nil
	}
	source, addr := net.Addr(nil), addrOrNil(laddr)
	if op == "dial" {
		source, addr = addr, nil
	}
	return nil, -1, wrapOp(op, unnamed(name), source, addr, err)
}

// SetUnlinkOnClose sets whether Close removes the socket's file. It does for a
// listener of ListenUnix or Listen, and does not for a listener that was made from a
// descriptor, unless this says otherwise.
func (l *UnixListener) SetUnlinkOnClose(unlink bool) { l.keep.Store(!unlink) }

// Close closes the listener and removes its file. An Accept that waits fails with
// net.ErrClosed; connections that were accepted stay open.
func (l *UnixListener) Close() error {
	l.unlink.Do(func() {
		// Before the descriptor is closed, also if another caller closes it: after
		// that the name might be another socket's.
		if l.addr == nil { // the zero value
			return
		}
		if name := l.addr.String(); name != "" && name[0] != '@' && !l.keep.Load() {
			unix.Unlink(name)
		}
	})
	return l.listener.Close()
}

// PollAccept returns the next connection, a *UnixConn; ErrPending if there is
// none.
func (l *UnixListener) PollAccept(cx *Context) (Conn, error) { return l.asConn(l.pollAccept(cx)) }

// pollAcceptUnix is PollAccept for callers that want a *UnixConn.
func (l *UnixListener) pollAcceptUnix(cx *Context) (*UnixConn, error) {
	return l.conn(l.pollAccept(cx))
}

// Accept waits for the next connection.
func (l *UnixListener) Accept(cx *Context) (Conn, error) { return l.asConn(l.accept(cx)) }

// AcceptUnix is Accept for callers that want a *UnixConn.
func (l *UnixListener) AcceptUnix(cx *Context) (*UnixConn, error) { return l.conn(l.accept(cx)) }

func (l *UnixListener) conn(a accepted, err error) (*UnixConn, error) {
	if err != nil {
		return nil, err
	}
	c := new(UnixConn)
	l.give(a, &c.conn)
	return c, nil
}

func (l *UnixListener) asConn(a accepted, err error) (Conn, error) {
	if err != nil {
		return nil, err
	}
	return l.conn(a, nil)
}
