package async

import (
	"time"
)

// pollRetry wakes the waiters of a direction when there will be no event, because
// the resource that they lack is not the socket's: ever more slowly, from the first
// delay on up to the last.
type pollRetry struct {
	dir         *direction
	first, last time.Duration

	mu    lockOf[pollRetry]
	delay time.Duration // of the next try after a failure; 0: the last try did not fail
	due   int64         // when the next try is; 0: it is not set
	alarm alarm
}

// later sets the time of the next try, unless it is set: however often other tasks
// fail meanwhile, it is not put off. But the timer moves to the worker of the caller, since
// the worker that it was set on may be another runtime's, which has ended.
func (r *pollRetry) later(cx *Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.due == 0 {
		r.delay = min(max(2*r.delay, r.first), r.last)
		r.due = cx.nanos() + int64(r.delay)
	}
	r.alarm.set(cx.here(), r.due, r)
}

func (r *pollRetry) succeeded() {
	r.mu.Lock()
	r.delay = 0
	r.mu.Unlock()
}

func (r *pollRetry) stop() {
	r.mu.Lock()
	r.alarm.stop(nil)
	r.mu.Unlock()
}

// expire implements expirer: one task that waits tries again.
func (r *pollRetry) expire(w *worker) {
	r.mu.Lock()
	r.due = 0
	r.mu.Unlock()
	r.dir.waiters.fireOne(w)
}
