package async

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestContextOfNewTask(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		_, ok := cx.Deadline()
		select {
		case <-cx.Done():
			return errors.New("Done is closed")
		default:
		}
		return errors.Join(
			expect(!ok, "it has a deadline"),
			expect(cx.Err() == nil, "Err: %v", cx.Err()),
			expect(cx.Value("key") == nil, "it has a value"))
	})
}

func TestContextEndsWithItsTask(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for _, cancel := range []bool{false, true} {
		var cx *Context
		var early <-chan struct{}
		called := make(chan struct{}, 2)
		p := new(probe)
		h := Go(rt, func(own *Context) error {
			cx, early = own, own.Done()
			cx.AfterFunc(func() { called <- struct{}{} })
			_, err := Await(own, p)
			return err
		})
		eventually(t, func() bool { return waiting(h) })
		if cancel {
			h.Cancel()
		} else {
			p.resolve(nil)
		}
		_, err := join(t, h)
		require.Equal(t, cancel, err == context.Canceled)
		receive(t, early)
		receive(t, cx.Done())
		receive(t, called)
		require.Equal(t, context.Canceled, cx.Err())
		require.Empty(t, called)
		stop := cx.AfterFunc(func() { called <- struct{}{} })
		require.False(t, stop(), "there is nothing left to stop")
		receive(t, called)
	}
	t.Run("without anybody who watched", func(t *testing.T) {
		var cx *Context
		runInTask(t, rt, func(own *Context) error { cx = own; return nil })
		receive(t, cx.Done())
		require.Equal(t, context.Canceled, cx.Err())
	})
}

func TestContextAfterFuncStopped(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	called := make(chan struct{}, 1)
	runInTask(t, rt, func(cx *Context) error {
		stop := cx.AfterFunc(func() { called <- struct{}{} })
		return errors.Join(
			expect(stop(), "the first stop says that it was too late"),
			expect(!stop(), "the second stop says that it has stopped something"))
	})
	require.Empty(t, called)
}

func TestContextWithCancel(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		child, cancel := cx.WithCancel()
		defer cancel()
		p := new(probe)
		go cancel()
		_, err := Await(child, p)
		if err != context.Canceled {
			return fmt.Errorf("an await with the cancelled one: %v", err)
		}
		cancel()
		<-child.Done()
		_, readyErr := Await(child, ReadyFuture(1))
		return errors.Join(
			expect(readyErr == context.Canceled, "a ready future: %v", readyErr),
			expect(child.Err() == context.Canceled, "Err: %v", child.Err()),
			expect(p.cancels.Load() == 1, "given up %d times", p.cancels.Load()),
			expect(cx.Err() == nil, "the outer one is cancelled too: %v", cx.Err()),
			Yield(cx), Sleep(cx, time.Microsecond))
	})
}

func TestContextWithTimeout(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		const d = 2 * time.Millisecond
		begun := time.Now()
		child, cancel := cx.WithTimeout(d)
		defer cancel()
		at, ok := child.Deadline()
		p := new(probe)
		_, err := Await(child, p)
		took := time.Since(begun)
		<-child.Done()
		cancel()
		return errors.Join(
			expect(ok && !at.Before(begun.Add(d)), "deadline %v", at.Sub(begun)),
			expect(err == context.DeadlineExceeded, "Await: %v", err),
			expect(child.Err() == context.DeadlineExceeded, "Err: %v", child.Err()),
			expect(took >= d, "it ended early, after %v", took),
			expect(p.cancels.Load() == 1, "given up %d times", p.cancels.Load()),
			expect(cx.Err() == nil, "the outer one has ended too: %v", cx.Err()),
			Yield(cx))
	})
}

// A deadline that has passed needs no timer, as in package context.
func TestContextDeadlineInThePast(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		for _, d := range []time.Duration{0, -time.Second, math.MinInt64} {
			child, cancel := cx.WithTimeout(d)
			_, err := Await(child, ReadyFuture(1))
			cancel()
			if err != context.DeadlineExceeded {
				return fmt.Errorf("Await with a timeout of %v: %v", d, err)
			}
		}
		for _, at := range []time.Time{time.Now().Add(-time.Hour), time.Unix(0, 0), {}} {
			child, cancel := cx.WithDeadline(at)
			defer cancel()
			_, has := child.Deadline()
			if child.Err() != context.DeadlineExceeded || !has {
				return fmt.Errorf("with the deadline %v: %v, and that it has one: %v", at, child.Err(), has)
			}
		}
		return nil
	})
}

func TestContextDeadlineFarAway(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		for _, at := range []time.Time{
			time.Now().Add(math.MaxInt64),
			time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC),
			time.Now().Add(200 * 365 * 24 * time.Hour),
		} {
			child, cancel := cx.WithDeadline(at)
			// Long enough for a timer that is due to be noticed.
			err := errors.Join(Sleep(child, time.Millisecond), Yield(child))
			cancel()
			if err != nil {
				return fmt.Errorf("with the deadline %v: %v", at, err)
			}
		}
		_, err := Await(cx, TimeoutFuture(YieldFuture(), math.MaxInt64))
		return err
	})
}

func TestContextNested(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		outer, cancelOuter := cx.WithTimeout(time.Hour)
		defer cancelOuter()
		at, _ := outer.Deadline()

		later, cancelLater := outer.WithTimeout(2 * time.Hour)
		defer cancelLater()
		without, cancelWithout := later.WithCancel()
		defer cancelWithout()
		sooner, cancelSooner := outer.WithTimeout(time.Minute)
		defer cancelSooner()
		for _, c := range []*Context{later, without} {
			if got, ok := c.Deadline(); !ok || !got.Equal(at) {
				return fmt.Errorf("deadline %v, the outer one has %v", got, at)
			}
		}
		if got, _ := sooner.Deadline(); !got.Before(at) {
			return fmt.Errorf("deadline %v, the outer one has %v", got, at)
		}

		done := without.Done()
		inner := make(chan struct{})
		sooner.AfterFunc(func() { close(inner) })
		cancelLater()
		<-done
		if err := errors.Join(
			expect(without.Err() == context.Canceled, "inside: %v", without.Err()),
			expect(outer.Err() == nil, "outside: %v", outer.Err()),
			expect(sooner.Err() == nil, "beside: %v", sooner.Err())); err != nil {
			return err
		}
		cancelOuter()
		<-inner
		return errors.Join(
			expect(sooner.Err() == context.Canceled, "inside: %v", sooner.Err()),
			expect(Yield(sooner) == context.Canceled, "an await inside goes on"),
			expect(cx.Err() == nil, "outside: %v", cx.Err()))
	})
}

// The outer deadline is earlier and passes. The inner Context ends with it, although only the outer
// Context has a timer.
func TestContextOuterDeadlineStaysInForce(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		outer, cancelOuter := cx.WithTimeout(time.Millisecond)
		defer cancelOuter()
		inner, cancelInner := outer.WithTimeout(time.Hour)
		defer cancelInner()
		err := Sleep(inner, 2*time.Hour)
		return errors.Join(
			expect(err == context.DeadlineExceeded, "Sleep: %v", err),
			expect(inner.Err() == context.DeadlineExceeded, "Err: %v", inner.Err()),
			Yield(cx))
	})
}

func TestContextTaskCancelReachesDerived(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	h := Go(rt, func(cx *Context) error {
		a, cancelA := cx.WithCancel()
		defer cancelA()
		b, cancelB := a.WithTimeout(time.Hour)
		defer cancelB()
		err := Sleep(b, time.Hour)
		<-b.Done()
		return errors.Join(
			expect(err == context.Canceled, "Sleep: %v", err),
			expect(b.Err() == context.Canceled && a.Err() == context.Canceled, "Err: %v, %v", b.Err(), a.Err()))
	})
	eventually(t, func() bool { return waiting(h) })
	h.Cancel()
	_, err := join(t, h)
	require.NoError(t, err)
}

// The function of WithCancel may be called from any goroutine: by several at the same time, and at
// the same time as polls of the task, Done and AfterFunc.
func TestContextCancelFromGoroutines(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	var all sync.WaitGroup
	panics := make(chan any, 4*100)
	runInTask(t, rt, func(cx *Context) error {
		for range 100 {
			child, cancel := cx.WithTimeout(time.Hour)
			called := make(chan struct{})
			for i := range 4 {
				all.Go(func() {
					defer func() {
						if v := recover(); v != nil {
							panics <- v
						}
					}()
					if i == 0 {
						child.AfterFunc(func() { close(called) })
					}
					cancel()
					<-child.Done()
				})
			}
			for Yield(child) == nil {
			}
			if err := Yield(cx); err != nil {
				return err
			}
			<-called
		}
		return nil
	})
	all.Wait()
	require.Empty(t, panics)
}

// A caller of Done gets a channel that is closed, once, even if the scope ends at the same moment.
func TestScopeDoneWhileItEnds(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	cx, _ := newPollCx(t, rt)
	for range 50 {
		child, cancel := cx.WithCancel()
		sc := child.sc.Load()
		panicked := make(chan any, 1)
		sc.mu.Lock() // so that end stops at this lock
		go func() {
			defer func() { panicked <- recover() }()
			cancel()
		}()
		within(time.Millisecond, func() bool { return sc.status.Load() != scopeOpen })
		sc.mu.Unlock()
		done := child.Done()
		require.Nil(t, receive(t, panicked))
		receive(t, done)
	}
}

// Contexts that package context derives from a task's Context cost no goroutine, and cancellation
// reaches them.
func TestContextUnderStandardContexts(t *testing.T) {
	const n = 100
	rt := newTestRuntime(t, Config{Workers: 1})
	var plain, timed []context.Context
	h := Go(rt, func(cx *Context) error {
		before := runtime.NumGoroutine()
		for range n {
			a, cancelA := context.WithCancel(cx)
			defer cancelA()
			b, cancelB := context.WithTimeout(cx, time.Hour)
			defer cancelB()
			plain, timed = append(plain, a), append(timed, b)
		}
		if now := runtime.NumGoroutine(); now > before+n/2 {
			return fmt.Errorf("%d goroutines before, %d after", before, now)
		}
		Sleep(cx, time.Hour)
		for i := range n {
			<-plain[i].Done()
			<-timed[i].Done()
			if plain[i].Err() != context.Canceled || timed[i].Err() != context.Canceled {
				return fmt.Errorf("Err: %v, %v", plain[i].Err(), timed[i].Err())
			}
		}
		return nil
	})
	eventually(t, func() bool { return waiting(h) })
	h.Cancel()
	_, err := join(t, h)
	require.NoError(t, err)

	runInTask(t, rt, func(cx *Context) error {
		child, cancelChild := cx.WithTimeout(time.Millisecond)
		defer cancelChild()
		std, cancel := context.WithCancel(child)
		defer cancel()
		Sleep(child, time.Hour)
		<-std.Done()
		cancel()
		return errors.Join(
			expect(std.Err() == context.DeadlineExceeded, "Err: %v", std.Err()),
			Yield(cx))
	})
}

// The timer of a Context that is no longer needed does not stay until its deadline, whatever
// goroutine cancels the Context.
func TestContextReleasesTimers(t *testing.T) {
	const n = 100
	rt := newTestRuntime(t, Config{Workers: 2})
	runInTask(t, rt, func(cx *Context) error {
		w := cx.here()
		before := w.timers.n
		var cancels []context.CancelFunc
		for range n {
			_, cancel := cx.WithTimeout(time.Hour)
			cancels = append(cancels, cancel)
		}
		if w.timers.n != before+n {
			return fmt.Errorf("%d timers before, %d with %d contexts", before, w.timers.n, n)
		}
		for _, cancel := range cancels[:n/2] {
			cancel()
		}
		if w.timers.n != before+n/2 {
			return fmt.Errorf("%d timers are left of %d", w.timers.n-before, n/2)
		}
		var all sync.WaitGroup
		for _, cancel := range cancels[n/2:] {
			all.Go(cancel)
		}
		all.Wait()
		for range pollsPerRound + 1 { // the worker removes them in its next turn
			if err := Yield(cx); err != nil {
				return err
			}
		}
		return expect(w.timers.n == before, "%d timers are left", w.timers.n-before)
	})
	runInTask(t, rt, func(cx *Context) error {
		w := cx.here()
		before := w.timers.n
		_, err := Await(cx, TimeoutFuture(ReadyFuture(1), time.Hour))
		_, err2 := Await(cx, TimeoutFuture(YieldFuture(), time.Hour))
		child, cancel := cx.WithCancel()
		go cancel()
		err3 := Sleep(child, time.Hour)
		return errors.Join(err, err2,
			expect(err3 == context.Canceled, "Sleep: %v", err3),
			expect(w.timers.n == before, "%d timers are left", w.timers.n-before))
	})
}

func TestSleepLastsLongEnough(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		for range 5 {
			for _, d := range []time.Duration{-1, 0, 1, time.Microsecond, 17 * time.Microsecond, time.Millisecond, 3 * time.Millisecond} {
				begun := time.Now()
				if err := Sleep(cx, d); err != nil {
					return err
				}
				if took := time.Since(begun); took < d {
					return fmt.Errorf("a sleep of %v took %v", d, took)
				}
			}
		}
		return nil
	})
}

// spin makes time pass within one poll, after a timer has been set in it.
func spin(cx *Context, d time.Duration) {
	s := SleepFuture(time.Hour)
	s.Poll(cx)
	giveUp(nil, s)
	for begun := time.Now(); time.Since(begun) < d; {
	}
}

// A worker may read the clock less often than tasks ask for the time. This must not make a timeout
// too short that begins late in a long poll, and must not make a sleep of zero wait.
func TestTimersInALongPoll(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	t.Run("Timeout", func(t *testing.T) {
		runInTask(t, rt, func(cx *Context) error {
			const d = 5 * time.Millisecond
			spin(cx, 2*d)
			begun := time.Now()
			_, err := Await(cx, TimeoutFuture(NeverFuture[int](), d))
			took := time.Since(begun)
			return errors.Join(
				expect(err == context.DeadlineExceeded, "Await: %v", err),
				expect(took >= d, "a timeout of %v took %v", d, took))
		})
	})
	t.Run("Sleep", func(t *testing.T) {
		runInTask(t, rt, func(cx *Context) error {
			spin(cx, time.Millisecond)
			_, err := SleepFuture(0).Poll(cx)
			return expect(err == nil, "a sleep of nothing: %v", err)
		})
	})
}

func TestFutureConstructors(t *testing.T) {
	failed := errors.New("failed")
	everywhere(t, func(cx *Context) error {
		v, err := Await(cx, ReadyFuture(3))
		_, failedErr := Await(cx, FailedFuture[int](failed))
		child, cancel := cx.WithCancel()
		go cancel()
		_, neverErr := Await(child, NeverFuture[int]())
		polls := 0
		p, pollErr := Await(cx, PollFunc(func(cx *Context) (int, error) {
			if polls++; polls < 3 {
				cx.Waker().Wake()
				return 0, ErrPending
			}
			return polls, failed
		}))
		_, yieldErr := Await(cx, YieldFuture())
		return errors.Join(
			expect(v == 3 && err == nil, "Ready: %v, %v", v, err),
			expect(failedErr == failed, "Failed: %v", failedErr),
			expect(neverErr == context.Canceled, "Never: %v", neverErr),
			expect(p == 3 && pollErr == failed, "PollFunc: %v, %v", p, pollErr),
			expect(yieldErr == nil, "NewYield: %v", yieldErr))
	})
}

func TestTimeoutAwaited(t *testing.T) {
	failed := errors.New("failed")
	everywhere(t, func(cx *Context) error {
		const d = time.Millisecond
		p := new(probe)
		begun := time.Now()
		_, err := Await(cx, TimeoutFuture(p, d))
		took := time.Since(begun)
		q := new(probe)
		q.resolve(failed)
		v, inTime := Await(cx, TimeoutFuture(q, time.Hour))
		r := new(probe)
		child, cancel := cx.WithCancel()
		go cancel()
		_, cancelled := Await(child, TimeoutFuture(r, time.Hour))
		_, zero := Await(cx, TimeoutFuture(new(probe), 0))
		return errors.Join(
			expect(err == context.DeadlineExceeded, "too late: %v", err),
			expect(took >= d, "a timeout of %v took %v", d, took),
			expect(p.cancels.Load() == 1, "given up %d times", p.cancels.Load()),
			expect(v == 42 && inTime == failed, "in time: %v, %v", v, inTime),
			expect(q.cancels.Load() == 0, "given up though it had its result"),
			expect(cancelled == context.Canceled, "cancelled: %v", cancelled),
			expect(r.cancels.Load() == 1, "given up %d times", r.cancels.Load()),
			expect(zero == context.DeadlineExceeded, "with no time at all: %v", zero))
	})
}

func TestYieldLetsOthersRun(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	var order []int
	runInTask(t, rt, func(cx *Context) error {
		var hs []*JoinHandle[None]
		begun := 0
		for i := range 3 {
			hs = append(hs, Go(cx, func(cx *Context) error {
				for begun++; begun < 3; { // tasks that have not begun go to the queue of another worker
					if err := Yield(cx); err != nil {
						return err
					}
				}
				for range 3 {
					order = append(order, i)
					if err := Yield(cx); err != nil {
						return err
					}
				}
				return nil
			}))
		}
		for _, h := range hs {
			if _, err := h.Join(cx); err != nil {
				return err
			}
		}
		return nil
	})
	require.Len(t, order, 9)
	for i := range order[1:] {
		require.NotEqual(t, order[i], order[i+1], "one ran twice in a row: %v", order)
	}
}

// passHour makes the time pass of a sleep that the test has polled itself.
func passHour(s *sleepFuture) {
	s.until = nanos()
	s.alarm.std.fire()
}

func TestHandPolling(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	t.Run("NewSleep", func(t *testing.T) {
		cx, wakes := newPollCx(t, rt)
		const d = time.Millisecond
		begun := time.Now()
		s := SleepFuture(d)
		_, err := s.Poll(cx)
		for err == ErrPending {
			eventually(t, func() bool { return wakes.Swap(0) > 0 })
			_, err = s.Poll(cx)
		}
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(begun), d)

		long := SleepFuture(time.Hour)
		_, err = long.Poll(cx)
		require.Equal(t, ErrPending, err)
		giveUp(nil, long)
	})
	t.Run("a sleep that moves to another task", func(t *testing.T) {
		a, wakesA := newPollCx(t, rt)
		b, wakesB := newPollCx(t, rt)
		s := SleepFuture(time.Hour).(*sleepFuture)
		_, err := s.Poll(a)
		require.Equal(t, ErrPending, err)
		timerA := s.alarm.std.timer
		_, err = s.Poll(b)
		require.Equal(t, ErrPending, err)
		require.False(t, timerA.Stop(), "it is to wake the first task still")
		passHour(s)
		require.EqualValues(t, 1, wakesB.Load())
		require.Zero(t, wakesA.Load())
		_, err = s.Poll(b)
		require.NoError(t, err)

		s = SleepFuture(time.Hour).(*sleepFuture)
		_, err = s.Poll(a)
		require.Equal(t, ErrPending, err)
		timerA = s.alarm.std.timer
		h := SpawnFuture(rt, s)
		eventually(t, func() bool { return waiting(h) })
		require.False(t, timerA.Stop(), "it is to wake the first task still")
		on(h.w, func(w *worker) {
			s.until = nanos()
			w.fireTimers(s.until + int64(2*time.Hour))
		})
		_, err = join(t, h)
		require.NoError(t, err)
		require.Zero(t, wakesA.Load())
	})
	t.Run("Timeout", func(t *testing.T) {
		cx, wakes := newPollCx(t, rt)
		p := new(probe)
		f := TimeoutFuture(p, time.Hour)
		_, err := f.Poll(cx)
		require.Equal(t, ErrPending, err)
		passHour(f.(*timeoutFuture[int]).sleep)
		require.EqualValues(t, 1, wakes.Load())
		_, err = f.Poll(cx)
		require.Equal(t, context.DeadlineExceeded, err)
		require.EqualValues(t, 1, p.cancels.Load())
	})
	t.Run("PollFunc and Yield", func(t *testing.T) {
		cx, wakes := newPollCx(t, rt)
		y := YieldFuture()
		f := PollFunc(func(cx *Context) (None, error) { return y.Poll(cx) })
		_, err := f.Poll(cx)
		require.Equal(t, ErrPending, err)
		require.EqualValues(t, 1, wakes.Load())
		_, err = f.Poll(cx)
		require.NoError(t, err)
	})
	t.Run("spawn and join", func(t *testing.T) {
		cx, wakes := newPollCx(t, rt)
		h := Go(cx, Yield)
		_, err := h.Poll(cx)
		if err == ErrPending {
			eventually(t, func() bool { return wakes.Load() > 0 })
			_, err = h.Poll(cx)
		}
		require.NoError(t, err)
	})
	t.Run("connection", func(t *testing.T) {
		cx, wakes := newPollCx(t, rt)
		ln, err := ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(t, err)
		defer ln.Close()
		_, err = ln.PollAccept(cx)
		require.Equal(t, ErrPending, err)

		peer, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		defer peer.Close()
		// until polls again after each wake, as a loop outside of the package does.
		until := func(poll func() error) error {
			for {
				if err := poll(); err != ErrPending {
					return err
				}
				eventually(t, func() bool { return wakes.Swap(0) > 0 })
			}
		}
		var conn PollConn
		require.NoError(t, until(func() (err error) { conn, err = ln.pollAcceptTCP(cx); return err }))
		defer conn.Close()

		buf := make([]byte, 16)
		_, err = conn.PollRead(cx, buf)
		require.Equal(t, ErrPending, err)
		_, err = peer.Write([]byte("hello"))
		require.NoError(t, err)
		var n int
		require.NoError(t, until(func() (err error) { n, err = conn.PollRead(cx, buf); return err }))
		require.Equal(t, "hello", string(buf[:n]))

		_, err = conn.PollRead(cx, buf)
		require.Equal(t, ErrPending, err)
		wakes.Store(0)
		require.NoError(t, conn.Close())
		eventually(t, func() bool { return wakes.Load() > 0 })
		_, err = conn.PollRead(cx, buf)
		require.ErrorIs(t, err, net.ErrClosed)
	})
}
