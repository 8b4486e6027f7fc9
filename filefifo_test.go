package async

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// fifoRuntime returns a runtime whose pool has one goroutine.
func fifoRuntime(t *testing.T) *Runtime {
	return newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 1}, Unhandled: func(task Task, err error) {
		t.Errorf("no caller has seen the failure of %v: %v", task, err)
	}})
}

func newFIFO(t *testing.T) (name string) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(name, 0o600))
	return name
}

// opens opens a FIFO and closes it, in a task.
func opens(rt *Runtime, name string, flag int) *JoinHandle[None] {
	return Go(rt, func(cx *Context) error {
		f, err := OpenFile(cx, name, flag, 0)
		if err == nil {
			err = f.Close(cx)
		}
		return err
	})
}

// waitsForPeer waits until n tasks wait for a peer at one end of the FIFO, in a system
// call of a goroutine that is not of the pool.
func waitsForPeer(t *testing.T, rt *Runtime, name string, writes bool, n int) {
	t.Helper()
	r, err := filesOf(rt).fifos.find(name, os.O_RDONLY, 0)
	require.NoError(t, err)
	r.close()
	dir := fifoReads
	if writes {
		dir = fifoWrites
	}
	eventually(t, func() bool {
		filesOf(rt).fifos.mu.Lock()
		defer filesOf(rt).fifos.mu.Unlock()
		s := filesOf(rt).fifos.all[r.fifoID]
		if s == nil {
			return n == 0
		}
		o := s.ends[dir].opening
		return o != nil && o.waiting == n
	})
	eventually(t, func() bool { running, _, _, _ := rt.calls.count(); return running == 0 }, "no call of the pool")
}

// fifoGoroutines counts the goroutines that open a FIFO.
func fifoGoroutines(t *testing.T) int {
	var b strings.Builder
	require.NoError(t, pprof.Lookup("goroutine").WriteTo(&b, 2))
	return strings.Count(b.String(), "(*fifoOpening).")
}

// inOpen waits until a goroutine is in the system call that opens a FIFO.
func inOpen(t *testing.T) {
	t.Helper()
	eventually(t, func() bool {
		var b strings.Builder
		if err := pprof.Lookup("goroutine").WriteTo(&b, 2); err != nil {
			return false
		}
		for g := range strings.SplitSeq(b.String(), "\n\n") {
			if strings.Contains(g, "[syscall") && strings.Contains(g, "async.openFd(") {
				return true
			}
		}
		return false
	}, "no goroutine opens a FIFO")
}

// Tasks of a runtime whose pool has one goroutine open both ends of a FIFO, in either order.
func TestFIFOBothEnds(t *testing.T) {
	rt := fifoRuntime(t)
	for _, first := range []int{os.O_RDONLY, os.O_WRONLY} {
		name := newFIFO(t)
		h := opens(rt, name, first)
		waitsForPeer(t, rt, name, first == os.O_WRONLY, 1)
		join(t, opens(rt, name, os.O_RDONLY^os.O_WRONLY^first))
		_, err := join(t, h)
		require.NoError(t, err)
	}
	name := newFIFO(t)
	for _, first := range []string{"read", "write"} {
		read := Spawn(rt, func(cx *Context) ([]byte, error) {
			if first == "write" {
				Yield(cx)
			}
			return ReadFile(cx, name)
		})
		write := Go(rt, func(cx *Context) error { return WriteFile(cx, name, pattern(1<<20), 0o600) })
		_, err := join(t, write)
		require.NoError(t, err)
		got, err := join(t, read)
		require.NoError(t, err)
		require.Equal(t, pattern(1<<20), got)
	}
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	require.NoError(t, os.WriteFile(a, pattern(1<<18), 0o600))
	in := Spawn(rt, func(cx *Context) (int64, error) { return CopyFile(cx, name, a) })
	out := Spawn(rt, func(cx *Context) (int64, error) { return CopyFile(cx, b, name) })
	for _, h := range []*JoinHandle[int64]{in, out} {
		n, err := join(t, h)
		require.NoError(t, err)
		require.EqualValues(t, 1<<18, n)
	}
	got, err := os.ReadFile(b)
	require.NoError(t, err)
	require.Equal(t, pattern(1<<18), got)
}

// Openings that wait for a peer leave the pool to other calls. There are no more of them than
// calls of the pool. A further opening waits for a place, and can be cancelled while it waits.
func TestFIFOLeavesPool(t *testing.T) {
	rt := fifoRuntime(t)
	plain := filepath.Join(t.TempDir(), "plain")
	require.NoError(t, os.WriteFile(plain, []byte("plain"), 0o600))
	reader, writer, further, other := newFIFO(t), newFIFO(t), newFIFO(t), newFIFO(t)
	all := []*JoinHandle[None]{opens(rt, reader, os.O_RDONLY), opens(rt, writer, os.O_WRONLY)}
	waitsForPeer(t, rt, reader, false, 1)
	waitsForPeer(t, rt, writer, true, 1)
	late := []*JoinHandle[None]{opens(rt, further, os.O_RDONLY), opens(rt, other, os.O_WRONLY), opens(rt, reader, os.O_RDONLY)}
	for _, h := range late {
		eventually(t, func() bool { return waiting(h) && h.info(nil).Waits == "permits" })
	}
	inBlockOn(t, rt, func(cx *Context) error {
		require.NoError(t, WriteFile(cx, plain+"2", []byte("more"), 0o600))
		info, err := Stat(cx, plain)
		require.NoError(t, err)
		require.EqualValues(t, 5, info.Size())
		return nil
	})
	for _, h := range append(late, all...) {
		h.Cancel()
		_, err := join(t, h)
		require.Equal(t, context.Canceled, err)
	}
	eventually(t, func() bool { return fifoGoroutines(t) == 0 })
	join(t, opens(rt, further, os.O_RDWR))
	both := []*JoinHandle[None]{opens(rt, further, os.O_RDONLY), opens(rt, further, os.O_WRONLY)} // places are free
	for _, h := range both {
		_, err := join(t, h)
		require.NoError(t, err)
	}
}

// An opening that is given up leaves no goroutine and no descriptor, even if the FIFO has lost its
// name, and even if its peer arrives at the same moment.
func TestFIFOGivenUp(t *testing.T) {
	rt := fileRuntime(t)
	before := openFds(t)
	for _, flag := range []int{os.O_RDONLY, os.O_WRONLY} {
		for _, what := range []string{"", "removed", "renamed"} {
			name := newFIFO(t)
			hs := []*JoinHandle[None]{opens(rt, name, flag), opens(rt, name, flag)}
			waitsForPeer(t, rt, name, flag == os.O_WRONLY, 2)
			eventually(t, func() bool { return fifoGoroutines(t) == 1 })
			switch what {
			case "removed":
				require.NoError(t, os.Remove(name))
			case "renamed":
				require.NoError(t, os.Rename(name, name+"2"))
				require.NoError(t, os.WriteFile(name, nil, 0o600))
			}
			for _, h := range hs {
				h.Cancel()
				_, err := join(t, h)
				require.Equal(t, context.Canceled, err)
			}
			eventually(t, func() bool { return fifoGoroutines(t) == 0 }, what)
		}
		for i := range 200 {
			name := newFIFO(t)
			h := opens(rt, name, flag)
			peer := opens(rt, name, os.O_RDONLY^os.O_WRONLY^flag)
			for range i % 20 {
				waiting(h)
			}
			h.Cancel()
			if _, err := join(t, h); err == nil {
				join(t, peer) // the two openings have met
			}
			peer.Cancel()
			join(t, peer)
		}
		eventually(t, func() bool { return fifoGoroutines(t) == 0 })
	}
	eventually(t, func() bool { return openFds(t) <= before+1 }) // a margin of one descriptor
}

// If one of two tasks that wait for the same end gives up, the other task still waits for a
// peer, and gets all data of the peer.
func TestFIFOGivenUpBeside(t *testing.T) {
	rt := fileRuntime(t)
	name := newFIFO(t)
	for range 20 {
		gaveUp := opens(rt, name, os.O_RDONLY)
		stays := Spawn(rt, func(cx *Context) ([]byte, error) { return ReadFile(cx, name) })
		waitsForPeer(t, rt, name, false, 2)
		gaveUp.Cancel()
		_, err := join(t, gaveUp)
		require.Equal(t, context.Canceled, err)
		waitsForPeer(t, rt, name, false, 1)
		require.NoError(t, os.WriteFile(name, []byte("all"), 0))
		got, err := join(t, stays)
		require.NoError(t, err)
		require.Equal(t, "all", string(got))
	}
	var all []*JoinHandle[None]
	for range 5 { // one peer is enough for all tasks
		all = append(all, opens(rt, name, os.O_WRONLY))
	}
	waitsForPeer(t, rt, name, true, 5)
	r, err := os.Open(name)
	require.NoError(t, err)
	for _, h := range all {
		_, err := join(t, h)
		require.NoError(t, err)
	}
	require.NoError(t, r.Close())
}

// Release ends an opening that is given up, by opening the other end. An opening of either end that
// begins meanwhile does not take release for its peer.
func TestFIFOGivenUpBefore(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	before := openFds(t)
	for _, readers := range []bool{true, false} { // all tasks at one end, without a peer
		name := newFIFO(t)
		flag := os.O_WRONLY
		if readers {
			flag = os.O_RDONLY
		}
		for range 100 {
			h := opens(rt, name, flag)
			waitsForPeer(t, rt, name, !readers, 1)
			h.Cancel()
			next := opens(rt, name, flag)
			_, err := join(t, h)
			require.Equal(t, context.Canceled, err)
			waitsForPeer(t, rt, name, !readers, 1)
			next.Cancel()
			_, err = join(t, next)
			require.Equal(t, context.Canceled, err)
		}
	}
	name := newFIFO(t)
	for i := range 100 { // both ends, one after the other
		flag := os.O_RDONLY
		if i%2 == 0 {
			flag = os.O_WRONLY
		}
		h := opens(rt, name, flag)
		waitsForPeer(t, rt, name, flag == os.O_WRONLY, 1)
		h.Cancel()
		_, err := join(t, h)
		require.Equal(t, context.Canceled, err)
	}
	eventually(t, func() bool { return fifoGoroutines(t) == 0 })
	eventually(t, func() bool { return openFds(t) <= before+1 })
}

// An opening that cannot wait fails or succeeds as with package os, and holds no place.
func TestFIFOTwins(t *testing.T) {
	rt := fifoRuntime(t)
	name := newFIFO(t)
	link := name + ".link"
	require.NoError(t, os.Symlink(name, link))
	say := func(f io.Closer, err error) string {
		if err == nil {
			f.Close()
		}
		return fmt.Sprintf("%v %T %v", err, err, errors.Is(err, unix.ENXIO))
	}
	for _, flag := range []int{os.O_RDWR, os.O_RDWR | os.O_CREATE | os.O_TRUNC, os.O_RDONLY | unix.O_NONBLOCK, os.O_WRONLY | unix.O_NONBLOCK,
		os.O_WRONLY | os.O_CREATE | os.O_EXCL, os.O_RDONLY | unix.O_DIRECTORY, os.O_WRONLY | unix.O_NOFOLLOW} {
		want := say(os.OpenFile(name+strings.Repeat(".link", flag&unix.O_NOFOLLOW/unix.O_NOFOLLOW), flag, 0o600))
		inBlockOn(t, rt, func(cx *Context) error {
			f, err := OpenFile(cx, name+strings.Repeat(".link", flag&unix.O_NOFOLLOW/unix.O_NOFOLLOW), flag, 0o600)
			require.Equal(t, want, say(closerOf(cx, f), err), "%#x", flag)
			return nil
		})
	}
	h := Spawn(rt, func(cx *Context) ([]byte, error) { return ReadFile(cx, link) })
	waitsForPeer(t, rt, name, false, 1)
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := OpenFile(cx, link, os.O_WRONLY|os.O_APPEND, 0)
		require.NoError(t, err)
		require.Equal(t, link, f.Name())
		require.Equal(t, runtime.GOOS != "darwin", f.polled)
		_, err = f.WriteString(cx, "by a link")
		require.NoError(t, err)
		return f.Close(cx)
	})
	got, err := join(t, h)
	require.NoError(t, err)
	require.Equal(t, "by a link", string(got))
}

func closerOf(cx *Context, f *File) io.Closer { return BindFile(cx, f) }

// Shutdown cancels openings that wait, and unwinds code that the cancellation does not reach.
// Neither leaves a goroutine or a descriptor.
func TestFIFOShutdown(t *testing.T) {
	warmUp()
	before := openFds(t)
	rt, err := New(Config{Workers: 1, Grace: 1})
	require.NoError(t, err)
	name, other := newFIFO(t), newFIFO(t)
	hears := opens(rt, name, os.O_RDONLY)
	deaf := Go(rt, func(cx *Context) error {
		_, err := OpenFile(cx.WithoutCancel(), other, os.O_WRONLY, 0)
		return err
	})
	waitsForPeer(t, rt, name, false, 1)
	waitsForPeer(t, rt, other, true, 1)
	var late *ShutdownError
	require.ErrorAs(t, rt.Shutdown(ended()), &late)
	_, err = hears.JoinBlocking(context.Background())
	require.True(t, errors.Is(err, context.Canceled) || errors.Is(err, ErrShutdown), "%v", err)
	_, err = deaf.JoinBlocking(context.Background())
	require.True(t, errors.Is(err, context.Canceled) || errors.Is(err, ErrShutdown), "%v", err)
	eventually(t, func() bool { return fifoGoroutines(t) == 0 })
	eventually(t, func() bool { return openFds(t) <= before })
	_, err = os.OpenFile(name, os.O_WRONLY|unix.O_NONBLOCK, 0)
	require.ErrorIs(t, err, syscall.ENXIO, "its reader is gone")
}

// A FIFO is opened by its name if the system has no descriptor of a name. If the name goes, an
// opening that is given up continues to wait for a peer. A task that arrives later joins this
// opening, so that its peer is not lost. There is no second goroutine, even if there is one place.
func TestFIFOByName(t *testing.T) {
	rt := fifoRuntime(t)
	filesOf(rt).fifos.byName = true
	before := openFds(t)
	for _, flag := range []int{os.O_RDONLY, os.O_WRONLY} {
		name := newFIFO(t)
		h := opens(rt, name, flag)
		waitsForPeer(t, rt, name, flag == os.O_WRONLY, 1)
		h.Cancel()
		_, err := join(t, h)
		require.Equal(t, context.Canceled, err)
		eventually(t, func() bool { return fifoGoroutines(t) == 0 })
		h = opens(rt, name, flag)
		waitsForPeer(t, rt, name, flag == os.O_WRONLY, 1)
		_, err = join(t, opens(rt, name, os.O_RDONLY^os.O_WRONLY^flag))
		require.NoError(t, err)
		_, err = join(t, h)
		require.NoError(t, err)

		h = opens(rt, name, flag)
		waitsForPeer(t, rt, name, flag == os.O_WRONLY, 1)
		inOpen(t)
		queued := opens(rt, name, flag) // there is one place
		eventually(t, func() bool { return waiting(queued) && queued.info(nil).Waits == "permits" })
		moved := name + "2"
		require.NoError(t, os.Rename(name, moved))
		for _, h := range []*JoinHandle[None]{h, queued} {
			h.Cancel()
			_, err = join(t, h)
			require.Equal(t, context.Canceled, err)
			eventually(t, func() bool { return fifoGoroutines(t) == 1 }, "release fails")
		}
		for range 3 {
			h := opens(rt, moved, flag)
			waitsForPeer(t, rt, moved, flag == os.O_WRONLY, 1)
			require.NoError(t, os.Rename(moved, moved+"2"))
			h.Cancel()
			_, err = join(t, h)
			require.Equal(t, context.Canceled, err)
			eventually(t, func() bool { return fifoGoroutines(t) == 1 }, "release fails")
			moved += "2"
		}
		adopted := opens(rt, moved, flag)
		waitsForPeer(t, rt, moved, flag == os.O_WRONLY, 1)
		require.Equal(t, 1, fifoGoroutines(t))
		peer, err := os.OpenFile(moved, os.O_RDONLY^os.O_WRONLY^flag, 0)
		require.NoError(t, err)
		_, err = join(t, adopted)
		require.NoError(t, err)
		require.NoError(t, peer.Close())
		eventually(t, func() bool { return fifoGoroutines(t) == 0 })
		for range 2 { // the place is free again
			h := opens(rt, moved, flag)
			waitsForPeer(t, rt, moved, flag == os.O_WRONLY, 1)
			h.Cancel()
			join(t, h)
		}
		eventually(t, func() bool { return fifoGoroutines(t) == 0 }) // before the name is removed
	}
	eventually(t, func() bool { return openFds(t) <= before+1 })
}

// A task that arrives while an opening that could not be released waits for its peer gets all data
// of the peer. An opening of the other end does not wait for the release that has failed.
func TestFIFONotReleased(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	filesOf(rt).fifos.byName = true
	for range 20 {
		name := newFIFO(t)
		h := opens(rt, name, os.O_RDONLY)
		waitsForPeer(t, rt, name, false, 1)
		inOpen(t)
		moved := name + "2"
		require.NoError(t, os.Rename(name, moved))
		h.Cancel()
		_, err := join(t, h)
		require.Equal(t, context.Canceled, err)
		read := Spawn(rt, func(cx *Context) ([]byte, error) { return ReadFile(cx, moved) })
		waitsForPeer(t, rt, moved, false, 1)
		write := Go(rt, func(cx *Context) error { return WriteFile(cx, moved, []byte("all"), 0) })
		_, err = join(t, write)
		require.NoError(t, err)
		got, err := join(t, read)
		require.NoError(t, err)
		require.Equal(t, "all", string(got))
	}
}

// Each of the tasks that share an opening gets a File with its own name and its own flags.
func TestFIFOShared(t *testing.T) {
	rt := fileRuntime(t)
	for range 20 {
		name := newFIFO(t)
		link := name + ".link"
		require.NoError(t, os.Link(name, link))
		var all []*JoinHandle[*File]
		names, flags := []string{name, link, link, name}, []int{unix.O_APPEND, unix.O_APPEND, 0, unix.O_NOFOLLOW}
		for i, name := range names {
			all = append(all, Spawn(rt, func(cx *Context) (*File, error) { return OpenFile(cx, name, os.O_WRONLY|flags[i], 0) }))
			waitsForPeer(t, rt, name, true, i+1)
		}
		all[0].Cancel() // whose flags the opening has
		_, err := join(t, all[0])
		require.Equal(t, context.Canceled, err)
		eventually(t, func() bool { return fifoGoroutines(t) == 1 })
		r, err := os.Open(name)
		require.NoError(t, err)
		for i, h := range all[1:] {
			f, err := join(t, h)
			require.NoError(t, err)
			require.Equal(t, names[i+1], f.Name())
			conn, err := f.SyscallConn()
			require.NoError(t, err)
			require.NoError(t, conn.Control(func(fd uintptr) {
				got, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
				require.NoError(t, err)
				require.Equal(t, flags[i+1]&unix.O_APPEND, got&unix.O_APPEND)
			}))
			inBlockOn(t, rt, f.Close)
		}
		require.NoError(t, r.Close())
	}
}

// While tasks hold all places, the two ends of another FIFO still meet, in either order.
func TestFIFOMeetWithoutPlace(t *testing.T) {
	rt := fifoRuntime(t)
	for range 20 {
		for _, held := range [][]int{{os.O_RDONLY}, {os.O_WRONLY}, {os.O_RDONLY, os.O_WRONLY}} {
			for _, first := range []int{os.O_RDONLY, os.O_WRONLY} {
				var holders []*JoinHandle[None]
				for _, flag := range held {
					name := newFIFO(t)
					h := opens(rt, name, flag)
					waitsForPeer(t, rt, name, flag == os.O_WRONLY, 1)
					holders = append(holders, h)
				}
				name := newFIFO(t)
				one := opens(rt, name, first)
				eventually(t, func() bool { return waiting(one) })
				other := opens(rt, name, os.O_RDONLY^os.O_WRONLY^first)
				for _, h := range append([]*JoinHandle[None]{one, other}, holders...) {
					if h != one && h != other {
						h.Cancel()
					}
					if _, err := join(t, h); h == one || h == other {
						require.NoError(t, err)
					}
				}
				eventually(t, func() bool { return fifoGoroutines(t) == 0 })
			}
		}
	}
	filesOf(rt).fifos.mu.Lock()
	defer filesOf(rt).fifos.mu.Unlock()
	require.Empty(t, filesOf(rt).fifos.all)
}

// Code that Shutdown unwinds while it writes to a FIFO leaves no descriptor.
func TestFIFOUnwound(t *testing.T) {
	warmUp()
	before := openFds(t)
	rt, err := New(Config{Workers: 1, Grace: 1})
	require.NoError(t, err)
	plain := filepath.Join(t.TempDir(), "plain")
	require.NoError(t, os.WriteFile(plain, pattern(1<<20), 0o600))
	var peers []*os.File
	for _, do := range []func(cx *Context, name string) error{
		func(cx *Context, name string) error { return WriteFile(cx, name, pattern(1<<20), 0) },
		func(cx *Context, name string) error { _, err := CopyFile(cx, name, plain); return err },
	} {
		name := newFIFO(t)
		peer, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
		require.NoError(t, err)
		peers = append(peers, peer)
		h := Go(rt, func(cx *Context) error { return do(cx.WithoutCancel(), name) })
		eventually(t, func() bool { return waiting(h) && h.info(nil).Waits == "write" })
	}
	var late *ShutdownError
	require.ErrorAs(t, rt.Shutdown(ended()), &late)
	for _, p := range peers {
		p.Close()
	}
	for i := range 100 {
		if openFds(t) <= before {
			break
		}
		require.Less(t, i, 99, "descriptors are left")
		time.Sleep(time.Millisecond)
	}
}

// If openedFile fails to make a File of a file, the file is closed at once, not by its finalizer.
func TestOpenedFileFails(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer w.Close()
	var l unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &l))
	faultsLimit(t, 0)
	_, err = openedFile(r, nil)
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &l))
	require.ErrorIs(t, err, syscall.EMFILE)
	require.ErrorIs(t, r.Close(), os.ErrClosed)
}
