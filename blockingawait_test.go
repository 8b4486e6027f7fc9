package async

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Code that does not end when it is cancelled, and that Shutdown unwinds in the end, leaves no
// descriptor open.
func TestUnwoundLeavesNothingOpen(t *testing.T) {
	full := tcpFullBacklog(t)
	addr, err := net.ResolveTCPAddr("tcp", full)
	require.NoError(t, err)
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))

	warmUp()
	fds := openFds(t)
	rt, err := New(Config{Workers: 1, Grace: 50 * time.Millisecond})
	require.NoError(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var ends []*TCPConn
	var r *File
	var writer *JoinHandle[None]
	inBlockOn(t, rt, func(cx *Context) (err error) {
		for range 2 {
			c, err := Dial(cx, "tcp", ln.Addr().String())
			require.NoError(t, err)
			ends = append(ends, c.(*TCPConn))
		}
		var w *File
		r, w, err = Pipe()
		require.NoError(t, err)
		writer = Go(cx, func(cx *Context) error {
			defer w.Close(cx)
			for {
				if _, err := w.Write(cx, pattern(1<<16)); err != nil {
					return err
				}
			}
		})
		return nil
	})
	before, goOn := openFds(t), make(chan None)
	wait := []func(cx *Context) error{
		func(cx *Context) error { _, err := DialTCP(cx, "tcp", nil, addr); return err },
		func(cx *Context) error { _, err := Dial(cx, "tcp", full); return err },
		func(cx *Context) error { _, err := Copy(cx, ends[0], r); return err },
		func(cx *Context) error {
			_, err := openInPool(cx, func() (*os.File, error) { <-goOn; return os.OpenFile(fifo, os.O_RDWR, 0) })
			return err
		},
	}
	var all []*JoinHandle[None]
	for _, do := range wait {
		all = append(all, Go(rt, func(cx *Context) error { return do(cx.WithoutCancel()) }))
	}
	// Both dials have a socket, and the copy a pipe, for which there is no room.
	eventually(t, func() bool {
		running, _, _, _ := rt.calls.count()
		return openFds(t) >= before+4 && all[2].info(nil).Waits == "write" && running == 1 && waiting(all[3])
	})
	writer.Cancel() // it notices the cancellation at an unknown time
	join(t, writer)
	var se *ShutdownError
	require.ErrorAs(t, rt.Shutdown(ended()), &se)
	require.Len(t, se.Tasks, 5)

	close(goOn)
	eventually(t, func() bool { running, _, _, _ := rt.calls.count(); return running == 0 })
	o, err := os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err == nil {
		o.Close()
	}
	require.ErrorIs(t, err, syscall.ENXIO, "its reader is closed")
	require.NoError(t, r.src.close())
	for _, c := range ends {
		c.Close()
	}
	ln.Close()
	eventually(t, func() bool { return openFds(t) <= fds })
}
