package async

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// netAPI is package net, or this package bound to a task.
type netAPI struct {
	dir          string // for the files of sockets
	dial         func(network, address string) (net.Conn, error)
	dialFrom     func(local net.Addr, network, address string) (net.Conn, error)
	listen       func(network, address string) (net.Listener, error)
	listenPacket func(network, address string) (net.PacketConn, error)
	listenUnix   func(network string, a *net.UnixAddr) (net.Listener, error)
	multicast    func(network string, ifi *net.Interface, group *net.UDPAddr) (net.PacketConn, error)
	fileConn     func(f *os.File) (net.Conn, error)
	fileListener func(f *os.File) (net.Listener, error)
}

func netStdAPI(dir string) netAPI {
	return netAPI{
		dir:  dir,
		dial: net.Dial,
		dialFrom: func(local net.Addr, network, address string) (net.Conn, error) {
			d := net.Dialer{LocalAddr: local}
			return d.Dial(network, address)
		},
		listen:       net.Listen,
		listenPacket: net.ListenPacket,
		listenUnix: func(network string, a *net.UnixAddr) (net.Listener, error) {
			return net.ListenUnix(network, a)
		},
		multicast: func(network string, ifi *net.Interface, group *net.UDPAddr) (net.PacketConn, error) {
			return net.ListenMulticastUDP(network, ifi, group)
		},
		fileConn:     net.FileConn,
		fileListener: net.FileListener,
	}
}

// netBoundListener is a Listener as a net.Listener.
type netBoundListener struct {
	Listener
	cx *Context
}

func (l netBoundListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept(l.cx)
	if err != nil {
		return nil, err
	}
	return BindConn(l.cx, c), nil
}

func (l netBoundListener) SetDeadline(t time.Time) error {
	return l.Listener.(interface{ SetDeadline(time.Time) error }).SetDeadline(t)
}

func netOwnAPI(cx *Context, dir string) netAPI {
	bind := func(c Conn, err error) (net.Conn, error) {
		if err != nil {
			return nil, err
		}
		return BindConn(cx, c), nil
	}
	bindListener := func(l Listener, err error) (net.Listener, error) {
		if err != nil {
			return nil, err
		}
		return netBoundListener{l, cx}, nil
	}
	bindPacket := func(c PacketConn, err error) (net.PacketConn, error) {
		if err != nil {
			return nil, err
		}
		return BindConn(cx, c).(net.PacketConn), nil
	}
	return netAPI{
		dir:  dir,
		dial: func(network, address string) (net.Conn, error) { return bind(Dial(cx, network, address)) },
		dialFrom: func(local net.Addr, network, address string) (net.Conn, error) {
			d := Dialer{LocalAddr: local}
			return bind(d.Dial(cx, network, address))
		},
		listen: func(network, address string) (net.Listener, error) {
			return bindListener(Listen(cx, network, address))
		},
		listenPacket: func(network, address string) (net.PacketConn, error) {
			return bindPacket(ListenPacket(cx, network, address))
		},
		listenUnix: func(network string, a *net.UnixAddr) (net.Listener, error) {
			l, err := ListenUnix(network, a)
			if err != nil {
				return nil, err
			}
			return bindListener(l, nil)
		},
		multicast: func(network string, ifi *net.Interface, group *net.UDPAddr) (net.PacketConn, error) {
			c, err := ListenMulticastUDP(network, ifi, group)
			if err != nil {
				return nil, err
			}
			return bindPacket(c, nil)
		},
		fileConn:     func(f *os.File) (net.Conn, error) { return bind(FileConn(f)) },
		fileListener: func(f *os.File) (net.Listener, error) { return bindListener(FileListener(f)) },
	}
}

// netGoAPI is this package for goroutines.
func netGoAPI(t testing.TB, rt *Runtime, dir string) netAPI {
	form := func(c Conn, err error) (net.Conn, error) {
		if err != nil {
			return nil, err
		}
		return NetConn(rt, c), nil
	}
	listenerForm := func(l Listener, err error) (net.Listener, error) {
		if err != nil {
			return nil, err
		}
		return NetListener(rt, l), nil
	}
	return netAPI{
		dir:  dir,
		dial: func(network, address string) (net.Conn, error) { return rt.DialNet(t.Context(), network, address) },
		dialFrom: func(local net.Addr, network, address string) (net.Conn, error) {
			return form(BlockOn(rt, func(cx *Context) (Conn, error) {
				d := Dialer{LocalAddr: local}
				return d.Dial(cx, network, address)
			}))
		},
		listen: rt.ListenNet,
		listenPacket: func(network, address string) (net.PacketConn, error) {
			c, err := BlockOn(rt, func(cx *Context) (PacketConn, error) { return ListenPacket(cx, network, address) })
			if err != nil {
				return nil, err
			}
			return NetConn(rt, c).(net.PacketConn), nil
		},
		listenUnix: func(network string, a *net.UnixAddr) (net.Listener, error) {
			l, err := ListenUnix(network, a)
			if err != nil {
				return nil, err
			}
			return NetListener(rt, l), nil
		},
		multicast: func(network string, ifi *net.Interface, group *net.UDPAddr) (net.PacketConn, error) {
			c, err := ListenMulticastUDP(network, ifi, group)
			if err != nil {
				return nil, err
			}
			return NetConn(rt, c).(net.PacketConn), nil
		},
		fileConn:     func(f *os.File) (net.Conn, error) { return form(FileConn(f)) },
		fileListener: func(f *os.File) (net.Listener, error) { return listenerForm(FileListener(f)) },
	}
}

// netFormAPIs run fn where a form may be used.
var netFormAPIs = map[string]func(t testing.TB, rt *Runtime, dir string, fn func(api netAPI)){
	"goroutines": func(t testing.TB, rt *Runtime, dir string, fn func(api netAPI)) { fn(netGoAPI(t, rt, dir)) },
	"bound": func(t testing.TB, rt *Runtime, dir string, fn func(api netAPI)) {
		assert.NoError(t, runTask(rt, func(cx *Context) error { fn(netOwnAPI(cx, dir)); return nil }))
	},
}

func (api netAPI) path(name string) string { return filepath.Join(api.dir, name) }

func (api netAPI) dialErr(network, address string) error {
	c, err := api.dial(network, address)
	if err == nil {
		c.Close()
	}
	return err
}

func (api netAPI) listenErr(network, address string) error {
	l, err := api.listen(network, address)
	if err == nil {
		l.Close()
	}
	return err
}

func (api netAPI) packetErr(network, address string) error {
	c, err := api.listenPacket(network, address)
	if err == nil {
		c.Close()
	}
	return err
}

// pair returns the ends of a connection.
func (api netAPI) pair(network, address string, fn func(a, b net.Conn) error) error {
	l, err := api.listen(network, address)
	if err != nil {
		return fmt.Errorf("setup: %v", err)
	}
	defer l.Close()
	a, err := api.dial(network, l.Addr().String())
	if err != nil {
		return fmt.Errorf("setup: %v", err)
	}
	defer a.Close()
	b, err := l.Accept()
	if err != nil {
		return fmt.Errorf("setup: %v", err)
	}
	defer b.Close()
	return fn(a, b)
}

func (api netAPI) unixPair(fn func(a, b net.Conn) error) error {
	return api.pair("unix", api.path("pair"), fn)
}

// packets opens a socket for messages.
func (api netAPI) packets(network, address string, fn func(c net.PacketConn) error) error {
	c, err := api.listenPacket(network, address)
	if err != nil {
		return fmt.Errorf("setup: %v", err)
	}
	defer c.Close()
	return fn(c)
}

func (api netAPI) udp(fn func(c net.PacketConn) error) error {
	return api.packets("udp", "127.0.0.1:0", fn)
}

// peer dials a socket for messages that is open and silent.
func (api netAPI) peer(network, address string, fn func(c net.Conn) error) error {
	return api.packets(network, address, func(p net.PacketConn) error {
		c, err := api.dial(network, p.LocalAddr().String())
		if err != nil {
			return fmt.Errorf("setup: %v", err)
		}
		defer c.Close()
		return fn(c)
	})
}

func netRead(c net.Conn) error  { _, err := c.Read(make([]byte, 8)); return err }
func netWrite(c net.Conn) error { _, err := c.Write([]byte("message")); return err }

func netReadFrom(c net.PacketConn) error { _, _, err := c.ReadFrom(make([]byte, 8)); return err }

func netWriteTo(c net.PacketConn, a net.Addr) error {
	_, err := c.WriteTo([]byte("message"), a)
	return err
}

// netRefused waits for the answer of a host on which the port is closed. The answer follows the
// first or a later message.
func netRefused(c net.Conn, try func(c net.Conn) error) error {
	c.SetDeadline(time.Now().Add(patience))
	for {
		if err := netWrite(c); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		if err := try(c); err != nil {
			return err
		}
	}
}

// The same misuses and failures give the same errors as in package net: in all facts that a program
// can ask of an error, and in their text apart from ports and directories.
func TestNetErrorsAreThoseOfPackageNet(t *testing.T) {
	long := "/" + strings.Repeat("long", 40)
	udpTo := func(a net.Addr) func(api netAPI) error {
		return func(api netAPI) error {
			return api.udp(func(c net.PacketConn) error { return netWriteTo(c, a) })
		}
	}
	cases := map[string]func(api netAPI) error{
		"udp: dial unknown network":   func(api netAPI) error { return api.dialErr("udp5", "127.0.0.1:1") },
		"udp: dial empty address":     func(api netAPI) error { return api.dialErr("udp", "") },
		"udp: dial missing port":      func(api netAPI) error { return api.dialErr("udp", "127.0.0.1") },
		"udp: dial bad port":          func(api netAPI) error { return api.dialErr("udp", "127.0.0.1:no-such-port") },
		"udp: dial bad host":          func(api netAPI) error { return api.dialErr("udp", "no host:80") },
		"udp: dial udp4 with IPv6":    func(api netAPI) error { return api.dialErr("udp4", "[::1]:80") },
		"udp: dial udp6 with IPv4":    func(api netAPI) error { return api.dialErr("udp6", "127.0.0.1:80") },
		"udp: listen unknown network": func(api netAPI) error { return api.packetErr("udp5", "127.0.0.1:0") },
		"udp: listen missing port":    func(api netAPI) error { return api.packetErr("udp", "127.0.0.1") },
		"udp: listen elsewhere":       func(api netAPI) error { return api.packetErr("udp", "203.0.113.1:0") },
		"udp: listen like a stream":   func(api netAPI) error { return api.listenErr("udp", "127.0.0.1:0") },
		"tcp: listen like a datagram": func(api netAPI) error { return api.packetErr("tcp", "127.0.0.1:0") },

		"udp: dial a service of IPv6 with udp4": func(api netAPI) error { return api.dialErr("udp4", "[::1]:domain") },
		"tcp: dial a service":                   func(api netAPI) error { return api.dialErr("tcp", "127.0.0.1:systat") },
		"tcp: dial a service here":              func(api netAPI) error { return api.dialErr("tcp4", ":systat") },
		"tcp: dial no service":                  func(api netAPI) error { return api.dialErr("tcp", "localhost:no-such-port") },
		"tcp: dial no host's service":           func(api netAPI) error { return api.dialErr("tcp", "no host:systat") },
		"tcp: listen elsewhere at a service":    func(api netAPI) error { return api.listenErr("tcp", "203.0.113.1:systat") },
		"tcp: listen at no service":             func(api netAPI) error { return api.listenErr("tcp", ":no-such-port") },
		"tcp: dial a negative port":             func(api netAPI) error { return api.dialErr("tcp", "127.0.0.1:-1") },
		"tcp: dial a port with a sign":          func(api netAPI) error { return api.dialErr("tcp", "127.0.0.1:+1") },
		"tcp: dial a large port":                func(api netAPI) error { return api.dialErr("tcp", "127.0.0.1:65536") },
		"tcp: dial a port that overflows":       func(api netAPI) error { return api.dialErr("tcp", "127.0.0.1:99999999999x") },
		"tcp: dial a sum of ports":              func(api netAPI) error { return api.dialErr("tcp", "127.0.0.1:1+1") },
		"tcp: dial a sign":                      func(api netAPI) error { return api.dialErr("tcp", "127.0.0.1:+") },

		"udp: write to nobody":         udpTo((*net.UDPAddr)(nil)),
		"udp: write to a TCP address":  udpTo(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}),
		"udp: write to IPv6 with IPv4": udpTo(&net.UDPAddr{IP: net.IPv6loopback, Port: 9}),
		"udp: write to port 0":         udpTo(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}),
		"udp: listen in use": func(api netAPI) error {
			return api.udp(func(c net.PacketConn) error { return api.packetErr("udp", c.LocalAddr().String()) })
		},
		"udp: write too long": func(api netAPI) error {
			return api.udp(func(c net.PacketConn) error {
				_, err := c.WriteTo(make([]byte, 70000), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9})
				return err
			})
		},
		"udp: write too long to the peer": func(api netAPI) error {
			return api.peer("udp", "127.0.0.1:0", func(c net.Conn) error { _, err := c.Write(make([]byte, 70000)); return err })
		},
		"udp: write without a peer": func(api netAPI) error {
			return api.udp(func(c net.PacketConn) error { return netWrite(c.(net.Conn)) })
		},
		"udp: write to another than the peer": func(api netAPI) error {
			return api.peer("udp", "127.0.0.1:0", func(c net.Conn) error {
				return netWriteTo(c.(net.PacketConn), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9})
			})
		},
		"udp: WriteMsgUDP without an address": func(api netAPI) error {
			return api.udp(func(c net.PacketConn) error {
				_, _, err := c.(netUDP).WriteMsgUDP([]byte("x"), nil, nil)
				return err
			})
		},
		"udp: WriteMsgUDP to another than the peer": func(api netAPI) error {
			return api.peer("udp", "127.0.0.1:0", func(c net.Conn) error {
				_, _, err := c.(netUDP).WriteMsgUDP([]byte("x"), nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9})
				return err
			})
		},
		"udp: WriteToUDPAddrPort of nothing": func(api netAPI) error {
			return api.udp(func(c net.PacketConn) error {
				_, err := c.(netUDP).WriteToUDPAddrPort([]byte("x"), netip.AddrPort{})
				return err
			})
		},
		"udp: broadcast without leave": func(api netAPI) error {
			return api.udp(func(c net.PacketConn) error {
				raw, err := c.(syscall.Conn).SyscallConn()
				if err != nil {
					return fmt.Errorf("setup: %v", err)
				}
				raw.Control(func(fd uintptr) {
					syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_BROADCAST, 0)
				})
				return netWriteTo(c, &net.UDPAddr{IP: net.IPv4(127, 255, 255, 255), Port: 9})
			})
		},
		"udp: read refused": func(api netAPI) error {
			// A socket with a peer receives from no other socket, and no other socket can use its
			// port.
			return api.peer("udp", "127.0.0.1:0", func(p net.Conn) error {
				c, err := api.dial("udp", p.LocalAddr().String())
				if err != nil {
					return fmt.Errorf("setup: %v", err)
				}
				defer c.Close()
				return netRefused(c, netRead)
			})
		},
		"udp: read closed": func(api netAPI) error {
			return api.udp(func(c net.PacketConn) error { c.Close(); return netReadFrom(c) })
		},
		"udp: write closed": func(api netAPI) error {
			return api.udp(func(c net.PacketConn) error { c.Close(); return netWriteTo(c, c.LocalAddr()) })
		},
		"udp: write closed peer": func(api netAPI) error {
			return api.peer("udp", "127.0.0.1:0", func(c net.Conn) error { c.Close(); return netWrite(c) })
		},
		"udp: closed twice": func(api netAPI) error {
			return api.udp(func(c net.PacketConn) error { c.Close(); return c.Close() })
		},
		"udp: read timeout": func(api netAPI) error {
			return api.udp(func(c net.PacketConn) error {
				c.SetReadDeadline(time.Now().Add(time.Millisecond))
				return netReadFrom(c)
			})
		},
		"udp: write timeout": func(api netAPI) error {
			return api.udp(func(c net.PacketConn) error {
				c.SetWriteDeadline(time.Unix(1, 0))
				return netWriteTo(c, c.LocalAddr())
			})
		},
		"udp: deadline closed": func(api netAPI) error {
			return api.udp(func(c net.PacketConn) error { c.Close(); return c.SetDeadline(time.Time{}) })
		},
		"udp: from a TCP address": func(api netAPI) error {
			_, err := api.dialFrom(&net.TCPAddr{}, "udp", "127.0.0.1:9")
			return err
		},
		"tcp: from a UDP address": func(api netAPI) error {
			_, err := api.dialFrom(&net.UDPAddr{}, "tcp", "127.0.0.1:9")
			return err
		},
		"tcp: from a nil UDP address": func(api netAPI) error {
			_, err := api.dialFrom((*net.UDPAddr)(nil), "tcp", "127.0.0.1:9")
			return err
		},
		"tcp: from a nil IP address": func(api netAPI) error {
			_, err := api.dialFrom((*net.IPAddr)(nil), "tcp", "127.0.0.1:9")
			return err
		},
		"unix: from a nil TCP address": func(api netAPI) error {
			_, err := api.dialFrom((*net.TCPAddr)(nil), "unix", api.path("none"))
			return err
		},
		"tcp: from the other family": func(api netAPI) error {
			_, err := api.dialFrom(&net.TCPAddr{IP: net.IPv6loopback}, "tcp", "127.0.0.1:9")
			return err
		},
		"unix: from a datagram address": func(api netAPI) error {
			_, err := api.dialFrom(&net.UnixAddr{Net: "unixgram", Name: "x"}, "unix", api.path("none"))
			return err
		},
		"udp: multicast without a group": func(api netAPI) error {
			_, err := api.multicast("udp", nil, nil)
			return err
		},
		"udp: multicast of an unknown network": func(api netAPI) error {
			_, err := api.multicast("tcp", nil, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 254), Port: 9})
			return err
		},

		"unix: dial nothing":            func(api netAPI) error { return api.dialErr("unix", "") },
		"unix: dial a missing file":     func(api netAPI) error { return api.dialErr("unix", api.path("none")) },
		"unix: dial a plain file":       func(api netAPI) error { return api.dialErr("unix", api.path("plain")) },
		"unix: dial a directory":        func(api netAPI) error { return api.dialErr("unix", api.dir) },
		"unix: dial beneath a file":     func(api netAPI) error { return api.dialErr("unix", api.path("plain/x")) },
		"unix: dial a long path":        func(api netAPI) error { return api.dialErr("unix", long) },
		"unix: dial an abstract name":   func(api netAPI) error { return api.dialErr("unix", "@async test nobody") },
		"unix: dial an unknown network": func(api netAPI) error { return api.dialErr("unix5", api.path("none")) },
		"unix: listen on a plain file":  func(api netAPI) error { return api.listenErr("unix", api.path("plain")) },
		"unix: listen beneath nothing":  func(api netAPI) error { return api.listenErr("unix", api.path("none/x")) },
		"unix: listen on a long path":   func(api netAPI) error { return api.listenErr("unix", long) },
		"unix: listen on nil": func(api netAPI) error {
			_, err := api.listenUnix("unix", nil)
			return err
		},
		"unix: listen on an unknown network": func(api netAPI) error {
			_, err := api.listenUnix("unixgram", &net.UnixAddr{Name: api.path("x"), Net: "unixgram"})
			return err
		},
		"unix: listen in use": func(api netAPI) error {
			return api.unixPair(func(a, b net.Conn) error { return api.listenErr("unix", api.path("pair")) })
		},
		"unix: dial after close": func(api netAPI) error {
			if err := api.listenErr("unix", api.path("gone")); err != nil {
				return fmt.Errorf("setup: %v", err)
			}
			return api.dialErr("unix", api.path("gone"))
		},
		"unix: dial what nobody listens on": func(api netAPI) error {
			l, err := api.listenUnix("unix", &net.UnixAddr{Name: api.path("left"), Net: "unix"})
			if err != nil {
				return fmt.Errorf("setup: %v", err)
			}
			type unlinker interface{ SetUnlinkOnClose(bool) }
			if b, ok := l.(netBoundListener); ok {
				b.Listener.(unlinker).SetUnlinkOnClose(false)
			} else {
				l.(unlinker).SetUnlinkOnClose(false)
			}
			l.Close()
			defer os.Remove(api.path("left"))
			return api.dialErr("unix", api.path("left"))
		},
		"unix: accept closed": func(api netAPI) error {
			l, err := api.listen("unix", api.path("closed"))
			if err != nil {
				return fmt.Errorf("setup: %v", err)
			}
			l.Close()
			_, err = l.Accept()
			return err
		},
		"unix: accept timeout": func(api netAPI) error {
			l, err := api.listen("unix", api.path("late"))
			if err != nil {
				return fmt.Errorf("setup: %v", err)
			}
			defer l.Close()
			l.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Unix(1, 0))
			_, err = l.Accept()
			return err
		},
		"unix: listener closed twice": func(api netAPI) error {
			l, err := api.listen("unix", api.path("twice"))
			if err != nil {
				return fmt.Errorf("setup: %v", err)
			}
			l.Close()
			return l.Close()
		},
		"unix: read the end": func(api netAPI) error {
			return api.unixPair(func(a, b net.Conn) error { b.Close(); return netRead(a) })
		},
		"unix: write to nobody": func(api netAPI) error {
			return api.unixPair(func(a, b net.Conn) error { b.Close(); return netWrite(a) })
		},
		"unix: write after CloseWrite": func(api netAPI) error {
			return api.unixPair(func(a, b net.Conn) error {
				a.(interface{ CloseWrite() error }).CloseWrite()
				return netWrite(a)
			})
		},
		"unix: read what the peer left unread": func(api netAPI) error {
			return api.unixPair(func(a, b net.Conn) error {
				if err := netWrite(a); err != nil {
					return fmt.Errorf("setup: %v", err)
				}
				b.Close()
				return netRead(a) // reset
			})
		},
		"unix: read closed": func(api netAPI) error {
			return api.unixPair(func(a, b net.Conn) error { a.Close(); return netRead(a) })
		},
		"unix: write closed, accepted": func(api netAPI) error {
			return api.unixPair(func(a, b net.Conn) error { b.Close(); return netWrite(b) })
		},
		"unix: read timeout": func(api netAPI) error {
			return api.unixPair(func(a, b net.Conn) error { a.SetReadDeadline(time.Unix(1, 0)); return netRead(a) })
		},
		"unix: CloseRead closed": func(api netAPI) error {
			return api.unixPair(func(a, b net.Conn) error {
				a.Close()
				return a.(interface{ CloseRead() error }).CloseRead()
			})
		},
		"unixpacket: read the end": func(api netAPI) error {
			return api.pair("unixpacket", api.path("pair"), func(a, b net.Conn) error { b.Close(); return netRead(a) })
		},
		"unixpacket: write to nobody": func(api netAPI) error {
			return api.pair("unixpacket", api.path("pair"), func(a, b net.Conn) error { b.Close(); return netWrite(a) })
		},
		"unixpacket: dial a stream": func(api netAPI) error {
			return api.unixPair(func(a, b net.Conn) error { return api.dialErr("unixpacket", api.path("pair")) })
		},
		"unixgram: dial a missing file": func(api netAPI) error { return api.dialErr("unixgram", api.path("none")) },
		"unixgram: dial a stream": func(api netAPI) error {
			return api.unixPair(func(a, b net.Conn) error { return api.dialErr("unixgram", api.path("pair")) })
		},
		"unixgram: listen in use": func(api netAPI) error {
			return api.packets("unixgram", api.path("gram"), func(c net.PacketConn) error {
				defer os.Remove(api.path("gram"))
				return api.packetErr("unixgram", api.path("gram"))
			})
		},
		"unixgram: write to a missing file": func(api netAPI) error {
			return api.packets("unixgram", api.path("gram"), func(c net.PacketConn) error {
				defer os.Remove(api.path("gram"))
				return netWriteTo(c, &net.UnixAddr{Name: api.path("none"), Net: "unixgram"})
			})
		},
		"unixgram: write to a stream address": func(api netAPI) error {
			return api.packets("unixgram", api.path("gram"), func(c net.PacketConn) error {
				defer os.Remove(api.path("gram"))
				return netWriteTo(c, &net.UnixAddr{Name: api.path("none"), Net: "unix"})
			})
		},
		"unixgram: write to a UDP address": func(api netAPI) error {
			return api.packets("unixgram", api.path("gram"), func(c net.PacketConn) error {
				defer os.Remove(api.path("gram"))
				return netWriteTo(c, &net.UDPAddr{})
			})
		},
		"unixgram: write to nobody": func(api netAPI) error {
			return api.packets("unixgram", api.path("gram"), func(c net.PacketConn) error {
				defer os.Remove(api.path("gram"))
				return netWriteTo(c, (*net.UnixAddr)(nil))
			})
		},
		"unixgram: write to another than the peer": func(api netAPI) error {
			defer os.Remove(api.path("gram"))
			return api.peer("unixgram", api.path("gram"), func(c net.Conn) error {
				return netWriteTo(c.(net.PacketConn), &net.UnixAddr{Name: api.path("none"), Net: "unixgram"})
			})
		},
		"unixgram: write to a peer that is gone": func(api netAPI) error {
			defer os.Remove(api.path("gram"))
			return api.packets("unixgram", api.path("gram"), func(p net.PacketConn) error {
				c, err := api.dial("unixgram", api.path("gram"))
				if err != nil {
					return fmt.Errorf("setup: %v", err)
				}
				defer c.Close()
				p.Close()
				return netWrite(c)
			})
		},
		"unixgram: write too long": func(api netAPI) error {
			defer os.Remove(api.path("gram"))
			return api.peer("unixgram", api.path("gram"), func(c net.Conn) error {
				_, err := c.Write(make([]byte, 16<<20))
				return err
			})
		},

		"file: plain": func(api netAPI) error {
			f, err := os.Open(api.path("plain"))
			if err != nil {
				return fmt.Errorf("setup: %v", err)
			}
			defer f.Close()
			_, err = api.fileConn(f)
			return err
		},
		"file: listener of a pipe": func(api netAPI) error {
			r, w, err := os.Pipe()
			if err != nil {
				return fmt.Errorf("setup: %v", err)
			}
			defer r.Close()
			defer w.Close()
			_, err = api.fileListener(r)
			return err
		},
		"file: closed": func(api netAPI) error {
			f, err := os.Open(api.path("plain"))
			if err != nil {
				return fmt.Errorf("setup: %v", err)
			}
			f.Close()
			if _, err = api.fileConn(f); err == nil {
				return nil
			}
			return errors.New("refused")
		},
	}
	for name, fn := range cases {
		t.Run(name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 1})
			dir := netDir(t)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "plain"), nil, 0o600))
			want := fn(netStdAPI(dir))
			require.Error(t, want)
			require.NotContains(t, want.Error(), "setup")
			for form, run := range netFormAPIs {
				var got error
				run(t, rt, dir, func(api netAPI) { got = fn(api) })
				require.Error(t, got, form)
				assert.Equal(t, netErrorFacts(want), netErrorFacts(got), form)
			}
			left, err := filepath.Glob(filepath.Join(dir, "*"))
			require.NoError(t, err)
			require.Len(t, left, 1, "files of sockets are left")
		})
	}
}

// Package net opens a socket here; this package returns an error.
func TestNetListenInAWayTheNetworkDoesNotKnow(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	require.NoError(t, runTask(rt, func(cx *Context) error {
		api := netOwnAPI(cx, netDir(t))
		var addr *net.AddrError
		if err := api.listenErr("unixgram", api.path("x")); !errors.As(err, &addr) {
			return fmt.Errorf("a listener of datagrams: %v", err)
		}
		if err := api.packetErr("unix", api.path("x")); !errors.As(err, &addr) {
			return fmt.Errorf("messages of a stream: %v", err)
		}
		return nil
	}))
}

// netUDP is the methods of a *net.UDPConn. Both forms of a *UDPConn have them.
type netUDP interface {
	net.Conn
	net.PacketConn
	syscall.Conn
	ReadFromUDP(p []byte) (int, *net.UDPAddr, error)
	ReadFromUDPAddrPort(p []byte) (int, netip.AddrPort, error)
	ReadMsgUDP(p, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error)
	ReadMsgUDPAddrPort(p, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error)
	WriteToUDP(p []byte, addr *net.UDPAddr) (int, error)
	WriteToUDPAddrPort(p []byte, addr netip.AddrPort) (int, error)
	WriteMsgUDP(p, oob []byte, addr *net.UDPAddr) (n, oobn int, err error)
	WriteMsgUDPAddrPort(p, oob []byte, addr netip.AddrPort) (n, oobn int, err error)
	SetReadBuffer(int) error
	SetWriteBuffer(int) error
	File() (*os.File, error)
}

var (
	_ netUDP = (*net.UDPConn)(nil)
	_ netUDP = (*boundUDPConn)(nil)
	_ netUDP = (*netUDPConn)(nil)
)

// netConnect returns the ends of a new connection to a listener.
func netConnect(cx *Context, ln Listener) (dialled, accepted Conn, err error) {
	dialled, err = Dial(cx, ln.Addr().Network(), ln.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	if accepted, err = ln.Accept(cx); err != nil {
		dialled.Close()
		return nil, nil, err
	}
	return dialled, accepted, nil
}

// netDir returns a directory with a short name, because the name of a socket must be short.
func netDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "a")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

var netPort = regexp.MustCompile(`(\.0\.0\.1|\]):\d{4,5}`)

// netErrorFacts is tcpErrorFacts, with the facts of errors of other networks, too.
func netErrorFacts(err error) map[string]any {
	facts := tcpErrorFacts(err)
	if addr, ok := facts["addr"].(string); ok {
		facts["addr"] = strings.Replace(addr, "async.", "net.", 1)
	}
	facts["text"] = netPort.ReplaceAllString(err.Error(), "$1:port")
	for _, target := range []error{
		os.ErrNotExist, os.ErrPermission, os.ErrExist, net.ErrWriteToConnected,
		syscall.EACCES, syscall.ENOENT, syscall.EMSGSIZE, syscall.EDESTADDRREQ, syscall.EPROTOTYPE,
		syscall.EAFNOSUPPORT, syscall.ENOTSOCK, syscall.ENOTDIR, io.ErrUnexpectedEOF,
	} {
		facts["is "+target.Error()] = errors.Is(err, target)
	}
	return facts
}
