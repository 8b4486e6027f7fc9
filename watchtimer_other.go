//go:build !linux

package async

import "time"

// watchTimer is a timer that one goroutine waits for.
type watchTimer struct {
	timer *time.Timer
	fired chan struct{}
}

func (t *watchTimer) open() error {
	t.fired = make(chan struct{}, 1)
	t.timer = time.AfterFunc(time.Hour, func() { notify(t.fired) })
	t.timer.Stop()
	return nil
}

// set has the timer fire once after d, at once if that is 0, and never if it is negative.
// What it was set to before is void.
func (t *watchTimer) set(d time.Duration) {
	if d < 0 {
		t.timer.Stop()
	} else {
		t.timer.Reset(d)
	}
}

// wait returns when the timer has fired, or may have, or is closed.
func (t *watchTimer) wait() { <-t.fired }

// close has the timer fire for the last time.
func (t *watchTimer) close() { notify(t.fired) }
