package async

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// brokenFile returns a File whose writes fail.
func brokenFile(t testing.TB, rt *Runtime) (f *File) {
	inBlockOn(t, rt, func(cx *Context) (err error) {
		f, err = Create(cx, filepath.Join(t.TempDir(), "f"))
		return err
	})
	require.NoError(t, f.os.Close())
	return f
}

// Shutdown reports a failed write if no call has returned its error, and only then.
func TestShutdownTellsOfFailedWrites(t *testing.T) {
	for how, c := range map[string]struct {
		then func(cx *Context, f *File) error
		told bool
	}{
		"nothing":       {func(*Context, *File) error { return os.ErrClosed }, false},
		"Flush":         {func(cx *Context, f *File) error { return f.Flush(cx) }, true},
		"another Write": {func(cx *Context, f *File) error { _, err := f.Write(cx, []byte("x")); return err }, true},
		"Close":         {func(cx *Context, f *File) error { return f.Close(cx) }, true},
		"CloseFuture":   {func(cx *Context, f *File) error { _, err := Await(cx, f.CloseFuture()); return err }, true},
		"cancelled Close": {func(cx *Context, f *File) error {
			cancelled, cancel := cx.WithCancel()
			cancel()
			f.Close(cancelled)
			return os.ErrClosed
		}, false},
	} {
		t.Run(how, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(Task, error) {}})
			f := brokenFile(t, rt)
			runInTask(t, rt, func(cx *Context) error {
				_, err := f.Write(cx, []byte("data"))
				return err
			})
			eventually(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.written == 4 }, "the write")
			runInTask(t, rt, func(cx *Context) error {
				err := c.then(cx, f)
				return expect(errors.Is(err, os.ErrClosed), "%v", err)
			})
			err := rt.Shutdown(context.Background())
			if c.told {
				require.NoError(t, err)
				return
			}
			var unwritten *UnwrittenError
			require.ErrorAs(t, err, &unwritten)
			require.ErrorIs(t, err, os.ErrClosed)
			require.Len(t, unwritten.Files, 1)
			require.Equal(t, f.Name(), unwritten.Files[0].Name)
			require.EqualValues(t, 4, unwritten.Files[0].Bytes)
		})
	}
}

// stuckWrite returns a File of a full pipe, and the reading end of the pipe. A task writes size
// bytes to the File, which the pool of a runtime has not begun to write.
func stuckWrite(t *testing.T, rt *Runtime, size int) (f *File, r *os.File) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	f = stdFile(w)
	Go(rt, func(cx *Context) error { _, err := f.Write(cx, make([]byte, size)); return err })
	eventually(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.accepted == int64(size) })
	return f, r
}

// Shutdown removes calls from the queue of the pool. It waits up to Config.Grace for the removed
// calls that write accepted data.
func TestShutdownWaitsForQueuedWrites(t *testing.T) {
	const size = 200 << 10
	for _, read := range []bool{true, false} {
		t.Run(fmt.Sprint("reads=", read), func(t *testing.T) {
			cfg := Config{Workers: 1, Blocking: BlockingConfig{Limit: 1}, Grace: patience}
			if !read {
				cfg.Grace = 100 * time.Millisecond
			}
			rt := newTestRuntime(t, cfg)
			release := occupy(t, rt, 1)
			f, r := stuckWrite(t, rt, size)
			over := make(chan error, 1)
			go func() { over <- rt.Shutdown(ended()) }()
			eventually(t, func() bool {
				rt.calls.admission.mu.Lock()
				defer rt.calls.admission.mu.Unlock()
				return rt.calls.alone.n == 1
			}, "the write is taken out of the queue")
			release()
			if read {
				_, err := io.ReadFull(r, make([]byte, size))
				require.NoError(t, err)
				require.NoError(t, receive(t, over))
				return
			}
			err := receive(t, over)
			var late *ShutdownError
			require.ErrorAs(t, err, &late)
			var unwritten *UnwrittenError
			require.ErrorAs(t, err, &unwritten)
			require.Equal(t, []UnwrittenFile{{Name: f.Name(), Bytes: size, Err: context.DeadlineExceeded}}, unwritten.Files)
			require.ErrorContains(t, err, f.Name())
			_, err = io.ReadFull(r, make([]byte, size)) // lets the write end
			require.NoError(t, err)
		})
	}
}

// Run waits for data that was accepted before its function returned. It does not wait for tasks
// that continue to write.
func TestRunDoesNotWaitForOtherWriters(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	var f *File
	inBlockOn(t, rt, func(cx *Context) (err error) {
		f, err = Create(cx, filepath.Join(t.TempDir(), "f"))
		return err
	})
	var over atomic.Bool
	writer := Go(rt, func(cx *Context) error {
		for !over.Load() {
			if _, err := f.Write(cx, make([]byte, 100)); err != nil {
				return err
			}
			if at, err := f.Seek(cx, 0, io.SeekCurrent); err != nil || at > 1<<20 {
				f.Seek(cx, 0, io.SeekStart)
			}
		}
		return f.Close(cx)
	})
	for range 20 {
		require.NoError(t, rt.files.finish())
	}
	over.Store(true)
	_, err := join(t, writer)
	require.NoError(t, err)
}

// Run waits while a write makes progress within Config.Grace, and no longer.
func TestRunWaitsWhileWritesGetOn(t *testing.T) {
	a, b := &File{accepted: 30}, &File{accepted: 10}
	calls := 0
	left := whileTheyGetOn([]unfinishedFile{{f: a, mark: 30}, {f: b, mark: 10}}, func(all []unfinishedFile) (left []unfinishedFile) {
		switch calls++; {
		case a.written < 20:
			a.written += 10
		case b.written == 0:
			b.written = 10
		}
		for _, u := range all {
			if !u.done() {
				left = append(left, u)
			}
		}
		return left
	})
	require.Equal(t, 4, calls, "two steps of one file, one of the other, and one in vain")
	require.Len(t, left, 1)
	require.Same(t, a, left[0].f)
	require.EqualValues(t, 10, left[0].left())
}

// A runtime keeps at most lossesMost losses that no call has returned, and says whether there were
// more.
func TestLossesAreBounded(t *testing.T) {
	var l fileLedger
	var first *fileLoss
	for i := range lossesMost + 10 {
		loss := l.lose(nil, fmt.Sprint(i), 1, syscall.ENOSPC)
		if i == 0 {
			first = loss
		}
	}
	require.Same(t, first, l.lose(first, "0", 2, syscall.EIO))
	e := l.takeLosses()
	require.Len(t, e.Files, lossesMost)
	require.True(t, e.More)
	require.Contains(t, e.Files, UnwrittenFile{Name: "0", Bytes: 3, Err: syscall.ENOSPC})
	require.ErrorIs(t, &e, syscall.ENOSPC)
	require.Contains(t, e.Error(), fmt.Sprintf("and %d more; and more files", lossesMost-10))
	again := l.takeLosses()
	require.Empty(t, again.Files)
	require.False(t, again.More)
	first.reported() // has no effect now
}
