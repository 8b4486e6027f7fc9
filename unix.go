package async

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"example.com/async/internal/sys"
	"golang.org/x/sys/unix"
)

// UnixConn is a connection of a unix-domain socket. Its network is "unix", a stream, or
// "unixpacket", a connection of packets in order. [DialUnix], [SocketPair] and
// [UnixListener.AcceptUnix] return one, and so do [Dial] and [UnixListener.Accept], as a [Conn].
// Most of its methods are those of [net.UnixConn], with a cx if they wait. LocalAddr, the
// deadlines, the buffer sizes, SyscallConn and File are the same as those of a [TCPConn].
// [UnixConn.SendFiles] passes open files to another process.
//
// Errors are [*net.OpError]. They wrap [net.ErrClosed] after Close, [os.ErrDeadlineExceeded] after
// a deadline, and cx.Err() if cx is cancelled. [io.EOF] at the end of the data, and [ErrPending] of
// the Poll methods, are not wrapped: compare them by ==.
//
// On a connection of packets, each Write sends p as one packet, and each Read takes one packet. If
// the packet is longer than p, the rest of it is lost. Cancelling a Read loses no data. A cancelled
// Write may have written part of a stream's data, but never part of a packet, and returns how much.
//
// Any number of tasks and goroutines may call the methods concurrently. As with a [TCPConn], it is
// cheapest if one task uses a connection. A program must close its connections.
type UnixConn struct{ streamConn }

var _ Conn = (*UnixConn)(nil)

// DialUnix connects to raddr, from the local address laddr unless that is nil, as [net.DialUnix]
// does. The network is "unix" or "unixpacket". On Linux a name that begins with @ is abstract: no
// file has this name. If the backlog of the listener is full, DialUnix fails at once. The error is
// a [*net.OpError]; it wraps cx.Err() if cx is cancelled.
func DialUnix(cx *Context, network string, laddr, raddr *net.UnixAddr) (*UnixConn, error) {
	a, err := unixConnect("unix", network, laddr, raddr)
	if err != nil {
		return nil, cx.refused(err)
	}
	return awaitConnect[*UnixConn](cx, a)
}

// unixConnect prepares to connect a unix-domain socket.
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

// unixNamed reports whether a is an address that a socket can connect to.
func unixNamed(a *net.UnixAddr) bool { return a != nil && a.Name != "" }

// SocketPair returns the two ends of a new connection of the network "unix". Their addresses have
// no names. The error is a [*net.OpError].
func SocketPair() (a, b *UnixConn, err error) {
	a, b = new(UnixConn), new(UnixConn)
	if err := socketPair("unix", &a.conn, &b.conn); err != nil {
		return nil, nil, err
	}
	return a, b, nil
}

// socketPair opens two connected sockets of the network with this name, and makes a and b their
// connections.
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

// Close closes the connection, as in package net (see [net.UnixConn.Close]). Operations that wait
// fail with [net.ErrClosed]. The peer can still read data that was written.
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

// refuseTo is the WriteTo and WriteToUnix of the results of BindConn and NetConn. It always fails,
// since a connection sends to its peer alone. Package net fails at once only if the connection was
// dialled. If the connection was accepted, package net makes the system call, which fails for
// streams on Linux.
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

// UnixListener is a listener of a unix-domain socket. [ListenUnix] returns one, and so does
// [Listen], as a [Listener]. Its methods are those of [net.UnixListener] with a cx. Concurrency,
// errors, cancellation, and the behaviour when no descriptors are left are the same as those of a
// [TCPListener].
type UnixListener struct {
	listener
	keep   atomic.Bool // Close leaves the file
	unlink sync.Once
}

var _ Listener = (*UnixListener)(nil)

// ListenUnix announces on laddr, as [net.ListenUnix] does. The network is "unix" or "unixpacket".
// It creates a file with the name of laddr, which must not exist before, and [UnixListener.Close]
// removes the file. The error is a [*net.OpError].
//
// On Linux a name that begins with @ is abstract: no file has this name. For an empty name the
// system chooses an abstract name.
func ListenUnix(network string, laddr *net.UnixAddr) (*UnixListener, error) {
	return new(socketSetup).listenUnix(network, laddr)
}

// listenUnix is ListenUnix with the settings of s.
func (s *socketSetup) listenUnix(name string, laddr *net.UnixAddr) (*UnixListener, error) {
	n, fd, err := s.bindUnix("listen", "unix", name, laddr)
	if err != nil {
		return nil, err
	}
	l := new(UnixListener)
	l.init(fd, n)
	return l, nil
}

// bindUnix opens a socket that is bound to laddr, for a listener or for datagrams. In an error, op
// "dial" makes laddr the source, and op "listen" makes it the address.
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

// SetUnlinkOnClose sets whether [UnixListener.Close] removes the file of the socket, as in package
// net (see [net.UnixListener.SetUnlinkOnClose]). On is the default for a listener of [ListenUnix]
// or [Listen], and off for a listener that was made from a descriptor.
func (l *UnixListener) SetUnlinkOnClose(unlink bool) { l.keep.Store(!unlink) }

// Close closes the listener and removes its file, as in package net (see [net.UnixListener.Close]).
// An Accept that waits fails with [net.ErrClosed]. Connections that were accepted stay open.
func (l *UnixListener) Close() error {
	l.unlink.Do(func() {
		// The file is removed before any caller closes the descriptor: after the close, another
		// socket may have this name. The Once lets a second caller wait until the first caller has
		// removed the file.
		if l.addr == nil { // the zero value
			return
		}
		if name := l.addr.String(); name != "" && name[0] != '@' && !l.keep.Load() {
			unix.Unlink(name)
		}
	})
	return l.listener.Close()
}

// PollAccept is [UnixListener.Accept] without waiting: it returns [ErrPending] if there is no
// connection, and keeps the waker of cx.
func (l *UnixListener) PollAccept(cx *Context) (Conn, error) { return l.asConn(l.pollAccept(cx)) }

// pollAcceptUnix is AcceptUnix without waiting.
func (l *UnixListener) pollAcceptUnix(cx *Context) (*UnixConn, error) {
	return l.conn(l.pollAccept(cx))
}

// Accept waits for the next connection and returns it, a [*UnixConn]. The error is a
// [*net.OpError], which wraps cx.Err() if cx is cancelled. Cancelling loses no connection.
func (l *UnixListener) Accept(cx *Context) (Conn, error) { return l.asConn(l.accept(cx)) }

// AcceptUnix is [UnixListener.Accept] for callers that want a [*UnixConn].
func (l *UnixListener) AcceptUnix(cx *Context) (*UnixConn, error) { return l.conn(l.accept(cx)) }

// conn makes a UnixConn of the result of pollAccept or accept.
func (l *UnixListener) conn(a accepted, err error) (*UnixConn, error) {
	if err != nil {
		return nil, err
	}
	c := new(UnixConn)
	l.give(a, &c.conn)
	return c, nil
}

// asConn is conn for callers that want a Conn. After an error the Conn is nil, and not a nil
// *UnixConn.
func (l *UnixListener) asConn(a accepted, err error) (Conn, error) {
	if err != nil {
		return nil, err
	}
	return l.conn(a, nil)
}
