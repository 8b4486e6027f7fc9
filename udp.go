package async

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// UDPConn is a UDP socket. [ListenUDP] returns a socket that receives from any sender; it sends by
// [UDPConn.WriteTo] and the like. [DialUDP] returns a socket with one peer; it sends by
// [UDPConn.Write]. Its methods are those of [net.UDPConn], with a cx if they wait, and some more:
// Peek and Poll methods, batches, and multicast groups. LocalAddr, the deadlines, the buffer sizes,
// SyscallConn and File are the same as those of a [TCPConn].
//
// Errors are [*net.OpError]. They wrap [net.ErrClosed] after Close, [os.ErrDeadlineExceeded] after
// a deadline, and cx.Err() if cx is cancelled. [ErrPending] is not wrapped.
//
// A read takes one message. If the message is longer than p, the rest of it is lost. Cancelling a
// read loses no message, and a cancelled write has sent nothing.
//
// Any number of tasks and goroutines may call the methods concurrently. As with a [TCPConn], it is
// cheapest if one task uses a socket. A program must close its sockets.
type UDPConn struct{ packetConn }

var _ PacketConn = (*UDPConn)(nil)

// ListenUDP opens a socket on laddr, as [net.ListenUDP] does. A nil laddr, or an address without an
// IP, is the wildcard address; for the network "udp" it is that of both families. Port 0 means a
// port that the system chooses. The error is a [*net.OpError].
//
// If laddr is the address of a multicast group, the socket has the wildcard address, may share its
// port with other sockets, and still has to join the group by [UDPConn.JoinGroup].
// [ListenMulticastUDP] does both.
func ListenUDP(network string, laddr *net.UDPAddr) (*UDPConn, error) {
	return new(socketSetup).listenUDP(network, laddr)
}

func (s *socketSetup) listenUDP(name string, laddr *net.UDPAddr) (*UDPConn, error) {
	if laddr == nil {
		laddr = new(net.UDPAddr)
	}
	n, err := networkOf(name, "udp")
	if err != nil {
		return nil, wrapOp("listen", unnamed(name), nil, laddr, err)
	}
	setup, at := *s, *laddr
	if at.IP.IsMulticast() {
		// As in package net: messages to a group arrive at the wildcard address of its family.
		// Several programs may receive them, so they share the port.
		setup.reuseAddr = true
		n, at.IP = multicastWildcard(n, at.IP)
	}
	fd, err := setup.listen(n, &at)
	if err != nil {
		return nil, wrapOp("listen", n, nil, laddr, err)
	}
	c := new(UDPConn)
	c.init(fd, n, n.localAddr(fd), nil)
	return c, nil
}

// DialUDP opens a socket whose only peer is raddr: it sends to raddr and receives from raddr alone,
// as [net.DialUDP] does. The local address is laddr, or one that the system chooses if laddr is
// nil. It does not wait. The error is a [*net.OpError].
func DialUDP(network string, laddr, raddr *net.UDPAddr) (*UDPConn, error) {
	n, err := networkOf(network, "udp")
	if err == nil && raddr == nil {
		err = errMissingAddress
	}
	if err != nil {
		return nil, wrapOp("dial", unnamed(network), addrOrNil(laddr), addrOrNil(raddr), err)
	}
	a := connectFuture{setup: new(socketSetup), net: n, laddr: addrOrNil(laddr), raddr: raddr}
	if err := a.connectNow(); err != nil {
		return nil, err
	}
	return a.c.(*UDPConn), nil
}

// v6 reports whether the socket is an IPv6 socket.
func (c *UDPConn) v6() bool {
	a, ok := c.laddr.(*net.UDPAddr)
	return ok && len(a.IP) == net.IPv6len
}

// pollReadFromUDPAddrPort is ReadFromUDPAddrPort without waiting.
func (c *UDPConn) pollReadFromUDPAddrPort(cx *Context, p []byte) (n int, addr netip.AddrPort, err error) {
	n, err = c.pollRecv(cx, p, 0, &addr)
	return n, addr, err
}

// ReadFromUDPAddrPort is [UDPConn.ReadFrom] without an allocation: the address is a
// [net/netip.AddrPort]. A socket of both families returns an IPv4 address in its IPv4-mapped IPv6
// form; see [net/netip.Addr.Unmap].
func (c *UDPConn) ReadFromUDPAddrPort(cx *Context, p []byte) (n int, addr netip.AddrPort, err error) {
	n, err = c.awaitRead(cx, func(cx *Context) (int, error) { return c.pollRecv(cx, p, 0, &addr) })
	return n, addr, err
}

// pollReadFrom is ReadFrom without waiting.
func (c *UDPConn) pollReadFrom(cx *Context, p []byte) (int, net.Addr, error) {
	return c.sender(c.pollReadFromUDPAddrPort(cx, p))
}

// ReadFrom waits for a message, reads it into p, and returns the address of its sender, a
// *net.UDPAddr. If the message is longer than p, the rest of it is lost. The error is a
// [*net.OpError], which wraps cx.Err() if cx is cancelled. Cancelling loses no message.
func (c *UDPConn) ReadFrom(cx *Context, p []byte) (int, net.Addr, error) {
	return c.sender(c.ReadFromUDPAddrPort(cx, p))
}

// ReadFromUDP is [UDPConn.ReadFrom] for callers that want a *net.UDPAddr.
func (c *UDPConn) ReadFromUDP(cx *Context, p []byte) (int, *net.UDPAddr, error) {
	return udpSender(c.ReadFromUDPAddrPort(cx, p))
}

// udpSender makes a *net.UDPAddr of the sender of a message.
func udpSender(n int, addr netip.AddrPort, err error) (int, *net.UDPAddr, error) {
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(addr), nil
}

// pollPeekFrom is PeekFrom without waiting.
func (c *UDPConn) pollPeekFrom(cx *Context, p []byte) (int, net.Addr, error) {
	var addr netip.AddrPort
	n, err := c.pollRecv(cx, p, unix.MSG_PEEK, &addr)
	return c.sender(n, addr, err)
}

// PeekFrom is [UDPConn.ReadFrom], but leaves the message in the socket, so that the next read
// returns it again.
func (c *UDPConn) PeekFrom(cx *Context, p []byte) (int, net.Addr, error) {
	var addr netip.AddrPort
	n, err := c.awaitRead(cx, func(cx *Context) (int, error) { return c.pollRecv(cx, p, unix.MSG_PEEK, &addr) })
	return c.sender(n, addr, err)
}

// sender is udpSender for callers that want a net.Addr. After an error the net.Addr is nil, and not
// a nil *net.UDPAddr.
func (c *UDPConn) sender(n int, addr netip.AddrPort, err error) (int, net.Addr, error) {
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(addr), nil
}

// pollWriteToUDPAddrPort is WriteToUDPAddrPort without waiting.
func (c *UDPConn) pollWriteToUDPAddrPort(cx *Context, p []byte, addr netip.AddrPort) (int, error) {
	n, err := c.pollSend(cx, p, addr)
	return n, c.wrapSend(addr, err)
}

// WriteToUDPAddrPort is [UDPConn.WriteTo] without an allocation: the address is a
// [net/netip.AddrPort].
func (c *UDPConn) WriteToUDPAddrPort(cx *Context, p []byte, addr netip.AddrPort) (int, error) {
	n, err := c.send(cx, p, addr)
	return n, c.wrapSend(addr, err)
}

// wrapSend wraps an error of a message to addr. It makes a net.Addr of addr only for an error,
// because that is an allocation.
func (c *UDPConn) wrapSend(addr netip.AddrPort, err error) error {
	if err == nil || err == ErrPending {
		return err
	}
	return c.wrapTo("write", addrPortUDPAddr{addr}, err)
}

// addrPortUDPAddr is a netip.AddrPort as the address of an error.
type addrPortUDPAddr struct{ netip.AddrPort }

func (addrPortUDPAddr) Network() string { return "udp" }

// pollSend sends p to addr without waiting. The caller wraps the error.
func (c *UDPConn) pollSend(cx *Context, p []byte, addr netip.AddrPort) (int, error) {
	if err := c.maySend(addr); err != nil {
		return 0, cx.refused(err)
	}
	_, err := c.src.pollOp(cx, &c.src.wr, func(fd int) (int, bool, error) {
		return 0, false, sendTo(fd, p, c.v6(), addr)
	})
	if err != nil {
		return 0, callError("sendto", err)
	}
	return len(p), nil
}

// send awaits pollSend.
func (c *UDPConn) send(cx *Context, p []byte, addr netip.AddrPort) (int, error) {
	return c.awaitSend(cx, func(cx *Context) (int, error) { return c.pollSend(cx, p, addr) })
}

// maySend returns an error if the socket cannot send to addr: it has a peer already, addr is the
// zero value, or addr is of a family that the socket does not reach.
func (c *UDPConn) maySend(addr netip.AddrPort) error {
	switch {
	case c.connected():
		return net.ErrWriteToConnected
	case !addr.IsValid():
		return errMissingAddress
	}
	return reachable(addr, c.v6())
}

// pollWriteTo is WriteTo without waiting.
func (c *UDPConn) pollWriteTo(cx *Context, p []byte, addr net.Addr) (int, error) {
	return c.writeTo(cx, addr, func(a netip.AddrPort) (int, error) { return c.pollSend(cx, p, a) })
}

// WriteTo sends p as one message to addr, a *net.UDPAddr, and waits while the system has no room.
// The error is a [*net.OpError]. It wraps [net.ErrWriteToConnected] if the socket has a peer, and
// cx.Err() if cx is cancelled; then nothing was sent.
func (c *UDPConn) WriteTo(cx *Context, p []byte, addr net.Addr) (int, error) {
	return c.writeTo(cx, addr, func(a netip.AddrPort) (int, error) { return c.send(cx, p, a) })
}

// WriteToUDP is [UDPConn.WriteTo] for callers that have a *net.UDPAddr.
func (c *UDPConn) WriteToUDP(cx *Context, p []byte, addr *net.UDPAddr) (int, error) {
	return c.WriteTo(cx, p, addr)
}

// writeTo checks and translates addr, and calls send with it.
func (c *UDPConn) writeTo(cx *Context, addr net.Addr, send func(netip.AddrPort) (int, error)) (n int, err error) {
	a, err := udpAddrPort(addr, c.v6())
	u, ok := addr.(*net.UDPAddr)
	if ok {
		addr = addrOrNil(u)
	}
	switch {
	case ok && c.connected():
		err = cx.refused(net.ErrWriteToConnected)
	case err != nil:
		err = cx.refused(err)
	default:
		n, err = send(a)
	}
	return n, c.wrapTo("write", addr, err)
}

// pollReadMsgUDPAddrPort is ReadMsgUDPAddrPort without waiting.
func (c *UDPConn) pollReadMsgUDPAddrPort(cx *Context, p, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error) {
	n, oobn, flags, sa, err := c.pollReadMsg(cx, p, oob)
	return n, oobn, flags &^ msgCloexec, addrPortOf(sa), err
}

// ReadMsgUDPAddrPort is [UDPConn.ReadFromUDPAddrPort] for a message with ancillary data, which it
// reads into oob. oobn is the size of the ancillary data in bytes, and flags are those that
// recvmsg(2) returns for the message.
func (c *UDPConn) ReadMsgUDPAddrPort(cx *Context, p, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error) {
	n, oobn, flags, sa, err := c.readMsg(cx, p, oob)
	return n, oobn, flags &^ msgCloexec, addrPortOf(sa), err
}

// ReadMsgUDP is [UDPConn.ReadMsgUDPAddrPort] for callers that want a *net.UDPAddr.
func (c *UDPConn) ReadMsgUDP(cx *Context, p, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	return udpMsgSender(c.ReadMsgUDPAddrPort(cx, p, oob))
}

// udpMsgSender is udpSender for messages with ancillary data.
func udpMsgSender(n, oobn, flags int, from netip.AddrPort, err error) (int, int, int, *net.UDPAddr, error) {
	if !from.IsValid() {
		return n, oobn, flags, nil, err
	}
	return n, oobn, flags, net.UDPAddrFromAddrPort(from), err
}

// pollWriteMsgUDPAddrPort is WriteMsgUDPAddrPort without waiting.
func (c *UDPConn) pollWriteMsgUDPAddrPort(cx *Context, p, oob []byte, addr netip.AddrPort) (n, oobn int, err error) {
	return c.writeMsgTo(cx, p, oob, addr, addrPortUDPAddr{addr}, c.pollWriteMsg)
}

// WriteMsgUDPAddrPort is [UDPConn.WriteToUDPAddrPort] for a message with the ancillary data oob. If
// the socket has a peer, addr is the zero value. It returns the number of bytes of p and of oob
// that were sent.
func (c *UDPConn) WriteMsgUDPAddrPort(cx *Context, p, oob []byte, addr netip.AddrPort) (n, oobn int, err error) {
	return c.writeMsgTo(cx, p, oob, addr, addrPortUDPAddr{addr}, c.awaitWriteMsg)
}

// WriteMsgUDP is [UDPConn.WriteMsgUDPAddrPort] for callers that have a *net.UDPAddr. If the socket
// has a peer, addr is nil.
func (c *UDPConn) WriteMsgUDP(cx *Context, p, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	return c.writeMsgUDP(cx, p, oob, addr, c.awaitWriteMsg)
}

// writeMsgUDP checks and translates addr, and calls writeMsgTo with it.
func (c *UDPConn) writeMsgUDP(cx *Context, p, oob []byte, addr *net.UDPAddr, send sendMsg) (n, oobn int, err error) {
	var to netip.AddrPort
	switch {
	case addr == nil:
		return c.writeMsgTo(cx, p, oob, to, nil, send)
	case c.connected():
		err = net.ErrWriteToConnected
	default:
		to, err = udpAddrPort(addr, c.v6())
	}
	if err != nil {
		return 0, 0, c.wrapTo("write", addr, cx.refused(err))
	}
	return c.writeMsgTo(cx, p, oob, to, addr, send)
}

// writeMsgTo checks and translates addr, and sends the message by send. If addr is not valid, the
// message goes to the peer of the socket. dst is the address for an error.
func (c *UDPConn) writeMsgTo(cx *Context, p, oob []byte, addr netip.AddrPort, dst net.Addr, send sendMsg) (n, oobn int, err error) {
	var to unix.Sockaddr
	switch {
	case addr.IsValid():
		if err = c.maySend(addr); err == nil {
			to, err = sockaddrOf(addr, c.v6())
		}
	case !c.connected():
		err = errMissingAddress
	}
	if err != nil {
		return 0, 0, c.wrapTo("write", dst, cx.refused(err))
	}
	return c.writeMsg(cx, p, oob, to, dst, send)
}

// pollReadBatch is ReadBatch without waiting.
func (c *UDPConn) pollReadBatch(cx *Context, ms []Message, flags int) (int, error) {
	ms = ms[:min(len(ms), maxBatch)]
	if len(ms) == 0 {
		return 0, c.wrap("read", c.src.checkOpen())
	}
	return c.pollRead(cx, "recvmmsg", func(fd int) (int, bool, error) {
		n, err := recvBatch(fd, ms, flags)
		return n, false, err
	})
}

// ReadBatch waits until at least one message is available, reads the available messages into ms,
// and returns their number: at most len(ms), at most 1024 on Linux, where it makes one system call,
// and at most 64 on other systems. flags are passed to recvmsg(2). The error is a [*net.OpError],
// which wraps cx.Err() if cx is cancelled. Cancelling loses no message.
//
// The caller may pass the same ms again: Buffers and OOB are not changed, and Addr is reused if the
// sender is the same.
func (c *UDPConn) ReadBatch(cx *Context, ms []Message, flags int) (int, error) {
	return c.awaitRead(cx, func(cx *Context) (int, error) { return c.pollReadBatch(cx, ms, flags) })
}

// pollWriteBatch sends as many messages as the system has room for, and returns their number. It
// returns ErrPending if there is room for none.
func (c *UDPConn) pollWriteBatch(cx *Context, ms []Message, flags int) (int, error) {
	ms = ms[:min(len(ms), maxBatch)]
	if len(ms) == 0 {
		return 0, c.wrap("write", c.src.checkOpen())
	}
	return c.pollWrite(cx, "sendmmsg", func(fd int) (int, bool, error) {
		n, err := sendBatch(fd, ms, c.v6(), flags)
		return n, false, err
	})
}

// WriteBatch sends all messages, and returns the number of messages that it has sent, which is less
// than len(ms) only if there is an error. On Linux one system call sends as many messages as the
// system has room for. flags are passed to sendmsg(2). The error is a [*net.OpError] about the
// first message that was not sent; it wraps cx.Err() if cx is cancelled.
func (c *UDPConn) WriteBatch(cx *Context, ms []Message, flags int) (n int, err error) {
	for {
		m, err := c.awaitWrite(cx, func(cx *Context) (int, error) { return c.pollWriteBatch(cx, ms[n:], flags) })
		n += m
		if err != nil || n == len(ms) {
			return n, err
		}
	}
}

// Close closes the socket. Operations that wait fail with [net.ErrClosed]. The system still sends
// messages that were written, and drops messages that were not read.
func (c *UDPConn) Close() error { return c.packetConn.Close() }

// boundUDPConn is the result of BindConn for a UDPConn.
type boundUDPConn struct {
	*UDPConn
	cx *Context
}

var _ net.PacketConn = (*boundUDPConn)(nil)

func (b *boundUDPConn) Read(p []byte) (int, error)  { return b.UDPConn.Read(b.cx, p) }
func (b *boundUDPConn) Write(p []byte) (int, error) { return b.UDPConn.Write(b.cx, p) }

func (b *boundUDPConn) ReadFrom(p []byte) (int, net.Addr, error) {
	return b.UDPConn.ReadFrom(b.cx, p)
}

func (b *boundUDPConn) ReadFromUDP(p []byte) (int, *net.UDPAddr, error) {
	return b.UDPConn.ReadFromUDP(b.cx, p)
}

func (b *boundUDPConn) ReadFromUDPAddrPort(p []byte) (int, netip.AddrPort, error) {
	return b.UDPConn.ReadFromUDPAddrPort(b.cx, p)
}

func (b *boundUDPConn) ReadMsgUDP(p, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	return b.UDPConn.ReadMsgUDP(b.cx, p, oob)
}

func (b *boundUDPConn) ReadMsgUDPAddrPort(p, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error) {
	return b.UDPConn.ReadMsgUDPAddrPort(b.cx, p, oob)
}

func (b *boundUDPConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	return b.UDPConn.WriteTo(b.cx, p, addr)
}

func (b *boundUDPConn) WriteToUDP(p []byte, addr *net.UDPAddr) (int, error) {
	return b.UDPConn.WriteToUDP(b.cx, p, addr)
}

func (b *boundUDPConn) WriteToUDPAddrPort(p []byte, addr netip.AddrPort) (int, error) {
	return b.UDPConn.WriteToUDPAddrPort(b.cx, p, addr)
}

func (b *boundUDPConn) WriteMsgUDP(p, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	return b.UDPConn.WriteMsgUDP(b.cx, p, oob, addr)
}

func (b *boundUDPConn) WriteMsgUDPAddrPort(p, oob []byte, addr netip.AddrPort) (n, oobn int, err error) {
	return b.UDPConn.WriteMsgUDPAddrPort(b.cx, p, oob, addr)
}

func (b *boundUDPConn) SyscallConn() (syscall.RawConn, error) { return b.rawConn(b.cx) }
