package async

import (
	"bytes"
	"net"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// drained puts c into the state "not readable", by a short read.
func drained(cx *Context, c, peer Conn) error {
	if err := tcpWrite(cx, peer, "abc"); err != nil {
		return err
	}
	_, err := c.Read(cx, make([]byte, 64))
	return err
}

// Database drivers check by a read of their own whether a connection is alive. That read is made
// even if c is in the state "not readable".
func TestRawConnAsksWhateverIsKnown(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := tcpPair(t, rt)
	h := Go(rt, func(cx *Context) error {
		if err := drained(cx, a, b); err != nil {
			return err
		}
		raw, err := BindConn(cx, a).(syscall.Conn).SyscallConn()
		if err != nil {
			return err
		}
		calls := 0
		require.NoError(t, raw.Read(func(uintptr) bool { calls++; return true }))
		require.Equal(t, 1, calls)
		return nil
	})
	defer h.Cancel()
	_, err := joinOrCancel(h)
	require.NoError(t, err)
}

// The same holds if c gets into this state while the caller waits for its turn.
func TestNetRawConnAsksAfterItsTurnHasCome(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := tcpPair(t, rt)
	n := NetConn(rt, a).(*netTCPConn)
	raw, err := n.SyscallConn()
	require.NoError(t, err)
	n.sides.rd.mu.Lock()
	read := later(func() (int, error) { return 0, raw.Read(func(uintptr) bool { return true }) })
	eventually(t, func() bool { return standsIn("(*netSide).lock") })
	require.NoError(t, runTask(rt, func(cx *Context) error { return drained(cx, a, b) }))
	n.sides.rd.mu.Unlock()
	require.NoError(t, soon(t, read).err)
}

// standsIn reports whether a goroutine has called a function and waits.
func standsIn(fn string) bool {
	buf := make([]byte, 1<<20)
	for _, stack := range bytes.Split(buf[:runtime.Stack(buf, true)], []byte("\n\n")) {
		if head, _, _ := bytes.Cut(stack, []byte("\n")); bytes.Contains(stack, []byte(fn+"(")) && !bytes.Contains(head, []byte("run")) {
			return true
		}
	}
	return false
}

// A function of the program's that does not return ends its use of the descriptor: Close closes the
// descriptor, and other waiters may try.
func TestRawCallbacksThatDoNotReturn(t *testing.T) {
	panics := func() { panic("the function panics") }
	for name, end := range map[string]func(){"panic": panics, "Goexit": runtime.Goexit} {
		for _, way := range []struct {
			name string
			use  func(cx *Context, s *Source, c *TCPConn, n net.Conn)
		}{
			{"ReadWith", func(cx *Context, s *Source, c *TCPConn, n net.Conn) {
				s.ReadWith(cx, func(int) (int, error) { end(); return 0, nil })
			}},
			{"WriteWith", func(cx *Context, s *Source, c *TCPConn, n net.Conn) {
				s.WriteWith(cx, func(int) (int, error) { end(); return 0, nil })
			}},
			{"Control", func(cx *Context, s *Source, c *TCPConn, n net.Conn) {
				s.Control(func(int) error { end(); return nil })
			}},
			{"RawConn", func(cx *Context, s *Source, c *TCPConn, n net.Conn) {
				raw, _ := BindConn(cx, c).(syscall.Conn).SyscallConn()
				raw.Read(func(uintptr) bool { end(); return true })
			}},
			{"RawConn of a NetConn", func(cx *Context, s *Source, c *TCPConn, n net.Conn) {
				raw, _ := n.(syscall.Conn).SyscallConn()
				over := make(chan struct{})
				go func() {
					defer close(over)
					defer func() { recover() }()
					raw.Write(func(uintptr) bool { end(); return true })
				}()
				<-over
			}},
		} {
			t.Run(name+" in "+way.name, func(t *testing.T) {
				rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(Task, error) {}, Stall: -1})
				s, _ := sourcePipe(t)
				c, _ := tcpPair(t, rt)
				joinOrCancel(Go(rt, func(cx *Context) error { way.use(cx, s, c, NetConn(rt, c)); return nil }))
				for _, src := range []*pollFD{&s.src, &c.src} {
					require.NoError(t, src.close())
					_, err := unix.FcntlInt(uintptr(src.fd), unix.F_GETFD, 0)
					require.Equal(t, unix.EBADF, err, "it is closed")
				}
			})
		}
	}
}
