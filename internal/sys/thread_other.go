//go:build !linux

package sys

import "time"

// Thread is a thread of the system; see thread_linux.go. This system reports nothing about it.
type Thread struct{}

// CallingThread returns the thread that runs the caller.
func CallingThread() Thread { return Thread{} }

// Used returns false.
func (Thread) Used() (d time.Duration, known bool) { return 0, false }

// Asleep returns true.
func (Thread) Asleep() bool { return true }

// HasStarvedThread calls f, and returns false.
func HasStarvedThread(f func()) bool { f(); return false }
