package async

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"example.com/async/internal/sys"
	"golang.org/x/sys/unix"
)

// SetBroadcast sets whether messages may be sent to broadcast addresses. They
// may unless this says otherwise.
func (c *UDPConn) SetBroadcast(on bool) error {
	return c.setOption(unix.SOL_SOCKET, unix.SO_BROADCAST, sys.BoolInt(on))
}

// Broadcast returns the setting of SetBroadcast.
func (c *UDPConn) Broadcast() (bool, error) {
	v, err := c.option(unix.SOL_SOCKET, unix.SO_BROADCAST)
	return v != 0, err
}

// SetTTL sets how many routers a message may pass that is not sent to a
// group: the time to live of IPv4, the hop limit of IPv6. This setting and those
// for groups are made for both families if the socket is of both; on systems other
// than Linux such a socket may refuse a setting for IPv4, which then keeps its default.
func (c *UDPConn) SetTTL(n int) error {
	return c.setFamilies(
		func(fd int) error { return sys.SetOption(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, n) },
		func(fd int) error { return sys.SetOption(fd, unix.IPPROTO_IP, unix.IP_TTL, n) })
}

// TTL returns the setting of SetTTL.
func (c *UDPConn) TTL() (int, error) {
	if c.v6() {
		return c.option(unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS)
	}
	return c.option(unix.IPPROTO_IP, unix.IP_TTL)
}

// SetMulticastTTL sets how many routers a message to a group may pass. One,
// the default, keeps it in the local network.
func (c *UDPConn) SetMulticastTTL(n int) error {
	return c.setFamilies(
		func(fd int) error { return sys.SetOption(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, n) },
		func(fd int) error { return setByte(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, n) })
}

// MulticastTTL returns the setting of SetMulticastTTL.
func (c *UDPConn) MulticastTTL() (int, error) {
	if c.v6() {
		return c.option(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS)
	}
	return c.getByte(unix.IPPROTO_IP, unix.IP_MULTICAST_TTL)
}

// SetMulticastLoopback sets whether a message to a group also comes to the sockets
// on this host that joined it. It does unless this, or ListenMulticastUDP, says
// otherwise.
func (c *UDPConn) SetMulticastLoopback(on bool) error {
	return c.setFamilies(
		func(fd int) error {
			return sys.SetOption(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, sys.BoolInt(on))
		},
		func(fd int) error { return setByte(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, sys.BoolInt(on)) })
}

// MulticastLoopback returns the setting of SetMulticastLoopback.
func (c *UDPConn) MulticastLoopback() (on bool, err error) {
	var v int
	if c.v6() {
		v, err = c.option(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP)
	} else {
		v, err = c.getByte(unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP)
	}
	return v != 0, err
}

// setMulticastInterface sets through which interface messages to groups are
// sent. Without it, or if ifi is nil, the system chooses.
func (c *UDPConn) setMulticastInterface(ifi *net.Interface) error {
	return c.setFamilies(
		func(fd int) error {
			return sys.SetOption(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, ipIndex(ifi))
		},
		func(fd int) error {
			ip, err := interfaceIPv4(ifi)
			if c.v6() && errors.Is(err, errNoIPv4) {
				return nil
			}
			if err != nil {
				return err
			}
			return os.NewSyscallError("setsockopt", unix.SetsockoptInet4Addr(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, ip))
		})
}

// ipIndex returns the number of an interface; 0 lets the system choose.
func ipIndex(ifi *net.Interface) int {
	if ifi == nil {
		return 0
	}
	return ifi.Index
}

// setFamilies sets an option of the socket's family, and that of IPv4 as well
// if an IPv6 socket is of both families.
func (c *UDPConn) setFamilies(v6, v4 func(fd int) error) error {
	return c.set(func(fd int) error {
		if !c.v6() {
			return v4(fd)
		}
		if err := v6(fd); err != nil {
			return err
		}
		if only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); only != 0 || err != nil {
			return os.NewSyscallError("getsockopt", err)
		}
		err := v4(fd)
		if runtime.GOOS != "linux" {
			return nil
		}
		return err
	})
}

// JoinGroup makes the socket receive messages that are sent to the group, a *net.UDPAddr of
// which only the IP counts, through the interface ifi, or an interface that the system
// chooses if ifi is nil.
func (c *UDPConn) JoinGroup(ifi *net.Interface, group net.Addr) error {
	return c.membership(ifi, group, unix.IP_ADD_MEMBERSHIP, unix.IPV6_JOIN_GROUP)
}

// LeaveGroup undoes JoinGroup with the same arguments.
func (c *UDPConn) LeaveGroup(ifi *net.Interface, group net.Addr) error {
	return c.membership(ifi, group, unix.IP_DROP_MEMBERSHIP, unix.IPV6_LEAVE_GROUP)
}

func (c *UDPConn) membership(ifi *net.Interface, group net.Addr, v4, v6 int) error {
	var ip net.IP
	switch g := group.(type) {
	case *net.UDPAddr:
		if group = addrOrNil(g); g != nil {
			ip = g.IP
		}
	case *net.IPAddr:
		if group = addrOrNil(g); g != nil {
			ip = g.IP
		}
	}
	return c.wrapTo("set", group, c.src.control(func(fd int) error {
		switch ip4, ip6 := ip.To4(), ip.To16(); {
		case ip4 != nil:
			on, err := interfaceIPv4(ifi)
			if err != nil {
				return err
			}
			mreq := unix.IPMreq{Multiaddr: [4]byte(ip4), Interface: on}
			return os.NewSyscallError("setsockopt", unix.SetsockoptIPMreq(fd, unix.IPPROTO_IP, v4, &mreq))
		case ip6 != nil:
			mreq := unix.IPv6Mreq{Multiaddr: [16]byte(ip6), Interface: uint32(ipIndex(ifi))}
			return os.NewSyscallError("setsockopt", unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, v6, &mreq))
		}
		return unix.EINVAL
	}))
}

// getByte is getsockopt for options of one byte. The options of IPv4 multicast have one byte
// on some systems, and may have one byte on all.
func (c *conn) getByte(level, name int) (int, error) {
	return c.get(func(fd int) (int, error) {
		b, err := unix.GetsockoptByte(fd, level, name)
		return int(b), err
	})
}

func setByte(fd, level, name, value int) error {
	err := error(unix.EINVAL)
	if value >= 0 && value <= 255 {
		err = unix.SetsockoptByte(fd, level, name, byte(value))
	}
	return os.NewSyscallError("setsockopt", err)
}

var errNoIPv4 = errors.New("the interface has no IPv4 address")

// interfaceIPv4 returns an IPv4 address of an interface; the wildcard if ifi is
// nil.
func interfaceIPv4(ifi *net.Interface) (ip [4]byte, err error) {
	if ifi == nil {
		return ip, nil
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return ip, err
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
			return [4]byte(n.IP.To4()), nil
		}
	}
	return ip, fmt.Errorf("%w: %s", errNoIPv4, ifi.Name)
}

// ListenMulticastUDP opens a socket that receives the messages that are sent to a group, on
// the interface ifi, or an interface that the system chooses if ifi is nil, as
// net.ListenMulticastUDP does. Other sockets may receive them, too. Messages that the socket
// itself sends to the group do not come back to this host. The error is a *net.OpError.
func ListenMulticastUDP(network string, ifi *net.Interface, group *net.UDPAddr) (*UDPConn, error) {
	if group == nil || len(group.IP) == 0 {
		return nil, wrapOp("listen", unnamed(network), nil, addrOrNil(group), errMissingAddress)
	}
	c, err := ListenUDP(network, group)
	if err != nil {
		return nil, err
	}
	if ifi != nil {
		err = c.setMulticastInterface(ifi)
	}
	if err == nil {
		err = c.SetMulticastLoopback(false)
	}
	if err == nil {
		err = c.JoinGroup(ifi, group)
	}
	if err != nil {
		c.Close()
		return nil, wrapOp("listen", c.net, nil, group, err)
	}
	return c, nil
}

// multicastWildcard returns the address and the network on which messages to
// a group are received.
func multicastWildcard(n *network, group net.IP) (*network, net.IP) {
	if n.familyOf(&net.UDPAddr{IP: group}, nil) == unix.AF_INET6 {
		return n, net.IPv6zero
	}
	only := n.of(unix.AF_INET) // without a family, 0.0.0.0 would be the wildcard of both
	return &only, net.IPv4zero
}
