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
// thread. Such a worker is stuck. The watchdog makes another worker take over the tasks that may
// move (see executorsteal.go), and calls the stallWatch, which reports the poll.
//
// Refused: a goroutine that checks all workers periodically, because each tick wakes a thread of
// Go's scheduler. At 500 requests per second that took a quarter of the processor time. Instead
// there is a timer, and three rules:
//
//  1. Heartbeat. A worker calls heartbeat when it begins a turn, and after a park. If the timer is
//     due within half of the timeout, heartbeat compares the turn of each other worker with the
//     turn that the last check has seen. If all turns have changed, it sets the timer to fire after
//     the timeout. If one has not, that worker may be stuck, and heartbeat makes the timer fire at
//     once.
//  2. Look. The goroutine of the watchdog sleeps until the timer fires. That happens only if rule 1
//     has found such a worker, if the polls of all awake workers take longer than half of the
//     timeout, or if the runtime has just become idle. The goroutine then checks all workers again
//     and again, until each of them sleeps or has begun a new turn (look). Then it disarms the
//     timer.
//  3. Disarm. A worker disarms the timer before it sleeps, if all other workers sleep and if its
//     sleep is likely to outlast the timeout (park, disarm). Otherwise the timer would fire once in
//     each such sleep. A shorter sleep leaves the timer armed, since to set it costs a system call.
//
// So while workers take turns no thread wakes for the watchdog, and while they sleep the timer is
// disarmed.
//
// # The claim
//
// due is the state of the watchdog:
//
//	0                the timer is disarmed
//	a time           the timer is armed, and fires at this time or before
//	watchdogClaimed  one thread checks the workers and then sets the timer
//
// A thread claims the watchdog by a compare-and-swap of due to watchdogClaimed. Only the holder of
// the claim uses seen and sets the timer. A thread that fails to claim does nothing: the holder
// looks after the timer. The holder ends the claim by releaseArmed or releaseDisarmed, which say
// what they do against races.
//
// # Turns
//
// A check compares worker.turn with the value that the last check has seen. A worker is stuck if
// turn is the same at two checks that are stuckAfter apart, and the worker is not asleep. A worker
// changes turn when it begins a turn and after a park, and in long work between polls
// (countProgress). A sender that unparks a worker changes turn for it before it clears asleep, and
// a check reads asleep before turn. So a worker that was unparked and does not run yet is not taken
// to be stuck in its last turn. Turn 0 is a worker that has not begun.
type watchdog struct {
	rt      *Runtime
	timeout int64 // for how many nanoseconds heartbeat sets the timer, unless a worker may be stuck
	timer   watchTimer
	due     atomic.Int64 // when the timer fires at the latest, in nanos; 0: disarmed; watchdogClaimed
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

// watchdogClaimed is the value of due while a thread holds the claim.
const watchdogClaimed = math.MaxInt64

const (
	// maxWatchdogTimeout is the timeout, in nanoseconds. If Config.Stall is less than twice as
	// long, the timeout is half of Config.Stall, so that a poll is seen before half of Stall has
	// passed.
	maxWatchdogTimeout = int64(5 * time.Millisecond)

	// maxClockReads is the largest number of workers for which heartbeat notes the processor time
	// of the other workers. Each reading takes a system call.
	maxClockReads = 64

	// stuckAfter is how long a worker may stay in one turn, from the first check that sees the
	// turn, before other workers take over its tasks.
	stuckAfter = time.Millisecond
)

// newWatchdog returns a watchdog whose timer is open and disarmed. Its goroutine is run.
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

// heartbeat is rule 1. w calls it when it begins a turn, and after a park. now is the time, as
// nanos.
//
// In most calls the timer is due later, and it costs one atomic load. If the timer is disarmed (0),
// the condition holds, and heartbeat arms it. If another thread holds the claim, due is
// watchdogClaimed, which is later than any time.
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

// releaseArmed ends a claim and sets the timer to fire after next, which is at most the timeout.
//
// due is stored before the timer is set. If the timer were set first, it might fire while due is
// still watchdogClaimed. The goroutine would then fail to claim, and wait for a timer that has
// fired already.
func (d *watchdog) releaseArmed(now int64, next time.Duration) {
	d.due.Store(now + d.timeout)
	d.timer.set(next)
}

// checkTurn reports whether w, which is worker i, is still in the turn that the last check has
// seen. If it has been in that turn for stuckAfter, it is marked as stuck. With clocks, the
// stallWatch notes a new turn, too, with the time and the processor time of the thread. The claim
// is held.
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

// disarm is rule 3. w calls it before a sleep that is likely to outlast the timeout. w has set
// asleep. If another worker is awake, disarm does nothing, since that worker's heartbeats need the
// timer.
func (d *watchdog) disarm(w *worker) {
	due := d.due.Load()
	if due == 0 || due == watchdogClaimed || d.rt.othersBusy(w) || !d.due.CompareAndSwap(due, watchdogClaimed) {
		return
	}
	d.timer.set(-1)
	d.releaseDisarmed(w)
}

// releaseDisarmed ends a claim without setting the timer: all workers sleep or have begun a new
// turn. w is the worker that calls it, or nil.
//
// A worker that wakes up during the claim cannot set the timer, because its heartbeat fails to
// claim. The timer is set all the same:
//
//  1. The worker clears asleep (or its sender does), then reads due in its heartbeat.
//  2. releaseDisarmed stores 0 in due, then reads asleep of each worker.
//
// So the heartbeat sees that the timer is disarmed and arms it, or releaseDisarmed sees a worker
// that is awake and arms it. Both may try: then one of them claims.
func (d *watchdog) releaseDisarmed(w *worker) {
	d.due.Store(0)
	if d.rt.othersBusy(w) && d.due.CompareAndSwap(0, watchdogClaimed) {
		d.releaseArmed(nanos(), time.Duration(d.timeout))
	}
}

// run is the goroutine of the watchdog: rule 2. When the timer has fired it claims the watchdog,
// and keeps the claim during all its looks. If another thread holds the claim, that thread sets the
// timer, and run waits again.
func (d *watchdog) run() {
	pprof.SetGoroutineLabels(context.Background()) // not the labels of the caller of New
	defer close(d.ended)
	for d.waitTimer() {
		due := d.due.Load()
		if due == watchdogClaimed || !d.due.CompareAndSwap(due, watchdogClaimed) {
			continue // the holder of the claim sets the timer
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

// waitTimer waits until the timer fires. It reports false if the watchdog is stopped.
func (d *watchdog) waitTimer() bool {
	d.timer.wait()
	return !d.stopped.Load()
}

// look checks all workers and calls the stallWatch. It returns the time until the next look, or 0
// if every worker sleeps or has begun a new turn. due is when look should have been called; 0 means
// now. If look is much later than due, the goroutine itself got no processor, and the stallWatch
// must know that.
//
// first says that it is the first look of a claim. Then a worker that is awake needs a second look
// also if its turn is new, because a long poll may have just begun. This second look comes after
// stuckAfter.
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

// markStuck notes that w is stuck in this turn, and wakes a worker to take over its tasks, if it
// has tasks that may move. It stores stuckTurn first, so that the worker that it wakes sees it. It
// is called again at each check while w is stuck: tasks that have come since then are taken over,
// too.
func (d *watchdog) markStuck(w *worker, turn uint32) {
	w.stuckTurn.Store(turn)
	if w.inbox.Load() != nil || w.runNext.Load() != nil || w.queue.len() > 0 {
		d.rt.wakeOneOf(w, d.rt.workers)
	}
}

// stop ends the watchdog. It waits for its goroutine and for the reports that have not been
// delivered. The timer is closed before the goroutine ends. A worker that Shutdown has left stuck
// may call heartbeat later. It then sets a closed timer, which has no effect.
func (d *watchdog) stop() {
	d.stopped.Store(true)
	d.timer.close()
	<-d.ended
	if d.stalls != nil {
		d.stalls.reports.delivery.Wait()
	}
}
