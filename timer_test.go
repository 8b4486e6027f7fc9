package async

import (
	"context"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// workerCall is a task that runs a function on a certain worker. It looks like straight-line code
// that has begun there, so no other worker steals it.
type workerCall struct {
	task
	fn   func(w *worker)
	done chan struct{}
}

func (c *workerCall) poll(w *worker) bool {
	defer close(c.done)
	c.fn(w)
	return true
}

func (c *workerCall) abort(*worker, error) {}

// startOn begins to run fn on the thread of w. fn must not fail the test.
func startOn(w *worker, fn func(w *worker)) (done <-chan struct{}) {
	c := &workerCall{fn: fn, done: make(chan struct{})}
	c.kind, c.body, c.w = kindStraight, c, w
	c.g.Store(1)
	w.send(&c.task)
	return c.done
}

// on runs fn on the thread of w.
func on(w *worker, fn func(w *worker)) { <-startOn(w, fn) }

// armedTimers counts the timers that the workers keep.
func armedTimers(rt *Runtime) (n int) {
	for _, w := range rt.workers {
		on(w, func(w *worker) { n += w.timers.n })
	}
	return n
}

// FuzzTimerQueue compares a queue with a list. Each operation has three bytes.
// The invariants are:
//
//  1. no timer fires before its time;
//  2. each timer that is due fires exactly once, in the order of ticks, unless it was removed;
//  3. there is one node for each tick that has a timer, next is the end of the first tick, and no
//     timer is left at the end.
func FuzzTimerQueue(f *testing.F) {
	const add, remove, advance = 0, 1, 2
	f.Add([]byte{add, 0, 1, add, 0, 1, add, 0, 200, advance, 0, 0, advance, 0, 1, advance, 1, 0})
	f.Add([]byte{add, 9, 1, add, 3, 1, add, 6, 1, remove, 0, 1, add, 6, 1, remove, 0, 0, advance, 255, 255})
	f.Add([]byte{add, 1, 1, remove, 0, 0, add, 1, 1, remove, 0, 0, add, 2, 0, add, 1, 1, advance, 1, 1, add, 0, 0})
	many := make([]byte, 0, 3000)
	for i := range 300 {
		many = append(many, add, byte(i*37), byte(i*11))
		if i%9 == 0 {
			many = append(many, remove, byte(i), byte(i*7))
		}
	}
	f.Add(append(many, advance, 99, 0, advance, 200, 0))
	f.Fuzz(func(t *testing.T, ops []byte) {
		q := newTimerQueue()
		now := int64(1000)
		model := map[*timer]int64{}
		var order []*timer // the timers of the queue, from which an operation chooses one
		forget := func(i int) *timer {
			p := order[i]
			order[i] = order[len(order)-1]
			order = order[:len(order)-1]
			delete(model, p)
			return p
		}
		fire := func() {
			last := int64(0)
			for p := q.due(now); p != nil; p = q.due(now) {
				at, ok := model[p]
				if !ok {
					t.Fatal("a timer fired that is not in the queue")
				}
				if at > now {
					t.Fatalf("a timer of %d fired at %d", at, now)
				}
				if p.tick < last {
					t.Fatal("ticks out of order")
				}
				last = p.tick
				for i := range order {
					if order[i] == p {
						forget(i)
						break
					}
				}
			}
			for _, at := range model {
				if at+timerTick <= now {
					t.Fatalf("a timer of %d has not fired at %d", at, now)
				}
			}
		}
		for ops = ops[:min(len(ops), 3*400)]; len(ops) >= 3; ops = ops[3:] {
			arg := int(ops[1])<<8 | int(ops[2])
			switch ops[0] % 3 {
			case add:
				p := new(timer)
				model[p] = now + int64(arg)*61 // up to 250 ticks away
				q.add(p, model[p])
				order = append(order, p)
			case remove:
				if len(order) > 0 {
					q.remove(forget(arg % len(order)))
				}
			case advance:
				now += int64(arg) * 47
				fire()
			}
			ticks := map[int64]bool{}
			first := int64(math.MaxInt64)
			for _, at := range model {
				ticks[tickAfter(at)] = true
				first = min(first, tickAfter(at)*timerTick)
			}
			if q.n != len(model) || q.tree.Len() != len(ticks) {
				t.Fatalf("%d timers in %d nodes, want %d in %d", q.n, q.tree.Len(), len(model), len(ticks))
			}
			if at, ok := q.next(); ok != (len(model) > 0) || ok && at != first {
				t.Fatalf("next is %d, %v; want %d", at, ok, first)
			}
		}
		now += math.MaxUint16*61 + timerTick
		fire()
		if q.n != 0 || q.tree.Len() != 0 {
			t.Fatalf("%d timers in %d nodes are left", q.n, q.tree.Len())
		}
	})
}

// A tick ends at or after the times that fall in it, and less than a tick
// after them.
func TestTickAfter(t *testing.T) {
	for _, at := range []int64{0, 1, timerTick - 1, timerTick, timerTick + 1, 1e9, 1<<62 - 1, 1 << 62} {
		end := tickAfter(at) * timerTick
		require.GreaterOrEqual(t, end, at)
		require.Less(t, end-at, timerTick)
	}
	require.LessOrEqual(t, tickAfter(-1)*timerTick, int64(0), "a time in the past is due")
}

// Times and durations that are too far away for an int64 count as far away, and not as past.
func TestTimesThatAreFarAway(t *testing.T) {
	far := []time.Time{
		time.Now().Add(math.MaxInt64),
		time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC),
		time.Unix(1<<50, 0),
	}
	for _, at := range far {
		require.Greater(t, tickAfter(nanosAt(at))*timerTick, nanos()+int64(time.Hour), "%v", at)
	}
	require.Greater(t, tickAfter(nanosAfter(math.MaxInt64))*timerTick, nanos()+int64(time.Hour))
	require.LessOrEqual(t, nanosAfter(math.MinInt64), nanos(), "a negative duration is due now")
	require.LessOrEqual(t, nanosAt(time.Time{}), nanos()-int64(time.Hour))

	rt := newTestRuntime(t, Config{Workers: 1})
	_, err := Go(rt, func(cx *Context) error {
		cx, cancel := cx.WithTimeout(math.MaxInt64)
		defer cancel()
		return Sleep(cx, time.Millisecond)
	}).JoinBlocking(t.Context())
	require.NoError(t, err, "a Context with the longest timeout there is")
	require.Zero(t, armedTimers(rt))
}

// bell counts how often it has expired, and notes the worker that called expire last.
type bell struct {
	n    atomic.Int32
	last atomic.Pointer[worker]
	note func()
}

func (b *bell) expire(w *worker) {
	if b.note != nil {
		b.note()
	}
	b.last.Store(w)
	b.n.Add(1)
}

// On the thread of its worker an alarm can be set, set earlier, set later and stopped. It fires at
// most once for each time that was set, and not earlier. The test sets the worker's time.
func TestAlarmOnItsWorker(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	w := rt.workers[0]
	var b bell
	var a alarm
	base := nanos() + int64(time.Hour)
	step := func(name string, wantTimers int, wantFired int32, fn func(w *worker)) {
		timers := -1
		on(w, func(w *worker) {
			fn(w)
			timers = w.timers.n
		})
		require.Equal(t, wantTimers, timers, name)
		require.Equal(t, wantFired, b.n.Load(), name)
	}
	step("set", 1, 0, func(w *worker) { a.set(w, base, &b) })
	step("set to the same time", 1, 0, func(w *worker) { a.set(w, base, &b) })
	step("not yet", 1, 0, func(w *worker) { w.fireTimers(base - 1) })
	step("fired", 0, 1, func(w *worker) { w.fireTimers(base + timerTick) })
	step("only once", 0, 1, func(w *worker) { w.fireTimers(base + 9*timerTick) })

	step("set again", 1, 1, func(w *worker) { a.set(w, base+9*timerTick, &b) })
	step("earlier", 1, 1, func(w *worker) { a.set(w, base+3*timerTick, &b) })
	step("fired earlier", 0, 2, func(w *worker) { w.fireTimers(base + 4*timerTick) })
	step("not at the later time", 0, 2, func(w *worker) { w.fireTimers(base + 20*timerTick) })

	step("set once more", 1, 2, func(w *worker) { a.set(w, base+3*timerTick, &b) })
	step("later", 1, 2, func(w *worker) { a.set(w, base+9*timerTick, &b) })
	step("not at the earlier time", 1, 2, func(w *worker) { w.fireTimers(base + 8*timerTick) })
	step("fired later", 0, 3, func(w *worker) { w.fireTimers(base + 10*timerTick) })

	step("to be stopped", 1, 3, func(w *worker) { a.set(w, base, &b) })
	step("stopped", 0, 3, func(w *worker) { a.stop(w) })
	step("stopped again", 0, 3, func(w *worker) { a.stop(w) })
	step("not fired", 0, 3, func(w *worker) { w.fireTimers(base + timerTick) })
	require.Equal(t, w, b.last.Load())
}

// Many alarms that are set in any order fire in the order of their ticks.
func TestAlarmOrder(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	const n = 200
	var order []int
	on(rt.workers[0], func(w *worker) {
		base := nanos() + int64(time.Hour)
		for i := range n {
			k := i * 77 % n
			a := new(alarm)
			a.set(w, base+int64(k)*timerTick, &bell{note: func() { order = append(order, k) }})
		}
		w.fireTimers(base + n*timerTick)
	})
	require.Len(t, order, n)
	require.IsIncreasing(t, order)
	require.Zero(t, armedTimers(rt))
}

// An alarm of one worker is set and stopped on another worker, and on a goroutine outside the pool.
// The timer of the first worker is dropped, and never fires there.
func TestAlarmFromElsewhere(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	owner, other := rt.workers[0], rt.workers[1]
	far := nanos() + int64(time.Hour)
	gone := func(w *worker) func() bool {
		return func() bool {
			n := 0
			on(w, func(w *worker) { n = w.timers.n })
			return n == 0
		}
	}
	set := func(a *alarm, w *worker, at int64, b *bell) { on(w, func(w *worker) { a.set(w, at, b) }) }

	t.Run("StopOnAnotherWorker", func(t *testing.T) {
		var a alarm
		var b bell
		set(&a, owner, far, &b)
		on(other, func(w *worker) { a.stop(w) })
		eventually(t, gone(owner))
		on(owner, func(w *worker) { w.fireTimers(far + timerTick) })
		require.Zero(t, b.n.Load())
	})
	t.Run("StopOnAGoroutine", func(t *testing.T) {
		var a alarm
		var b bell
		set(&a, owner, far, &b)
		a.stop(nil)
		// The test runs no function on the worker here, since that would unpark it: stop alone must
		// unpark it.
		eventually(t, func() bool { return a.own.state.Load() == timerIdle })
		require.True(t, gone(owner)())
		set(&a, owner, far, &b) // the same timer again
		on(owner, func(w *worker) { w.fireTimers(far + timerTick) })
		require.EqualValues(t, 1, b.n.Load())
	})
	t.Run("MoveToAnotherWorker", func(t *testing.T) {
		var a alarm
		var b bell
		set(&a, owner, far, &b)
		set(&a, other, far+timerTick, &b)
		eventually(t, gone(owner))
		on(owner, func(w *worker) { w.fireTimers(far + 9*timerTick) })
		require.Zero(t, b.n.Load())
		on(other, func(w *worker) { w.fireTimers(far + 9*timerTick) })
		require.EqualValues(t, 1, b.n.Load())
		require.Equal(t, other, b.last.Load())
	})
	t.Run("MoveToAGoroutine", func(t *testing.T) {
		var a alarm
		var b bell
		set(&a, owner, far, &b)
		at := nanos() + int64(time.Millisecond)
		early := false
		b.note = func() { early = nanos() < at }
		a.set(nil, at, &b)
		eventually(t, func() bool { return b.n.Load() == 1 })
		require.False(t, early)
		require.Nil(t, b.last.Load(), "Go's timers know no worker")
		eventually(t, gone(owner))
	})
	t.Run("MoveFromAGoroutine", func(t *testing.T) {
		var a alarm
		var b bell
		a.set(nil, far, &b)
		a.set(nil, far+1, &b)
		set(&a, owner, far, &b)
		require.Nil(t, a.std, "Go's timer is stopped")
		on(owner, func(w *worker) { w.fireTimers(far + timerTick) })
		require.EqualValues(t, 1, b.n.Load())
		a.set(nil, far, &b)
		a.stop(nil)
		require.Nil(t, a.std)
	})
	// Another thread has dropped the timer. Before the owner takes the timer out, the owner sets the
	// alarm once more. Both timers are due then, and one of them has no effect.
	t.Run("SetAgainBeforeItIsDropped", func(t *testing.T) {
		var a alarm
		var b bell
		set(&a, owner, far, &b)
		begun, proceed := make(chan struct{}), make(chan struct{})
		var both, left int
		done := startOn(owner, func(w *worker) {
			close(begun)
			<-proceed
			a.set(w, far, &b)
			both = w.timers.n
			w.fireTimers(far + timerTick)
			w.takeDropped()
			left = w.timers.n
		})
		<-begun
		a.stop(nil)
		close(proceed)
		<-done
		require.Equal(t, 2, both)
		require.Zero(t, left)
		require.EqualValues(t, 1, b.n.Load())
		require.Equal(t, timerIdle, a.own.state.Load(), "the dropped timer may be used again")
	})
}

// An alarm is stopped on a goroutine at the moment at which it fires. It fires at most once, and
// can be set again at once.
func TestAlarmStopAgainstFire(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	rounds := 1_000
	if testing.Short() {
		rounds = 200
	}
	var a alarm
	var b bell
	for i := range rounds {
		w := rt.workers[i%2]
		before := b.n.Load()
		on(w, func(w *worker) { a.set(w, nanos()+int64(i%3)*timerTick, &b) })
		if i%5 == 0 {
			// The alarm of the round before may expire as late as this.
			eventually(t, func() bool { return b.n.Load() > before })
		}
		a.stop(nil)
	}
	eventually(t, func() bool { return armedTimers(rt) == 0 })
	require.LessOrEqual(t, b.n.Load(), int32(rounds))
	require.Positive(t, b.n.Load())
}

// A sleep is never shorter than its duration, on a task and on a goroutine.
func TestSleepIsNeverEarly(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	sleep := func(cx *Context) (int, error) {
		for i, d := range []time.Duration{-time.Hour, 0, 1, time.Microsecond, 15 * time.Microsecond, 16 * time.Microsecond,
			17 * time.Microsecond, 100 * time.Microsecond, 950 * time.Microsecond, 1500 * time.Microsecond, 3 * time.Millisecond} {
			begun := time.Now()
			if err := Sleep(cx, d); err != nil {
				return 0, err
			}
			if took := time.Since(begun); took < d {
				t.Errorf("sleep %d: %v, want at least %v", i, took, d)
			}
		}
		return 1, nil
	}
	var hs []*JoinHandle[int]
	for range 8 {
		hs = append(hs, Spawn(rt, sleep))
	}
	_, err := BlockOn(rt, sleep)
	require.NoError(t, err)
	for _, h := range hs {
		n, err := h.JoinBlocking(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, n)
	}
	require.Zero(t, armedTimers(rt))
}

// A loop that polls the future of a sleep itself is woken when the sleep is over.
func TestSleepPolledByHand(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	cx, wakes := newPollCx(t, rt)
	begun := time.Now()
	const d = 2 * time.Millisecond
	f := SleepFuture(d)
	for _, err := f.Poll(cx); err == ErrPending; _, err = f.Poll(cx) {
		seen := wakes.Load()
		if time.Since(begun) < d {
			eventually(t, func() bool { return wakes.Load() > seen || time.Since(begun) >= d })
		}
	}
	require.GreaterOrEqual(t, time.Since(begun), d)

	f = SleepFuture(time.Hour)
	_, err := f.Poll(cx)
	require.Equal(t, ErrPending, err)
	giveUp(nil, f)
	require.Nil(t, f.(*sleepFuture).alarm.std)
	_, err = SleepFuture(0).Poll(cx)
	require.NoError(t, err)
}

// lateSleep is a sleep that notes whether it was early.
type lateSleep struct {
	Future[None]
	until time.Time
	early *atomic.Int32
}

func newLateSleep(d time.Duration, early *atomic.Int32) lateSleep {
	return lateSleep{until: time.Now().Add(d), Future: SleepFuture(d), early: early}
}

func (s lateSleep) Poll(cx *Context) (None, error) {
	_, err := s.Future.Poll(cx)
	if err == nil && time.Now().Before(s.until) {
		s.early.Add(1)
	}
	return None{}, err
}

func TestSleepMany(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	const sleepers = 10_000
	var early atomic.Int32
	hs := make([]*JoinHandle[None], sleepers)
	for i := range hs {
		hs[i] = SpawnFuture(rt, newLateSleep(time.Duration(i%997)*20*time.Microsecond, &early))
	}
	for _, h := range hs {
		_, err := h.JoinBlocking(t.Context())
		require.NoError(t, err)
	}
	require.Zero(t, early.Load(), "sleeps that were too short")
	eventually(t, func() bool { return armedTimers(rt) == 0 })
}

// Sleeps that are cancelled leave no timer, on every worker that may notice the cancellation.
func TestSleepCancel(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	const sleepers = 1_000
	var hs []*JoinHandle[None]
	for i := range sleepers {
		d := time.Hour + time.Duration(i)*time.Microsecond
		hs = append(hs, SpawnFuture(rt, SleepFuture(d)), Go(rt, func(cx *Context) error { return Sleep(cx, d) }))
	}
	eventually(t, func() bool { return armedTimers(rt) == 2*sleepers })
	for _, h := range hs {
		h.Cancel()
	}
	for _, h := range hs {
		_, err := h.JoinBlocking(t.Context())
		require.ErrorIs(t, err, context.Canceled)
	}
	eventually(t, func() bool { return armedTimers(rt) == 0 })
}

// If the task of a sleep is polled in turn on two workers, the timer moves with
// the task.
func TestSleepMovesWithItsTask(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	var polled [2]atomic.Int32
	nap := SleepFuture(time.Hour)
	h := SpawnFuture(rt, moving{nap, &polled})
	count := func() int32 { return polled[0].Load() + polled[1].Load() }
	eventually(t, func() bool { return count() == 1 })
	for i := range int32(40) {
		w := rt.workers[i%2]
		before := polled[i%2].Load()
		for polled[i%2].Load() == before { // a wake while the task is polled does not move it
			on(w, func(w *worker) { h.wake(w) })
		}
		eventually(t, func() bool { return armedTimers(rt) == 1 })
	}
	on(rt.workers[0], func(w *worker) { h.wake(w) })
	h.Cancel()
	_, err := h.JoinBlocking(t.Context())
	require.ErrorIs(t, err, context.Canceled)
	eventually(t, func() bool { return armedTimers(rt) == 0 })
}

// moving counts its polls on each worker.
type moving struct {
	Future[None]
	polled *[2]atomic.Int32
}

func (m moving) Poll(cx *Context) (None, error) {
	v, err := m.Future.Poll(cx)
	m.polled[cx.here().index].Add(1)
	return v, err
}

func (m moving) Cancel() { giveUp(nil, m.Future) }

// One task begins a sleep, and another task on another worker awaits its end. The first task does
// other work meanwhile.
func TestSleepMovesToAnotherTask(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	for range 20 {
		var early atomic.Int32
		nap := newLateSleep(2*time.Millisecond, &early)
		var over atomic.Bool
		given := make(chan None, 1)
		first := Go(rt, func(cx *Context) error {
			_, err := nap.Poll(cx)
			given <- None{}
			for err == ErrPending && !over.Load() {
				if err := Yield(cx); err != nil {
					return err
				}
			}
			return nil
		})
		<-given
		second := Go(rt, func(cx *Context) error {
			defer over.Store(true)
			_, err := Await(cx, Future[None](nap))
			return err
		})
		_, err := second.JoinBlocking(t.Context())
		require.NoError(t, err)
		_, err = first.JoinBlocking(t.Context())
		require.NoError(t, err)
		require.Zero(t, early.Load())
	}
	eventually(t, func() bool { return armedTimers(rt) == 0 })
}

// givenUp is never ready, and counts how often it is given up.
type givenUp struct {
	Future[int]
	n atomic.Int32
}

func (g *givenUp) Cancel() { g.n.Add(1) }

func TestTimeout(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	await := func(f Future[int]) (int, error) {
		return Spawn(rt, func(cx *Context) (int, error) { return Await(cx, f) }).JoinBlocking(t.Context())
	}

	v, err := await(TimeoutFuture(ReadyFuture(7), time.Hour))
	require.NoError(t, err)
	require.Equal(t, 7, v)
	v, err = await(TimeoutFuture(ReadyFuture(8), 0))
	require.NoError(t, err, "a future that is ready at once is not late")
	require.Equal(t, 8, v)

	for _, d := range []time.Duration{-time.Second, 0, 300 * time.Microsecond, 2 * time.Millisecond} {
		late := &givenUp{Future: NeverFuture[int]()}
		begun := time.Now()
		_, err = await(TimeoutFuture[int](late, d))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.GreaterOrEqual(t, time.Since(begun), d)
		require.EqualValues(t, 1, late.n.Load(), "given up once")
	}

	// The future is ready after it has waited: the timer is removed.
	pending := true
	v, err = await(TimeoutFuture(PollFunc(func(cx *Context) (int, error) {
		if pending {
			pending = false
			cx.Waker().Wake()
			return 0, ErrPending
		}
		return 9, nil
	}), time.Hour))
	require.NoError(t, err)
	require.Equal(t, 9, v)
	require.Zero(t, armedTimers(rt))

	// The TimeoutFuture itself is given up.
	left := &givenUp{Future: NeverFuture[int]()}
	h := SpawnFuture(rt, TimeoutFuture[int](left, time.Hour))
	eventually(t, func() bool { return armedTimers(rt) == 1 })
	h.Cancel()
	_, err = h.JoinBlocking(t.Context())
	require.ErrorIs(t, err, context.Canceled)
	require.EqualValues(t, 1, left.n.Load())
	require.Zero(t, armedTimers(rt))
}
