package async

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// convPair returns both ends of a connection of package net.
func convPair(t testing.TB, network string) (a, b net.Conn) {
	t.Helper()
	if network == "udp" {
		eventually(t, func() bool {
			p, err := net.ListenPacket(network, "127.0.0.1:0")
			require.NoError(t, err)
			a, err = net.Dial(network, p.LocalAddr().String())
			require.NoError(t, err)
			p.Close()
			b, err = net.DialUDP("udp", p.LocalAddr().(*net.UDPAddr), a.LocalAddr().(*net.UDPAddr))
			if err != nil {
				a.Close() // another program has got the port meanwhile
			}
			return err == nil
		})
	} else {
		address := "127.0.0.1:0"
		if network != "tcp" {
			address = filepath.Join(netDir(t), "s")
		}
		ln, err := net.Listen(network, address)
		require.NoError(t, err)
		a, err = net.Dial(network, ln.Addr().String())
		require.NoError(t, err)
		b, err = ln.Accept()
		require.NoError(t, err)
		ln.Close()
	}
	b.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// convTalk sends data in both directions.
func convTalk(cx *Context, a Conn, b net.Conn) error {
	if err := tcpWrite(cx, a, "to net"); err != nil {
		return err
	}
	p := make([]byte, 64)
	if n, err := b.Read(p); err != nil || string(p[:n]) != "to net" {
		return fmt.Errorf("%q, %v", p[:n], err)
	}
	if _, err := b.Write([]byte("from net")); err != nil {
		return err
	}
	if n, err := a.Read(cx, p); err != nil || string(p[:n]) != "from net" {
		return fmt.Errorf("%q, %v", p[:n], err)
	}
	return nil
}

// A connection or listener that is taken over goes on in the same state, with its addresses. The
// original is closed, and calls that wait for it return an error.
func TestFromConn(t *testing.T) {
	for _, network := range []string{"tcp", "udp", "unix", "unixpacket"} {
		t.Run(network, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 1})
			a, b := convPair(t, network)
			reader := make(chan error, 1)
			go func() { _, err := a.Read(make([]byte, 1)); reader <- err }()
			c, err := FromConn(a)
			require.NoError(t, err)
			require.ErrorIs(t, receive(t, reader), net.ErrClosed)
			require.ErrorIs(t, a.Close(), net.ErrClosed)
			require.Equal(t, a.LocalAddr().String(), c.LocalAddr().String())
			require.Equal(t, a.RemoteAddr().String(), c.RemoteAddr().String())
			require.Equal(t, a.LocalAddr().Network(), c.LocalAddr().Network())
			require.NoError(t, runTask(rt, func(cx *Context) error {
				defer c.Close()
				if err := convTalk(cx, c, b); err != nil {
					return err
				}
				// Take the result over once more.
				d, err := FromConn(BindConn(cx, c))
				if err != nil {
					return err
				}
				defer d.Close()
				return convTalk(cx, d, b)
			}))
		})
	}
	t.Run("closed", func(t *testing.T) {
		a, _ := convPair(t, "tcp")
		a.Close()
		_, err := FromConn(a)
		require.ErrorIs(t, err, net.ErrClosed)
	})
	t.Run("without a descriptor", func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		_, err := FromConn(a)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		_, err = FromConn(tls.Client(a, &tls.Config{ServerName: "x"}))
		require.ErrorIs(t, err, errors.ErrUnsupported)
	})
}

func TestFromListener(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 1})
			address := "127.0.0.1:0"
			if network == "unix" {
				address = filepath.Join(netDir(t), "s")
			}
			std, err := net.Listen(network, address)
			require.NoError(t, err)
			before, err := net.Dial(network, std.Addr().String()) // waits in the backlog
			require.NoError(t, err)
			defer before.Close()
			ln, err := FromListener(std)
			require.NoError(t, err)
			_, err = std.Accept()
			require.ErrorIs(t, err, net.ErrClosed)
			require.Equal(t, std.Addr().String(), ln.Addr().String())
			require.NoError(t, runTask(rt, func(cx *Context) error {
				c, err := ln.Accept(cx)
				if err != nil {
					return err
				}
				defer c.Close()
				before.SetDeadline(time.Now().Add(patience))
				if err := convTalk(cx, c, before); err != nil {
					return err
				}
				a, b, err := netConnect(cx, ln)
				if err != nil {
					return err
				}
				defer a.Close()
				defer b.Close()
				if tc, ok := b.(*TCPConn); ok {
					assert.NotZero(t, tcpOption(t, tc, unix.IPPROTO_TCP, unix.TCP_NODELAY))
				}
				return nil
			}))
			require.NoError(t, ln.Close())
			if network == "unix" {
				require.NoFileExists(t, address)
			}
		})
	}
}

func TestFromPacketConn(t *testing.T) {
	for _, network := range []string{"udp", "unixgram"} {
		t.Run(network, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 1})
			dir := netDir(t)
			open := func(name string) net.PacketConn {
				address := "127.0.0.1:0"
				if network == "unixgram" {
					address = filepath.Join(dir, name)
				}
				pc, err := net.ListenPacket(network, address)
				require.NoError(t, err)
				t.Cleanup(func() { pc.Close() })
				return pc
			}
			a, b := open("a"), open("b")
			b.SetDeadline(time.Now().Add(patience))
			c, err := FromPacketConn(a)
			require.NoError(t, err)
			defer c.Close()
			require.Nil(t, c.RemoteAddr())
			require.NoError(t, runTask(rt, func(cx *Context) error {
				if _, err := c.WriteTo(cx, []byte("x"), b.LocalAddr()); err != nil {
					return err
				}
				p := make([]byte, 8)
				_, from, err := b.ReadFrom(p)
				if err != nil || from.String() != a.LocalAddr().String() {
					return fmt.Errorf("from %v, %v", from, err)
				}
				if _, err := b.WriteTo([]byte("y"), from); err != nil {
					return err
				}
				_, from, err = c.ReadFrom(cx, p)
				if err != nil || from.String() != b.LocalAddr().String() {
					return fmt.Errorf("from %v, %v", from, err)
				}
				return nil
			}))
		})
	}
}

// From this package to package net and back, by File and the functions of files of package net.
func TestFilesOfConnsThereAndBack(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for _, network := range []string{"tcp", "udp", "unix", "unixpacket"} {
		t.Run(network, func(t *testing.T) {
			a, b := convPair(t, network)
			f, err := a.(interface{ File() (*os.File, error) }).File()
			require.NoError(t, err)
			defer f.Close()
			c, err := FileConn(f)
			require.NoError(t, err)
			g, err := c.(interface{ File() (*os.File, error) }).File()
			require.NoError(t, err)
			defer g.Close()
			d, err := net.FileConn(g)
			require.NoError(t, err)
			defer d.Close()
			require.NoError(t, runTask(rt, func(cx *Context) error { return convTalk(cx, c, b) }))
			require.NoError(t, c.Close())
			// The other descriptors are still open.
			_, err = d.Write([]byte("still"))
			require.NoError(t, err)
			p := make([]byte, 8)
			n, err := b.Read(p)
			require.NoError(t, err)
			require.Equal(t, "still", string(p[:n]))
			_, err = c.(interface{ File() (*os.File, error) }).File()
			require.ErrorIs(t, err, net.ErrClosed)
		})
	}
	t.Run("listeners", func(t *testing.T) {
		name := filepath.Join(netDir(t), "s")
		for _, network := range []string{"tcp", "unix"} {
			address := map[string]string{"tcp": "127.0.0.1:0", "unix": name}[network]
			require.NoError(t, runTask(rt, func(cx *Context) error {
				ln, err := Listen(cx, network, address)
				if err != nil {
					return err
				}
				defer ln.Close()
				f, err := ln.(interface{ File() (*os.File, error) }).File()
				if err != nil {
					return err
				}
				defer f.Close()
				again, err := FileListener(f)
				if err != nil {
					return err
				}
				if network == "unix" {
					if err := again.Close(); err != nil {
						return err
					}
					if _, err := os.Stat(name); err != nil {
						return fmt.Errorf("the file was not its own: %v", err)
					}
					again = ln
				}
				defer again.Close()
				std, err := net.FileListener(f)
				if err != nil {
					return err
				}
				defer std.Close()
				a, b, err := netConnect(cx, again)
				if err != nil {
					return err
				}
				defer a.Close()
				defer b.Close()
				return errors.Join(tcpWrite(cx, a, "x"), tcpExpect(cx, b, "x"))
			}))
		}
	})
	t.Run("packets", func(t *testing.T) {
		c := udpListen(t)
		f, err := c.File()
		require.NoError(t, err)
		defer f.Close()
		d, err := FilePacketConn(f)
		require.NoError(t, err)
		require.Equal(t, c.LocalAddr(), d.LocalAddr())
		require.NoError(t, d.Close())
	})
}

// On success the descriptor belongs to the connection, is non-blocking and is not inherited. On
// failure it is unchanged.
func TestFDConn(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	flags := func(fd int) (open, inherited int) {
		open, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		require.NoError(t, err)
		inherited, err = unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		require.NoError(t, err)
		return open & unix.O_NONBLOCK, inherited & unix.FD_CLOEXEC
	}
	_, err = fromFD[Listener](fds[0])
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = fromFD[PacketConn](fds[0])
	require.ErrorIs(t, err, syscall.EINVAL)
	nonblock, cloexec := flags(fds[0])
	require.Zero(t, nonblock)
	require.Zero(t, cloexec)
	a, err := fromFD[Conn](fds[0])
	require.NoError(t, err)
	nonblock, cloexec = flags(fds[0])
	require.NotZero(t, nonblock)
	require.NotZero(t, cloexec)
	b, err := fromFD[Conn](fds[1])
	require.NoError(t, err)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		h := Go(cx, func(cx *Context) error { return errors.Join(tcpExpect(cx, b, "x"), b.Close()) })
		Yield(cx)
		if err := tcpWrite(cx, a, "x"); err != nil {
			return err
		}
		_, err := h.Join(cx)
		return errors.Join(err, tcpExpectEOF(cx, a), a.Close())
	}))

	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, unix.Listen(fd, 8))
	_, err = fromFD[Conn](fd)
	require.ErrorIs(t, err, syscall.EINVAL)
	ln, err := fromFD[Listener](fd)
	require.NoError(t, err)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		c, err := Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		d, err := ln.Accept(cx)
		if err != nil {
			return err
		}
		return errors.Join(d.Close(), tcpExpectEOF(cx, c), ln.Close())
	}))

	fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	require.NoError(t, err)
	pc, err := fromFD[PacketConn](fd)
	require.NoError(t, err)
	require.IsType(t, (*UDPConn)(nil), pc)
	require.NoError(t, pc.Close())

	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	_, err = fromFD[Conn](int(r.Fd()))
	require.ErrorIs(t, err, syscall.ENOTSOCK)
	_, err = fromFD[Conn](-1)
	require.ErrorIs(t, err, syscall.EBADF)
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	require.Equal(t, "file", op.Op)
}
