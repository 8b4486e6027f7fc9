package async

import (
	"math"
	"runtime"
	"time"
)

// wait waits until w has something to do. It reports true if it has parked: then reactorPolledAt is the time now.
func (w *worker) wait(now int64) (parked bool) {
	switch {
	case now-w.lastWork < int64(w.rt.cfg.Tuning.Spin):
		w.spin()
		return false
	case w.spinForReply(now):
		return false
	}
	return w.park(now)
}

// park waits for an event, a task or a timer, in the kernel or without a P. It reports false if it has not waited,
// because there is something to do.
//
// Against a lost wake-up:
//
//  1. The worker sets asleep, then looks at its inbox, dropped timers, stopping and the requests for counts.
//  2. The sender writes to one of those, then reads asleep (unpark).
//
// So either the worker sees what was written, or the sender sees that the worker must be woken.
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

// parkMode says how a worker parks.
type parkMode int

const (
	parkKeepsP         parkMode = iota // in the kernel, and the scheduler does not know
	parkTellsScheduler                 // in the kernel, and the scheduler may take the P
	parkGivesUpP                       // see parkWithoutP
)

// timerLead is how long before its next timer a worker without a P must be woken. Go's own timers may be a
// millisecond late while nothing else runs, and later than that if goroutines use all processors.
const timerLead = 2 * time.Millisecond

// chooseParkMode returns how long to wait, for ever if that is negative, and how.
//
// The worker keeps its P for keepP after its last work, if it has descriptors, from which more may come. After that it
// gives up the P. It does so at once if it has made goroutines runnable, which need the P. It does not if its next timer
// is near, or if the system cannot watch pollers.
func (w *worker) chooseParkMode(now int64) (timeout time.Duration, how parkMode) {
	const forEver = time.Duration(math.MaxInt64)
	how = parkTellsScheduler
	runnable := w.madeRunnable
	w.madeRunnable = false
	if w.rt.ownProcs.raised.Load() && !runnable && w.reactor.registered.Load() > 0 {
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
	if timeout <= 0 || runnable {
		timeout = forEver
		if !w.rt.idle.usable {
			how = parkTellsScheduler
		} else if timer > timerLead {
			how = parkGivesUpP
		}
	}
	if how == parkGivesUpP && timer < forEver {
		timer -= timerLead
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

// unpark wakes w if it is parked. Only then it costs a system call. The caller has written what w is to find; see park.
//
// It changes turn first. Until w really runs, w must look like a worker that has begun a turn just now, and not like one
// that has been stuck since it parked.
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

// noteRunnable notes that w, if it is not nil, makes a goroutine runnable. The goroutine is now in the queue of w's P.
// Other threads leave it there for a while if the P seems to be running.
func (w *worker) noteRunnable() {
	if w != nil {
		w.madeRunnable = true
	}
}
