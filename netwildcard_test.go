package async

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// netOutcome is the result of a dial or a listen, as far as a program can observe it.
type netOutcome struct {
	failure       map[string]any
	sockets       []string // the network and the address of each, as Control has got them
	local, remote string
	v6only        int
	reachable     []string // the networks by which a peer can connect
}

// netHost describes an address without its port.
func netHost(a net.Addr) string {
	return fmt.Sprintf("%T %s, %d bytes", a, ipOf(a), len(ipOf(a)))
}

func netConnOutcome(c net.Conn, err error) (o netOutcome) {
	if err != nil {
		o.failure = netErrorFacts(err)
		return o
	}
	o.local, o.remote = netHost(c.LocalAddr()), netHost(c.RemoteAddr())
	if tcp, ok := c.(interface{ SetLinger(int) error }); ok {
		tcp.SetLinger(0) // no connection keeps its port after its end
	}
	c.Close()
	return o
}

// netWildcards are the ways to write a wildcard IP.
var netWildcards = map[string]net.IP{
	"nil":                      nil,
	"empty":                    {},
	"0.0.0.0":                  net.IPv4zero.To4(),
	"0.0.0.0 in 16 bytes":      net.IPv4zero,
	"::":                       net.IPv6unspecified,
	"127.0.0.1":                net.IPv4(127, 0, 0, 1).To4(),
	"127.0.0.1 in 16 bytes":    net.IPv4(127, 0, 0, 1),
	"127.0.0.2":                net.IPv4(127, 0, 0, 2),
	"::1":                      net.IPv6loopback,
	"three bytes":              {1, 2, 3},
	"203.0.113.1, of no host":  net.IPv4(203, 0, 113, 1),
	"2001:db8::1, of no host":  net.ParseIP("2001:db8::1"),
	"224.0.0.254, of a group":  net.IPv4(224, 0, 0, 254),
	"ff02::114, of a group":    net.ParseIP("ff02::114"),
	"fe80::1, without a zone":  net.ParseIP("fe80::1"),
	"255.255.255.255, of many": net.IPv4bcast,
}

// netListeners opens one socket of package net for each form of address, and
// calls fn with the socket's own address.
func netListeners(t *testing.T, proto string, addresses []string, fn func(name, at string)) {
	for _, family := range []string{"", "4", "6"} {
		for _, address := range addresses {
			var at net.Addr
			if proto == "tcp" {
				ln, err := net.Listen(proto+family, address)
				if err != nil {
					continue // see TestNetListenersAreThoseOfPackageNet
				}
				done := make(chan struct{})
				go func() { // keeps the backlog from filling up
					defer close(done)
					for {
						c, err := ln.Accept()
						if errors.Is(err, net.ErrClosed) {
							return
						}
						if err == nil {
							c.Close()
						}
					}
				}()
				defer func() { ln.Close(); <-done }()
				at = ln.Addr()
			} else {
				c, err := net.ListenPacket(proto+family, address)
				if err != nil {
					continue
				}
				defer c.Close()
				at = c.LocalAddr()
			}
			fn(fmt.Sprintf("%s%s %s", proto, family, address), at.String())
		}
	}
}

// A dial has the same sockets, addresses and error texts as in package net. It dials the address of
// a listener and each way to write a wildcard, from each way to write a local address.
//
// There is one intended difference. If LocalAddr is a nil pointer, the Source of an error is nil;
// in package net it is an interface that holds the nil pointer.
func TestNetWildcardsAreDialledAsByPackageNet(t *testing.T) {
	for _, proto := range []string{"tcp", "udp"} {
		locals := map[string]net.Addr{"none": nil}
		addr := func(ip net.IP) net.Addr { return &net.TCPAddr{IP: ip} }
		locals["nil pointer"] = (*net.TCPAddr)(nil)
		if proto == "udp" {
			addr = func(ip net.IP) net.Addr { return &net.UDPAddr{IP: ip} }
			locals["nil pointer"] = (*net.UDPAddr)(nil)
		}
		for _, name := range []string{"nil", "empty", "0.0.0.0", "::", "127.0.0.1", "127.0.0.2", "::1", "three bytes"} {
			locals[name] = addr(netWildcards[name])
		}
		t.Run(proto, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 1})
			all := []string{":0", "0.0.0.0:0", "[::]:0", "127.0.0.1:0", "[::1]:0"}
			netListeners(t, proto, all, func(listener, at string) {
				_, port, err := net.SplitHostPort(at)
				require.NoError(t, err)
				dialled := []string{at, ":" + port}
				for _, host := range []string{"::", "0.0.0.0", "127.0.0.1", "::1", "::ffff:127.0.0.1", "::ffff:0.0.0.0"} {
					dialled = append(dialled, net.JoinHostPort(host, port))
				}
				require.NoError(t, runTask(rt, func(cx *Context) error {
					for _, family := range []string{"", "4", "6"} {
						for _, address := range dialled {
							for name, local := range locals {
								var want, got netOutcome
								// About once in several thousand dials the system chooses the port
								// that is dialled. The dial then needs another socket.
								for again := 0; again < 3 && (again == 0 || !assert.ObjectsAreEqual(want, got)); again++ {
									want = netDialOutcome(local, proto+family, address)
									if name == "nil pointer" && want.failure != nil {
										want.failure["source"] = "<nil>"
										want.failure["text"] = strings.Replace(want.failure["text"].(string), "<nil>->", "", 1)
									}
									got = ownDialOutcome(cx, local, proto+family, address)
								}
								if !assert.Equal(t, want, got, "%s %s, where %s listens, from %s", proto+family, address, listener, name) {
									return errors.New("and so on")
								}
							}
						}
					}
					return nil
				}))
			})
		})
	}
}

// netDialOutcome dials with package net. The second of two addresses is tried only when the first
// has failed, also on a slow machine.
func netDialOutcome(local net.Addr, network, address string) netOutcome {
	var sockets []string
	d := net.Dialer{LocalAddr: local, FallbackDelay: time.Hour, Control: func(network, address string, c syscall.RawConn) error {
		sockets = append(sockets, network+" "+address)
		return nil
	}}
	o := netConnOutcome(d.Dial(network, address))
	o.sockets = sockets
	return o
}

func ownDialOutcome(cx *Context, local net.Addr, network, address string) netOutcome {
	var sockets []string
	d := Dialer{LocalAddr: local, FallbackDelay: time.Hour, Control: func(network, address string, c syscall.RawConn) error {
		sockets = append(sockets, network+" "+address)
		return nil
	}}
	c, err := d.Dial(cx, network, address)
	var o netOutcome
	if err != nil {
		o = netConnOutcome(nil, err)
	} else {
		o = netConnOutcome(BindConn(cx, c), nil)
	}
	o.sockets = sockets
	return o
}

// The same for the functions that take a net.Addr.
func TestNetWildcardAddressesAreDialledAsByPackageNet(t *testing.T) {
	for _, proto := range []string{"tcp", "udp"} {
		t.Run(proto, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 1})
			netListeners(t, proto, []string{":0"}, func(listener, at string) {
				addr, err := net.ResolveTCPAddr("tcp", at)
				require.NoError(t, err)
				require.NoError(t, runTask(rt, func(cx *Context) error {
					for _, family := range []string{"", "4", "6"} {
						for from, local := range netWildcards {
							for to, remote := range netWildcards {
								if strings.Contains(to, ", of") && proto == "tcp" {
									continue // the answer would be that of another machine, or there is none
								}
								want, got := dialAddrOutcomes(cx, proto+family, local, &net.TCPAddr{IP: remote, Port: addr.Port})
								if !assert.Equal(t, want, got, "%s %s, where %s listens, from %s", proto+family, to, listener, from) {
									return errors.New("and so on")
								}
							}
						}
						want, got := dialAddrOutcomes(cx, proto+family, nil, &net.TCPAddr{IP: addr.IP, Port: 1 << 16})
						if !assert.Equal(t, want, got) {
							return errors.New("a large port")
						}
					}
					return nil
				}))
			})
		})
	}
}

func dialAddrOutcomes(cx *Context, network string, local net.IP, remote *net.TCPAddr) (std, own netOutcome) {
	if strings.HasPrefix(network, "udp") {
		l, r := &net.UDPAddr{IP: local}, (*net.UDPAddr)(remote)
		c, err := net.DialUDP(network, l, r)
		std = netConnOutcome(c, err)
		u, err := DialUDP(network, l, r)
		if err != nil {
			return std, netConnOutcome(nil, err)
		}
		return std, netConnOutcome(BindConn(cx, u), nil)
	}
	l := &net.TCPAddr{IP: local}
	c, err := net.DialTCP(network, l, remote)
	std = netConnOutcome(c, err)
	u, err := DialTCP(cx, network, l, remote)
	if err != nil {
		return std, netConnOutcome(nil, err)
	}
	return std, netConnOutcome(BindConn(cx, u), nil)
}

// A listener has the same families as in package net: it has the same address, and the same peers
// can connect. This is tested for wildcards and other addresses.
func TestNetListenersAreThoseOfPackageNet(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for _, network := range []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"} {
		compare := func(name string, outcomes func(cx *Context) (std, own netOutcome)) {
			require.NoError(t, runTask(rt, func(cx *Context) error {
				std, own := outcomes(cx)
				for again := 0; again < 3 && !assert.ObjectsAreEqual(std, own); again++ {
					std, own = outcomes(cx) // another program may have the port of the other family
				}
				assert.Equal(t, std, own, "%s %s", network, name)
				return nil
			}))
		}
		hosts := []string{
			"", "0.0.0.0", "[::]", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:0.0.0.0]",
			"203.0.113.1", "[2001:db8::1]", "224.0.0.254", "[ff02::114]",
		}
		for _, host := range hosts {
			compare(host, func(cx *Context) (std, own netOutcome) { return listenOutcomes(cx, network, host+":0") })
		}
		for name, ip := range netWildcards {
			compare("with an address: "+name, func(cx *Context) (std, own netOutcome) {
				return listenAddrOutcomes(cx, network, &net.TCPAddr{IP: ip})
			})
		}
		for _, port := range []int{-1, 1 << 16} {
			compare("with a bad port", func(cx *Context) (std, own netOutcome) {
				return listenAddrOutcomes(cx, network, &net.TCPAddr{Port: port})
			})
		}
	}
}

func listenOutcomes(cx *Context, network, address string) (std, own netOutcome) {
	var sockets []string
	control := func(network, address string, c syscall.RawConn) error {
		sockets = append(sockets, network+" "+address)
		return nil
	}
	stdConfig, ownConfig := net.ListenConfig{Control: control}, ListenConfig{Control: control}
	stdConfig.SetMultipathTCP(false) // otherwise it would fail twice
	if strings.HasPrefix(network, "udp") {
		c, err := stdConfig.ListenPacket(context.Background(), network, address)
		std = listenOutcome(c, err)
		std.sockets, sockets = sockets, nil
		p, err := ownConfig.ListenPacket(cx, network, address)
		if err == nil {
			c, err = netOwnPacketConn(cx, p.(*UDPConn))
		}
		own = listenOutcome(c, err)
	} else {
		ln, err := stdConfig.Listen(context.Background(), network, address)
		std = listenOutcome(ln, err)
		std.sockets, sockets = sockets, nil
		l, err := ownConfig.Listen(cx, network, address)
		if err == nil {
			ln = NetListener(cx, l)
		}
		own = listenOutcome(ln, err)
	}
	own.sockets = sockets
	return std, own
}

func listenAddrOutcomes(cx *Context, network string, a *net.TCPAddr) (std, own netOutcome) {
	if strings.HasPrefix(network, "udp") {
		c, err := net.ListenUDP(network, (*net.UDPAddr)(a))
		std = listenOutcome(c, err)
		u, err := ListenUDP(network, (*net.UDPAddr)(a))
		if err != nil {
			return std, listenOutcome(nil, err)
		}
		return std, listenOutcome(netOwnPacketConn(cx, u))
	}
	c, err := net.ListenTCP(network, a)
	std = listenOutcome(c, err)
	l, err := ListenTCP(network, a)
	if err != nil {
		return std, listenOutcome(nil, err)
	}
	return std, listenOutcome(NetListener(cx, l), nil)
}

// netOwnPacketConn makes a connection of package net of the socket of c, and closes c.
func netOwnPacketConn(cx *Context, c *UDPConn) (*net.UDPConn, error) {
	defer c.Close()
	f, err := c.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := net.FilePacketConn(f)
	if err != nil {
		return nil, err
	}
	return p.(*net.UDPConn), nil
}

// listenOutcome returns the outcome of a listen, and closes the listener.
func listenOutcome(l any, err error) (o netOutcome) {
	if err != nil {
		o.failure = netErrorFacts(err)
		return o
	}
	var at net.Addr
	peers := map[string]string{"4": "127.0.0.1", "6": "::1"}
	comes := func(family, address string) bool {
		c, err := net.Dial(at.Network()+family, address)
		if err != nil {
			return false
		}
		defer c.Close()
		if at.Network() == "tcp" {
			c.(*net.TCPConn).SetLinger(0)
			return true
		}
		c.SetDeadline(time.Now().Add(patience))
		_, err = c.Write([]byte("message"))
		if err == nil {
			_, err = c.Read(make([]byte, 8)) // the echo, or the error that no socket is there
		}
		return err == nil
	}
	switch l := l.(type) {
	case net.Listener:
		defer l.Close()
		at = l.Addr()
	case *net.UDPConn:
		at = l.LocalAddr()
		if raw, err := l.SyscallConn(); err == nil { // for TCP, the protocol of the socket of package net differs
			raw.Control(func(fd uintptr) {
				o.v6only, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
			})
		}
		defer netEcho(l)()
	}
	o.local = netHost(at)
	for family, host := range peers {
		_, port, _ := net.SplitHostPort(at.String())
		if comes(family, net.JoinHostPort(host, port)) {
			o.reachable = append(o.reachable, family)
		}
	}
	slices.Sort(o.reachable)
	return o
}

// netEcho sends each message back until stop is called, which closes c.
func netEcho(c *net.UDPConn) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		p := make([]byte, 64)
		for {
			n, from, err := c.ReadFromUDPAddrPort(p)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				c.WriteToUDPAddrPort(p[:n], from)
			}
		}
	}()
	return func() { c.Close(); <-done }
}

// On systems that cannot connect to a wildcard, the dial uses the loopback address.
func TestThisHost(t *testing.T) {
	for network, want := range map[string]string{"tcp": "127.0.0.1", "udp4": "127.0.0.1", "tcp6": "::1"} {
		n, err := networkOf(network, "tcp", "udp")
		require.NoError(t, err)
		for name, ip := range netWildcards {
			a := n.ipAddr(ip, 80, "zone")
			got := thisHost(n, a)
			if len(ip) > 0 && !ip.IsUnspecified() {
				require.Same(t, a, got, name)
				continue
			}
			require.Equal(t, n.ipAddr(net.ParseIP(want), 80, "zone"), got, name)
		}
	}
	file := &net.UnixAddr{Name: "s"}
	require.Same(t, file, thisHost(&network{family: unix.AF_UNIX}, file))
}
