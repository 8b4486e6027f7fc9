package async

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// sourcePipe returns the ends of a pipe as Sources that the test need not close.
func sourcePipe(t testing.TB) (r, w *Source) {
	t.Helper()
	var p [2]int
	require.NoError(t, unix.Pipe(p[:]))
	r, err := NewSource(p[0])
	require.NoError(t, err)
	w, err = NewSource(p[1])
	require.NoError(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// readSome is an argument of ReadWith.
func readSome(p []byte) func(fd int) (int, error) {
	return func(fd int) (int, error) {
		n, err := unix.Read(fd, p)
		if n == 0 && err == nil {
			err = io.EOF
		}
		return n, err
	}
}

func writeSome(s string) func(fd int) (int, error) {
	return func(fd int) (int, error) { return unix.Write(fd, []byte(s)) }
}

func TestSourcePipe(t *testing.T) {
	for _, way := range tcpWays {
		t.Run(way.name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			r, w := sourcePipe(t)
			const total = 1 << 20 // more than a pipe holds
			sender := Go(rt, func(cx *Context) error {
				defer w.Close()
				for sent := 0; sent < total; {
					n, err := w.WriteWith(cx, writeSome(strings.Repeat("x", min(5000, total-sent))))
					if err != nil {
						return err
					}
					sent += n
				}
				return nil
			})
			require.NoError(t, way.run(rt, func(cx *Context) error {
				p := make([]byte, 7000)
				for got := 0; ; {
					n, err := r.ReadWith(cx, readSome(p))
					if got += n; err == io.EOF {
						require.Equal(t, total, got)
						return nil
					} else if err != nil {
						return err
					}
				}
			}))
			_, err := joinOrCancel(sender)
			require.NoError(t, err)
		})
	}
}

// Readable asks the kernel. So it does not matter how much a read takes, nor whether it is made
// with the Source.
func TestSourceReadableAsksTheKernel(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	r, w := sourcePipe(t)
	cx, wakes := newPollCx(t, rt)
	require.Equal(t, ErrPending, r.PollReadable(cx))
	require.NoError(t, w.PollWritable(cx))
	p := make([]byte, 1)
	for range 3 {
		n := wakes.Load()
		_, err := unix.Write(int(w.src.fd), []byte("abc"))
		require.NoError(t, err)
		eventually(t, func() bool { return wakes.Load() > n })
		for range 3 {
			require.NoError(t, r.PollReadable(cx))
			_, err := unix.Read(int(r.src.fd), p) // as a C library does
			require.NoError(t, err)
		}
		require.Equal(t, ErrPending, r.PollReadable(cx))
	}
	// Full, and then not.
	fill := make([]byte, 4096)
	for {
		if _, err := unix.Write(int(w.src.fd), fill); err == unix.EAGAIN {
			break
		}
	}
	require.Equal(t, ErrPending, w.PollWritable(cx))
	n := wakes.Load()
	for {
		if _, err := unix.Read(int(r.src.fd), fill); err == unix.EAGAIN {
			break
		}
	}
	eventually(t, func() bool { return wakes.Load() > n })
	require.NoError(t, w.PollWritable(cx))
}

func TestSourceReadableAwaits(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	r, w := sourcePipe(t)
	h := Go(rt, func(cx *Context) error { return r.Readable(cx) })
	eventually(t, func() bool { return waiting(h) })
	require.NoError(t, runTask(rt, func(cx *Context) error {
		if err := w.Writable(cx); err != nil {
			return err
		}
		_, err := w.WriteWith(cx, writeSome("x"))
		return err
	}))
	_, err := joinOrCancel(h)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, runTask(rt, func(cx *Context) error {
		for range 2 {
			if err := r.Readable(cx); err != nil {
				return err
			}
			r.ReadWith(cx, readSome(make([]byte, 8)))
		}
		return r.Readable(cx) // at the end the Source stays readable
	}))
}

func TestSourceErrors(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	r, _ := sourcePipe(t)
	waits := map[string]func(cx *Context) error{
		"Readable": r.Readable,
		"ReadWith": func(cx *Context) error { _, err := r.ReadWith(cx, readSome(make([]byte, 1))); return err },
	}
	for name, wait := range waits {
		t.Run(name, func(t *testing.T) {
			h := Go(rt, wait)
			eventually(t, func() bool { return waiting(h) })
			h.Cancel()
			_, err := joinOrCancel(h)
			require.ErrorIs(t, err, context.Canceled)

			h = Go(rt, wait)
			eventually(t, func() bool { return waiting(h) })
			require.NoError(t, r.setReadDeadline(time.Now().Add(time.Millisecond)))
			_, err = joinOrCancel(h)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.NoError(t, r.setDeadline(time.Time{}))
		})
	}
	_, w := sourcePipe(t)
	for err := error(nil); err == nil; {
		_, err = unix.Write(int(w.src.fd), make([]byte, 4096))
	}
	for name, wait := range map[string]func(cx *Context) error{
		"Writable":  w.Writable,
		"WriteWith": func(cx *Context) error { _, err := w.WriteWith(cx, writeSome("x")); return err },
	} {
		h := Go(rt, wait)
		eventually(t, func() bool { return waiting(h) }, name)
		h.Cancel()
		_, err := joinOrCancel(h)
		require.ErrorIs(t, err, context.Canceled, name)
	}
	require.NoError(t, r.setWriteDeadline(time.Unix(1, 0)))
	require.ErrorIs(t, runTask(rt, r.Writable), os.ErrDeadlineExceeded)

	// The results of the call are returned, except EINTR. The call is also made if the Source has
	// waited before and is known to be not readable.
	calls := 0
	require.NoError(t, runTask(rt, func(cx *Context) error {
		n, err := r.ReadWith(cx, func(fd int) (int, error) {
			if calls++; calls < 3 {
				return 0, unix.EINTR
			} else if calls == 3 {
				return 0, os.NewSyscallError("read", unix.EINTR)
			}
			return 7, unix.EIO
		})
		require.Equal(t, 7, n)
		require.Equal(t, unix.EIO, err)
		return nil
	}))

	h := Go(rt, r.Readable)
	eventually(t, func() bool { return waiting(h) })
	require.NoError(t, r.Close())
	_, err := joinOrCancel(h)
	require.ErrorIs(t, err, os.ErrClosed)
	for name, err := range map[string]error{
		"Close":       r.Close(),
		"Control":     r.Control(func(int) error { return nil }),
		"SetDeadline": r.setDeadline(time.Time{}),
		"Readable":    runTask(rt, r.Readable),
		"Writable":    runTask(rt, r.Writable),
	} {
		require.ErrorIs(t, err, os.ErrClosed, name)
	}
	_, err = r.Detach()
	require.ErrorIs(t, err, os.ErrClosed)
}

func TestSourceRefusesWhatCannotBeWaitedFor(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(name, []byte("regular"), 0o600))
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	before := openFds(t)
	_, err = newSourceOf(f)
	require.ErrorIs(t, err, ErrNotPollable)
	eventually(t, func() bool { return openFds(t) <= before }, "the duplicate is closed")
	require.NoError(t, control(f, func(fd int) {
		_, err = NewSource(fd)
		require.ErrorIs(t, err, ErrNotPollable)
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		require.NoError(t, err)
		require.Zero(t, flags&unix.O_NONBLOCK, "it is left alone")
	}))

	for _, fd := range []int{-1, 1 << 20} {
		_, err = NewSource(fd)
		require.ErrorIs(t, err, unix.EBADF)
	}
	require.NoError(t, f.Close())
	_, err = newSourceOf(f)
	require.Error(t, err)
}

func control(c syscall.Conn, f func(fd int)) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) })
}

// A Source of a descriptor with another owner is a duplicate.
func TestSourceOfOthers(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer a.Close()
	b, err := ln.Accept()
	require.NoError(t, err)
	defer b.Close()
	s, err := newSourceOf(b.(*net.TCPConn))
	require.NoError(t, err)
	defer s.Close()
	read := func() (text string, err error) {
		p := make([]byte, 8)
		err = runTask(rt, func(cx *Context) error {
			n, err := s.ReadWith(cx, readSome(p))
			text = string(p[:n])
			return err
		})
		return text, err
	}
	_, err = a.Write([]byte("one"))
	require.NoError(t, err)
	text, err := read()
	require.NoError(t, err)
	require.Equal(t, "one", text)
	require.NoError(t, b.Close())
	_, err = a.Write([]byte("two"))
	require.NoError(t, err)
	text, err = read()
	require.NoError(t, err)
	require.Equal(t, "two", text)
}

// The caller's function may wrap EAGAIN.
func TestSourceWrappedErrors(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	r, w := sourcePipe(t)
	h := Go(rt, func(cx *Context) error {
		_, err := r.ReadWith(cx, func(fd int) (int, error) {
			n, err := unix.Read(fd, make([]byte, 8))
			return n, os.NewSyscallError("read", err)
		})
		return err
	})
	eventually(t, func() bool { return waiting(h) })
	require.NoError(t, runTask(rt, func(cx *Context) error { _, err := w.WriteWith(cx, writeSome("x")); return err }))
	_, err := joinOrCancel(h)
	require.NoError(t, err)
}

func TestSourceDetach(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	r, w := sourcePipe(t)
	h := Go(rt, r.Readable)
	eventually(t, func() bool { return waiting(h) })
	require.ErrorIs(t, r.Control(func(int) error {
		_, err := r.Detach()
		return err
	}), ErrSourceInUse)
	require.True(t, waiting(h), "nothing has happened")

	sources := rt.Metrics().Sources
	fd, err := r.Detach()
	require.NoError(t, err)
	_, err = joinOrCancel(h)
	require.ErrorIs(t, err, os.ErrClosed)
	require.Equal(t, sources-1, rt.Metrics().Sources)
	require.ErrorIs(t, r.Close(), os.ErrClosed)

	// The descriptor is open, and a new Source can use it.
	again, err := NewSource(fd)
	require.NoError(t, err)
	defer again.Close()
	require.NoError(t, runTask(rt, func(cx *Context) error {
		if _, err := w.WriteWith(cx, writeSome("x")); err != nil {
			return err
		}
		_, err := again.ReadWith(cx, readSome(make([]byte, 1)))
		return err
	}))
}

// Close and Detach race with calls. Each call succeeds or fails with the error for a closed Source,
// and the descriptor is closed or returned once.
func TestSourceClosedInUse(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	for range 50 {
		var p [2]int
		require.NoError(t, unix.Pipe(p[:]))
		r, err := NewSource(p[0])
		require.NoError(t, err)
		var hs []*JoinHandle[None]
		for range 4 {
			hs = append(hs, Go(rt, func(cx *Context) error {
				for {
					if _, err := r.ReadWith(cx, readSome(make([]byte, 1))); err != nil {
						return err
					}
				}
			}))
		}
		var mu sync.Mutex
		given := 0
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				unix.Write(p[1], []byte("some"))
				fd, err := r.Detach()
				for err == ErrSourceInUse {
					fd, err = r.Detach()
				}
				if err == nil {
					mu.Lock()
					given++
					mu.Unlock()
					unix.Close(fd)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 1, given)
		for _, h := range hs {
			_, err := joinOrCancel(h)
			require.ErrorIs(t, err, os.ErrClosed)
		}
		unix.Close(p[1])
	}
}
