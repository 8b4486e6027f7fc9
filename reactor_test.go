//go:build linux

package async

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// pollerModes are the ways in which a poller can wait; all must give the same.
var pollerModes = []struct {
	name          string
	keepP, coarse bool
}{
	{"ScheduleAware", false, false},
	{"KeepP", true, false},
	{"CoarseScheduleAware", false, true},
	{"CoarseKeepP", true, true},
}

// pollerTest is a poller under test.
type pollerTest struct {
	*testing.T
	p     poller
	keepP bool
}

// eachPoller runs fn with a new poller in each mode.
func eachPoller(t *testing.T, fn func(t pollerTest)) {
	for _, m := range pollerModes {
		t.Run(m.name, func(t *testing.T) {
			pt := pollerTest{T: t, keepP: m.keepP}
			require.NoError(t, pt.p.open())
			t.Cleanup(func() { pt.p.close() })
			pt.p.coarse = m.coarse
			fn(pt)
			require.Equal(t, m.coarse, pt.p.coarse, "the poller has chosen another call than the one under test")
		})
	}
}

// waitFor waits until all of want has been reported for fd, and returns
// all that has been reported.
func (t *pollerTest) waitFor(fd int, want Readiness) (got Readiness) {
	t.Helper()
	for got&want != want {
		events := make([]fdEvent, eventsPerWait)
		n, err := t.p.wait(events, patience, t.keepP)
		require.NoError(t, err)
		for _, e := range events[:n] {
			require.Equal(t, fd, e.fd)
			got |= e.ready
		}
	}
	return got
}

// none checks that there is no event.
func (t *pollerTest) none(what string) {
	t.Helper()
	events := make([]fdEvent, eventsPerWait)
	n, err := t.p.wait(events, 0, t.keepP)
	require.NoError(t, err)
	require.Empty(t, events[:n], what)
}

// testSocketpair returns two connected sockets that are closed with the test.
func testSocketpair(t testing.TB) (a, b int) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	return p[0], p[1]
}

// testPipe returns the ends of a pipe that is closed with the test.
func testPipe(t testing.TB) (r, w int) {
	var p [2]int
	require.NoError(t, openPipe(&p))
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	return p[0], p[1]
}

func mustWrite(t testing.TB, fd int, s string) {
	t.Helper()
	n, err := unix.Write(fd, []byte(s))
	require.NoError(t, err)
	require.Equal(t, len(s), n)
}

func TestPollerEdges(t *testing.T) {
	eachPoller(t, func(t pollerTest) {
		a, b := testSocketpair(t)
		require.NoError(t, t.p.add(a))
		require.Zero(t, t.waitFor(a, Writable)&Readable, "an empty socket can only be written")
		t.none("a second event without a new edge")

		mustWrite(t, b, "x")
		require.Zero(t, t.waitFor(a, Readable)&HungUp)
		t.none("unread, but nothing new")
		mustWrite(t, b, "y")
		t.waitFor(a, Readable)
		t.none("still nothing new")

		require.NoError(t, unix.Shutdown(b, unix.SHUT_WR))
		require.Equal(t, Readable|Writable|HungUp, t.waitFor(a, HungUp), "HungUp implies the others")
	})
}

func TestPollerAddWhatIsReady(t *testing.T) {
	eachPoller(t, func(t pollerTest) {
		a, b := testSocketpair(t)
		mustWrite(t, b, "x")
		require.NoError(t, t.p.add(a))
		t.waitFor(a, Readable|Writable)
	})
}

func TestPollerRemove(t *testing.T) {
	eachPoller(t, func(t pollerTest) {
		a, b := testSocketpair(t)
		require.NoError(t, t.p.add(a))
		require.NoError(t, t.p.remove(a))
		mustWrite(t, b, "x")
		t.none("removed")
		require.Error(t, t.p.remove(a))
		require.NoError(t, t.p.add(a))
		t.waitFor(a, Readable)
	})
}

func TestPollerPipe(t *testing.T) {
	eachPoller(t, func(t pollerTest) {
		r, w := testPipe(t)
		require.NoError(t, t.p.add(r))
		t.none("empty")
		mustWrite(t, w, "x")
		t.waitFor(r, Readable)
		require.NoError(t, t.p.remove(r))

		require.NoError(t, t.p.add(w))
		t.waitFor(w, Writable)
	})
}

func TestPollerPeerHangsUp(t *testing.T) {
	eachPoller(t, func(t pollerTest) {
		var p [2]int
		require.NoError(t, openPipe(&p))
		defer unix.Close(p[0])
		require.NoError(t, t.p.add(p[0]))
		unix.Close(p[1])
		t.waitFor(p[0], Readable|Writable|HungUp)
		t.none("hung up once")
	})
}

// Room that appears in a full socket is an edge.
func TestPollerWritableAgain(t *testing.T) {
	eachPoller(t, func(t pollerTest) {
		a, b := testSocketpair(t)
		require.NoError(t, t.p.add(a))
		t.waitFor(a, Writable)
		buf := make([]byte, 1<<16)
		for {
			if _, err := unix.Write(a, buf); err != nil {
				require.Equal(t, unix.EAGAIN, err)
				break
			}
		}
		t.none("full")
		for {
			if _, err := unix.Read(b, buf); err != nil {
				break
			}
		}
		t.waitFor(a, Writable)
	})
}

func TestPollerRefuses(t *testing.T) {
	eachPoller(t, func(t pollerTest) {
		f, err := os.Create(filepath.Join(t.TempDir(), "regular"))
		require.NoError(t, err)
		defer f.Close()
		require.ErrorIs(t, t.p.add(int(f.Fd())), unix.EPERM, "a regular file is always ready")
		require.ErrorIs(t, t.p.add(-1), unix.EBADF)
		require.ErrorIs(t, t.p.remove(-1), unix.EBADF)
		t.none("nothing was added")
	})
}

func TestPollerTimeouts(t *testing.T) {
	eachPoller(t, func(t pollerTest) {
		events := make([]fdEvent, 1)
		for _, d := range []time.Duration{0, 1, time.Microsecond, 300 * time.Microsecond, 1500 * time.Microsecond, 4 * time.Millisecond} {
			// A signal of the Go scheduler may end a wait: the test repeats it until
			// a wait is not interrupted. That wait is never shorter than d.
			eventually(t, func() bool {
				begun := time.Now()
				n, err := t.p.wait(events, d, t.keepP)
				require.NoError(t, err)
				require.Zero(t, n)
				return time.Since(begun) >= d
			}, d)
		}
	})
}

// A wait without a timeout is ended by an event that another thread causes.
func TestPollerWaitForEver(t *testing.T) {
	eachPoller(t, func(t pollerTest) {
		r, w := testPipe(t)
		require.NoError(t, t.p.add(r))
		for range 20 {
			var waited Readiness
			var err error
			var done sync.WaitGroup
			done.Go(func() {
				events := make([]fdEvent, 1)
				for n := 0; n == 0 && err == nil; {
					// keepP is not set here: on one processor no goroutine could write then.
					n, err = t.p.wait(events, -1, false)
					waited = events[0].ready
				}
			})
			runtime.Gosched()
			mustWrite(t, w, "x")
			done.Wait()
			require.NoError(t, err)
			require.Equal(t, Readable, waited)
		}
		mustWrite(t, w, "x")
		events := make([]fdEvent, 1)
		n, err := t.p.wait(events, -1, t.keepP)
		require.NoError(t, err)
		require.Equal(t, 1, n, "there is an event already")
	})
}

// More descriptors are ready than one wait returns. Several waits report each of them once.
func TestPollerManyEvents(t *testing.T) {
	eachPoller(t, func(t pollerTest) {
		const pipes = eventsPerWait + 40
		want := map[int]bool{}
		for range pipes {
			r, w := testPipe(t)
			mustWrite(t, w, "x")
			require.NoError(t, t.p.add(r))
			want[r] = true
		}
		// The length of the slice limits the events, even if the poller could return more.
		for _, room := range []int{1, 7, eventsPerWait, 2 * eventsPerWait} {
			events := make([]fdEvent, room)
			n, err := t.p.wait(events, patience, t.keepP)
			require.NoError(t, err)
			require.Positive(t, n)
			require.LessOrEqual(t, n, min(room, eventsPerWait))
			for _, e := range events[:n] {
				require.True(t, want[e.fd], "descriptor %d is reported twice", e.fd)
				require.Equal(t, Readable, e.ready)
				delete(want, e.fd)
			}
		}
		require.Empty(t, want)
		t.none("all were reported")
	})
}

// A signal ends a wait without an error.
func TestPollerSignal(t *testing.T) {
	eachPoller(t, func(t pollerTest) {
		r, w := testPipe(t)
		require.NoError(t, t.p.add(r))
		var tid atomic.Int32
		var interrupted, over atomic.Bool
		var err error
		var done sync.WaitGroup
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			tid.Store(int32(unix.Gettid()))
			events := make([]fdEvent, 1)
			for n := 0; n == 0 && err == nil; {
				if n, err = t.p.wait(events, -1, false); n == 0 && err == nil {
					interrupted.Store(true)
				}
			}
			over.Store(true)
		})
		eventually(t, func() bool {
			if id := tid.Load(); id != 0 {
				unix.Tgkill(unix.Getpid(), int(id), unix.SIGURG) // Go uses this signal, and ignores it from others
			}
			return interrupted.Load() || over.Load()
		})
		mustWrite(t, w, "x")
		done.Wait()
		require.NoError(t, err)
		require.True(t, interrupted.Load())
	})
}

func TestMilliseconds(t *testing.T) {
	for d, want := range map[time.Duration]int{
		-1: -1, -time.Hour: -1, 0: 0, 1: 1, time.Microsecond: 1, time.Millisecond: 1, time.Millisecond + 1: 2,
		3 * time.Second: 3000, 2000 * time.Hour: 1<<31 - 1, 1<<63 - 1: 1<<31 - 1,
	} {
		require.Equal(t, want, milliseconds(d), "%d ns", d)
	}
}

// The reactor's pipe: many goroutines write to it at once, a full pipe wakes the server as one byte
// does, and a wake after close is harmless.
func TestReactorWake(t *testing.T) {
	var r reactor
	fds := openFds(t)
	require.NoError(t, r.open(nil))
	var others sync.WaitGroup
	for range 4 {
		others.Go(func() {
			for range 50 {
				r.wake()
			}
		})
	}
	var events []fdEvent
	for len(events) == 0 { // a signal may end a wait
		events = r.wait(-1, false)
	}
	require.Equal(t, []fdEvent{{r.wakeR, Readable}}, events)
	others.Wait()
	r.emptyPipe()
	_, err := unix.Read(r.wakeR, make([]byte, 1))
	require.Equal(t, unix.EAGAIN, err, "a drained pipe is empty")
	r.wait(0, true) // an edge from before emptyPipe
	require.Empty(t, r.wait(0, true), "the pipe is empty, and an old wake does not wake again")

	for range 1 << 12 {
		r.wake()
	}
	for _, err = unix.Write(r.wakeW, make([]byte, 1<<12)); err == nil; {
		_, err = unix.Write(r.wakeW, make([]byte, 1<<12))
	}
	require.Equal(t, unix.EAGAIN, err)
	r.wake() // the pipe is full
	require.Len(t, r.wait(-1, false), 1)
	r.emptyPipe()
	r.wake()
	require.Len(t, r.wait(-1, false), 1, "a drained pipe wakes again")

	others.Go(func() {
		for range 50 {
			r.wake()
		}
	})
	r.close()
	others.Wait()
	r.close()
	r.wake()
	require.ErrorIs(t, r.register(0), ErrShutdown)
	r.unregister(0)
	eventually(t, func() bool { return openFds(t) <= fds })
}

func TestFdTable(t *testing.T) {
	var table fdTable
	for _, fd := range []int{0, 1, fdsPerChunk - 1, fdsPerChunk, 5*fdsPerChunk + 3, maxFds - 1} {
		require.Nil(t, table.get(fd))
		s := new(pollFD)
		require.NoError(t, table.set(fd, s))
		require.True(t, s == table.get(fd))
		require.NoError(t, table.set(fd, nil))
		require.Nil(t, table.get(fd))
	}
	require.ErrorIs(t, table.set(maxFds, new(pollFD)), errFdTooLarge)

	var setters sync.WaitGroup
	sources := make([]pollFD, 4*fdsPerChunk)
	for i := range 4 { // several goroutines allocate the same chunks
		setters.Go(func() {
			for fd := i; fd < len(sources); fd += 4 {
				table.set(fd, &sources[fd])
			}
		})
	}
	setters.Wait()
	for fd := range sources {
		if table.get(fd) != &sources[fd] {
			t.Fatalf("the source of descriptor %d is lost", fd)
		}
	}
}

// FuzzSourceState compares an fdState with a naive model. Each byte is an
// operation, and the bits that beginUse sets or endUse clears.
func FuzzSourceState(f *testing.F) {
	const begin, finish, shut, claim = 0 << 6, 1 << 6, 2 << 6, 3 << 6
	f.Add([]byte{begin, begin, finish | 1, shut, begin, finish, shut})
	f.Add([]byte{shut, shut, begin, claim | 1, claim | 1})
	f.Add([]byte{begin, finish | 3, begin, finish | 0x0c, claim, claim | 2, begin, shut, finish | 5})
	marks := []uint32{fdRegistered, fdNotReadable, fdNotWritable, fdHungUp}
	f.Fuzz(func(t *testing.T, ops []byte) {
		var s fdState
		s.bits.Store(fdOpen)
		uses, closed, mine := 0, false, 0
		set := map[uint32]bool{}
		bitsOf := func(op byte) (bits uint32) {
			for j, m := range marks {
				if op>>j&1 != 0 {
					bits |= m
				}
			}
			return bits
		}
		note := func(bits uint32, to bool) {
			for _, m := range marks {
				if bits&m != 0 {
					set[m] = to
				}
			}
		}
		for i, op := range ops {
			var last, wantLast bool
			switch op &^ 63 {
			case begin:
				on := bitsOf(op)
				if ok := s.beginUse(on); ok == closed {
					t.Fatalf("operation %d: begin is %v, closed %v", i, ok, closed)
				} else if ok {
					uses++
					note(on, true)
				}
			case finish:
				if uses == 0 {
					continue
				}
				uses--
				off := bitsOf(op)
				last, wantLast = s.endUse(off), closed && uses == 0
				note(off, false)
			case shut:
				var first bool
				first, last = s.close()
				if first == closed {
					t.Fatalf("operation %d: close is the first: %v, closed %v", i, first, closed)
				}
				wantLast = !closed && uses == 0
				closed = true
			case claim:
				m := marks[int(op&63)%len(marks)]
				if s.claim(m) == set[m] {
					t.Fatalf("operation %d: claimed twice, or not at all", i)
				}
				set[m] = true
			}
			if last != wantLast {
				t.Fatalf("operation %d: the last is %v, want %v", i, last, wantLast)
			}
			if last {
				mine++
			}
			for _, m := range marks {
				if s.has(m) != set[m] {
					t.Fatalf("operation %d: bit %#x is %v", i, m, !set[m])
				}
			}
			if s.has(fdClosed) != closed || mine > 1 || (mine == 1) != (closed && uses == 0) {
				t.Fatalf("operation %d: closed %v with %d uses, and given away %d times", i, closed, uses, mine)
			}
		}
	})
}

// Several goroutines use and close a pollFD at once. Its descriptor is closed once, when no
// goroutine uses it.
func TestSourceStateStress(t *testing.T) {
	for range 500 {
		var s fdState
		s.bits.Store(fdOpen)
		var inside, given, firsts atomic.Int32
		gave := func() {
			given.Add(1)
			if inside.Load() != 0 {
				t.Error("the descriptor was given away while it was in use")
			}
		}
		var all sync.WaitGroup
		for i := range 3 {
			all.Go(func() {
				for n := uint32(0); s.beginUse(fdNotReadable * (n & 1)); n++ {
					inside.Add(1)
					inside.Add(-1)
					if s.endUse(fdNotReadable * (n & 2 / 2)) {
						gave()
					}
					if n > uint32(20*i) {
						runtime.Gosched() // so that another goroutine can close
					}
				}
			})
		}
		for range 2 {
			all.Go(func() {
				runtime.Gosched()
				first, last := s.close()
				if first {
					firsts.Add(1)
				}
				if last {
					gave()
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 1, given.Load())
		require.EqualValues(t, 1, firsts.Load())
	}
}

// testOp is a read or a write of a test, which counts its calls.
type testOp struct {
	n  int
	fn func(fd int) (int, bool, error)
}

func (o *testOp) call(fd int) (int, bool, error) {
	o.n++
	return o.fn(fd)
}

// reader reads as a TCPConn does.
func reader(p []byte) *testOp {
	return &testOp{fn: func(fd int) (int, bool, error) {
		n, err := unix.Read(fd, p)
		if n == 0 && err == nil {
			return 0, false, io.EOF
		}
		return max(n, 0), n < len(p), err
	}}
}

// handDriven returns a pollFD and its peer. Only the test causes events of the pollFD.
func handDriven(t *testing.T) (s *pollFD, peer int) {
	a, b := testSocketpair(t)
	s = newPollFD(int(a))
	s.state.claim(fdRegistered)
	return s, b
}

// The rules of tryOp, step by step: it makes the system call only if that can succeed.
func TestSourceAttempt(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	s, peer := handDriven(t)
	cx, wakes := newPollCx(t, rt)
	op := reader(make([]byte, 4))
	step := func(name string, wantN int, wantErr error, wantOps int) {
		t.Helper()
		op.n = 0
		n, err := s.pollOp(cx, &s.rd, op.call)
		require.Equal(t, wantErr, err, name)
		require.Equal(t, wantN, n, name)
		require.Equal(t, wantOps, op.n, name)
	}
	mustWrite(t, peer, "123456")
	step("as much as there was room for", 4, nil, 1)
	step("the rest, less than there was room for", 2, nil, 1)
	step("so there is nothing, without a call", 0, ErrPending, 0)
	step("nor now", 0, ErrPending, 0)
	require.Zero(t, wakes.Load())
	s.wakeReady(Writable, nil)
	require.Zero(t, wakes.Load(), "the other half")
	step("still not", 0, ErrPending, 0)

	mustWrite(t, peer, "7")
	s.wakeReady(Readable, nil)
	require.EqualValues(t, 1, wakes.Load())
	step("after the event", 1, nil, 1)
	s.wakeReady(Readable, nil)
	step("a spurious event costs one call", 0, ErrPending, 1)
	s.wakeReady(Readable, nil)
	require.EqualValues(t, 2, wakes.Load())
	s.wakeReady(Readable, nil)
	step("two events are one", 0, ErrPending, 1)

	mustWrite(t, peer, "12345678")
	s.wakeReady(Readable, nil)
	step("a full buffer", 4, nil, 1)
	step("and another", 4, nil, 1)
	step("the call says that there is nothing; the event is still there and costs one more", 0, ErrPending, 1)

	// After a hang-up there is no further event, so the kernel is asked.
	mustWrite(t, peer, "1")
	require.NoError(t, unix.Shutdown(peer, unix.SHUT_WR))
	s.wakeReady(Readable|Writable|HungUp, nil)
	step("less than there was room for", 1, nil, 1)
	step("yet the end is seen without an event", 0, io.EOF, 1)
	step("again", 0, io.EOF, 1)

	// Writing has its own mark.
	op = &testOp{fn: func(int) (int, bool, error) { return 3, true, nil }}
	n, err := s.pollOp(cx, &s.wr, op.call)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	_, err = s.pollOp(cx, &s.wr, op.call) // consumes the event from above
	require.NoError(t, err)
	require.Equal(t, 2, op.n)
	_, err = s.pollOp(cx, &s.wr, op.call)
	require.Equal(t, ErrPending, err, "full, whether hung up or not")
	require.Equal(t, 2, op.n)

	// Interrupted calls are repeated, other errors passed on.
	tries := 0
	op = &testOp{fn: func(int) (int, bool, error) {
		if tries++; tries < 3 {
			return -1, false, unix.EINTR
		}
		return 0, false, unix.ECONNRESET
	}}
	step("an error", 0, unix.ECONNRESET, 3)

	var inside int
	op = &testOp{fn: func(int) (int, bool, error) {
		first, last := s.state.close()
		require.True(t, first)
		require.False(t, last, "it is in use")
		require.NoError(t, unix.Fstat(int(s.fd), new(unix.Stat_t)))
		inside++
		return 1, false, nil
	}}
	dup, err := unix.Dup(int(s.fd)) // the test's own cleanup must not close a descriptor that it no longer owns
	require.NoError(t, err)
	defer unix.Close(dup)
	step("closed meanwhile", 1, nil, 1)
	require.Equal(t, unix.EBADF, unix.Fstat(int(s.fd), new(unix.Stat_t)), "the last use has closed it")
	require.NoError(t, unix.Dup2(dup, int(s.fd)))
	step("closed", 0, net.ErrClosed, 0)
	require.Equal(t, 1, inside)
	require.Equal(t, net.ErrClosed, s.close())
	require.Equal(t, net.ErrClosed, s.control(func(int) error { return nil }))
}

// Two tasks read one descriptor. The first task consumes the event, leaves data behind and does not
// read again soon. The second task waits, because only an event makes a read succeed. It must be
// woken when a read can succeed without a further event.
func TestSourceEventForTwo(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	s, peer := handDriven(t)
	first, _ := newPollCx(t, rt)
	second, wakes := newPollCx(t, rt)
	read := reader(make([]byte, 2))
	_, err := s.pollOp(first, &s.rd, read.call)
	require.Equal(t, ErrPending, err)

	mustWrite(t, peer, "1234")
	s.wakeReady(Readable, nil)
	n, err := s.pollOp(first, &s.rd, func(fd int) (int, bool, error) {
		// After the first task has consumed the event, and before its read.
		_, err := s.pollOp(second, &s.rd, reader(make([]byte, 2)).call)
		if err == nil {
			return 2, false, nil // the second task has read, so nothing can be lost
		}
		return read.fn(fd)
	})
	require.NoError(t, err)
	require.Equal(t, 2, n)
	if unread(t, int(s.fd)) > 0 {
		require.Positive(t, wakes.Load(), "two bytes are there, no event will come, and who waits for them sleeps")
	}
}

// The kernel has returned EAGAIN to the second task. Before the task records it, data arrives, and
// the first task reads a part of the data.
func TestSourceEventBetweenReadAndNote(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	s, peer := handDriven(t)
	first, _ := newPollCx(t, rt)
	second, wakes := newPollCx(t, rt)
	calls := 0
	n, err := s.pollOp(second, &s.rd, func(fd int) (int, bool, error) {
		if calls++; calls > 1 {
			return reader(make([]byte, 2)).fn(fd)
		}
		// This call finds no data. The following happens before the call returns.
		_, err := s.pollOp(first, &s.rd, reader(make([]byte, 2)).call)
		require.Equal(t, ErrPending, err)
		mustWrite(t, peer, "1234")
		s.wakeReady(Readable, nil)
		n, err := s.pollOp(first, &s.rd, reader(make([]byte, 2)).call)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		return -1, false, unix.EAGAIN
	})
	if err == ErrPending {
		require.Positive(t, wakes.Load(), "two bytes are there, no event will come, and who waits for them sleeps")
	}
	require.NoError(t, err)
	require.Equal(t, 2, n)
}

func unread(t testing.TB, fd int) int {
	n, _, err := unix.Recvfrom(fd, make([]byte, 64), unix.MSG_PEEK)
	if err != unix.EAGAIN {
		require.NoError(t, err)
	}
	return max(n, 0)
}

// Two tasks find that a descriptor is not registered, and registering it fails. Neither task may
// wait for events that will not occur.
func TestSourceRegisterFails(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	f, err := os.Create(filepath.Join(t.TempDir(), "regular"))
	require.NoError(t, err)
	defer f.Close()
	nothing := func(int) (int, bool, error) { return -1, false, unix.EAGAIN }
	for i := range 2_000 {
		s := newPollFD(int(f.Fd()))
		var errs [2]error
		var wakes [2]*atomic.Int32
		var both sync.WaitGroup
		for j := range errs {
			var cx *Context
			cx, wakes[j] = newPollCx(t, rt)
			both.Go(func() { _, errs[j] = s.pollOp(cx, &s.rd, nothing) })
		}
		both.Wait()
		for j, err := range errs {
			if err == ErrPending {
				require.Positive(t, wakes[j].Load(), "round %d: told to wait, and nobody will come", i)
			} else {
				require.ErrorIs(t, err, unix.EPERM)
			}
		}
		require.Nil(t, rt.fds.get(int(s.fd)))
	}
}

// A pollFD with a reactor: its first wait registers it, and an event wakes the waiter. Then it is
// unregistered and closed, and the waiter is woken and gets net.ErrClosed.
func TestSourceWithReactor(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	a, b := testSocketpair(t)
	fd, err := unix.FcntlInt(uintptr(a), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(t, err)
	s := newPollFD(int(fd))
	cx, wakes := newPollCx(t, rt)
	op := reader(make([]byte, 8))
	for range 50 {
		_, err = s.pollOp(cx, &s.rd, op.call)
		require.Equal(t, ErrPending, err)
		require.True(t, rt.fds.get(fd) == s)
		before := wakes.Load()
		mustWrite(t, b, "x")
		eventually(t, func() bool { return wakes.Load() > before })
		n, err := s.pollOp(cx, &s.rd, op.call)
		require.NoError(t, err)
		require.Equal(t, 1, n)
	}
	owner := s.owner.Load()
	require.EqualValues(t, 1, owner.registered.Load())

	_, err = s.pollOp(cx, &s.rd, op.call)
	require.Equal(t, ErrPending, err)
	before := wakes.Load()
	require.NoError(t, s.close())
	require.Greater(t, wakes.Load(), before)
	_, err = s.pollOp(cx, &s.rd, op.call)
	require.Equal(t, net.ErrClosed, err)
	require.Nil(t, rt.fds.get(fd))
	require.Zero(t, owner.registered.Load())
}

// A pollFD is closed while goroutines use it. Another file then gets the same descriptor number. No
// goroutine reaches this file, and it is not closed.
func TestSourceCloseInUse(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	inode := func(fd int) uint64 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			return 0
		}
		return st.Ino
	}
	for range 300 {
		a, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		s := newPollFD(int(a))
		own := inode(a)
		var users sync.WaitGroup
		var foreign atomic.Int32
		for i := range 3 {
			cx, wakes := newPollCx(t, rt)
			users.Go(func() {
				for n := 0; ; n++ {
					seen := wakes.Load()
					_, err := s.pollOp(cx, &s.rd, func(fd int) (int, bool, error) {
						if inode(fd) != own {
							foreign.Add(1)
						}
						if n%2 == i%2 {
							return -1, false, unix.EAGAIN
						}
						return 0, false, nil
					})
					if err == net.ErrClosed {
						return
					}
					if err == ErrPending && n > 100 {
						// Close wakes the waiters.
						for wakes.Load() == seen && !s.state.has(fdClosed) {
							runtime.Gosched()
						}
					}
				}
			})
		}
		var next int
		users.Go(func() {
			runtime.Gosched()
			s.close()
		})
		users.Go(func() {
			for !s.state.has(fdClosed) {
				runtime.Gosched()
			}
			next, _ = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		})
		users.Wait()
		require.Zero(t, foreign.Load(), "uses that reached another descriptor")
		require.NotZero(t, inode(next), "somebody else's descriptor was closed")
		require.NoError(t, unix.Close(next))
		require.Equal(t, net.ErrClosed, s.close())
	}
}

// Deadlines of a direction: passed, to come, moved, removed.
func TestSourceDeadline(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	w := rt.workers[0]
	nothing := func(int) (int, bool, error) { return -1, false, unix.EAGAIN }

	t.Run("ByHand", func(t *testing.T) {
		s, _ := handDriven(t)
		cx, wakes := newPollCx(t, rt)
		attempt := func() error { _, err := s.pollOp(cx, &s.rd, nothing); return err }
		s.rd.setDeadline(time.Time{})
		require.Nil(t, s.rd.deadline.Load(), "no deadline costs nothing")
		s.rd.setDeadline(time.Now().Add(-time.Second))
		require.Equal(t, os.ErrDeadlineExceeded, attempt())
		s.rd.setDeadline(time.Time{})
		require.Equal(t, ErrPending, attempt())

		s.rd.setDeadline(time.Now().Add(time.Hour))
		require.EqualValues(t, 1, wakes.Load(), "who waits must look at the deadline")
		require.Equal(t, ErrPending, attempt())
		at := time.Now().Add(time.Millisecond)
		s.rd.setDeadline(at)
		require.EqualValues(t, 2, wakes.Load())
		for err := attempt(); err != os.ErrDeadlineExceeded; err = attempt() {
			require.Equal(t, ErrPending, err)
			seen := wakes.Load()
			eventually(t, func() bool { return wakes.Load() > seen || !time.Now().Before(at) })
		}
		require.False(t, time.Now().Before(at), "not early")
		_, err := s.pollOp(cx, &s.wr, func(int) (int, bool, error) { return 1, false, nil })
		require.NoError(t, err, "the other half has none")
		s.rd.end()
	})

	// awaiting starts a task that waits for s until its deadline or close.
	awaiting := func(s *pollFD) *JoinHandle[int] {
		return Spawn(rt, func(cx *Context) (int, error) {
			return Await(cx, PollFunc(func(cx *Context) (int, error) { return s.pollOp(cx, &s.rd, nothing) }))
		})
	}
	t.Run("OnAWorker", func(t *testing.T) {
		s, _ := handDriven(t)
		at := time.Now().Add(2 * time.Millisecond)
		s.rd.setDeadline(at)
		_, err := awaiting(s).JoinBlocking(t.Context())
		require.Equal(t, os.ErrDeadlineExceeded, err)
		require.False(t, time.Now().Before(at), "not early")
		require.Zero(t, armedTimers(rt))
	})
	t.Run("Closed", func(t *testing.T) {
		a, _ := testSocketpair(t)
		fd, err := unix.FcntlInt(uintptr(a), unix.F_DUPFD_CLOEXEC, 0)
		require.NoError(t, err)
		s := newPollFD(int(fd))
		s.rd.setDeadline(time.Now().Add(time.Hour))
		h := awaiting(s)
		eventually(t, func() bool { return armedTimers(rt) == 1 })
		require.NoError(t, s.close())
		_, err = h.JoinBlocking(t.Context())
		require.Equal(t, net.ErrClosed, err)
		eventually(t, func() bool { return armedTimers(rt) == 0 })
	})
	// A deadline that is too far away for an int64 does not wake the waiter.
	t.Run("FarAway", func(t *testing.T) {
		s, _ := handDriven(t)
		s.rd.setDeadline(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))
		h := awaiting(s)
		eventually(t, func() bool { return s.rd.waiters.p.Load() != nil })
		next := int64(-1)
		on(w, func(w *worker) { next, _ = w.timers.next() })
		h.Cancel()
		_, err := h.JoinBlocking(t.Context())
		require.Error(t, err)
		require.True(t, next == 0 || next > nanos(), "a timer that is due at once, again and again: %d", next)
		s.rd.end()
	})
}
