package async

import (
	"sync/atomic"
	"time"
)

// ioDeadline is the deadline of one direction. The timer is set when a task waits, and
// moved only if it would fire too late: a deadline that is put off before each
// read costs nothing but the clock.
type ioDeadline struct {
	dir *direction
	at  atomic.Int64 // 0: none

	mu     lockOf[ioDeadline]
	alarm  alarm
	closed bool
}

// setDeadline sets the time after which operations fail; zero is none.
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
		at = max(nanosAt(t), 1)
	}
	l.at.Store(at)
	dir.waiters.notifyAll(nil) // the waiters must look at the new deadline
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

// arm sets the timer, so that the waiters are woken at the deadline.
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

// expire implements expirer.
func (l *ioDeadline) expire(w *worker) { l.dir.waiters.notifyAll(w) }

// end wakes the waiters, for the last time.
func (dir *direction) end() {
	dir.waiters.fire(nil)
	if l := dir.deadline.Load(); l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.closed = true
		l.alarm.stop(nil)
	}
}
