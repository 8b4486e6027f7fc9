package async

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// eyeballs is a host of several addresses, all with the same port. At the first address a connect
// hangs, since the backlog is full. At the second no socket listens. The third accepts.
type eyeballs struct {
	hangs, refuses, accepts string
	port                    string
	dns                     *dnsServer
	ln                      *TCPListener
}

func newEyeballs(t testing.TB) *eyeballs {
	t.Helper()
	e := &eyeballs{hangs: "127.0.0.1", refuses: "127.0.0.2", accepts: "127.0.0.3"}
	var err error
	_, e.port, err = net.SplitHostPort(tcpFullBacklog(t.(*testing.T)))
	require.NoError(t, err)
	addr, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(e.accepts, e.port))
	require.NoError(t, err)
	e.ln, err = ListenTCP("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { e.ln.Close() })
	e.dns = newDNS(t, false, map[string][]dnsRecord{
		"hangs-first.test.":   dnsAddrs(e.hangs, e.accepts),
		"hangs.test.":         dnsAddrs(e.hangs),
		"refuses-first.test.": dnsAddrs(e.refuses, e.accepts),
		"refuses.test.":       dnsAddrs(e.refuses, "127.0.0.4"),
		"hangs-twice.test.":   dnsAddrs(e.hangs, e.hangs, e.accepts),
		"mixed.test.":         dnsAddrs("127.0.0.1", "::1", "127.0.0.2", "127.0.0.3"),
		"refuses-hangs.test.": dnsAddrs(e.refuses, e.hangs),
		"hangs-refuses.test.": dnsAddrs(e.hangs, e.refuses),
		"first-of-15.test.":   dnsAddrs(append([]string{e.hangs}, slices.Repeat([]string{e.accepts}, 14)...)...),
	})
	return e
}

func (e *eyeballs) addr(name string) string { return net.JoinHostPort(name+".test.", e.port) }

func (e *eyeballs) dialer() *Dialer { return &Dialer{Resolver: e.dns.resolver()} }

// reached dials and returns the address that it has reached.
func reached(cx *Context, d *Dialer, addr string) (string, error) {
	c, err := d.Dial(cx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	return host, err
}

func sources(rt *Runtime) (n int) {
	for _, w := range rt.workers {
		n += int(w.reactor.registered.Load())
	}
	return n
}

// If an attempt hangs, the next begins beside it after the delay. If an attempt fails, the next
// begins at once. The first connection wins, and the other connections are closed.
func TestDialerHappyEyeballs(t *testing.T) {
	for _, way := range tcpWays {
		t.Run(way.name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			e := newEyeballs(t)
			require.NoError(t, way.run(rt, func(cx *Context) error {
				for name, delay := range map[string]time.Duration{
					"hangs-first":   5 * time.Millisecond,
					"hangs-twice":   5 * time.Millisecond,
					"refuses-first": time.Hour,
				} {
					d := e.dialer()
					d.FallbackDelay = delay
					begun := time.Now()
					got, err := reached(cx, d, e.addr(name))
					if err != nil || got != e.accepts {
						return fmt.Errorf("%s: reached %q, %v", name, got, err)
					}
					if strings.HasPrefix(name, "hangs") && time.Since(begun) < delay {
						return fmt.Errorf("%s: the second began too early", name)
					}
				}
				if n := sources(rt); n != 0 {
					return fmt.Errorf("%d sockets are still waited for", n)
				}
				return nil
			}))
		})
	}
}

func TestDialerDefaultDelay(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	e := newEyeballs(t)
	begun := time.Now()
	require.NoError(t, runTask(rt, func(cx *Context) error {
		_, err := reached(cx, e.dialer(), e.addr("hangs-first"))
		return err
	}))
	require.GreaterOrEqual(t, time.Since(begun), 250*time.Millisecond)
}

// The name of a service is looked up off the worker, like the name of a host. A number is not
// looked up.
func TestDialerServiceNames(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for address, port := range map[string]int{"127.0.0.1:http": 80, ":https": 443, "localhost:domain": 53} {
		parsed, err := parseDialTarget("dial", "tcp", address)
		require.NoError(t, err)
		require.Nil(t, parsed.list, address)
		require.NoError(t, runTask(rt, func(cx *Context) error {
			if err := parsed.resolved(Await(cx, parsed.lookup(nil))); err != nil {
				return err
			}
			for _, a := range parsed.list {
				assert.Equal(t, port, a.(*net.TCPAddr).Port)
			}
			assert.NotEmpty(t, parsed.list)
			return nil
		}))
	}
	for address, port := range map[string]int{"127.0.0.1:80": 80, "127.0.0.1:": 0, ":+443": 443, "[::1]:053": 53} {
		parsed, err := parseDialTarget("dial", "tcp", address)
		require.NoError(t, err)
		require.Len(t, parsed.list, 1, address)
		require.Equal(t, port, parsed.list[0].(*net.TCPAddr).Port)
	}
}

func TestDialerFailures(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	e := newEyeballs(t)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		var op *net.OpError
		d := e.dialer()
		_, err := d.Dial(cx, "tcp", e.addr("refuses"))
		if !errors.Is(err, syscall.ECONNREFUSED) || !errors.As(err, &op) || op.Addr.String() != net.JoinHostPort(e.refuses, e.port) {
			return fmt.Errorf("the first one's failure, but: %v", err)
		}
		// The attempts follow each other: the first hangs, and the second is never tried.
		d.FallbackDelay, d.Timeout = -1, 20*time.Millisecond
		for d.Timeout < patience {
			_, err = d.Dial(cx, "tcp", e.addr("hangs-first"))
			if errors.As(err, &op) && op.Addr != nil {
				break
			}
			d.Timeout *= 2 // the look-up has taken all of the time
		}
		if !errors.Is(err, context.DeadlineExceeded) || !op.Timeout() ||
			op.Addr == nil || op.Addr.String() != net.JoinHostPort(e.hangs, e.port) {
			return fmt.Errorf("a timeout, but: %v", err)
		}
		d.Timeout = patience
		if got, err := reached(cx, d, e.addr("refuses-first")); err != nil || got != e.accepts {
			return fmt.Errorf("reached %q, %v", got, err)
		}
		d = e.dialer()
		d.Deadline = time.Now()
		if _, err = d.Dial(cx, "tcp", e.addr("refuses")); !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("the deadline was before: %v", err)
		}
		if _, err = d.Dial(cx, "tcp", net.JoinHostPort(e.refuses, e.port)); !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("the deadline was before, and nothing is to be looked up: %v", err)
		}
		d.Deadline, d.Timeout = time.Time{}, -1
		if _, err = d.Dial(cx, "tcp", e.addr("refuses")); !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("a negative timeout: %v", err)
		}
		var dns *net.DNSError
		if _, err = e.dialer().Dial(cx, "tcp", e.addr("none")); !errors.As(err, &dns) || !dns.IsNotFound || !errors.As(err, &op) {
			return fmt.Errorf("no such host: %v", err)
		}
		if n := sources(rt); n != 0 {
			return fmt.Errorf("%d sockets are still waited for", n)
		}
		return nil
	}))
}

// The time that is left is divided as in package net.
func TestDialerTimeShare(t *testing.T) {
	const s = int64(time.Second)
	for _, c := range []struct {
		left int64
		n    int
		want int64
	}{
		{60 * s, 4, 15 * s}, {60 * s, 1, 60 * s}, {30 * s, 15, 2 * s}, {30 * s, 16, 2 * s}, {3 * s, 2, 2 * s}, {2 * s, 2, 2 * s}, {s, 2, s}, {s, 1, s},
	} {
		require.Equal(t, c.want, timeShare(c.left, c.n), "%v", c)
	}
	require.LessOrEqual(t, timeShare(-s, 3), int64(0))
}

// With a negative FallbackDelay, an address that does not answer takes only its share of the time.
// It does not matter where the deadline was set.
func TestDialerSharesTheTime(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	e := newEyeballs(t)
	const timeout = 30 * time.Second // of which each of 15 addresses is given 2
	dials := map[string]func(cx *Context, d *Dialer) (string, error){
		"Timeout": func(cx *Context, d *Dialer) (string, error) {
			d.Timeout = timeout
			return reached(cx, d, e.addr("first-of-15"))
		},
		"Deadline": func(cx *Context, d *Dialer) (string, error) {
			d.Deadline = time.Now().Add(timeout)
			return reached(cx, d, e.addr("first-of-15"))
		},
		"cx": func(cx *Context, d *Dialer) (string, error) {
			cx, cancel := cx.WithTimeout(timeout)
			defer cancel()
			return reached(cx, d, e.addr("first-of-15"))
		},
		"net": func(cx *Context, d *Dialer) (string, error) {
			std := net.Dialer{Timeout: timeout, FallbackDelay: -1, Resolver: d.Resolver.resolver()}
			c, err := SpawnBlocking(cx, func() (net.Conn, error) { return std.Dial("tcp", e.addr("first-of-15")) }).Join(cx)
			if err != nil {
				return "", err
			}
			defer c.Close()
			return c.RemoteAddr().(*net.TCPAddr).IP.String(), nil
		},
	}
	handles := map[string]*JoinHandle[string]{}
	for name, dial := range dials {
		handles[name] = Spawn(rt, func(cx *Context) (string, error) {
			d := e.dialer()
			d.FallbackDelay = -1
			return dial(cx, d)
		})
	}
	for name, h := range handles {
		got, err := joinOrCancel(h)
		require.NoError(t, err, name)
		require.Equal(t, e.accepts, got, name)
	}
	require.Zero(t, sources(rt))
}

// A dial whose attempts follow each other fails with the error of the first attempt, as in package
// net.
func TestDialerFailsForTheFirstReason(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	e := newEyeballs(t)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		d := e.dialer()
		d.FallbackDelay, d.Timeout = -1, 20*time.Millisecond
		var op *net.OpError
		for d.Timeout < patience {
			_, err := d.Dial(cx, "tcp", e.addr("refuses-hangs"))
			if errors.As(err, &op) && op.Addr != nil {
				break
			}
			d.Timeout *= 2 // the look-up has taken all of the time
		}
		return expect(errors.Is(op, syscall.ECONNREFUSED) && op.Addr.String() == net.JoinHostPort(e.refuses, e.port), "%v", op)
	}))
}

// A nil pointer in LocalAddr has the same effect as nil, for each type of address. (Package net
// panics if it is a *net.UnixAddr.)
func TestDialerLocalAddrIsANilPointer(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	dir := netDir(t)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		for network, local := range map[string]net.Addr{
			"tcp": (*net.TCPAddr)(nil), "udp": (*net.UDPAddr)(nil),
			"unix": (*net.UnixAddr)(nil), "unixpacket": (*net.UnixAddr)(nil), "unixgram": (*net.UnixAddr)(nil),
		} {
			address := "127.0.0.1:0"
			if strings.HasPrefix(network, "unix") {
				address = dir + "/" + network
			}
			var at string
			if l, err := Listen(cx, network, address); err == nil {
				defer l.Close()
				at = l.Addr().String()
			} else if c, err := ListenPacket(cx, network, address); err == nil {
				defer c.Close()
				at = c.LocalAddr().String()
			} else {
				return err
			}
			d := Dialer{LocalAddr: local}
			c, err := d.Dial(cx, network, at)
			if err != nil {
				return fmt.Errorf("%s: %w", network, err)
			}
			c.Close()

			// The same if the dial ends before the first attempt.
			d.Deadline = time.Now()
			var op *net.OpError
			if _, err := d.Dial(cx, network, at); !errors.As(err, &op) || op.Source != nil || !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("%s, at the deadline: %v", network, err)
			}
			d.Deadline = time.Time{}
			d.Control = func(string, string, syscall.RawConn) error { return os.ErrPermission }
			if _, err := d.Dial(cx, network, at); !errors.As(err, &op) || op.Source != nil || !errors.Is(err, os.ErrPermission) {
				return fmt.Errorf("%s, refused: %v", network, err)
			}
		}
		d := Dialer{LocalAddr: (*net.UnixAddr)(nil)}
		var addr *net.AddrError
		if _, err := d.Dial(cx, "tcp", "127.0.0.1:9"); !errors.As(err, &addr) || addr.Err != "mismatched local address type" {
			return fmt.Errorf("tcp from a unix address: %v", err)
		}
		return nil
	}))
}

// The system may connect a socket to itself, or choose a port that is in use. If the system and not
// the program has chosen the port, the dial tries another port.
func TestDialerBadPorts(t *testing.T) {
	at := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1234}
	other := &net.TCPAddr{IP: at.IP, Port: 1235}
	tcp, udp := &network{proto: "tcp"}, &network{proto: "udp"}
	inUse := os.NewSyscallError("connect", unix.EADDRNOTAVAIL)
	for _, c := range []struct {
		a    connectFuture
		err  error
		want bool
	}{
		{connectFuture{net: tcp, base: &conn{laddr: at, raddr: at}}, nil, true},
		{connectFuture{net: tcp, base: &conn{laddr: at, raddr: at}, laddr: &net.TCPAddr{}}, nil, true},
		{connectFuture{net: tcp, base: &conn{laddr: at, raddr: at}, laddr: &net.TCPAddr{IP: at.IP}}, nil, true},
		{connectFuture{net: tcp, base: &conn{laddr: at, raddr: at}, laddr: at}, nil, false},
		{connectFuture{net: tcp, base: &conn{laddr: other, raddr: at}}, nil, false},
		{connectFuture{net: tcp}, inUse, true},
		{connectFuture{net: tcp, laddr: &net.TCPAddr{IP: at.IP}}, inUse, true},
		{connectFuture{net: tcp, laddr: at}, inUse, false},
		{connectFuture{net: tcp}, unix.ECONNREFUSED, false},
		{connectFuture{net: udp}, inUse, false},
	} {
		require.Equal(t, c.want, c.a.badPort(c.err), "%+v, %v", c.a, c.err)
	}
}

func TestDialerCancelled(t *testing.T) {
	for _, name := range []string{"hangs", "hangs-twice"} {
		t.Run(name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 1})
			e := newEyeballs(t)
			d := e.dialer()
			d.FallbackDelay = time.Millisecond
			e.ln.Close()

			if name == "hangs-twice" {
				d.FallbackDelay = time.Hour
			}
			h := Go(rt, func(cx *Context) error { _, err := d.Dial(cx, "tcp", e.addr(name)); return err })
			eventually(t, func() bool { return sources(rt) > 0 })
			h.Cancel()
			_, err := joinOrCancel(h)
			require.ErrorIs(t, err, context.Canceled)
			require.Zero(t, sources(rt))
		})
	}
}

// A dial with a cancelled Context fails, even if it would take no time.
func TestDialUnixCancelled(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	require.NoError(t, runTask(rt, func(cx *Context) error {
		name := &net.UnixAddr{Name: netDir(t) + "/s", Net: "unix"}
		ln, err := ListenUnix("unix", name)
		if err != nil {
			return err
		}
		defer ln.Close()
		dead, cancel := cx.WithCancel()
		cancel()
		var op *net.OpError
		if _, err := DialUnix(dead, "unix", nil, name); !errors.Is(err, context.Canceled) || !errors.As(err, &op) {
			return err
		}
		if _, err := Dial(dead, "unix", name.Name); !errors.Is(err, context.Canceled) || !errors.As(err, &op) {
			return err
		}
		if _, err := ln.PollAccept(cx); err != ErrPending {
			return fmt.Errorf("somebody has come: %v", err)
		}
		return nil
	}))
}

// Plain futures can dial. Giving up a dial closes all sockets that it has opened.
func TestDialFuture(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	e := newEyeballs(t)
	d := e.dialer()
	d.FallbackDelay = time.Millisecond
	c, err := joinOrCancel(SpawnFuture(rt, d.DialFuture("tcp", e.addr("hangs-first"))))
	require.NoError(t, err)
	require.NoError(t, c.Close())

	c, err = joinOrCancel(SpawnFuture(rt, DialFuture("tcp", e.ln.Addr().String())))
	require.NoError(t, err)
	require.NoError(t, c.Close())

	h := SpawnFuture(rt, d.DialFuture("tcp", e.addr("hangs")))
	eventually(t, func() bool { return sources(rt) > 0 })
	h.Cancel()
	_, err = joinOrCancel(h)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, sources(rt))

	silent := Dialer{Resolver: newDNS(t, true, nil).resolver()}
	h = SpawnFuture(rt, silent.DialFuture("tcp", "host.test.:80"))
	h.Cancel()
	_, err = joinOrCancel(h)
	require.ErrorIs(t, err, context.Canceled)

	d.Timeout = time.Millisecond
	_, err = joinOrCancel(SpawnFuture(rt, d.DialFuture("tcp", e.addr("hangs"))))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = joinOrCancel(SpawnFuture(rt, silent.DialFuture("tcp", "no port")))
	require.Error(t, err)
}

// The families take turns, beginning with the family of the first address that the resolver has
// returned.
func TestDialerOrder(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	e := newEyeballs(t)
	var order, networks []string
	refused := errors.New("refused by Control")
	d := e.dialer()
	d.Control = func(network, address string, c syscall.RawConn) error {
		host, _, _ := net.SplitHostPort(address)
		order, networks = append(order, host), append(networks, network)
		return refused
	}
	require.NoError(t, runTask(rt, func(cx *Context) error {
		ips, err := d.Resolver.LookupIPAddr(cx, "mixed.test.")
		if err != nil {
			return err
		}
		if _, err := d.Dial(cx, "tcp", e.addr("mixed")); !errors.Is(err, refused) {
			return err
		}
		if order[0] != ips[0].String() {
			return fmt.Errorf("began with %s, though %s is first", order[0], ips[0].String())
		}
		return nil
	}))
	require.Len(t, order, 4)
	if strings.Contains(order[0], ":") {
		require.Equal(t, []string{"::1", "127.0.0.1", "127.0.0.2", "127.0.0.3"}, order)
		require.Equal(t, []string{"tcp6", "tcp4", "tcp4", "tcp4"}, networks)
	} else {
		require.Equal(t, []string{"127.0.0.1", "::1", "127.0.0.2", "127.0.0.3"}, order)
		require.Equal(t, []string{"tcp4", "tcp6", "tcp4", "tcp4"}, networks)
	}
}

func TestDialerInterleavesFamilies(t *testing.T) {
	for in, want := range map[string]string{
		"4a":             "4a",
		"6a 6b":          "6a 6b",
		"6a 6b 4a 4b 4c": "6a 4a 6b 4b 4c",
		"4a 6a 6b 6c":    "4a 6a 6b 6c",
		"6a 4a":          "6a 4a",
		"4a 4b 4c 6a":    "4a 6a 4b 4c",
	} {
		var addrs []net.Addr
		for s := range strings.FieldsSeq(in) {
			ip := net.IPv6loopback
			if s[0] == '4' {
				ip = net.IPv4(127, 0, 0, 1)
			}
			addrs = append(addrs, &net.TCPAddr{IP: ip, Zone: s})
		}
		var got []string
		for _, a := range interleaveAddrs(addrs) {
			got = append(got, a.(*net.TCPAddr).Zone)
		}
		assert.Equal(t, want, strings.Join(got, " "))
	}
}

func TestDialerSettings(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ln := tcpListen(t)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		var seen []string
		d := Dialer{
			LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)},
			KeepAlive: -1,
			Control: func(network, address string, c syscall.RawConn) (err error) {
				seen = append(seen, network, address)
				c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 12345) })
				return err
			},
		}
		c, err := d.Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		assert.Equal(t, []string{"tcp4", ln.Addr().String()}, seen)
		tc := c.(*TCPConn)
		assert.Zero(t, tcpOption(t, tc, unix.SOL_SOCKET, unix.SO_KEEPALIVE))
		assert.NotZero(t, tcpOption(t, tc, unix.IPPROTO_TCP, unix.TCP_NODELAY))
		got := tcpOption(t, tc, unix.SOL_SOCKET, unix.SO_RCVBUF)
		assert.True(t, got == 12345 || got == 2*12345, got)

		d = Dialer{KeepAlive: 40 * time.Second}
		c, err = d.Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		if runtime.GOOS == "linux" {
			assert.Equal(t, 40, tcpOption(t, c.(*TCPConn), unix.IPPROTO_TCP, 4)) // TCP_KEEPIDLE
		}

		// A wildcard is an address of both families.
		d = Dialer{LocalAddr: &net.TCPAddr{}}
		v6, err := ListenTCP("tcp6", &net.TCPAddr{IP: net.IPv6loopback})
		if err != nil {
			return err
		}
		defer v6.Close()
		if c, err = d.Dial(cx, "tcp", v6.Addr().String()); err != nil {
			return err
		}
		defer c.Close()

		dir := netDir(t)
		ul, err := Listen(cx, "unix", dir+"/s")
		if err != nil {
			return err
		}
		defer ul.Close()
		d = Dialer{Control: func(network, address string, c syscall.RawConn) error {
			seen = []string{network, address}
			return os.ErrPermission
		}}
		if _, err := d.Dial(cx, "unix", dir+"/s"); !errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("Control has refused, but: %v", err)
		}
		assert.Equal(t, []string{"unix", dir + "/s"}, seen)
		return nil
	}))
}
