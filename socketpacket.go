package async

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// A PacketConn is a net.PacketConn whose calls wait through a Context. [BindConn] makes a
// net.PacketConn of it. Any number of tasks and goroutines may use it at once.
//
// A message is sent whole or not at all, and a read takes one message: the bytes that p
// has no room for are lost. Cancelling either loses nothing.
//
// Errors of the types of this package are *net.OpError; it wraps net.ErrClosed after
// Close, os.ErrDeadlineExceeded after a deadline, and cx.Err() if cx is cancelled.
type PacketConn interface {
	Conn

	// ReadFrom waits for a message and returns the address of its sender.
	ReadFrom(cx *Context, p []byte) (n int, addr net.Addr, err error)

	// WriteTo sends p to addr. It waits as long as there is no room.
	WriteTo(cx *Context, p []byte, addr net.Addr) (n int, err error)
}

// packetConn is the part that connections of datagrams share.
type packetConn struct{ conn }

// PollRead reads one message, from any sender. It returns ErrPending if
// there is none, and at once if p is empty.
func (c *packetConn) PollRead(cx *Context, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, c.wrap("read", c.src.checkOpen())
	}
	return c.pollRead(cx, "read", func(fd int) (int, bool, error) {
		n, err := recv(fd, p, 0)
		return n, false, err
	})
}

// pollPeek is PollRead, but the message stays there.
func (c *packetConn) pollPeek(cx *Context, p []byte) (int, error) {
	return c.pollRead(cx, "recvfrom", func(fd int) (int, bool, error) {
		n, err := recv(fd, p, unix.MSG_PEEK)
		return n, false, err
	})
}

func (c *packetConn) pollRecv(cx *Context, p []byte, flags int, from *netip.AddrPort) (int, error) {
	return c.pollRead(cx, "recvfrom", func(fd int) (n int, exhausted bool, err error) {
		n, *from, err = recvFrom(fd, p, flags)
		return n, false, err
	})
}

// PollWrite sends p, also if it is empty, to the peer that the connection was
// dialled to. It returns ErrPending if there is no room.
func (c *packetConn) PollWrite(cx *Context, p []byte) (int, error) {
	return c.pollWrite(cx, "write", func(fd int) (int, bool, error) {
		n, err := send(fd, p)
		return n, false, err
	})
}

// Read waits for a message, from any sender, and reads it into p. The bytes that p
// has no room for are lost. Cancelling it loses nothing.
func (c *packetConn) Read(cx *Context, p []byte) (int, error) {
	return c.awaitRead(cx, func(cx *Context) (int, error) { return c.PollRead(cx, p) })
}

// Peek is Read, but the message stays there.
func (c *packetConn) Peek(cx *Context, p []byte) (int, error) {
	return c.awaitRead(cx, func(cx *Context) (int, error) { return c.pollPeek(cx, p) })
}

// Write sends p as one message to the peer that the connection was dialled to.
// It waits as long as there is no room. Cancelled, it has sent nothing.
func (c *packetConn) Write(cx *Context, p []byte) (int, error) {
	return c.awaitWrite(cx, func(cx *Context) (int, error) { return c.PollWrite(cx, p) })
}

// connected reports whether the connection was dialled to a peer.
func (c *packetConn) connected() bool { return c.raddr != nil }

// A Message is one message of a batch, in the shape that golang.org/x/net's
// ipv4 and ipv6 packages have.
type Message struct {
	Buffers [][]byte // the data to send, or the memory for received data, one after the other
	OOB     []byte   // the same for ancillary data
	Addr    net.Addr // the receiver, nil for the peer; or the sender: a *net.UDPAddr, which must not be changed
	N       int      // the number of bytes that were sent or received
	NN      int      // the same for ancillary data
	Flags   int      // of a received message
}

// from sets the sender. If the last message came from the same sender, m has the address
// already.
func (m *Message) from(a netip.AddrPort) {
	if old, ok := m.Addr.(*net.UDPAddr); ok && old != nil && old.AddrPort() == a {
		return
	}
	m.Addr = nil
	if a.IsValid() {
		m.Addr = net.UDPAddrFromAddrPort(a)
	}
}

// to returns the address to send to; an invalid address is the peer's.
func (m *Message) to(v6 bool) (a netip.AddrPort, err error) {
	if m.Addr == nil {
		return a, nil
	}
	if a, err = udpAddrPort(m.Addr, v6); err == nil {
		err = reachable(a, v6)
	}
	return a, err
}

// udpAddrPort translates the address that a program passed to send to with a
// socket of this family. As in package net, the wildcard is this host, and of
// the socket's family however it is written.
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

// reachable reports an error if a socket of this family can't send to a.
func reachable(a netip.AddrPort, v6 bool) error {
	if ip := a.Addr(); !v6 && !ip.Is4() && !ip.Is4In6() {
		return &net.AddrError{Err: "non-IPv4 address", Addr: ip.String()}
	}
	return nil
}

// addrPortOf translates an address of the kernel's; the result is invalid if that is
// an address of neither IPv4 nor IPv6.
func addrPortOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).WithZone(zoneName(sa.ZoneId)), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// sockaddrOf translates an address for a socket of this family.
func sockaddrOf(a netip.AddrPort, v6 bool) (unix.Sockaddr, error) {
	if !v6 {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, nil
	}
	zone, err := zoneIndex(a.Addr().Zone())
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: zone}, err
}
