package async

import (
	"sync/atomic"
	"time"
)

// ioDeadline is the deadline of one direction. It is made by the first setDeadline and then stays.
//
// The timer is not set by setDeadline. A task sets it when it begins to wait (arm), and only if the
// timer is not set or would fire too late. A timer that fires too early wakes the waiters, which
// look at the deadline and set the timer again. So a program that extends a deadline before each
// read pays for a look at the clock and a few atomic operations, and hardly ever for a timer.
//
// Setting a deadline while a task begins to wait:
//
//  1. setDeadline stores at, and then notifies the waiters.
//  2. The waiter joins its slot, and then reads at (arm).
//
// So the waiter reads the new deadline, or is notified and looks again.
type ioDeadline struct {
	dir *direction
	at  atomic.Int64 // in nanos; 0 if there is none

	mu     lockOf[ioDeadline] // held while the timer is set, since several tasks may arm at the same time
	alarm  alarm
	closed bool // the direction has ended, so the timer is no longer set
}

// setDeadline sets the time after which operations fail. The zero time means that there is no
// deadline.
func (dir *direction) setDeadline(t time.Time) {
	l := dir.deadline.Load()
	if l == nil {
		if t.IsZero() {
			return
		}
		dir.deadline.CompareAndSwap(nil, &ioDeadline{dir: dir})
		l = dir.deadline.Load()
	}
	at := int64(0)
	if !t.IsZero() {
		// 0 would mean that there is no deadline.
		at = max(nanosAt(t), 1)
	}
	l.at.Store(at)
	dir.waiters.notifyAll(nil) // step 1 at ioDeadline
}

// expired reports whether the deadline has passed.
func (dir *direction) expired(cx *Context) bool {
	l := dir.deadline.Load()
	if l == nil {
		return false
	}
	at := l.at.Load()
	return at != 0 && cx.nanos() >= at
}

// arm makes sure that the timer fires at the deadline or earlier. The caller has joined the slot.
// The timer is set on the caller's worker, or is a timer of Go's if there is no worker. If it was
// set on another worker, it moves to the caller's worker.
func (dir *direction) arm(cx *Context) {
	l := dir.deadline.Load()
	if l == nil {
		return
	}
	at := l.at.Load()
	if at == 0 {
		return
	}
	w := cx.here()
	l.mu.Lock()
	defer l.mu.Unlock()
	if armed := l.alarm.armedAt(w); !l.closed && (armed < 0 || armed > tickAfter(at)) {
		l.alarm.set(w, at, l)
	}
}

// expire implements expirer. It wakes all waiters, which look at the deadline.
func (l *ioDeadline) expire(w *worker) { l.dir.waiters.notifyAll(w) }

// end wakes the waiters and stops the timer. The pollFD is closed or detached: the waiters, and all
// later ones, fail with net.ErrClosed.
func (dir *direction) end() {
	dir.waiters.fire(nil)
	if l := dir.deadline.Load(); l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.closed = true
		l.alarm.stop(nil)
	}
}
