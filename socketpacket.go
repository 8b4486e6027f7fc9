package async

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// A PacketConn is a [Conn] that sends and receives messages: a [net.PacketConn] whose calls wait
// through a [Context]. [UDPConn] and [UnixDatagram] are PacketConns, and [ListenPacket] returns
// one. [BindConn] makes a net.PacketConn of a PacketConn.
//
// A message is sent whole or not at all. A read takes one message. If the message is longer than p,
// the rest of it is lost. The exception is a Read with an empty p, which returns at once and takes
// no message. Cancelling a read or a write loses no other message. Any number of tasks and
// goroutines may call the methods concurrently.
//
// The errors of the types of this package are [*net.OpError]. They wrap [net.ErrClosed] after
// Close, [os.ErrDeadlineExceeded] after a deadline, and cx.Err() if cx is cancelled.
type PacketConn interface {
	Conn

	// ReadFrom waits for a message, reads it into p, and returns the address of its sender. The
	// error is a [*net.OpError]. Cancelling it loses no message.
	ReadFrom(cx *Context, p []byte) (n int, addr net.Addr, err error)

	// WriteTo sends p as one message to addr. It waits while the system has no room. The error is a
	// [*net.OpError]. If it is cancelled, it has sent nothing.
	WriteTo(cx *Context, p []byte, addr net.Addr) (n int, err error)
}

// packetConn is the common part of UDPConn and UnixDatagram.
type packetConn struct{ conn }

// PollRead is Read without waiting: it returns [ErrPending] if there is no message, and keeps the
// waker of cx. An empty p is ready at once, and takes no message. Every other error is a
// [*net.OpError].
func (c *packetConn) PollRead(cx *Context, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, c.wrap("read", c.src.checkOpen())
	}
	return c.pollRead(cx, "read", func(fd int) (int, bool, error) {
		n, err := recv(fd, p, 0)
		return n, false, err
	})
}

// pollPeek is Peek without waiting.
func (c *packetConn) pollPeek(cx *Context, p []byte) (int, error) {
	return c.pollRead(cx, "recvfrom", func(fd int) (int, bool, error) {
		n, err := recv(fd, p, unix.MSG_PEEK)
		return n, false, err
	})
}

// pollRecv reads one message without waiting, and sets from to its sender.
func (c *packetConn) pollRecv(cx *Context, p []byte, flags int, from *netip.AddrPort) (int, error) {
	return c.pollRead(cx, "recvfrom", func(fd int) (n int, exhausted bool, err error) {
		n, *from, err = recvFrom(fd, p, flags)
		return n, false, err
	})
}

// PollWrite is Write without waiting: it returns [ErrPending] if the system has no room, and keeps
// the waker of cx. Every other error is a [*net.OpError]. An empty p is sent as an empty message.
func (c *packetConn) PollWrite(cx *Context, p []byte) (int, error) {
	return c.pollWrite(cx, "write", func(fd int) (int, bool, error) {
		n, err := send(fd, p)
		return n, false, err
	})
}

// Read waits for a message from any sender, or from the peer if there is one, and reads it into p.
// If the message is longer than p, the rest of it is lost. An empty p is ready at once, and takes
// no message. The error is a [*net.OpError], which wraps cx.Err() if cx is cancelled. Cancelling
// loses no message.
func (c *packetConn) Read(cx *Context, p []byte) (int, error) {
	return c.awaitRead(cx, func(cx *Context) (int, error) { return c.PollRead(cx, p) })
}

// Peek is Read, but leaves the message in the socket, so that the next read returns it again. Its
// errors are those of Read: a [*net.OpError], which wraps cx.Err() if cx is cancelled.
func (c *packetConn) Peek(cx *Context, p []byte) (int, error) {
	return c.awaitRead(cx, func(cx *Context) (int, error) { return c.pollPeek(cx, p) })
}

// Write sends p as one message to the peer of a socket that was dialled. It waits while the system
// has no room. The error is a [*net.OpError], which wraps cx.Err() if cx is cancelled; then nothing
// was sent.
func (c *packetConn) Write(cx *Context, p []byte) (int, error) {
	return c.awaitWrite(cx, func(cx *Context) (int, error) { return c.PollWrite(cx, p) })
}

// connected reports whether the socket has a peer.
func (c *packetConn) connected() bool { return c.raddr != nil }

// A Message is one message of [UDPConn.ReadBatch] or [UDPConn.WriteBatch]. Its fields are those of
// the Message in golang.org/x/net/ipv4 and golang.org/x/net/ipv6. The program must not change an
// address that ReadBatch has set.
type Message struct {
	Buffers [][]byte // the data to send, or the memory for received data; they are used in order
	OOB     []byte   // the ancillary data to send, or the memory for received ancillary data
	Addr    net.Addr // the receiver, nil for the peer; or the sender, a *net.UDPAddr
	N       int      // the number of bytes that were sent or received
	NN      int      // the number of bytes of ancillary data that were sent or received
	Flags   int      // the flags of a received message, from recvmsg(2)
}

// from sets the sender of a received message. Senders often repeat, so from keeps an Addr that is
// right already, which saves an allocation.
func (m *Message) from(a netip.AddrPort) {
	if old, ok := m.Addr.(*net.UDPAddr); ok && old != nil && old.AddrPort() == a {
		return
	}
	m.Addr = nil
	if a.IsValid() {
		m.Addr = net.UDPAddrFromAddrPort(a)
	}
}

// to returns the address to which m is sent. The zero AddrPort means the peer of the socket.
func (m *Message) to(v6 bool) (a netip.AddrPort, err error) {
	if m.Addr == nil {
		return a, nil
	}
	if a, err = udpAddrPort(m.Addr, v6); err == nil {
		err = reachable(a, v6)
	}
	return a, err
}

// udpAddrPort translates an address to which the program sends, for a socket of this family. As in
// package net, the wildcard address means this host. It may be written as 0.0.0.0, :: or an empty
// IP, and becomes the wildcard of the socket's family.
func udpAddrPort(addr net.Addr, v6 bool) (a netip.AddrPort, err error) {
	u, ok := addr.(*net.UDPAddr)
	switch {
	case !ok:
		return a, syscall.EINVAL
	case u == nil:
		return a, errMissingAddress
	}
	ip, ok := netip.AddrFromSlice(u.IP)
	switch {
	case len(u.IP) == 0:
		ip = netip.IPv4Unspecified()
	case !ok && v6:
		return a, &net.AddrError{Err: "non-IPv6 address", Addr: u.IP.String()}
	case !ok:
		return a, &net.AddrError{Err: "non-IPv4 address", Addr: u.IP.String()}
	case u.Port < 0 || u.Port > 65535:
		return a, &net.AddrError{Err: "invalid port", Addr: u.String()}
	}
	if v6 && ip.Unmap() == netip.IPv4Unspecified() {
		ip = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(ip.WithZone(u.Zone), uint16(u.Port)), nil
}

// reachable returns an error if a socket of this family cannot send to a.
func reachable(a netip.AddrPort, v6 bool) error {
	if ip := a.Addr(); !v6 && !ip.Is4() && !ip.Is4In6() {
		return &net.AddrError{Err: "non-IPv4 address", Addr: ip.String()}
	}
	return nil
}

// addrPortOf translates an address that the kernel returned. If it is of neither IPv4 nor IPv6, the
// result is the zero AddrPort, which is invalid.
func addrPortOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).WithZone(zoneName(sa.ZoneId)), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// sockaddrOf translates an address for a system call on a socket of this family.
func sockaddrOf(a netip.AddrPort, v6 bool) (unix.Sockaddr, error) {
	if !v6 {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, nil
	}
	zone, err := zoneIndex(a.Addr().Zone())
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: zone}, err
}
