package async

import (
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"example.com/async/internal/sys"
	"golang.org/x/sys/unix"
)

// A network is a row of the table below: the name that a program passes to [Dial] or [Listen], and
// the kind of sockets that it stands for.
type network struct {
	name   string
	proto  string // "tcp", "udp", "unix" (streams and packets with a connection), "unixgram"
	family int    // AF_INET or AF_INET6: sockets of this family alone; 0: of both; AF_UNIX
	kind   int    // SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET
}

// is reports whether the sockets of n are of this kind. The zero value of a connection has no
// network: n is nil then, and is returns false.
func (n *network) is(kind int) bool { return n != nil && n.kind == kind }

// title returns the name of n, or "" for the nil network of a zero value.
func (n *network) title() string {
	if n == nil {
		return ""
	}
	return n.name
}

var networks = [...]network{
	{"tcp", "tcp", 0, unix.SOCK_STREAM},
	{"tcp4", "tcp", unix.AF_INET, unix.SOCK_STREAM},
	{"tcp6", "tcp", unix.AF_INET6, unix.SOCK_STREAM},
	{"udp", "udp", 0, unix.SOCK_DGRAM},
	{"udp4", "udp", unix.AF_INET, unix.SOCK_DGRAM},
	{"udp6", "udp", unix.AF_INET6, unix.SOCK_DGRAM},
	{"unix", "unix", unix.AF_UNIX, unix.SOCK_STREAM},
	{"unixpacket", "unix", unix.AF_UNIX, unix.SOCK_SEQPACKET},
	{"unixgram", "unixgram", unix.AF_UNIX, unix.SOCK_DGRAM},
}

// networkOf returns the network with this name if its protocol is one of protos. Otherwise it
// returns a [net.UnknownNetworkError], as package net does.
func networkOf(name string, protos ...string) (*network, error) {
	for i := range networks {
		if n := &networks[i]; n.name == name && slices.Contains(protos, n.proto) {
			return n, nil
		}
	}
	return nil, net.UnknownNetworkError(name)
}

// unnamed returns a network that has only a name. It is for errors about names that networkOf
// refuses.
func unnamed(name string) *network { return &network{name: name} }

// of returns a copy of n that is restricted to one family.
func (n *network) of(family int) network {
	one := *n
	one.family = family
	return one
}

// sockaddr translates a for the kernel. The caller has chosen a family: n.family is not 0.
func (n *network) sockaddr(a net.Addr) (family int, sa unix.Sockaddr, err error) {
	switch a := a.(type) {
	case *net.TCPAddr:
		return n.ipSockaddr(a.IP, a.Port, a.Zone)
	case *net.UDPAddr:
		return n.ipSockaddr(a.IP, a.Port, a.Zone)
	case *net.UnixAddr:
		return unix.AF_UNIX, &unix.SockaddrUnix{Name: a.Name}, nil
	}
	return 0, nil, &net.AddrError{Err: "unexpected address type", Addr: a.String()}
}

// ipSockaddr translates an IP address for a socket of n's family, which is AF_INET or AF_INET6. For
// an IPv6 socket it does the same as package net: 0.0.0.0 becomes ::, and every other IPv4 address
// gets its IPv4-mapped IPv6 form.
func (n *network) ipSockaddr(ip net.IP, port int, zone string) (family int, sa unix.Sockaddr, err error) {
	if n.family == unix.AF_INET {
		if len(ip) == 0 {
			ip = net.IPv4zero
		}
		v4 := ip.To4()
		if v4 == nil {
			return 0, nil, &net.AddrError{Err: "non-IPv4 address", Addr: ip.String()}
		}
		return unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: [4]byte(v4)}, nil
	}
	if len(ip) == 0 || ip.Equal(net.IPv4zero) {
		ip = net.IPv6zero
	}
	v6 := ip.To16()
	if v6 == nil {
		return 0, nil, &net.AddrError{Err: "non-IPv6 address", Addr: ip.String()}
	}
	index, err := zoneIndex(zone)
	return unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: [16]byte(v6), ZoneId: index}, err
}

// stdUnix translates a for package syscall. An abstract name may fill the whole field that the
// kernel has for names. Package syscall accepts such a name, and x/sys/unix refuses it. So bindTo,
// connectTo and sendMsgTo make their system calls for unix-domain addresses through package
// syscall.
func stdUnix(a *unix.SockaddrUnix) *syscall.SockaddrUnix { return &syscall.SockaddrUnix{Name: a.Name} }

// bindTo is bind(2).
func bindTo(fd int, a unix.Sockaddr) error {
	if u, ok := a.(*unix.SockaddrUnix); ok {
		return syscall.Bind(fd, stdUnix(u))
	}
	return unix.Bind(fd, a)
}

// connectTo is connect(2).
func connectTo(fd int, a unix.Sockaddr) error {
	if u, ok := a.(*unix.SockaddrUnix); ok {
		return syscall.Connect(fd, stdUnix(u))
	}
	return unix.Connect(fd, a)
}

// familyOf returns the family for a socket with these two addresses; each of them may be nil. It is
// the family of n if n has one. Otherwise it is AF_INET6 if one of the addresses needs it, else
// AF_INET.
func (n *network) familyOf(laddr, raddr net.Addr) int {
	switch {
	case n.family != 0:
		return n.family
	case needsIPv6(ipOf(laddr)) || needsIPv6(ipOf(raddr)):
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// needsIPv6 reports whether ip has 16 bytes and is not the IPv4-mapped form of an IPv4 address.
func needsIPv6(ip net.IP) bool { return len(ip) > net.IPv4len && ip.To4() == nil }

// isWildcard reports whether ip is nil, 0.0.0.0 or ::. As in package net, an empty IP that is not
// nil is no wildcard.
func isWildcard(ip net.IP) bool { return ip == nil || ip.IsUnspecified() }

// addr translates an address that the kernel returned. For a family that this package does not use
// it returns nil.
func (n *network) addr(sa unix.Sockaddr) net.Addr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return n.ipAddr(sa.Addr[:], sa.Port, "")
	case *unix.SockaddrInet6:
		return n.ipAddr(sa.Addr[:], sa.Port, zoneName(sa.ZoneId))
	case *unix.SockaddrUnix:
		return &net.UnixAddr{Name: sa.Name, Net: n.name}
	}
	return nil
}

// ipAddr makes a *net.TCPAddr if n has streams, else a *net.UDPAddr. It copies ip, which may be
// part of the caller's buffer.
func (n *network) ipAddr(ip net.IP, port int, zone string) net.Addr {
	ip = slices.Clone(ip)
	if n.kind == unix.SOCK_STREAM {
		return &net.TCPAddr{IP: ip, Port: port, Zone: zone}
	}
	return &net.UDPAddr{IP: ip, Port: port, Zone: zone}
}

// localAddr returns the local address of a socket. It is never nil.
func (n *network) localAddr(fd int) net.Addr {
	if sa, err := unix.Getsockname(fd); err == nil {
		if a := n.addr(sa); a != nil {
			return a
		}
	}
	return n.noAddr()
}

// noAddr returns the address of a socket that has none: empty, but of the type for n.
func (n *network) noAddr() net.Addr {
	if n.family == unix.AF_UNIX {
		return &net.UnixAddr{Net: n.name}
	}
	return n.ipAddr(nil, 0, "")
}

// A socketSetup is the settings with which a socket is made. The zero value is the way of package
// net.
type socketSetup struct {
	control     func(network, address string, c syscall.RawConn) error
	keepAlive   time.Duration // before the first probe; 0: package net's default; negative: no probes
	backlog     int           // 0: the limit of the system
	reusePort   bool
	reuseAddr   bool // share the address with other sockets; for datagrams
	deferAccept time.Duration
}

// open opens a non-blocking socket that child processes do not inherit, and sets the options that
// sockets have by default. It sets the options of connections on the sockets of listeners, too: on
// every system a connection inherits them from the listener that accepts it, which saves one system
// call for each option of each connection.
//
// The errors of the options are ignored, as in package net: a socket works without them.
func (s *socketSetup) open(n *network, family int) (int, error) {
	fd, err := sys.Socket(family, n.kind)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if family == unix.AF_INET6 {
		sys.SetOption(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, sys.BoolInt(n.family == unix.AF_INET6))
	}
	switch n.proto {
	case "tcp":
		setTCPDefaults(fd, s.keepAlive)
	case "udp", "unixgram":
		sys.SetOption(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
	}
	return fd, nil
}

// setTCPDefaults sets TCP_NODELAY, and SO_KEEPALIVE unless keepAlive is negative.
func setTCPDefaults(fd int, keepAlive time.Duration) {
	sys.SetOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if keepAlive >= 0 {
		sys.SetKeepAliveConfig(fd, net.KeepAliveConfig{Enable: true, Idle: keepAlive})
	}
}

// controlled calls the Control function of the program, if there is one, before the socket is bound
// or connected. As in package net, the network that the function is passed tells the family: "tcp4"
// or "tcp6" instead of "tcp". The function may make the descriptor blocking, so controlled makes it
// non-blocking again.
func (s *socketSetup) controlled(n *network, family, fd int, a net.Addr) error {
	if s.control == nil {
		return nil
	}
	name := n.name
	switch {
	case name == n.proto && family == unix.AF_INET:
		name += "4"
	case name == n.proto && family == unix.AF_INET6:
		name += "6"
	}
	if err := s.control(name, a.String(), &rawConn{src: newPollFD(fd), net: n}); err != nil {
		return err
	}
	return os.NewSyscallError("setnonblock", unix.SetNonblock(fd, true))
}

// listen opens a socket that is bound to laddr. Unless it is a socket for datagrams, the socket
// listens.
//
// For a wildcard address of a network without a family, one IPv6 socket serves both families, as in
// package net. If the system has no IPv6, the socket is an IPv4 socket.
func (s *socketSetup) listen(n *network, laddr net.Addr) (int, error) {
	family := n.familyOf(laddr, nil)
	if n.family == 0 && isWildcard(ipOf(laddr)) && mapsIPv4 {
		fd, err := s.bindAndListen(n, laddr, unix.AF_INET6)
		if family == unix.AF_INET6 || !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fd, err
		}
	}
	return s.bindAndListen(n, laddr, family)
}

// mapsIPv4 reports whether an IPv6 socket of this system can serve IPv4, too.
const mapsIPv4 = runtime.GOOS != "openbsd" && runtime.GOOS != "dragonfly"

// bindAndListen makes the steps of listen with a socket of one family, in the order that the kernel
// requires: the options that decide whether an address is free must be set before bind, and so must
// the options of the Control function, which may replace them.
func (s *socketSetup) bindAndListen(n *network, laddr net.Addr, family int) (fd int, err error) {
	if fd, err = s.open(n, family); err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	if s.reuseAddr || n.kind == unix.SOCK_STREAM {
		if err = sys.SetOption(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return
		}
	}
	if s.reuseAddr && runtime.GOOS != "linux" { // the other systems need both options to share a port
		if err = sys.SetOption(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return
		}
	}
	if s.reusePort {
		if err = sys.SetOption(fd, unix.SOL_SOCKET, sys.ReusePort, 1); err != nil {
			return
		}
	}
	if s.deferAccept > 0 && n.proto == "tcp" {
		if err = sys.SetDeferAccept(fd, s.deferAccept); err != nil {
			return
		}
	}
	of := n.of(family)
	_, sa, err := of.sockaddr(laddr)
	if err != nil {
		return
	}
	if err = s.controlled(n, family, fd, laddr); err != nil {
		return
	}
	if err = os.NewSyscallError("bind", bindTo(fd, sa)); err != nil || n.kind == unix.SOCK_DGRAM {
		return
	}
	backlog := s.backlog
	if backlog <= 0 {
		// The kernel reduces a backlog to its own limit. A larger number does not work everywhere:
		// Linux before 4.1 keeps the number in 16 bits.
		backlog = 1<<16 - 1
	}
	err = os.NewSyscallError("listen", unix.Listen(fd, backlog))
	return
}

// dial opens a socket for a connection to raddr, and binds it to laddr unless that is nil. It
// returns the address for the connect that follows.
func (s *socketSetup) dial(n *network, laddr, raddr net.Addr) (fd int, to unix.Sockaddr, err error) {
	if u, ok := laddr.(*net.UnixAddr); ok && u.Name == "" {
		laddr = nil // a bind to the empty name makes Linux choose an abstract name
	}
	host := raddr
	if runtime.GOOS == "openbsd" {
		host = thisHost(n, raddr)
	}
	of := n.of(n.familyOf(laddr, host))
	if fd, err = s.open(n, of.family); err != nil {
		return -1, nil, err
	}
	if err = s.controlled(n, of.family, fd, raddr); err == nil && laddr != nil {
		var from unix.Sockaddr
		if _, from, err = of.sockaddr(laddr); err == nil {
			err = os.NewSyscallError("bind", bindTo(fd, from))
		}
	}
	if err == nil {
		_, to, err = of.sockaddr(host)
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, to, nil
}

// thisHost replaces a wildcard address by the loopback address, as package net does. It is for
// OpenBSD, which cannot connect to a wildcard address.
func thisHost(n *network, a net.Addr) net.Addr {
	ip := ipOf(a)
	if n.family == unix.AF_UNIX || len(ip) > 0 && !ip.IsUnspecified() {
		return a
	}
	loopback := net.IPv6loopback
	if n.family != unix.AF_INET6 {
		loopback = net.IPv4(127, 0, 0, 1)
	}
	switch a := a.(type) {
	case *net.TCPAddr:
		return &net.TCPAddr{IP: loopback, Port: a.Port, Zone: a.Zone}
	case *net.UDPAddr:
		return &net.UDPAddr{IP: loopback, Port: a.Port, Zone: a.Zone}
	}
	return a
}

// isConnected returns the result of a connect that has begun: nil once the socket is connected,
// EAGAIN while the connect is under way, else the error of the connect. SO_ERROR alone cannot tell
// the first two apart, because it is 0 for both. A socket that has a peer is connected.
func isConnected(fd int) error {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	switch err := unix.Errno(errno); err {
	case 0:
		if _, err := unix.Getpeername(fd); err != nil {
			return unix.EAGAIN
		}
		return nil
	case unix.EISCONN:
		return nil
	case unix.EINPROGRESS, unix.EALREADY, unix.EINTR:
		return unix.EAGAIN
	default:
		return err
	}
}
