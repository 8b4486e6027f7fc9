package async

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// stdPipe returns a standard stream that is one end of a pipe. Its descriptors are blocking, as a
// shell makes them.
func stdPipe(t *testing.T, reading bool) (*File, *os.File) {
	t.Helper()
	var fds [2]int
	require.NoError(t, unix.Pipe(fds[:]))
	r, w := os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
	ours, other := r, w
	if !reading {
		ours, other = w, r
	}
	t.Cleanup(func() { other.Close() })
	return stdFile(ours), other
}

func nonblocking(t *testing.T, f *os.File) bool {
	t.Helper()
	conn, err := f.SyscallConn()
	require.NoError(t, err)
	var flags int
	require.NoError(t, conn.Control(func(fd uintptr) { flags, err = unix.FcntlInt(fd, unix.F_GETFL, 0) }))
	require.NoError(t, err)
	return flags&unix.O_NONBLOCK != 0
}

// A read that waits for input uses no thread. It takes no more bytes than it asks for, and loses
// nothing when it is given up. The descriptor stays blocking.
func TestStdinReadHoldsNoThread(t *testing.T) {
	rt := fileRuntime(t)
	in, out := stdPipe(t, true)
	read := func(cx *Context) (string, error) {
		p := make([]byte, 3)
		n, err := in.Read(cx, p)
		return string(p[:n]), err
	}
	h := Spawn(rt, read)
	eventually(t, func() bool { return waiting(h) })
	running, _, _, _ := rt.calls.count()
	require.Zero(t, running)
	require.False(t, nonblocking(t, in.os))
	h.Cancel()
	_, err := join(t, h)
	require.Equal(t, context.Canceled, err)

	h = Spawn(rt, read)
	eventually(t, func() bool { return waiting(h) })
	_, err = out.WriteString("abcdef")
	require.NoError(t, err)
	s, err := join(t, h)
	require.NoError(t, err)
	require.Equal(t, "abc", s)
	p := make([]byte, 10)
	n, err := in.os.Read(p) // another reader of the same pipe
	require.NoError(t, err)
	require.Equal(t, "def", string(p[:n]))

	closed := Spawn(rt, read)
	eventually(t, func() bool { return waiting(closed) })
	inBlockOn(t, rt, in.Close)
	_, err = join(t, closed)
	require.ErrorIs(t, err, os.ErrClosed)
}

// Input that cannot be read again is kept when the file is changed, even while the pool waits for
// it.
func TestStdinKeepsInput(t *testing.T) {
	rt := fileRuntime(t)
	in, out := stdPipe(t, true)
	in.input = nil
	h := Spawn(rt, func(cx *Context) (string, error) {
		p := make([]byte, 3)
		n, err := in.Read(cx, p)
		return string(p[:n]), err
	})
	eventually(t, func() bool { running, _, _, _ := rt.calls.count(); return running == 1 && waiting(h) })
	inBlockOn(t, rt, func(cx *Context) error {
		require.Error(t, in.Truncate(cx, 0))
		return nil
	})
	_, err := out.WriteString("abc")
	require.NoError(t, err)
	s, err := join(t, h)
	require.NoError(t, err)
	require.Equal(t, "abc", s)
	inBlockOn(t, rt, in.Close)
}

// The standard streams can be used by one runtime after another.
func TestStdinNextRuntime(t *testing.T) {
	in, out := stdPipe(t, true)
	for range 3 {
		rt, err := New(Config{Workers: 1})
		require.NoError(t, err)
		h := Spawn(rt, func(cx *Context) (string, error) {
			p := make([]byte, 1)
			n, err := in.Read(cx, p)
			return string(p[:n]), err
		})
		eventually(t, func() bool { return waiting(h) })
		_, err = out.WriteString("x")
		require.NoError(t, err)
		s, err := join(t, h)
		require.NoError(t, err)
		require.Equal(t, "x", s)
		require.NoError(t, rt.Shutdown(context.Background()))
	}
	rt := newTestRuntime(t, Config{Workers: 1})
	out.Close()
	inBlockOn(t, rt, func(cx *Context) error {
		_, err := in.Read(cx, make([]byte, 1))
		require.Equal(t, io.EOF, err)
		return in.Close(cx)
	})
}

// If the reactor cannot poll the input, the pool waits for it.
func TestStdinFile(t *testing.T) {
	rt := fileRuntime(t)
	name := t.TempDir() + "/in"
	require.NoError(t, os.WriteFile(name, []byte("one\ntwo\n"), 0o600))
	o, err := os.Open(name)
	require.NoError(t, err)
	in := stdFile(o)
	inBlockOn(t, rt, func(cx *Context) error {
		lines := bufio.NewScanner(BindFile(cx, in))
		var got []string
		for lines.Scan() {
			got = append(got, lines.Text())
		}
		require.Equal(t, []string{"one", "two"}, got)
		return in.Close(cx)
	})
}

// Write returns when the data is written, even if there is no room at first.
func TestStdoutWriteReturnsWhenWritten(t *testing.T) {
	rt := fileRuntime(t)
	out, in := stdPipe(t, false)
	inBlockOn(t, rt, func(cx *Context) error {
		n, err := out.WriteString(cx, "at once")
		require.NoError(t, err)
		require.Equal(t, 7, n)
		p := make([]byte, 100)
		n, err = in.Read(p)
		require.NoError(t, err)
		require.Equal(t, "at once", string(p[:n]))
		return nil
	})
	require.False(t, nonblocking(t, out.os))
	h := Go(rt, func(cx *Context) error { _, err := out.Write(cx, pattern(1<<20)); return err })
	eventually(t, func() bool { return waiting(h) })
	got := make([]byte, 1<<20)
	_, err := io.ReadFull(in, got)
	require.NoError(t, err)
	require.Equal(t, pattern(1<<20), got)
	_, err = join(t, h)
	require.NoError(t, err)

	// A Write that is given up continues.
	var n int
	h = Go(rt, func(cx *Context) (err error) { n, err = out.Write(cx, pattern(bufferLarge)); return err })
	eventually(t, func() bool { return waiting(h) })
	h.Cancel()
	_, err = join(t, h)
	require.Equal(t, context.Canceled, err)
	_, err = io.ReadFull(in, got[:n])
	require.NoError(t, err)
	require.Equal(t, pattern(n), got[:n])

	in.Close()
	inBlockOn(t, rt, func(cx *Context) error {
		n, err := out.WriteString(cx, "nobody") // not descriptor 1 or 2
		require.ErrorIs(t, err, syscall.EPIPE)
		require.Zero(t, n)
		require.ErrorIs(t, out.Close(cx), syscall.EPIPE)
		return nil
	})
}

// If a write fails, all tasks whose data is lost get the error, and no other task does, even if it
// could get it first.
func TestStdoutSharedFailure(t *testing.T) {
	rt := fileRuntime(t)
	out, in := stdPipe(t, false)
	size := pipeSize(t)
	n := make([]int, 3)
	var all []*JoinHandle[None]
	for i := range n {
		all = append(all, Go(rt, func(cx *Context) (err error) { n[i], err = out.Write(cx, pattern(2*size)); return err }))
		eventually(t, func() bool { return waiting(all[i]) })
	}
	stat := Go(rt, func(cx *Context) error { _, err := out.Stat(cx); return err })
	eventually(t, func() bool { return waiting(stat) })
	eventually(t, func() bool { return full(t, out.os) })
	in.Close()
	for _, h := range append(all, stat) {
		_, err := join(t, h)
		require.ErrorIs(t, err, syscall.EPIPE)
	}
	require.Equal(t, []int{size, 0, 0}, n)
	inBlockOn(t, rt, func(cx *Context) error {
		require.NoError(t, out.Flush(cx), "everybody knows")
		require.ErrorIs(t, out.Close(cx), syscall.EPIPE)
		return nil
	})
	require.Empty(t, out.tickets)
}

// full reports whether a pipe has no room.
func full(t *testing.T, w *os.File) (is bool) {
	t.Helper()
	conn, err := w.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, conn.Control(func(fd uintptr) { is = fdReadyNow(int(fd), unix.POLLOUT) == unix.EAGAIN }))
	return is
}

// pipeSize returns how many bytes a pipe holds.
func pipeSize(t *testing.T) (n int) {
	t.Helper()
	var fds [2]int
	require.NoError(t, openPipe(&fds))
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	for p := make([]byte, 4096); ; {
		m, err := unix.Write(fds[1], p)
		if err == unix.EAGAIN {
			return n
		}
		require.NoError(t, err)
		n += m
	}
}

// The test uses the descriptors 0, 1 and 2 themselves, in another process.
func TestStdStreamsOfAProcess(t *testing.T) {
	if inChild(t) {
		err := Run(func(cx *Context) error {
			line, err := bufio.NewReader(BindFile(cx, Stdin)).ReadString('\n')
			if err == nil {
				_, err = Stdout.WriteString(cx, "got "+line)
			}
			if err == nil {
				_, err = Stderr.WriteString(cx, "and said so\n")
			}
			return err
		})
		if err != nil {
			os.Exit(3)
		}
		os.Exit(0)
	}
	cmd := child(t)
	cmd.Stdin = strings.NewReader("a line\nmore")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	require.Equal(t, "got a line\n", string(out))
	require.Contains(t, stderr.String(), "and said so\n")
}

// A program that writes to a standard output without a reader dies of SIGPIPE, unless
// it asks for the signal.
func TestStdoutWithoutReader(t *testing.T) {
	const survive = "ASYNC_TEST_SURVIVE"
	if inChild(t) {
		if os.Getenv(survive) != "" {
			signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
		}
		err := Run(func(cx *Context) error {
			_, err := Stdout.WriteString(cx, "x")
			return err
		})
		switch {
		case errors.Is(err, syscall.EPIPE):
			os.Exit(3)
		case err != nil:
			os.Exit(4)
		}
		os.Exit(0)
	}
	for _, env := range []string{"", survive + "=1"} {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		r.Close()
		cmd := child(t, env)
		cmd.Stdout = w
		err = cmd.Run()
		w.Close()
		require.Error(t, err)
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if env == "" {
			require.Equal(t, syscall.SIGPIPE, status.Signal())
		} else {
			require.Equal(t, 3, status.ExitStatus())
		}
	}
	// A standard output that is closed when the program starts is the null
	// device: Go's runtime sees to that.
	cmd := child(t)
	shell := *cmd
	shell.Path, shell.Args = "/bin/sh", append([]string{"sh", "-c", `exec "$0" "$@" >&-`, cmd.Path}, cmd.Args[1:]...)
	require.NoError(t, shell.Run())
}
