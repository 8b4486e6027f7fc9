package async

import (
	"context"
	"fmt"
	"math"
	"runtime/pprof"
	"sync/atomic"
	"time"
)

// watchdog detects workers that do not begin a new turn because a task computes or blocks their
// thread. It lets another worker take over the tasks that may move (see steal and rescue), and calls
// the stallWatch.
//
// There is no periodic wake-up while the workers take turns:
//
//  1. A worker calls heartbeat as it begins a turn. When half of the timeout has passed, heartbeat
//     checks whether another worker is still in the turn seen at the last check, and sets the timer anew:
//     for a whole timeout, or to fire at once if there is such a worker.
//  2. The goroutine of the watchdog sleeps until the timer fires. Then it checks all workers, again
//     and again, until each of them sleeps or has begun a new turn.
//
// Only one thread checks at a time: it claims the watchdog by changing due to watchdogClaimed.
type watchdog struct {
	rt      *Runtime
	timeout int64 // nanoseconds from the last heartbeat that sets the timer until it fires
	timer   watchTimer
	due     atomic.Int64 // when the timer will fire, as nanos; 0: it is disarmed; or watchdogClaimed
	seen    []turnSeen   // by worker; guarded by the claim
	stopped atomic.Bool
	ended   chan struct{} // closed when the goroutine has ended

	stalls    *stallWatch // nil if stalls are not reported
	stallsDue int64       // when to call stalls.look next; used by the goroutine only
}

// turnSeen is the turn of a worker at the last check.
type turnSeen struct {
	turn  uint32
	since int64 // the first check at which the worker was in this turn
}

// watchdogClaimed is the value of due while a thread checks the workers.
const watchdogClaimed = math.MaxInt64

const (
	// maxWatchdogTimeout is the timeout unless Config.Stall is less than twice as long: then it
	// is half of that, so that a poll is seen before half of Stall has passed.
	maxWatchdogTimeout = int64(5 * time.Millisecond)

	// maxClockReads is the largest number of workers for which heartbeat notes the processor time of
	// the other workers. Each takes a system call.
	maxClockReads = 64

	// stuckAfter is how long a worker may stay in one turn after the first check before other
	// workers take over its tasks.
	stuckAfter = time.Millisecond
)

func newWatchdog(rt *Runtime) (*watchdog, error) {
	d := &watchdog{rt: rt, timeout: maxWatchdogTimeout, seen: make([]turnSeen, len(rt.workers)), ended: make(chan struct{})}
	if rt.cfg.Stall > 0 {
		d.stalls = newStallWatch(rt)
		d.timeout = min(d.timeout, int64(rt.cfg.Stall)/2)
	}
	if err := d.timer.open(); err != nil {
		return nil, fmt.Errorf("async: cannot watch the workers: %w", err)
	}
	return d, nil
}

// heartbeat is called by w as it begins a turn. now is the time, as nanos.
func (d *watchdog) heartbeat(w *worker, now int64) {
	due := d.due.Load()
	if due-now > d.timeout/2 || !d.due.CompareAndSwap(due, watchdogClaimed) {
		return
	}
	next := time.Duration(d.timeout)
	for i, o := range d.rt.workers {
		if o != w && d.checkTurn(i, o, now, len(d.rt.workers) <= maxClockReads) {
			next = 0
		}
	}
	d.releaseArmed(now, next)
}

// releaseArmed ends a claim and sets the timer to fire after next.
func (d *watchdog) releaseArmed(now int64, next time.Duration) {
	// due is stored before the timer is set: if the timer fires in between, the goroutine can claim.
	d.due.Store(now + d.timeout)
	d.timer.set(next)
}

// checkTurn reports whether w is still in the turn seen at the last check. If it has been for
// stuckAfter, it is marked as stuck. With clocks, the stallWatch also notes when it first saw a new turn.
func (d *watchdog) checkTurn(i int, w *worker, now int64, clocks bool) (same bool) {
	seen := &d.seen[i]
	asleep := w.asleep.Load() // before turn: see unpark
	turn := w.turn.Load()
	if !asleep && turn == seen.turn && turn != 0 {
		if now-seen.since >= int64(stuckAfter) {
			d.markStuck(w, turn)
		}
		return true
	}
	*seen = turnSeen{turn, now}
	if d.stalls != nil && clocks {
		d.stalls.checkTurn(i, w, time.Now())
	}
	return false
}

// disarm is called by a worker before a sleep that is likely to outlast the timeout. If all other
// workers sleep, it stops the timer, which would otherwise fire once in each such sleep.
func (d *watchdog) disarm(w *worker) {
	due := d.due.Load()
	if due == 0 || due == watchdogClaimed || d.rt.othersBusy(w) || !d.due.CompareAndSwap(due, watchdogClaimed) {
		return
	}
	d.timer.set(-1)
	d.releaseDisarmed(w)
}

// releaseDisarmed ends a claim without setting the timer: all workers sleep or have begun a new turn. w
// is the worker that calls it, or nil.
//
// A worker that wakes up during the claim does not set the timer. That is not missed:
//
//  1. The worker clears asleep, then reads due.
//  2. releaseDisarmed stores 0 in due, then reads asleep of each worker.
//
// So the worker sees that the timer is disarmed, or releaseDisarmed sees a worker that is awake.
func (d *watchdog) releaseDisarmed(w *worker) {
	d.due.Store(0)
	if d.rt.othersBusy(w) && d.due.CompareAndSwap(0, watchdogClaimed) {
		d.releaseArmed(nanos(), time.Duration(d.timeout))
	}
}

// run is the watchdog's goroutine. It claims the watchdog when the timer has fired.
func (d *watchdog) run() {
	pprof.SetGoroutineLabels(context.Background()) // not the labels of the caller of New
	defer close(d.ended)
	for d.waitTimer() {
		due := d.due.Load()
		if due == watchdogClaimed || !d.due.CompareAndSwap(due, watchdogClaimed) {
			continue // the thread that holds the claim will set the timer
		}
		next := d.look(due, true)
		for next > 0 {
			due := nanos() + int64(next)
			d.timer.set(next)
			if !d.waitTimer() {
				return
			}
			next = d.look(due, false)
		}
		d.releaseDisarmed(nil)
	}
}

// waitTimer waits until the timer fires, and reports false once the watchdog is stopped.
func (d *watchdog) waitTimer() bool {
	d.timer.wait()
	return !d.stopped.Load()
}

// look checks all workers and returns the time until the next look, or 0 if every worker sleeps or
// has begun a new turn. due is when look should have been called; 0 means now. At the first look of a claim
// any worker that is awake needs a second look.
func (d *watchdog) look(due int64, first bool) (next time.Duration) {
	now := nanos()
	awake, stuck := false, false
	for i, w := range d.rt.workers {
		if d.checkTurn(i, w, now, true) {
			stuck = true
		} else if !w.asleep.Load() {
			awake = true
		}
	}
	if !stuck && !(first && awake) {
		return 0
	}
	next = time.Duration(d.timeout)
	if first {
		next = min(next, stuckAfter)
	}
	if d.stalls == nil {
		return next
	}
	if first || now >= d.stallsDue {
		late := due != 0 && now-due > int64(d.stalls.every)/2
		d.stallsDue = now + int64(d.stalls.look(time.Now(), late))
	}
	return min(next, time.Duration(max(d.stallsDue-now, 1)))
}

// markStuck notes that w is stuck in this turn, and wakes a worker to take over its tasks, if it has any
// that may move; see steal.
func (d *watchdog) markStuck(w *worker, turn uint32) {
	w.stuckTurn.Store(turn)
	if w.inbox.Load() != nil || w.runNext.Load() != nil || w.queue.len() > 0 {
		d.rt.wakeOneOf(w, d.rt.workers)
	}
}

// stop ends the watchdog and waits for its goroutine and for the reports. It closes the timer first: a stuck
// worker that calls heartbeat later can no longer set it.
func (d *watchdog) stop() {
	d.stopped.Store(true)
	d.timer.close()
	<-d.ended
	if d.stalls != nil {
		d.stalls.reports.delivery.Wait()
	}
}
