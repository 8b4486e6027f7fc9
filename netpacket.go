package async

import (
	"net"
	"net/netip"
	"syscall"
)

// The types below are the forms of datagram sockets for goroutines; see netSide for how a call
// waits. Read and Write are as in netconn.go. Every other method is one system call for one
// message: netSide.until repeats it while the poll is pending, and the function that is passed to
// until assigns the results to the named results of the method.

// netPacketConn is the result of NetConn for a datagram socket of another package. Each call is a
// BlockOn of the method of that socket.
type netPacketConn struct {
	PacketConn
	sides netSides
}

func (c *netPacketConn) Read(p []byte) (int, error) {
	return c.sides.rd.call("Read of a NetConn", func(cx *Context) (int, error) { return c.PacketConn.Read(cx, p) })
}

func (c *netPacketConn) Write(p []byte) (int, error) {
	return c.sides.wr.call("Write of a NetConn", func(cx *Context) (int, error) { return c.PacketConn.Write(cx, p) })
}

func (c *netPacketConn) ReadFrom(p []byte) (n int, addr net.Addr, err error) {
	n, err = c.sides.rd.call("ReadFrom of a NetConn", func(cx *Context) (n int, err error) {
		n, addr, err = c.PacketConn.ReadFrom(cx, p)
		return n, err
	})
	return n, addr, err
}

func (c *netPacketConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	return c.sides.wr.call("WriteTo of a NetConn", func(cx *Context) (int, error) { return c.PacketConn.WriteTo(cx, p, addr) })
}

// netUDPConn is the result of NetConn for a UDPConn. The methods below hide the promoted methods of
// the same name, which take a cx. Promoted methods that package net does not have are not hidden:
// some of them take a cx and wait, for example ReadBatch.
type netUDPConn struct {
	*UDPConn
	sides netSides
}

var _ interface {
	net.PacketConn
	syscall.Conn
} = (*netUDPConn)(nil)

func (c *netUDPConn) Read(p []byte) (int, error)  { return c.sides.rd.read(c.UDPConn, p) }
func (c *netUDPConn) Write(p []byte) (int, error) { return c.sides.wr.write(c.UDPConn, p) }

func (c *netUDPConn) ReadFrom(p []byte) (int, net.Addr, error) {
	return c.sides.readFrom(c.pollReadFrom, p)
}

func (c *netUDPConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	return c.sides.writeTo(c.pollWriteTo, p, addr)
}

// ReadFromUDP is ReadFromUDPAddrPort with another type of address, as ReadMsgUDP is
// ReadMsgUDPAddrPort.
func (c *netUDPConn) ReadFromUDP(p []byte) (int, *net.UDPAddr, error) {
	return udpSender(c.ReadFromUDPAddrPort(p))
}

// WriteToUDP passes a nil addr on as a nil pointer in an interface. WriteTo then fails with
// errMissingAddress, as package net does.
func (c *netUDPConn) WriteToUDP(p []byte, addr *net.UDPAddr) (int, error) { return c.WriteTo(p, addr) }

func (c *netUDPConn) ReadMsgUDP(p, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	return udpMsgSender(c.ReadMsgUDPAddrPort(p, oob))
}

// WriteMsgUDP sends to the peer if addr is nil. writeMsgUDP checks addr before each attempt.
func (c *netUDPConn) WriteMsgUDP(p, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	err = c.sides.wr.until("WriteMsgUDP of a NetConn", func(cx *Context) error {
		n, oobn, err = c.writeMsgUDP(cx, p, oob, addr, c.pollWriteMsg)
		return err
	})
	return n, oobn, err
}

func (c *netUDPConn) ReadFromUDPAddrPort(p []byte) (n int, addr netip.AddrPort, err error) {
	err = c.sides.rd.until("ReadFromUDPAddrPort of a NetConn", func(cx *Context) error {
		n, addr, err = c.pollReadFromUDPAddrPort(cx, p)
		return err
	})
	return n, addr, err
}

func (c *netUDPConn) WriteToUDPAddrPort(p []byte, addr netip.AddrPort) (n int, err error) {
	err = c.sides.wr.until("WriteToUDPAddrPort of a NetConn", func(cx *Context) error {
		n, err = c.pollWriteToUDPAddrPort(cx, p, addr)
		return err
	})
	return n, err
}

func (c *netUDPConn) ReadMsgUDPAddrPort(p, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error) {
	err = c.sides.rd.until("ReadMsgUDPAddrPort of a NetConn", func(cx *Context) error {
		n, oobn, flags, addr, err = c.pollReadMsgUDPAddrPort(cx, p, oob)
		return err
	})
	return n, oobn, flags, addr, err
}

func (c *netUDPConn) WriteMsgUDPAddrPort(p, oob []byte, addr netip.AddrPort) (n, oobn int, err error) {
	err = c.sides.wr.until("WriteMsgUDPAddrPort of a NetConn", func(cx *Context) error {
		n, oobn, err = c.pollWriteMsgUDPAddrPort(cx, p, oob, addr)
		return err
	})
	return n, oobn, err
}

func (c *netUDPConn) SyscallConn() (syscall.RawConn, error) { return c.sides.rawConn(&c.conn) }

// netUnixDatagram is the result of NetConn for a UnixDatagram; see netUDPConn.
type netUnixDatagram struct {
	*UnixDatagram
	sides netSides
}

var _ interface {
	net.PacketConn
	syscall.Conn
} = (*netUnixDatagram)(nil)

func (c *netUnixDatagram) Read(p []byte) (int, error)  { return c.sides.rd.read(c.UnixDatagram, p) }
func (c *netUnixDatagram) Write(p []byte) (int, error) { return c.sides.wr.write(c.UnixDatagram, p) }

func (c *netUnixDatagram) ReadFrom(p []byte) (int, net.Addr, error) {
	return c.sides.readFrom(c.pollReadFrom, p)
}

func (c *netUnixDatagram) WriteTo(p []byte, addr net.Addr) (int, error) {
	return c.sides.writeTo(c.pollWriteTo, p, addr)
}

func (c *netUnixDatagram) ReadFromUnix(p []byte) (int, *net.UnixAddr, error) {
	return asUnixAddr(c.ReadFrom(p))
}

func (c *netUnixDatagram) WriteToUnix(p []byte, addr *net.UnixAddr) (int, error) {
	return c.WriteTo(p, addr)
}

// ReadMsgUnix needs no wrapEnd, unlike the method of netUnixConn: messages have no end.
func (c *netUnixDatagram) ReadMsgUnix(p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	return c.sides.readMsgUnix(c.UnixDatagram, p, oob)
}

func (c *netUnixDatagram) WriteMsgUnix(p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error) {
	return c.sides.writeMsgUnix(c.UnixDatagram, p, oob, addr)
}

func (c *netUnixDatagram) SyscallConn() (syscall.RawConn, error) { return c.sides.rawConn(&c.conn) }

// readFrom is the ReadFrom of a form whose connection has this poll form.
func (s *netSides) readFrom(poll func(*Context, []byte) (int, net.Addr, error), p []byte) (n int, addr net.Addr, err error) {
	err = s.rd.until("ReadFrom of a NetConn", func(cx *Context) error {
		n, addr, err = poll(cx, p)
		return err
	})
	return n, addr, err
}

// writeTo is the WriteTo of a form whose connection has this poll form.
func (s *netSides) writeTo(poll func(*Context, []byte, net.Addr) (int, error), p []byte, addr net.Addr) (n int, err error) {
	err = s.wr.until("WriteTo of a NetConn", func(cx *Context) error {
		n, err = poll(cx, p, addr)
		return err
	})
	return n, err
}

// unixMessenger is the poll forms that both types of unix-domain sockets have.
type unixMessenger interface {
	pollReadMsgUnix(cx *Context, p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
	pollWriteMsgUnix(cx *Context, p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error)
}

// readMsgUnix is the ReadMsgUnix of the form of c. A netUnixConn also wraps the end of the stream.
func (s *netSides) readMsgUnix(c unixMessenger, p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	err = s.rd.until("ReadMsgUnix of a NetConn", func(cx *Context) error {
		n, oobn, flags, addr, err = c.pollReadMsgUnix(cx, p, oob)
		return err
	})
	return n, oobn, flags, addr, err
}

// writeMsgUnix is the WriteMsgUnix of the form of c.
func (s *netSides) writeMsgUnix(c unixMessenger, p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error) {
	err = s.wr.until("WriteMsgUnix of a NetConn", func(cx *Context) error {
		n, oobn, err = c.pollWriteMsgUnix(cx, p, oob, addr)
		return err
	})
	return n, oobn, err
}
