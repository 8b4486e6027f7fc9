package async

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// freePort returns a port at which no socket listens. Another program may get this port at any
// time.
func freePort(t *testing.T) int {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// A dial never returns a connection to itself if there is another local port. Here the first port
// that the system may choose is the port that is dialled (this needs Linux 6.3).
func TestDialerIsNotConnectedToItself(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ip := net.IPv4(127, 0, 0, 1)
	for name, local := range map[string]*net.TCPAddr{
		"none": nil, "port 0": {}, "an IP and port 0": {IP: ip},
	} {
		for _, ports := range []string{"the same", "the same, then another"} {
			var std, own, shown string
			for again := 0; again < 3 && (again == 0 || std != shown); again++ { // other programs may have taken the ports
				port, another := freePort(t), freePort(t)
				to := (&net.TCPAddr{IP: ip, Port: port}).String()
				shown = "3 sockets: " + to + " " + to
				if ports != "the same" {
					shown = "2 sockets: " + syscall.ECONNREFUSED.Error()
				}
				sockets := 0
				control := func(network, address string, c syscall.RawConn) (err error) {
					only := port
					if sockets++; sockets > 1 && ports != "the same" {
						only = another
					}
					return errors.Join(c.Control(func(fd uintptr) {
						err = errors.Join(
							unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_LOCAL_PORT_RANGE, only<<16|only),
							// The port can then be used again at once.
							unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
					}), err)
				}
				outcome := func(c net.Conn, err error) string {
					defer func() { sockets = 0 }()
					if errno := syscall.Errno(0); errors.As(err, &errno) {
						return fmt.Sprint(sockets, " sockets: ", errno)
					}
					defer c.Close()
					return fmt.Sprint(sockets, " sockets: ", c.LocalAddr(), " ", c.RemoteAddr())
				}
				stdDialer, ownDialer := net.Dialer{Control: control}, Dialer{Control: control}
				if local != nil {
					stdDialer.LocalAddr, ownDialer.LocalAddr = local, local
				}
				std = outcome(stdDialer.Dial("tcp", to))
				require.NoError(t, runTask(rt, func(cx *Context) error {
					c, err := ownDialer.Dial(cx, "tcp", to)
					if err != nil {
						own = outcome(nil, err)
					} else {
						own = outcome(BindConn(cx, c), nil)
					}
					return nil
				}))
			}
			assert.Equal(t, shown, std, "package net, from %s, %s", name, ports)
			assert.Equal(t, shown, own, "from %s, %s", name, ports)
		}
	}
}
