package async

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// counter is the index of one of a worker's counts. A worker counts in plain variables
// (worker.counts), which only its own thread uses. publish copies them to worker.published, which
// any thread may read. A busy worker publishes at most every publishEvery. Before a park it
// publishes if the park gives up the P, or if the published counts are older than publishEvery.
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
	countPollTime                                // a histogram of histogramLen counts
	countWakeTime = countPollTime + histogramLen // another histogram
	counterCount  = countWakeTime + histogramLen
)

// publishEvery is the time after which a busy worker publishes its counts again.
const publishEvery = int64(time.Millisecond)

// publish lets other threads see the counts of w. Most counts do not change between two calls, so
// it compares before it stores: an atomic store costs more than a comparison. publish is called
// regularly, so it also sets the profiler labels again, and looks at the active set.
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

// ready returns the number of tasks that are queued on w. Tasks in the inbox, which w has not
// received yet, do not count.
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

// Metrics are the figures of a runtime ([Runtime.Metrics]) or of one worker
// ([Runtime.WorkerMetrics]) at one moment.
//
// A busy worker publishes its counts about once a millisecond, between rounds of up to 61 polls.
// While a worker is stuck in a poll, its counts are from the time before this poll. The counts of a
// worker that has just become idle are up to 10 milliseconds old. The fields are read one after the
// other, so sums of fields need not match exactly.
type Metrics struct {
	// Spawned is the number of tasks that were ever started. The internal tasks of [Runtime.Tasks]
	// count, too, and so do all calls of the pool of blocking calls: the calls of [SpawnBlocking],
	// and the calls of this package for files and names.
	Spawned uint64

	Ended uint64 // tasks of Spawned that have their result
	Alive uint64 // tasks of Spawned that have no result yet
	Polls uint64 // polls of tasks

	Stolen   uint64 // tasks that a worker took over from another worker
	Received uint64 // tasks that arrived from other threads: spawned or woken there

	// Woken is the number of wakes of tasks that waited. Further wakes of the same task before its
	// next poll do not count.
	Woken uint64

	// Parks is how often workers parked. Unparks is how often another thread unparked a worker,
	// which costs a system call or the wake of a goroutine.
	Parks   uint64
	Unparks uint64

	// Stalls is the number of polls that were found to take longer than [Config.Stall]. It is
	// always 0 for one worker.
	Stalls uint64

	Workers int // workers of the runtime; 1 for one worker
	Queued  int // tasks that are ready to run and that a worker has received
	Timers  int // timers that are set on workers

	// Sources is the number of connections, listeners and other descriptors in the pollers. The
	// number for the runtime includes the descriptors for which only goroutines wait.
	Sources int

	Coroutines     int // coroutines for straight-line tasks, the free coroutines included
	CoroutinesFree int // coroutines that are kept for the next tasks
	BlockOns       int // goroutines in [BlockOn]; always 0 for one worker

	// The pool of blocking calls. It runs the calls of [SpawnBlocking], and calls of this package
	// for files and names. All four numbers are 0 for one worker.
	Blocking           int // calls that run
	BlockingQueued     int // calls that wait for a goroutine of the pool
	BlockingGoroutines int // goroutines of the pool, the idle goroutines included
	BlockingIdle       int // goroutines of the pool that wait for the next call

	// PollTime is how long polls take. It is a sample: the first poll of a turn, at most once per
	// worker in 50 microseconds.
	PollTime Histogram

	// WakeTime is the time from a wake of a task to the next poll of this task. It is a sample: at
	// most one wake per worker in 50 microseconds.
	WakeTime Histogram
}

// Metrics returns the figures of the whole runtime. It costs microseconds and no allocation, and
// does not disturb the workers. It may be called from any goroutine, also after [Runtime.Shutdown].
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

// WorkerMetrics returns the figures of one worker. The number of the worker counts from 0. If there
// is no such worker, all figures are 0.
//
// Spawned and Ended say little about one worker: a task that is spawned outside the pool counts for
// no worker, and a task may end on another worker than the worker that spawned it. So Alive is 0.
// The figures of blocking calls, of stalls and of [BlockOn] belong to the runtime and are 0 here.
func (rt *Runtime) WorkerMetrics(worker int) (m Metrics) {
	if worker >= 0 && worker < len(rt.workers) {
		m.add(rt.workers[worker])
	}
	return m
}

// add adds the published counts of w to m.
func (m *Metrics) add(w *worker) {
	get := func(c counter) uint64 { return w.published[c].Load() }
	// Ended is read before Spawned. In the reverse order a task that is spawned and ends
	// between the two reads would count as ended and not as spawned.
	m.Ended += get(countEnded)
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

// add adds the figures of the pool to m. Calls that have ended count in Spawned and Ended, too.
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

// histogramLen is the number of buckets of a Histogram. The last but one ends at 4.3 seconds.
const histogramLen = 24

// A Histogram counts durations by their size, in buckets. The first bucket counts durations below
// 1.024 microseconds. Each further bucket ends at twice the end of the bucket before it. The last
// bucket counts all longer durations, from 4.3 seconds on. A Histogram is a plain value: its
// methods may be called concurrently unless another goroutine changes it.
type Histogram struct {
	// Counts[i] is the number of durations in bucket i.
	Counts [histogramLen]uint64
}

// histogramBucket returns the bucket of a duration of d nanoseconds.
func histogramBucket(d int64) counter {
	return counter(min(bits.Len64(uint64(max(d, 0))>>10), histogramLen-1))
}

// Bound returns the upper end of a bucket. For the last bucket, which has none, it returns the
// lower end.
func (h *Histogram) Bound(bucket int) time.Duration {
	return 1024 << min(bucket, histogramLen-2)
}

// Count returns the number of durations in all buckets.
func (h *Histogram) Count() (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// Quantile returns the upper end of the bucket that contains the quantile q: 0.5 is the median, 1
// is the longest duration. For the last bucket it returns the lower end. So the result is at most
// twice the true quantile. It returns 0 if the Histogram is empty.
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

// wakeProbe measures the time from a wake to the next poll, for one wake at a time. t says who may
// write:
//
//  1. The worker stores probeWanted while t is nil (sample).
//  2. The first thread that then wakes a task of this worker changes probeWanted to probeTaken by a
//     compare-and-swap. This thread alone writes at, and then stores the task in t (woken). It does
//     so before it queues the task.
//  3. The worker finds the task in t when it polls this task (beginPoll). It reads at, counts the
//     time, and stores nil in t.
//
// A thief stores nil in the probe of the worker from which it has taken tasks, because the task in
// t may be one of these tasks and is then not polled here (see steal).
type wakeProbe struct {
	t  atomic.Pointer[task] // nil, probeWanted, probeTaken, or the task that was woken
	at atomic.Int64         // the time of the wake, in nanos; written before t
}

// The markers in wakeProbe.t.
var (
	probeWanted = new(task) // the next wake is to be measured
	probeTaken  = new(task) // a thread is about to write at
)

// woken is called by the thread that wakes t, before it queues t. A wake from a bubble of
// testing/synctest, which has a clock of its own, is not measured: the next wake is.
func (p *wakeProbe) woken(t *task) {
	if p.t.Load() == probeWanted && p.t.CompareAndSwap(probeWanted, probeTaken) {
		now, bubble := clockNow()
		if bubble {
			p.t.Store(probeWanted)
			return
		}
		p.at.Store(now)
		p.t.Store(t)
	}
}

// sampleEvery is the least time between two turns whose first poll and next wake are measured.
const sampleEvery = int64(50 * time.Microsecond)

// sample decides whether the turn that begins now is measured: its first poll and its next wake.
func (w *worker) sample(now int64) {
	if w.sampled = now-w.sampledAt >= sampleEvery; !w.sampled {
		return
	}
	w.sampledAt = now
	if w.probe.t.Load() == nil {
		w.probe.t.Store(probeWanted)
	}
}

// polled counts the duration of a poll, in nanoseconds.
func (w *worker) polled(took int64) { w.counts[countPollTime+histogramBucket(took)]++ }
