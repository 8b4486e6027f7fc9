package async

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"example.com/async/internal/sys"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// threadTime returns how much processor time the calling thread has used.
func threadTime() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano())
}

// hog keeps one processor busy until the end of the test or the call of stop. It returns the number
// of the processor.
func hog(t *testing.T) (processor int, stop func()) {
	var allowed unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &allowed))
	for !allowed.IsSet(processor) {
		processor++
	}
	release, free := newRelease(t)
	ready := make(chan error, 1)
	var over sync.WaitGroup
	over.Go(func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		var one unix.CPUSet
		one.Set(processor)
		ready <- unix.SchedSetaffinity(0, &one)
		computesHere(release)
	})
	require.NoError(t, receive(t, ready))
	return processor, func() { free(); over.Wait() }
}

// A poll that computes for a few milliseconds is no stall, even if it takes many times as long
// because another thread has the processor.
func TestStallOffTheProcessor(t *testing.T) {
	log := newStallLog()
	processor, stop := hog(t)
	rt := newTestRuntime(t, Config{Workers: 1, Tuning: Tuning{Affinity: [][]int{{processor}}}, Stalled: log.add})
	h := Spawn(rt.Named("starved"), func(cx *Context) (took time.Duration, err error) {
		// A thread of this policy gets very little time beside other threads.
		if err = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0); err != nil {
			return 0, err
		}
		for took < 10*defaultStall { // again and again, until the hog has had the processor meanwhile
			if err = Yield(cx); err != nil {
				return took, err
			}
			begun := time.Now()
			for used := threadTime(); threadTime()-used < defaultStall/4; {
			}
			took = max(took, time.Since(begun))
		}
		return took, nil
	})
	took, err := join(t, h)
	require.NoError(t, err)
	require.Zero(t, log.rest("starved"), "a poll that took %v", took)
	stop()
}

// sys.HasStarvedThread finds a thread that is ready to run and has no processor.
func TestStarvedThread(t *testing.T) {
	// Otherwise this goroutine would have to take the P of the hog, and the thread would run
	// meanwhile.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	processor, stop := hog(t)
	release, free := newRelease(t)
	ready := make(chan error, 1)
	var over sync.WaitGroup
	over.Go(func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		var one unix.CPUSet
		one.Set(processor)
		err := unix.SchedSetaffinity(0, &one)
		if err == nil {
			err = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
		}
		ready <- err
		computesHere(release)
	})
	require.NoError(t, receive(t, ready))
	called := 0
	eventually(t, func() bool { return sys.HasStarvedThread(func() { called++ }) })
	require.Positive(t, called)
	stop()
	free()
	over.Wait()
}
