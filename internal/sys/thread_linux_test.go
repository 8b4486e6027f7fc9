package sys

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A thread that has just been woken, and begins to run on an idle processor, is not starved.
func TestWokenThreadIsNotStarved(t *testing.T) {
	c := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for range c {
		}
	}()
	starved := 0
	const times = 100
	for range times {
		time.Sleep(5 * time.Millisecond) // the processors are idle
		if HasStarvedThread(func() { c <- struct{}{} }) {
			starved++
		}
	}
	close(c)
	<-ended
	require.Less(t, starved, times/4)
}
