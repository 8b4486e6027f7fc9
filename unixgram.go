package async

import (
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// UnixDatagram is a unix-domain socket of the network "unixgram", which sends and receives
// messages. [ListenUnixgram] returns a socket that receives from any sender; it sends by
// [UnixDatagram.WriteTo] and the like. [DialUnixgram] and [DatagramPair] return sockets with one
// peer; they send by [UnixDatagram.Write]. Its methods are those of [net.UnixConn], with a cx if
// they wait. LocalAddr, the deadlines, the buffer sizes, SyscallConn and File are the same as those
// of a [TCPConn].
//
// Messages are not lost and arrive in order. A sender waits while the queue of the receiver is
// full. A read takes one message. If the message is longer than p, the rest of it is lost.
// Cancelling a read loses no message, and a cancelled write has sent nothing.
//
// Errors are [*net.OpError]. They wrap [net.ErrClosed] after Close, [os.ErrDeadlineExceeded] after
// a deadline, and cx.Err() if cx is cancelled. [ErrPending] is not wrapped.
//
// Any number of tasks and goroutines may call the methods concurrently. A program must close its
// sockets.
type UnixDatagram struct {
	packetConn
	full pollRetry // wakes senders to a full queue; see pollSend
}

var _ PacketConn = (*UnixDatagram)(nil)

// newUnixDatagram returns a UnixDatagram without a socket.
func newUnixDatagram() *UnixDatagram {
	c := new(UnixDatagram)
	c.full.dir, c.full.first, c.full.last = &c.src.wr, receiverDelayMin, receiverDelayMax
	return c
}

// The delay after which a sender tries again to send to a receiver whose queue is full; see
// pollSend. It doubles from receiverDelayMin up to receiverDelayMax.
const (
	receiverDelayMin = time.Millisecond
	receiverDelayMax = 50 * time.Millisecond
)

// ListenUnixgram opens a socket to which other sockets can send at laddr, as [net.ListenUnixgram]
// does. It creates a file with the name of laddr. As in package net, Close leaves the file. On
// Linux a name that begins with @ is abstract: no file has this name. The error is a
// [*net.OpError].
func ListenUnixgram(network string, laddr *net.UnixAddr) (*UnixDatagram, error) {
	return new(socketSetup).listenUnixgram(network, laddr)
}

// listenUnixgram is ListenUnixgram with the settings of s.
func (s *socketSetup) listenUnixgram(name string, laddr *net.UnixAddr) (*UnixDatagram, error) {
	return s.bindUnixgram("listen", name, laddr)
}

// bindUnixgram opens a socket without a peer. For op see bindUnix.
func (s *socketSetup) bindUnixgram(op, name string, laddr *net.UnixAddr) (*UnixDatagram, error) {
	n, fd, err := s.bindUnix(op, "unixgram", name, laddr)
	if err != nil {
		return nil, err
	}
	c := newUnixDatagram()
	c.init(fd, n, n.localAddr(fd), nil)
	return c, nil
}

// DialUnixgram opens a socket whose only peer is raddr: it sends to raddr and receives from raddr
// alone. It does not wait. The peer can answer only if the socket has an address of its own, which
// is laddr. The error is a [*net.OpError].
//
// If raddr is nil or has no name, the socket has no peer, and is the same as a socket that
// [ListenUnixgram] returns for laddr.
func DialUnixgram(network string, laddr, raddr *net.UnixAddr) (*UnixDatagram, error) {
	if unixNamed(laddr) && !unixNamed(raddr) {
		return new(socketSetup).bindUnixgram("dial", network, laddr)
	}
	a, err := unixConnect("unixgram", network, laddr, raddr)
	if err == nil {
		err = a.connectNow()
	}
	if err != nil {
		return nil, err
	}
	return a.c.(*UnixDatagram), nil
}

// DatagramPair returns two sockets that are each other's peer. Their addresses have no names. The
// error is a [*net.OpError].
func DatagramPair() (a, b *UnixDatagram, err error) {
	a, b = newUnixDatagram(), newUnixDatagram()
	if err := socketPair("unixgram", &a.conn, &b.conn); err != nil {
		return nil, nil, err
	}
	return a, b, nil
}

// pollReadFrom is ReadFrom without waiting.
func (c *UnixDatagram) pollReadFrom(cx *Context, p []byte) (n int, addr net.Addr, err error) {
	return c.pollReadFromUnix(cx, p)
}

// pollReadFromUnix reads a message, or data of a stream, and returns the address of its sender, or
// nil if the sender has no address. The end of a stream is an io.EOF in a *net.OpError, as in
// package net.
func (c *conn) pollReadFromUnix(cx *Context, p []byte) (n int, addr net.Addr, err error) {
	var from unix.Sockaddr
	n, err = c.pollRead(cx, "recvfrom", func(fd int) (n int, exhausted bool, err error) {
		n, from, err = unix.Recvfrom(fd, p, unix.MSG_DONTWAIT)
		return n, false, err
	})
	if n == 0 && err == nil && !c.net.is(unix.SOCK_DGRAM) {
		err = c.wrapEnd(io.EOF)
	}
	return n, addrOrNil(c.unixAddr(from)), err
}

// wrapEnd wraps an io.EOF. Package net does so in the methods that return an address with the data.
func (c *conn) wrapEnd(err error) error {
	if err == io.EOF {
		return wrapOp("read", c.net, c.laddr, c.raddr, err)
	}
	return err
}

// readFromUnix awaits pollReadFromUnix.
func (c *conn) readFromUnix(cx *Context, p []byte) (n int, addr net.Addr, err error) {
	n, err = c.awaitRead(cx, func(cx *Context) (n int, err error) {
		n, addr, err = c.pollReadFromUnix(cx, p)
		return n, err
	})
	return n, addr, err
}

// asUnixAddr converts the address to a *net.UnixAddr, which is nil if addr is nil.
func asUnixAddr(n int, addr net.Addr, err error) (int, *net.UnixAddr, error) {
	from, _ := addr.(*net.UnixAddr)
	return n, from, err
}

// ReadFrom waits for a message, reads it into p, and returns the address of its sender: a
// *net.UnixAddr, or nil if the sender has no address. If the message is longer than p, the rest of
// it is lost. The error is a [*net.OpError], which wraps cx.Err() if cx is cancelled. Cancelling
// loses no message.
func (c *UnixDatagram) ReadFrom(cx *Context, p []byte) (n int, addr net.Addr, err error) {
	return c.readFromUnix(cx, p)
}

// ReadFromUnix is [UnixDatagram.ReadFrom] for callers that want a *net.UnixAddr.
func (c *UnixDatagram) ReadFromUnix(cx *Context, p []byte) (int, *net.UnixAddr, error) {
	return asUnixAddr(c.ReadFrom(cx, p))
}

// pollWriteTo is WriteTo without waiting.
func (c *UnixDatagram) pollWriteTo(cx *Context, p []byte, addr net.Addr) (int, error) {
	to, err := c.receiver(addr)
	if err != nil {
		return 0, cx.refused(err)
	}
	n, err := c.pollSend(cx, p, nil, to)
	return n, c.wrapTo("write", addr, callError("sendto", err))
}

// WriteTo sends p as one message to addr, a *net.UnixAddr, and waits while the queue of the
// receiver is full. The error is a [*net.OpError]. It wraps [net.ErrWriteToConnected] if the socket
// has a peer, and cx.Err() if cx is cancelled; then nothing was sent.
func (c *UnixDatagram) WriteTo(cx *Context, p []byte, addr net.Addr) (int, error) {
	to, err := c.receiver(addr)
	if err != nil {
		return 0, cx.refused(err)
	}
	n, err := c.awaitSendMsg(cx, p, nil, to)
	return n, c.wrapTo("write", addr, callError("sendto", err))
}

// WriteToUnix is [UnixDatagram.WriteTo] for callers that have a *net.UnixAddr.
func (c *UnixDatagram) WriteToUnix(cx *Context, p []byte, addr *net.UnixAddr) (int, error) {
	return c.WriteTo(cx, p, addr)
}

// awaitSendMsg awaits pollSend.
func (c *UnixDatagram) awaitSendMsg(cx *Context, p, oob []byte, to unix.Sockaddr) (int, error) {
	return c.awaitSend(cx, func(cx *Context) (int, error) { return c.pollSend(cx, p, oob, to) })
}

// pollSend sends p and ancillary data without waiting. The caller wraps the error.
//
// A full queue needs two ways to be woken:
//
//  1. There is an event when the receiver has read a message of this socket, which gives this
//     socket room.
//  2. There is no event if messages of other sockets have filled the queue of the receiver. So
//     after each failure c.full wakes one sender after a delay.
//
// With an address in to, the mark is 0: a full queue of one receiver says nothing about the queue
// of another, so the failure must not set fdNotWritable. ENOBUFS means a full queue on the BSDs.
func (c *UnixDatagram) pollSend(cx *Context, p, oob []byte, to unix.Sockaddr) (int, error) {
	full := false
	mark := c.src.notReadyBit(&c.src.wr)
	if to != nil {
		mark = 0
	}
	_, err := c.src.pollOpFor(cx, &c.src.wr, mark, func(fd int) (int, bool, error) {
		_, err := sendMsgTo(fd, p, oob, to)
		if full = err == unix.EAGAIN || err == unix.ENOBUFS; full {
			err = unix.EAGAIN
		}
		return 0, false, err
	})
	switch {
	case full:
		c.full.later(cx)
	case err == nil:
		c.full.succeeded()
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close closes the socket. Operations that wait fail with [net.ErrClosed]. Messages that were sent
// still arrive.
func (c *UnixDatagram) Close() error {
	err := c.packetConn.Close()
	c.full.stop()
	return err
}

// CloseRead shuts down the reading side, as in package net (see [net.UnixConn.CloseRead]): sends to
// this socket fail with EPIPE. Messages that have arrived can still be read. On Linux a read that
// finds no message waits until its deadline or Close, as in package net.
func (c *UnixDatagram) CloseRead() error { return c.shutdown(unix.SHUT_RD) }

// CloseWrite shuts down the writing side, as in package net (see [net.UnixConn.CloseWrite]): every
// later Write and WriteTo fails with EPIPE.
func (c *UnixDatagram) CloseWrite() error { return c.shutdown(unix.SHUT_WR) }

// receiver checks and translates the address to which a message is sent.
func (c *UnixDatagram) receiver(addr net.Addr) (unix.Sockaddr, error) {
	u, ok := addr.(*net.UnixAddr)
	if ok {
		addr = addrOrNil(u)
	}
	var err error
	switch {
	case !ok:
		err = syscall.EINVAL
	case c.connected():
		err = net.ErrWriteToConnected
	case u == nil:
		err = errMissingAddress
	case u.Net != c.net.title():
		err = syscall.EAFNOSUPPORT
	default:
		return &unix.SockaddrUnix{Name: u.Name}, nil
	}
	return nil, c.wrapTo("write", addr, err)
}

// boundUnixDatagram is the result of BindConn for a UnixDatagram.
type boundUnixDatagram struct {
	*UnixDatagram
	cx *Context
}

var _ net.PacketConn = (*boundUnixDatagram)(nil)

func (b *boundUnixDatagram) Read(p []byte) (int, error)  { return b.UnixDatagram.Read(b.cx, p) }
func (b *boundUnixDatagram) Write(p []byte) (int, error) { return b.UnixDatagram.Write(b.cx, p) }

func (b *boundUnixDatagram) ReadFrom(p []byte) (int, net.Addr, error) {
	return b.UnixDatagram.ReadFrom(b.cx, p)
}

func (b *boundUnixDatagram) ReadFromUnix(p []byte) (int, *net.UnixAddr, error) {
	return b.UnixDatagram.ReadFromUnix(b.cx, p)
}

func (b *boundUnixDatagram) WriteTo(p []byte, addr net.Addr) (int, error) {
	return b.UnixDatagram.WriteTo(b.cx, p, addr)
}

func (b *boundUnixDatagram) WriteToUnix(p []byte, addr *net.UnixAddr) (int, error) {
	return b.UnixDatagram.WriteToUnix(b.cx, p, addr)
}

func (b *boundUnixDatagram) ReadMsgUnix(p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	return b.UnixDatagram.ReadMsgUnix(b.cx, p, oob)
}

func (b *boundUnixDatagram) WriteMsgUnix(p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error) {
	return b.UnixDatagram.WriteMsgUnix(b.cx, p, oob, addr)
}

func (b *boundUnixDatagram) SyscallConn() (syscall.RawConn, error) { return b.rawConn(b.cx) }
