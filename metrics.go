package async

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// counter is one of a worker's counts. The worker counts in plain variables, and publishes them about every
// millisecond, and before a wait that gives up its P.
type counter int

const (
	countSpawned counter = iota
	countEnded
	countPolls
	countStolen
	countReceived
	countWoken
	countWaits
	countTimers
	countCoroutines
	countFree
	countQueued
	countPollTime                                // a histogram
	countWakeTime = countPollTime + histogramLen // another histogram
	counterCount  = countWakeTime + histogramLen
)

// publishEvery is how old the published counts of a busy worker may be.
const publishEvery = int64(time.Millisecond)

// publish lets other threads see the counts. Since it is called now and then, it also sets
// the profiler labels again.
func (w *worker) publish(now int64) {
	w.publishedAt = now
	w.relabel()
	w.counts[countTimers] = uint64(w.timers.len())
	w.counts[countQueued] = uint64(w.ready())
	for i, n := range w.counts {
		if p := &w.published[i]; p.Load() != n {
			p.Store(n)
		}
	}
	w.rt.active.look(w.rt, now)
}

// ready returns how many tasks wait for w to run them, without the tasks that it has
// not received yet.
func (w *worker) ready() int {
	n := w.local.n + w.queue.len()
	if w.runNextLocal != nil {
		n++
	}
	if w.runNext.Load() != nil {
		n++
	}
	return n
}

// Metrics are the figures of a runtime, or of one worker, at one moment. A busy worker publishes
// its counts about once a millisecond, between rounds of up to 61 polls: while it is stuck in a
// poll it shows the counts from before. The counts of a worker that has just become idle are up
// to 10 milliseconds old. The fields are read one after the other, so sums of them need not
// match exactly.
type Metrics struct {
	Spawned  uint64 // tasks that were ever started, calls of SpawnBlocking and the internal tasks of Tasks included
	Ended    uint64 // tasks of these that have their result
	Alive    uint64 // tasks of these that have no result yet
	Polls    uint64
	Stolen   uint64 // tasks taken over from another worker
	Received uint64 // tasks that came from other threads: spawned or woken there
	Woken    uint64 // wakes of tasks that waited; further ones before the poll are not counted
	Parks    uint64 // times that a worker went to wait in the kernel
	Unparks  uint64 // times that another thread woke a worker that was waiting there, which is a system call
	Stalls   uint64 // polls that were found to take longer than Config.Stall

	Workers        int
	Queued         int // tasks that are ready to run, and that a worker has taken note of
	Timers         int // timers that are set
	Sources        int // connections, listeners and other descriptors in the pollers, also those of goroutines
	Coroutines     int // made for straight-line tasks, the free coroutines included
	CoroutinesFree int // kept for the next tasks
	BlockOns       int // goroutines in BlockOn

	Blocking           int // calls of SpawnBlocking that run
	BlockingQueued     int // calls that wait for a goroutine
	BlockingGoroutines int // of the pool, the idle goroutines included
	BlockingIdle       int // kept for the next calls

	PollTime Histogram // how long polls take; sampled: the first poll of a turn, at most one per worker in 50 microseconds
	WakeTime Histogram // from a wake of a task to its next poll; sampled at most as often
}

// Metrics returns the figures of the whole runtime. It costs microseconds and
// no allocation, and disturbs no worker.
func (rt *Runtime) Metrics() (m Metrics) {
	for i := range rt.workers {
		m.add(rt.workers[i])
	}
	m.Sources += rt.shared.registered()
	rt.calls.add(&m)
	m.Spawned += uint64(max(rt.foreign.Load()-rt.refused.Load(), 0))
	if m.Spawned > m.Ended {
		m.Alive = m.Spawned - m.Ended
	}
	m.Stalls = rt.stalls.Load()
	rt.mu.Lock()
	m.BlockOns = len(rt.blockOns)
	rt.mu.Unlock()
	return m
}

// WorkerMetrics returns the figures of one worker, counted from 0; zeros if
// there is no worker of that number. Tasks that were spawned outside, and tasks
// that end on another worker than that of their spawn, make Spawned, Ended and
// Alive mean nothing for a worker alone: Alive is 0.
func (rt *Runtime) WorkerMetrics(worker int) (m Metrics) {
	if worker >= 0 && worker < len(rt.workers) {
		m.add(rt.workers[worker])
	}
	return m
}

func (m *Metrics) add(w *worker) {
	get := func(c counter) uint64 { return w.published[c].Load() }
	m.Ended += get(countEnded) // before Spawned, so that no task counts as ended alone
	m.Spawned += get(countSpawned)
	m.Polls += get(countPolls)
	m.Stolen += get(countStolen)
	m.Received += get(countReceived)
	m.Woken += get(countWoken) + w.wokenFromOutside.Load()
	m.Parks += get(countWaits)
	m.Unparks += w.unparks.Load()
	m.Workers++
	m.Queued += int(get(countQueued))
	m.Timers += int(get(countTimers))
	m.Sources += int(w.reactor.registered.Load())
	m.Coroutines += int(get(countCoroutines))
	m.CoroutinesFree += int(get(countFree))
	for i := range histogramLen {
		m.PollTime.Counts[i] += get(countPollTime + counter(i))
		m.WakeTime.Counts[i] += get(countWakeTime + counter(i))
	}
}

// add adds the calls of the pool, the ended calls included.
func (p *callPool) add(m *Metrics) {
	p.admission.mu.Lock()
	defer p.admission.mu.Unlock()
	m.Ended += uint64(p.ended)
	m.Spawned += uint64(p.spawned)
	m.Blocking = p.running.n
	m.BlockingQueued = p.queue.n
	m.BlockingGoroutines = p.goroutines
	m.BlockingIdle = len(p.idle)
}

// histogramLen is how many buckets a Histogram has: the last but one ends at
// four seconds.
const histogramLen = 24

// A Histogram counts durations by their size. The first bucket is for durations
// below 1.024 microseconds, each further bucket ends at twice the former, and the
// last has all longer durations.
type Histogram struct {
	Counts [histogramLen]uint64
}

// histogramBucket returns the bucket of d, which is in nanoseconds.
func histogramBucket(d int64) counter {
	return counter(min(bits.Len64(uint64(max(d, 0))>>10), histogramLen-1))
}

// Bound returns the upper end of a bucket; for the last one, its lower end.
func (h *Histogram) Bound(bucket int) time.Duration {
	return 1024 << min(bucket, histogramLen-2)
}

// Count returns how many durations were counted.
func (h *Histogram) Count() (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// Quantile returns the upper end of the bucket in which the quantile q lies,
// 0.5 being the median and 1 the longest; for the last bucket, its lower end. It
// returns 0 if nothing was counted.
func (h *Histogram) Quantile(q float64) time.Duration {
	total := h.Count()
	if total == 0 {
		return 0
	}
	rank := min(uint64(max(q, 0)*float64(total)), total-1)
	for i, c := range h.Counts {
		if rank < c {
			return h.Bound(i)
		}
		rank -= c
	}
	return h.Bound(histogramLen - 1)
}

// wakeProbe times a wake now and then: the waker of a task notes the time, and the
// worker that polls the task notes how long that took.
type wakeProbe struct {
	t  atomic.Pointer[task] // nil, a marker, or the task that was woken
	at atomic.Int64         // written before t
}

// Markers in a wakeProbe.
var (
	probeWanted = new(task) // the next wake is to be timed
	probeTaken  = new(task) // a waker is about to write
)

// woken is called by the waker of t, before it queues t.
func (p *wakeProbe) woken(t *task) {
	if p.t.Load() == probeWanted && p.t.CompareAndSwap(probeWanted, probeTaken) {
		p.at.Store(nanos())
		p.t.Store(t)
	}
}

// sampleEvery is how often a turn is chosen whose first poll and next wake are timed.
const sampleEvery = int64(50 * time.Microsecond)

// sample decides whether the first poll and the next wake are timed in the turn that begins.
func (w *worker) sample(now int64) {
	if w.sampled = now-w.sampledAt >= sampleEvery; !w.sampled {
		return
	}
	w.sampledAt = now
	if w.probe.t.Load() == nil {
		w.probe.t.Store(probeWanted)
	}
}

// polled notes how long a poll took.
func (w *worker) polled(took int64) { w.counts[countPollTime+histogramBucket(took)]++ }
