package async

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// inBlockOn runs fn, which may use t, on the goroutine of the test.
func inBlockOn(t testing.TB, rt *Runtime, fn func(cx *Context) error) {
	t.Helper()
	_, err := BlockOn(rt, func(cx *Context) (None, error) { return None{}, fn(cx) })
	require.NoError(t, err)
}

// fileRuntime returns a runtime for files. An error that reaches Config.Unhandled fails the test.
func fileRuntime(t testing.TB) *Runtime {
	return newTestRuntime(t, Config{Workers: 2, Unhandled: func(task Task, err error) {
		t.Errorf("nobody has seen the failure of %v: %v", task, err)
	}})
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

// Files and parts have sizes around the sizes of the buffers.
func TestFileReadWrite(t *testing.T) {
	rt := fileRuntime(t)
	for _, size := range []int{0, 1, bufferSmall, bufferSmall + 1, bufferLarge, 3*bufferLarge + 7} {
		for _, part := range []int{100, bufferSmall, bufferLarge, bufferLarge + 1, 4 * bufferLarge} {
			if size/part > 300 {
				continue
			}
			name, want := filepath.Join(t.TempDir(), "f"), pattern(size)
			inBlockOn(t, rt, func(cx *Context) error {
				f, err := Create(cx, name)
				require.NoError(t, err)
				require.Equal(t, name, f.Name())
				for b := want; len(b) > 0; {
					n, err := f.Write(cx, b[:min(part, len(b))])
					require.NoError(t, err)
					b = b[n:]
				}
				at, err := f.Seek(cx, 0, io.SeekCurrent)
				require.NoError(t, err)
				require.EqualValues(t, size, at)
				_, err = f.Seek(cx, 0, io.SeekStart)
				require.NoError(t, err)
				var got []byte
				for buf := make([]byte, part); ; {
					n, err := f.Read(cx, buf)
					got = append(got, buf[:n]...)
					if err == io.EOF {
						break
					}
					require.NoError(t, err)
				}
				require.True(t, bytes.Equal(want, got))
				return f.Close(cx)
			})
			got, err := os.ReadFile(name)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got), "%d bytes in parts of %d", size, part)
		}
	}
}

// The standard library reads through BindFile.
func TestBindFile(t *testing.T) {
	rt := fileRuntime(t)
	name, want := filepath.Join(t.TempDir(), "f"), pattern(100_000)
	require.NoError(t, os.WriteFile(name, want, 0o600))
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := OpenFile(cx, name, os.O_RDWR, 0)
		require.NoError(t, err)
		b := BindFile(cx, f)
		require.NoError(t, iotest.TestReader(b, want))
		_, err = b.WriteAt([]byte("x"), 7)
		require.NoError(t, err)
		_, err = b.Seek(7, io.SeekStart)
		require.NoError(t, err)
		one := make([]byte, 1)
		_, err = b.Read(one)
		require.NoError(t, err)
		require.Equal(t, "x", string(one))
		_, err = b.WriteString("yz")
		require.NoError(t, err)
		require.NoError(t, b.Sync())
		require.NoError(t, f.Datasync(cx))
		require.NoError(t, b.Truncate(10))
		info, err := b.Stat()
		require.NoError(t, err)
		require.EqualValues(t, 10, info.Size())
		require.Equal(t, name, b.Name())
		_, err = b.ReadDir(0)
		require.ErrorIs(t, err, syscall.ENOTDIR)
		require.NoError(t, b.Close())
		return nil
	})
	got, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, append(want[:7:7], "xyz"...), got)
}

// Data that Write has accepted reaches the system without a further call.
func TestFileWriteBehind(t *testing.T) {
	rt := fileRuntime(t)
	name := filepath.Join(t.TempDir(), "f")
	var f *File
	inBlockOn(t, rt, func(cx *Context) (err error) {
		f, err = Create(cx, name)
		require.NoError(t, err)
		_, err = f.WriteString(cx, "hello")
		return err
	})
	eventually(t, func() bool {
		b, err := os.ReadFile(name)
		return err == nil && string(b) == "hello"
	})
	runInTask(t, rt, f.Close)
}

// block occupies the file position of f until the returned function is called.
func block(t testing.TB, rt *Runtime, f *File) (release func()) {
	t.Helper()
	began, free := make(chan struct{}), make(chan struct{})
	h := Go(rt, func(cx *Context) error {
		return f.atPosition(cx, "test", false, func() error { close(began); <-free; return nil })
	})
	receive(t, began)
	return func() {
		close(free)
		_, err := join(t, h)
		require.NoError(t, err)
	}
}

// A Read that is given up loses no data: the next Read returns the data that the pool has read for
// it.
func TestFileCancelledRead(t *testing.T) {
	rt := fileRuntime(t)
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, []byte("abcdef"), 0o600))
	var f *File
	inBlockOn(t, rt, func(cx *Context) (err error) { f, err = Open(cx, name); return err })
	f.cached = false
	cx, wakes := newPollCx(t, rt)
	p := make([]byte, 3)
	_, err := f.PollRead(cx, p)
	require.Equal(t, ErrPending, err)
	eventually(t, func() bool { return wakes.Load() > 0 })
	inBlockOn(t, rt, func(cx *Context) error {
		short, cancel := cx.WithCancel()
		cancel()
		_, err := f.Read(short, p)
		require.Equal(t, context.Canceled, err)
		n, err := f.Read(cx, p)
		require.NoError(t, err)
		require.Equal(t, "abc", string(p[:n]))
		at, err := f.Seek(cx, 0, io.SeekCurrent)
		require.NoError(t, err)
		require.EqualValues(t, 3, at)
		return f.Close(cx)
	})
}

// If a Read is given up, and its system call then meets the end of the file, the next Read asks the
// system again.
func TestFileCancelledReadAtEnd(t *testing.T) {
	rt := fileRuntime(t)
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, nil, 0o600))
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := Open(cx, name)
		require.NoError(t, err)
		for i := range 20 {
			h := Go(cx, func(cx *Context) error { _, err := f.Read(cx, make([]byte, 3)); return err })
			if i%2 == 0 {
				Yield(cx)
			}
			h.Cancel()
			h.Join(cx)
		}
		require.NoError(t, f.Flush(cx))
		require.NoError(t, os.WriteFile(name, []byte("new"), 0o600))
		p := make([]byte, 3)
		n, err := f.Read(cx, p)
		require.NoError(t, err)
		require.Equal(t, "new", string(p[:n]))
		return f.Close(cx)
	})
}

// A Write that is cancelled returns how many bytes will be written.
func TestFileCancelledWrite(t *testing.T) {
	rt := fileRuntime(t)
	name := filepath.Join(t.TempDir(), "f")
	var f *File
	inBlockOn(t, rt, func(cx *Context) (err error) { f, err = Create(cx, name); return err })
	release := block(t, rt, f)
	var n int
	h := Go(rt, func(cx *Context) (err error) { n, err = f.Write(cx, pattern(10)); return err })
	eventually(t, func() bool { return waiting(h) })
	h.Cancel()
	_, err := join(t, h)
	require.Equal(t, context.Canceled, err)
	require.Zero(t, n)
	release()

	want := pattern(3 * bufferLarge)
	h = Go(rt, func(cx *Context) (err error) {
		for err == nil {
			var m int
			m, err = f.Write(cx, want[n%len(want):])
			if n += m; n > 100*len(want) { // the disk must not fill
				err = Sleep(cx, time.Hour)
			}
		}
		return err
	})
	eventually(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.accepted > 0 })
	h.Cancel()
	_, err = join(t, h)
	require.Equal(t, context.Canceled, err)
	runInTask(t, rt, f.Close)
	info, err := os.Stat(name)
	require.NoError(t, err)
	require.EqualValues(t, n, info.Size())
}

// With a cx that is cancelled no call does anything, except Close, which closes the file.
func TestFileCancelledContext(t *testing.T) {
	rt := fileRuntime(t)
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, []byte("abc"), 0o600))
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := OpenFile(cx, name, os.O_RDWR, 0)
		require.NoError(t, err)
		over, cancel := cx.WithCancel()
		cancel()
		for op, do := range map[string]func() error{
			"Read":     func() error { _, err := f.Read(over, make([]byte, 1)); return err },
			"Write":    func() error { _, err := f.Write(over, make([]byte, 1)); return err },
			"ReadAt":   func() error { _, err := f.ReadAt(over, make([]byte, 1), 0); return err },
			"WriteAt":  func() error { _, err := f.WriteAt(over, make([]byte, 1), 0); return err },
			"Seek":     func() error { _, err := f.Seek(over, 1, io.SeekStart); return err },
			"Truncate": func() error { return f.Truncate(over, 0) },
			"Sync":     func() error { return f.Sync(over) },
			"Flush":    func() error { return f.Flush(over) },
			"Stat":     func() error { _, err := f.Stat(over); return err },
			"Open":     func() error { _, err := Open(over, name); return err },
			"Remove":   func() error { return Remove(over, name) },
		} {
			require.Equal(t, context.Canceled, do(), op)
		}
		b, err := io.ReadAll(BindFile(cx, f))
		require.NoError(t, err)
		require.Equal(t, "abc", string(b))
		require.Equal(t, context.Canceled, f.Close(over))
		require.ErrorIs(t, f.Close(cx), os.ErrClosed)
		return nil
	}) // the end of the runtime counts descriptors
}

// If a write fails after its Write has returned, the next call returns the error, once, and Close
// does, too.
func TestFileWriteFails(t *testing.T) {
	rt := fileRuntime(t)
	inBlockOn(t, rt, func(cx *Context) error {
		for op, next := range map[string]func(f *File) error{
			"write": func(f *File) error { _, err := f.WriteString(cx, "x"); return err },
			"read":  func(f *File) error { _, err := f.Read(cx, make([]byte, 1)); return err },
			"seek":  func(f *File) error { _, err := f.Seek(cx, 0, io.SeekStart); return err },
			"flush": func(f *File) error { return f.Flush(cx) },
			"sync":  func(f *File) error { return f.Sync(cx) },
			"stat":  func(f *File) error { _, err := f.Stat(cx); return err },
		} {
			f, err := OpenFile(cx, "/dev/full", os.O_RDWR, 0)
			require.NoError(t, err)
			n, err := f.WriteString(cx, "lost")
			require.NoError(t, err)
			require.Equal(t, 4, n)
			eventually(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.use == fileIdle })
			err = next(f)
			require.ErrorIs(t, err, syscall.ENOSPC, op)
			var pe *fs.PathError
			require.ErrorAs(t, err, &pe)
			require.Equal(t, fs.PathError{Op: "write", Path: "/dev/full", Err: syscall.ENOSPC}, *pe)
			require.NoError(t, f.Flush(cx), "once")
			require.ErrorIs(t, f.Close(cx), syscall.ENOSPC)
		}
		f, err := OpenFile(cx, "/dev/full", os.O_RDWR|os.O_SYNC, 0)
		require.NoError(t, err)
		f.sync = true // newFile sets it for a file of the disk that is open with O_SYNC
		n, err := f.WriteString(cx, "lost")
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.Zero(t, n)
		require.ErrorIs(t, f.Close(cx), syscall.ENOSPC)
		return nil
	})
}

// If a Write is accepted in parts, n is the number of bytes that have not been dropped. All tasks
// that wait for dropped data get the error. Then no other call returns it.
func TestFileWriteFailsForAll(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2, Blocking: BlockingConfig{Limit: 1}})
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := OpenFile(cx, "/dev/full", os.O_RDWR, 0)
		require.NoError(t, err)
		n, err := f.Write(cx, pattern(4*bufferLarge))
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.Zero(t, n)
		require.NoError(t, f.Flush(cx))

		release := occupy(t, rt, 1)
		_, err = f.WriteString(cx, "lost")
		require.NoError(t, err)
		var all []*JoinHandle[None]
		for range 3 {
			all = append(all, Go(rt, f.Flush))
			eventually(t, func() bool { return waiting(all[len(all)-1]) })
		}
		gone := Go(rt, f.Flush)
		eventually(t, func() bool { return waiting(gone) })
		gone.Cancel()
		gone.JoinBlocking(context.Background())
		require.Len(t, f.tickets, len(all))
		release()
		for _, h := range all {
			_, err := h.Join(cx)
			require.ErrorIs(t, err, syscall.ENOSPC)
		}
		require.NoError(t, f.Flush(cx), "everybody knows")
		require.Empty(t, f.tickets)
		require.ErrorIs(t, f.Close(cx), syscall.ENOSPC)
		return nil
	})
}

// If a task waits for the file position and gets an error instead, File.wanted is cleared.
func TestFileWriteFailsForPlace(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 1}})
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := OpenFile(cx, "/dev/full", os.O_RDWR, 0)
		require.NoError(t, err)
		release := occupy(t, rt, 1)
		_, err = f.WriteString(cx, "lost")
		require.NoError(t, err)
		polled, wakes := newPollCx(t, rt)
		_, err = f.pollPosition(polled, "seek")
		require.Equal(t, ErrPending, err)
		other, _ := newPollCx(t, rt)
		_, err = f.PollWrite(other, []byte("x"))
		require.Equal(t, ErrPending, err, "no writing behind until then")
		release()
		eventually(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.use == fileIdle })
		require.Positive(t, wakes.Load())
		_, err = f.pollPosition(polled, "seek")
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.False(t, f.wanted)
		require.ErrorIs(t, f.Close(cx), syscall.ENOSPC)
		return nil
	})
}

// Close waits for writes in progress. Its error is reported even if no task waits for it.
func TestFileCloseUnseen(t *testing.T) {
	reported := make(chan error, 1)
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(_ Task, err error) { reported <- err }})
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := OpenFile(cx, "/dev/full", os.O_RDWR, 0)
		require.NoError(t, err)
		_, err = f.WriteString(cx, "lost")
		require.NoError(t, err)
		over, cancel := cx.WithCancel()
		cancel()
		require.Equal(t, context.Canceled, f.Close(over))
		return nil
	})
	var unwritten *UnwrittenError
	require.ErrorAs(t, rt.Shutdown(context.Background()), &unwritten)
	require.ErrorIs(t, unwritten, syscall.ENOSPC)
	require.ErrorIs(t, receive(t, reported), syscall.ENOSPC)
}

// A File is closed while calls use it: calls that wait return os.ErrClosed, and accepted data is
// written.
func TestFileCloseInUse(t *testing.T) {
	rt := fileRuntime(t)
	name := filepath.Join(t.TempDir(), "f")
	var f *File
	inBlockOn(t, rt, func(cx *Context) (err error) { f, err = Create(cx, name); return err })
	release := block(t, rt, f)
	users := []*JoinHandle[None]{
		Go(rt, func(cx *Context) error { _, err := f.Read(cx, make([]byte, 1)); return err }),
		Go(rt, func(cx *Context) error { _, err := f.WriteString(cx, "x"); return err }),
		Go(rt, func(cx *Context) error { _, err := f.Seek(cx, 0, io.SeekStart); return err }),
	}
	for _, h := range users {
		eventually(t, func() bool { return waiting(h) })
	}
	closer := Go(rt, f.Close)
	for _, h := range users {
		_, err := join(t, h)
		require.ErrorIs(t, err, os.ErrClosed)
	}
	require.False(t, closer.state.done())
	release()
	_, err := join(t, closer)
	require.NoError(t, err)

	inBlockOn(t, rt, func(cx *Context) error {
		f, err := Create(cx, name)
		require.NoError(t, err)
		_, err = f.Write(cx, pattern(2*bufferLarge))
		require.NoError(t, err)
		return f.Close(cx)
	})
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	require.True(t, bytes.Equal(pattern(2*bufferLarge), b))
}

// After Close the position that other descriptors share is the place up to which data was read.
func TestFileClosePosition(t *testing.T) {
	rt := fileRuntime(t)
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, pattern(8*bufferLarge), 0o600))
	for _, size := range []int{0, 1, bufferSmall, 2 * bufferLarge} {
		o, err := os.Open(name)
		require.NoError(t, err)
		fd, err := duplicateFD(int(o.Fd()))
		require.NoError(t, err)
		shared := os.NewFile(uintptr(fd), name)
		f, err := FromFile(o)
		require.NoError(t, err)
		inBlockOn(t, rt, func(cx *Context) error {
			_, err := io.ReadFull(BindFile(cx, f), make([]byte, size))
			require.NoError(t, err)
			return f.Close(cx) // perhaps while the pool reads ahead
		})
		at, err := shared.Seek(0, io.SeekCurrent)
		require.NoError(t, err)
		require.EqualValues(t, size, at)
		require.NoError(t, shared.Close())
	}
}

// Shutdown cancels queued calls. Nevertheless accepted data is written, and the file is closed.
func TestFileShutdown(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 1}})
	name := filepath.Join(t.TempDir(), "f")
	var f *File
	inBlockOn(t, rt, func(cx *Context) (err error) { f, err = Create(cx, name); return err })
	release := occupy(t, rt, 1)
	inBlockOn(t, rt, func(cx *Context) error { _, err := f.WriteString(cx, "kept"); return err })
	closer := Go(rt, f.Close)
	eventually(t, func() bool { return waiting(closer) })
	over := make(chan error)
	go func() { over <- rt.Shutdown(ended()) }()
	eventually(t, func() bool { b, _ := os.ReadFile(name); return string(b) == "kept" })
	_, err := join(t, closer)
	if err != nil {
		require.Equal(t, context.Canceled, err)
	}
	release()
	require.NoError(t, receive(t, over))
}

// Futures can use the Poll methods. Methods that wait refuse them.
func TestFilePoll(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 1, Queue: 1}})
	name := filepath.Join(t.TempDir(), "f")
	o, err := os.Create(name)
	require.NoError(t, err)
	f, err := FromFile(o)
	require.NoError(t, err)
	require.False(t, f.cached)
	release := occupy(t, rt, 1)
	queued := SpawnBlocking(rt, func() (None, error) { return None{}, nil })
	cx, _ := newPollCx(t, rt)
	_, err = f.PollWrite(cx, []byte("x"))
	require.Equal(t, ErrBusy, err)
	_, err = f.PollRead(cx, make([]byte, 1))
	require.Equal(t, ErrBusy, err)
	straight := []*JoinHandle[None]{
		Go(rt, func(cx *Context) error { _, err := f.WriteString(cx, "ab"); return err }),
		Go(rt, func(cx *Context) error { _, err := f.Seek(cx, 0, io.SeekCurrent); return err }),
	}
	for _, h := range straight {
		eventually(t, func() bool { return waiting(h) })
	}
	release()
	join(t, queued)
	for _, h := range straight {
		_, err := join(t, h)
		require.NoError(t, err)
	}
	_, err = join(t, SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) { return None{}, f.PollFlush(cx) })))
	require.NoError(t, err)
	n := 0
	_, err = join(t, SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) {
		m, err := f.PollWrite(cx, []byte("cd")[n:])
		n += m
		return None{}, err
	})))
	require.NoError(t, err)
	var closing Future[None]
	_, err = join(t, SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) {
		if closing == nil {
			closing = f.CloseFuture()
		}
		return closing.Poll(cx)
	})))
	require.NoError(t, err)
	_, err = f.CloseFuture().Poll(cx)
	require.ErrorIs(t, err, os.ErrClosed)
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, "abcd", string(b))
}

// The data of each Write stays together, although many tasks write more than there is room for, and
// although some of their Writes are cancelled.
func TestFileWritesStayTogether(t *testing.T) {
	rt := fileRuntime(t)
	const tasks, each = 6, 30
	name := filepath.Join(t.TempDir(), "f")
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := Create(cx, name)
		require.NoError(t, err)
		var all []*JoinHandle[None]
		for i := range tasks {
			all = append(all, Go(rt, func(cx *Context) error {
				rng := rand.New(rand.NewPCG(1, uint64(i)))
				for range each {
					size := 1 + rng.IntN(100<<10<<(rng.IntN(4)))
					record := bytes.Repeat([]byte{byte('a' + i)}, 4+size)
					binary.BigEndian.PutUint32(record, 1<<31|uint32(size))
					if n, err := f.Write(cx, record); err != nil || n != len(record) {
						return fmt.Errorf("%d bytes of %d: %w", n, len(record), err)
					}
				}
				return nil
			}))
		}
		for range 20 { // cancelled: any number of zeros is written
			h := Go(rt, func(cx *Context) error {
				_, err := f.Write(cx, make([]byte, 1<<20))
				return err
			})
			Yield(cx)
			h.Cancel()
			all = append(all, h)
		}
		for i, h := range all {
			if _, err := h.Join(cx); i < tasks {
				require.NoError(t, err)
			}
		}
		return f.Close(cx)
	})
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	count := map[byte]int{}
	for len(b) > 0 {
		if b[0] == 0 {
			b = b[1:]
			continue
		}
		size := int(binary.BigEndian.Uint32(b) &^ (1 << 31))
		require.LessOrEqual(t, size, len(b)-4)
		record := b[4 : 4+size]
		require.Equal(t, size, bytes.Count(record, record[:1]), "another Write is between the parts of a record")
		count[record[0]]++
		b = b[4+size:]
	}
	require.Len(t, count, tasks)
	for _, n := range count {
		require.Equal(t, each, n)
	}
}

// Many tasks use a File concurrently: each byte that they write is there once.
func TestFileConcurrent(t *testing.T) {
	rt := fileRuntime(t)
	const tasks, each, size = 8, 50, 100
	name := filepath.Join(t.TempDir(), "f")
	var f *File
	inBlockOn(t, rt, func(cx *Context) (err error) { f, err = Create(cx, name); return err })
	var all []*JoinHandle[None]
	for i := range tasks {
		all = append(all, Go(rt, func(cx *Context) error {
			for range each {
				if _, err := f.Write(cx, bytes.Repeat([]byte{byte('a' + i)}, size)); err != nil {
					return err
				}
				if _, err := f.Stat(cx); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	for _, h := range all {
		_, err := join(t, h)
		require.NoError(t, err)
	}
	inBlockOn(t, rt, func(cx *Context) error { _, err := f.Seek(cx, 0, io.SeekStart); return err })
	var mu sync.Mutex
	count := map[byte]int{}
	all = nil
	for range tasks {
		all = append(all, Go(rt, func(cx *Context) error {
			for p := make([]byte, size); ; {
				n, err := f.Read(cx, p)
				mu.Lock()
				for _, c := range p[:n] {
					count[c]++
				}
				mu.Unlock()
				if err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
			}
		}))
	}
	for _, h := range all {
		_, err := join(t, h)
		require.NoError(t, err)
	}
	for i := range tasks {
		require.Equal(t, each*size, count[byte('a'+i)])
	}
	runInTask(t, rt, f.Close)
}

// A task that needs the file position gets it, even while other tasks read and write without a
// pause.
func TestFileStreamsGiveWay(t *testing.T) {
	rt := fileRuntime(t)
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, pattern(8*bufferLarge), 0o600))
	var f *File
	inBlockOn(t, rt, func(cx *Context) (err error) { f, err = OpenFile(cx, name, os.O_RDWR, 0); return err })
	for _, write := range []bool{false, true} {
		stream := Go(rt, func(cx *Context) (err error) {
			p := make([]byte, 1000)
			for i := 0; err == nil; i++ {
				if write && i%10_000 == 9_999 { // the disk must not fill
					_, err = f.Seek(cx, 0, io.SeekStart)
				} else if write {
					_, err = f.Write(cx, p)
				} else if _, err = f.Read(cx, p); err == io.EOF {
					_, err = f.Seek(cx, 0, io.SeekStart)
				}
			}
			return err
		})
		gaveUp := Go(rt, func(cx *Context) (err error) {
			for range 20 {
				short, cancel := cx.WithTimeout(time.Microsecond)
				f.Seek(short, 0, io.SeekStart)
				cancel()
			}
			return nil
		})
		for range 20 {
			_, err := join(t, Go(rt, func(cx *Context) error { _, err := f.Seek(cx, 0, io.SeekStart); return err }))
			require.NoError(t, err)
		}
		join(t, gaveUp)
		stream.Cancel()
		_, err := join(t, stream)
		require.Equal(t, context.Canceled, err)
	}
	inBlockOn(t, rt, f.Close)
}

// A call does not use the buffer p of its caller after it has returned. The race detector checks
// that.
func TestFileCancelledReadAt(t *testing.T) {
	rt := fileRuntime(t)
	name := filepath.Join(t.TempDir(), "f")
	want := pattern(2 * bufferLarge)
	require.NoError(t, os.WriteFile(name, want, 0o600))
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := OpenFile(cx, name, os.O_RDWR, 0)
		require.NoError(t, err)
		for i := range 50 {
			p := make([]byte, len(want))
			var n int
			h := Go(cx, func(cx *Context) (err error) {
				if i%3 == 0 {
					n, err = f.WriteAt(cx, want, 0)
				} else {
					n, err = f.ReadAt(cx, p, 0)
				}
				return err
			})
			for range i % 5 {
				Yield(cx)
			}
			h.Cancel()
			h.Join(cx)
			clear(p[n:])
		}
		p := make([]byte, len(want))
		n, err := f.ReadAt(cx, p, 0)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, p[:n]))
		return f.Close(cx)
	})
}

// fileScript makes the same calls on a File and on an os.File, and compares the results. Each
// operation is a byte, followed by two bytes for its arguments.
func fileScript(t testing.TB, rt *Runtime, script []byte, flag int) {
	dir := t.TempDir()
	const limit = 3 * bufferLarge
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	for _, name := range []string{ours, theirs} {
		require.NoError(t, os.WriteFile(name, pattern(70_000), 0o600))
	}
	twin, err := os.OpenFile(theirs, flag, 0)
	require.NoError(t, err)
	defer twin.Close()
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := OpenFile(cx, ours, flag, 0)
		require.NoError(t, err)
		for i := 0; i+2 < len(script); i += 3 {
			op, arg := script[i], int(script[i+1])<<8|int(script[i+2])
			step := fmt.Sprintf("step %d: op %d, arg %d", i/3, op%10, arg)
			size := arg % 5000
			if op&0x40 != 0 {
				size = arg * 5 % (limit / 2)
			}
			switch op % 10 {
			case 0, 1, 2: // read
				p, q := make([]byte, size), make([]byte, size)
				n, err := io.ReadFull(BindFile(cx, f), p)
				m, werr := io.ReadFull(twin, q)
				require.Equal(t, werr, err, step)
				require.True(t, bytes.Equal(q[:m], p[:n]), step)
			case 3, 4: // write
				p := bytes.Repeat([]byte{op, byte(arg)}, size/2)
				n, err := f.Write(cx, p)
				m, werr := twin.Write(p)
				require.NoError(t, err, step)
				require.NoError(t, werr, step)
				require.Equal(t, m, n, step)
			case 5: // seek
				whence := int(op>>4) % 3
				off := int64(arg*3) - 50_000
				at, err := f.Seek(cx, off, whence)
				wat, werr := twin.Seek(off, whence)
				require.Equal(t, werr == nil, err == nil, step)
				require.Equal(t, wat, at, step)
			case 6: // read at
				p, q := make([]byte, size), make([]byte, size)
				n, err := f.ReadAt(cx, p, int64(arg))
				m, werr := twin.ReadAt(q, int64(arg))
				require.Equal(t, werr, err, step)
				require.True(t, bytes.Equal(q[:m], p[:n]), step)
			case 7: // write at
				p := bytes.Repeat([]byte{byte(arg)}, size)
				n, err := f.WriteAt(cx, p, int64(arg))
				m, werr := twin.WriteAt(p, int64(arg))
				require.Equal(t, werr == nil, err == nil, step)
				require.Equal(t, m, n, step)
			case 8: // truncate
				require.NoError(t, f.Truncate(cx, int64(size)*2), step)
				require.NoError(t, twin.Truncate(int64(size)*2), step)
			case 9: // a call that is cancelled: it reads or writes exactly n bytes
				scriptCancelled(t, cx, f, twin, op, arg, step)
			}
		}
		info, err := f.Stat(cx)
		require.NoError(t, err)
		at, err := f.Seek(cx, 0, io.SeekCurrent)
		require.NoError(t, err)
		wat, err := twin.Seek(0, io.SeekCurrent)
		require.NoError(t, err)
		require.Equal(t, wat, at)
		require.NoError(t, f.Close(cx))
		winfo, err := twin.Stat()
		require.NoError(t, err)
		require.Equal(t, winfo.Size(), info.Size())
		return nil
	})
	got, err := os.ReadFile(ours)
	require.NoError(t, err)
	want, err := os.ReadFile(theirs)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
}

func scriptCancelled(t testing.TB, cx *Context, f *File, twin *os.File, op byte, arg int, step string) {
	p := bytes.Repeat([]byte{byte(arg)}, arg%3000)
	var n int
	h := Go(cx, func(cx *Context) (err error) {
		if op&0x80 != 0 {
			n, err = f.Read(cx, p)
		} else {
			n, err = f.Write(cx, p)
		}
		return err
	})
	for range arg % 4 {
		Yield(cx)
	}
	h.Cancel()
	_, err := h.Join(cx)
	require.True(t, err == nil || err == io.EOF || err == context.Canceled, step)
	q := bytes.Clone(p[:n])
	if op&0x80 == 0 {
		m, err := twin.Write(q)
		require.NoError(t, err, step)
		require.Equal(t, n, m)
		return
	}
	_, err = io.ReadFull(twin, q)
	require.NoError(t, err, step)
	require.True(t, bytes.Equal(q, p[:n]), step)
}

func TestFileScripts(t *testing.T) {
	rt := fileRuntime(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for i := range 60 {
		script := make([]byte, 3*(1+rnd.IntN(60)))
		for j := range script {
			script[j] = byte(rnd.Uint32())
		}
		flag := os.O_RDWR
		if i%4 == 0 {
			flag |= os.O_APPEND
		}
		fileScript(t, rt, script, flag)
	}
}

func FuzzFile(f *testing.F) {
	rt, err := New(Config{Workers: 2}) // not newTestRuntime: fuzzing leaves goroutines of its own
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, rt.Shutdown(context.Background())) })
	f.Add([]byte{0, 0, 9, 3, 0, 9, 0, 0, 9, 7, 0, 3, 0, 0, 9}, false)
	f.Add([]byte{0x40, 200, 9, 0x45, 0, 9, 0x40, 200, 9, 9, 0, 3, 0x89, 1, 2}, true)
	f.Fuzz(func(t *testing.T, script []byte, appending bool) {
		flag := os.O_RDWR
		if appending {
			flag |= os.O_APPEND
		}
		fileScript(t, rt, script[:min(len(script), 300)], flag)
	})
}

// Files that are not files of the disk are polled by the reactor.
func TestFilePipe(t *testing.T) {
	rt := fileRuntime(t)
	r, w, err := Pipe()
	require.NoError(t, err)
	require.Equal(t, "|0 |1", r.Name()+" "+w.Name())
	reader := Spawn(rt, func(cx *Context) ([]byte, error) { return io.ReadAll(BindFile(cx, r)) })
	eventually(t, func() bool { return waiting(reader) })
	running, _, _, _ := rt.calls.count()
	require.Zero(t, running, "a read that waits has no thread")
	want := pattern(1 << 20) // more than the pipe holds
	inBlockOn(t, rt, func(cx *Context) error {
		n, err := w.Write(cx, want)
		require.NoError(t, err)
		require.Equal(t, len(want), n)
		return w.Close(cx)
	})
	got, err := join(t, reader)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
	inBlockOn(t, rt, func(cx *Context) error {
		require.NoError(t, r.Close(cx))
		require.ErrorIs(t, r.Close(cx), os.ErrClosed)
		_, err := r.Read(cx, make([]byte, 1))
		require.ErrorIs(t, err, os.ErrClosed)
		return nil
	})
}

func TestFilePipeErrors(t *testing.T) {
	rt := fileRuntime(t)
	r, w, err := Pipe()
	require.NoError(t, err)
	inBlockOn(t, rt, func(cx *Context) error {
		info, err := r.Stat(cx)
		require.NoError(t, err)
		require.Equal(t, fs.ModeNamedPipe, info.Mode().Type())
		_, err = r.ReadAt(cx, make([]byte, 1), 0)
		require.ErrorIs(t, err, syscall.ESPIPE)
		_, err = w.WriteAt(cx, make([]byte, 1), 0)
		require.ErrorIs(t, err, syscall.ESPIPE)
		_, err = r.Seek(cx, 0, io.SeekCurrent)
		require.ErrorIs(t, err, syscall.ESPIPE)
		require.ErrorIs(t, r.Truncate(cx, 0), syscall.EINVAL)

		require.NoError(t, r.SetReadDeadline(time.Now().Add(time.Millisecond)))
		_, err = r.Read(cx, make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, "read |0: i/o timeout", err.Error())
		require.NoError(t, r.SetDeadline(time.Time{}))

		by, _ := newPollCx(t, rt)
		for err = nil; err == nil; _, err = w.PollWrite(by, pattern(4096)) {
		}
		require.Equal(t, ErrPending, err, "a full pipe")
		require.NoError(t, w.SetWriteDeadline(time.Now().Add(time.Millisecond)))
		_, err = w.Write(cx, pattern(1<<20))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, w.SetWriteDeadline(time.Time{}))

		short, cancel := cx.WithTimeout(time.Millisecond)
		defer cancel()
		_, err = w.Write(short, pattern(1<<20))
		require.ErrorIs(t, err, context.DeadlineExceeded)

		raw, err := w.SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Control(func(fd uintptr) {
			_, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
			require.NoError(t, err)
		}))
		require.ErrorIs(t, raw.Read(nil), errors.ErrUnsupported)
		require.ErrorIs(t, raw.Write(nil), errors.ErrUnsupported)

		require.NoError(t, r.Close(cx))
		_, err = w.Write(cx, []byte("x"))
		var pe *fs.PathError
		require.ErrorAs(t, err, &pe)
		require.Equal(t, fs.PathError{Op: "write", Path: "|1", Err: syscall.EPIPE}, *pe)
		require.NoError(t, w.Close(cx))
		require.ErrorIs(t, raw.Control(func(uintptr) {}), os.ErrClosed)
		require.ErrorIs(t, w.SetDeadline(time.Time{}), os.ErrClosed)
		require.ErrorIs(t, w.Flush(cx), os.ErrClosed)
		_, err = w.SyscallConn()
		require.ErrorIs(t, err, os.ErrClosed)
		return nil
	})
}

// Closing a pipe wakes the tasks that wait for it.
func TestFilePipeCloseInUse(t *testing.T) {
	rt := fileRuntime(t)
	r, w, err := Pipe()
	require.NoError(t, err)
	reader := Go(rt, func(cx *Context) error { _, err := r.Read(cx, make([]byte, 1)); return err })
	writer := Go(rt, func(cx *Context) error { _, err := w.Write(cx, pattern(1<<20)); return err })
	eventually(t, func() bool { return waiting(reader) || reader.state.done() })
	runInTask(t, rt, r.Close)
	_, err = join(t, writer)
	require.ErrorIs(t, err, syscall.EPIPE)
	if _, err = join(t, reader); err != nil { // the reader may have read before the close
		require.ErrorIs(t, err, os.ErrClosed)
	}
	runInTask(t, rt, w.Close)
}

// A FIFO is opened on a goroutine, since the opening waits for the other end, and is then polled.
func TestFileFIFO(t *testing.T) {
	rt := fileRuntime(t)
	name := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(name, 0o600))
	opened := make(chan struct{})
	reader := Spawn(rt, func(cx *Context) (string, error) {
		f, err := Open(cx, name)
		if err != nil {
			return "", err
		}
		close(opened)
		b, err := io.ReadAll(BindFile(cx, f))
		return string(b), errors.Join(err, f.Close(cx))
	})
	eventually(t, func() bool { return waiting(reader) })
	gaveUp := Go(rt, func(cx *Context) error {
		f, err := Open(cx, name)
		if err == nil {
			f.Close(cx)
		}
		return err
	})
	eventually(t, func() bool { return waiting(gaveUp) })
	gaveUp.Cancel()
	_, err := join(t, gaveUp)
	require.Equal(t, context.Canceled, err)
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := OpenFile(cx, name, os.O_WRONLY, 0)
		require.NoError(t, err)
		receive(t, opened) // the peer may have met the open that was given up
		_, err = f.WriteString(cx, "through")
		require.NoError(t, err)
		return f.Close(cx)
	})
	s, err := join(t, reader)
	require.NoError(t, err)
	require.Equal(t, "through", s)
}

func TestFromFile(t *testing.T) {
	rt := fileRuntime(t)
	or, ow, err := os.Pipe()
	require.NoError(t, err)
	r, err := FromFile(or)
	require.NoError(t, err)
	w, err := FromFile(ow)
	require.NoError(t, err)
	require.True(t, r.polled && w.polled)
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	term, err := FromFile(tty)
	require.NoError(t, err)
	require.True(t, term.polled)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	require.NoError(t, err)
	n, err := FromFile(null)
	require.NoError(t, err)
	closed, err := os.Open(os.DevNull)
	require.NoError(t, err)
	closed.Close()
	_, err = FromFile(closed)
	require.ErrorIs(t, err, os.ErrClosed)
	inBlockOn(t, rt, func(cx *Context) error {
		_, err := w.WriteString(cx, "x")
		require.NoError(t, err)
		p := make([]byte, 2)
		m, err := r.Read(cx, p)
		require.NoError(t, err)
		require.Equal(t, 1, m)
		_, err = n.WriteString(cx, "gone")
		require.NoError(t, err)
		_, err = n.Read(cx, p)
		require.Equal(t, io.EOF, err)
		require.Equal(t, os.ErrNoDeadline, n.SetDeadline(time.Now()))
		for _, f := range []*File{r, w, term, n} {
			require.NoError(t, f.Close(cx))
		}
		return nil
	})
}
