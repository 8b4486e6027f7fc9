package async

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"example.com/async/internal/pagecache"
	"github.com/stretchr/testify/require"
)

// onTheSpot returns the name of a new file, and whether this system and the file system of the test
// allow a read on the spot after a first read.
func onTheSpot(t testing.TB, data []byte) (name string, cached bool) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, data, 0o600))
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	require.NoError(t, err)
	conn, err := f.SyscallConn()
	require.NoError(t, err)
	_, err = pagecache.Read(conn, make([]byte, 1), 0)
	if err == errors.ErrUnsupported {
		t.Log("nothing is read on the spot here:", name)
		return name, false
	}
	return name, true
}

// While the pool is full, data in memory is read nevertheless. A read of other data waits for the
// pool.
func TestCachedNeedsNoPool(t *testing.T) {
	want := pattern(3*cachedPartMost + 5)
	name, cached := onTheSpot(t, want)
	small, _ := onTheSpot(t, want[:100])
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 1, Queue: 1}})
	var f *File
	runInTask(t, rt, func(cx *Context) (err error) { // the first read notes the device
		if f, err = Open(cx, name); err == nil {
			_, err = f.Read(cx, make([]byte, 1))
		}
		return err
	})
	release := occupy(t, rt, 1)
	queued := SpawnBlocking(rt, func() (None, error) { return None{}, nil })
	use := Go(rt, func(cx *Context) error {
		if at, err := f.Seek(cx, 7, io.SeekStart); at != 7 || err != nil {
			return fmt.Errorf("Seek: %d, %w", at, err)
		}
		got, err := io.ReadAll(BindFile(cx, f))
		if err != nil || string(got) != string(want[7:]) {
			return fmt.Errorf("reading: %d bytes, %w", len(got), err)
		}
		part := make([]byte, 2*cachedPartMost)
		if n, err := f.ReadAt(cx, part, 3); err != nil || string(part[:n]) != string(want[3:][:len(part)]) {
			return fmt.Errorf("ReadAt: %d, %w", n, err)
		}
		info, err := f.Stat(cx)
		if err != nil || info.Size() != int64(len(want)) || info.Name() != "f" {
			return fmt.Errorf("Stat: %v, %w", info, err)
		}
		if err := f.Close(cx); err != nil {
			return err
		}
		data, err := ReadFile(cx, small)
		if err != nil || string(data) != string(want[:100]) {
			return fmt.Errorf("ReadFile: %q, %w", data, err)
		}
		g, err := Open(cx, small)
		if err != nil {
			return err
		}
		if _, err := g.Stat(cx); err != nil {
			return err
		}
		if err := g.Close(cx); err != nil {
			return err
		}
		if g, err = Open(cx, small); err != nil {
			return err
		}
		data, err = io.ReadAll(BindFile(cx, g))
		if err != nil || string(data) != string(want[:100]) {
			return fmt.Errorf("Open and read: %q, %w", data, err)
		}
		return g.Close(cx)
	})
	if cached {
		_, err := join(t, use)
		require.NoError(t, err)
	} else {
		eventually(t, func() bool { return waiting(use) })
	}
	release()
	_, err := join(t, use)
	require.NoError(t, err)
	join(t, queued)
}

// Data that is in memory and data that is not are read in turns. The file position is right after
// both kinds of reads.
func TestCachedAndPooledReadsInTurn(t *testing.T) {
	rt := fileRuntime(t)
	want := pattern(5*bufferLarge + 11)
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 5))
		name, _ := onTheSpot(t, want)
		inBlockOn(t, rt, func(cx *Context) error {
			f, err := Open(cx, name)
			require.NoError(t, err)
			o, err := os.Open(name)
			require.NoError(t, err)
			defer o.Close()
			for range 60 {
				switch r.IntN(6) {
				case 0:
					forgetCached(t, o)
				case 1:
					f.mu.Lock()
					f.cached = !f.cached && pagecache.CanRead(0)
					f.mu.Unlock()
				case 2:
					off, whence := r.Int64N(int64(len(want)+100)), r.IntN(2)
					at, err := f.Seek(cx, off, whence)
					require.NoError(t, err)
					expected, _ := o.Seek(off, whence)
					require.Equal(t, expected, at, "seed %d", seed)
				case 3:
					p, q, off := make([]byte, r.IntN(2*bufferLarge)), make([]byte, 2*bufferLarge), r.Int64N(int64(len(want)))
					n, err := f.ReadAt(cx, p, off)
					m, expected := o.ReadAt(q[:len(p)], off)
					require.Equal(t, expected, err)
					require.Equal(t, q[:m], p[:n])
				default:
					p := make([]byte, 1+r.IntN(1<<(1+r.IntN(20))))
					n, err := f.Read(cx, p)
					q := make([]byte, max(n, 1))
					m, expected := io.ReadFull(o, q)
					require.Equal(t, expected, err, "seed %d", seed)
					require.Equal(t, string(q[:m]), string(p[:n]), "seed %d", seed)
				}
			}
			at, err := f.Seek(cx, 0, io.SeekCurrent)
			require.NoError(t, err)
			expected, _ := o.Seek(0, io.SeekCurrent)
			require.Equal(t, expected, at)
			return f.Close(cx)
		})
	}
}

// controlled is a RawConn whose Control is a function of the test.
type controlled struct {
	syscall.RawConn
	do func(fn func(fd uintptr)) error
}

func (c controlled) Control(fn func(fd uintptr)) error { return c.do(fn) }

// Data that is not in memory is read ahead in growing parts, even if each Read asks for little.
func TestCachedMissesGrow(t *testing.T) {
	rt := fileRuntime(t)
	want := pattern(12 * bufferLarge)
	name, _ := onTheSpot(t, want)
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := OpenFile(cx, name, os.O_RDWR, 0)
		require.NoError(t, err)
		f.cached = true
		f.conn = controlled{f.conn, func(func(uintptr)) error { return pagecache.ErrMiss }}
		p := make([]byte, 1000)
		for at := 0; at < 2*bufferLarge; {
			n, err := f.Read(cx, p)
			require.NoError(t, err)
			require.Equal(t, want[at:at+n], p[:n])
			at += n
		}
		f.mu.Lock()
		grown := f.readSize
		f.mu.Unlock()
		require.Equal(t, bufferLarge, grown)
		return f.Close(cx)
	})
}

// The end of a file that is completely in memory is found without the pool.
func TestCachedEndIsAskedOnce(t *testing.T) {
	rt := fileRuntime(t)
	name, cached := onTheSpot(t, pattern(bufferLarge))
	runInTask(t, rt, func(cx *Context) error {
		f, err := Open(cx, name)
		if err != nil {
			return err
		}
		defer f.Close(cx)
		conn, asked := f.conn, 0
		f.conn = controlled{conn, func(fn func(uintptr)) error { asked++; return conn.Control(fn) }}
		p := make([]byte, bufferLarge)
		if _, err = io.ReadFull(BindFile(cx, f), p); err != nil {
			return err
		}
		f.mu.Lock()
		hot := f.hot // false if the system has just dropped a part of the file
		f.mu.Unlock()
		asked = 0
		n, err := f.Read(cx, p)
		if err != io.EOF || n != 0 || cached && hot && asked != 1 {
			return fmt.Errorf("asked %d times: %d, %w", asked, n, err)
		}
		return nil
	})
}

// A task that reads large parts of data in memory lets other tasks have the file position.
func TestCachedReadsGiveWayToOthers(t *testing.T) {
	rt := fileRuntime(t)
	name, _ := onTheSpot(t, pattern(8*bufferLarge))
	var f *File
	p := make([]byte, bufferLarge)
	inBlockOn(t, rt, func(cx *Context) (err error) {
		if f, err = Open(cx, name); err == nil {
			_, err = f.Read(cx, p)
		}
		return err
	})
	eventually(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		idle := f.use == fileIdle
		if idle {
			f.use = fileReading // as if a task read on the spot
		}
		return idle
	})
	seek := Spawn(rt, func(cx *Context) (int64, error) { return f.Seek(cx, 5, io.SeekStart) })
	eventually(t, func() bool { return waiting(seek) })
	f.mu.Lock()
	require.True(t, f.wanted)
	f.use = fileIdle // the read has ended, and the other task was not woken yet
	f.dropReadAhead()
	f.mu.Unlock()
	cx, _ := newPollCx(t, rt)
	_, err := f.PollRead(cx, p)
	require.Equal(t, ErrPending, err)
	at, err := join(t, seek)
	require.NoError(t, err)
	require.EqualValues(t, 5, at)
	inBlockOn(t, rt, f.Close)
}

// ReadAt does not change File.hot, since its result says nothing about the data at the file
// position. ReadAt of no bytes, or before the beginning, has the result that it has for an os.File.
func TestCachedReadAtElsewhere(t *testing.T) {
	rt := fileRuntime(t)
	want := pattern(100)
	name, cached := onTheSpot(t, want)
	o, err := os.Open(name)
	require.NoError(t, err)
	defer o.Close()
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := OpenFile(cx, name, os.O_RDWR, 0)
		require.NoError(t, err)
		real := f.conn
		for _, hot := range []bool{true, false} {
			for _, conn := range []syscall.RawConn{real, controlled{real, func(func(uintptr)) error { return pagecache.ErrMiss }}} {
				f.cached, f.hot, f.conn = cached, cached && hot, conn
				for _, off := range []int64{5, 95, 100, 105, -1} {
					for _, n := range []int{0, 1, 10} {
						p, q := make([]byte, n), make([]byte, n)
						n, err := f.ReadAt(cx, p, off)
						m, expected := o.ReadAt(q, off)
						require.Equal(t, expected, err, "at %d", off)
						require.Equal(t, q[:m], p[:n], "at %d", off)
						require.Equal(t, cached && hot, f.hot)
					}
				}
			}
		}
		return f.Close(cx)
	})
}

// A Context that cannot wait is refused even if the call would not have to wait. Then the call has
// no effect.
func TestCachedMisuse(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	name, cached := onTheSpot(t, pattern(100))
	plain, _ := newPollCx(t, rt)
	for _, warm := range []bool{false, cached} {
		f, err := BlockOn(rt, func(cx *Context) (*File, error) { return OpenFile(cx, name, os.O_RDONLY, 0) })
		require.NoError(t, err)
		f.cached, f.hot = warm, warm
		for op, do := range map[string]func(cx *Context){
			"Open":     func(cx *Context) { Open(cx, name) },
			"OpenFile": func(cx *Context) { OpenFile(cx, name, os.O_RDWR, 0) },
			"ReadFile": func(cx *Context) { ReadFile(cx, name) },
			"Read":     func(cx *Context) { f.Read(cx, make([]byte, 1)) },
			"ReadAt":   func(cx *Context) { f.ReadAt(cx, make([]byte, 1), 0) },
			"Seek":     func(cx *Context) { f.Seek(cx, 0, io.SeekStart) },
			"Stat":     func(cx *Context) { f.Stat(cx) },
			"Close":    func(cx *Context) { f.Close(cx) },
		} {
			t.Run(fmt.Sprintf("%s, warm: %v", op, warm), func(t *testing.T) {
				requireMisuse(t, misuse(func() { do(plain) }), "a plain future cannot wait")
				runInTask(t, rt, func(cx *Context) error {
					text := make(chan string)
					go func() { text <- misuse(func() { do(cx) }) }()
					got := <-text
					return expect(strings.Contains(got, foreignThread), "%q", got)
				})
			})
		}
		runInTask(t, rt, f.Close)
	}
}

// If a file is closed while a task reads it on the spot, it is closed when that read has ended, and
// the data that was read ahead is dropped.
func TestCachedClosedMeanwhile(t *testing.T) {
	rt := fileRuntime(t)
	name, _ := onTheSpot(t, pattern(bufferLarge))
	for _, size := range []int{10, bufferSmall} {
		f, err := BlockOn(rt, func(cx *Context) (*File, error) { return OpenFile(cx, name, os.O_RDONLY, 0) })
		require.NoError(t, err)
		f.cached = true
		real := f.conn
		var closed *JoinHandle[None]
		f.conn = controlled{real, func(fn func(uintptr)) error {
			if closed == nil { // Control is called again to check for the end
				closed = Go(rt, f.Close)
				eventually(t, func() bool {
					f.mu.Lock()
					defer f.mu.Unlock()
					return f.closing != nil
				})
			}
			return real.Control(fn)
		}}
		inBlockOn(t, rt, func(cx *Context) error {
			p := make([]byte, size)
			_, err := f.Read(cx, p)
			if err != nil || size < bufferSmall {
				require.ErrorIs(t, err, os.ErrClosed)
			}
			_, err = f.Read(cx, p)
			require.ErrorIs(t, err, os.ErrClosed)
			return nil
		})
		_, err = join(t, closed)
		require.NoError(t, err)
		require.Error(t, real.Control(func(uintptr) {}), "the descriptor is still open")
	}
}

// A read on the spot returns data that was written before, through this File and through others.
func TestCachedSeesChanges(t *testing.T) {
	rt := fileRuntime(t)
	name, _ := onTheSpot(t, []byte("aaaa"))
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := OpenFile(cx, name, os.O_RDWR, 0)
		require.NoError(t, err)
		p := make([]byte, 2)
		read := func(want string) {
			t.Helper()
			n, err := f.Read(cx, p)
			require.NoError(t, err)
			require.Equal(t, want, string(p[:n]))
		}
		read("aa")
		_, err = f.WriteAt(cx, []byte("b"), 2)
		require.NoError(t, err)
		read("ba")
		_, err = f.WriteString(cx, "cc")
		require.NoError(t, err)
		_, err = f.ReadAt(cx, p, 4)
		require.NoError(t, err)
		require.Equal(t, "cc", string(p))
		_, err = f.WriteString(cx, "dd")
		require.NoError(t, err)
		info, err := f.Stat(cx)
		require.NoError(t, err)
		require.EqualValues(t, 8, info.Size())
		at, err := f.Seek(cx, 2, io.SeekStart)
		require.NoError(t, err)
		require.EqualValues(t, 2, at)
		read("ba")
		require.NoError(t, f.Truncate(cx, 0))
		_, err = f.Read(cx, p)
		require.Equal(t, io.EOF, err)
		require.NoError(t, os.WriteFile(name, []byte("fourth"), 0o600))
		read("th")
		require.NoError(t, f.Close(cx))
		for _, want := range []string{"one", "", "three"} {
			require.NoError(t, os.WriteFile(name, []byte(want), 0o600))
			got, err := ReadFile(cx, name)
			require.NoError(t, err)
			require.Equal(t, want, string(got))
		}
		return nil
	})
}

// Code that reads data in memory in a loop lets other tasks run, and ends when it is cancelled.
func TestCachedYields(t *testing.T) {
	name, _ := onTheSpot(t, pattern(100))
	rt := newTestRuntime(t, Config{Workers: 1})
	var f *File
	runInTask(t, rt, func(cx *Context) (err error) {
		f, err = Open(cx, name)
		return err
	})
	for op, do := range map[string]func(cx *Context) error{
		"Read": func(cx *Context) error {
			if _, err := f.Read(cx, make([]byte, 64)); err != io.EOF {
				return err
			}
			_, err := f.Seek(cx, 0, io.SeekStart)
			return err
		},
		"ReadAt":   func(cx *Context) error { _, err := f.ReadAt(cx, make([]byte, 64), 3); return err },
		"Stat":     func(cx *Context) error { _, err := f.Stat(cx); return err },
		"ReadFile": func(cx *Context) error { _, err := ReadFile(cx, name); return err },
		"Open": func(cx *Context) error {
			g, err := Open(cx, name)
			if err != nil {
				return err
			}
			return g.Close(cx)
		},
	} {
		var loops atomic.Int64
		h := Go(rt, func(cx *Context) error {
			for {
				if err := do(cx); err != nil {
					return err
				}
				loops.Add(1)
			}
		})
		eventually(t, func() bool { return loops.Load() > 1000 })
		runInTask(t, rt, func(cx *Context) error { return Yield(cx) }) // runs on the same worker
		h.Cancel()
		_, err := join(t, h)
		require.Equal(t, context.Canceled, err, op)
	}
	runInTask(t, rt, f.Close)
}

// Several tasks read one file, which is closed meanwhile: each part is read once, and all tasks
// end.
func TestCachedShared(t *testing.T) {
	rt := fileRuntime(t)
	want := pattern(64 << 10)
	name, _ := onTheSpot(t, want)
	for round := range 40 {
		var f *File
		runInTask(t, rt, func(cx *Context) (err error) { f, err = Open(cx, name); return err })
		var sum, read atomic.Int64
		var readers []*JoinHandle[None]
		for i := range 4 {
			readers = append(readers, Go(rt, func(cx *Context) error {
				p := make([]byte, 50+i*bufferSmall/2)
				for {
					n, err := f.Read(cx, p)
					for _, b := range p[:n] {
						sum.Add(int64(b))
					}
					read.Add(int64(n))
					if err != nil {
						return err
					}
				}
			}))
		}
		end := io.EOF
		if round%2 == 1 {
			end = os.ErrClosed
			runInTask(t, rt, f.Close)
		}
		for _, h := range readers {
			if _, err := join(t, h); err != io.EOF {
				require.ErrorIs(t, err, end)
			}
		}
		if round%2 == 1 {
			continue
		}
		expected := int64(0)
		for _, b := range want {
			expected += int64(b)
		}
		require.EqualValues(t, len(want), read.Load())
		require.Equal(t, expected, sum.Load())
		runInTask(t, rt, f.Close)
	}
}

// A runtime keeps at most devicesMost devices.
func TestCachedDevicesAreFew(t *testing.T) {
	var d devices
	for dev := range uint64(10 * devicesMost) {
		d.note(dev, dev%2 == 0)
		readable, known := d.readable(dev)
		require.True(t, known)
		require.Equal(t, dev%2 == 0, readable)
		require.LessOrEqual(t, len(*d.known.Load()), devicesMost)
	}
}
