package async

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// counts waits until one reading of the metrics of rt satisfies want. Workers publish their figures
// when they park, one figure after the other, so an earlier reading may mix old and new figures.
func counts(t *testing.T, rt *Runtime, want func(m Metrics) bool) (m Metrics) {
	t.Helper()
	if !within(patience, func() bool { m = rt.Metrics(); return want(m) }) {
		m.PollTime, m.WakeTime = Histogram{}, Histogram{}
		t.Fatalf("the metrics have never become as they should be: %+v", m)
	}
	return m
}

// A task is counted once, wherever it is spawned, and so is its end.
func TestMetricsTasks(t *testing.T) {
	const each = 50
	rt := newTestRuntime(t, Config{Workers: 2})
	require.Equal(t, 2, rt.Metrics().Workers)
	var hs []*JoinHandle[None]
	spawn := func(s Spawner) {
		for range each {
			hs = append(hs,
				SpawnFuture(s, ReadyFuture(None{})),
				Go(s, func(cx *Context) error { return Yield(cx) }),
				SpawnBlocking(s, func() (None, error) { return None{}, nil }))
		}
	}
	spawn(rt)
	runInTask(t, rt, func(cx *Context) error { spawn(cx); return nil })
	for _, h := range hs {
		_, err := join(t, h)
		require.NoError(t, err)
	}
	const all = 2*3*each + 1
	m := counts(t, rt, func(m Metrics) bool {
		polls := uint64(2*each + 2*2*each + 1) // one for each future, two for each task that yields
		outside := uint64(2*each + 1)
		return m.Ended == all && m.Polls >= polls && m.Received+m.Stolen >= outside && m.Received > 0 && m.Parks > 0
	})
	require.EqualValues(t, all, m.Spawned)
	require.Zero(t, m.Alive)

	p := new(probe)
	last := SpawnFuture[int](rt, p)
	m = counts(t, rt, func(m Metrics) bool { return m.Alive == 1 })
	require.EqualValues(t, all+1, m.Spawned)
	p.resolve(nil)
	join(t, last)
	counts(t, rt, func(m Metrics) bool { return m.Alive == 0 && m.Ended == all+1 })

	require.NoError(t, rt.Shutdown(ended()))
	join(t, SpawnFuture(rt, ReadyFuture(1)))
	m = rt.Metrics()
	require.EqualValues(t, all+1, m.Spawned, "what was refused was never started")
	require.EqualValues(t, all+1, m.Ended)
}

func TestMetricsOfWhatWaits(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	const timers, straight = 20, 7
	var hs []*JoinHandle[None]
	for range timers - straight {
		hs = append(hs, SpawnFuture(rt, SleepFuture(time.Hour)))
	}
	for range straight {
		hs = append(hs, Go(rt, func(cx *Context) error { return Sleep(cx, time.Hour) }))
	}
	counts(t, rt, func(m Metrics) bool {
		return m.Timers == timers && m.Alive == timers && m.Coroutines == straight && m.CoroutinesFree == 0
	})
	for _, h := range hs {
		h.Cancel()
	}
	counts(t, rt, func(m Metrics) bool {
		return m.Timers == 0 && m.Alive == 0 && m.Coroutines == straight && m.CoroutinesFree == straight && m.Sources == 0
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	reader := Go(rt, func(cx *Context) error {
		c, err := Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Read(cx, make([]byte, 1))
		return err
	})
	counts(t, rt, func(m Metrics) bool { return m.Sources == 1 })
	reader.Cancel()
	counts(t, rt, func(m Metrics) bool { return m.Sources == 0 })

	var outside sync.WaitGroup
	stop := make(chan None)
	for range 3 {
		outside.Go(func() { BlockOn(rt, func(*Context) (None, error) { <-stop; return None{}, nil }) })
	}
	counts(t, rt, func(m Metrics) bool { return m.BlockOns == 3 })
	close(stop)
	outside.Wait()
	require.Zero(t, rt.Metrics().BlockOns)
}

func TestMetricsQueued(t *testing.T) {
	const tasks = 10
	rt := newTestRuntime(t, Config{Workers: 1})
	var hs []*JoinHandle[None]
	for i := range tasks {
		if i%2 == 0 {
			hs = append(hs, SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) { return YieldFuture().Poll(cx) })))
		} else {
			hs = append(hs, Go(rt, func(cx *Context) error {
				for {
					if err := Yield(cx); err != nil {
						return err
					}
				}
			}))
		}
	}
	m := counts(t, rt, func(m Metrics) bool { return m.Queued == tasks })
	// The worker never has to wait; its counts are published all the same.
	counts(t, rt, func(now Metrics) bool { return now.Polls > m.Polls+1000 })
	for _, h := range hs {
		h.Cancel()
	}
	counts(t, rt, func(m Metrics) bool { return m.Queued == 0 })
}

// Queued counts all tasks that are ready to run: in the queues, in the run-next slots, and tasks
// from other threads that the worker has received.
func TestMetricsQueuedIsAll(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	sleeper := func(cx *Context) error { return Sleep(cx, time.Hour) }
	straight, future := Go(rt, sleeper), SpawnFuture(rt, SleepFuture(time.Hour))
	eventually(t, func() bool { return waiting(straight) && waiting(future) })
	runInTask(t, rt, func(cx *Context) error {
		w := cx.here()
		Go(cx, sleeper)
		SpawnFuture(cx, SleepFuture(time.Hour))
		SpawnFuture(cx, SleepFuture(time.Hour))
		straight.wake(w)
		future.wake(w)
		Go(rt, sleeper) // into the inbox
		queued := w.ready()
		w.receive()
		w.publish(nanos())
		return expect(queued == 5 && rt.Metrics().Queued == 6, "%d, then %d", queued, rt.Metrics().Queued)
	})
}

// Each wake of a task that waited is counted, from every thread, and no other wake. Each unpark of
// a worker is counted, too.
func TestMetricsWakes(t *testing.T) {
	const rounds = 20
	rt := newTestRuntime(t, Config{Workers: 2})
	other := newTestRuntime(t, Config{Workers: 1})
	var woken uint64
	for name, wake := range map[string]func(w Waker){
		"by a task of its worker": func(w Waker) {
			runInTask(t, pinned(rt, 0), func(*Context) error { w.Wake(); w.Wake(); return nil })
		},
		"by a task of another worker": func(w Waker) {
			runInTask(t, pinned(rt, 1), func(*Context) error { w.Wake(); return nil })
		},
		"by a task of another runtime": func(w Waker) {
			runInTask(t, other, func(*Context) error { w.Wake(); return nil })
		},
		"by a goroutine": func(w Waker) { w.Wake() },
	} {
		polls := make(chan None, 10)
		var waker Waker
		h := SpawnFuture(pinned(rt, 0), PollFunc(func(cx *Context) (None, error) {
			waker = cx.Waker()
			polls <- None{}
			return None{}, ErrPending
		}))
		for range rounds {
			receive(t, polls)
			eventually(t, func() bool { return waiting(h) })
			wake(waker)
			woken++
		}
		receive(t, polls)
		eventually(t, func() bool { return waiting(h) })
		h.Cancel()
		woken++
		_, err := join(t, h)
		require.Equal(t, context.Canceled, err)
		counts(t, rt, func(m Metrics) bool { return m.Woken == woken })
		require.Empty(t, polls, name)
	}
	require.Zero(t, other.Metrics().Woken)

	for i := range uint64(rounds) {
		before := rt.WorkerMetrics(int(i % 2)).Unparks
		eventually(t, func() bool { // a worker may unpark by itself, for a moment
			eventually(t, func() bool { return rt.workers[0].asleep.Load() && rt.workers[1].asleep.Load() })
			runInTask(t, pinned(rt, int(i%2)), func(*Context) error { return nil })
			return rt.WorkerMetrics(int(i%2)).Unparks > before
		})
	}
}

func TestMetricsBlocking(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 2, Idle: time.Hour}})
	require.Zero(t, rt.Metrics().BlockingGoroutines)
	release := occupy(t, rt, 2)
	var queued []*JoinHandle[int]
	for range 3 {
		queued = append(queued, SpawnBlocking(rt, func() (int, error) { return 1, nil }))
	}
	m := rt.Metrics()
	require.Equal(t, [4]int{2, 3, 2, 0}, [4]int{m.Blocking, m.BlockingQueued, m.BlockingGoroutines, m.BlockingIdle})
	require.EqualValues(t, 5, m.Alive)
	queued[0].Cancel()
	m = rt.Metrics()
	require.Equal(t, 2, m.BlockingQueued)
	require.EqualValues(t, 4, m.Alive)
	release()
	for _, h := range queued[1:] {
		join(t, h)
	}
	m = counts(t, rt, func(m Metrics) bool {
		return m.BlockingIdle > 0 && m.BlockingIdle == m.BlockingGoroutines && m.Ended == 5
	})
	require.Zero(t, m.Blocking)
	require.Zero(t, m.BlockingQueued)
	require.NoError(t, rt.Shutdown(ended()))
	require.Zero(t, rt.Metrics().BlockingGoroutines)
}

// Each task that a worker takes over from another worker is counted, from every queue and slot.
func TestMetricsStolen(t *testing.T) {
	const tasks = 20
	rt := newTestRuntime(t, Config{Workers: 2})
	eventually(t, rt.workers[1].asleep.Load)
	release, free := newRelease(t)
	spawned := make(chan []*JoinHandle[int])
	where := func(cx *Context) (int, error) { return cx.here().index, nil }
	event := new(oneshot)
	waiter, err := join(t, Spawn(pinned(rt, 0), func(cx *Context) (*JoinHandle[int], error) {
		return SpawnFuture(cx, PollFunc(func(cx *Context) (int, error) {
			_, err := event.Poll(cx)
			return cx.here().index, err
		})), nil
	}))
	require.NoError(t, err)
	eventually(t, func() bool { return waiting(waiter) })
	counts(t, rt, func(m Metrics) bool { return m.Alive == 1 })
	var before [2]uint64 // the waiter may have been stolen, and this may not have been published yet
	for i, w := range rt.workers {
		on(w, func(w *worker) { before[i] = w.counts[countStolen] })
	}
	Go(pinned(rt, 0), func(cx *Context) error {
		var hs []*JoinHandle[int]
		for range tasks {
			hs = append(hs, SpawnFuture(cx, PollFunc(where)))
		}
		event.send(cx) // into the run-next slot
		spawned <- hs
		blocksHere(release)
		return nil
	})
	hs := append(receive(t, spawned), waiter)
	for range tasks {
		hs = append(hs, Spawn(aimAt(rt, 0), where)) // into the inbox
	}
	for _, h := range hs {
		index, err := join(t, h)
		require.NoError(t, err)
		require.Equal(t, 1, index)
	}
	counts(t, rt, func(m Metrics) bool { return m.Stolen == before[0]+before[1]+uint64(len(hs)) })
	require.EqualValues(t, len(hs), rt.WorkerMetrics(1).Stolen-before[1], "the thief counts")
	free()
}

// The figures of the workers add up to the figures of the runtime.
func TestWorkerMetrics(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 3})
	for i := range rt.workers {
		for range i + 1 {
			SpawnFuture(pinned(rt, i), SleepFuture(time.Hour))
			Go(pinned(rt, i), func(cx *Context) error { return Sleep(cx, time.Hour) })
		}
	}
	m := counts(t, rt, func(m Metrics) bool { return m.Timers == 12 && m.Coroutines == 6 })
	var sum Metrics
	for i := range rt.workers {
		w := rt.WorkerMetrics(i)
		require.Equal(t, 1, w.Workers)
		require.Equal(t, 2*(i+1), w.Timers)
		require.Equal(t, i+1, w.Coroutines)
		require.Zero(t, w.Alive)
		sum.Polls += w.Polls
		sum.Received += w.Received
	}
	require.LessOrEqual(t, m.Polls, sum.Polls)
	require.LessOrEqual(t, m.Received, sum.Received)
	require.Equal(t, Metrics{}, rt.WorkerMetrics(-1))
	require.Equal(t, Metrics{}, rt.WorkerMetrics(3))
}

// Metrics is for servers that call it often, so it allocates nothing.
func TestMetricsAllocateNothing(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	release := occupy(t, rt, 2)
	defer release()
	h := Go(rt, func(cx *Context) error { return Sleep(cx, time.Hour) })
	eventually(t, func() bool { return waiting(h) && rt.workers[0].asleep.Load() && rt.workers[1].asleep.Load() })
	var m Metrics
	var q time.Duration
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		m = rt.Metrics()
		q = m.PollTime.Quantile(0.99)
	}))
	require.Zero(t, testing.AllocsPerRun(1000, func() { m = rt.WorkerMetrics(1) }))
	require.NotZero(t, q+1+time.Duration(m.Workers))
}

// A poll of five milliseconds is found among the polls. A wake after which the task is not polled
// for five milliseconds is found among the wakes.
func TestMetricsHistograms(t *testing.T) {
	const long = 5 * time.Millisecond
	rt := newTestRuntime(t, Config{Workers: 1})
	from := func(h Histogram) (n uint64) {
		for _, c := range h.Counts[histogramBucket(int64(long)):] {
			n += c
		}
		return n
	}
	busy := func() {
		for begun := time.Now(); time.Since(begun) < long; {
		}
	}
	// Both histograms are samples, so the test tries again and again.
	polls := from(rt.Metrics().PollTime)
	eventually(t, func() bool {
		join(t, SpawnFuture(rt, PollFunc(func(*Context) (None, error) { busy(); return None{}, nil })))
		return within(long, func() bool { return from(rt.Metrics().PollTime) > polls })
	})
	wakes := from(rt.Metrics().WakeTime)
	eventually(t, func() bool {
		event := new(oneshot)
		h := SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) { return event.Poll(cx) }))
		eventually(t, func() bool { return waiting(h) })
		join(t, SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) { event.send(cx); busy(); return None{}, nil })))
		join(t, h)
		return within(long, func() bool { return from(rt.Metrics().WakeTime) > wakes })
	})
}

// A task that was stolen while its wake was being measured does not keep its former worker from
// measuring other wakes.
func TestMetricsSampleAfterASteal(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	for range 20 {
		h, release := stick(t, pinned(rt, 0))
		var hs []*JoinHandle[None]
		for range 10 {
			hs = append(hs, SpawnFuture(aimAt(rt, 0), YieldFuture()))
		}
		for _, h := range hs {
			join(t, h)
		}
		release()
		join(t, h)
	}
	for i := range rt.workers {
		sampled := func() uint64 {
			h := rt.WorkerMetrics(i).WakeTime
			return h.Count()
		}
		before := sampled()
		eventually(t, func() bool {
			// The sleep is so long that even on a slow machine it is not over before it begins.
			join(t, Go(pinned(rt, i), func(cx *Context) error { return Sleep(cx, time.Millisecond) }))
			return sampled() > before
		})
	}
}

func TestHistogramBuckets(t *testing.T) {
	var h Histogram
	last := len(h.Counts) - 1
	require.Equal(t, 1024*time.Nanosecond, h.Bound(0))
	for i := range last {
		if i > 0 {
			require.Equal(t, 2*h.Bound(i-1), h.Bound(i))
		}
		require.EqualValues(t, i, histogramBucket(int64(h.Bound(i))-1))
		require.EqualValues(t, i+1, histogramBucket(int64(h.Bound(i))), "an end belongs to the next")
	}
	require.Equal(t, h.Bound(last-1), h.Bound(last), "the last has no end")
	require.EqualValues(t, 0, histogramBucket(0))
	require.EqualValues(t, 0, histogramBucket(-1))
	require.EqualValues(t, last, histogramBucket(1<<62))
}

func TestHistogramQuantile(t *testing.T) {
	var h Histogram
	require.Zero(t, h.Quantile(0.5), "of nothing")
	require.Zero(t, h.Count())
	h.Counts[3] = 1
	for _, q := range []float64{-1, 0, 0.5, 1, 2} {
		require.Equal(t, h.Bound(3), h.Quantile(q))
	}

	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var h Histogram
		var all []counter
		for range 1 + random.IntN(100) {
			b := histogramBucket(random.Int64N(1 << random.IntN(40)))
			h.Counts[b]++
			all = append(all, b)
		}
		slices.Sort(all)
		require.EqualValues(t, len(all), h.Count())
		for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
			at := min(int(q*float64(len(all))), len(all)-1)
			require.Equal(t, h.Bound(int(all[at])), h.Quantile(q), "%v of %v", q, all)
		}
	}
}
