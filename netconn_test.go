package async

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// otherConn is a Conn of another package.
type otherConn struct{ Conn }

// otherListener is a Listener of another package.
type otherListener struct{ Listener }

func (l otherListener) Accept(cx *Context) (Conn, error) {
	c, err := l.Listener.Accept(cx)
	if err != nil {
		return nil, err
	}
	return otherConn{c}, nil
}

// netForms are the kinds of connections that NetConn makes.
var netForms = []struct {
	name string
	pair func(t testing.TB, rt *Runtime) (a, b Conn)
}{
	{"tcp", func(t testing.TB, rt *Runtime) (Conn, Conn) { a, b := tcpPair(t, rt); return a, b }},
	{"other", func(t testing.TB, rt *Runtime) (Conn, Conn) {
		a, b := tcpPair(t, rt)
		return otherConn{a}, otherConn{b}
	}},
	{"unix", func(t testing.TB, rt *Runtime) (Conn, Conn) {
		a, b, err := SocketPair()
		require.NoError(t, err)
		t.Cleanup(func() { a.Close(); b.Close() })
		return a, b
	}},
}

// eachNetForm runs test with the ends of a connection.
func eachNetForm(t *testing.T, test func(t *testing.T, rt *Runtime, a, b net.Conn)) {
	for _, form := range netForms {
		t.Run(form.name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			a, b := form.pair(t, rt)
			test(t, rt, NetConn(rt, a), NetConn(rt, b))
		})
	}
}

// answer is the result of a call on a goroutine.
type answer struct {
	n   int
	err error
}

// later runs a call on a goroutine.
func later(call func() (int, error)) <-chan answer {
	c := make(chan answer, 1)
	go func() {
		n, err := call()
		c <- answer{n, err}
	}()
	return c
}

func soon[T any](t testing.TB, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("nothing came in time")
	}
	return v
}

// parked waits until a task or a goroutine waits for an event of dir.
func parked(t testing.TB, dir *direction) {
	t.Helper()
	eventually(t, func() bool { return directionWaits(dir) }, "a task waits")
}

func TestNetListenerServesAndDialNetConnects(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	ln, err := rt.ListenNet("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c, err := rt.DialNet(t.Context(), "tcp", ln.Addr().String())
			if !assertNo(t, err) {
				return
			}
			defer c.Close()
			assertNo(t, tcpAskAll(c, tcpMessages(1)))
		})
	}
	wg.Wait()
	require.NoError(t, ln.Close())
}

func assertNo(t *testing.T, err error) bool {
	if err != nil {
		t.Errorf("unexpected: %v", err)
	}
	return err == nil
}

// Accept always returns a connection or an error, and has the errors of package net.
func TestNetListenerAccept(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	tcp := tcpListen(t)
	for _, ln := range []net.Listener{NetListener(rt, tcp), NetListener(rt, otherListener{tcp})} {
		const n = 20
		accepted := make(chan net.Conn, n)
		for range n {
			go func() {
				c, err := ln.Accept()
				if assertNo(t, err) {
					accepted <- c
				}
			}()
		}
		for range n {
			c, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(t, err)
			defer c.Close()
		}
		for range n {
			c := soon(t, accepted)
			require.NotNil(t, c)
			require.NoError(t, c.Close())
		}
	}

	ln := NetListener(rt, tcp).(interface {
		net.Listener
		SetDeadline(time.Time) error
	})
	require.NoError(t, ln.SetDeadline(time.Unix(1, 0)))
	c, err := ln.Accept()
	require.Nil(t, c)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, ln.SetDeadline(time.Time{}))

	ends := make(chan error, 3)
	for range 3 {
		go func() {
			c, err := ln.Accept()
			if c != nil {
				err = errors.New("a connection and an error")
			}
			ends <- err
		}()
	}
	parked(t, &tcp.src.rd)
	require.NoError(t, ln.Close())
	for range 3 {
		err := soon(t, ends)
		require.ErrorIs(t, err, net.ErrClosed)
		var op *net.OpError
		require.ErrorAs(t, err, &op)
		require.Equal(t, "accept", op.Op)
		require.Equal(t, ln.Addr(), op.Addr)
	}
}

func TestNetListenerAndShutdown(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	tcp := tcpListen(t)
	ln := NetListener(rt, tcp)
	end := later(func() (int, error) { _, err := ln.Accept(); return 0, err })
	parked(t, &tcp.src.rd)
	a, b := tcpPair(t, rt)
	read := later(func() (int, error) { return NetConn(rt, a).Read(make([]byte, 1)) })
	parked(t, &a.src.rd)
	require.NoError(t, rt.Shutdown(ended()))
	require.ErrorIs(t, soon(t, end).err, ErrShutdown)
	require.ErrorIs(t, soon(t, read).err, ErrShutdown)
	require.NoError(t, b.Close())
	_, err := rt.ListenNet("tcp", "127.0.0.1:0")
	require.ErrorIs(t, err, ErrShutdown)
	_, err = rt.DialNet(t.Context(), "tcp", "127.0.0.1:1")
	require.ErrorIs(t, err, ErrShutdown)
}

func TestNetConnDeadlineEndsCallsThatWait(t *testing.T) {
	eachNetForm(t, func(t *testing.T, rt *Runtime, a, b net.Conn) {
		read := later(func() (int, error) { return a.Read(make([]byte, 8)) })
		waits(t, a, 0)
		require.NoError(t, a.SetReadDeadline(time.Now().Add(time.Millisecond)))
		got := soon(t, read)
		require.Zero(t, got.n)
		requireTimeout(t, got.err, "read", a)

		// The write direction is unchanged, and the connection stays open.
		_, err := a.Write([]byte("to b"))
		require.NoError(t, err)
		require.NoError(t, a.SetReadDeadline(time.Time{}))
		_, err = b.Write([]byte("to a"))
		require.NoError(t, err)
		p := make([]byte, 8)
		n, err := a.Read(p)
		require.NoError(t, err)
		require.Equal(t, "to a", string(p[:n]))

		// A Write that fills the connection returns how many bytes it has sent.
		big := make([]byte, 32<<20)
		write := later(func() (int, error) { return a.Write(big) })
		waits(t, a, 1)
		require.NoError(t, a.SetWriteDeadline(time.Unix(1, 0)))
		got = soon(t, write)
		require.Less(t, got.n, len(big))
		requireTimeout(t, got.err, "write", a)
	})
}

// waits waits until a goroutine waits for side 0, reading, or 1 of a NetConn.
func waits(t testing.TB, c net.Conn, side int) {
	t.Helper()
	s, ok := c.(streamer)
	if !ok {
		s = c.(*netConn).Conn.(otherConn).Conn.(streamer)
	}
	parked(t, []*direction{&s.stream().src.rd, &s.stream().src.wr}[side])
}

func requireTimeout(t testing.TB, err error, op string, c net.Conn) {
	t.Helper()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	var ne net.Error
	require.ErrorAs(t, err, &ne)
	require.True(t, ne.Timeout())
	requireOp(t, err, op, c)
}

func requireOp(t testing.TB, err error, op string, c net.Conn) {
	t.Helper()
	var oe *net.OpError
	require.ErrorAs(t, err, &oe)
	require.Equal(t, op, oe.Op)
	require.Equal(t, c.LocalAddr().Network(), oe.Net)
	require.Equal(t, c.LocalAddr(), oe.Source)
	require.Equal(t, c.RemoteAddr(), oe.Addr)
}

func TestNetConnCloseEndsCallsThatWait(t *testing.T) {
	eachNetForm(t, func(t *testing.T, rt *Runtime, a, b net.Conn) {
		var reads, writes []<-chan answer
		for range 3 {
			reads = append(reads, later(func() (int, error) { return a.Read(make([]byte, 8)) }))
			writes = append(writes, later(func() (int, error) { return a.Write(make([]byte, 32<<20)) }))
		}
		waits(t, a, 0)
		waits(t, a, 1)
		require.NoError(t, a.Close())
		for i := range reads {
			got := soon(t, reads[i])
			require.ErrorIs(t, got.err, net.ErrClosed)
			requireOp(t, got.err, "read", a)
			got = soon(t, writes[i])
			require.ErrorIs(t, got.err, net.ErrClosed)
			requireOp(t, got.err, "write", a)
		}
		require.ErrorIs(t, a.Close(), net.ErrClosed)

		// After Close the error is net.ErrClosed, also if the deadline had passed before.
		require.NoError(t, b.SetDeadline(time.Unix(1, 0)))
		require.NoError(t, b.Close())
		_, err := b.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

// Each Write is sent as a whole, also if it has to wait after a part of its data.
func TestNetConnWritesAreNotMixed(t *testing.T) {
	eachNetForm(t, func(t *testing.T, rt *Runtime, a, b net.Conn) {
		const writers, rounds, size = 4, 3, 3 << 20
		for i := range writers {
			go func() {
				p := bytes.Repeat([]byte{byte('a' + i)}, size)
				for range rounds {
					n, err := a.Write(p)
					assertNo(t, err)
					if n != size {
						t.Errorf("wrote %d of %d", n, size)
					}
				}
			}()
		}
		p := make([]byte, size)
		for range writers * rounds {
			_, err := io.ReadFull(b, p)
			require.NoError(t, err)
			require.Equal(t, bytes.Repeat(p[:1], size), p)
		}
	})
}

// Each byte that arrives goes to one of the readers of a connection: none is lost or read twice.
func TestNetConnManyReaders(t *testing.T) {
	eachNetForm(t, func(t *testing.T, rt *Runtime, a, b net.Conn) {
		const total, readers = 20000, 8
		counts := make(chan int, readers)
		for range readers {
			go func() {
				n, p := 0, make([]byte, 7)
				for {
					m, err := a.Read(p)
					if n += m; err != nil {
						counts <- n
						return
					}
				}
			}()
		}
		for sent := 0; sent < total; sent += 100 {
			_, err := b.Write(make([]byte, 100))
			require.NoError(t, err)
		}
		require.NoError(t, b.Close())
		n := 0
		for range readers {
			n += soon(t, counts)
		}
		require.Equal(t, total, n)
	})
}

func TestNetConnPeerEnds(t *testing.T) {
	eachNetForm(t, func(t *testing.T, rt *Runtime, a, b net.Conn) {
		n, err := a.Read(nil)
		require.Zero(t, n)
		require.NoError(t, err)
		read := later(func() (int, error) { return a.Read(make([]byte, 8)) })
		waits(t, a, 0)
		require.NoError(t, b.Close())
		require.Equal(t, answer{0, io.EOF}, soon(t, read), "io.EOF itself")
	})
}

func TestNetConnHasTheMethodsOfNetTCPConn(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ta, tb := tcpPair(t, rt)
	a, b := NetConn(rt, ta), NetConn(rt, tb)
	for _, c := range []net.Conn{a, new(net.TCPConn)} { // the same assertion for both
		_, ok := c.(interface {
			syscall.Conn
			io.ReaderFrom
			io.WriterTo
			CloseRead() error
			CloseWrite() error
			SetLinger(int) error
			SetKeepAlive(bool) error
			SetKeepAlivePeriod(time.Duration) error
			SetNoDelay(bool) error
		})
		require.True(t, ok, "%T", c)
	}

	// Copying in either direction does not call ReadFrom and WriteTo again.
	const text = "through ReadFrom and WriteTo"
	copied := make(chan string, 1)
	go func() {
		var buf bytes.Buffer
		n, err := io.Copy(&buf, b)
		assertNo(t, err)
		if n != int64(len(text)) {
			t.Errorf("copied %d", n)
		}
		copied <- buf.String()
	}()
	n, err := io.Copy(a, bytes.NewReader([]byte(text)))
	require.NoError(t, err)
	require.EqualValues(t, len(text), n)
	require.NoError(t, a.(interface{ CloseWrite() error }).CloseWrite())
	require.Equal(t, text, soon(t, copied))

	// From one connection to the other.
	c, d := tcpPair(t, rt)
	ended := later(func() (int, error) { n, err := io.Copy(NetConn(rt, c), a); return int(n), err })
	_, err = b.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, b.Close())
	require.Equal(t, answer{len(text), nil}, soon(t, ended))
	require.NoError(t, c.Close())
	all, err := io.ReadAll(NetConn(rt, d))
	require.NoError(t, err)
	require.Equal(t, text, string(all))
}

func TestNetConnRawConn(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ta, tb := tcpPair(t, rt)
	a, b := NetConn(rt, ta), NetConn(rt, tb)
	raw, err := a.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) { require.EqualValues(t, ta.src.fd, fd) }))

	p, calls := make([]byte, 8), 0
	read := func() (n int, err error) {
		calls = 0
		outer := raw.Read(func(fd uintptr) bool {
			calls++
			n, err = unix.Read(int(fd), p)
			return err != unix.EAGAIN
		})
		if outer != nil {
			err = outer
		}
		return n, err
	}
	got := later(read)
	waits(t, a, 0)
	_, err = b.Write([]byte("raw"))
	require.NoError(t, err)
	require.Equal(t, answer{3, nil}, soon(t, got))
	require.GreaterOrEqual(t, calls, 2)

	// The kernel is also asked if the connection is known to be not readable.
	_, err = b.Write([]byte("more"))
	require.NoError(t, err)
	n, err := read()
	require.NoError(t, err)
	require.Equal(t, "more", string(p[:n]))
	require.NoError(t, raw.Write(func(fd uintptr) bool { n, err = unix.Write(int(fd), []byte("out")); return true }))
	require.NoError(t, err)
	_, err = io.ReadFull(b, p[:3])
	require.NoError(t, err)
	require.Equal(t, "out", string(p[:3]))

	require.NoError(t, a.SetReadDeadline(time.Unix(1, 0)))
	_, err = read()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Zero(t, calls)
	require.NoError(t, a.SetReadDeadline(time.Time{}))
	got = later(read)
	waits(t, a, 0)
	require.NoError(t, a.Close())
	require.ErrorIs(t, soon(t, got).err, net.ErrClosed)
	require.ErrorIs(t, raw.Control(func(uintptr) {}), net.ErrClosed)
	require.ErrorIs(t, raw.Write(func(uintptr) bool { return true }), net.ErrClosed)
	_, err = a.(syscall.Conn).SyscallConn()
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestNetConnUnix(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ln, err := rt.ListenNet("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	defer ln.Close()
	a, err := rt.DialNet(t.Context(), "unix", ln.Addr().String())
	require.NoError(t, err)
	defer a.Close()
	b, err := ln.Accept()
	require.NoError(t, err)
	defer b.Close()
	require.NoError(t, pingPong(a, b))
	type messenger interface {
		syscall.Conn
		CloseWrite() error
		ReadMsgUnix(p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
		WriteMsgUnix(p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error)
	}
	ma, mb := a.(messenger), b.(messenger)
	p := make([]byte, 8)
	read := later(func() (int, error) { n, _, _, _, err := mb.ReadMsgUnix(p, nil); return n, err })
	waits(t, b, 0)
	n, _, err := ma.WriteMsgUnix([]byte("message"), nil, nil)
	require.NoError(t, err)
	require.Equal(t, 7, n)
	require.Equal(t, answer{7, nil}, soon(t, read))
	require.Equal(t, "message", string(p[:7]))
	raw, err := ma.SyscallConn()
	require.NoError(t, err)
	done := later(func() (int, error) {
		return 0, raw.Read(func(fd uintptr) bool { _, err := unix.Read(int(fd), p); return err != unix.EAGAIN })
	})
	waits(t, a, 0)
	require.NoError(t, mb.CloseWrite())
	require.Equal(t, answer{}, soon(t, done))
}

func TestMisuseNetConnInATask(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	a, b := tcpPair(t, rt)
	c := NetConn(rt, a)
	ln := NetListener(rt, tcpListen(t))
	raw, err := c.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	// There is data to read. The misuse must also be detected if the call would not wait.
	require.NoError(t, runTask(rt, func(cx *Context) error { return tcpWrite(cx, b, "something") }))
	for what, use := range map[string]func(){
		"Read":    func() { c.Read(make([]byte, 1)) },
		"Write":   func() { c.Write([]byte("x")) },
		"RawConn": func() { raw.Read(func(uintptr) bool { return true }) },
	} {
		_, err := joinOrCancel(Go(rt, func(cx *Context) error { use(); return nil }))
		requireTaskMisuse(t, err, what, "would block its worker", "BindConn(cx, c)")
		_, err = joinOrCancel(SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) { use(); return None{}, nil })))
		requireTaskMisuse(t, err, what, "would block its worker", "BindConn(cx, c)")
	}
	_, err = joinOrCancel(Go(rt, func(cx *Context) error { ln.Accept(); return nil }))
	requireTaskMisuse(t, err, "Accept", "Accept(cx)")
	_, err = joinOrCancel(Go(rt, func(cx *Context) error { rt.ListenNet("tcp", "127.0.0.1:0"); return nil }))
	requireTaskMisuse(t, err, "ListenNet", "async.Listen(cx")
	_, err = joinOrCancel(Go(rt, func(cx *Context) error { rt.DialNet(cx, "tcp", "127.0.0.1:1"); return nil }))
	requireTaskMisuse(t, err, "DialNet", "async.Dial(cx")

	// Outside a task the connection still works afterwards.
	p := make([]byte, 9)
	_, err = io.ReadFull(c, p)
	require.NoError(t, err)
	require.Equal(t, "something", string(p))
}

// The resolver of package net sends datagrams only if it is given a
// net.PacketConn.
func TestDialNetForTheResolver(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	dns := newDNS(t, false, map[string][]dnsRecord{"host.example.": dnsAddrs("192.0.2.7")})
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		return rt.DialNet(ctx, "udp", dns.addr)
	}}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	addrs, err := r.LookupHost(ctx, "host.example.")
	require.NoError(t, err)
	require.Equal(t, []string{"192.0.2.7"}, addrs)
}

// otherPacketConn is a PacketConn of another package.
type otherPacketConn struct{ PacketConn }

func TestNetConnOfDatagrams(t *testing.T) {
	for _, network := range []string{"udp", "unixgram", "other"} {
		t.Run(network, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			open := func() PacketConn {
				if network == "unixgram" {
					c, err := ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(netDir(t), "s")})
					require.NoError(t, err)
					return c
				}
				c, err := ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
				require.NoError(t, err)
				if network == "other" {
					return otherPacketConn{c}
				}
				return c
			}
			a, b := NetConn(rt, open()).(net.PacketConn), NetConn(rt, open()).(net.PacketConn)
			defer b.Close()
			p := make([]byte, 8)
			var from net.Addr
			read := later(func() (n int, err error) { n, from, err = b.ReadFrom(p); return n, err })
			n, err := a.WriteTo([]byte("message"), b.LocalAddr())
			require.NoError(t, err)
			require.Equal(t, 7, n)
			require.Equal(t, answer{7, nil}, soon(t, read))
			require.Equal(t, a.LocalAddr().String(), from.String())
			require.Equal(t, "message", string(p[:7]))
			if s, ok := a.(syscall.Conn); ok {
				raw, err := s.SyscallConn()
				require.NoError(t, err)
				require.NoError(t, raw.Write(func(uintptr) bool { return true }))
			} else {
				require.Equal(t, "other", network)
			}
			require.NoError(t, a.SetReadDeadline(time.Unix(1, 0)))
			_, _, err = a.ReadFrom(p)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.NoError(t, a.SetReadDeadline(time.Time{}))
			read = later(func() (int, error) { n, _, err := a.ReadFrom(p); return n, err })
			require.NoError(t, a.Close())
			require.ErrorIs(t, soon(t, read).err, net.ErrClosed)
			_, err = joinOrCancel(Go(rt, func(*Context) error { _, _, err := b.ReadFrom(p); return err }))
			requireTaskMisuse(t, err, "ReadFrom", "would block its worker")
		})
	}
}

// The forms of UDP carry ancillary data, and addresses without allocations.
func TestNetConnMessages(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	listen := func() *netUDPConn {
		c, err := ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return NetConn(rt, c).(*netUDPConn)
	}
	a, b := listen(), listen()
	at := func(c net.PacketConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }
	p := make([]byte, 8)
	_, err := a.WriteToUDPAddrPort([]byte("one"), at(b))
	require.NoError(t, err)
	n, from, err := b.ReadFromUDPAddrPort(p)
	require.NoError(t, err)
	require.Equal(t, "one", string(p[:n]))
	require.Equal(t, at(a).Port(), from.Port())
	_, _, err = a.WriteMsgUDPAddrPort([]byte("two"), nil, at(b))
	require.NoError(t, err)
	n, _, _, from, err = b.ReadMsgUDPAddrPort(p, nil)
	require.NoError(t, err)
	require.Equal(t, "two", string(p[:n]))
	require.Equal(t, at(a).Port(), from.Port())

	x, y, err := DatagramPair()
	require.NoError(t, err)
	nx, ny := NetConn(rt, x).(*netUnixDatagram), NetConn(rt, y).(*netUnixDatagram)
	defer nx.Close()
	defer ny.Close()
	_, _, err = nx.WriteMsgUnix([]byte("three"), nil, nil)
	require.NoError(t, err)
	n, _, _, _, err = ny.ReadMsgUnix(p, nil)
	require.NoError(t, err)
	require.Equal(t, "three", string(p[:n]))
	require.NoError(t, pingPong(nx, ny))
}

// A call by a task panics also while a goroutine reads: the check comes before the wait for mu.
func TestMisuseNetConnInATaskBesideAGoroutine(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := tcpPair(t, rt)
	c := NetConn(rt, a).(*netTCPConn)
	read := later(func() (int, error) { return c.Read(make([]byte, 1)) })
	parked(t, &a.src.rd)
	defer a.Close()
	h := Go(rt, func(cx *Context) error {
		c.Read(make([]byte, 1))
		return nil
	})
	_, err := joinOrCancel(h)
	requireTaskMisuse(t, err, "Read", "would block its worker", "BindConn(cx, c)")
	require.NoError(t, runTask(rt, func(cx *Context) error { return tcpWrite(cx, b, "x") }))
	require.Equal(t, answer{1, nil}, soon(t, read))
}

func TestMisuseBoundConnOnAGoroutine(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, _ := tcpPair(t, rt)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		bound := BindConn(cx, a)
		texts := make(chan string, 2)
		go func() {
			texts <- misuse(func() { bound.Read(make([]byte, 1)) })
			texts <- misuse(func() { bound.Write([]byte("x")) })
		}()
		for range 2 {
			text, err := Await(cx, SpawnBlocking(cx, func() (string, error) { return <-texts, nil }))
			if err != nil {
				return err
			}
			requireMisuse(t, text, "on a goroutine that is not its own")
		}
		return nil
	}))
}

// The three ways to use a connection may be mixed.
func TestNetConnBesideTasks(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	a, b := tcpPair(t, rt)
	na, nb := NetConn(rt, a), NetConn(rt, b)
	const rounds = 200
	echo := Go(rt, func(cx *Context) error {
		_, err := io.CopyN(BindConn(cx, b), BindConn(cx, b), rounds/2)
		return err
	})
	p := make([]byte, 1)
	for i := range rounds / 2 {
		_, err := na.Write([]byte{byte(i)})
		require.NoError(t, err)
		_, err = io.ReadFull(na, p)
		require.NoError(t, err)
		require.Equal(t, byte(i), p[0])
	}
	_, err := joinOrCancel(echo)
	require.NoError(t, err)

	// A task and a goroutine wait for the same direction; each gets some of the data.
	reads := make(chan error, 2)
	go func() {
		_, err := nb.Read(make([]byte, 1))
		reads <- err
	}()
	parked(t, &b.src.rd)
	h := Go(rt, func(cx *Context) error {
		_, err := b.Read(cx, make([]byte, 1))
		reads <- err
		return err
	})
	_, err = na.Write([]byte("xy"))
	require.NoError(t, err)
	require.NoError(t, soon(t, reads))
	require.NoError(t, soon(t, reads))
	_, err = joinOrCancel(h)
	require.NoError(t, err)
}

func TestDialNetEnds(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	addr := tcpFullBacklog(t)
	ctx, cancel := context.WithCancel(t.Context())
	end := later(func() (int, error) { _, err := rt.DialNet(ctx, "tcp", addr); return 0, err })
	cancel()
	require.ErrorIs(t, soon(t, end).err, context.Canceled)
	_, err := rt.DialNet(ctx, "tcp", addr)
	require.ErrorIs(t, err, context.Canceled)

	ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = rt.DialNet(ctx, "tcp", addr)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var ne net.Error
	require.ErrorAs(t, err, &ne)
	require.True(t, ne.Timeout())

	_, err = rt.DialNet(t.Context(), "sctp", addr)
	require.ErrorAs(t, err, new(net.UnknownNetworkError))
}

// The end of the context of DialNet has no effect on the connection.
func TestDialNetContextIsForDialling(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ln := NetListener(rt, tcpListen(t))
	ctx, cancel := context.WithCancel(t.Context())
	a, err := rt.DialNet(ctx, "tcp", ln.Addr().String())
	require.NoError(t, err)
	defer a.Close()
	cancel()
	b, err := ln.Accept()
	require.NoError(t, err)
	defer b.Close()
	require.NoError(t, pingPong(a, b))
}

func pingPong(a, b net.Conn) error {
	var p [1]byte
	done := make(chan error, 1)
	go func() {
		var p [1]byte
		_, err := io.ReadFull(b, p[:])
		if err == nil {
			_, err = b.Write(p[:])
		}
		done <- err
	}()
	if _, err := a.Write(p[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(a, p[:]); err != nil {
		return err
	}
	return <-done
}

// Reading, writing and setting later deadlines allocate nothing after the first time.
func TestNetConnAllocatesNothing(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Stall: -1}) // a report allocates
	ta, tb := tcpPair(t, rt)
	a, b := NetConn(rt, ta), NetConn(rt, tb)
	go func() {
		p := make([]byte, 64)
		for {
			n, err := b.Read(p)
			if err != nil {
				return
			}
			b.Write(p[:n])
		}
	}()
	p := make([]byte, 64)
	round := func() {
		a.SetDeadline(time.Now().Add(time.Hour))
		b.SetReadDeadline(time.Now().Add(time.Hour))
		a.Write(p)
		a.Read(p)
	}
	for range 100 {
		round()
	}
	var before, after runtime.MemStats
	const rounds = 4000
	runtime.ReadMemStats(&before)
	for range rounds {
		round()
	}
	runtime.ReadMemStats(&after)
	// Go's runtime allocates for a goroutine that waits, and keeps that for the next one
	// on each processor, up to a hundred times: it may run on many.
	require.Less(t, after.Mallocs-before.Mallocs, uint64(rounds/2), "the rest is the runtime's own")
}
