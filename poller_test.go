package async

import (
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func newTestPoller(t testing.TB) *Poller {
	t.Helper()
	p, err := NewPoller()
	require.NoError(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

// pollPair returns the ends of a connection, non-blocking, which the test need
// not close.
func pollPair(t testing.TB) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	for _, fd := range fds {
		require.NoError(t, unix.SetNonblock(fd, true))
		t.Cleanup(func() { unix.Close(fd) })
	}
	return fds[0], fds[1]
}

func pollWrite(t testing.TB, fd int, s string) {
	t.Helper()
	_, err := unix.Write(fd, []byte(s))
	require.NoError(t, err)
}

func pollRead(t testing.TB, fd, n int) {
	t.Helper()
	m, err := unix.Read(fd, make([]byte, n))
	require.NoError(t, err)
	require.Equal(t, n, m)
}

// pollNow returns what p reports now, by descriptor.
func pollNow(t testing.TB, p *Poller) map[int]Readiness {
	t.Helper()
	got := map[int]Readiness{}
	events := make([]PollEvent, 16)
	n, err := p.Wait(events, 0)
	require.NoError(t, err)
	for _, e := range events[:n] {
		require.Equal(t, e.FD, e.Key)
		got[e.FD] |= e.Ready
	}
	return got
}

func TestPollerModes(t *testing.T) {
	p := newTestPoller(t)
	a, b := pollPair(t)
	is := func(want Readiness) {
		t.Helper()
		wanted := map[int]Readiness{}
		if want != 0 {
			wanted[a] = want
		}
		require.Equal(t, wanted, pollNow(t, p))
	}

	require.NoError(t, p.Add(a, a, Readable, LevelTriggered))
	is(0)
	pollWrite(t, b, "xyz")
	is(Readable)
	is(Readable)
	pollRead(t, a, 3)
	is(0)
	require.NoError(t, p.Modify(a, a, Readable|Writable, LevelTriggered))
	is(Writable)
	is(Writable)

	require.NoError(t, p.Modify(a, a, Readable, EdgeTriggered))
	is(0)
	pollWrite(t, b, "x")
	is(Readable)
	is(0)
	pollWrite(t, b, "y")
	is(Readable)
	is(0)
	require.NoError(t, p.Modify(a, a, Readable, EdgeTriggered))
	is(Readable) // it is ready already when Modify asks for it
	is(0)

	require.NoError(t, p.Modify(a, a, Readable|Writable, OnceTriggered))
	is(Readable | Writable)
	pollWrite(t, b, "z")
	is(0)
	require.NoError(t, p.Modify(a, a, Readable, OnceTriggered))
	is(Readable)
	is(0)

	require.NoError(t, p.Modify(a, a, 0, LevelTriggered))
	is(0)
	require.NoError(t, p.Modify(a, a, Readable, LevelTriggered))
	is(Readable)
	require.NoError(t, p.Delete(a))
	is(0)
	require.NoError(t, p.Add(a, a, Readable, LevelTriggered))
	is(Readable)
}

func TestReadinessIsAType(t *testing.T) {
	require.Equal(t, "async.Readiness", reflect.TypeOf(HungUp).String())
}

func TestPollerHangUp(t *testing.T) {
	p := newTestPoller(t)
	a, b := pollPair(t)
	require.NoError(t, p.Add(a, a, Readable, LevelTriggered))
	require.NoError(t, unix.Shutdown(b, unix.SHUT_WR))
	require.Equal(t, map[int]Readiness{a: Readable | HungUp}, pollNow(t, p))
	require.NoError(t, p.Modify(a, a, Writable, LevelTriggered))
	require.Equal(t, Writable, pollNow(t, p)[a]&Writable)
}

// A paused descriptor that hangs up is reported at most once.
func TestPollerHangUpOfPaused(t *testing.T) {
	p := newTestPoller(t)
	a, b := pollPair(t)
	require.NoError(t, p.Add(a, a, 0, LevelTriggered))
	require.NoError(t, unix.Shutdown(b, unix.SHUT_RDWR))
	pollNow(t, p)
	require.Empty(t, pollNow(t, p))
}

func TestPollerTimeout(t *testing.T) {
	p := newTestPoller(t)
	events := make([]PollEvent, 1)
	for _, d := range []time.Duration{0, 1, time.Millisecond, 10 * time.Millisecond} {
		begun := time.Now()
		n, err := p.Wait(events, d)
		require.NoError(t, err)
		require.Zero(t, n)
		require.GreaterOrEqual(t, time.Since(begun), d)
	}
}

func TestPollerNotify(t *testing.T) {
	p := newTestPoller(t)
	events := make([]PollEvent, 1)
	for range 3 { // several calls have the effect of one
		require.NoError(t, p.Notify())
	}
	n, err := p.Wait(events, patience)
	require.NoError(t, err)
	require.Zero(t, n)
	begun := time.Now()
	n, err = p.Wait(events, time.Millisecond)
	require.NoError(t, err)
	require.Zero(t, n)
	require.GreaterOrEqual(t, time.Since(begun), time.Millisecond, "nothing is left of them")

	// No Notify is lost: the Wait of each round is ended by the Notify of this round.
	next := make(chan struct{})
	go func() {
		for range next {
			p.Notify()
		}
	}()
	begun = time.Now()
	for range 2000 {
		next <- struct{}{}
		n, err := p.Wait(events, patience)
		require.NoError(t, err)
		require.Zero(t, n)
	}
	close(next)
	require.Less(t, time.Since(begun), patience, "none has waited for the timeout")
}

// The next Wait returns the events that do not fit.
func TestPollerFewEvents(t *testing.T) {
	p := newTestPoller(t)
	want := map[int]bool{}
	for range 10 {
		a, b := pollPair(t)
		require.NoError(t, p.Add(a, a, Readable, EdgeTriggered))
		pollWrite(t, b, "x")
		want[a] = true
	}
	events := make([]PollEvent, 3)
	got := map[int]bool{}
	for len(got) < len(want) {
		n, err := p.Wait(events, patience)
		require.NoError(t, err)
		require.Positive(t, n)
		for _, e := range events[:n] {
			require.False(t, got[e.FD], "once")
			got[e.FD] = true
		}
	}
	require.Equal(t, want, got)
	require.Empty(t, pollNow(t, p))
}

func TestPollerErrors(t *testing.T) {
	p, err := NewPoller()
	require.NoError(t, err)
	a, _ := pollPair(t)
	require.ErrorIs(t, p.Modify(a, nil, Readable, LevelTriggered), unix.ENOENT)
	require.ErrorIs(t, p.Delete(a), unix.ENOENT)
	require.ErrorIs(t, p.Add(-1, nil, Readable, LevelTriggered), unix.EBADF)
	require.NoError(t, p.Add(a, nil, Readable, LevelTriggered))
	require.NoError(t, p.Delete(a))
	require.ErrorIs(t, p.Delete(a), unix.ENOENT)
	if filesAreRefused {
		f, err := os.Create(filepath.Join(t.TempDir(), "file"))
		require.NoError(t, err)
		defer f.Close()
		require.NoError(t, control(f, func(fd int) {
			require.ErrorIs(t, p.Add(fd, nil, Readable, LevelTriggered), ErrNotPollable)
			require.ErrorIs(t, p.Modify(fd, nil, Readable, LevelTriggered), unix.ENOENT)
		}))
	}
	require.Panics(t, func() { p.Wait(nil, 0) })

	require.NoError(t, p.Close())
	require.ErrorIs(t, p.Close(), os.ErrClosed)
	require.ErrorIs(t, p.Notify(), os.ErrClosed)
	require.ErrorIs(t, p.Add(a, nil, Readable, LevelTriggered), os.ErrClosed)
	require.ErrorIs(t, p.Modify(a, nil, Readable, LevelTriggered), os.ErrClosed)
	require.ErrorIs(t, p.Delete(a), os.ErrClosed)
	_, err = p.Wait(make([]PollEvent, 1), 0)
	require.ErrorIs(t, err, os.ErrClosed)
}

// The zero Poller is closed. In it, the number of each descriptor is 0, which is the standard input.
func TestPollerZero(t *testing.T) {
	var p Poller
	_, err := p.Wait(make([]PollEvent, 1), -1)
	require.Equal(t, os.ErrClosed, err)
	require.Equal(t, os.ErrClosed, p.Add(1, nil, Readable, EdgeTriggered))
	require.Equal(t, os.ErrClosed, p.Modify(1, nil, Readable, EdgeTriggered))
	require.Equal(t, os.ErrClosed, p.Delete(1))
	require.Equal(t, os.ErrClosed, p.Notify())
	require.Equal(t, os.ErrClosed, p.Close())
}

func TestPollerCloseEndsWait(t *testing.T) {
	before := openFds(t)
	for range 20 {
		p, err := NewPoller()
		require.NoError(t, err)
		var ends []<-chan answer
		for range 2 {
			ends = append(ends, later(func() (int, error) { return p.Wait(make([]PollEvent, 1), -1) }))
		}
		require.NoError(t, p.Close())
		for _, end := range ends {
			require.ErrorIs(t, soon(t, end).err, os.ErrClosed)
		}
	}
	eventually(t, func() bool { return openFds(t) <= before })
}

func TestMisusePollerInATask(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	p := newTestPoller(t)
	events := make([]PollEvent, 1)
	_, err := joinOrCancel(Go(rt, func(*Context) error { _, err := p.Wait(events, time.Second); return err }))
	requireTaskMisuse(t, err, "Poller.Wait", "would block its worker")
	_, err = joinOrCancel(Go(rt, func(*Context) error { _, err := p.Wait(events, 0); return err }))
	require.NoError(t, err)
}

// A Wait also returns at its timeout while another Wait waits. With a timeout of 0 it can be called
// in a task.
func TestPollerTimeoutBesideAnotherWait(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	p := newTestPoller(t)
	other := later(func() (int, error) { return p.Wait(make([]PollEvent, 1), -1) })
	eventually(t, func() bool { return standsIn("(*Poller).Wait") })
	events := make([]PollEvent, 1)
	_, err := joinOrCancel(Go(rt, func(*Context) error {
		n, err := p.Wait(events, 0)
		require.Zero(t, n)
		return err
	}))
	require.NoError(t, err)
	for _, d := range []time.Duration{1, time.Millisecond} {
		begun := time.Now()
		n, err := p.Wait(events, d)
		require.NoError(t, err)
		require.Zero(t, n)
		require.GreaterOrEqual(t, time.Since(begun), d)
	}
	queued := later(func() (int, error) { return p.Wait(make([]PollEvent, 1), patience) })
	require.NoError(t, p.Close())
	require.ErrorIs(t, soon(t, other).err, os.ErrClosed)
	require.ErrorIs(t, soon(t, queued).err, os.ErrClosed)
}

// Descriptors are added and deleted while a loop waits. Each descriptor that stays is served, and
// no event is reported for a descriptor that was deleted before the Wait.
func TestPollerChangesDuringWait(t *testing.T) {
	p := newTestPoller(t)
	const pairs, rounds = 8, 200
	var served [pairs]atomic.Int64
	over := make(chan error, 1)
	go func() {
		events := make([]PollEvent, 4)
		for {
			n, err := p.Wait(events, -1)
			if err != nil {
				over <- err
				return
			}
			for _, e := range events[:n] {
				i := e.Key.(int)
				var buf [16]byte
				if n, _ := unix.Read(e.FD, buf[:]); n > 0 {
					served[i].Add(int64(n))
				}
				p.Modify(e.FD, i, Readable, OnceTriggered) // it may have been deleted
			}
		}
	}()
	var wg sync.WaitGroup
	for i := range pairs {
		a, b := pollPair(t)
		wg.Go(func() {
			for n := range int64(rounds) {
				if n%10 == 0 {
					if n > 0 {
						assertNo(t, p.Delete(a))
					}
					assertNo(t, p.Add(a, i, Readable, OnceTriggered))
				}
				unix.Write(b, []byte("x"))
				p.Notify()
				if !within(patience, func() bool { return served[i].Load() == n+1 }) {
					t.Errorf("pair %d was not served in round %d", i, n)
					return
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, p.Close())
	require.ErrorIs(t, soon(t, over), os.ErrClosed)
}

func TestPollerAllocatesNothing(t *testing.T) {
	p := newTestPoller(t)
	a, b := pollPair(t)
	require.NoError(t, p.Add(a, p, Readable, EdgeTriggered))
	events := make([]PollEvent, 8)
	var buf [8]byte
	n := testing.AllocsPerRun(1000, func() {
		unix.Write(b, buf[:1])
		p.Wait(events, -1)
		unix.Read(a, buf[:])
	})
	require.Less(t, n, 1.0)
}
