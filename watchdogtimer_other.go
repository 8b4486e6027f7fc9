//go:build !linux

package async

import "time"

// watchTimer is a timer for which one goroutine waits.
type watchTimer struct {
	timer *time.Timer
	fired chan struct{}
}

func (t *watchTimer) open() error {
	t.fired = make(chan struct{}, 1)
	t.timer = time.AfterFunc(time.Hour, func() { notifyChan(t.fired) })
	t.timer.Stop()
	return nil
}

// set makes the timer fire once after d: at once if d is 0, never if d is negative. It replaces the previous
// setting.
func (t *watchTimer) set(d time.Duration) {
	if d < 0 {
		t.timer.Stop()
	} else {
		t.timer.Reset(d)
	}
}

// wait returns when the timer has fired, or may have, or is closed.
func (t *watchTimer) wait() { <-t.fired }

// close makes wait return.
func (t *watchTimer) close() { notifyChan(t.fired) }
