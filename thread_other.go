//go:build !linux

package async

import "time"

// thread is a thread of the system; see thread_linux.go. It cannot be asked anything.
type thread struct{}

func callingThread() thread { return thread{} }

func (thread) used() (d time.Duration, known bool) { return 0, false }
func (thread) asleep() bool                        { return true }

func starvedThread(f func()) bool { f(); return false }
