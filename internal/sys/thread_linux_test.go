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
	// Where other programs use the processors, some threads are starved. So the test tries again.
	few := false
	for range 20 {
		starved := 0
		const times = 20
		for range times {
			time.Sleep(5 * time.Millisecond) // the processors are idle
			if HasStarvedThread(func() { c <- struct{}{} }) {
				starved++
			}
		}
		if few = starved < times/4; few {
			break
		}
	}
	close(c)
	<-ended
	require.True(t, few)
}
