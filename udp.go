package async

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// UDPConn is a UDP socket: of ListenUDP, which receives from any sender and sends
// to the address that is passed, or of DialUDP, which has one peer. See PacketConn
// for the common rules of its methods.
//
// It is served by the worker of the task that first has to wait for it, and by no worker
// as long as only goroutines wait for it. It must be closed.
//
// Errors are *net.OpError; it wraps net.ErrClosed after Close,
// os.ErrDeadlineExceeded after a deadline, and cx.Err() if cx is cancelled.
// ErrPending is not wrapped.
type UDPConn struct{ packetConn }

var _ PacketConn = (*UDPConn)(nil)

// ListenUDP opens a socket on laddr, as net.ListenUDP does. A nil laddr, or
// an address without an IP, is the wildcard address, of both families for "udp"; port
// 0 is a port that the system chooses. For an address of a multicast group, which
// is then still to be joined, the port may be shared with other sockets. The error
// is a *net.OpError.
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
		// As in package net: messages to the group come to the wildcard
		// address of its family, which several programs may have.
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

// DialUDP opens a socket that sends to raddr and receives from it alone, from
// laddr if that is not nil, as net.DialUDP does. It does not wait. The error is
// a *net.OpError.
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

// ReadFromUDPAddrPort waits for a message and returns the address of its sender,
// without allocating. A socket of both families returns IPv4 addresses in their IPv6
// form; see netip.Addr.Unmap.
func (c *UDPConn) ReadFromUDPAddrPort(cx *Context, p []byte) (n int, addr netip.AddrPort, err error) {
	n, err = c.awaitRead(cx, func(cx *Context) (int, error) { return c.pollRecv(cx, p, 0, &addr) })
	return n, addr, err
}

// pollReadFrom is ReadFrom without waiting.
func (c *UDPConn) pollReadFrom(cx *Context, p []byte) (int, net.Addr, error) {
	return c.sender(c.pollReadFromUDPAddrPort(cx, p))
}

// ReadFrom waits for a message and returns the address of its sender, a *net.UDPAddr.
func (c *UDPConn) ReadFrom(cx *Context, p []byte) (int, net.Addr, error) {
	return c.sender(c.ReadFromUDPAddrPort(cx, p))
}

// ReadFromUDP is ReadFrom for callers that want a *net.UDPAddr.
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

// PeekFrom is ReadFrom, but the message stays there.
func (c *UDPConn) PeekFrom(cx *Context, p []byte) (int, net.Addr, error) {
	var addr netip.AddrPort
	n, err := c.awaitRead(cx, func(cx *Context) (int, error) { return c.pollRecv(cx, p, unix.MSG_PEEK, &addr) })
	return c.sender(n, addr, err)
}

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

// WriteToUDPAddrPort sends p to addr, without allocating. It waits as long as
// there is no room.
func (c *UDPConn) WriteToUDPAddrPort(cx *Context, p []byte, addr netip.AddrPort) (int, error) {
	n, err := c.send(cx, p, addr)
	return n, c.wrapSend(addr, err)
}

func (c *UDPConn) wrapSend(addr netip.AddrPort, err error) error {
	if err == nil || err == ErrPending {
		return err // without the address, which would be an allocation
	}
	return c.wrapTo("write", addrPortUDPAddr{addr}, err)
}

// addrPortUDPAddr is an address in an error.
type addrPortUDPAddr struct{ netip.AddrPort }

func (addrPortUDPAddr) Network() string { return "udp" }

// pollSend sends p; its error is still to be wrapped.
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

// maySend reports an error if addr can't be sent to.
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

// WriteTo sends p to addr, a *net.UDPAddr. It waits as long as there is no
// room.
func (c *UDPConn) WriteTo(cx *Context, p []byte, addr net.Addr) (int, error) {
	return c.writeTo(cx, addr, func(a netip.AddrPort) (int, error) { return c.send(cx, p, a) })
}

// WriteToUDP is WriteTo.
func (c *UDPConn) WriteToUDP(cx *Context, p []byte, addr *net.UDPAddr) (int, error) {
	return c.WriteTo(cx, p, addr)
}

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

// ReadMsgUDPAddrPort waits for a message and its ancillary data. oobn is the size
// of the ancillary data, flags are those of recvmsg(2).
func (c *UDPConn) ReadMsgUDPAddrPort(cx *Context, p, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error) {
	n, oobn, flags, sa, err := c.readMsg(cx, p, oob)
	return n, oobn, flags &^ msgCloexec, addrPortOf(sa), err
}

// ReadMsgUDP is ReadMsgUDPAddrPort for callers that want a *net.UDPAddr.
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

// WriteMsgUDPAddrPort sends p with ancillary data; addr is the zero value if
// the connection was dialled to its peer.
func (c *UDPConn) WriteMsgUDPAddrPort(cx *Context, p, oob []byte, addr netip.AddrPort) (n, oobn int, err error) {
	return c.writeMsgTo(cx, p, oob, addr, addrPortUDPAddr{addr}, c.awaitWriteMsg)
}

// WriteMsgUDP is WriteMsgUDPAddrPort; addr is nil if the connection was
// dialled to its peer.
func (c *UDPConn) WriteMsgUDP(cx *Context, p, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	return c.writeMsgUDP(cx, p, oob, addr, c.awaitWriteMsg)
}

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

// ReadBatch waits for a message and reads it, and all messages that are there after it,
// into ms, as far as ms has room; it returns their number. On Linux that is one
// system call. flags are those of recvmsg(2). Buffers, OOB and Addr of a
// message can be used again for the next batch as they are.
func (c *UDPConn) ReadBatch(cx *Context, ms []Message, flags int) (int, error) {
	return c.awaitRead(cx, func(cx *Context) (int, error) { return c.pollReadBatch(cx, ms, flags) })
}

// pollWriteBatch sends as many messages as there is room for, and returns how
// many, or ErrPending if there is room for none.
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

// WriteBatch sends all messages, unless it fails or is cancelled, and returns
// how many it has sent. On Linux one system call sends as many messages as there is
// room for. flags are those of sendmsg(2).
func (c *UDPConn) WriteBatch(cx *Context, ms []Message, flags int) (n int, err error) {
	for {
		m, err := c.awaitWrite(cx, func(cx *Context) (int, error) { return c.pollWriteBatch(cx, ms[n:], flags) })
		n += m
		if err != nil || n == len(ms) {
			return n, err
		}
	}
}

// Close closes the socket. Operations that wait for it fail with [net.ErrClosed]. The
// system still sends messages that were written, and drops those that were not read.
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
