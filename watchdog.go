package async

import (
	"context"
	"fmt"
	"math"
	"runtime/pprof"
	"sync/atomic"
	"time"
)

// watchdog finds workers that do not come round, since a task computes or blocks their thread.
// It has another worker take over what they can be relieved of (see rescue), and the stallWatch
// look at them.
//
// Nothing is done by the clock. The workers feed the watchdog as they begin their turns, which puts
// off a timer of the kernel's now and then; who does that also looks whether another worker
// is in the same turn as the last time. The watchdog's goroutine sleeps until that is so, or
// the timer fires since nobody feeds: then it looks itself, again and again, until all workers
// sleep or come round.
type watchdog struct {
	rt       *Runtime
	patience int64 // how long after it was fed last it looks at the workers; it is fed when half of that is over
	timer    watchTimer
	due      atomic.Int64 // when the timer will fire; 0 if it is not set; watchdogLooks
	seen     []sighting   // of who has claimed it
	over     atomic.Bool
	ended    chan struct{}

	stalls    *stallWatch // nil if stalls are not reported
	stallsDue int64       // when it is to look next; its goroutine's
}

// sighting is what the watchdog knows of a worker.
type sighting struct {
	turn  uint32
	since int64 // the first look at this turn
}

// watchdogLooks stands in due while somebody looks at the workers, who has claimed the
// watchdog by that.
const watchdogLooks = math.MaxInt64

const (
	// watchdogPatience is the longest patience. It is less for a Config.Stall that is less than
	// twice that, so that a poll is seen soon enough.
	watchdogPatience = int64(5 * time.Millisecond)

	// feedersSee is how many workers a runtime has at most whose feeders note the processor time of the
	// others, which takes a system call for each.
	feedersSee = 64

	// stuckFor is how long a worker may take over one turn, once it is looked at, before it is
	// relieved.
	stuckFor = time.Millisecond
)

func newWatchdog(rt *Runtime) (*watchdog, error) {
	d := &watchdog{rt: rt, patience: watchdogPatience, seen: make([]sighting, len(rt.workers)), ended: make(chan struct{})}
	if rt.cfg.Stall > 0 {
		d.stalls = newStallWatch(rt)
		d.patience = min(d.patience, int64(rt.cfg.Stall)/2)
	}
	if err := d.timer.open(); err != nil {
		return nil, fmt.Errorf("async: cannot watch the workers: %w", err)
	}
	return d, nil
}

// feed is called by a worker that begins a turn.
func (d *watchdog) feed(w *worker, now int64) {
	due := d.due.Load()
	if due-now > d.patience/2 || !d.due.CompareAndSwap(due, watchdogLooks) {
		return
	}
	next := time.Duration(d.patience)
	for i, o := range d.rt.workers {
		if o != w && d.sees(i, o, now, len(d.rt.workers) <= feedersSee) {
			next = 0
		}
	}
	d.setTimer(now, next)
}

// setTimer ends a claim.
func (d *watchdog) setTimer(now int64, next time.Duration) {
	// The timer comes second: if it fires before it is set anew, who is woken can look.
	d.due.Store(now + d.patience)
	d.timer.set(next)
}

// sees looks at a worker, and reports whether it is in the same turn as at the last look. If it
// has been for long, it is relieved. With clocks, the stallWatch notes when the turn was seen first.
func (d *watchdog) sees(i int, w *worker, now int64, clocks bool) (same bool) {
	seen := &d.seen[i]
	asleep := w.asleep.Load() // before turn: see rouse
	turn := w.turn.Load()
	if !asleep && turn == seen.turn && turn != 0 {
		if now-seen.since >= int64(stuckFor) {
			d.relieve(w, turn)
		}
		return true
	}
	*seen = sighting{turn, now}
	if d.stalls != nil && clocks {
		d.stalls.sees(i, w, time.Now())
	}
	return false
}

// rests is called by a worker that is about to sleep, for longer than the watchdog is patient
// if all goes on as before. So the timer does not fire each time.
func (d *watchdog) rests(w *worker) {
	due := d.due.Load()
	if due == 0 || due == watchdogLooks || d.rt.othersBusy(w) || !d.due.CompareAndSwap(due, watchdogLooks) {
		return
	}
	d.timer.set(-1)
	d.settle(w)
}

// settle ends a claim after all workers have been seen to sleep or to come round. w is the worker
// that calls it, or nil.
//
// A worker that has woken up meanwhile may have found the watchdog claimed, and not fed it. It has
// said first that it is awake, and looked at due then; this does the reverse.
func (d *watchdog) settle(w *worker) {
	d.due.Store(0)
	if d.rt.othersBusy(w) && d.due.CompareAndSwap(0, watchdogLooks) {
		d.setTimer(nanos(), time.Duration(d.patience))
	}
}

// run is the goroutine.
func (d *watchdog) run() {
	pprof.SetGoroutineLabels(context.Background()) // not those of whoever has called New
	defer close(d.ended)
	for d.sleep() {
		due := d.due.Load()
		if due == watchdogLooks || !d.due.CompareAndSwap(due, watchdogLooks) {
			continue // who looks now will set the timer
		}
		next := d.look(due, true)
		for next > 0 {
			due := nanos() + int64(next)
			d.timer.set(next)
			if !d.sleep() {
				return
			}
			next = d.look(due, false)
		}
		d.settle(nil)
	}
}

// sleep waits for the timer, and reports false at the end.
func (d *watchdog) sleep() bool {
	d.timer.wait()
	return !d.over.Load()
}

// look looks at all workers, and returns when to look again; 0 if all sleep or come round. It was
// to be called at due; 0 is now. At the first look nobody knows who comes round.
func (d *watchdog) look(due int64, first bool) (next time.Duration) {
	now := nanos()
	awake, stuck := false, false
	for i, w := range d.rt.workers {
		if d.sees(i, w, now, true) {
			stuck = true
		} else if !w.asleep.Load() {
			awake = true
		}
	}
	if !stuck && !(first && awake) {
		return 0
	}
	next = time.Duration(d.patience)
	if first {
		next = min(next, stuckFor)
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

// relieve has another worker take over tasks of w, if there are any and it is still in this
// turn; see steal.
func (d *watchdog) relieve(w *worker, turn uint32) {
	w.stuckTurn.Store(turn)
	if w.inbox.Load() != nil || w.next.Load() != nil || w.queue.len() > 0 {
		d.rt.help(w)
	}
}

// stop ends the watchdog, and waits for that and for the reports. Workers that are stuck may
// feed it still: the timer is closed before, so that none can put it off.
func (d *watchdog) stop() {
	d.over.Store(true)
	d.timer.close()
	<-d.ended
	if d.stalls != nil {
		d.stalls.reports.delivery.Wait()
	}
}
