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

// SetBroadcast sets whether the socket may send to broadcast addresses. On is the default. The
// error is a [*net.OpError], as that of every setting below.
func (c *UDPConn) SetBroadcast(on bool) error {
	return c.setOption(unix.SOL_SOCKET, unix.SO_BROADCAST, sys.BoolInt(on))
}

// Broadcast returns the setting of [UDPConn.SetBroadcast].
func (c *UDPConn) Broadcast() (bool, error) {
	v, err := c.option(unix.SOL_SOCKET, unix.SO_BROADCAST)
	return v != 0, err
}

// SetTTL sets the number of routers that a message to a single host may pass: the time to live of
// IPv4, the hop limit of IPv6. The error is a [*net.OpError].
//
// This setting and those for multicast hold for both families if the socket is of both. On systems
// other than Linux such a socket may refuse a setting for IPv4. The setting for IPv4 then keeps its
// default, and there is no error.
func (c *UDPConn) SetTTL(n int) error {
	return c.setFamilies(
		func(fd int) error { return sys.SetOption(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, n) },
		func(fd int) error { return sys.SetOption(fd, unix.IPPROTO_IP, unix.IP_TTL, n) })
}

// TTL returns the setting of [UDPConn.SetTTL].
func (c *UDPConn) TTL() (int, error) {
	if c.v6() {
		return c.option(unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS)
	}
	return c.option(unix.IPPROTO_IP, unix.IP_TTL)
}

// SetMulticastTTL sets the number of routers that a message to a multicast group may pass. The
// default is 1, which keeps the message in the local network. For a socket of both families see
// [UDPConn.SetTTL].
func (c *UDPConn) SetMulticastTTL(n int) error {
	return c.setFamilies(
		func(fd int) error { return sys.SetOption(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, n) },
		func(fd int) error { return setByte(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, n) })
}

// MulticastTTL returns the setting of [UDPConn.SetMulticastTTL].
func (c *UDPConn) MulticastTTL() (int, error) {
	if c.v6() {
		return c.option(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS)
	}
	return c.getByte(unix.IPPROTO_IP, unix.IP_MULTICAST_TTL)
}

// SetMulticastLoopback sets whether messages that the socket sends to a multicast group also arrive
// at the sockets of this host that have joined the group. On is the default, except for a socket of
// [ListenMulticastUDP]. For a socket of both families see [UDPConn.SetTTL].
func (c *UDPConn) SetMulticastLoopback(on bool) error {
	return c.setFamilies(
		func(fd int) error {
			return sys.SetOption(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, sys.BoolInt(on))
		},
		func(fd int) error { return setByte(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, sys.BoolInt(on)) })
}

// MulticastLoopback returns the setting of [UDPConn.SetMulticastLoopback].
func (c *UDPConn) MulticastLoopback() (on bool, err error) {
	var v int
	if c.v6() {
		v, err = c.option(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP)
	} else {
		v, err = c.getByte(unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP)
	}
	return v != 0, err
}

// setMulticastInterface sets the interface through which the socket sends messages to multicast
// groups. If ifi is nil, or without this call, the system chooses an interface. An IPv6 socket of
// both families may use an interface that has no IPv4 address.
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

// ipIndex returns the index of an interface. The index 0 lets the system choose.
func ipIndex(ifi *net.Interface) int {
	if ifi == nil {
		return 0
	}
	return ifi.Index
}

// setFamilies sets an option for the socket's family by v6 or v4. If an IPv6 socket serves IPv4,
// too, it sets the option of IPv4 as well. Systems other than Linux may refuse an IPv4 option on
// such a socket, so there the error of v4 is ignored.
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

// JoinGroup makes the socket receive the messages to a multicast group that arrive at the interface
// ifi. If ifi is nil, the system chooses the interface. group is a *net.UDPAddr, whose port does
// not matter, or a *net.IPAddr. The error is a [*net.OpError]. The opposite is
// [UDPConn.LeaveGroup].
func (c *UDPConn) JoinGroup(ifi *net.Interface, group net.Addr) error {
	return c.membership(ifi, group, unix.IP_ADD_MEMBERSHIP, unix.IPV6_JOIN_GROUP)
}

// LeaveGroup undoes [UDPConn.JoinGroup] with the same arguments.
func (c *UDPConn) LeaveGroup(ifi *net.Interface, group net.Addr) error {
	return c.membership(ifi, group, unix.IP_DROP_MEMBERSHIP, unix.IPV6_LEAVE_GROUP)
}

// membership joins or leaves a group, by the option v4 or v6 for the family of the group.
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

// getByte is getsockopt(2) for an option of one byte. The options of IPv4 multicast must have one
// byte on some systems, and may have one byte on all systems.
func (c *conn) getByte(level, name int) (int, error) {
	return c.get(func(fd int) (int, error) {
		b, err := unix.GetsockoptByte(fd, level, name)
		return int(b), err
	})
}

// setByte is setsockopt(2) for an option of one byte. It fails with EINVAL if value does not fit.
func setByte(fd, level, name, value int) error {
	err := error(unix.EINVAL)
	if value >= 0 && value <= 255 {
		err = unix.SetsockoptByte(fd, level, name, byte(value))
	}
	return os.NewSyscallError("setsockopt", err)
}

var errNoIPv4 = errors.New("the interface has no IPv4 address")

// interfaceIPv4 returns an IPv4 address of an interface, or the wildcard address if ifi is nil. An
// interface without an IPv4 address is errNoIPv4.
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

// ListenMulticastUDP opens a socket that receives the messages to a multicast group, as
// [net.ListenMulticastUDP] does. They are received at the interface ifi; if ifi is nil, the system
// chooses the interface. The error is a [*net.OpError].
//
// Other sockets may receive the messages, too, because they may share the port. Messages that this
// socket sends to the group do not arrive at this host, unless [UDPConn.SetMulticastLoopback] is
// switched on.
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

// multicastWildcard returns the network and the address of a socket that receives the messages to a
// group: the wildcard address of the group's family. For IPv4 it restricts the network to this
// family, because 0.0.0.0 of a network without a family would be the wildcard address of both.
func multicastWildcard(n *network, group net.IP) (*network, net.IP) {
	if n.familyOf(&net.UDPAddr{IP: group}, nil) == unix.AF_INET6 {
		return n, net.IPv6zero
	}
	only := n.of(unix.AF_INET)
	return &only, net.IPv4zero
}
