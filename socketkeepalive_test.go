package async

import (
	"fmt"
	"math"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"example.com/async/internal/sys"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// keepAliveTimes are times that package net treats in different ways: values that do not
// mean a time, times that are rounded, and times that the system may refuse.
var keepAliveTimes = []time.Duration{
	0, 1, 500 * time.Millisecond, time.Second, time.Second + 1, 1500 * time.Millisecond, 15 * time.Second,
	40*time.Second - 1, 32767 * time.Second, 32767*time.Second + 1, math.MaxInt32 * time.Second, math.MaxInt64,
	-1, -time.Millisecond, -time.Second, -time.Minute, math.MinInt64,
}

// keepAliveOf returns the options of a socket for probes on a silent connection, and its
// TCP_NODELAY, which is set along with them.
func keepAliveOf(t testing.TB, c syscall.Conn) string {
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	text := ""
	require.NoError(t, raw.Control(func(fd uintptr) {
		for _, o := range []struct {
			name          string
			level, option int
		}{
			{"keep-alive", unix.SOL_SOCKET, unix.SO_KEEPALIVE},
			{"idle", unix.IPPROTO_TCP, sys.KeepAliveIdle},
			{"interval", unix.IPPROTO_TCP, sys.KeepAliveInterval},
			{"count", unix.IPPROTO_TCP, sys.KeepAliveCount},
			{"no delay", unix.IPPROTO_TCP, unix.TCP_NODELAY},
		} {
			v, err := unix.GetsockoptInt(int(fd), o.level, o.option)
			if runtime.GOOS != "linux" && o.level == unix.SOL_SOCKET {
				v = sys.BoolInt(v != 0)
			}
			text += fmt.Sprint(o.name, " ", v, " ", err, "; ")
		}
	}))
	return text
}

// keepAlivePeer accepts connections for the test, and dials other listeners.
func keepAlivePeer(t testing.TB) (address string, dial func(ln net.Addr)) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String(), func(to net.Addr) {
		c, err := net.Dial("tcp4", to.String())
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
	}
}

// keepAliveAPI makes connections in all ways of package net. d is for the ways that have such a
// setting.
type keepAliveAPI struct {
	dialer       func(d time.Duration, address string) (net.Conn, error)
	listenConfig func(d time.Duration) (net.Listener, error)
	dialTCP      func(raddr *net.TCPAddr) (net.Conn, error)
	listenTCP    func() (net.Listener, error)
	fileConn     func(f *os.File) (net.Conn, error)
	fileListener func(f *os.File) (net.Listener, error)
}

var keepAliveHost = net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}

func keepAliveStd(t testing.TB) keepAliveAPI {
	return keepAliveAPI{
		dialer: func(d time.Duration, address string) (net.Conn, error) {
			return (&net.Dialer{KeepAlive: d}).Dial("tcp4", address)
		},
		listenConfig: func(d time.Duration) (net.Listener, error) {
			lc := net.ListenConfig{KeepAlive: d}
			lc.SetMultipathTCP(false)
			return lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
		},
		dialTCP:      func(raddr *net.TCPAddr) (net.Conn, error) { return net.DialTCP("tcp4", nil, raddr) },
		listenTCP:    func() (net.Listener, error) { return net.ListenTCP("tcp4", &keepAliveHost) },
		fileConn:     net.FileConn,
		fileListener: net.FileListener,
	}
}

func keepAliveOwn(rt *Runtime) keepAliveAPI {
	form := func(c Conn, err error) (net.Conn, error) {
		if err != nil {
			return nil, err
		}
		return NetConn(rt, c), nil
	}
	listener := func(l Listener, err error) (net.Listener, error) {
		if err != nil {
			return nil, err
		}
		return NetListener(rt, l), nil
	}
	return keepAliveAPI{
		dialer: func(d time.Duration, address string) (net.Conn, error) {
			return form(BlockOn(rt, func(cx *Context) (Conn, error) { return (&Dialer{KeepAlive: d}).Dial(cx, "tcp4", address) }))
		},
		listenConfig: func(d time.Duration) (net.Listener, error) {
			return listener(BlockOn(rt, func(cx *Context) (Listener, error) {
				return (&ListenConfig{KeepAlive: d}).Listen(cx, "tcp4", "127.0.0.1:0")
			}))
		},
		dialTCP: func(raddr *net.TCPAddr) (net.Conn, error) {
			return form(BlockOn(rt, func(cx *Context) (Conn, error) { return DialTCP(cx, "tcp4", nil, raddr) }))
		},
		listenTCP:    func() (net.Listener, error) { return listener(ListenTCP("tcp4", &keepAliveHost)) },
		fileConn:     func(f *os.File) (net.Conn, error) { return form(FileConn(f)) },
		fileListener: func(f *os.File) (net.Listener, error) { return listener(FileListener(f)) },
	}
}

// keepAliveSame compares the results of fn for the two libraries.
func keepAliveSame(t *testing.T, fn func(api keepAliveAPI) string, what string) {
	t.Helper()
	rt := newTestRuntime(t, Config{Workers: 1})
	want, got := fn(keepAliveStd(t)), fn(keepAliveOwn(rt))
	require.Equal(t, want, got, what)
}

// However a connection is made, the system probes it in the same way as a connection of package
// net.
func TestKeepAliveIsThatOfPackageNet(t *testing.T) {
	address, dial := keepAlivePeer(t)
	facts := func(c net.Conn, err error) string {
		require.NoError(t, err)
		defer c.Close()
		return keepAliveOf(t, c.(syscall.Conn))
	}
	accepted := func(ln net.Listener, err error) string {
		require.NoError(t, err)
		defer ln.Close()
		dial(ln.Addr())
		return facts(ln.Accept())
	}
	// fileOf returns a socket on which no option for probes has been set.
	fileOf := func(listens bool) *os.File {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		require.NoError(t, err)
		f := os.NewFile(uintptr(fd), "socket")
		t.Cleanup(func() { f.Close() })
		if listens {
			require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
			require.NoError(t, unix.Listen(fd, 8))
			return f
		}
		to, err := net.ResolveTCPAddr("tcp4", address)
		require.NoError(t, err)
		require.NoError(t, unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte(to.IP.To4()), Port: to.Port}))
		return f
	}
	for _, d := range keepAliveTimes {
		keepAliveSame(t, func(api keepAliveAPI) string { return facts(api.dialer(d, address)) }, fmt.Sprint("Dialer.KeepAlive ", d))
		keepAliveSame(t, func(api keepAliveAPI) string { return accepted(api.listenConfig(d)) }, fmt.Sprint("ListenConfig.KeepAlive ", d))
	}
	to, err := net.ResolveTCPAddr("tcp4", address)
	require.NoError(t, err)
	keepAliveSame(t, func(api keepAliveAPI) string { return facts(api.dialTCP(to)) }, "DialTCP")
	keepAliveSame(t, func(api keepAliveAPI) string { return accepted(api.listenTCP()) }, "ListenTCP")
	keepAliveSame(t, func(api keepAliveAPI) string { return facts(api.fileConn(fileOf(false))) }, "FileConn")
	keepAliveSame(t, func(api keepAliveAPI) string { return accepted(api.fileListener(fileOf(true))) }, "FileListener")
}

// Settings that a program makes later have the same effect, and fail in the same way, as in package
// net.
func TestKeepAliveSettersAreThoseOfPackageNet(t *testing.T) {
	address, _ := keepAlivePeer(t)
	changed := func(api keepAliveAPI, change func(c netTCP) error) string {
		c, err := api.dialer(-1, address) // so that no time has been set
		require.NoError(t, err)
		defer c.Close()
		text := ""
		for range 2 { // the second round begins with the settings of the first
			err = change(c.(netTCP))
			if err != nil {
				text += fmt.Sprint(netErrorFacts(err), "; ")
			}
			text += keepAliveOf(t, c.(syscall.Conn))
			require.NoError(t, c.(netTCP).SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 50 * time.Second, Interval: 51 * time.Second, Count: 52}))
		}
		return text
	}
	for _, d := range keepAliveTimes {
		keepAliveSame(t, func(api keepAliveAPI) string {
			return changed(api, func(c netTCP) error { return c.SetKeepAlivePeriod(d) })
		}, fmt.Sprint("SetKeepAlivePeriod ", d))
		for _, config := range []net.KeepAliveConfig{
			{Enable: true, Idle: d, Interval: 20 * time.Second, Count: 3},
			{Enable: true, Idle: 20 * time.Second, Interval: d, Count: 3},
			{Enable: false, Idle: d, Interval: d, Count: -1},
		} {
			keepAliveSame(t, func(api keepAliveAPI) string {
				return changed(api, func(c netTCP) error { return c.SetKeepAliveConfig(config) })
			}, fmt.Sprint("SetKeepAliveConfig ", config))
		}
	}
	for _, n := range []int{0, 1, 9, 127, 128, math.MaxInt32, -1, math.MinInt} {
		config := net.KeepAliveConfig{Enable: true, Idle: -1, Interval: 7 * time.Second, Count: n}
		keepAliveSame(t, func(api keepAliveAPI) string {
			return changed(api, func(c netTCP) error { return c.SetKeepAliveConfig(config) })
		}, fmt.Sprint("SetKeepAliveConfig ", config))
	}
}
