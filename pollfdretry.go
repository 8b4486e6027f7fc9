package async

import (
	"time"
)

// pollRetry wakes the waiters of a direction from time to time when there will be no event: they
// lack a resource that is not the socket's, for example memory of the system or a free descriptor.
// The delay doubles with each failure, from first to last. It starts again at first when a try
// succeeds.
//
// A waiter that fails joins its slot and calls later. When the timer fires, one waiter tries. If it
// fails, it calls later again; if it succeeds, it calls succeeded, and passes the wake on as after
// an event.
type pollRetry struct {
	dir         *direction
	first, last time.Duration

	mu    lockOf[pollRetry]
	delay time.Duration // of the next try after a failure; 0 if the last try did not fail
	due   int64         // the time of the next try, in nanos; 0 if it is not set
	alarm alarm
}

// later sets the time of the next try, unless it is set. So failures of other tasks do not delay
// the try. The timer moves to the worker of the caller in any case: it may have been set on a
// worker of another runtime, which has ended.
func (r *pollRetry) later(cx *Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.due == 0 {
		r.delay = min(max(2*r.delay, r.first), r.last)
		r.due = cx.nanos() + int64(r.delay)
	}
	r.alarm.set(cx.here(), r.due, r)
}

// succeeded resets the delay.
func (r *pollRetry) succeeded() {
	r.mu.Lock()
	r.delay = 0
	r.mu.Unlock()
}

// stop stops the timer.
func (r *pollRetry) stop() {
	r.mu.Lock()
	r.alarm.stop(nil)
	r.mu.Unlock()
}

// expire implements expirer. One of the tasks that wait tries again.
func (r *pollRetry) expire(w *worker) {
	r.mu.Lock()
	r.due = 0
	r.mu.Unlock()
	r.dir.waiters.fireOne(w)
}
