package async

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"example.com/async/internal/pagecache"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// forgetCached makes the system drop the data of a file from memory.
func forgetCached(t testing.TB, f *os.File) {
	require.NoError(t, f.Sync())
	require.NoError(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// The opening of a FIFO on a known device waits for the other end off the worker, and does not open
// the FIFO before.
func TestCachedFIFO(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	name, cached := onTheSpot(t, []byte("x"))
	fifo := filepath.Join(filepath.Dir(name), "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	runInTask(t, rt, func(cx *Context) error { _, err := ReadFile(cx, name); return err })
	if cached {
		found, ok := pagecache.LookUp(name)
		require.True(t, ok)
		readable, known := filesOf(rt).devices.readable(found.Dev)
		require.True(t, readable && known)
	}
	h := Spawn(rt, func(cx *Context) ([]byte, error) { return ReadFile(cx, fifo) })
	eventually(t, func() bool { return waiting(h) })
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = w.WriteString("through the pool")
	require.NoError(t, err)
	require.NoError(t, w.Close())
	got, err := join(t, h)
	require.NoError(t, err)
	require.Equal(t, "through the pool", string(got))
}

// Files that cannot be read on the spot are read by the pool: files of /proc, files that are opened
// for direct I/O or for writing, and names that cannot be opened.
func TestCachedIsRefused(t *testing.T) {
	rt := fileRuntime(t)
	want := pattern(4096)
	name, _ := onTheSpot(t, want)
	require.False(t, pagecache.CanRead(unix.O_DIRECT))
	_, ok := pagecache.LookUp("/proc/self/stat")
	require.False(t, ok)
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := OpenFile(cx, name, os.O_RDONLY|unix.O_DIRECT, 0)
		if err != nil {
			t.Log("no direct I/O here:", err)
			return nil
		}
		require.False(t, f.cached)
		got, err := io.ReadAll(BindFile(cx, f))
		require.NoError(t, err)
		require.Equal(t, want, got)
		return f.Close(cx)
	})
	inBlockOn(t, rt, func(cx *Context) error {
		for range 2 {
			data, err := ReadFile(cx, "/proc/self/stat")
			require.NoError(t, err)
			require.NotEmpty(t, data)
			f, err := Open(cx, "/proc/self/stat")
			require.NoError(t, err)
			got, err := io.ReadAll(BindFile(cx, f))
			require.NoError(t, err)
			require.NotEmpty(t, got)
			require.NoError(t, f.Close(cx))
			_, err = ReadFile(cx, filepath.Dir(name))
			require.ErrorIs(t, err, unix.EISDIR)
			_, err = ReadFile(cx, name+"/none")
			require.ErrorIs(t, err, unix.ENOTDIR)
			_, err = Open(cx, name+"none")
			require.ErrorIs(t, err, os.ErrNotExist)
			_, err = Open(cx, "with\x00zero")
			require.ErrorIs(t, err, unix.EINVAL)
			f, err = OpenFile(cx, name, os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = f.Read(cx, make([]byte, 1))
			require.ErrorIs(t, err, unix.EBADF)
			_, err = f.ReadAt(cx, make([]byte, 1), 0)
			require.ErrorIs(t, err, unix.EBADF)
			require.NoError(t, f.Close(cx))
		}
		return nil
	})
}

// A part that is in memory does not reset the growth of reads. The end of the file does.
func TestCachedPartsGrow(t *testing.T) {
	rt := fileRuntime(t)
	name, cached := onTheSpot(t, pattern(100))
	if !cached {
		t.Log("nothing is read on the spot here")
		return
	}
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := OpenFile(cx, name, os.O_RDONLY, 0)
		require.NoError(t, err)
		f.readSize = bufferMedium
		p := make([]byte, 1000)
		n, err := f.Read(cx, p)
		require.NoError(t, err)
		require.Equal(t, pattern(100), p[:n])
		require.Equal(t, bufferMedium, f.readSize)
		_, err = f.Read(cx, p)
		require.Equal(t, io.EOF, err)
		require.Zero(t, f.readSize)
		return f.Close(cx)
	})
}

// If another file gets the name between LookUp and Open, the pool opens it, whatever that file is.
func TestCachedRenamed(t *testing.T) {
	newTestRuntime(t, Config{Workers: 1}) // counts descriptors at the end of the test
	name, _ := onTheSpot(t, pattern(10))
	found, ok := pagecache.LookUp(name)
	if !ok {
		t.Log("the file system of tests must always be asked")
		return
	}
	require.NoError(t, os.Link(name, name+"kept")) // so that no other file gets its number
	fd, ok := pagecache.Open(name, found)
	require.True(t, ok)
	now, ok := pagecache.LookAt(fd)
	require.NoError(t, unix.Close(fd))
	require.True(t, ok)
	require.Equal(t, found, now)
	other := name + "other"
	for what, create := range map[string]func() error{
		"a file":        func() error { return os.WriteFile(other, pattern(10), 0o600) },
		"an empty file": func() error { return os.WriteFile(other, nil, 0o600) },
		"a FIFO":        func() error { return unix.Mkfifo(other, 0o600) },
	} {
		require.NoError(t, create())
		require.NoError(t, os.Rename(other, name))
		_, ok := pagecache.Open(name, found)
		require.False(t, ok, what)
	}
}

// The process keeps its locks on a file when a runtime looks up the device of the file.
func TestCachedKeepsLocks(t *testing.T) {
	const nameEnv = "ASYNC_TEST_LOCKED"
	if inChild(t) {
		f, err := os.OpenFile(os.Getenv(nameEnv), os.O_RDWR, 0)
		require.NoError(t, err)
		lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
		require.NoError(t, unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock))
		fmt.Println("locked by", lock.Pid)
		return
	}
	rt := newTestRuntime(t, Config{Workers: 1})
	name, cached := onTheSpot(t, pattern(10))
	o, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	defer o.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	require.NoError(t, unix.FcntlFlock(o.Fd(), unix.F_SETLK, &lock))
	for range 2 {
		var f *File
		runInTask(t, rt, func(cx *Context) (err error) { f, err = Open(cx, name); return err })
		defer runInTask(t, rt, f.Close)
	}
	if found, ok := pagecache.LookUp(name); ok {
		readable, known := filesOf(rt).devices.readable(found.Dev)
		require.True(t, known)
		require.Equal(t, cached, readable)
	}
	out, err := child(t, nameEnv+"="+name).Output()
	require.NoError(t, err)
	require.Contains(t, string(out), fmt.Sprint("locked by ", os.Getpid(), "\n"))
}

// If the system refuses to read a file on the spot, although its device is listed as readable, the
// pool reads it. From then on the pool reads other files of this device, too.
func TestCachedRefusesLater(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	refuses, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_CLOEXEC, 0) // a directory
	require.NoError(t, err)
	defer unix.Close(refuses)
	_, err = pagecache.ReadWhole(refuses, 1)
	require.Equal(t, errors.ErrUnsupported, err)

	name, _ := onTheSpot(t, pattern(10))
	found, ok := pagecache.LookUp(name)
	if !ok {
		t.Log("the file system of tests must always be asked")
		return
	}
	known := &filesOf(rt).devices
	for op, read := range map[string]func(cx *Context, f *File) (int, error){
		"Read":   func(cx *Context, f *File) (int, error) { return f.Read(cx, make([]byte, 3)) },
		"ReadAt": func(cx *Context, f *File) (int, error) { return f.ReadAt(cx, make([]byte, 3), 2) },
	} {
		known.note(found.Dev, true)
		runInTask(t, rt, func(cx *Context) error {
			f, err := Open(cx, name)
			if err != nil {
				return err
			}
			f.cached, f.hot, f.noted, f.dev = true, true, known, found.Dev
			f.conn = controlled{f.conn, func(fn func(uintptr)) error { fn(uintptr(refuses)); return nil }}
			n, err := read(cx, f)
			readable, known := known.readable(found.Dev)
			return errors.Join(err, f.Close(cx), expect(n == 3, "%d bytes", n),
				expect(!f.cached && !f.hot, "it is tried again"), expect(known && !readable, "it is not noted"))
		})
		known.note(found.Dev, false)
		runInTask(t, rt, func(cx *Context) error {
			f, err := Open(cx, name)
			if err != nil {
				return err
			}
			return errors.Join(expect(f.noted == nil, "%s: the next is opened on the spot", op), f.Close(cx))
		})
	}
}

// ReadFile, too, corrects the list of devices if the system refuses a read on the spot.
func TestCachedReadFileRefused(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	dir, err := os.MkdirTemp("/dev/shm", "async") // a tmpfs, which refuses reads on the spot
	if err != nil {
		t.Log(err)
		return
	}
	defer os.RemoveAll(dir)
	t.Setenv("TMPDIR", dir)
	name, cached := onTheSpot(t, pattern(10))
	found, ok := pagecache.LookUp(name)
	if cached || !ok {
		t.Log("this one is read on the spot")
		return
	}
	filesOf(rt).devices.note(found.Dev, true)
	runInTask(t, rt, func(cx *Context) error {
		data, err := ReadFile(cx, name)
		return errors.Join(err, expect(string(data) == string(pattern(10)), "%q", data))
	})
	readable, known := filesOf(rt).devices.readable(found.Dev)
	require.True(t, known)
	require.False(t, readable)
}

// A descriptor that was opened on the spot is blocking, as other descriptors are. If closing a file
// removes it, the pool closes it.
func TestCachedDescriptor(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 1}})
	name, cached := onTheSpot(t, pattern(10))
	var f *File
	for range 2 { // the second opening may be on the spot
		runInTask(t, rt, func(cx *Context) (err error) {
			if f != nil {
				f.Close(cx)
			}
			if f, err = Open(cx, name); err == nil {
				_, err = f.Read(cx, make([]byte, 1))
			}
			return err
		})
	}
	var flags int
	f.conn.Control(func(fd uintptr) { flags, _ = unix.FcntlInt(fd, unix.F_GETFL, 0) })
	require.Zero(t, flags&unix.O_NONBLOCK)
	f.conn.Control(func(fd uintptr) { flags, _ = unix.FcntlInt(fd, unix.F_GETFD, 0) })
	require.Equal(t, unix.FD_CLOEXEC, flags)
	f.mu.Lock()
	require.Equal(t, cached, f.closesNow())
	f.mu.Unlock()
	require.NoError(t, os.Remove(name))
	f.mu.Lock()
	require.False(t, f.closesNow())
	f.mu.Unlock()
	release := occupy(t, rt, 1)
	h := Go(rt, f.Close)
	eventually(t, func() bool { return waiting(h) })
	release()
	_, err := join(t, h)
	require.NoError(t, err)
}
