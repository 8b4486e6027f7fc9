package async

import (
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// sharedReactorState returns the state of the goroutine of a shared reactor, as Go prints it.
func sharedReactorState() string {
	buf := make([]byte, 1<<20)
	for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "(*sharedReactor).run(") {
			first, _, _ := strings.Cut(g, "\n")
			return first
		}
	}
	return ""
}

// The shared reactor waits in Go's own poller, or in a system call if Go's poller does not take
// its descriptor.
func TestSharedReactorWaitsInNetpoller(t *testing.T) {
	for _, alone := range []bool{false, true} {
		rt := newTestRuntime(t, Config{Workers: 1})
		a, b, err := SocketPair()
		require.NoError(t, err)
		defer a.Close()
		defer b.Close()
		if alone {
			r, l := &reactor{shared: true}, &rt.shared
			require.NoError(t, r.open(l.fds))
			r.poller.file = os.NewFile(uintptr(r.poller.fd), "epoll") // package os treats it as a blocking file
			l.exited = make(chan None)
			l.reactor.Store(r)
			go l.run(r)
		}
		x, y := NetConn(rt, a), NetConn(rt, b)
		for range 10 {
			read := later(func() (int, error) { return x.Read(make([]byte, 2)) })
			waits(t, x, 0)
			eventually(t, func() bool {
				return strings.Contains(sharedReactorState(), map[bool]string{false: "[IO wait", true: "[syscall"}[alone])
			})
			_, err = y.Write([]byte("x"))
			require.NoError(t, err)
			require.Equal(t, answer{n: 1}, soon(t, read))
		}
		require.NoError(t, unix.Shutdown(int(b.src.fd), unix.SHUT_RDWR))
		_, err = x.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		require.NoError(t, rt.Shutdown(ended()))
	}
}
