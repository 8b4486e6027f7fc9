package async

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// unixPacketPair returns the ends of a connection of the network "unixpacket".
func unixPacketPair(t testing.TB, rt *Runtime) (a, b *UnixConn) {
	t.Helper()
	ln, err := ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(netDir(t), "s"), Net: "unixpacket"})
	require.NoError(t, err)
	defer ln.Close()
	require.NoError(t, runTask(rt, func(cx *Context) error {
		x, y, err := netConnect(cx, ln)
		if err == nil {
			a, b = x.(*UnixConn), y.(*UnixConn)
		}
		return err
	}))
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// The system adds ancillary data to messages if the receiver has asked for it. This data leaves
// room for the files, is not taken for a file, and its descriptor does not stay open.
func TestUnixFilesBesideWhatTheSystemAdds(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	pairs := unixSenders(t)
	a, b := unixPacketPair(t, rt)
	pairs["packet"] = [2]fileSender{a, b}
	for kind, pair := range pairs {
		for _, options := range [][]int{{unix.SO_PASSCRED}, {unix.SO_PASSCRED, unix.SO_PASSPIDFD}, {unix.SO_PASSCRED, unix.SO_TIMESTAMP}} {
			raw, err := pair[1].(interface{ File() (*os.File, error) }).File()
			require.NoError(t, err)
			for _, option := range options {
				if err := unix.SetsockoptInt(int(raw.Fd()), unix.SOL_SOCKET, option, 1); err != unix.ENOPROTOOPT {
					require.NoError(t, err)
				}
			}
			raw.Close()
			for _, count := range []int{0, 1, 3} {
				what := fmt.Sprintf("%s, options %v, %d files", kind, options, count)
				ws, _ := unixPipes(t, count)
				before := openFds(t)
				require.NoError(t, runTask(rt, func(cx *Context) error {
					if _, err := pair[0].SendFiles(cx, []byte("x"), ws...); err != nil {
						return err
					}
					n, files, err := pair[1].ReceiveFiles(cx, make([]byte, 10), count)
					if n != 1 || len(files) != count || err != nil {
						t.Errorf("%s: %d bytes, %d files, %v", what, n, len(files), err)
					}
					for _, f := range files {
						f.Close()
					}
					return nil
				}))
				require.Equal(t, before, openFds(t), what)
			}
		}
	}
}

// A packet of no bytes is not the end if descriptors come with it.
func TestUnixEmptyPacketWithFiles(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := unixPacketPair(t, rt)
	x, y, err := DatagramPair()
	require.NoError(t, err)
	defer x.Close()
	defer y.Close()
	for kind, pair := range map[string][2]fileSender{"packet": {a, b}, "datagram": {x, y}} {
		send := func(file *os.File) {
			require.NoError(t, pair[0].(interface{ pollFD() *pollFD }).pollFD().control(func(fd int) error {
				return sendEmpty(fd, int(file.Fd()))
			}))
		}
		ws, _ := unixPipes(t, 1)
		before := openFds(t)
		send(ws[0])
		require.NoError(t, runTask(rt, func(cx *Context) error {
			n, files, err := pair[1].ReceiveFiles(cx, make([]byte, 10), 1)
			if n != 0 || len(files) != 1 || err != nil {
				return fmt.Errorf("%s: %d bytes, %d files, %v", kind, n, len(files), err)
			}
			return files[0].Close()
		}))
		send(ws[0])
		oob := make([]byte, unix.CmsgSpace(4))
		n, oobn, _, _, err := NetConn(rt, pair[1]).(interface {
			ReadMsgUnix(p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
		}).ReadMsgUnix(make([]byte, 10), oob)
		require.NoError(t, err, kind)
		require.Equal(t, []int{0, len(oob)}, []int{n, oobn}, kind)
		fds, _ := descriptorsIn(oob[:oobn])
		closeFDs(fds)
		require.Equal(t, before, openFds(t), kind)
	}
	a.Close()
	require.NoError(t, runTask(rt, func(cx *Context) error {
		if _, _, err := b.ReceiveFiles(cx, make([]byte, 10), 1); err != io.EOF {
			return fmt.Errorf("the end: %v", err)
		}
		return nil
	}))
}

// sendEmpty sends a message of no bytes with a descriptor. The sendmsg of x/sys/unix would add a
// byte.
func sendEmpty(fd, file int) error {
	m := []Message{{OOB: unix.UnixRights(file)}}
	_, err := sendBatch(fd, m, false, 0)
	return err
}

// An abstract name may fill the whole field that the system has for names.
func TestUnixAbstractNamesAreThoseOfPackageNet(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	filled := func(first string, n int) string {
		return first + fmt.Sprint(os.Getpid()) + strings.Repeat("a", n-len(first)-len(fmt.Sprint(os.Getpid())))
	}
	type seen struct{ listens, dialled, local, remote string }
	for _, name := range []string{filled("@", 20), filled("\x00", 20), filled("@", 107), filled("@", 108), filled("\x00", 108),
		filled("@x\x00y", 30), filled("@", 109), filled(netDir(t)+"/", 107), filled(netDir(t)+"/", 108)} {
		addr := &net.UnixAddr{Name: name, Net: "unix"}
		text := func(err error) string {
			if err == nil {
				return ""
			}
			return err.Error()
		}
		var want, got seen
		if ln, err := net.ListenUnix("unix", addr); err != nil {
			want.listens = text(err)
		} else {
			c, err := net.DialUnix("unix", nil, addr)
			if want.dialled = text(err); err == nil {
				want.local, want.remote = ln.Addr().String(), c.RemoteAddr().String()
				c.Close()
			}
			ln.Close()
		}
		if ln, err := ListenUnix("unix", addr); err != nil {
			got.listens = text(err)
		} else {
			require.NoError(t, runTask(rt, func(cx *Context) error {
				c, err := DialUnix(cx, "unix", nil, addr)
				if got.dialled = text(err); err == nil {
					got.local, got.remote = ln.Addr().String(), c.RemoteAddr().String()
					c.Close()
				}
				return nil
			}))
			ln.Close()
		}
		require.Equal(t, want, got, "%q", name)
	}

	// Datagrams are sent to such names and from such names, too.
	long := [2]*net.UnixAddr{{Name: filled("@1", 108), Net: "unixgram"}, {Name: filled("@2", 108), Net: "unixgram"}}
	a, err := ListenUnixgram("unixgram", long[0])
	require.NoError(t, err)
	defer a.Close()
	b, err := ListenUnixgram("unixgram", long[1])
	require.NoError(t, err)
	defer b.Close()
	c, err := DialUnixgram("unixgram", nil, long[1])
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, runTask(rt, func(cx *Context) error {
		if _, err := a.WriteTo(cx, []byte("to"), long[1]); err != nil {
			return err
		}
		if _, _, err := a.WriteMsgUnix(cx, []byte("msg"), nil, long[1]); err != nil {
			return err
		}
		if _, err := c.Write(cx, []byte("dialled")); err != nil {
			return err
		}
		for _, want := range []string{"to", "msg", "dialled"} {
			p := make([]byte, 20)
			n, from, err := b.ReadFrom(cx, p)
			if err != nil || string(p[:n]) != want {
				return fmt.Errorf("got %q, %v", p[:n], err)
			}
			if want != "dialled" && from.String() != long[0].Name {
				return fmt.Errorf("%s came from %q", want, from)
			}
		}
		return nil
	}))
}

// DialUnixgram without a peer opens a socket with the local address, as in package net.
func TestDialUnixgramWithoutPeer(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	at := func() *net.UnixAddr {
		return &net.UnixAddr{Name: filepath.Join(netDir(t), "s"), Net: "unixgram"}
	}
	for what, addrs := range map[string][2]*net.UnixAddr{
		"a local address": {at(), nil}, "and a peer without a name": {at(), {Net: "unixgram"}},
		"none": {nil, nil}, "a local one without a name": {{Net: "unixgram"}, nil},
		"of a socket that exists": {{Name: "/", Net: "unixgram"}, nil},
	} {
		want, werr := net.DialUnix("unixgram", addrs[0], addrs[1])
		if werr == nil {
			require.Nil(t, want.RemoteAddr(), what)
			want.Close()
			os.Remove(addrs[0].Name)
		}
		c, err := DialUnixgram("unixgram", addrs[0], addrs[1])
		if werr != nil {
			require.EqualError(t, err, werr.Error(), what)
			continue
		}
		require.NoError(t, err, what)
		require.Nil(t, c.RemoteAddr(), what)
		require.Equal(t, addrs[0].Name, c.LocalAddr().String(), what)
		other, err := DialUnixgram("unixgram", nil, addrs[0])
		require.NoError(t, err)
		require.NoError(t, runTask(rt, func(cx *Context) error {
			if err := tcpWrite(cx, other, "hello"); err != nil {
				return err
			}
			if _, err := c.WriteTo(cx, []byte("to myself"), addrs[0]); err != nil {
				return err
			}
			p := make([]byte, 9)
			if n, err := c.Read(cx, p); string(p[:n]) != "hello" {
				return fmt.Errorf("got %q, %v", p[:n], err)
			}
			return tcpExpect(cx, c, "to myself")
		}), what)
		other.Close()
		c.Close()
	}
}

// An empty packet is sent like other packets.
func TestUnixEmptyPacketIsSent(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := unixPacketPair(t, rt)
	for form, write := range map[string]func(p []byte) (int, error){
		"for goroutines": NetConn(rt, a).Write,
		"in a task": func(p []byte) (n int, err error) {
			return n, runTask(rt, func(cx *Context) (err error) { n, err = a.Write(cx, p); return err })
		},
		"bound": func(p []byte) (n int, err error) {
			return n, runTask(rt, func(cx *Context) (err error) { n, err = BindConn(cx, a).Write(p); return err })
		},
	} {
		for _, p := range []string{"x", "", "y"} {
			n, err := write([]byte(p))
			require.NoError(t, err, form)
			require.Len(t, p, n, form)
		}
		for _, want := range []string{"x", "", "y"} {
			p := make([]byte, 10)
			require.NoError(t, b.src.control(func(fd int) error {
				n, err := recv(fd, p, 0)
				require.Equal(t, want, string(p[:max(n, 0)]), form)
				return err
			}), form)
		}
	}
}
