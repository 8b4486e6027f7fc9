package async

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// unixNames are names for sockets; only Linux has abstract names.
func unixNames(t testing.TB) map[string]string {
	names := map[string]string{"file": filepath.Join(netDir(t), "s")}
	if runtime.GOOS == "linux" {
		names["abstract"] = fmt.Sprintf("@async test %d", os.Getpid())
	}
	return names
}

// unixPair returns the ends of a connection; the test need not close them.
func unixPair(t testing.TB) (a, b *UnixConn) {
	t.Helper()
	a, b, err := SocketPair()
	require.NoError(t, err)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestUnixEcho(t *testing.T) {
	for kind, name := range unixNames(t) {
		t.Run(kind, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			ln, err := ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
			require.NoError(t, err)
			const clients = 3
			server := Go(rt, func(cx *Context) error {
				var hs []*JoinHandle[None]
				for range clients {
					c, err := ln.AcceptUnix(cx)
					if err != nil {
						return err
					}
					hs = append(hs, SpawnFuture(cx, &tcpEcho{c: c}))
				}
				for _, h := range hs {
					if _, err := h.Join(cx); err != nil {
						return err
					}
				}
				return nil
			})
			std, err := net.Dial("unix", name)
			require.NoError(t, err)
			std.SetDeadline(time.Now().Add(patience))
			assert.NoError(t, tcpAskAll(std, tcpMessages(1)))
			assert.NoError(t, runTask(rt, func(cx *Context) error {
				c, err := Dial(cx, "unix", name)
				if err != nil {
					return err
				}
				return tcpAskAll(BindConn(cx, c), tcpMessages(2))
			}))
			assert.NoError(t, runTask(rt, func(cx *Context) error {
				c, err := DialUnix(cx, "unix", nil, &net.UnixAddr{Name: name, Net: "unix"})
				if err != nil {
					return err
				}
				_, err = SpawnFuture(cx, &tcpAsk{c: c, messages: tcpMessages(3)}).Join(cx)
				return err
			}))
			_, err = joinOrCancel(server)
			require.NoError(t, err)
			require.NoError(t, ln.Close())
		})
	}
}

// Packets keep their bounds. A packet that is shorter than the buffer does not prove that there is
// no other packet.
func TestUnixPacket(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	require.NoError(t, runTask(rt, func(cx *Context) error {
		name := filepath.Join(netDir(t), "s")
		ln, err := Listen(cx, "unixpacket", name)
		if err != nil {
			return err
		}
		defer ln.Close()
		a, b, err := netConnect(cx, ln)
		if err != nil {
			return err
		}
		defer a.Close()
		defer b.Close()
		// The socket is registered, so that pollFD uses the state that it keeps of the socket.
		if n, err := b.(PollReader).PollRead(cx, make([]byte, 8)); err != ErrPending {
			return fmt.Errorf("%d, %v", n, err)
		}
		for _, m := range []string{"a", "packet", "longer than the buffer", "the last"} {
			if err := tcpWrite(cx, a, m); err != nil {
				return err
			}
		}
		p := make([]byte, 10)
		for _, want := range []string{"a", "packet", "longer tha", "the last"} {
			if n, err := b.Read(cx, p); err != nil || string(p[:n]) != want {
				return fmt.Errorf("got %q, %v, want %q", p[:n], err, want)
			}
		}
		a.Close()
		return tcpExpectEOF(cx, b)
	}))
}

func TestUnixAddressesAreThoseOfPackageNet(t *testing.T) {
	type ends struct{ listener, dialled, remote, accepted, peer string }
	see := func(l interface{ Addr() net.Addr }, a, b interface {
		LocalAddr() net.Addr
		RemoteAddr() net.Addr
	}) ends {
		return ends{l.Addr().String(), a.LocalAddr().String(), a.RemoteAddr().String(), b.LocalAddr().String(), b.RemoteAddr().String()}
	}
	for kind, name := range unixNames(t) {
		for _, local := range []string{"", name + " local"} {
			t.Run(kind+" from "+local, func(t *testing.T) {
				rt := newTestRuntime(t, Config{Workers: 1})
				run := func(api netAPI) (e ends, err error) {
					l, err := api.listen("unix", name)
					if err != nil {
						return e, err
					}
					defer l.Close()
					a, err := api.dialFrom(&net.UnixAddr{Name: local, Net: "unix"}, "unix", name)
					if err != nil {
						return e, err
					}
					defer a.Close()
					defer os.Remove(local)
					b, err := l.Accept()
					if err != nil {
						return e, err
					}
					defer b.Close()
					return see(l, a, b), nil
				}
				want, err := run(netStdAPI(""))
				require.NoError(t, err)
				require.NoError(t, runTask(rt, func(cx *Context) error {
					got, err := run(netOwnAPI(cx, ""))
					assert.Equal(t, want, got)
					return err
				}))
			})
		}
	}
}

func TestUnixListenerRemovesItsFile(t *testing.T) {
	name := filepath.Join(netDir(t), "s")
	listen := func() *UnixListener {
		ln, err := ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		require.NoError(t, err)
		require.FileExists(t, name)
		return ln
	}
	first := listen()
	require.NoError(t, first.Close())
	require.NoFileExists(t, name)

	second := listen()
	require.ErrorIs(t, first.Close(), net.ErrClosed)
	require.FileExists(t, name, "it is somebody else's by now")

	second.SetUnlinkOnClose(false)
	require.NoError(t, second.Close())
	require.FileExists(t, name)
}

func TestUnixCloseWakesWaiters(t *testing.T) {
	for _, way := range tcpWays {
		t.Run(way.name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			ln, err := ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(netDir(t), "s"), Net: "unix"})
			require.NoError(t, err)
			a, _ := unixPair(t)
			x, y, err := DatagramPair()
			require.NoError(t, err)
			defer y.Close()
			check := func(dir *direction, shut func() error, wait func(cx *Context) error) {
				result := make(chan error, 1)
				go func() { result <- way.run(rt, wait) }()
				eventually(t, func() bool { return directionWaits(dir) })
				require.NoError(t, shut())
				require.ErrorIs(t, receive(t, result), net.ErrClosed)
			}
			check(&ln.src.rd, ln.Close, func(cx *Context) error { _, err := ln.Accept(cx); return err })
			check(&a.src.rd, a.Close, func(cx *Context) error { _, _, err := a.ReceiveFiles(cx, make([]byte, 1), 1); return err })
			check(&x.src.rd, x.Close, func(cx *Context) error { _, _, err := x.ReadFrom(cx, make([]byte, 1)); return err })
		})
	}
}

func TestUnixSocketPair(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	a, b := unixPair(t)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		if err := tcpWrite(cx, a, "there"); err != nil {
			return err
		}
		if err := tcpWrite(cx, b, "and back"); err != nil {
			return err
		}
		if err := errors.Join(tcpExpect(cx, b, "there"), tcpExpect(cx, a, "and back")); err != nil {
			return err
		}
		p := make([]byte, 3)
		if err := tcpWrite(cx, a, "peeked"); err != nil {
			return err
		}
		if n, err := b.Peek(cx, p); string(p[:n]) != "pee" || err != nil {
			return fmt.Errorf("Peek: %q, %v", p[:n], err)
		}
		if err := tcpExpect(cx, b, "peeked"); err != nil {
			return err
		}
		if err := a.CloseWrite(); err != nil {
			return err
		}
		if n, err := b.Peek(cx, p); n != 0 || err != io.EOF {
			return fmt.Errorf("Peek at the end: %d, %v", n, err)
		}
		return tcpExpectEOF(cx, b)
	}))
	require.NotNil(t, a.LocalAddr())
	require.NotNil(t, a.RemoteAddr())
}

func TestUnixPeerCred(t *testing.T) {
	a, _ := unixPair(t)
	cred, err := a.PeerCred()
	if runtime.GOOS == "linux" {
		require.NoError(t, err)
		require.Equal(t, Ucred{PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid()}, cred)
	} else if err != nil {
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
	a.Close()
	_, err = a.PeerCred()
	require.ErrorIs(t, err, net.ErrClosed)
}

// fileSender is the common methods of both kinds of unix-domain sockets.
type fileSender interface {
	Conn
	SendFiles(cx *Context, p []byte, files ...*os.File) (int, error)
	ReceiveFiles(cx *Context, p []byte, limit int) (int, []*os.File, error)
	ReadMsgUnix(cx *Context, p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
	WriteMsgUnix(cx *Context, p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error)
}

func unixSenders(t testing.TB) map[string][2]fileSender {
	a, b := unixPair(t)
	x, y, err := DatagramPair()
	require.NoError(t, err)
	t.Cleanup(func() { x.Close(); y.Close() })
	return map[string][2]fileSender{"stream": {a, b}, "datagram": {x, y}}
}

// unixPipes returns the writing ends of n pipes, and a function that returns the
// data that was written to the i-th pipe, once all its writing ends are closed.
func unixPipes(t testing.TB, n int) (ws []*os.File, read func(i int) string) {
	t.Helper()
	var rs []*os.File
	for range n {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		r.SetReadDeadline(time.Now().Add(patience))
		t.Cleanup(func() { r.Close(); w.Close() })
		rs, ws = append(rs, r), append(ws, w)
	}
	return ws, func(i int) string {
		p, err := io.ReadAll(rs[i])
		if err != nil {
			return err.Error()
		}
		return string(p)
	}
}

// Promises: received files work, also after the sender has closed its own files. Child processes do
// not inherit them. When all are closed, no descriptor is left open.
func TestUnixFiles(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	for name, ends := range unixSenders(t) {
		t.Run(name, func(t *testing.T) {
			a, b := ends[0], ends[1]
			ws, read := unixPipes(t, 3)
			require.NoError(t, runTask(rt, func(cx *Context) error {
				if n, err := a.SendFiles(cx, []byte("files"), ws...); n != 5 || err != nil {
					return fmt.Errorf("%d, %v", n, err)
				}
				for _, w := range ws {
					w.Close()
				}
				p := make([]byte, 64)
				n, files, err := b.ReceiveFiles(cx, p, 3)
				if err != nil || string(p[:n]) != "files" || len(files) != 3 {
					return fmt.Errorf("%q, %d files, %v", p[:n], len(files), err)
				}
				for i, f := range files {
					raw, err := f.SyscallConn()
					if err != nil {
						return err
					}
					raw.Control(func(fd uintptr) {
						flags, _ := unix.FcntlInt(fd, unix.F_GETFD, 0)
						assert.NotZero(t, flags&unix.FD_CLOEXEC)
					})
					fmt.Fprintf(f, "through %d", i)
					f.Close()
				}
				// Without files SendFiles sends a plain message.
				if n, err := a.SendFiles(cx, []byte("none")); n != 4 || err != nil {
					return fmt.Errorf("%d, %v", n, err)
				}
				n, files, err = b.ReceiveFiles(cx, p, 3)
				if err != nil || string(p[:n]) != "none" || len(files) != 0 {
					return fmt.Errorf("%q, %d files, %v", p[:n], len(files), err)
				}
				if _, err := a.SendFiles(cx, []byte("x"), ws[0]); !errors.Is(err, os.ErrClosed) {
					return fmt.Errorf("a closed file: %v", err)
				}
				return nil
			}))
			for i := range ws {
				assert.Equal(t, fmt.Sprintf("through %d", i), read(i))
			}
		})
	}
}

// If the receiver's buffer for ancillary data is too small, no descriptor leaks: in the end all
// writing ends are closed.
func TestUnixFilesWithoutRoom(t *testing.T) {
	for name, receive := range map[string]func(cx *Context, b fileSender, p []byte) (int, error){
		"ReceiveFiles of fewer": func(cx *Context, b fileSender, p []byte) (int, error) {
			n, files, err := b.ReceiveFiles(cx, p, 1)
			if !errors.Is(err, syscall.EMSGSIZE) || files != nil {
				return n, fmt.Errorf("%d files, %v", len(files), err)
			}
			return n, nil
		},
		"ReceiveFiles of none": func(cx *Context, b fileSender, p []byte) (int, error) {
			n, files, err := b.ReceiveFiles(cx, p, 0)
			if !errors.Is(err, syscall.EMSGSIZE) || files != nil {
				return n, fmt.Errorf("%d files, %v", len(files), err)
			}
			return n, nil
		},
		"ReceiveFiles of fewer than none": func(cx *Context, b fileSender, p []byte) (int, error) {
			n, files, err := b.ReceiveFiles(cx, p, -10)
			if !errors.Is(err, syscall.EMSGSIZE) || files != nil {
				return n, fmt.Errorf("%d files, %v", len(files), err)
			}
			return n, nil
		},
		"ReadMsgUnix": func(cx *Context, b fileSender, p []byte) (int, error) {
			oob := make([]byte, unix.CmsgSpace(4))
			n, oobn, flags, _, err := b.ReadMsgUnix(cx, p, oob)
			if err != nil || flags&unix.MSG_CTRUNC == 0 {
				return n, fmt.Errorf("flags %x, %v", flags, err)
			}
			for _, fd := range sentIn(oob[:oobn]) {
				unix.Close(fd)
			}
			return n, nil
		},
		"Read": func(cx *Context, b fileSender, p []byte) (int, error) { return b.Read(cx, p) },
	} {
		t.Run(name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 1})
			for _, ends := range unixSenders(t) {
				ws, read := unixPipes(t, 5)
				require.NoError(t, runTask(rt, func(cx *Context) error {
					if _, err := ends[0].SendFiles(cx, []byte("files"), ws...); err != nil {
						return err
					}
					for _, w := range ws {
						w.Close()
					}
					p := make([]byte, 64)
					n, err := receive(cx, ends[1], p)
					if err != nil || string(p[:n]) != "files" {
						return fmt.Errorf("%q, %v", p[:n], err)
					}
					return nil
				}))
				for i := range ws {
					assert.Empty(t, read(i))
				}
			}
		})
	}
}

// The Poll forms send and receive the same messages without waiting.
func TestUnixPollMsg(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	type poller interface {
		pollReadMsgUnix(cx *Context, p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
		pollWriteMsgUnix(cx *Context, p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error)
	}
	for name, ends := range unixSenders(t) {
		t.Run(name, func(t *testing.T) {
			a, b := ends[0].(poller), ends[1].(poller)
			ws, read := unixPipes(t, 1)
			rights := unix.UnixRights(int(ws[0].Fd()))
			cx, wakes := newPollCx(t, rt)
			p, oob := make([]byte, 8), make([]byte, 64)
			_, _, _, _, err := b.pollReadMsgUnix(cx, p, oob)
			require.ErrorIs(t, err, ErrPending)
			n, oobn, err := a.pollWriteMsgUnix(cx, []byte("poll"), rights, nil)
			require.NoError(t, err)
			require.Equal(t, 4, n)
			require.Equal(t, len(rights), oobn)
			ws[0].Close()
			eventually(t, func() bool { return wakes.Load() > 0 })
			n, oobn, _, _, err = b.pollReadMsgUnix(cx, p, oob)
			require.NoError(t, err)
			require.Equal(t, "poll", string(p[:n]))
			fds := sentIn(oob[:oobn])
			require.Len(t, fds, 1)
			unix.Close(fds[0])
			require.Empty(t, read(0))

			// Without descriptors the message is sent; to an address of another network it is not.
			_, _, err = a.pollWriteMsgUnix(cx, []byte("x"), nil, nil)
			require.NoError(t, err)
			_, _, err = a.pollWriteMsgUnix(cx, []byte("x"), nil, &net.UnixAddr{Name: "x", Net: "unix5"})
			require.Error(t, err)
		})
	}
}

func TestUnixFilesCancelled(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for name, ends := range unixSenders(t) {
		t.Run(name, func(t *testing.T) {
			a, b := ends[0], ends[1]
			ws, read := unixPipes(t, 1)
			require.NoError(t, runTask(rt, func(cx *Context) error {
				dead, cancel := cx.WithCancel()
				cancel()
				if n, err := a.SendFiles(dead, []byte("x"), ws[0]); n != 0 || !errors.Is(err, context.Canceled) {
					return fmt.Errorf("%d, %v", n, err)
				}
				if _, err := a.SendFiles(cx, []byte("y"), ws[0]); err != nil {
					return err
				}
				ws[0].Close()
				p := make([]byte, 8)
				if _, _, err := b.ReceiveFiles(dead, p, 1); !errors.Is(err, context.Canceled) {
					return err
				}
				n, files, err := b.ReceiveFiles(cx, p, 1)
				if err != nil || string(p[:n]) != "y" || len(files) != 1 {
					return fmt.Errorf("%q, %d files, %v", p[:n], len(files), err)
				}
				return files[0].Close()
			}))
			assert.Empty(t, read(0))
		})
	}
	a, _ := unixPair(t)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		if _, err := a.SendFiles(cx, nil); !errors.Is(err, syscall.EINVAL) {
			return fmt.Errorf("nothing on a stream: %v", err)
		}
		return nil
	}))
}

// A read of a stream stops behind a message with files, even if there is more data.
func TestUnixReadGoesOnBehindFiles(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	reads := map[string]func(cx *Context, c *UnixConn, p []byte) (int, error){
		"Read": func(cx *Context, c *UnixConn, p []byte) (int, error) { return c.Read(cx, p) },
		"ReadBuffers": func(cx *Context, c *UnixConn, p []byte) (int, error) {
			n, err := c.ReadBuffers(cx, net.Buffers{p})
			return int(n), err
		},
	}
	for name, read := range reads {
		t.Run(name, func(t *testing.T) {
			a, b := unixPair(t)
			ws, _ := unixPipes(t, 1)
			require.NoError(t, runTask(rt, func(cx *Context) error {
				cx, cancel := cx.WithTimeout(patience)
				defer cancel()
				if err := drained(cx, b, a); err != nil {
					return err
				}
				if err := b.PollReadable(cx); err != ErrPending { // b waits for events from now on
					return fmt.Errorf("PollReadable: %v", err)
				}
				if _, err := a.SendFiles(cx, []byte("x"), ws[0]); err != nil {
					return err
				}
				if err := tcpWrite(cx, a, "rest"); err != nil {
					return err
				}
				p := make([]byte, 64)
				for _, want := range []string{"x", "rest"} {
					if n, err := read(cx, b, p); string(p[:max(n, 0)]) != want || err != nil {
						return fmt.Errorf("%q, %v", p[:max(n, 0)], err)
					}
				}
				return nil
			}))
		})
	}
}

// A message that does not fit at once is sent completely, and its files are sent once.
func TestUnixFilesWithLargeData(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	a, b := unixPair(t)
	ws, read := unixPipes(t, 1)
	const size = 4 << 20
	sender := Go(rt, func(cx *Context) error {
		p := make([]byte, size)
		tcpPattern(p, 0, 9)
		n, err := a.SendFiles(cx, p, ws[0])
		if n != size || err != nil {
			return fmt.Errorf("%d, %v", n, err)
		}
		return errors.Join(ws[0].Close(), a.CloseWrite())
	})
	require.NoError(t, runTask(rt, func(cx *Context) error {
		p := make([]byte, 1000)
		n, files, err := b.ReceiveFiles(cx, p, 1)
		if err != nil || len(files) != 1 {
			return fmt.Errorf("%d, %d files, %v", n, len(files), err)
		}
		files[0].Close()
		want := make([]byte, n)
		tcpPattern(want, 0, 9)
		if string(want) != string(p[:n]) {
			return errors.New("wrong data")
		}
		rest := int64(size - n)
		if got, err := io.Copy(io.Discard, BindConn(cx, b)); got != rest || err != nil {
			return fmt.Errorf("%d of %d, %v", got, rest, err)
		}
		return nil
	}))
	_, err := joinOrCancel(sender)
	require.NoError(t, err)
	require.Empty(t, read(0))
}

func TestUnixgram(t *testing.T) {
	for kind, name := range unixNames(t) {
		t.Run(kind, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			c, err := ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
			require.NoError(t, err)
			defer os.Remove(name)
			server := Go(rt, func(cx *Context) error {
				p := make([]byte, 2048)
				for {
					n, from, err := c.ReadFromUnix(cx, p)
					if err == nil && from == nil {
						err = errors.New("from nobody")
					}
					if err == nil {
						_, err = c.WriteToUnix(cx, p[:n], from)
					}
					if err != nil {
						return err
					}
				}
			})
			local := &net.UnixAddr{Name: name + " local", Net: "unixgram"}
			defer os.Remove(local.Name)
			std, err := net.DialUnix("unixgram", local, &net.UnixAddr{Name: name, Net: "unixgram"})
			require.NoError(t, err)
			assert.NoError(t, udpAsk(std))
			std.Close()
			os.Remove(local.Name)
			assert.NoError(t, runTask(rt, func(cx *Context) error {
				own, err := DialUnixgram("unixgram", local, &net.UnixAddr{Name: name, Net: "unixgram"})
				if err != nil {
					return err
				}
				defer own.Close()
				return udpAsk(BindConn(cx, own))
			}))
			require.NoError(t, c.Close())
			_, err = joinOrCancel(server)
			require.ErrorIs(t, err, net.ErrClosed)
		})
	}
}

// The address of a sender without a name is nil.
func TestUnixgramFromUnnamedSocket(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	require.NoError(t, runTask(rt, func(cx *Context) error {
		name := filepath.Join(netDir(t), "s")
		c, err := ListenPacket(cx, "unixgram", name)
		if err != nil {
			return err
		}
		defer c.Close()
		d, err := Dial(cx, "unixgram", name)
		if err != nil {
			return err
		}
		defer d.Close()
		if _, err := d.Write(cx, []byte("psst")); err != nil {
			return err
		}
		p := make([]byte, 8)
		n, from, err := BindConn(cx, c).(net.PacketConn).ReadFrom(p)
		if err != nil || from != nil || string(p[:n]) != "psst" {
			return fmt.Errorf("%q from %v, %v", p[:n], from, err)
		}
		return nil
	}))
}

// A sender waits while the receiver's queue is full, with and without a peer. This also holds if
// other sockets have filled the queue, for which the sender gets no event.
func TestUnixgramFullQueue(t *testing.T) {
	type how struct{ dialled, msg bool }
	for _, how := range []how{{true, false}, {false, false}, {true, true}, {false, true}} {
		for _, others := range []bool{true, false} {
			dialled := how.dialled
			t.Run(fmt.Sprintf("%+v, filled by others: %v", how, others), func(t *testing.T) {
				rt := newTestRuntime(t, Config{Workers: 2})
				dir := netDir(t)
				addr := &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"}
				c, err := ListenUnixgram("unixgram", addr)
				require.NoError(t, err)
				defer c.Close()
				open := func(name string) *UnixDatagram {
					var d *UnixDatagram
					if dialled {
						d, err = DialUnixgram("unixgram", nil, addr)
					} else {
						d, err = ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unixgram"})
					}
					require.NoError(t, err)
					t.Cleanup(func() { d.Close() })
					return d
				}
				poll := func(cx *Context, d *UnixDatagram, p []byte) (int, error) {
					switch {
					case dialled && how.msg:
						n, _, err := d.pollWriteMsgUnix(cx, p, nil, nil)
						return n, err
					case dialled:
						return d.PollWrite(cx, p)
					case how.msg:
						n, _, err := d.pollWriteMsgUnix(cx, p, nil, addr)
						return n, err
					}
					return d.pollWriteTo(cx, p, addr)
				}
				send := open("a")
				fill := send
				if others {
					fill = open("b")
				}
				filled := 0
				cx, _ := newPollCx(t, rt)
				for ; filled < 100_000; filled++ {
					if _, err = poll(cx, fill, []byte("fill")); err != nil {
						break
					}
				}
				require.ErrorIs(t, err, ErrPending)
				h := Go(rt, func(cx *Context) error {
					_, err := Await(cx, PollFunc(func(cx *Context) (int, error) { return poll(cx, send, []byte("last")) }))
					return err
				})
				eventually(t, func() bool { return directionWaits(&send.src.wr) })
				require.NoError(t, runTask(rt, func(cx *Context) error {
					p := make([]byte, 8)
					for range filled {
						if n, err := c.Read(cx, p); err != nil || string(p[:n]) != "fill" {
							return fmt.Errorf("%q, %v", p[:n], err)
						}
					}
					if n, err := c.Read(cx, p); err != nil || string(p[:n]) != "last" {
						return fmt.Errorf("%q, %v", p[:n], err)
					}
					return nil
				}))
				_, err = joinOrCancel(h)
				require.NoError(t, err)
			})
		}
	}
}

// A full queue of one receiver keeps no task from sending to another receiver, whether or not a
// task waits for the first receiver.
func TestUnixgramFullQueueIsOneReceivers(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	dir := netDir(t)
	open := func(name string) (*UnixDatagram, *net.UnixAddr) {
		addr := &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unixgram"}
		d, err := ListenUnixgram("unixgram", addr)
		require.NoError(t, err)
		t.Cleanup(func() { d.Close() })
		return d, addr
	}
	send, _ := open("sender")
	full, to := open("full")
	other, toOther := open("other")
	cx, _ := newPollCx(t, rt)
	var err error
	filled := 0
	for ; filled < 100_000; filled++ {
		if _, err = send.pollWriteTo(cx, []byte("fill"), to); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, ErrPending)
	check := func(what string) {
		n, err := send.pollWriteTo(cx, []byte(what), toOther)
		require.NoError(t, err, what)
		require.Equal(t, len(what), n)
		n, _, err = send.pollWriteMsgUnix(cx, []byte(what), nil, toOther)
		require.NoError(t, err, what)
		require.Equal(t, len(what), n)
		p := make([]byte, 64)
		for range 2 {
			n, err := other.PollRead(cx, p)
			require.NoError(t, err)
			require.Equal(t, what, string(p[:n]))
		}
	}
	check("nobody waits")
	h := Go(rt, func(cx *Context) error {
		_, err := send.WriteTo(cx, []byte("last"), to)
		return err
	})
	eventually(t, func() bool { return directionWaits(&send.src.wr) })
	check("a task waits")
	require.NoError(t, runTask(rt, func(cx *Context) error {
		for range filled + 1 {
			if _, err := full.Read(cx, make([]byte, 8)); err != nil {
				return err
			}
		}
		return nil
	}))
	_, err = joinOrCancel(h)
	require.NoError(t, err)
}

// A sender to another receiver makes its system call, even if another goroutine finds at this
// moment that the queue of the first receiver is full.
func TestUnixgramFullForOthersMeanwhile(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	addr := &net.UnixAddr{Name: filepath.Join(netDir(t), "other"), Net: "unixgram"}
	other, err := ListenUnixgram("unixgram", addr)
	require.NoError(t, err)
	defer other.Close()
	send, err := ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(netDir(t), "sender"), Net: "unixgram"})
	require.NoError(t, err)
	defer send.Close()
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-over:
				return
			default:
				send.src.state.beginUse(fdNotWritable)
				send.src.endUse(0)
			}
		}
	}()
	cx, _ := newPollCx(t, rt)
	for range 20_000 {
		if _, err = send.pollWriteTo(cx, []byte("x"), addr); err == nil {
			_, err = other.PollRead(cx, make([]byte, 1))
		}
		if err != nil {
			break
		}
	}
	close(over)
	<-ended
	require.NoError(t, err)
}

// Failures do not put off the next try, however many there are. The delay before each further try
// is longer, up to the limit.
func TestRetryIsNotPutOff(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	cx, wakes := newPollCx(t, rt)
	var h direction
	r := pollRetry{dir: &h, first: time.Hour, last: 3 * time.Hour}
	defer r.stop()
	require.True(t, h.waiters.join(cx.t))
	for _, want := range []time.Duration{1, 2, 3, 3} {
		r.later(cx)
		due := r.due
		for range 3 {
			r.later(cx)
		}
		require.Equal(t, due, r.due)
		require.Equal(t, due, r.alarm.std.at)
		require.Equal(t, want*time.Hour, r.delay)
		r.expire(nil)
	}
	require.EqualValues(t, 1, wakes.Load())
	r.succeeded()
	r.later(cx)
	require.Equal(t, time.Hour, r.delay)
	// The same holds on the worker of the task that fails.
	require.NoError(t, runTask(rt, func(cx *Context) error {
		r.later(cx)
		if at, want := r.alarm.armedAt(cx.here()), tickAfter(r.due); at != want || r.alarm.std != nil {
			return fmt.Errorf("armed for %d, not %d; Go's timer: %v", at, want, r.alarm.std)
		}
		r.stop()
		return nil
	}))
}

func TestUnixgramCancelledAndClosedWhileFull(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	dir := netDir(t)
	addr := &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"}
	c, err := ListenUnixgram("unixgram", addr)
	require.NoError(t, err)
	defer c.Close()
	d, err := ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "d"), Net: "unixgram"})
	require.NoError(t, err)
	fill := func(cx *Context) error {
		for {
			if _, err := d.WriteTo(cx, []byte("fill"), addr); err != nil {
				return err
			}
		}
	}
	h := Go(rt, fill)
	eventually(t, func() bool { return directionWaits(&d.src.wr) })
	h.Cancel()
	_, err = joinOrCancel(h)
	require.ErrorIs(t, err, context.Canceled)
	h = Go(rt, fill)
	eventually(t, func() bool { return directionWaits(&d.src.wr) })
	require.NoError(t, d.Close())
	_, err = joinOrCancel(h)
	require.ErrorIs(t, err, net.ErrClosed)
}

// sentIn returns the descriptors that came with a message.
func sentIn(oob []byte) []int {
	fds, _ := descriptorsIn(oob)
	return fds
}
