package async

import (
	"math"
	"runtime"
	"time"
)

// park waits for something to do, in the kernel or parked. If it reports true, it has waited, and looked is the time
// at which it woke.
//
// Against a lost wake-up, it first says that it sleeps and then looks whether
// there is something; who has something for it does the reverse.
func (w *worker) park(now int64) (waited bool) {
	w.asleep.Store(true)
	if w.inbox.Load() != nil || w.dropped.Load() != nil || w.rt.stopping.Load() || w.acked.Load() != w.rt.countRequests.Load() {
		w.asleep.Store(false)
		w.stopped = w.rt.stopping.Load()
		return false
	}
	w.setVisible(nil) // so that what ran last can be collected
	w.counts[countWaits]++
	w.parkedTime.Store(w.parkedTime.Load() - now)
	timeout, how := w.chooseParkMode(now)
	if how != parkKeepsP || now-w.publishedAt >= publishEvery {
		w.publish(now)
	}
	if w.idleGap >= w.rt.watchdog.timeout || now-w.lastWork >= int64(keepP) { // it is likely to outlast the timeout
		w.rt.watchdog.disarm(w)
	}
	if how == parkGivesUpP {
		w.parkWithoutP(timeout)
		timeout = 0
	}
	if how == parkTellsScheduler && w.rt.cfg.SharedProcs {
		runtime.Gosched() // or the goroutines in the queue of its P wait until sysmon takes the P
	}
	events := w.reactor.wait(timeout, how != parkTellsScheduler)
	w.turn.Add(1) // see unpark
	w.asleep.Store(false)
	w.reactorPolledAt = nanos()
	slept := w.reactorPolledAt - now
	w.parkedTime.Store(w.parkedTime.Load() + w.reactorPolledAt)
	w.idleGap = w.reactorPolledAt - w.lastWork
	w.rt.watchdog.heartbeat(w, w.reactorPolledAt)
	w.workerSpin.slept(w.inbox.Load() != nil, slept)
	w.peerSpin.slept(w.samePeer(events), slept)
	w.reactor.dispatch(w, events)
	if len(events) > 0 {
		w.lastWork = w.reactorPolledAt
	}
	return true
}

// chooseParkMode is how a worker rests.
type parkMode int

const (
	parkKeepsP         parkMode = iota // in the kernel, and the scheduler does not know
	parkTellsScheduler                 // in the kernel, and the scheduler may take the P
	parkGivesUpP                       // see parkWithoutP
)

// parkedTimers is how long before its next timer a parked worker must be unparked: the timers of Go may be a
// millisecond late while nothing else runs. If goroutines use all processors, they are later than that.
const parkedTimers = 2 * time.Millisecond

// chooseParkMode returns how long to wait, for ever if that is negative, and how.
//
// The P is kept for a while after there was something to do, if there are descriptors from which more may
// come. After keepP the worker parks, and at once if goroutines wait for the P; but not shortly before its next
// timer, and not where it cannot.
func (w *worker) chooseParkMode(now int64) (timeout time.Duration, how parkMode) {
	const forEver = time.Duration(math.MaxInt64)
	how = parkTellsScheduler
	readied := w.madeRunnable
	w.madeRunnable = false
	if w.rt.ownProcs.raised.Load() && !readied && w.reactor.sources.Load() > 0 {
		how = parkKeepsP
	}
	timer := forEver
	if at, ok := w.timers.next(); ok {
		timer = max(time.Duration(at-nanos()), 0)
	}
	timeout = time.Duration(w.lastWork-now) + keepP
	if how == parkTellsScheduler && !w.rt.idle.usable {
		timeout = forEver
	}
	if timeout <= 0 || readied {
		timeout = forEver
		if !w.rt.idle.usable {
			how = parkTellsScheduler
		} else if timer > parkedTimers {
			how = parkGivesUpP
		}
	}
	if how == parkGivesUpP && timer < forEver {
		timer -= parkedTimers
	}
	timeout = min(timeout, timer)
	if w.counts[countFree] > keepFree {
		timeout = min(timeout, max(time.Duration(w.trimmedAt-now)+trimEvery, 0))
	}
	if timeout == forEver {
		timeout = -1
	}
	return timeout, how
}

// unpark wakes w if it sleeps. It costs a system call only then.
//
// Against a lost wake-up: the sender first writes what it has to say, then
// reads asleep; the worker first sets asleep, then looks at what was written.
//
// It also moves the turn, before: until w really runs it must look like one that
// has begun a turn just now, and not like one that is stuck since it fell asleep.
func (w *worker) unpark() {
	if !w.asleep.Load() {
		return
	}
	w.turn.Add(1)
	if w.asleep.CompareAndSwap(true, false) {
		w.unparks.Add(1)
		if w.withoutP.Load() {
			callersWorker().noteRunnable()
			w.unparkWithoutP()
		} else {
			w.reactor.wake()
		}
	}
}

// spin looks for events instead of waiting for them.
func (w *worker) spin() {
	if w.madeRunnable {
		w.madeRunnable = false
		runtime.Gosched() // see noteRunnable
	}
	w.reactorPolledAt = nanos()
	w.reactor.poll(w)
	w.stopped = w.rt.stopping.Load()
}

// noteRunnable notes that w, if it is not nil, makes a goroutine runnable. That one
// now stands in the queue of w's P, and other threads leave it there for a while
// as long as the P seems to be running.
func (w *worker) noteRunnable() {
	if w != nil {
		w.madeRunnable = true
	}
}
