package async

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// udpListen opens a socket on the loopback that the test need not close.
func udpListen(t testing.TB) *UDPConn {
	t.Helper()
	c, err := ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// udpPair returns two sockets that are each other's peers.
func udpPair(t testing.TB) (a, b *UDPConn) {
	t.Helper()
	for {
		first, err := ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(t, err)
		at := first.LocalAddr().(*net.UDPAddr)
		b, err = DialUDP("udp", nil, at)
		require.NoError(t, err)
		t.Cleanup(func() { b.Close() })
		require.NoError(t, first.Close())
		a, err = DialUDP("udp", at, b.LocalAddr().(*net.UDPAddr))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue // another process has the port
		}
		require.NoError(t, err)
		t.Cleanup(func() { a.Close() })
		return a, b
	}
}

func udpAddr(c Conn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// udpEchoes are the ways in which a server can send messages back to their senders.
var udpEchoes = map[string]func(cx *Context, c *UDPConn) error{
	"ReadFrom": func(cx *Context, c *UDPConn) error {
		p := make([]byte, 2048)
		for {
			n, addr, err := c.ReadFrom(cx, p)
			if err == nil {
				_, err = c.WriteTo(cx, p[:n], addr)
			}
			if err != nil {
				return err
			}
		}
	},
	"ReadFromUDP": func(cx *Context, c *UDPConn) error {
		p := make([]byte, 2048)
		for {
			n, addr, err := c.ReadFromUDP(cx, p)
			if err == nil {
				_, err = c.WriteToUDP(cx, p[:n], addr)
			}
			if err != nil {
				return err
			}
		}
	},
	"ReadFromUDPAddrPort": func(cx *Context, c *UDPConn) error {
		p := make([]byte, 2048)
		for {
			n, addr, err := c.ReadFromUDPAddrPort(cx, p)
			if err == nil {
				_, err = c.WriteToUDPAddrPort(cx, p[:n], addr)
			}
			if err != nil {
				return err
			}
		}
	},
	"ReadMsgUDP": func(cx *Context, c *UDPConn) error {
		p := make([]byte, 2048)
		for {
			n, _, _, addr, err := c.ReadMsgUDP(cx, p, nil)
			if err == nil {
				_, _, err = c.WriteMsgUDP(cx, p[:n], nil, addr)
			}
			if err != nil {
				return err
			}
		}
	},
	"ReadBatch": func(cx *Context, c *UDPConn) error {
		ms := udpMessages(8, 2048)
		for {
			n, err := c.ReadBatch(cx, ms, 0)
			for i := range ms[:n] {
				ms[i].Buffers[0] = ms[i].Buffers[0][:ms[i].N]
			}
			if err == nil {
				_, err = c.WriteBatch(cx, ms[:n], 0)
			}
			if err != nil {
				return err
			}
			for i := range ms[:n] {
				ms[i].Buffers[0] = ms[i].Buffers[0][:2048]
			}
		}
	},
	"poll": func(cx *Context, c *UDPConn) error {
		var (
			p    = make([]byte, 2048)
			n    int
			addr net.Addr
		)
		_, err := SpawnFuture(cx, PollFunc(func(cx *Context) (_ None, err error) {
			for {
				if addr == nil {
					if n, addr, err = c.pollReadFrom(cx, p); err != nil {
						return None{}, err
					}
				}
				if _, err := c.pollWriteTo(cx, p[:n], addr); err != nil {
					return None{}, err
				}
				addr = nil
			}
		})).Join(cx)
		return err
	},
	"net": func(cx *Context, c *UDPConn) error {
		pc := BindConn(cx, c).(net.PacketConn)
		p := make([]byte, 2048)
		for {
			n, addr, err := pc.ReadFrom(p)
			if err == nil {
				_, err = pc.WriteTo(p[:n], addr)
			}
			if err != nil {
				return err
			}
		}
	},
}

// udpMessages are n messages with room for size bytes each.
func udpMessages(n, size int) []Message {
	ms := make([]Message, n)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, size)}
	}
	return ms
}

// udpAsk sends messages of many lengths, one by one, and expects each of them back.
func udpAsk(c net.Conn) error {
	c.SetDeadline(time.Now().Add(patience))
	got := make([]byte, 2048)
	for i, size := range []int{1, 0, 2, 1400, 64, 2047, 3} {
		p := make([]byte, size)
		tcpPattern(p, 0, byte(i))
		if _, err := c.Write(p); err != nil {
			return err
		}
		if n, err := c.Read(got); err != nil || string(got[:n]) != string(p) {
			return fmt.Errorf("message %d of %d bytes: got %d, %v", i, size, n, err)
		}
	}
	return nil
}

func TestUDPEcho(t *testing.T) {
	for name, serve := range udpEchoes {
		for _, family := range []string{"udp4", "udp6", "udp"} {
			t.Run(name+" "+family, func(t *testing.T) {
				rt := newTestRuntime(t, Config{Workers: 2})
				var c *UDPConn
				require.NoError(t, runTask(rt, func(cx *Context) error {
					pc, err := ListenPacket(cx, family, map[string]string{
						"udp4": "127.0.0.1:0", "udp6": "[::1]:0", "udp": ":0",
					}[family])
					if err == nil {
						c = pc.(*UDPConn)
					}
					return err
				}))
				server := Go(rt, func(cx *Context) error { return serve(cx, c) })
				hosts := map[string][]string{"udp4": {"127.0.0.1"}, "udp6": {"::1"}, "udp": {"127.0.0.1", "::1"}}[family]
				for _, host := range hosts {
					addr := net.JoinHostPort(host, fmt.Sprint(udpAddr(c).Port()))
					std, err := net.Dial("udp", addr)
					require.NoError(t, err)
					assert.NoError(t, udpAsk(std))
					std.Close()
					assert.NoError(t, runTask(rt, func(cx *Context) error {
						own, err := Dial(cx, "udp", addr)
						if err != nil {
							return err
						}
						defer own.Close()
						return udpAsk(BindConn(cx, own))
					}))
				}
				require.NoError(t, c.Close())
				_, err := joinOrCancel(server)
				require.ErrorIs(t, err, net.ErrClosed)
			})
		}
	}
}

func TestUDPAddressesAreThoseOfPackageNet(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for _, c := range []struct{ network, address string }{
		{"udp", ":0"}, {"udp", "127.0.0.1:0"}, {"udp4", ":0"}, {"udp6", ":0"}, {"udp", "[::1]:0"}, {"udp4", "127.0.0.1:0"},
		{"udp", "0.0.0.0:0"}, {"udp", ""},
	} {
		t.Run(c.network+" "+c.address, func(t *testing.T) {
			std, err := net.ListenPacket(c.network, c.address)
			require.NoError(t, err)
			defer std.Close()
			require.NoError(t, runTask(rt, func(cx *Context) error {
				own, err := ListenPacket(cx, c.network, c.address)
				if err != nil {
					return err
				}
				defer own.Close()
				want, got := std.LocalAddr().(*net.UDPAddr), own.LocalAddr().(*net.UDPAddr)
				assert.Equal(t, want.IP, got.IP)
				assert.Equal(t, std.LocalAddr().Network(), own.LocalAddr().Network())
				assert.NotZero(t, got.Port)
				assert.Nil(t, own.RemoteAddr())

				// Each package reports an address of the other package's socket in the same form as
				// an address of its own sockets.
				target := net.JoinHostPort("", fmt.Sprint(got.Port))
				d, err := Dial(cx, c.network, target)
				if err != nil {
					return err
				}
				defer d.Close()
				e, err := net.Dial(c.network, net.JoinHostPort("", fmt.Sprint(want.Port)))
				if err != nil {
					return err
				}
				defer e.Close()
				assert.Equal(t, e.RemoteAddr().(*net.UDPAddr).IP.String(), d.RemoteAddr().(*net.UDPAddr).IP.String())
				return nil
			}))
		})
	}
}

// A message to the wildcard address arrives at this host or fails, as with package net, in each
// form in which the address can be written.
func TestUDPWildcardIsThatOfPackageNet(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for _, network := range []string{"udp", "udp4", "udp6"} {
		for _, ip := range []net.IP{nil, net.IPv4zero, net.IPv4zero.To4(), net.IPv6zero} {
			t.Run(fmt.Sprintf("%s to %d bytes of %v", network, len(ip), ip), func(t *testing.T) {
				std, err := net.ListenUDP(network, nil)
				require.NoError(t, err)
				defer std.Close()
				own, err := ListenUDP(network, nil)
				require.NoError(t, err)
				defer own.Close()
				std.SetDeadline(time.Now().Add(patience))
				to := func(c interface{ LocalAddr() net.Addr }) *net.UDPAddr {
					return &net.UDPAddr{IP: ip, Port: c.LocalAddr().(*net.UDPAddr).Port}
				}
				outcome := func(from *net.UDPAddr, err error) string {
					var errno syscall.Errno
					var bad *net.AddrError
					switch {
					case errors.As(err, &errno):
						return errno.Error()
					case errors.As(err, &bad):
						return bad.Err
					case err != nil:
						return err.Error()
					}
					return from.IP.String()
				}
				p := make([]byte, 8)
				_, err = std.WriteToUDP([]byte("x"), to(std))
				var from *net.UDPAddr
				if err == nil {
					_, from, err = std.ReadFromUDP(p)
				}
				want := outcome(from, err)
				require.NoError(t, runTask(rt, func(cx *Context) error {
					for name, send := range map[string]func() error{
						"WriteTo":     func() error { _, err := own.WriteTo(cx, []byte("x"), to(own)); return err },
						"WriteMsgUDP": func() error { _, _, err := own.WriteMsgUDP(cx, []byte("x"), nil, to(own)); return err },
						"WriteBatch": func() error {
							_, err := own.WriteBatch(cx, []Message{{Buffers: [][]byte{{'x'}}, Addr: to(own)}}, 0)
							return err
						},
					} {
						err := send()
						var from *net.UDPAddr
						if err == nil {
							_, from, err = own.ReadFromUDP(cx, p)
						}
						assert.Equal(t, want, outcome(from, err), name)
					}
					return nil
				}))
			})
		}
	}
}

// A socket with a peer receives from no other sender.
func TestUDPPeerAlone(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := udpPair(t)
	stranger := udpListen(t)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		if _, err := stranger.WriteToUDPAddrPort(cx, []byte("listen to me"), udpAddr(a)); err != nil {
			return err
		}
		if _, err := b.Write(cx, []byte("hello")); err != nil {
			return err
		}
		p := make([]byte, 64)
		n, from, err := a.ReadFromUDPAddrPort(cx, p)
		if err != nil || string(p[:n]) != "hello" || from != udpAddr(b) {
			return fmt.Errorf("got %q from %v, %v", p[:n], from, err)
		}
		return nil
	}))
}

func TestUDPPeekAndTruncation(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := udpPair(t)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		for _, m := range []string{"first message", "second"} {
			if _, err := b.Write(cx, []byte(m)); err != nil {
				return err
			}
		}
		p := make([]byte, 64)
		for range 2 {
			n, err := a.Peek(cx, p)
			if err != nil || string(p[:n]) != "first message" {
				return fmt.Errorf("Peek: %q, %v", p[:n], err)
			}
			n, from, err := a.PeekFrom(cx, p)
			if err != nil || string(p[:n]) != "first message" || from.String() != b.LocalAddr().String() {
				return fmt.Errorf("PeekFrom: %q from %v, %v", p[:n], from, err)
			}
		}
		if n, err := a.Read(cx, p[:5]); err != nil || string(p[:n]) != "first" {
			return fmt.Errorf("Read: %q, %v", p[:n], err)
		}
		if n, err := a.Read(cx, nil); n != 0 || err != nil {
			return fmt.Errorf("Read of nothing: %d, %v", n, err)
		}
		n, _, flags, _, err := a.ReadMsgUDP(cx, p[:3], nil)
		if err != nil || string(p[:n]) != "sec" || flags&unix.MSG_TRUNC == 0 {
			return fmt.Errorf("ReadMsgUDP: %q, %x, %v", p[:n], flags, err)
		}
		if n, err := a.PollRead(cx, p); err != ErrPending {
			return fmt.Errorf("what there was no room for is still there: %q, %v", p[:n], err)
		}
		return nil
	}))
}

func TestUDPPoll(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a := udpListen(t)
	cx, wakes := newPollCx(t, rt)
	p := make([]byte, 8)
	_, _, _, _, err := a.pollReadMsgUDPAddrPort(cx, p, nil)
	require.ErrorIs(t, err, ErrPending)
	_, addr, err := a.pollReadFrom(cx, p)
	require.ErrorIs(t, err, ErrPending)
	require.Nil(t, addr)
	n, _, err := a.pollWriteMsgUDPAddrPort(cx, []byte("poll"), nil, udpAddr(a))
	require.NoError(t, err)
	require.Equal(t, 4, n)
	eventually(t, func() bool { return wakes.Load() > 0 })
	n, addr, err = a.pollPeekFrom(cx, p)
	require.NoError(t, err)
	require.Equal(t, "poll", string(p[:n]))
	require.Equal(t, a.LocalAddr(), addr)
	n, _, _, from, err := a.pollReadMsgUDPAddrPort(cx, p, nil)
	require.NoError(t, err)
	require.Equal(t, "poll", string(p[:n]))
	require.Equal(t, udpAddr(a), from)
}

// Promises: a read that is cancelled leaves the message in the socket, and a write that is
// cancelled has sent nothing. Both fail even if they could succeed at once.
func TestUDPCancelled(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := udpPair(t)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		if _, err := b.Write(cx, []byte("still there")); err != nil {
			return err
		}
		dead, cancel := cx.WithCancel()
		cancel()
		p := make([]byte, 64)
		to := udpAddr(b)
		un := udpListen(t)
		for name, try := range map[string]func() error{
			"Read":                func() error { _, err := a.Read(dead, p); return err },
			"Peek":                func() error { _, err := a.Peek(dead, p); return err },
			"ReadFrom":            func() error { _, _, err := a.ReadFrom(dead, p); return err },
			"ReadFromUDPAddrPort": func() error { _, _, err := a.ReadFromUDPAddrPort(dead, p); return err },
			"ReadMsgUDP":          func() error { _, _, _, _, err := a.ReadMsgUDP(dead, p, nil); return err },
			"ReadBatch":           func() error { _, err := a.ReadBatch(dead, udpMessages(1, 8), 0); return err },
			"Write":               func() error { _, err := a.Write(dead, p); return err },
			"WriteTo":             func() error { _, err := un.WriteTo(dead, p, b.LocalAddr()); return err },
			"WriteToUDPAddrPort":  func() error { _, err := un.WriteToUDPAddrPort(dead, p, to); return err },
			"WriteMsgUDP":         func() error { _, _, err := a.WriteMsgUDP(dead, p, nil, nil); return err },
			"WriteBatch":          func() error { _, err := a.WriteBatch(dead, udpMessages(1, 8), 0); return err },
		} {
			var op *net.OpError
			if err := try(); !errors.Is(err, context.Canceled) || !errors.As(err, &op) {
				return fmt.Errorf("%s: %v", name, err)
			}
		}
		if n, err := a.Read(cx, p); err != nil || string(p[:n]) != "still there" {
			return fmt.Errorf("got %q, %v", p[:n], err)
		}
		if n, err := b.PollRead(cx, p); err != ErrPending {
			return fmt.Errorf("something was sent: %q, %v", p[:n], err)
		}
		return nil
	}))

	t.Run("while it waits", func(t *testing.T) {
		h := Go(rt, func(cx *Context) error { _, _, err := a.ReadFrom(cx, make([]byte, 8)); return err })
		eventually(t, func() bool { return directionWaits(&a.src.rd) })
		h.Cancel()
		_, err := joinOrCancel(h)
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestUDPCloseWakesWaiters(t *testing.T) {
	for _, way := range tcpWays {
		t.Run(way.name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			c := udpListen(t)
			result := make(chan error, 1)
			go func() {
				result <- way.run(rt, func(cx *Context) error {
					_, _, err := c.ReadFromUDPAddrPort(cx, make([]byte, 8))
					return err
				})
			}()
			eventually(t, func() bool { return directionWaits(&c.src.rd) })
			require.NoError(t, c.Close())
			require.ErrorIs(t, receive(t, result), net.ErrClosed)
		})
	}
}

func TestUDPDeadlines(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	c := udpListen(t)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		deadline := time.Now().Add(5 * time.Millisecond)
		c.SetReadDeadline(deadline)
		_, _, err := c.ReadFrom(cx, make([]byte, 8))
		if err := tcpTimeout(err, deadline); err != nil {
			return err
		}
		c.SetReadDeadline(time.Time{})
		if _, err := c.WriteTo(cx, []byte("to myself"), c.LocalAddr()); err != nil {
			return err
		}
		_, _, err = c.ReadFrom(cx, make([]byte, 8))
		return err
	}))
}

// Each message goes to exactly one reader, and each reader is woken.
func TestUDPManyReaders(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	c := udpListen(t)
	require.NoError(t, c.SetReadBuffer(4<<20)) // room for all messages while no task reads
	const readers, each = 4, 50
	var seen [readers * each]atomic.Int32
	var hs []*JoinHandle[None]
	for range readers {
		hs = append(hs, Go(rt, func(cx *Context) error {
			p := make([]byte, 8)
			for range each {
				if _, _, err := c.ReadFromUDPAddrPort(cx, p); err != nil {
					return err
				}
				seen[p[0]].Add(1)
			}
			return nil
		}))
	}
	writer := Go(rt, func(cx *Context) error {
		for i := range seen {
			if _, err := c.WriteToUDPAddrPort(cx, []byte{byte(i)}, udpAddr(c)); err != nil {
				return err
			}
			if i%7 == 0 {
				Yield(cx)
			}
		}
		return nil
	})
	_, err := joinOrCancel(writer)
	require.NoError(t, err)
	for _, h := range hs {
		_, err := joinOrCancel(h)
		assert.NoError(t, err)
	}
	for i := range seen {
		assert.EqualValues(t, 1, seen[i].Load(), i)
	}
}

// On Linux the AddrPort forms, Read and Write do not allocate. A batch does not allocate for each
// message.
func TestUDPAllocations(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	c := udpListen(t)
	a, b := udpPair(t)
	to := udpAddr(c)
	cx, _ := newPollCx(t, rt)
	p := make([]byte, 64)
	out, in := udpMessages(32, 16), udpMessages(32, 16)
	for i := range out {
		out[i].Addr = c.LocalAddr()
	}
	// pending reports whether the messages have not arrived yet.
	begun := time.Now()
	pending := func(err error) bool {
		runtime.Gosched()
		return err == ErrPending && time.Since(begun) < patience
	}
	for name, f := range map[string]func() error{
		"AddrPort": func() error {
			_, e1 := c.pollWriteToUDPAddrPort(cx, p[:8], to)
			n, from, e2 := c.pollReadFromUDPAddrPort(cx, p)
			for pending(e2) {
				n, from, e2 = c.pollReadFromUDPAddrPort(cx, p)
			}
			if n != 8 || from != to {
				e2 = fmt.Errorf("%d from %v: %v", n, from, e2)
			}
			return errors.Join(e1, e2)
		},
		"peers": func() error {
			_, e1 := a.PollWrite(cx, p[:8])
			_, e2 := b.PollRead(cx, p)
			for pending(e2) {
				_, e2 = b.PollRead(cx, p)
			}
			return errors.Join(e1, e2)
		},
		"batch": func() error {
			n, e1 := c.pollWriteBatch(cx, out, 0)
			m, e2 := c.pollReadBatch(cx, in, 0)
			for pending(e2) || e2 == nil && m < n {
				var more int
				more, e2 = c.pollReadBatch(cx, in[m:], 0)
				m += more
			}
			if n != len(out) || m != n {
				e2 = fmt.Errorf("%d sent, %d received: %v", n, m, e2)
			}
			return errors.Join(e1, e2)
		},
	} {
		var failed error
		allocs := testing.AllocsPerRun(100, func() {
			if err := f(); err != nil {
				failed = err
			}
		})
		assert.NoError(t, failed, name)
		if runtime.GOOS == "linux" {
			// A batch does not allocate for each message, but the race detector makes a
			// sync.Pool drop some of its values.
			assert.LessOrEqual(t, allocs, map[string]float64{"batch": 10}[name], name)
		}
	}
}

func TestUDPBatch(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := udpListen(t), udpListen(t)
	require.NoError(t, b.SetReadBuffer(4<<20))
	const total = 300
	require.NoError(t, runTask(rt, func(cx *Context) error {
		out := make([]Message, total)
		for i := range out {
			out[i].Buffers = [][]byte{{byte(i)}, nil, {byte(i >> 8), 'x'}}
			out[i].Addr = b.LocalAddr()
		}
		if n, err := a.WriteBatch(cx, out, 0); n != total || err != nil {
			return fmt.Errorf("wrote %d, %v", n, err)
		}
		in := make([]Message, 16)
		for i := range in {
			in[i].Buffers = [][]byte{make([]byte, 1), make([]byte, 1)}
		}
		var first net.Addr
		for got := 0; got < total; {
			n, err := b.ReadBatch(cx, in, 0)
			if err != nil {
				return err
			}
			for _, m := range in[:n] {
				if m.N != 2 || m.Flags&unix.MSG_TRUNC == 0 || m.Buffers[0][0] != byte(got) || m.Buffers[1][0] != byte(got>>8) {
					return fmt.Errorf("message %d: %+v", got, m)
				}
				if m.Addr.String() != a.LocalAddr().String() {
					return fmt.Errorf("message %d is from %v", got, m.Addr)
				}
				got++
			}
			if first == nil {
				first = in[0].Addr
			} else if in[0].Addr != first {
				return errors.New("the same sender's address was made anew")
			}
		}
		if n, err := b.pollReadBatch(cx, in, 0); n != 0 || err != ErrPending {
			return fmt.Errorf("after the last: %d, %v", n, err)
		}
		if n, err := b.ReadBatch(cx, nil, 0); n != 0 || err != nil {
			return fmt.Errorf("no messages: %d, %v", n, err)
		}
		if n, err := a.WriteBatch(cx, nil, 0); n != 0 || err != nil {
			return fmt.Errorf("no messages: %d, %v", n, err)
		}
		return nil
	}))
}

// A message that cannot be sent ends a batch. The messages before it have been sent.
func TestUDPBatchFails(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := udpListen(t), udpListen(t)
	for name, bad := range map[string]Message{
		"too long":    {Buffers: [][]byte{make([]byte, 70000)}, Addr: b.LocalAddr()},
		"not UDP":     {Addr: &net.TCPAddr{}},
		"IPv6":        {Addr: &net.UDPAddr{IP: net.IPv6loopback, Port: 9}},
		"no address":  {},
		"nil address": {Addr: (*net.UDPAddr)(nil)},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, runTask(rt, func(cx *Context) error {
				good := Message{Buffers: [][]byte{[]byte("good")}, Addr: b.LocalAddr()}
				n, err := a.WriteBatch(cx, []Message{good, good, bad, good}, 0)
				var op *net.OpError
				if n != 2 || !errors.As(err, &op) || op.Op != "write" {
					return fmt.Errorf("%d, %v", n, err)
				}
				in := udpMessages(4, 8)
				for got := 0; got < 2; {
					n, err := b.ReadBatch(cx, in[got:], 0)
					if got += n; got > 2 || err != nil {
						return fmt.Errorf("received %d, %v", got, err)
					}
				}
				if n, err := b.pollReadBatch(cx, in, 0); n != 0 || err != ErrPending {
					return fmt.Errorf("received %d more, %v", n, err)
				}
				return nil
			}))
		})
	}
}

func TestUDPBatchToPeerAndAncillaryData(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := udpPair(t)
	raw, err := b.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		require.NoError(t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMP, 1))
	}))
	require.NoError(t, runTask(rt, func(cx *Context) error {
		if n, err := a.WriteBatch(cx, []Message{{Buffers: [][]byte{[]byte("one")}}, {Buffers: [][]byte{[]byte("two")}}}, 0); n != 2 || err != nil {
			return fmt.Errorf("%d, %v", n, err)
		}
		in := udpMessages(1, 8)
		in[0].OOB = make([]byte, 256)
		if n, err := b.ReadBatch(cx, in, 0); n != 1 || err != nil || in[0].NN == 0 {
			return fmt.Errorf("%d, %v, %+v", n, err, in)
		}
		oob := make([]byte, 256)
		n, oobn, _, from, err := b.ReadMsgUDPAddrPort(cx, make([]byte, 8), oob)
		if n != 3 || oobn == 0 || from != udpAddr(a) || err != nil {
			return fmt.Errorf("%d, %d, %v, %v", n, oobn, from, err)
		}
		if ms, err := unix.ParseSocketControlMessage(oob[:oobn]); err != nil || len(ms) != 1 {
			return fmt.Errorf("%v, %v", ms, err)
		}
		return nil
	}))
}

func TestUDPOptions(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 1})
			require.NoError(t, runTask(rt, func(cx *Context) error {
				pc, err := ListenPacket(cx, "udp", address)
				if err != nil {
					return err
				}
				c := pc.(*UDPConn)
				defer c.Close()
				on, err := c.Broadcast()
				assert.True(t, on, "package net allows it, too")
				assert.NoError(t, err)
				assert.NoError(t, c.SetBroadcast(false))
				on, _ = c.Broadcast()
				assert.False(t, on)

				assert.NoError(t, c.SetTTL(7))
				n, err := c.TTL()
				assert.Equal(t, 7, n)
				assert.NoError(t, err)
				assert.NoError(t, c.SetMulticastTTL(9))
				n, err = c.MulticastTTL()
				assert.Equal(t, 9, n)
				assert.NoError(t, err)
				assert.Error(t, c.SetMulticastTTL(256))
				for _, want := range []bool{false, true} {
					assert.NoError(t, c.SetMulticastLoopback(want))
					on, err = c.MulticastLoopback()
					assert.Equal(t, want, on)
					assert.NoError(t, err)
				}
				assert.NoError(t, c.setMulticastInterface(nil))
				for _, nobody := range []net.Addr{nil, (*net.UDPAddr)(nil), (*net.IPAddr)(nil), new(net.UDPAddr)} {
					assert.ErrorIs(t, c.JoinGroup(nil, nobody), syscall.EINVAL)
					assert.ErrorIs(t, c.LeaveGroup(nil, nobody), syscall.EINVAL)
				}
				assert.NoError(t, c.SetReadBuffer(32<<10))
				assert.NoError(t, c.SetWriteBuffer(32<<10))
				n, err = c.option(unix.SOL_SOCKET, unix.SO_RCVBUF)
				assert.NoError(t, err)
				assert.GreaterOrEqual(t, n, 32<<10)

				c.Close()
				var op *net.OpError
				for _, err := range []error{c.SetTTL(1), c.SetBroadcast(true), c.JoinGroup(nil, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 254)})} {
					assert.ErrorIs(t, err, net.ErrClosed)
					assert.ErrorAs(t, err, &op)
				}
				_, err = c.TTL()
				assert.ErrorIs(t, err, net.ErrClosed)
				return nil
			}))
		})
	}
}

// udpLoopback returns the loopback interface.
func udpLoopback(t testing.TB) *net.Interface {
	t.Helper()
	ifis, err := net.Interfaces()
	require.NoError(t, err)
	for i := range ifis {
		if ifis[i].Flags&net.FlagLoopback != 0 {
			return &ifis[i]
		}
	}
	t.Fatal("there is no loopback interface")
	return nil
}

func TestUDPMulticast(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	lo := udpLoopback(t)
	for _, ip := range []net.IP{net.IPv4(239, 192, 7, 7), net.ParseIP("ff01::7:7")} {
		t.Run(ip.String(), func(t *testing.T) {
			require.NoError(t, runTask(rt, func(cx *Context) error {
				a, err := ListenMulticastUDP("udp", lo, &net.UDPAddr{IP: ip})
				if err != nil {
					return err
				}
				defer a.Close()
				group := &net.UDPAddr{IP: ip, Port: a.LocalAddr().(*net.UDPAddr).Port}
				b, err := ListenMulticastUDP("udp", lo, group) // the same port
				if err != nil {
					return err
				}
				defer b.Close()
				send, err := ListenUDP("udp", &net.UDPAddr{IP: map[bool]net.IP{true: net.IPv4(127, 0, 0, 1), false: net.IPv6loopback}[ip.To4() != nil]})
				if err != nil {
					return err
				}
				defer send.Close()
				if err := send.setMulticastInterface(lo); err != nil {
					return err
				}
				members := []*UDPConn{a, b}
				_, err = send.WriteTo(cx, []byte("to all"), group)
				if errors.Is(err, syscall.ENETUNREACH) && ip.To4() == nil {
					members, err = nil, nil // Linux has no such route over its loopback
				}
				if err != nil {
					return err
				}
				p := make([]byte, 64)
				for _, c := range members {
					n, from, err := c.ReadFrom(cx, p)
					if err != nil || string(p[:n]) != "to all" || from.String() != send.LocalAddr().String() {
						return fmt.Errorf("got %q from %v, %v", p[:n], from, err)
					}
					if on, err := c.MulticastLoopback(); on || err != nil {
						return fmt.Errorf("what it sends comes back: %v", err)
					}
				}
				if err := b.LeaveGroup(lo, group); err != nil {
					return err
				}
				if err := b.LeaveGroup(lo, group); !errors.Is(err, syscall.EADDRNOTAVAIL) {
					return fmt.Errorf("left twice: %v", err)
				}
				if err := b.JoinGroup(lo, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
					return fmt.Errorf("joined what is no group: %v", err)
				}
				if err := b.JoinGroup(lo, &net.TCPAddr{}); !errors.Is(err, syscall.EINVAL) {
					return fmt.Errorf("joined nothing: %v", err)
				}
				return b.JoinGroup(lo, group)
			}))
		})
	}
}

// The SyscallConn of the result of BindConn waits. The SyscallConn of the socket itself fails with
// errors.ErrUnsupported instead.
func TestUDPSyscallConn(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := udpPair(t)
	raw, err := a.SyscallConn()
	require.NoError(t, err)
	require.ErrorIs(t, raw.Read(func(uintptr) bool { return false }), errors.ErrUnsupported)
	require.NoError(t, raw.Read(func(uintptr) bool { return true }))
	require.NoError(t, raw.Write(func(uintptr) bool { return true }))

	reader := Spawn(rt, func(cx *Context) (s string, err error) {
		raw, err := BindConn(cx, a).(syscall.Conn).SyscallConn()
		if err != nil {
			return "", err
		}
		p := make([]byte, 64)
		err = raw.Read(func(fd uintptr) bool {
			n, err := unix.Read(int(fd), p)
			s = string(p[:max(n, 0)])
			return err != unix.EAGAIN
		})
		return s, err
	})
	eventually(t, func() bool { return directionWaits(&a.src.rd) })
	require.NoError(t, runTask(rt, func(cx *Context) error { _, err := b.Write(cx, []byte("raw")); return err }))
	got, err := joinOrCancel(reader)
	require.NoError(t, err)
	require.Equal(t, "raw", got)

	waiting := Go(rt, func(cx *Context) error {
		raw, err := BindConn(cx, a).(syscall.Conn).SyscallConn()
		if err != nil {
			return err
		}
		return raw.Read(func(uintptr) bool { return false })
	})
	eventually(t, func() bool { return directionWaits(&a.src.rd) })
	waiting.Cancel()
	_, err = joinOrCancel(waiting)
	require.ErrorIs(t, err, context.Canceled)

	a.Close()
	require.ErrorIs(t, raw.Control(func(uintptr) {}), net.ErrClosed)
	_, err = a.SyscallConn()
	require.ErrorIs(t, err, net.ErrClosed)
}
