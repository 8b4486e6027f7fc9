//go:build !linux

package async

import "time"

// watchTimer is a timer for which one goroutine waits: a timer of package time. On Linux it is a
// timerfd, which costs less; see watchdogtimer_linux.go.
type watchTimer struct {
	timer *time.Timer
	fired chan struct{} // capacity 1: the timer has fired since the last wait
}

// open makes the timer, which is not set. It always succeeds.
func (t *watchTimer) open() error {
	t.fired = make(chan struct{}, 1)
	t.timer = time.AfterFunc(time.Hour, func() { notifyChan(t.fired) })
	t.timer.Stop()
	return nil
}

// set makes the timer fire once after d: at once if d is 0, never if d is negative. It replaces the
// last setting. A setting after close wakes no goroutine. One thread at a time calls it.
func (t *watchTimer) set(d time.Duration) {
	if d < 0 {
		t.timer.Stop()
	} else {
		t.timer.Reset(d)
	}
}

// wait returns when the timer has fired or is closed. It may also return early.
func (t *watchTimer) wait() { <-t.fired }

// close makes wait return.
func (t *watchTimer) close() { notifyChan(t.fired) }
