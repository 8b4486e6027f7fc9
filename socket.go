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

// network describes the sockets of a network, by its name.
type network struct {
	name   string
	proto  string // "tcp", "udp", "unix" (with connections), "unixgram"
	family int    // AF_INET or AF_INET6: only that family; 0: both; or AF_UNIX
	kind   int    // SOCK_STREAM, ...
}

// is reports whether n has sockets of that kind; n is nil in a zero value, which has none.
func (n *network) is(kind int) bool { return n != nil && n.kind == kind }

// title returns the name of n, which is empty if n is nil.
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

// networkOf returns the network of a name, which must be one of these
// protocols'.
func networkOf(name string, protos ...string) (*network, error) {
	for i := range networks {
		if n := &networks[i]; n.name == name && slices.Contains(protos, n.proto) {
			return n, nil
		}
	}
	return nil, net.UnknownNetworkError(name)
}

// unnamed returns a network that has only a name, for use in an error.
func unnamed(name string) *network { return &network{name: name} }

// of returns the network of n's sockets of one family.
func (n *network) of(family int) network {
	one := *n
	one.family = family
	return one
}

// sockaddr translates an address for the kernel. The network must have a family.
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

// ipSockaddr translates an address for a socket of n's family, which is AF_INET or
// AF_INET6. As in package net, 0.0.0.0 means :: for a socket of IPv6, and other IPv4
// addresses are passed to such a socket in their IPv6 form.
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

// stdUnix translates a for package syscall, which takes abstract names that fill the
// kernel's field for names; x/sys does not.
func stdUnix(a *unix.SockaddrUnix) *syscall.SockaddrUnix { return &syscall.SockaddrUnix{Name: a.Name} }

func bindTo(fd int, a unix.Sockaddr) error {
	if u, ok := a.(*unix.SockaddrUnix); ok {
		return syscall.Bind(fd, stdUnix(u))
	}
	return unix.Bind(fd, a)
}

func connectTo(fd int, a unix.Sockaddr) error {
	if u, ok := a.(*unix.SockaddrUnix); ok {
		return syscall.Connect(fd, stdUnix(u))
	}
	return unix.Connect(fd, a)
}

// familyOf returns the family of a socket with these two addresses, either of which
// may be nil. It is the family of the network if that has one, else IPv4, or IPv6 if one
// of the addresses needs it.
func (n *network) familyOf(laddr, raddr net.Addr) int {
	switch {
	case n.family != 0:
		return n.family
	case needsIPv6(ipOf(laddr)) || needsIPv6(ipOf(raddr)):
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func needsIPv6(ip net.IP) bool { return len(ip) > net.IPv4len && ip.To4() == nil }

// isWildcard reports whether ip is nil, 0.0.0.0 or ::. As in package net, an IP that
// is empty but not nil is no wildcard.
func isWildcard(ip net.IP) bool { return ip == nil || ip.IsUnspecified() }

// addr translates an address of the kernel's; it returns nil for other families.
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

func (n *network) ipAddr(ip net.IP, port int, zone string) net.Addr {
	ip = slices.Clone(ip)
	if n.kind == unix.SOCK_STREAM {
		return &net.TCPAddr{IP: ip, Port: port, Zone: zone}
	}
	return &net.UDPAddr{IP: ip, Port: port, Zone: zone}
}

// localAddr returns the address of a socket. It is never nil.
func (n *network) localAddr(fd int) net.Addr {
	if sa, err := unix.Getsockname(fd); err == nil {
		if a := n.addr(sa); a != nil {
			return a
		}
	}
	return n.noAddr()
}

// noAddr is the address of a socket that has none.
func (n *network) noAddr() net.Addr {
	if n.family == unix.AF_UNIX {
		return &net.UnixAddr{Net: n.name}
	}
	return n.ipAddr(nil, 0, "")
}

// socketSetup is the settings with which a socket is made; the zero value is package net's way.
type socketSetup struct {
	control     func(network, address string, c syscall.RawConn) error
	keepAlive   time.Duration // negative: off
	backlog     int           // 0: the system's limit
	reusePort   bool
	reuseAddr   bool // also for a datagram socket
	deferAccept time.Duration
}

// open opens a non-blocking socket that children do not inherit, with the
// options that connections have by default. Accepted connections inherit these options
// from the listener's socket, on every system.
func (s *socketSetup) open(n *network, family int) (int, error) {
	fd, err := sys.Socket(family, n.kind)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	// Without these a connection works too.
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

func setTCPDefaults(fd int, keepAlive time.Duration) {
	sys.SetOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if keepAlive >= 0 {
		sys.SetKeepAliveConfig(fd, net.KeepAliveConfig{Enable: true, Idle: keepAlive})
	}
}

// controlled calls the user's function for a socket that is neither bound nor
// connected. The name of the network that it gets says which family it is of.
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
	return os.NewSyscallError("setnonblock", unix.SetNonblock(fd, true)) // the function may have made it blocking
}

// listen opens a socket that is bound to laddr, and listens unless it is a socket
// for datagrams.
func (s *socketSetup) listen(n *network, laddr net.Addr) (int, error) {
	family := n.familyOf(laddr, nil)
	if n.family == 0 && isWildcard(ipOf(laddr)) && mapsIPv4 {
		// Both families at once if the system has IPv6, as package net does.
		fd, err := s.bindAndListen(n, laddr, unix.AF_INET6)
		if family == unix.AF_INET6 || !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fd, err
		}
	}
	return s.bindAndListen(n, laddr, family)
}

// mapsIPv4 reports whether an IPv6 socket can serve IPv4 as well.
const mapsIPv4 = runtime.GOOS != "openbsd" && runtime.GOOS != "dragonfly"

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
	if s.reuseAddr && runtime.GOOS != "linux" { // other systems need both options to share a port
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
		backlog = 1<<16 - 1 // the kernel reduces it to its own limit; some kernels took no larger number
	}
	err = os.NewSyscallError("listen", unix.Listen(fd, backlog))
	return
}

// dial opens a socket for a connection to raddr, bound to laddr if it is not
// nil, and returns the address to connect it to.
func (s *socketSetup) dial(n *network, laddr, raddr net.Addr) (fd int, to unix.Sockaddr, err error) {
	if u, ok := laddr.(*net.UnixAddr); ok && u.Name == "" {
		laddr = nil // Linux would give it a name
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

// thisHost puts a loopback address in the place of a wildcard, for the system that
// cannot connect to a wildcard. Package net does the same.
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

// isConnected returns the result of a connect: EAGAIN while it goes on.
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
