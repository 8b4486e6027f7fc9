//go:build !linux

package async

import "time"

// osThread is a thread of the system; see thread_linux.go. It cannot be asked anything.
type osThread struct{}

func callingThread() osThread { return osThread{} }

func (osThread) used() (d time.Duration, known bool) { return 0, false }
func (osThread) asleep() bool                        { return true }

func starvedThread(f func()) bool { f(); return false }
