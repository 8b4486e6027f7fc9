package async

import (
	"errors"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// keepAlivePeriod is package net's default.
const keepAlivePeriod = 15 * time.Second

// newTCPSocket opens a non-blocking TCP socket that children do not inherit,
// with the options that connections have by default. Accepted connections
// inherit those from the listener's socket, on every system.
func newTCPSocket(family int) (int, error) {
	fd, err := openSocket(family, unix.SOCK_STREAM)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	// Without these a connection works too.
	setOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	setOption(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	setKeepAlivePeriod(fd, keepAlivePeriod)
	return fd, nil
}

// listenSocket opens a socket that listens on laddr.
func listenSocket(network string, laddr *net.TCPAddr) (int, error) {
	switch {
	case network != "tcp" && network != "tcp4" && network != "tcp6":
		return -1, net.UnknownNetworkError(network)
	case network == "tcp" && (len(laddr.IP) == 0 || laddr.IP.IsUnspecified()):
		// Both families at once if the system has IPv6, as package net does.
		fd, err := bindAndListen(unix.AF_INET6, &unix.SockaddrInet6{Port: laddr.Port}, false)
		if !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fd, err
		}
		return bindAndListen(unix.AF_INET, &unix.SockaddrInet4{Port: laddr.Port}, false)
	}
	family, sa, err := sockaddr(network, laddr)
	if err != nil {
		return -1, err
	}
	return bindAndListen(family, sa, family == unix.AF_INET6)
}

func bindAndListen(family int, sa unix.Sockaddr, v6only bool) (fd int, err error) {
	if fd, err = newTCPSocket(family); err != nil {
		return -1, err
	}
	if err = setOption(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err == nil && family == unix.AF_INET6 {
		err = setOption(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, boolInt(v6only))
	}
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, sa))
	}
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(fd, unix.SOMAXCONN))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// dialSocket opens a socket for a connection to raddr.
func dialSocket(network string, laddr, raddr *net.TCPAddr) (fd int, to unix.Sockaddr, err error) {
	dst := *raddr
	if len(dst.IP) == 0 || dst.IP.IsUnspecified() {
		// This host, as package net has it.
		if dst.IP = net.IPv4(127, 0, 0, 1); network == "tcp6" {
			dst.IP = net.IPv6loopback
		}
	}
	family, to, err := sockaddr(network, &dst)
	if err != nil {
		return -1, nil, err
	}
	if fd, err = newTCPSocket(family); err != nil {
		return -1, nil, err
	}
	if laddr != nil {
		_, from, err := sockaddr(network, laddr)
		if err == nil {
			err = os.NewSyscallError("bind", unix.Bind(fd, from))
		}
		if err != nil {
			unix.Close(fd)
			return -1, nil, err
		}
	}
	return fd, to, nil
}

// connected returns what became of a connect: EAGAIN while it goes on.
func connected(fd int) error {
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

// sockaddr translates an address for the kernel.
func sockaddr(network string, a *net.TCPAddr) (family int, sa unix.Sockaddr, err error) {
	if a.Port < 0 || a.Port > 65535 {
		return 0, nil, &net.AddrError{Err: "invalid port", Addr: strconv.Itoa(a.Port)}
	}
	ip := a.IP
	if len(ip) == 0 {
		if ip = net.IPv4zero; network == "tcp6" {
			ip = net.IPv6zero
		}
	}
	if v4 := ip.To4(); v4 != nil && network != "tcp6" {
		return unix.AF_INET, &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(v4)}, nil
	}
	v6 := ip.To16()
	if v6 == nil || network == "tcp4" || v6.To4() != nil {
		return 0, nil, &net.AddrError{Err: "unexpected address type", Addr: ip.String()}
	}
	zone, err := zoneIndex(a.Zone)
	return unix.AF_INET6, &unix.SockaddrInet6{Port: a.Port, Addr: [16]byte(v6), ZoneId: zone}, err
}

// tcpAddr translates an address of the kernel's.
func tcpAddr(sa unix.Sockaddr) *net.TCPAddr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return &net.TCPAddr{IP: append(net.IP(nil), sa.Addr[:]...), Port: sa.Port}
	case *unix.SockaddrInet6:
		return &net.TCPAddr{IP: append(net.IP(nil), sa.Addr[:]...), Port: sa.Port, Zone: zoneName(sa.ZoneId)}
	}
	return new(net.TCPAddr)
}

func localAddr(fd int) *net.TCPAddr {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return new(net.TCPAddr)
	}
	return tcpAddr(sa)
}

// zoneIndex returns the number of an IPv6 zone, which is the name or the
// number of a network interface.
func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(ifi.Index), nil
}

func zoneName(index uint32) string {
	if index == 0 {
		return ""
	}
	if ifi, err := net.InterfaceByIndex(int(index)); err == nil {
		return ifi.Name
	}
	return strconv.FormatUint(uint64(index), 10)
}

func setOption(fd, level, name, value int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, name, value))
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// wholeSeconds rounds up.
func wholeSeconds(d time.Duration) int {
	return int((d + time.Second - 1) / time.Second)
}
